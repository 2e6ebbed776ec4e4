//! Records without a key: equal shares of bytes where brokers are equal, less for slow ones.

use std::time::Instant;

use kafka_producer::ProducerRecord;
use kafka_producer::testing::{Fault, TestCluster};

use crate::common::{LONG, builder, close, ms};

/// The bytes of all values in each partition of `t`.
fn bytes(cluster: &TestCluster, partitions: i32) -> Vec<usize> {
    let of = |partition| {
        let records = cluster.records("t", partition);
        records.iter().map(|record| record.value.as_ref().map_or(0, Vec::len)).sum()
    };
    (0..partitions).map(of).collect()
}

/// PART-01, PART-16: a partition stays the sticky one for `batch.size` bytes, whatever the records'
/// size, so that all get equal shares. Also by the default, as long as none has a backlog.
#[test]
fn every_partition_gets_an_equal_share_of_bytes() {
    const ROUNDS: usize = 200;
    for (adaptive, size) in
        [10, 150, 251, 490, 2_000].into_iter().flat_map(|size| [(true, size), (false, size)])
    {
        let cluster = TestCluster::builder().brokers(2).topic("t", 4).start();
        let producer = builder(&cluster).batch_size(500).partitioner_adaptive(adaptive);
        let producer = producer.build().unwrap();
        let value = vec![b'x'; size];
        // 61 bytes of header and 7 a record.
        let share = (439 / (size + 7)).max(1);
        for _ in 0..ROUNDS {
            for _ in 0..4 * share {
                producer.send(ProducerRecord::new("t", &value)).unwrap();
            }
            if adaptive {
                producer.flush(LONG).unwrap();
            }
        }
        close(&producer);
        let (bytes, fair) = (bytes(&cluster, 4), ROUNDS * share * size);
        let off = |bytes: &usize| bytes.abs_diff(fair) * 100 > fair * 5;
        assert!(!bytes.iter().any(off), "{size} bytes a record, {adaptive}: {bytes:?}");
    }
}

/// PART-17: under a leader far slower than the others, they get what it can't take.
#[test]
fn a_slow_broker_gets_less_and_the_others_more() {
    let cluster = TestCluster::builder().brokers(3).topic("t", 3).start();
    for broker in 1..=3 {
        let by = if cluster.leader("t", 2).unwrap().0 == broker { ms(400) } else { ms(10) };
        cluster.inject(Fault::produce().broker(broker).always().delay(by));
    }
    // Each may have all of the memory, so that only its queue keeps records from a partition.
    let producer = builder(&cluster)
        .batch_size(1_000)
        .buffer_memory(40_000)
        .buffer_memory_partition_share(1.0)
        .buffer_memory_broker_share(1.0)
        .build()
        .unwrap();
    let begun = Instant::now();
    while begun.elapsed() < ms(2_000) {
        producer.send(ProducerRecord::new("t", &[b'x'; 200])).unwrap();
    }
    let shares = bytes(&cluster, 3);
    cluster.clear_faults();
    close(&producer);
    assert!(shares[2] * 4 < shares[0] && shares[2] * 4 < shares[1], "{shares:?}");
}

/// PART-18: who takes nothing for `partitioner.availability.timeout.ms` gets nothing without a key,
/// whether its partition waits for the connection or for answers. Long before its queue's length
/// alone would have that effect: a queue of n batches is passed by for n records.
#[test]
fn a_broker_that_takes_nothing_for_too_long_gets_nothing_more() {
    const IN_A_ROW: usize = 400;
    for in_flight in ["1", "5"] {
        let cluster = TestCluster::builder().brokers(2).topic("t", 2).start();
        let producer = builder(&cluster)
            .batch_size(1)
            .property("max.in.flight.requests.per.connection", in_flight)
            .property("partitioner.availability.timeout.ms", "50")
            .build()
            .unwrap();
        // The producer id is there, so that nobody waits for the frozen broker to give one.
        producer.send(ProducerRecord::new("t", "v")).unwrap().wait_timeout(LONG).unwrap();
        let (frozen, _) = cluster.leader("t", 1).unwrap();
        cluster.freeze_broker(frozen);
        let send = || producer.send(ProducerRecord::new("t", "v")).unwrap().partition();
        let (mut in_a_row, mut to_the_frozen) = (0, 0);
        while in_a_row < IN_A_ROW {
            (in_a_row, to_the_frozen) =
                if send() == 0 { (in_a_row + 1, to_the_frozen) } else { (0, to_the_frozen + 1) };
            assert!(to_the_frozen < IN_A_ROW / 2, "with {in_flight} in flight it gets records");
            producer.flush(ms(1)).unwrap_or_default();
        }
        cluster.thaw_broker(frozen);
        close(&producer);
    }
}
