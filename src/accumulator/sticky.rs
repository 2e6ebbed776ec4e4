//! The partition that a topic's records without a key go to for now, and the choice of the next one
//! (KIP-794): evenly, or the less the longer a partition's queue is.
//!
//! Users' threads read it for each such record and move it once it has had its share of bytes. The
//! sender publishes how loaded partitions are; nobody else knows their leaders.

use super::load::PartitionLoad;
use crate::claims;
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use crate::sync::{Arc, RwLock};

/// A topic's sticky partition.
pub(crate) struct Sticky {
    /// -1 before the first choice.
    partition: AtomicI32,
    /// Where on the circle of 2^64 points the last choice was drawn.
    point: AtomicU64,
    /// None: all partitions with a leader are as good as each other.
    load: RwLock<Option<Arc<PartitionLoad>>>,
    /// The sender knows that the load is wanted.
    load_wanted: AtomicBool,
}

/// What a choice is made from.
struct Choices<'a> {
    count: u32,
    /// The partitions that have a leader, ascending.
    available: &'a [i32],
    load: Option<&'a PartitionLoad>,
}

impl Sticky {
    /// Draws begin at a place of their own for each seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            partition: AtomicI32::new(-1),
            point: AtomicU64::new(seed),
            load: RwLock::new(None),
            load_wanted: AtomicBool::new(false),
        }
    }

    /// The partition as it was last chosen; -1 before that.
    #[inline]
    pub(crate) fn current(&self) -> i32 {
        self.partition.load(Ordering::Relaxed)
    }

    /// Chooses anew, unless another thread has done so since `previous` was read; the partition
    /// that is current then.
    pub(crate) fn advance(&self, previous: i32, count: u32, available: &[i32]) -> i32 {
        let load = self.load.read().clone();
        let choices = Choices { count, available, load: load.as_deref() };
        let next = choices.choose(previous, self.next_point());
        choices.invariants(next);
        self.replace(previous, next)
    }

    /// The next one by number that `may_have` the record, of those that may be chosen at all.
    pub(crate) fn after(
        &self,
        previous: i32,
        available: &[i32],
        may_have: impl Fn(i32) -> bool,
    ) -> Option<i32> {
        let load = self.load.read().clone();
        let choices = Choices { count: 0, available, load: load.as_deref() };
        let (next, all) = (choices.up_to(previous), choices.len());
        let mut places = (next..all).chain(0..next);
        places.find_map(|place| Some(choices.at(place)).filter(|partition| may_have(*partition)))
    }

    /// Moves it, unless another thread has done so since `previous` was read; where it is then.
    pub(crate) fn replace(&self, previous: i32, next: i32) -> i32 {
        let order = Ordering::Relaxed;
        let swapped = self.partition.compare_exchange(previous, next, order, order);
        swapped.map_or_else(|current| current, |_| next)
    }

    /// Steps of the golden ratio: whatever the number of partitions, they meet each of them equally
    /// often, and far sooner than chance would.
    fn next_point(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        self.point.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP)
    }

    /// Whether the sender is to be told that the load is wanted: once, until it [`rests`](
    /// Self::rested) no more.
    pub(crate) fn wants_load(&self) -> bool {
        !self.load_wanted.load(Ordering::Relaxed) && !self.load_wanted.swap(true, Ordering::Relaxed)
    }

    /// The sender may be told again.
    pub(crate) fn rested(&self) {
        self.load_wanted.store(false, Ordering::Relaxed);
    }

    /// What choices are made by from now on; None if there is no difference.
    pub(crate) fn set_load(&self, load: Option<PartitionLoad>) {
        let load = load.map(Arc::new);
        let old = std::mem::replace(&mut *self.load.write(), load);
        // Freed without the lock.
        drop(old);
    }

    /// The load as it was last published.
    #[cfg(test)]
    pub(crate) fn load(&self) -> Option<Arc<PartitionLoad>> {
        self.load.read().clone()
    }
}

impl Choices<'_> {
    /// The next partition, by a point out of 2^64: by load, while that makes a difference, else
    /// evenly among those that the load names; without one among the partitions with a leader, if
    /// there are any, else among all. In the even case it is not the previous one, if there is
    /// another.
    fn choose(&self, previous: i32, point: u64) -> i32 {
        if let Some(weighed) = self.load.and_then(|load| load.choose(point)) {
            return weighed;
        }
        let candidates = self.len();
        if candidates == 0 {
            return scale(point, u64::from(self.count.max(1))) as i32;
        }
        let place = scale(point, candidates as u64) as usize;
        match self.at(place) {
            same if same == previous => self.at((place + 1) % candidates),
            other => other,
        }
    }

    /// What was chosen is one of them, or any partition where there are none.
    fn invariants(&self, chosen: i32) {
        if !claims::are_checked() {
            return;
        }
        let place = self.up_to(chosen).checked_sub(1);
        let is_there = place.is_some_and(|place| self.at(place) == chosen);
        let is_any = self.len() == 0 && u32::try_from(chosen).is_ok_and(|p| p < self.count);
        assert!(is_there || is_any, "{chosen} can't be chosen");
    }

    /// How many there are, whatever they weigh.
    fn len(&self) -> usize {
        self.load.map_or(self.available.len(), PartitionLoad::len)
    }

    /// One of them, by its place among them.
    fn at(&self, place: usize) -> i32 {
        self.load.map_or_else(|| self.available[place], |load| load.at(place))
    }

    /// How many of them come no later than `partition`.
    fn up_to(&self, partition: i32) -> usize {
        let available = || self.available.partition_point(|other| *other <= partition);
        self.load.map_or_else(available, |load| load.up_to(partition))
    }
}

/// The place among `range` that a point out of 2^64 falls on.
pub(super) fn scale(point: u64, range: u64) -> u64 {
    // The high half of the product, which is below `range`.
    ((u128::from(point) * u128::from(range)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each partition of `count` is chosen in so many choices.
    fn hits(sticky: &Sticky, count: u32, available: &[i32], choices: usize) -> Vec<u32> {
        let mut hits = vec![0; count as usize];
        for _ in 0..choices {
            let next = sticky.advance(sticky.current(), count, available);
            assert_eq!(next, sticky.current());
            hits[next as usize] += 1;
        }
        hits
    }

    /// PART-02, PART-03, PART-04: a partition with a leader is chosen if there is one, else any; a
    /// topic of one partition has no choice.
    #[test]
    fn partitions_with_a_leader_are_preferred() {
        let sticky = Sticky::new(1);
        assert_eq!(sticky.current(), -1);
        assert_eq!(hits(&sticky, 5, &[1, 4], 100), [0, 50, 0, 0, 50]);
        assert!(hits(&sticky, 3, &[], 99).iter().all(|hits| (32..=34).contains(hits)));
        assert_eq!(hits(&sticky, 2, &[1], 9), [0, 9]);
        assert_eq!(hits(&sticky, 1, &[0], 9), [9]);
        assert_eq!(hits(&sticky, 1, &[], 9), [9]);
    }

    /// PART-13, PART-14, PART-15: the partition moves on only for whoever saw the current one, and
    /// then to another one.
    #[test]
    fn of_two_threads_that_find_it_full_one_moves_it() {
        for count in 2..20 {
            let available: Vec<i32> = (0..count).collect();
            let sticky = Sticky::new(7);
            for _ in 0..1_000 {
                let seen = sticky.current();
                let next = sticky.advance(seen, count as u32, &available);
                assert_ne!(next, seen, "of {count}");
                assert_eq!(sticky.advance(seen, count as u32, &available), next, "moved twice");
            }
        }
    }

    #[test]
    fn choices_are_even_after_few_of_them() {
        for count in [2, 3, 7, 10, 64] {
            let available: Vec<i32> = (0..count).collect();
            for seed in 0..20 {
                let choices = count as usize * 100;
                let hits = hits(&Sticky::new(seed << 59), count as u32, &available, choices);
                assert!(hits.iter().all(|hits| (96..=104).contains(hits)), "{hits:?}");
            }
        }
    }

    /// PART-05: a partition is chosen in proportion to what its queue falls short of the longest.
    #[test]
    fn loaded_partitions_are_chosen_less_often() {
        let sticky = Sticky::new(3);
        let all = [0, 1, 2, 3, 4];
        sticky.set_load(PartitionLoad::new(&[(0, 499), (1, 0), (2, 250), (4, 0)], 5));
        let weights = [1, 500, 250, 0, 500];
        let near = |(hits, weight): (&u32, u32)| hits.abs_diff(weight) <= 5;
        let weighed = hits(&sticky, 5, &all, 1_251);
        assert!(weighed.iter().zip(weights).all(near), "{weighed:?}");
        let level = hits(&sticky, 5, &all, 500);
        let named = [125, 125, 125, 0, 125];
        assert!(level.iter().zip(named).all(near), "{level:?}");
    }

    /// PART-18: also once the queues are level, and for a record that finds no share of the memory.
    #[test]
    fn what_the_load_leaves_out_is_not_chosen() {
        let sticky = Sticky::new(3);
        sticky.set_load(PartitionLoad::new(&[(0, 0), (2, 0)], 3));
        let all = [0, 1, 2];
        assert_eq!(hits(&sticky, 3, &all, 100)[1], 0);
        let mut at = sticky.current();
        for _ in 0..4 {
            let next = sticky.after(at, &all, |partition| partition != at);
            at = next.expect("there are two");
            assert_ne!(at, 1);
        }
        assert_eq!(sticky.after(0, &all, |partition| partition == 1), None);
    }

    #[test]
    fn the_sender_is_told_once_until_it_has_rested() {
        let sticky = Sticky::new(0);
        assert_eq!([sticky.wants_load(), sticky.wants_load()], [true, false]);
        sticky.rested();
        assert!(sticky.wants_load());
    }
}
