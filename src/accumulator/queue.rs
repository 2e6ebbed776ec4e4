//! A partition's queue of batches: users' threads append at its end, the sender takes from its
//! front, and puts back there what is to be tried again.

use std::collections::VecDeque;
use std::time::Duration;

use super::batch::ProducerBatch;
use super::inbox::{Event, Inbox, PartitionId};
use crate::claims;
use crate::completion::{BatchResult, Callback, Delivery, Lane, RecordFacts, WaitListener};
use crate::error::Error;
use crate::planted::{Defect, is_planted};
use crate::record::RecordData;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::time::{Clock, MonoTime};

/// One partition's batches and their lock, the one that `send` takes. What each append needs comes
/// first, in two cache lines.
#[repr(C)]
pub(crate) struct PartitionQueue {
    state: Mutex<QueueState>,
    limits: Limits,
    pub(crate) id: PartitionId,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// Where this partition's callbacks queue.
    pub(crate) lane: Arc<Lane>,
    inbox: Arc<Inbox>,
}

/// The settings that an append looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// `batch.size`, at least 1.
    pub(crate) batch_size: usize,
    pub(crate) linger: Duration,
}

/// How old the reading of the wall clock behind a record's timestamp may be: about what the coarse
/// clock lags.
const STAMP_LAG: Duration = Duration::from_millis(5);

/// What the partition's lock guards.
pub(crate) struct QueueState {
    pub(crate) batches: VecDeque<Box<ProducerBatch>>,
    /// What the sender has been told and has not looked at yet.
    pub(crate) told: Told,
    /// Linger is so short that a batch's records may share a reading of the clock.
    stamps_are_shared: bool,
    /// Bytes appended to this partition for being its topic's sticky one, since it last became so.
    sticky_bytes: usize,
    /// The size of the partition's last full batch: how much memory the next one starts with.
    expected_size: usize,
    /// The callbacks of that batch: how many the next one has room for.
    expected_callbacks: usize,
    /// After close nothing is accepted.
    closed: bool,
}

/// How urgent the news is that lies in the sender's inbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Told {
    Nothing,
    Linger,
    Now,
}

/// A record on its way into a batch.
pub(crate) struct Append<'a> {
    pub(crate) data: RecordData<'a>,
    /// Whether `data.timestamp` was set by the user; if not, it is set as the record goes in.
    pub(crate) own_timestamp: bool,
    /// The partition was chosen for being the topic's sticky one, so that the record may go to the
    /// next one instead of starting a batch too many here.
    pub(crate) sticky: bool,
}

impl Append<'_> {
    /// What a handle or callback needs to know of the record once it is at `index` in its batch.
    #[inline]
    pub(crate) fn facts(&self, index: u32) -> RecordFacts {
        RecordFacts::new(index, self.data.timestamp, self.data.key, self.data.value)
    }
}

/// What came of an append.
pub(crate) enum Appended {
    /// The record is in a batch.
    Done(Delivery),
    /// Memory of this size is needed first; nothing was changed but that a full batch was closed.
    NeedsMemory(usize),
    /// The sticky partition has had its share of bytes (KIP-794): the next one is to be chosen.
    NextPartition,
    /// The queue is closed.
    Closed,
}

impl PartitionQueue {
    pub(crate) fn new(
        id: PartitionId,
        topic: Arc<str>,
        partition: i32,
        inbox: Arc<Inbox>,
        limits: Limits,
    ) -> Self {
        let state = QueueState {
            batches: VecDeque::new(),
            told: Told::Nothing,
            stamps_are_shared: limits.linger <= STAMP_LAG,
            sticky_bytes: 0,
            expected_size: 0,
            expected_callbacks: 0,
            closed: false,
        };
        let lane = Arc::new(Lane::new());
        Self { id, topic, partition, lane, inbox, limits, state: Mutex::new(state) }
    }

    /// The sender's way in.
    pub(crate) fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock()
    }

    /// Appends to the open batch, if it has room: the way of nearly all records. `enter` notes in
    /// the batch who is to hear of the record.
    #[inline]
    pub(crate) fn append_to_open<R>(
        &self,
        append: &mut Append<'_>,
        clock: &Clock,
        enter: impl FnOnce(&mut ProducerBatch, RecordFacts) -> R,
    ) -> Option<R> {
        let mut state = self.state.lock();
        // A closed queue's last batch is closed.
        let (batch, index) = state.append_to_last(append, clock)?;
        let entered = enter(batch, append.facts(index));
        if claims::are_checked() {
            batch.invariants();
        }
        if self.is_full(batch) {
            let news = self.news(&mut state);
            drop(state);
            self.tell(news);
        }
        Some(entered)
    }

    /// Appends to the open batch, or to a new one made from `memory`.
    ///
    /// `callback` and `memory` are taken only if the record is in.
    pub(crate) fn append(
        self: &Arc<Self>,
        append: &mut Append<'_>,
        callback: &mut Option<Callback>,
        memory: &mut Option<Vec<u8>>,
        clock: &Clock,
    ) -> Appended {
        let mut state = self.state.lock();
        if state.closed {
            return Appended::Closed;
        }
        let outcome = match state.enter_last(append, callback, clock) {
            Some(delivery) => return Appended::Done(delivery),
            None => self.append_with_memory(&mut state, append, callback, memory, clock),
        };
        state.invariants();
        let news = self.news(&mut state);
        drop(state);
        self.tell(news);
        outcome
    }

    /// The topic's sticky partition has moved on from here before its turn was over.
    pub(crate) fn end_turn(&self) {
        self.state.lock().sticky_bytes = 0;
    }

    fn tell(&self, news: Option<MonoTime>) {
        if let Some(due) = news {
            self.inbox.push(Event::Partition(self.id, due));
        }
    }

    /// The last batch has no room for the record in the memory that it has.
    fn append_with_memory(
        self: &Arc<Self>,
        state: &mut QueueState,
        append: &mut Append<'_>,
        callback: &mut Option<Callback>,
        memory: &mut Option<Vec<u8>>,
        clock: &Clock,
    ) -> Appended {
        if let Some(last) = state.batches.back_mut().filter(|b| !b.closed) {
            let record = last.builder.record_size(&append.data);
            let size = last.builder.size();
            if size + record <= self.limits.batch_size {
                let Some(segment) = memory.take_if(|m| m.capacity() >= record) else {
                    let room = self.limits.batch_size - size;
                    return Appended::NeedsMemory(room.min(size.max(record)));
                };
                last.builder.add_segment(segment);
                return match state.enter_last(append, callback, clock) {
                    Some(delivery) => Appended::Done(delivery),
                    None => Appended::NeedsMemory(record),
                };
            }
            last.closed = true;
            state.expected_size = size;
            state.expected_callbacks = last.callbacks.len();
        }
        let least = append.data.size_alone();
        // Whoever has memory for this partition may have waited for it, and stays.
        if append.sticky
            && memory.is_none()
            && state.sticky_bytes > 0
            && state.sticky_bytes + least > self.limits.batch_size
        {
            state.sticky_bytes = 0;
            return Appended::NextPartition;
        }
        let Some(memory) = memory.take_if(|m| m.capacity() >= least) else {
            return Appended::NeedsMemory(self.first_segment(state.expected_size).max(least));
        };
        let listener = Arc::clone(self) as Arc<dyn WaitListener>;
        let result = Arc::new(BatchResult::new(Arc::clone(&self.topic), self.partition, listener));
        let mut batch = ProducerBatch::new(memory, result, clock.now(), clock.wall_millis());
        batch.callbacks.reserve_exact(state.expected_callbacks);
        state.batches.push_back(Box::new(batch));
        match state.enter_last(append, callback, clock) {
            Some(delivery) => Appended::Done(delivery),
            None => {
                debug_assert!(false, "a record does not fit into memory made for it");
                Appended::NeedsMemory(least)
            }
        }
    }

    /// A busy partition's batch gets all of its memory at once; a quiet one's grows.
    fn first_segment(&self, expected: usize) -> usize {
        const SMALLEST: usize = 512;
        let batch_size = self.limits.batch_size;
        if expected >= batch_size / 2 {
            return batch_size;
        }
        expected.next_power_of_two().max(SMALLEST).min(batch_size)
    }

    /// What the sender has to be told, and by when it is to look; marks it as told.
    fn news(&self, state: &mut QueueState) -> Option<MonoTime> {
        let (told, due) = self.due(state)?;
        if told <= state.told {
            return None;
        }
        state.told = told;
        Some(due)
    }

    fn due(&self, state: &QueueState) -> Option<(Told, MonoTime)> {
        let front = state.batches.front()?;
        Some(if self.is_front_full(state) {
            (Told::Now, MonoTime::ZERO)
        } else {
            (Told::Linger, front.created + self.limits.linger)
        })
    }

    /// Takes the first batch, and says when the one behind it, if there is one, is due: the sender
    /// is told of it hereby.
    pub(crate) fn take_first(
        &self,
        state: &mut QueueState,
    ) -> Option<(Box<ProducerBatch>, Option<MonoTime>)> {
        let first = state.batches.pop_front()?;
        let next = self.due(state);
        state.told = next.map_or(Told::Nothing, |(told, _)| told);
        state.invariants();
        Some((first, next.map(|(_, due)| due)))
    }

    fn is_full(&self, batch: &ProducerBatch) -> bool {
        batch.builder.size() >= self.limits.batch_size
    }

    /// Whether the front batch is worth sending without waiting for its linger.
    pub(crate) fn is_front_full(&self, state: &QueueState) -> bool {
        state.batches.len() > 1
            || state.batches.front().is_some_and(|b| b.closed || self.is_full(b))
    }
}

impl WaitListener for PartitionQueue {
    fn may_wait(&self) -> Result<(), Error> {
        self.inbox.process.check()
    }

    fn on_wait(&self) {
        let mut state = self.state.lock();
        if state.batches.is_empty() || state.told == Told::Now {
            return;
        }
        // Only a batch whose records all have waiters ends its linger; see `fully_awaited`.
        if !state.batches.front().is_some_and(|first| first.fully_awaited()) {
            return;
        }
        state.told = Told::Now;
        drop(state);
        self.inbox.push(Event::Partition(self.id, MonoTime::ZERO));
    }
}

impl QueueState {
    /// Writes the record into the last batch, if that is open and has room; tells its place there.
    #[inline(always)]
    fn append_to_last(
        &mut self,
        append: &mut Append<'_>,
        clock: &Clock,
    ) -> Option<(&mut ProducerBatch, u32)> {
        // While the sender has not looked since it was told by when to, the batch is as young as
        // that; without it the reading of the clock would be a tenth of a send.
        const SHARING: u32 = 8;
        let shares_stamp = self.stamps_are_shared && self.told == Told::Linger;
        let last = self.batches.back_mut()?;
        if last.closed {
            return None;
        }
        let data = &mut append.data;
        if !append.own_timestamp {
            if !shares_stamp || last.record_count() % SHARING == SHARING - 1 {
                // The coarse clock lags by up to a tick; the batch began by the exact one.
                last.wall = last.wall.max(clock.coarse_wall_millis());
            }
            data.timestamp = last.wall;
        }
        let before = last.builder.size();
        let index = last.builder.try_append(data)?;
        if append.sticky {
            self.sticky_bytes += last.builder.size() - before;
        }
        Some((last, index))
    }

    /// As [`append_to_last`](Self::append_to_last), with whoever is to hear of the record.
    #[inline(never)]
    fn enter_last(
        &mut self,
        append: &mut Append<'_>,
        callback: &mut Option<Callback>,
        clock: &Clock,
    ) -> Option<Delivery> {
        let (batch, index) = self.append_to_last(append, clock)?;
        let delivery = batch.enter(append.facts(index), callback);
        batch.invariants();
        Some(delivery)
    }

    /// Gives back the room that a backlog has left behind.
    pub(crate) fn trim(&mut self) {
        if self.batches.is_empty() {
            self.batches = VecDeque::new();
        }
    }

    /// Refuses appends from now on.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.close_last();
        self.invariants();
    }

    /// What fills goes as it is. False if nothing does: what was closed before has been looked at,
    /// and waits for something else.
    pub(crate) fn close_last(&mut self) -> bool {
        let fills = self.batches.back_mut().filter(|last| !last.closed);
        fills.map(|last| last.closed = true).is_some()
    }

    /// Takes out what was not delivered in time. The oldest come first.
    #[expect(clippy::vec_box, reason = "batches are moved from place to place by their pointers")]
    pub(crate) fn take_overdue(
        &mut self,
        timeout: Duration,
        now: MonoTime,
    ) -> Vec<Box<ProducerBatch>> {
        let mut overdue = Vec::new();
        while self.batches.front().is_some_and(|b| b.deadline(timeout) <= now) {
            overdue.extend(self.batches.pop_front());
        }
        self.invariants();
        overdue
    }

    /// Takes out what no request has carried.
    #[expect(clippy::vec_box, reason = "batches are moved from place to place by their pointers")]
    pub(crate) fn take_unsent(&mut self) -> Vec<Box<ProducerBatch>> {
        let all = self.batches.drain(..);
        let (sent, unsent): (Vec<_>, _) =
            all.partition(|batch| batch.attempts > 0 || batch.stamp.is_some());
        self.batches.extend(sent);
        self.invariants();
        unsent
    }

    /// Puts a batch back to be tried again: before all whose sequence is later or not given yet;
    /// without sequences before all that were started no earlier, so that the first one is the
    /// next to expire.
    pub(crate) fn put_back(&mut self, batch: Box<ProducerBatch>) {
        let place = match batch.stamp {
            None => self.batches.iter().take_while(|other| other.created < batch.created).count(),
            Some(stamp) => self
                .batches
                .iter()
                .take_while(|other| other.stamp.is_some_and(|s| s.precedes(&stamp)))
                .count(),
        };
        let goes_last = match batch.stamp {
            None => is_planted(Defect::UnmutedRetry),
            Some(_) => is_planted(Defect::RetryBehindLater),
        };
        let place = if goes_last { self.batches.len() } else { place };
        self.batches.insert(place, batch);
        self.invariants();
    }

    /// Stamped batches come first, in the order of their sequences; what was begun earlier is due
    /// earlier; only the last batch of all may be open, and none once the queue is closed. A long
    /// queue is looked at where it changes as a rule.
    pub(crate) fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        const LOOKED_AT: usize = 8;
        let all = self.batches.len();
        assert!(!self.closed || self.batches.back().is_none_or(|last| last.closed), "still open");
        for batch in self.batches.iter().take(LOOKED_AT).chain(self.batches.back()) {
            batch.invariants();
            assert!(!batch.phases.is_under_way(), "queued, and under way");
        }
        let middle = LOOKED_AT..all.saturating_sub(LOOKED_AT);
        for place in (1..all).filter(|place| !middle.contains(place)) {
            let (before, after) = (&self.batches[place - 1], &self.batches[place]);
            assert!(before.closed, "an open batch that is not the last");
            let in_order = match (&before.stamp, &after.stamp) {
                (Some(before), Some(after)) => before.precedes(after),
                (stamp, None) => stamp.is_some() || before.created <= after.created,
                (None, Some(_)) => false,
            };
            assert!(in_order, "out of order, at {place}");
        }
    }
}
