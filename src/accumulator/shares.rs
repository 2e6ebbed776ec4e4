//! How much of the buffer each partition and each broker holds, and how much they may hold: so that
//! one slow leader doesn't starve the others.
//!
//! A plain value under the pool's lock. A partition's bytes are charged from the moment that a
//! thread takes memory for it until the pool has it back; a broker's are the sum over the
//! partitions that it leads, and follow them to another leader. A share counts only in company:
//! who is alone in using memory may have all of it.

use std::time::Duration;

use super::inbox::PartitionId;
use crate::claims;
use crate::time::MonoTime;
use crate::types::NodeId;

/// The bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShareLimits {
    /// Bytes that a partition may hold before it has to wait for its own to come back.
    pub(crate) partition: usize,
    /// The same of all partitions that a broker leads.
    pub(crate) broker: usize,
    /// Who has asked for memory within this time is in use.
    pub(crate) in_use_for: Duration,
}

impl ShareLimits {
    /// The bytes that such a part of the buffer comes to. All of it is no bound: who takes the last
    /// of it has used up the buffer, and no share of it.
    pub(crate) fn bytes(memory: usize, part: f64) -> usize {
        // What is lost of the last bytes does not matter.
        if part < 1.0 { (memory as f64 * part) as usize } else { usize::MAX }
    }

    /// Whoever wants to may have all of the buffer.
    #[cfg(any(test, feature = "__internal"))]
    pub(crate) const fn none() -> Self {
        Self { partition: usize::MAX, broker: usize::MAX, in_use_for: Duration::ZERO }
    }
}

/// Somebody's share of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Share {
    Partition(PartitionId),
    Broker(NodeId),
}

impl Share {
    /// The setting that bounds it.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::Partition(_) => "buffer.memory.partition.share",
            Self::Broker(_) => "buffer.memory.broker.share",
        }
    }
}

/// Who holds what.
pub(super) struct Shares {
    limits: ShareLimits,
    /// By id.
    partitions: Vec<Partition>,
    /// All brokers that ever led a partition; they are few.
    brokers: Vec<Broker>,
    partition_use: Company<PartitionId>,
    broker_use: Company<usize>,
    /// When somebody asked for memory last.
    now: MonoTime,
}

#[derive(Clone, Copy, Default)]
struct Partition {
    held: usize,
    /// When somebody asked for it last; its leader is not known then as a rule, the first time.
    asked: Option<MonoTime>,
    /// The place in `brokers` of whoever leads it.
    leader: Option<usize>,
}

#[derive(Clone, Copy)]
struct Broker {
    id: NodeId,
    held: usize,
}

/// Who has asked last, and when anybody else has. That tells of each whether it is alone.
struct Company<K> {
    latest: Option<(K, MonoTime)>,
    /// The last time that it was not the latest one who asked.
    others: Option<MonoTime>,
}

impl<K: Copy + PartialEq> Company<K> {
    /// `who` has asked at that moment, which may lie behind.
    fn ask(&mut self, who: K, at: MonoTime) {
        match self.latest {
            Some((latest, then)) if latest != who && at < then => {
                self.others = self.others.max(Some(at));
            }
            Some((latest, then)) if latest != who => {
                self.others = Some(then);
                self.latest = Some((who, at));
            }
            Some((_, then)) => self.latest = Some((who, then.max(at))),
            None => self.latest = Some((who, at)),
        }
        self.invariants();
    }

    /// Nobody has asked later than the latest.
    fn invariants(&self) {
        let latest = self.latest.map(|(_, at)| at);
        debug_assert!(self.others <= latest, "{:?}, and {latest:?} the latest", self.others);
    }

    /// Whether anybody but `who` has asked since `since`.
    fn is_in_company(&self, who: K, since: MonoTime) -> bool {
        let others = match self.latest {
            Some((latest, at)) if latest != who => Some(at),
            _ => self.others,
        };
        others.is_some_and(|at| at >= since)
    }
}

impl Shares {
    pub(super) fn new(limits: ShareLimits) -> Self {
        // Whoever holds nothing may have some, however small the share.
        let limits = ShareLimits {
            partition: limits.partition.max(1),
            broker: limits.broker.max(1),
            ..limits
        };
        Self {
            limits,
            partitions: Vec::new(),
            brokers: Vec::new(),
            partition_use: Company { latest: None, others: None },
            broker_use: Company { latest: None, others: None },
            now: MonoTime::ZERO,
        }
    }

    /// Somebody asks for memory for this partition.
    pub(super) fn ask(&mut self, id: PartitionId, now: MonoTime) {
        self.now = self.now.max(now);
        let now = self.now;
        let partition = self.partition_mut(id);
        partition.asked = Some(now);
        let leader = partition.leader;
        self.partition_use.ask(id, self.now);
        if let Some(broker) = leader {
            self.broker_use.ask(broker, self.now);
        }
    }

    /// The share that is used up, if one is. Sizes don't matter, so that of two that wait for the
    /// same share a small one does not overtake: a share may be exceeded by one buffer.
    pub(super) fn used_up(&self, id: PartitionId) -> Option<Share> {
        let partition = self.partition(id);
        let since = self.now - self.limits.in_use_for;
        if partition.held >= self.limits.partition && self.partition_use.is_in_company(id, since) {
            return Some(Share::Partition(id));
        }
        let broker = partition.leader?;
        let Broker { id, held } = self.brokers[broker];
        (held >= self.limits.broker && self.broker_use.is_in_company(broker, since))
            .then_some(Share::Broker(id))
    }

    /// `size` bytes are this partition's.
    pub(super) fn charge(&mut self, id: PartitionId, size: usize) {
        let partition = self.partition_mut(id);
        partition.held += size;
        if let Some(broker) = partition.leader {
            self.brokers[broker].held += size;
        }
    }

    /// `size` bytes are this partition's no more.
    pub(super) fn refund(&mut self, id: PartitionId, size: usize) {
        let partition = self.partition_mut(id);
        debug_assert!(partition.held >= size, "given back more than was held");
        partition.held = partition.held.saturating_sub(size);
        if let Some(broker) = partition.leader {
            let held = &mut self.brokers[broker].held;
            *held = held.saturating_sub(size);
        }
    }

    /// The partition has another leader, who has its bytes to answer for.
    pub(super) fn set_leader(&mut self, id: PartitionId, leader: Option<NodeId>) {
        let place = leader.map(|leader| match self.brokers.iter().position(|b| b.id == leader) {
            Some(place) => place,
            None => {
                self.brokers.push(Broker { id: leader, held: 0 });
                self.brokers.len() - 1
            }
        });
        let partition = self.partition_mut(id);
        let (held, asked) = (partition.held, partition.asked);
        let before = std::mem::replace(&mut partition.leader, place);
        if let Some(before) = before {
            self.brokers[before].held -= held;
        }
        if let Some(place) = place {
            self.brokers[place].held += held;
            if let Some(at) = asked {
                self.broker_use.ask(place, at);
            }
        }
    }

    /// All that is held.
    pub(super) fn held(&self) -> usize {
        self.partitions.iter().map(|partition| partition.held).sum()
    }

    /// A broker holds what its partitions hold, and nobody has asked at a time to come.
    pub(super) fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        let asked =
            [self.partition_use.latest.map(|(_, at)| at), self.broker_use.latest.map(|(_, at)| at)];
        assert!(asked.into_iter().flatten().all(|at| at <= self.now), "{asked:?}");
        if self.is_small() {
            for (place, broker) in self.brokers.iter().enumerate() {
                let led = self.partitions.iter().filter(|p| p.leader == Some(place));
                let held: usize = led.map(|partition| partition.held).sum();
                assert_eq!(held, broker.held, "broker {}", broker.id);
            }
        }
    }

    /// Few enough partitions for a look at all of them after each change.
    pub(super) fn is_small(&self) -> bool {
        self.partitions.len() <= 64
    }

    fn partition(&self, id: PartitionId) -> Partition {
        self.partitions.get(id.0 as usize).copied().unwrap_or_default()
    }

    fn partition_mut(&mut self, id: PartitionId) -> &mut Partition {
        let place = id.0 as usize;
        if place >= self.partitions.len() {
            self.partitions.resize(place + 1, Partition::default());
        }
        &mut self.partitions[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: [PartitionId; 4] = [PartitionId(0), PartitionId(1), PartitionId(2), PartitionId(3)];
    const NODES: [Option<NodeId>; 2] = [Some(NodeId(7)), Some(NodeId(8))];

    fn at(seconds: u64) -> MonoTime {
        MonoTime::ZERO + Duration::from_secs(100 + seconds)
    }

    /// Partitions 0 to 2 on one broker, 3 on another.
    fn shares() -> Shares {
        let in_use_for = Duration::from_secs(10);
        let mut shares = Shares::new(ShareLimits { partition: 50, broker: 80, in_use_for });
        for (id, node) in P.into_iter().zip([0, 0, 0, 1]) {
            shares.set_leader(id, NODES[node]);
        }
        shares
    }

    fn take(shares: &mut Shares, id: PartitionId, size: usize, now: MonoTime) -> Option<Share> {
        shares.ask(id, now);
        let used_up = shares.used_up(id);
        if used_up.is_none() {
            shares.charge(id, size);
        }
        shares.invariants();
        used_up
    }

    #[test]
    fn whoever_is_alone_may_have_all() {
        let mut shares = shares();
        for second in 0..9 {
            assert_eq!(take(&mut shares, P[0], 100, at(second)), None);
        }
        assert_eq!(take(&mut shares, P[1], 10, at(9)), None, "the only broker in use");
        assert_eq!(shares.used_up(P[0]), Some(Share::Partition(P[0])), "in company");
        // The other one has long been idle.
        assert_eq!(take(&mut shares, P[0], 1, at(19)), Some(Share::Partition(P[0])));
        assert_eq!(take(&mut shares, P[0], 1, at(20)), None);
    }

    #[test]
    fn a_share_ends_with_the_buffer_that_reaches_it() {
        let mut shares = shares();
        take(&mut shares, P[3], 10, at(0));
        assert_eq!(take(&mut shares, P[0], 49, at(0)), None);
        assert_eq!(take(&mut shares, P[0], 49, at(0)), None);
        assert_eq!(take(&mut shares, P[0], 1, at(0)), Some(Share::Partition(P[0])));
        // The broker's share is used up too, so that its other partitions get none.
        assert_eq!(take(&mut shares, P[1], 1, at(0)), Some(Share::Broker(NodeId(7))));
        assert_eq!(take(&mut shares, P[3], 30, at(0)), None);
        shares.refund(P[0], 49);
        assert_eq!(take(&mut shares, P[1], 1, at(0)), None);
        assert_eq!(shares.held(), 10 + 49 + 30 + 1);
    }

    #[test]
    fn a_broker_answers_for_what_its_partitions_hold_wherever_they_move() {
        let mut shares = shares();
        take(&mut shares, P[3], 10, at(0));
        for id in [P[0], P[1]] {
            assert_eq!(take(&mut shares, id, 40, at(0)), None);
        }
        assert_eq!(shares.used_up(P[2]), Some(Share::Broker(NodeId(7))));
        shares.set_leader(P[0], NODES[1]);
        shares.invariants();
        assert_eq!(shares.used_up(P[2]), None);
        shares.set_leader(P[1], None);
        shares.set_leader(P[1], NODES[1]);
        shares.invariants();
        assert_eq!(shares.used_up(P[3]), Some(Share::Broker(NodeId(8))));
        [P[0], P[1]].into_iter().for_each(|id| shares.refund(id, 40));
        shares.refund(P[3], 10);
        assert_eq!((shares.held(), shares.used_up(P[3])), (0, None));
        shares.invariants();
    }

    #[test]
    fn a_broker_is_in_use_from_the_first_record_on_whose_leader_was_not_known_yet() {
        let in_use_for = Duration::from_secs(10);
        let mut shares = Shares::new(ShareLimits { partition: 500, broker: 80, in_use_for });
        assert_eq!(take(&mut shares, P[3], 10, at(0)), None);
        assert_eq!(take(&mut shares, P[0], 100, at(1)), None);
        shares.set_leader(P[0], NODES[0]);
        assert_eq!(shares.used_up(P[0]), None, "the only broker that is known");
        shares.set_leader(P[3], NODES[1]);
        assert_eq!(shares.used_up(P[0]), Some(Share::Broker(NodeId(7))));
        assert_eq!(take(&mut shares, P[0], 1, at(10)), Some(Share::Broker(NodeId(7))));
        assert_eq!(take(&mut shares, P[0], 1, at(11)), None, "the other one has long been idle");
    }

    #[test]
    fn all_of_the_buffer_is_no_bound() {
        assert_eq!([0.0, 0.25, 1.0].map(|part| ShareLimits::bytes(80, part)), [0, 20, usize::MAX]);
    }

    #[test]
    fn the_smallest_share_is_one_buffer() {
        let in_use_for = Duration::from_secs(10);
        let mut shares = Shares::new(ShareLimits { partition: 0, broker: 0, in_use_for });
        take(&mut shares, P[1], 10, at(0));
        assert_eq!(take(&mut shares, P[0], 1_000, at(0)), None);
        assert_eq!(take(&mut shares, P[0], 1, at(0)), Some(Share::Partition(P[0])));
    }
}
