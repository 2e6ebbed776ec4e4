//! A producer with nothing to do, and one with nobody to talk to.

use std::thread::sleep;
use std::time::{Duration, Instant};

use kafka_producer::testing::TestCluster;
use kafka_producer::{KafkaProducer, ProducerRecord};

use crate::alone::{Alone, alone};
use crate::common::{LONG, close, delivered, ms};
use crate::discarding;
use crate::measure::{KB, MB, cpu, naps, resident, until_still};

/// Resident, above the same program without a producer.
const IDLE_BOUND: u64 = 4 * MB;
/// Of a core.
const REFUSED_BOUND: f64 = 0.005;
/// `reconnect.backoff.max.ms`, and the least that its jitter leaves of it.
const CAPPED: Duration = ms(1000);
const LEAST: Duration = ms(800);

#[test]
fn an_idle_producer_is_small_and_sleeps() {
    alone("quiet::an_idle_producer_is_small_and_sleeps", discarding, idle);
}

fn idle(alone: &Alone<'_>) {
    let broker = alone.start_broker();
    let _ = (resident(), naps());
    let empty = resident();
    let builder = KafkaProducer::builder().bootstrap_servers(&broker.address);
    let producer = builder.build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    delivered(&producer.send(ProducerRecord::new("t", "first")).unwrap());
    let grown = resident().saturating_sub(empty);
    println!("idle: {} KB resident above {} KB", grown / KB, empty / KB);
    assert!(grown < IDLE_BOUND, "{grown} bytes");

    // Once more after work, when all that goes on for a while afterwards is over.
    (0..20_000).for_each(|_| drop(producer.send(ProducerRecord::new("t", "work")).unwrap()));
    producer.flush(LONG).unwrap();
    let (before, watched) = (until_still(naps), 4);
    sleep(Duration::from_secs(watched));
    let after = naps();
    println!("idle: naps of the threads in {watched} s: {before:?} -> {after:?}");
    let total = |naps: &[(String, u64)]| naps.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(before.len(), after.len());
    assert!(after.len() >= 2, "which are the sender's and a callback thread at least");
    assert!(total(&after) - total(&before) <= watched, "more than one a second");
    close(&producer);
}

#[test]
fn brokers_that_refuse_connections_cost_little_from_the_start() {
    alone(
        "quiet::brokers_that_refuse_connections_cost_little_from_the_start",
        discarding,
        refused_from_the_start,
    );
}

fn refused_from_the_start(_: &Alone<'_>) {
    let cluster = TestCluster::builder().brokers(3).topic("t", 3).start();
    let producer = KafkaProducer::builder()
        .bootstrap_servers(cluster.bootstrap_servers())
        .max_block(LONG)
        .build()
        .unwrap();
    (1..=3).for_each(|id| cluster.stop_broker(id));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| producer.send(ProducerRecord::new("t", "early")));
        refused(&producer);
        (1..=3).for_each(|id| cluster.start_broker(id).unwrap());
        delivered(&waiting.join().unwrap().unwrap());
    });
    close(&producer);
}

#[test]
fn brokers_that_refuse_connections_cost_little_with_records_under_way() {
    alone(
        "quiet::brokers_that_refuse_connections_cost_little_with_records_under_way",
        discarding,
        refused_with_records_under_way,
    );
}

fn refused_with_records_under_way(_: &Alone<'_>) {
    let cluster = TestCluster::builder().brokers(3).topic("t", 3).start();
    let servers = cluster.bootstrap_servers();
    let producer = KafkaProducer::builder().bootstrap_servers(servers).build().unwrap();
    let record = |i: i32| ProducerRecord::new("t", "late").partition(i % 3);
    (0..3).for_each(|i| drop(delivered(&producer.send(record(i)).unwrap())));
    (1..=3).for_each(|id| cluster.stop_broker(id));
    let late: Vec<_> = (0..3000).map(|i| producer.send(record(i)).unwrap()).collect();
    refused(&producer);
    (1..=3).for_each(|id| cluster.start_broker(id).unwrap());
    late.iter().for_each(|delivery| drop(delivered(delivery)));
    close(&producer);
}

/// Watches a producer whose three brokers refuse connections; each attempt ends in a connection
/// that is closed.
fn refused(producer: &KafkaProducer) {
    let attempts = || producer.metrics().producer.connection_close.total;
    // With six failures the backoff has reached its bound.
    let (start, first) = (Instant::now(), attempts());
    while attempts() < first + 3 * 6 {
        assert!(start.elapsed() < LONG, "{} attempts", attempts() - first);
        sleep(ms(20));
    }
    let (used, start, before, attempts_before) = (cpu(), Instant::now(), naps(), attempts());
    sleep(ms(5000));
    let (used, watched, attempts) = (cpu() - used, start.elapsed(), attempts() - attempts_before);
    let share = used.as_secs_f64() / watched.as_secs_f64();
    println!(
        "refused: {:.3} % of a core and {attempts} attempts in {watched:?}: {before:?} -> {:?}",
        share * 100.0,
        naps()
    );
    assert!(share < REFUSED_BOUND, "{share}");
    let most = 3 * watched.div_duration_f64(LEAST).ceil() as u64;
    let least = watched.div_duration_f64(CAPPED * 2) as u64;
    assert!((least..=most).contains(&attempts), "{attempts}, not {least} to {most}");
}
