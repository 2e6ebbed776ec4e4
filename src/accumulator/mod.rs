//! Where records gather: users' threads append here, the sender takes batches from here.
//!
//! - `topic_map`: topics by name, partitions' queues by number
//! - `sticky`: the partition that records without a key go to, `load`: how it is chosen
//! - `queue`: one partition's batches behind its lock
//! - `batch`: a batch on its way
//! - `phases`: where its time went
//! - `buffer_pool`: the memory of batches, `shares`: who may have how much of it
//! - `inbox`: what users' threads tell the sender
//!
//! An append takes the partition's lock and nothing else. Memory is taken before, the sender is
//! told after.

pub(crate) mod batch;
pub(crate) mod buffer_pool;
pub(crate) mod inbox;
pub(crate) mod load;
#[cfg(all(test, loom))]
mod loom_models;
pub(crate) mod phases;
pub(crate) mod queue;
pub(crate) mod shares;
pub(crate) mod sticky;
#[cfg(all(test, not(loom)))]
mod tests;
pub(crate) mod topic_map;

use std::collections::BTreeMap;
use std::time::Duration;

use self::buffer_pool::{Allocation, BufferPool, PoolError, Want};
use self::inbox::{Event, Inbox};
use self::queue::{Append, Appended, Limits, PartitionQueue};
use self::shares::{Share, ShareLimits};
use self::topic_map::{Placing, Topic, TopicMap};
use crate::completion::{Callback, CallbackExecutor, Delivery, FlushToken, in_inline_callback};
use crate::error::Error;
use crate::metrics::{Queued, SharedSensors};
use crate::sync::Arc;
use crate::time::{Clock, MonoTime};

/// The queues, the memory and the sender's letterbox.
pub(crate) struct RecordAccumulator {
    pub(crate) topics: TopicMap,
    pub(crate) pool: BufferPool,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) clock: Clock,
    /// What the producer counts, its users' waits and the sender's work alike.
    pub(crate) sensors: Arc<SharedSensors>,
}

/// Until when a call may wait; the clock is read only once it must.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// This long from the first wait on.
    For(Duration),
    /// A wait has begun.
    Until { begun: MonoTime, deadline: MonoTime },
}

impl Patience {
    /// When the waiting began and when it ends, as of now if it begins here; `None` if there is
    /// to be no wait.
    pub(crate) fn begin(&mut self, clock: &Clock) -> Option<(MonoTime, MonoTime)> {
        match *self {
            Self::None => None,
            Self::For(limit) => {
                let begun = clock.now();
                *self = Self::Until { begun, deadline: begun + limit };
                Some((begun, begun + limit))
            }
            Self::Until { begun, deadline } => Some((begun, deadline)),
        }
    }
}

/// The settings that records gather by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccumulatorConfig {
    /// `batch.size`, in bytes.
    pub(crate) batch_size: usize,
    pub(crate) linger: Duration,
    /// `buffer.memory`, in bytes.
    pub(crate) memory: usize,
    pub(crate) shares: ShareLimits,
    pub(crate) placing: Placing,
}

/// A record's search for memory.
struct Search {
    now: MonoTime,
    /// What it takes to start a batch with the record.
    least: usize,
    /// It may go to another partition.
    is_sticky: bool,
    /// Where it has been refused, and what it wanted there.
    passed: Vec<(u32, Want)>,
}

impl Search {
    /// Where the record is to be tried next, if the share that was used up is not the end of it.
    fn pass_on(&self, topic: &Topic, used_up: Option<Share>) -> Option<u32> {
        let (partition, _) = self.passed.last()?;
        let was_tried = |other: u32| self.passed.iter().any(|(tried, _)| *tried == other);
        let may_pass = used_up.is_some() && self.is_sticky && self.passed.len() <= MOST_PASSED;
        if may_pass { topic.pass_sticky(*partition, was_tried) } else { None }
    }

    /// What the record may wait for: memory of the partition tried last, for choice, or of another
    /// one that it was tried at, or may yet go to. Whichever share is left as it waits may be used
    /// up by those before it.
    fn wants(&self, topic: &Topic) -> Vec<(u32, Want)> {
        let mut wants: Vec<_> = self.passed.iter().rev().copied().collect();
        while let Some((last, want)) = wants.last().filter(|_| self.is_sticky) {
            let was_tried = |other: u32| wants.iter().any(|(tried, _)| *tried == other);
            let other = topic.other_than(*last, was_tried).filter(|_| wants.len() <= MOST_PASSED);
            let Some(other) = other else { break };
            let size = want.size.max(self.least);
            wants.push((other, Want { id: Some(topic.queue(other).id), size }));
        }
        wants
    }
}

/// How many partitions are tried beside the first one.
const MOST_PASSED: usize = 16;

impl RecordAccumulator {
    pub(crate) fn new(config: AccumulatorConfig, inbox: Arc<Inbox>, clock: Clock) -> Self {
        let AccumulatorConfig { batch_size, linger, memory, shares, placing } = config;
        // A batch can't have more memory than there is.
        let limits = Limits { batch_size: batch_size.clamp(1, memory.max(1)), linger };
        Self {
            topics: TopicMap::new(Arc::clone(&inbox), limits, placing),
            pool: BufferPool::new(memory, limits.batch_size, shares),
            inbox,
            clock,
            sensors: Arc::default(),
        }
    }

    /// Appends a record to `partition`, or to the topic's sticky one if `append.sticky`, where
    /// [`PartitionQueue::append_to_open`](queue::PartitionQueue::append_to_open) has no room for
    /// it: at most once a batch.
    pub(crate) fn append(
        &self,
        topic: &Topic,
        mut partition: u32,
        append: &mut Append<'_>,
        callback: &mut Option<Callback>,
        patience: &mut Patience,
    ) -> Result<Delivery, Error> {
        self.inbox.process.check()?;
        let now = self.clock.now();
        topic.touch(now);
        let least = append.data.size_alone();
        let mut search = Search { now, least, is_sticky: append.sticky, passed: Vec::new() };
        let (mut memory, mut takes_memory) = (None, false);
        let result = loop {
            let queue = topic.queue(partition);
            match queue.append(append, callback, &mut memory, &self.clock) {
                Appended::Done(delivery) => break Ok(delivery),
                Appended::Closed => break Err(Error::Closed),
                Appended::NextPartition => {
                    self.give_back(queue, &mut memory);
                    search.passed.clear();
                    partition = topic.move_sticky(partition);
                }
                Appended::NeedsMemory(size) => {
                    self.give_back(queue, &mut memory);
                    match self.allocate(topic, partition, size, &mut search, patience) {
                        Ok(found) => (partition, memory) = found,
                        Err(error) => break Err(error),
                    }
                    takes_memory |= memory.is_some();
                }
            }
        };
        let queue = topic.queue(partition);
        self.give_back(queue, &mut memory);
        // Somebody waits for what lingers here from now on, and the sender may sleep: it has done
        // what it could by then.
        if takes_memory && self.pool.is_wanted_of(queue.id) {
            self.inbox.push(Event::MemoryWanted);
        }
        result
    }

    /// What waits in each topic's queues, as a reader of metrics finds it.
    pub(crate) fn backlog(&self) -> BTreeMap<Arc<str>, Queued> {
        let mut topics: BTreeMap<Arc<str>, Queued> = BTreeMap::new();
        for queue in self.topics.queues_from(0) {
            let state = queue.lock();
            if state.batches.is_empty() {
                continue;
            }
            let topic = topics.entry(Arc::clone(&queue.topic)).or_default();
            for batch in &state.batches {
                topic.records += u64::from(batch.record_count());
                topic.bytes += batch.builder.size() as u64;
                topic.oldest = topic.oldest.into_iter().chain([batch.created]).min();
            }
        }
        topics
    }

    /// Has a flush wait for the callbacks of all records that are decided.
    pub(crate) fn join_callbacks(&self, executor: &CallbackExecutor, flush: &FlushToken) {
        if executor.outstanding() > 0 {
            for queue in self.topics.queues_from(0) {
                executor.join_flush(&queue.lane, flush);
            }
        }
    }

    /// Memory that the partition has no use for.
    fn give_back(&self, queue: &PartitionQueue, memory: &mut Option<Vec<u8>>) {
        if let Some(unused) = memory.take() {
            self.pool.release(queue.id, unused);
            // Whoever had used up its share may lack what others hold now.
            if self.pool.is_wanted() {
                self.inbox.push(Event::MemoryWanted);
            }
        }
    }

    /// Memory for a batch of this partition; while a thread waits for it, lingering batches are
    /// worth sending. A record without a key goes on to another partition if the share is used up,
    /// and gets none before it has been tried there. Once all have been tried it waits for any of
    /// their shares.
    fn allocate(
        &self,
        topic: &Topic,
        partition: u32,
        size: usize,
        search: &mut Search,
        patience: &mut Patience,
    ) -> Result<(u32, Option<Vec<u8>>), Error> {
        let queue = topic.queue(partition);
        let (outcome, waited) = match self.pool.begin(queue.id, size, search.now) {
            Ok(Allocation::Granted(memory)) => (Ok((partition, memory)), Duration::ZERO),
            Ok(Allocation::Refused(used_up)) => {
                self.inbox.push(Event::MemoryWanted);
                search.passed.push((partition, Want { id: Some(queue.id), size }));
                if let Some(next) = search.pass_on(topic, used_up) {
                    return Ok((next, None));
                }
                match patience.begin(&self.clock) {
                    // On the sender's thread, which alone brings memory back.
                    Some(_) if in_inline_callback() => {
                        return Err(Error::InCallback { call: "send" });
                    }
                    Some((begun, deadline)) => {
                        let outcome = self.wait(topic, search, deadline);
                        (outcome, self.clock.now().since(begun))
                    }
                    None => {
                        let now = self.clock.now();
                        self.sensors.with(|s| s.on_buffer_wait(Duration::ZERO, true, now));
                        (Err(PoolError::Exhausted(used_up)), Duration::ZERO)
                    }
                }
            }
            Err(error) => (Err(error), Duration::ZERO),
        };
        search.passed.clear();
        outcome.map(|(partition, memory)| (partition, Some(memory))).map_err(|error| match error {
            PoolError::Closed => Error::Closed,
            PoolError::Exhausted(None) => Error::BufferExhausted { waited },
            PoolError::Exhausted(Some(share)) => Error::BufferShareExhausted {
                topic: Arc::clone(&queue.topic),
                partition: queue.partition,
                setting: share.setting(),
                waited,
            },
            PoolError::TooLarge => {
                Error::RecordTooLarge { size, limit: self.pool.total(), setting: "buffer.memory" }
            }
        })
    }

    /// Waits in the pool's queue, for memory of any partition that was tried; of which it is.
    fn wait(
        &self,
        topic: &Topic,
        search: &Search,
        deadline: MonoTime,
    ) -> Result<(u32, Vec<u8>), PoolError> {
        let wants = search.wants(topic);
        let place = self.pool.queue_up(wants.iter().map(|(_, want)| *want).collect())?;
        // Once more: the sender may have looked before anybody waited.
        self.inbox.push(Event::MemoryWanted);
        let begun = self.clock.now();
        let outcome = self.pool.wait(place, &self.clock, deadline);
        let now = self.clock.now();
        let exhausted = matches!(outcome, Err(PoolError::Exhausted(_)));
        self.sensors.with(|s| s.on_buffer_wait(now.since(begun), exhausted, now));
        let (place, memory) = outcome?;
        let (partition, _) = wants[place];
        Ok((partition, memory))
    }
}
