//! How likely each partition is to be chosen for records without a key, by the length of its queue
//! (KIP-794). A pure value: the sender makes it, users' threads draw from it.

use super::sticky::scale;

/// Weights of partitions: the shorter the queue, the heavier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionLoad {
    /// Partitions with running sums of their weights, so strictly ascending: a number below the
    /// last sum means the first partition whose sum is above it.
    sums: Vec<(u64, i32)>,
}

impl PartitionLoad {
    /// Weights from `queues`, the batches that wait in each partition that may be chosen: it has a
    /// leader, on a node that takes what it is sent. A queue's weight is the longest queue's
    /// length, less its own, plus one.
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
        Some(Self { sums: queues.iter().scan(0, weigh).collect() })
    }

    /// The partition on whose stretch a point out of 2^64 falls.
    pub(crate) fn choose(&self, point: u64) -> i32 {
        let range = self.sums.last().map_or(0, |(sum, _)| *sum);
        let number = scale(point, range);
        let place = self.sums.partition_point(|(sum, _)| *sum <= number);
        self.sums[place].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PART-05: over a full cycle of draws each partition comes up as often as it weighs.
    #[test]
    fn shorter_queues_are_chosen_more_often() {
        let queues = [(0, 5), (1, 0), (2, 3), (4, 0)];
        let load = PartitionLoad::new(&queues, 5).unwrap();
        let range = 1 + 6 + 3 + 6;
        let mut hits = [0; 5];
        for number in 0..range {
            // In the middle of the number's stretch.
            let point = (u64::MAX / range) * number + u64::MAX / range / 2;
            hits[load.choose(point) as usize] += 1;
        }
        assert_eq!(hits, [1, 6, 3, 0, 6]);
        assert_eq!([load.choose(0), load.choose(u64::MAX)], [0, 4]);
    }

    #[test]
    fn load_counts_only_where_it_makes_a_difference() {
        assert_eq!(PartitionLoad::new(&[], 4), None);
        assert_eq!(PartitionLoad::new(&[(0, 9)], 1), None);
        assert_eq!(PartitionLoad::new(&[(0, 2), (1, 2)], 2), None);
        // Equal queues, but some partition is excluded and must stay so.
        let load = PartitionLoad::new(&[(0, 2), (2, 2)], 3).unwrap();
        assert!((0..9).all(|i| load.choose(i << 60) != 1));
        assert!(PartitionLoad::new(&[(1, u32::MAX), (0, 0)], 2).is_some());
    }
}
