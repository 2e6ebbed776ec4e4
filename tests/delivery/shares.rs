//! A leader that stands still fills its share of the buffer, and no more: others go on.

use std::time::{Duration, Instant};

use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{Error, KafkaProducer, ProducerBuilder, ProducerRecord};

use crate::common::{LONG, assert_took, builder, delivered, ms, timed};

/// Five brokers, of which each leads a partition.
fn five() -> TestCluster {
    let cluster = TestCluster::builder().brokers(5).topic("t", 5).start();
    // What a broker takes is what bounds it, and not this machine.
    cluster.inject(Fault::produce().always().delay(ms(25)));
    cluster
}

/// A buffer of two hundred batches.
fn small(cluster: &TestCluster) -> ProducerBuilder {
    builder(cluster).batch_size(4_000).buffer_memory(800_000).max_block(ms(300))
}

/// A producer that has used all five, the last of which then stands still if `stalled`, and is sent
/// all that is accepted.
fn warmed_up(cluster: &TestCluster, builder: &ProducerBuilder, stalled: bool) -> KafkaProducer {
    let producer = builder.build().unwrap();
    for partition in 0..5 {
        let record = ProducerRecord::new("t", "v").partition(partition);
        delivered(&producer.send_timeout(record, LONG).unwrap());
    }
    if stalled {
        cluster.freeze_broker(cluster.leader("t", 4).unwrap().0);
        while producer.try_send(ProducerRecord::new("t", &[7; 1_000]).partition(4)).is_ok() {}
    }
    producer
}

/// What the first four partitions get in three seconds while five threads send, each to its own.
fn throughput(builder: impl Fn(&TestCluster) -> ProducerBuilder, stalled: bool) -> usize {
    let cluster = five();
    let producer = warmed_up(&cluster, &builder(&cluster), stalled);
    let count = || (0..4).map(|partition| cluster.records("t", partition).len()).sum::<usize>();
    let (before, begun) = (count(), Instant::now());
    let send_all_the_time = |partition| {
        while begun.elapsed() < Duration::from_secs(3) {
            // One fills a batch: how full batches are would be left to chance.
            let record = ProducerRecord::new("t", &[b'x'; 3_800]).partition(partition);
            // Of the others none may be refused, however busy this machine is.
            let patience = if partition == 4 { ms(300) } else { ms(2_000) };
            match producer.send_timeout(record, patience) {
                Ok(_) | Err(Error::BufferExhausted { .. }) => {}
                Err(Error::BufferShareExhausted { partition: 4, .. }) => {}
                Err(error) => panic!("{partition}: {error}"),
            }
        }
    };
    let got = std::thread::scope(|scope| {
        for partition in 1..5 {
            scope.spawn(move || send_all_the_time(partition));
        }
        send_all_the_time(0);
        count() - before
    });
    producer.close(ms(0));
    got
}

/// One of five leaders stands still: the other four keep nine tenths of what they had.
#[test]
fn a_leader_that_stands_still_starves_nobody() {
    let whole = |cluster: &TestCluster| {
        small(cluster).buffer_memory_partition_share(1.0).buffer_memory_broker_share(1.0)
    };
    // All at once, so that whatever else this machine does concerns all of them.
    let [before, stalled, starved] = std::thread::scope(|scope| {
        let before = scope.spawn(|| throughput(small, false));
        let stalled = scope.spawn(|| throughput(small, true));
        let starved = scope.spawn(|| throughput(whole, true));
        [before, stalled, starved].map(|world| world.join().unwrap())
    });
    // The same, but for what a busy machine gives one world more than another in two seconds.
    assert!(stalled * 4 >= before * 3, "{before} {stalled}");
    assert!(starved * 2 < before, "without shares they would starve: {before} {starved}");
}

#[test]
fn whoever_sends_to_it_is_told_at_once_or_waits_for_that_share() {
    let cluster = five();
    let producer = warmed_up(&cluster, &small(&cluster), true);
    let value = [b'x'; 1_000];
    let to = |partition| ProducerRecord::new("t", &value).partition(partition);
    let refused = loop {
        if let Err(refused) = producer.try_send(to(4)) {
            break refused;
        }
    };
    let Error::BufferShareExhausted { topic, partition, setting, waited } = refused.error() else {
        panic!("{refused:?}")
    };
    assert_eq!((&**topic, *partition, *waited), ("t", 4, Duration::ZERO));
    assert_eq!(*setting, "buffer.memory.partition.share");
    // A median, since a busy machine interrupts calls.
    let mut times: Vec<_> =
        (0..1_001).map(|_| timed(|| producer.try_send(to(4)).is_err())).collect();
    times.sort_by_key(|(_, time)| *time);
    assert!(times.iter().all(|(is_refused, _)| *is_refused));
    assert!(times[500].1 < ms(1), "{:?}", times[500]);
    let (refused, time) = timed(|| producer.send(to(4)));
    assert_took(time, ms(300));
    assert!(
        matches!(refused, Err(Error::BufferShareExhausted { waited, .. }) if waited >= ms(300))
    );
    // The others have the other half.
    delivered(&producer.send(to(0)).unwrap());
    // One that waits goes on as the share comes back.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| producer.send_timeout(to(4), LONG));
        delivered(&producer.send(to(1)).unwrap());
        cluster.thaw_broker(cluster.leader("t", 4).unwrap().0);
        delivered(&waiting.join().unwrap().unwrap());
    });
    assert!(producer.close(LONG).is_clean());
}

/// Also one that leads many partitions, each of which keeps to its own share.
#[test]
fn a_broker_has_a_share_beside_that_of_its_partitions() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 8).start();
    let producer = small(&cluster).buffer_memory_partition_share(0.25).build().unwrap();
    let leader = |partition| cluster.leader("t", partition).unwrap().0;
    for partition in 0..8 {
        delivered(&producer.send(ProducerRecord::new("t", "v").partition(partition)).unwrap());
    }
    cluster.freeze_broker(1);
    let led: Vec<i32> = (0..8).filter(|partition| leader(*partition) == 1).collect();
    assert_eq!(led.len(), 4);
    let (mut accepted, mut settings) = (0, Vec::new());
    for partition in led {
        loop {
            match producer.try_send(ProducerRecord::new("t", &[7; 1_000]).partition(partition)) {
                Ok(_) => accepted += 1_000,
                Err(refused) => match refused.error() {
                    Error::BufferShareExhausted { setting, .. } => break settings.push(*setting),
                    other => panic!("{other}"),
                },
            }
        }
    }
    let [partition, broker] = ["buffer.memory.partition.share", "buffer.memory.broker.share"];
    assert_eq!(settings, [partition, partition, broker, broker]);
    assert!((290_000..=420_000).contains(&accepted), "{accepted} of 400000");
    let other = (0..8).find(|partition| leader(*partition) == 2).unwrap();
    delivered(&producer.send(ProducerRecord::new("t", "v").partition(other)).unwrap());
    producer.close(ms(0));
}

/// Records without a key don't wait for the one that stands still while the other one has room, or
/// soon has some.
#[test]
fn records_without_a_key_go_on_to_the_leader_that_takes_them() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 2).start();
    cluster.inject(Fault::produce().always().delay(ms(5)));
    let producer = small(&cluster).max_block(ms(5_000)).build().unwrap();
    for partition in 0..2 {
        let record = ProducerRecord::new("t", "v").partition(partition);
        delivered(&producer.send_timeout(record, LONG).unwrap());
    }
    cluster.freeze_broker(cluster.leader("t", 0).unwrap().0);
    // Nearly twice what the buffer holds, by more threads than one, each of which fills batches.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..120 {
                    drop(producer.send(ProducerRecord::new("t", &[7; 3_800])).unwrap());
                }
            });
        }
    });
    assert!(cluster.records("t", 1).len() > 100);
    producer.close(ms(0));
}

#[test]
fn a_partition_that_is_alone_may_have_all_of_the_buffer() {
    let cluster = TestCluster::builder().brokers(2).topic("t", 1).start();
    let producer = small(&cluster).build().unwrap();
    producer.wait_ready(&["t"], LONG).unwrap();
    cluster.freeze_broker(cluster.leader("t", 0).unwrap().0);
    let mut accepted = 0;
    let refused = loop {
        match producer.try_send(ProducerRecord::new("t", &[7; 1_000])) {
            Ok(_) => accepted += 1_000,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused.error(), Error::BufferExhausted { .. }), "{refused:?}");
    // Batches of 4000 bytes hold three such records.
    assert!(accepted >= 590_000, "{accepted} of 800000");
    producer.close(ms(0));
}
