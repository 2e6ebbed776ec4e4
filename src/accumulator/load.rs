//! How likely each partition is to be chosen for records without a key, by the length of its queue
//! (KIP-794). A pure value: the sender makes it, users' threads draw from it.

use super::sticky::scale;
use crate::claims;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Weights of partitions: the shorter the queue, the heavier.
///
/// A weight is also how many batches bring the queue level with the longest one. So weights are
/// good for as many choices as their sum: without that, whoever chooses often would overwhelm the
/// short queues before the sender has looked again. Which partitions may be chosen at all holds
/// for longer, until the sender says otherwise.
#[derive(Debug)]
pub(crate) struct PartitionLoad {
    /// Ascending partitions with running sums of their weights, so ascending, too: a number below
    /// the last sum means the first partition whose sum is above it.
    sums: Vec<(u64, i32)>,
    /// The choices that were made.
    used: AtomicU64,
}

impl PartitionLoad {
    /// Weights from `queues`, the batches that wait in each partition that may be chosen, in
    /// ascending order: it has a leader, on a node that takes what it is sent. A queue's weight is
    /// the longest queue's length, less its own, plus one.
    ///
    /// None if there is nothing to weigh: no choice, or the same for all partitions.
    pub(crate) fn new(queues: &[(i32, u32)], partition_count: u32) -> Option<Self> {
        let longest = queues.iter().map(|(_, length)| *length).max()?;
        let all_equal = queues.iter().all(|(_, length)| *length == longest);
        let all_there = usize::try_from(partition_count).is_ok_and(|n| n == queues.len());
        if partition_count < 2 || (all_equal && all_there) {
            return None;
        }
        let weigh = |sum: &mut u64, (partition, length): &(i32, u32)| {
            *sum += u64::from(longest - length) + 1;
            Some((*sum, *partition))
        };
        let sums = queues.iter().scan(0, weigh).collect();
        let load = Self { sums, used: AtomicU64::new(0) };
        load.invariants();
        Some(load)
    }

    /// Each partition stands there once and has a stretch, in ascending order.
    fn invariants(&self) {
        if claims::are_checked() {
            let ascend = |pair: &[(u64, i32)]| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1;
            assert!(self.sums.windows(2).all(ascend), "{self:?}");
            assert!(self.sums.first().is_some_and(|(sum, _)| *sum > 0), "{self:?}");
        }
    }

    /// The partition on whose stretch a point out of 2^64 falls; None once queues are level.
    pub(crate) fn choose(&self, point: u64) -> Option<i32> {
        let range = self.sums.last().map_or(0, |(sum, _)| *sum);
        if self.used.fetch_add(1, Ordering::Relaxed) >= range {
            return None;
        }
        let number = scale(point, range);
        let place = self.sums.partition_point(|(sum, _)| *sum <= number);
        self.sums.get(place).map(|(_, partition)| *partition)
    }

    /// How many partitions may be chosen, however long their queues.
    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }

    /// One of them, by its place among them; they ascend.
    pub(super) fn at(&self, place: usize) -> i32 {
        self.sums[place].1
    }

    /// How many of them come no later than `partition`.
    pub(super) fn up_to(&self, partition: i32) -> usize {
        self.sums.partition_point(|(_, other)| *other <= partition)
    }

    /// The weights, to be compared.
    #[cfg(test)]
    pub(crate) fn sums(&self) -> Vec<(u64, i32)> {
        self.sums.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PART-05: over a full cycle of draws each partition comes up as often as it weighs, which is
    /// as often as it takes to make the queues level.
    #[test]
    fn shorter_queues_are_chosen_more_often() {
        let queues = [(0, 5), (1, 0), (2, 3), (4, 0)];
        let load = PartitionLoad::new(&queues, 5).unwrap();
        let range = 1 + 6 + 3 + 6;
        let mut hits = [0; 5];
        for number in 0..range {
            // In the middle of the number's stretch.
            let point = (u64::MAX / range) * number + u64::MAX / range / 2;
            hits[load.choose(point).unwrap() as usize] += 1;
        }
        assert_eq!(hits, [1, 6, 3, 0, 6]);
        assert_eq!(load.choose(0), None, "it is used up");
        let load = PartitionLoad::new(&queues, 5).unwrap();
        assert_eq!([0, u64::MAX].map(|point| load.choose(point)), [Some(0), Some(4)]);
    }

    #[test]
    fn load_counts_only_where_it_makes_a_difference() {
        assert!(PartitionLoad::new(&[], 4).is_none());
        assert!(PartitionLoad::new(&[(0, 9)], 1).is_none());
        assert!(PartitionLoad::new(&[(0, 2), (1, 2)], 2).is_none());
        // Equal queues, but some partition is excluded and must stay so.
        let load = PartitionLoad::new(&[(0, 2), (2, 2)], 3).unwrap();
        assert_eq!([0, u64::MAX, 7].map(|point| load.choose(point)), [Some(0), Some(2), None]);
        assert!(PartitionLoad::new(&[(0, u32::MAX), (1, 0)], 2).is_some());
    }
}
