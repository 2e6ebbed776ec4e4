//! Users' threads that wait for metadata against the sender that publishes them, under every
//! interleaving.

use super::cell::MetadataCell;
use super::snapshot::{Cluster, Node, TopicMetadata};
use super::*;
use crate::error::Error;
use crate::sync::Arc;
use crate::sync::model::{Poll, explore, join, spawn};
use crate::time::{Clock, ManualClock, MonoTime};
use crate::types::{NodeId, Uuid};

fn topic() -> Arc<Cluster> {
    let mut cluster = Cluster::default();
    let node = Node { id: NodeId(1), host: "h".into(), port: 9092, rack: None };
    cluster.set_nodes([(NodeId(1), node)].into());
    let partitions = vec![PartitionMetadata { leader: Some(NodeId(1)), leader_epoch: 0 }];
    cluster.insert_topic(TopicMetadata::new("t".into(), Uuid::ZERO, false, partitions));
    Arc::new(cluster)
}

/// So many threads that wait for a leader of the topic, against `sender`, whom they wake.
fn wait_against<const THREADS: usize>(
    sender: impl FnOnce(&MetadataCell, &Poll),
    is_expected: fn(&Result<(), Error>) -> bool,
) {
    let bootstrap = Cluster::of_bootstrap_servers(&[("h".into(), 1)]);
    let cell = Arc::new(MetadataCell::new(Arc::new(bootstrap)));
    let poll = Arc::new(Poll::default());
    let waiters = [(); THREADS].map(|()| {
        let (cell, poll) = (Arc::clone(&cell), Arc::clone(&poll));
        spawn(move || {
            let clock = Clock::Manual(ManualClock::new());
            let mut wait = LeaderWait::new("t", MonoTime::ZERO, MonoTime::MAX);
            wait.wait(&cell, &clock, &|| poll.wake())
        })
    });
    sender(&cell, &poll);
    waiters.into_iter().for_each(|waiter| assert!(is_expected(&join(waiter))));
}

#[test]
fn who_waits_for_a_leader_asks_for_the_topic_and_hears_that_it_is_reached() {
    explore(2, || {
        let sender = |cell: &MetadataCell, poll: &Poll| {
            poll.wait();
            assert!(cell.take_asked().topics.contains("t"));
            cell.publish(topic(), &[], &[]);
            // Both tell of that, and one of them is the last to.
            poll.wait();
            cell.set_reached([(NodeId(1), Ok(()))].into());
        };
        wait_against::<2>(sender, Result::is_ok);
    });
}

#[test]
fn a_failure_ends_the_waits_that_it_meets() {
    explore(3, || {
        let sender = |cell: &MetadataCell, poll: &Poll| {
            poll.wait();
            cell.fail_waiting(Error::Forked);
        };
        wait_against::<1>(sender, |outcome| matches!(outcome, Err(Error::Forked)));
    });
}

#[test]
fn the_end_ends_all_waits() {
    explore(3, || {
        let sender = |cell: &MetadataCell, _: &Poll| cell.close();
        wait_against::<2>(sender, |outcome| matches!(outcome, Err(Error::Closed)));
    });
}
