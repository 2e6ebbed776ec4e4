//! Brokers that die, come back or stand still in mid-stream.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_producer::{
    DeliveryCause, Error, ErrorCode, KafkaProducer, Persisted, ProducerRecord, TopicProducer,
    TopicRecord,
};
use parking_lot::{Condvar, Mutex};

use crate::kafka_harness::Cluster;
use crate::support::{
    LONG, Numbered, Told, assert_truthful, guarded_broker, one_broker, producer, three_brokers,
    within,
};

const THREADS: u32 = 4;

/// How many records of a stream are decided, for the thread that breaks things meanwhile.
#[derive(Default)]
struct Progress {
    decided: Mutex<Decided>,
    changed: Condvar,
    stop: AtomicBool,
}

#[derive(Clone, Copy, Default)]
struct Decided {
    delivered: u64,
    failed: u64,
}

impl Progress {
    fn add(&self, told: &Told) {
        let mut decided = self.decided.lock();
        match told.verdict {
            Ok(_) => decided.delivered += 1,
            Err(_) => decided.failed += 1,
        }
        drop(decided);
        self.changed.notify_all();
    }

    /// Returns when so many more are delivered than at the call.
    fn await_delivered(&self, more: u64) {
        self.await_more("delivered", more, |decided| decided.delivered);
    }

    fn await_failed(&self, more: u64) {
        self.await_more("failed", more, |decided| decided.failed);
    }

    fn await_more(&self, what: &str, more: u64, count: impl Fn(Decided) -> u64) {
        let mut decided = self.decided.lock();
        let wanted = count(*decided) + more;
        while count(*decided) < wanted {
            let timed_out = self.changed.wait_for(&mut decided, LONG).timed_out();
            assert!(!timed_out, "{} of {wanted} records {what}", count(*decided));
        }
    }
}

/// Ends the stream even if the test fails meanwhile.
struct StopOnDrop<'a>(&'a Progress);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends a steady stream from a few threads, each to all partitions, until `meanwhile` returns;
/// gives what was told of every record.
fn stream(producer: &KafkaProducer, topic: &str, meanwhile: impl FnOnce(&Progress)) -> Vec<Told> {
    let progress = &Progress::default();
    let topic = producer.topic(topic).expect("the topic is there");
    let partitions = producer.partitions_for(topic.name()).expect("known").len();
    let topic = &topic;
    std::thread::scope(|scope| {
        let stop = StopOnDrop(progress);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || send_steadily(topic, thread, partitions, progress)))
            .collect();
        meanwhile(progress);
        drop(stop);
        threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect()
    })
}

fn send_steadily(
    topic: &TopicProducer,
    thread: u32,
    partitions: usize,
    progress: &Progress,
) -> Vec<Told> {
    let mut told = Vec::new();
    let mut pending = std::collections::VecDeque::new();
    let mut number = 0;
    while !progress.stop.load(Ordering::Relaxed) {
        for _ in 0..4 {
            let record = Numbered { thread, number };
            let partition = i32::try_from(number as usize % partitions).expect("few partitions");
            let value = record.value();
            match topic.send(TopicRecord::new(&value).partition(partition)) {
                Ok(delivery) => pending.push_back((record, delivery)),
                Err(error) => panic!("{record:?} was refused: {error}"),
            }
            number += 1;
        }
        // Completions of several partitions come in any order: look at all, keep the rest.
        pending.retain(|(record, delivery)| {
            let undecided = delivery.try_get().is_none();
            if !undecided {
                let one = Told::of(*record, delivery);
                progress.add(&one);
                told.push(one);
            }
            undecided
        });
        // The load's pace: the log has to be read back, too.
        std::thread::sleep(Duration::from_millis(4));
    }
    told.extend(pending.iter().map(|(record, delivery)| Told::of(*record, delivery)));
    told
}

fn assert_all_delivered(told: &[Told]) {
    let failed = told.iter().filter(|t| t.verdict.is_err()).count();
    let first = told.iter().find_map(|t| t.verdict.as_ref().err());
    assert_eq!(failed, 0, "of {}; the first: {}", told.len(), first.expect("one"));
}

/// INT-06.
#[test]
fn a_killed_leader_costs_no_record_and_doubles_none() {
    let test = "a_killed_leader_costs_no_record_and_doubles_none";
    let Some(cluster) = three_brokers(test) else { return };
    cluster.create_topic("killed", 6, 3, &[("min.insync.replicas", "2")]);
    cluster.wait_in_sync("killed", 3);
    let producer = producer(&cluster).build().unwrap();
    let told = stream(&producer, "killed", |progress| {
        progress.await_delivered(1_000);
        let leader = cluster.leader("killed", 0).expect("a leader");
        cluster.kill(leader);
        progress.await_delivered(4_000);
        cluster.restart(leader);
        cluster.wait_in_sync("killed", 3);
        progress.await_delivered(1_000);
        // This one goes in good order, and hands its partitions over.
        cluster.restart(cluster.leader("killed", 1).expect("a leader"));
        cluster.wait_in_sync("killed", 3);
        progress.await_delivered(1_000);
    });
    assert!(producer.close(LONG).is_clean());
    assert_all_delivered(&told);
    assert_truthful(&cluster.consume("killed", usize::MAX), &told);
}

#[test]
fn a_leader_that_stands_still_and_wakes_up_costs_no_record_and_doubles_none() {
    let test = "a_leader_that_stands_still_and_wakes_up_costs_no_record_and_doubles_none";
    let Some(cluster) = three_brokers(test) else { return };
    cluster.create_topic("paused", 6, 3, &[("min.insync.replicas", "2")]);
    cluster.wait_in_sync("paused", 3);
    let producer = producer(&cluster).request_timeout(Duration::from_secs(3)).build().unwrap();
    let told = stream(&producer, "paused", |progress| {
        progress.await_delivered(1_000);
        let leader = cluster.leader("paused", 0).expect("a leader");
        cluster.pause(leader);
        // By then another one leads, and the requests that the old one holds were sent again.
        progress.await_delivered(6_000);
        cluster.resume(leader);
        cluster.wait_in_sync("paused", 3);
        progress.await_delivered(1_000);
    });
    assert!(producer.close(LONG).is_clean());
    assert_all_delivered(&told);
    assert_truthful(&cluster.consume("paused", usize::MAX), &told);
}

/// INT-22.
#[test]
fn what_is_reported_lost_is_lost_and_the_stream_recovers() {
    let test = "what_is_reported_lost_is_lost_and_the_stream_recovers";
    let Some(cluster) = three_brokers(test) else { return };
    cluster.create_topic("strict", 6, 3, &[("min.insync.replicas", "3")]);
    cluster.wait_in_sync("strict", 3);
    let builder = producer(&cluster).request_timeout(Duration::from_secs(2));
    let producer = builder.delivery_timeout(Duration::from_secs(3)).build().unwrap();
    cluster.create_topic("strict-once", 1, 3, &[("min.insync.replicas", "3")]);
    let told = stream(&producer, "strict", |progress| {
        progress.await_delivered(1_000);
        let leader = cluster.leader("strict", 0).expect("a leader");
        cluster.kill(leader);
        progress.await_failed(4_000);
        too_few_replicas_fail_a_record_that_is_not_tried_again(&cluster);
        cluster.restart(leader);
        cluster.wait_in_sync("strict", 3);
        progress.await_delivered(2_000);
    });
    assert!(producer.close(LONG).is_clean());
    let lost = told.iter().filter(|t| t.persisted() == Some(Persisted::No)).count();
    assert!(lost > 0, "too few replicas: refused before anything is appended");
    assert_truthful(&cluster.consume("strict", usize::MAX), &told);
}

/// While one of three brokers is down, of which the topic wants all.
fn too_few_replicas_fail_a_record_that_is_not_tried_again(cluster: &Cluster) {
    let producer = producer(cluster).retries(0).build().unwrap();
    let deadline = Instant::now() + LONG;
    loop {
        let sent = producer.send(ProducerRecord::new("strict-once", "x")).expect("accepted");
        let Err(Error::Delivery(error)) = sent.wait_timeout(LONG) else { panic!("delivered") };
        if let DeliveryCause::Broker { code: ErrorCode::NOT_ENOUGH_REPLICAS, .. } = error.cause {
            assert_eq!((error.attempts, error.persisted), (1, Persisted::No), "{error}");
            return;
        }
        // Its leader was the one that died.
        assert!(Instant::now() < deadline, "never NOT_ENOUGH_REPLICAS: {error}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Outage {
    LeaderPaused,
    LeaderKilled,
    AllKilled,
}

impl Outage {
    fn begin(self, cluster: &Cluster, leader: i32) {
        match self {
            Self::LeaderPaused => cluster.pause(leader),
            Self::LeaderKilled => cluster.kill(leader),
            Self::AllKilled => (1..=3).for_each(|broker| cluster.kill(broker)),
        }
    }
}

#[test]
fn time_outs_are_kept_while_a_leader_stands_still() {
    let Some(cluster) = three_brokers("time_outs_are_kept_while_a_leader_stands_still") else {
        return;
    };
    time_outs_are_kept(&cluster, Outage::LeaderPaused, "still");
}

#[test]
fn time_outs_are_kept_while_a_partition_has_no_leader() {
    let Some(cluster) = three_brokers("time_outs_are_kept_while_a_partition_has_no_leader") else {
        return;
    };
    time_outs_are_kept(&cluster, Outage::LeaderKilled, "leaderless");
}

#[test]
fn time_outs_are_kept_while_the_cluster_is_gone() {
    let Some(cluster) = three_brokers("time_outs_are_kept_while_the_cluster_is_gone") else {
        return;
    };
    time_outs_are_kept(&cluster, Outage::AllKilled, "gone");
}

/// A partition with one replica, so that nobody takes over: the calls that wait return in time, and
/// once the broker is back a new producer works.
fn time_outs_are_kept(cluster: &Cluster, outage: Outage, topic: &str) {
    const SHORT: Duration = Duration::from_millis(700);
    cluster.create_topic(topic, 1, 1, &[]);
    let closed = producer(cluster).max_block(SHORT).build().unwrap();
    let dropped = producer(cluster).close_on_drop_timeout(SHORT).build().unwrap();
    let mut told = Vec::new();
    for (thread, producer) in [(0, &closed), (1, &dropped)] {
        told.extend(send_numbers(producer, topic, thread, 0..100).iter().map(tell));
    }
    assert_all_delivered(&told);

    outage.begin(cluster, cluster.leader(topic, 0).expect("a leader"));
    let mut sent = send_numbers(&closed, topic, 0, 100..300);
    let waited = within(SHORT, "wait", || sent[0].1.wait_timeout(SHORT));
    assert!(matches!(waited, Err(Error::WaitTimeout)), "{waited:?}");
    let flushed = within(SHORT, "flush", || closed.flush(SHORT));
    assert!(
        matches!(flushed, Err(Error::FlushTimeout { records: 200, callbacks: 0 })),
        "{flushed:?}"
    );
    let unknown = within(SHORT, "send", || closed.send(ProducerRecord::new("another-topic", "x")));
    assert!(matches!(unknown, Err(Error::MetadataTimeout { .. })), "{unknown:?}");
    let report = within(SHORT, "close", || closed.close(SHORT));
    assert_eq!(report.aborted_records, 200, "{report:?}");
    let later = sent[0].1.try_get();
    assert!(closed_it(&later), "{later:?}");

    sent.extend(send_numbers(&dropped, topic, 1, 100..300));
    within(SHORT, "drop", || drop(dropped));
    told.extend(sent.iter().map(tell));
    assert_eq!(told.iter().filter(|t| t.verdict.is_err()).count(), 400);

    cluster.mend();
    let producer = producer(cluster).build().unwrap();
    let after: Vec<_> = send_numbers(&producer, topic, 2, 0..100).iter().map(tell).collect();
    assert_all_delivered(&after);
    assert!(producer.close(LONG).is_clean());
    told.extend(after);
    assert_truthful(&cluster.consume(topic, usize::MAX), &told);
}

#[derive(Clone, Copy, Debug)]
enum Stranger {
    /// Nobody listens there.
    Absent,
    /// The connection is made, and nothing is ever answered.
    Silent,
}

/// INT-19.
#[test]
fn time_outs_are_kept_by_a_producer_that_never_met_a_broker() {
    let test = "time_outs_are_kept_by_a_producer_that_never_met_a_broker";
    let Some(cluster) = three_brokers(test) else { return };
    cluster.create_topic("never-met", 1, 3, &[]);
    for stranger in [Stranger::Silent, Stranger::Absent] {
        match stranger {
            Stranger::Silent => (1..=3).for_each(|broker| cluster.pause(broker)),
            Stranger::Absent => (1..=3).for_each(|broker| cluster.kill(broker)),
        }
        time_outs_are_kept_by_a_newcomer(&cluster, stranger);
    }
    // One that waits long enough gets through.
    let producer = producer(&cluster).build().unwrap();
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| producer.send(ProducerRecord::new("never-met", "x")));
        cluster.mend();
        sending.join().expect("no panic").expect("accepted")
    });
    assert_eq!(sent.wait_timeout(LONG).expect("delivered").offset(), Some(0));
    assert!(producer.close(LONG).is_clean());
    assert_eq!(cluster.consume("never-met", usize::MAX).len(), 1);
}

fn time_outs_are_kept_by_a_newcomer(cluster: &Cluster, stranger: Stranger) {
    const SHORT: Duration = Duration::from_millis(700);
    let build = || producer(cluster).max_block(SHORT).close_on_drop_timeout(SHORT).build().unwrap();
    let record = ProducerRecord::new("never-met", "lost");
    let (closed, dropped) = (build(), build());
    for producer in [&closed, &dropped] {
        let sent = within(SHORT, "send", || producer.send(record.clone()));
        assert!(matches!(sent, Err(Error::MetadataTimeout { .. })), "{stranger:?}: {sent:?}");
        let tried = within(Duration::ZERO, "try_send", || producer.try_send(record.clone()));
        let refused = tried.expect_err("nothing is known of the topic");
        assert!(matches!(refused.error(), Error::NotReady { .. }), "{}", refused.error());
        let ready = within(SHORT, "wait_ready", || producer.wait_ready(&["never-met"], SHORT));
        assert!(matches!(ready, Err(Error::MetadataTimeout { .. })), "{stranger:?}: {ready:?}");
        within(Duration::ZERO, "flush", || producer.flush(SHORT)).expect("nothing was accepted");
    }
    let report = within(SHORT, "close", || closed.close(SHORT));
    assert!(report.is_clean(), "{stranger:?}: {report:?}");
    within(SHORT, "drop", || drop(dropped));
}

/// A leader is elected that lacks what was acknowledged without it. That is lost: the producer can
/// know no more than that its sequences don't fit any more, and goes on.
#[test]
fn a_producer_goes_on_after_an_unclean_election() {
    let test = "a_producer_goes_on_after_an_unclean_election";
    let Some(cluster) = three_brokers(test) else { return };
    cluster.create_topic("unclean", 1, 2, &[("unclean.leader.election.enable", "true")]);
    cluster.wait_in_sync("unclean", 2);
    let leader = cluster.leader("unclean", 0).expect("a leader");
    let replicas = cluster.replicas("unclean", 0);
    let behind = *replicas.iter().find(|id| **id != leader).expect("two replicas");
    let producer = producer(&cluster).build().unwrap();
    let send = |numbers| {
        let sent = send_numbers(&producer, "unclean", 0, numbers);
        assert_all_delivered(&sent.iter().map(tell).collect::<Vec<_>>());
    };
    send(0..10);
    cluster.kill(behind);
    cluster.wait_shrunk("unclean", 0, 1);
    send(10..30);
    cluster.kill(leader);
    cluster.restart(behind);
    send(30..40);
    let log = cluster.consume("unclean", usize::MAX);
    let numbers = log.iter().map(|r| Numbered::parse(r.value.as_deref().expect("a value")).number);
    assert_eq!(numbers.collect::<Vec<_>>(), (0..10).chain(30..40).collect::<Vec<_>>());
    assert!(producer.close(LONG).is_clean());
    cluster.mend();
}

/// INT-25: all brokers that the producer knows are gone, and another of its bootstrap servers is
/// there: one of another cluster, even.
#[test]
fn where_all_brokers_are_gone_the_bootstrap_servers_are_asked_again() {
    let test = "where_all_brokers_are_gone_the_bootstrap_servers_are_asked_again";
    let Some(there) = one_broker(test) else { return };
    let Some(gone) = guarded_broker(test) else { return };
    gone.create_topic("moved", 5, 1, &[]);
    there.create_topic("moved", 1, 1, &[]);
    let servers = format!("{},{}", gone.bootstrap(), there.bootstrap());
    // Which of the two is asked first is left to chance.
    let producer = loop {
        let producer = producer(there).bootstrap_servers(&*servers).build().unwrap();
        if producer.partitions_for("moved").unwrap().len() == 5 {
            break producer;
        }
    };
    let send = || producer.send(ProducerRecord::new("moved", "x").partition(0)).expect("accepted");
    assert_eq!(send().wait_timeout(LONG).unwrap().offset(), Some(0));
    gone.kill(1);
    for offset in 0..10 {
        assert_eq!(send().wait_timeout(LONG).unwrap().offset(), Some(offset));
    }
    assert!(producer.close(LONG).is_clean());
    assert_eq!(there.consume("moved", usize::MAX).len(), 10);
    gone.mend();
}

type Sent = (Numbered, kafka_producer::Delivery);

fn tell((record, delivery): &Sent) -> Told {
    Told::of(*record, delivery)
}

fn send_numbers(
    producer: &KafkaProducer,
    topic: &str,
    thread: u32,
    numbers: std::ops::Range<u32>,
) -> Vec<Sent> {
    let send = |number| {
        let record = Numbered { thread, number };
        let delivery = producer.send(ProducerRecord::new(topic, &record.value()));
        (record, delivery.expect("accepted"))
    };
    numbers.map(send).collect()
}

fn closed_it(verdict: &Option<Result<kafka_producer::RecordMetadata, Error>>) -> bool {
    let Some(Err(Error::Delivery(error))) = verdict else { return false };
    error.cause == DeliveryCause::Closed
}
