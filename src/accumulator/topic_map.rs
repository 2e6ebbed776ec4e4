//! The topics that this producer has sent to, and their partitions' queues.
//!
//! Users' threads look topics up in a map that is copied on write and cloned out in one statement.
//! A topic's queues are made when first used and stay for the producer's life, so that finding one
//! takes no lock.

use std::collections::HashMap;

use super::inbox::{Event, Inbox, PartitionId};
use super::queue::{Limits, PartitionQueue};
use super::sticky::Sticky;
use crate::claims;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, OnceLock, RwLock};
use crate::time::MonoTime;

type Topics = HashMap<Arc<str>, Arc<Topic>>;

/// All topics by name, and all queues by id.
pub(crate) struct TopicMap {
    topics: RwLock<Arc<Topics>>,
    registry: Arc<Registry>,
}

/// The queues in the order of their ids.
pub(crate) struct Registry {
    queues: Mutex<Queues>,
    inbox: Arc<Inbox>,
    limits: Limits,
    placing: Placing,
}

/// How partitions are chosen for records without a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placing {
    /// The less often the longer their queues (KIP-794).
    pub(crate) adaptive: bool,
    /// Different in each producer, lest all of them begin with the same partition.
    pub(crate) seed: u64,
}

struct Queues {
    all: Vec<Arc<PartitionQueue>>,
    closed: bool,
}

impl TopicMap {
    pub(crate) fn new(inbox: Arc<Inbox>, limits: Limits, placing: Placing) -> Self {
        let queues = Mutex::new(Queues { all: Vec::new(), closed: false });
        let registry = Arc::new(Registry { queues, inbox, limits, placing });
        Self { topics: RwLock::default(), registry }
    }

    /// The topic, if its metadata was seen.
    #[inline]
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().get(name).cloned()
    }

    /// The topic, added without partitions if it is new.
    pub(crate) fn find_or_add(&self, name: &str) -> Arc<Topic> {
        if let Some(topic) = self.find(name) {
            return topic;
        }
        let mut topics = self.topics.write();
        if let Some(topic) = topics.get(name) {
            return Arc::clone(topic);
        }
        let name: Arc<str> = name.into();
        let topic = Arc::new(Topic::new(Arc::clone(&name), Arc::clone(&self.registry)));
        let mut copy = Topics::clone(&topics);
        copy.insert(name, Arc::clone(&topic));
        let before = std::mem::replace(&mut *topics, Arc::new(copy));
        self.invariants(&before, &topics, &topic);
        topic
    }

    /// No topic is lost or takes another's place, and all have the one registry.
    fn invariants(&self, before: &Topics, now: &Topics, added: &Arc<Topic>) {
        if claims::are_checked() {
            assert_eq!(now.len(), before.len() + 1, "{} was there", added.name);
            assert!(now.get(&added.name).is_some_and(|topic| Arc::ptr_eq(topic, added)));
            assert!(Arc::ptr_eq(&added.registry, &self.registry), "{} is another's", added.name);
        }
    }

    /// All topics as they are now.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        let topics = Arc::clone(&self.topics.read());
        topics.values().map(Arc::clone).collect()
    }

    /// The queues with ids from `from` on.
    pub(crate) fn queues_from(&self, from: usize) -> Vec<Arc<PartitionQueue>> {
        self.registry.queues.lock().all.get(from..).unwrap_or_default().to_vec()
    }

    /// Closes all queues, those yet to be made included.
    pub(crate) fn close(&self) {
        let queues = {
            let mut queues = self.registry.queues.lock();
            queues.closed = true;
            queues.all.clone()
        };
        for queue in queues {
            queue.lock().close();
        }
    }
}

/// What users' threads need to know of a topic.
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    /// How many partitions the topic has; 0 while that is unknown.
    partition_count: AtomicU32,
    /// The partitions that have a leader.
    available: RwLock<Arc<[i32]>>,
    /// The partition that records without a key go to.
    pub(crate) sticky: Sticky,
    /// The state of the generator behind random choices.
    draws: AtomicU64,
    /// The counter of the round-robin partitioner.
    turns: AtomicU32,
    /// When a record last started a batch or asked for the topic, in nanoseconds.
    last_used: AtomicU64,
    /// Queues in segments of doubling size, so that growth moves nothing.
    segments: [OnceLock<Box<[Slot]>>; SEGMENTS],
    registry: Arc<Registry>,
}

type Slot = OnceLock<Arc<PartitionQueue>>;

/// The first segment holds eight partitions; twenty-eight segments hold all that an i32 can name.
const FIRST: u32 = 8;
const SEGMENTS: usize = 28;

impl Topic {
    fn new(name: Arc<str>, registry: Arc<Registry>) -> Self {
        // Topics and producers begin at different points of the generators' cycles.
        let offset = 0xcbf2_9ce4_8422_2325 ^ registry.placing.seed;
        let seed = name.bytes().fold(offset, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            name,
            partition_count: AtomicU32::new(0),
            available: RwLock::new(Arc::new([])),
            sticky: Sticky::new(seed),
            draws: AtomicU64::new(seed),
            turns: AtomicU32::new(0),
            last_used: AtomicU64::new(0),
            segments: std::array::from_fn(|_| OnceLock::new()),
            registry,
        }
    }

    #[inline]
    pub(crate) fn partition_count(&self) -> u32 {
        self.partition_count.load(Ordering::Acquire)
    }

    /// The partitions with a leader, in order.
    pub(crate) fn available(&self) -> Arc<[i32]> {
        Arc::clone(&self.available.read())
    }

    /// Takes over what the metadata says; from the sender only.
    pub(crate) fn update(&self, partition_count: u32, available: Arc<[i32]>) {
        self.replace(partition_count, available, |_| true);
    }

    /// Takes over what a user's thread has read of the metadata, if that is more than is known. The
    /// sender may have learned of more partitions since.
    pub(crate) fn learn(&self, partition_count: u32, available: Arc<[i32]>) {
        self.replace(partition_count, available, |known| known < partition_count);
    }

    /// Both in one step.
    fn replace(&self, partition_count: u32, available: Arc<[i32]>, may: impl Fn(u32) -> bool) {
        let mut known = self.available.write();
        let count_before = self.partition_count.load(Ordering::Acquire);
        if !may(count_before) {
            return;
        }
        self.partition_count.store(partition_count, Ordering::Release);
        let before = std::mem::replace(&mut *known, Arc::clone(&available));
        self.invariants(&known);
        drop(known);
        if (count_before, before) != (partition_count, available) {
            // It may name partitions that have no leader any more, or lack some that have.
            self.sticky.set_load(None);
        }
    }

    /// The partitions with a leader are in order, and there. Under their lock, which each change of
    /// the count is under, too.
    fn invariants(&self, available: &[i32]) {
        if claims::are_checked() {
            let is_there = |p: &i32| u32::try_from(*p).is_ok_and(|p| p < self.partition_count());
            assert!(available.is_sorted_by(|a, b| a < b), "{}: {available:?}", self.name);
            assert!(available.last().is_none_or(is_there), "{}: {available:?}", self.name);
        }
    }

    /// The queue of a partition, made when first asked for.
    #[inline]
    pub(crate) fn queue(&self, partition: u32) -> &Arc<PartitionQueue> {
        let (segment, place) = place_of(partition);
        let slots = self.segments[segment]
            .get_or_init(|| (0..FIRST << segment).map(|_| OnceLock::new()).collect());
        slots[place].get_or_init(|| self.registry.make(&self.name, partition))
    }

    /// The queue of a partition, if it has one.
    pub(crate) fn find_queue(&self, partition: u32) -> Option<&Arc<PartitionQueue>> {
        let (segment, place) = place_of(partition);
        self.segments[segment].get()?[place].get()
    }

    /// The partition that records without a key go to now.
    #[inline]
    pub(crate) fn sticky_partition(&self) -> u32 {
        let sticky = self.sticky.current();
        match u32::try_from(sticky) {
            Ok(partition) if partition < self.partition_count() => partition,
            _ => self.next_sticky(sticky),
        }
    }

    /// Chooses anew unless another thread has done so since `previous` was read.
    pub(crate) fn move_sticky(&self, previous: u32) -> u32 {
        self.next_sticky(previous as i32)
    }

    /// Moves on from a partition that has used up its share of the buffer, to one that was not
    /// tried yet. None without adaptive partitioning: then shares of bytes are equal.
    pub(crate) fn pass_sticky(&self, previous: u32, tried: impl Fn(u32) -> bool) -> Option<u32> {
        let next = self.other_than(previous, &tried)?;
        // Its turn is over, as by `move_sticky`.
        self.queue(previous).end_turn();
        // Where another thread has moved on to, if that is of use here.
        let now = u32::try_from(self.sticky.replace(previous as i32, next as i32));
        now.ok().filter(|now| *now < self.partition_count() && !tried(*now)).or(Some(next))
    }

    /// The partition to be tried after this one: each has its turn.
    pub(crate) fn other_than(&self, previous: u32, tried: impl Fn(u32) -> bool) -> Option<u32> {
        if !self.registry.placing.adaptive {
            return None;
        }
        let count = self.partition_count();
        let may_have = |partition: i32| {
            u32::try_from(partition).is_ok_and(|partition| partition < count && !tried(partition))
        };
        let next = self.sticky.after(previous as i32, &self.available(), may_have)?;
        u32::try_from(next).ok()
    }

    #[cold]
    fn next_sticky(&self, previous: i32) -> u32 {
        let count = self.partition_count().max(1);
        let now = self.sticky.advance(previous, count, &self.available());
        if self.registry.placing.adaptive && count > 1 && self.sticky.wants_load() {
            self.registry.inbox.push(Event::LoadWanted(Arc::clone(&self.name)));
        }
        u32::try_from(now).unwrap_or(0) % count
    }

    /// The next number of the round-robin counter.
    pub(crate) fn next_turn(&self) -> u32 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// A random number (splitmix64), without a lock.
    pub(crate) fn draw(&self) -> u32 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.draws.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 32) as u32
    }

    /// The topic is in use: it is not to be forgotten for a while.
    pub(crate) fn touch(&self, now: MonoTime) {
        self.last_used.fetch_max(now.as_nanos(), Ordering::Relaxed);
    }

    pub(crate) fn last_used(&self) -> MonoTime {
        MonoTime::from_nanos(self.last_used.load(Ordering::Relaxed))
    }
}

/// A partition's segment, and its place there.
#[inline]
fn place_of(partition: u32) -> (usize, usize) {
    let n = partition + FIRST;
    let segment = n.ilog2() - FIRST.ilog2();
    (segment as usize, (n - (FIRST << segment)) as usize)
}

impl Registry {
    fn make(&self, topic: &Arc<str>, partition: u32) -> Arc<PartitionQueue> {
        let mut queues = self.queues.lock();
        let id = PartitionId(u32::try_from(queues.all.len()).unwrap_or(u32::MAX));
        let queue = Arc::new(PartitionQueue::new(
            id,
            Arc::clone(topic),
            partition as i32,
            Arc::clone(&self.inbox),
            self.limits,
        ));
        if queues.closed {
            queue.lock().close();
        }
        queues.all.push(Arc::clone(&queue));
        queues.invariants();
        queue
    }
}

impl Queues {
    /// A queue stands in the place that is its name. Looked at for the last one, as the others were
    /// it once.
    fn invariants(&self) {
        if claims::are_checked() {
            let place = self.all.len().checked_sub(1);
            let id = self.all.last().map(|last| last.id.0 as usize);
            assert_eq!(id, place, "a queue in another's place");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::Process;

    fn map() -> TopicMap {
        let inbox = Arc::new(Inbox::new(Arc::new(|| ()), Process::current()));
        let limits = Limits { batch_size: 1, linger: std::time::Duration::ZERO };
        TopicMap::new(inbox, limits, Placing { adaptive: false, seed: 0 })
    }

    /// As when a thread was interrupted between its look at the metadata and the topic.
    #[test]
    fn a_thread_that_has_read_fewer_partitions_takes_none_away() {
        let topic = map().find_or_add("a");
        topic.learn(3, Arc::new([0, 1, 2]));
        assert_eq!(topic.partition_count(), 3);
        topic.update(6, Arc::new([0, 3, 5]));
        topic.learn(3, Arc::new([0, 1, 2]));
        assert_eq!((topic.partition_count(), &*topic.available()), (6, &[0, 3, 5][..]));
        topic.update(0, Arc::new([]));
        assert_eq!(topic.partition_count(), 0);
    }

    /// UTIL-03.
    #[test]
    fn what_was_read_is_not_changed_by_later_topics() {
        let map = map();
        let first = map.find_or_add("a");
        let snapshot = Arc::clone(&map.topics.read());
        let listed = map.all();
        map.find_or_add("b");
        assert!(Arc::ptr_eq(&map.find_or_add("a"), &first));
        assert_eq!((snapshot.len(), listed.len(), map.all().len()), (1, 1, 2));
        assert!(map.find("b").is_some() && map.find("c").is_none());
    }
}
