//! Which partitions are loaded or out of reach, as the choice of the next sticky one learns it.

use super::*;
use crate::accumulator::inbox::PartitionId;
use crate::accumulator::load::PartitionLoad;
use crate::types::NodeId;

impl Scenario {
    /// The topic's sticky partition moves, and asks for the load; what the sender publishes.
    fn load_after_move(&mut self) -> Option<Vec<(u64, i32)>> {
        // Whoever has rested long enough may ask again.
        self.settle();
        let topic = self.accumulator.topics.find_or_add("t");
        topic.move_sticky(topic.sticky_partition());
        self.settle();
        topic.sticky.load().map(|load| load.sums())
    }

    fn reach(&self, node: i32, reachable: bool) {
        let mut wire = self.client.0.borrow_mut();
        if reachable {
            wire.down.remove(&NodeId(node));
        } else {
            wire.down.insert(NodeId(node), MonoTime::MAX);
        }
    }
}

fn load(queues: &[(i32, u32)], count: u32) -> Option<Vec<(u64, i32)>> {
    PartitionLoad::new(queues, count).map(|load| load.sums())
}

/// PART-17: the weights are those of the queues as they are now.
#[test]
fn the_load_is_that_of_the_queues() {
    let mut s = Scenario::new(|setup| {
        setup.leaders = vec![(1, 0), (2, 0), (-1, -1), (1, 0)];
        setup.max_in_flight = 1;
    });
    assert_eq!(s.load_after_move(), load(&[(0, 0), (1, 0), (3, 0)], 4), "no leader, no choice");
    s.leaders[2] = (2, 1);
    s.advance(SECOND);
    s.settle();
    assert_eq!(s.load_after_move(), None, "all are equal");
    // Records that are batches of their own. The first ones go out, the others wait for an answer.
    for (partition, records) in [(0, 1), (1, 7), (2, 3)] {
        s.append(partition, "first");
        s.settle();
        (0..records).for_each(|_| drop(s.append(partition, "waits")));
    }
    s.settle();
    s.advance(SECOND);
    // Partition 2 shares a broker, and none of its batches is under way. A queue's last batch does
    // not count.
    assert_eq!(s.load_after_move(), load(&[(0, 0), (1, 6), (2, 3), (3, 0)], 4));
}

/// PART-18, PART-22: the wait counts while there is something for the broker to take, and ends as
/// it takes some of it.
#[test]
fn a_broker_that_takes_nothing_for_too_long_is_not_chosen() {
    let mut s = Scenario::new(|setup| {
        setup.leaders = vec![(1, 0), (2, 0), (1, 0)];
        setup.sender.availability_timeout = 100 * MS;
        setup.sender.delivery_timeout = 60 * SECOND;
        setup.sender.request_timeout = 30 * SECOND;
    });
    s.reach(2, false);
    s.advance(SECOND);
    assert_eq!(s.load_after_move(), None, "nothing waits for it");
    s.append(1, "a");
    s.advance(SECOND);
    assert_eq!(s.load_after_move(), None, "it has not waited yet");
    s.advance(100 * MS);
    assert_eq!(s.load_after_move(), None, "not longer than the time-out");
    s.advance(2 * MS);
    let without = load(&[(0, 0), (2, 0)], 3);
    assert_eq!(s.load_after_move(), without);
    // It is back, and takes what there is.
    s.reach(2, true);
    assert_eq!(s.sent().len(), 1);
    s.advance(2 * MS);
    assert_eq!(s.load_after_move(), None);
    // What waits for it expires: it is to be tried again.
    s.reach(2, false);
    s.append(1, "b");
    s.settle();
    s.advance(SECOND);
    assert_eq!(s.load_after_move(), without);
    s.advance(60 * SECOND);
    s.settle();
    assert_eq!(s.load_after_move(), None, "nothing waits for it any more");
}

/// PART-22: also if it leaves some of it behind.
#[test]
fn a_broker_that_takes_one_of_two_batches_is_chosen_again() {
    let mut s = Scenario::new(|setup| {
        setup.leaders = vec![(1, 0), (2, 0), (2, 0)];
        setup.sender.availability_timeout = 100 * MS;
        (setup.sender.max_request_size, setup.max_in_flight) = (60, 1);
    });
    s.reach(2, false);
    s.append(1, "a");
    s.append(2, "b");
    s.settle();
    s.advance(SECOND);
    assert_eq!(s.load_after_move(), load(&[(0, 0)], 3));
    s.reach(2, true);
    let first = s.sent_one();
    s.advance(100 * MS);
    assert_eq!(s.load_after_move(), None, "it has taken some");
    s.advance(102 * MS);
    assert_eq!(s.load_after_move(), load(&[(0, 0)], 3), "it takes nothing again");
    s.answer(&first, OK, 0);
    s.sent_one();
    s.advance(2 * MS);
    assert_eq!(s.load_after_move(), None);
}

/// Also if it holds up what has to wait for its answers: with one request at a time, or behind the
/// first sequence of a partition, which goes alone.
#[test]
fn a_broker_that_answers_nothing_for_too_long_is_not_chosen() {
    for (one_in_flight, idempotent) in [(true, false), (false, true)] {
        let mut s = Scenario::new(|setup| {
            setup.leaders = vec![(1, 0), (2, 0)];
            setup.sender.availability_timeout = 100 * MS;
            setup.sender.delivery_timeout = 10 * SECOND;
            (setup.sender.one_in_flight, setup.sender.idempotent) = (one_in_flight, idempotent);
        });
        s.append(1, "a");
        let first = s.sent_one();
        s.advance(SECOND);
        assert_eq!(s.load_after_move(), None, "nothing waits");
        s.append(1, "waits");
        s.settle();
        s.advance(102 * MS);
        let without = load(&[(0, 0)], 2);
        assert_eq!(s.load_after_move(), without);
        assert!(s.sent().is_empty());
        s.answer(&first, OK, 0);
        s.sent_one();
        s.advance(SECOND);
        assert_eq!(s.load_after_move(), None, "it took that");
        // What waits for it expires: it is to be tried again.
        s.append(1, "waits in vain");
        s.settle();
        s.advance(SECOND);
        assert_eq!(s.load_after_move(), if one_in_flight { without } else { None });
        s.advance(10 * SECOND);
        s.settle();
        assert_eq!(s.load_after_move(), None);
    }
}

#[test]
fn a_new_leader_is_not_to_blame_for_what_the_old_one_does_not_answer() {
    let mut s = Scenario::new(|setup| {
        setup.leaders = vec![(1, 0), (2, 0), (2, 0)];
        setup.sender.availability_timeout = 100 * MS;
        setup.sender.delivery_timeout = 60 * SECOND;
        setup.sender.one_in_flight = true;
    });
    s.append(1, "a");
    s.sent_one();
    s.append(1, "waits");
    s.settle();
    s.leaders[1] = (1, 1);
    s.sender.metadata.request_update();
    s.advance(SECOND);
    s.settle();
    assert_eq!(s.sender.index.partition(PartitionId(0)).leader, Some(NodeId(1)));
    s.advance(SECOND);
    assert_eq!(s.load_after_move(), None);
}

#[test]
fn without_a_time_out_a_broker_out_of_reach_only_counts_by_its_queues() {
    let mut s = Scenario::new(|setup| setup.leaders = vec![(1, 0), (2, 0)]);
    s.reach(2, false);
    s.append(1, "a");
    s.settle();
    s.advance(30 * SECOND);
    assert_eq!(s.load_after_move(), None);
    s.append(1, "b");
    s.advance(SECOND);
    assert_eq!(s.load_after_move(), load(&[(0, 0), (1, 1)], 2));
}

#[test]
fn queues_are_looked_at_on_demand_and_not_all_the_time() {
    let mut s = Scenario::new(|setup| setup.leaders = vec![(1, 0), (2, 0)]);
    s.reach(2, false);
    let loaded = load(&[(0, 0), (1, 1)], 2);
    (0..2).for_each(|_| drop(s.append(1, "waits")));
    s.advance(SECOND);
    s.settle();
    assert!(s.accumulator.topics.find_or_add("t").sticky.load().is_none(), "nobody has asked");
    assert_eq!(s.load_after_move(), loaded);
    s.append(1, "waits");
    assert_eq!(s.load_after_move(), loaded, "asked again at once");
    s.advance(MS);
    s.settle();
    assert_eq!(s.load_after_move(), load(&[(0, 0), (1, 2)], 2));
}
