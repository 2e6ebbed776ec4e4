//! A partition's queue of batches: users' threads append at its end, the sender takes from its
//! front, and puts back there what is to be tried again.

use std::collections::VecDeque;
use std::time::Duration;

use super::batch::ProducerBatch;
use super::inbox::{Event, Inbox, PartitionId};
use crate::completion::{BatchResult, Callback, Delivery, Lane, PendingCallback, WaitListener};
use crate::error::Error;
use crate::record::RecordData;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::time::{Clock, MonoTime};

/// One partition's batches and their lock, the one that `send` takes.
pub(crate) struct PartitionQueue {
    pub(crate) id: PartitionId,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    /// Where this partition's callbacks queue.
    pub(crate) lane: Arc<Lane>,
    inbox: Arc<Inbox>,
    limits: Limits,
    state: Mutex<QueueState>,
}

/// The settings that an append looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// `batch.size`, at least 1.
    pub(crate) batch_size: usize,
    pub(crate) linger: Duration,
}

/// What the partition's lock guards.
pub(crate) struct QueueState {
    pub(crate) batches: VecDeque<ProducerBatch>,
    /// What the sender has been told and has not looked at yet.
    pub(crate) told: Told,
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
    /// Whether `data.timestamp` was set by the user; if not, the batch's clock may lift it.
    pub(crate) own_timestamp: bool,
    pub(crate) callback: Option<Callback>,
    /// The partition was chosen for being the topic's sticky one, so that the record may go to the
    /// next one instead of starting a batch too many here.
    pub(crate) sticky: bool,
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

    /// Appends to the open batch, if it has room: the way of nearly all records.
    #[inline]
    pub(crate) fn append_to_open(&self, append: &mut Append<'_>) -> Option<Delivery> {
        let mut state = self.state.lock();
        // A closed queue's last batch is closed.
        let delivery = state.append_to_last(append)?;
        if state.batches.back().is_some_and(|last| self.is_full(last)) {
            let news = self.news(&mut state);
            drop(state);
            self.tell(news);
        }
        Some(delivery)
    }

    /// Appends to the open batch, or to a new one made from `memory`.
    ///
    /// `memory` is taken only if it was needed; `clock` is read only when a batch starts.
    pub(crate) fn append(
        self: &Arc<Self>,
        append: &mut Append<'_>,
        memory: &mut Option<Vec<u8>>,
        clock: &Clock,
    ) -> Appended {
        let mut state = self.state.lock();
        if state.closed {
            return Appended::Closed;
        }
        if let Some(delivery) = state.append_to_last(append) {
            return Appended::Done(delivery);
        }
        let outcome = self.append_with_memory(&mut state, append, memory, clock);
        let news = self.news(&mut state);
        drop(state);
        self.tell(news);
        outcome
    }

    fn tell(&self, news: Option<MonoTime>) {
        if let Some(due) = news {
            self.inbox.push(Event::Partition(self.id, due), due);
        }
    }

    /// The last batch has no room for the record in the memory that it has.
    fn append_with_memory(
        self: &Arc<Self>,
        state: &mut QueueState,
        append: &mut Append<'_>,
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
                return match state.append_to_last(append) {
                    Some(delivery) => Appended::Done(delivery),
                    None => Appended::NeedsMemory(record),
                };
            }
            last.closed = true;
            state.expected_size = size;
            state.expected_callbacks = last.callbacks.len();
        }
        let least = append.data.size_alone();
        if append.sticky
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
        let batch = ProducerBatch::new(memory, result, clock.now(), clock.wall_millis());
        state.batches.push_back(batch);
        match state.append_to_last(append) {
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
        let front = state.batches.front()?;
        let (told, due) = if state.batches.len() > 1 || front.closed || self.is_full(front) {
            (Told::Now, MonoTime::ZERO)
        } else {
            (Told::Linger, front.created + self.limits.linger)
        };
        if told <= state.told {
            return None;
        }
        state.told = told;
        Some(due)
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
        if !state.batches.front().is_some_and(ProducerBatch::fully_awaited) {
            return;
        }
        state.told = Told::Now;
        drop(state);
        self.inbox.push(Event::Partition(self.id, MonoTime::ZERO), MonoTime::ZERO);
    }
}

impl QueueState {
    #[inline]
    fn append_to_last(&mut self, append: &mut Append<'_>) -> Option<Delivery> {
        let last = self.batches.back_mut()?;
        if last.closed {
            return None;
        }
        let data = &mut append.data;
        if !append.own_timestamp {
            // The coarse clock lags by up to a tick; the batch began by the exact one.
            data.timestamp = data.timestamp.max(last.created_wall);
        }
        let before = last.builder.size();
        let index = last.builder.try_append(data)?;
        let (key_size, value_size) = (size_of_option(data.key), size_of_option(data.value));
        if let Some(run) = append.callback.take() {
            if last.callbacks.is_empty() {
                last.callbacks.reserve_exact(self.expected_callbacks);
            }
            let timestamp = data.timestamp;
            last.callbacks.push(PendingCallback { index, timestamp, key_size, value_size, run });
        }
        if append.sticky {
            self.sticky_bytes += last.builder.size() - before;
        }
        let result = Arc::clone(&*last.result);
        Some(Delivery::new(result, index, data.timestamp, key_size, value_size))
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
        if let Some(last) = self.batches.back_mut() {
            last.closed = true;
        }
    }

    /// Takes the first batch. From an empty queue nothing has been told.
    pub(crate) fn take_first(&mut self) -> Option<ProducerBatch> {
        let first = self.batches.pop_front();
        if self.batches.is_empty() {
            self.told = Told::Nothing;
        }
        first
    }

    /// Takes out what was not delivered in time. The oldest come first.
    pub(crate) fn take_overdue(&mut self, timeout: Duration, now: MonoTime) -> Vec<ProducerBatch> {
        let mut overdue = Vec::new();
        while self.batches.front().is_some_and(|b| b.deadline(timeout) <= now) {
            overdue.extend(self.batches.pop_front());
        }
        overdue
    }

    /// Puts a batch back to be tried again: before all whose sequence is later or not given yet;
    /// without sequences before all that were started no earlier, so that the first one is the
    /// next to expire.
    pub(crate) fn put_back(&mut self, batch: ProducerBatch) {
        let place = match batch.stamp {
            None => self.batches.iter().take_while(|other| other.created < batch.created).count(),
            Some(stamp) => self
                .batches
                .iter()
                .take_while(|other| other.stamp.is_some_and(|s| s.precedes(&stamp)))
                .count(),
        };
        self.batches.insert(place, batch);
        self.invariants();
    }

    /// Stamped batches come first, in the order of their sequences, and are closed; only the last
    /// batch of all may be open.
    pub(crate) fn invariants(&self) {
        if cfg!(debug_assertions) {
            let stamped = || self.batches.iter().map_while(|b| b.stamp);
            let mut pairs = stamped().zip(stamped().skip(1));
            assert!(pairs.all(|(first, next)| first.precedes(&next)), "out of sequence");
            let rest = self.batches.iter().skip(stamped().count());
            assert!(rest.clone().all(|b| b.stamp.is_none()), "a stamped batch behind others");
            let open = self.batches.iter().rev().skip(1).filter(|b| !b.closed).count();
            assert_eq!(open, 0, "an open batch that is not the last");
        }
    }
}

/// A length as handles keep it: -1 for null. Records are no larger than `max.request.size`, an i32.
#[inline]
fn size_of_option(bytes: Option<&[u8]>) -> i32 {
    bytes.map_or(-1, |b| b.len() as i32)
}
