//! What comes after records that failed: the producer goes on, and nothing is in the log twice.

use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{DeliveryCause, ErrorCode, Persisted, ProducerRecord};

use crate::common::{builder, close, delivered, failure, fate, ms, values};

#[test]
fn batches_in_doubt_behind_one_that_failed_are_told_of_and_the_next_ones_arrive() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let producer = builder(&cluster).linger(ms(0)).batch_size(1).build().unwrap();
    let send = |value: &str| producer.send(ProducerRecord::new("t", value)).unwrap();
    delivered(&send("first"));
    // The second is refused for good after a while; of those behind it one loses its answer, and
    // with the connection the others do.
    cluster.inject(Fault::produce().delay(ms(200)));
    cluster.inject(Fault::produce().error(ErrorCode::INVALID_RECORD));
    cluster.inject(Fault::produce().skip(1).disconnect());
    let deliveries = ["refused", "in doubt", "behind", "last"].map(send);
    let refused = failure(&deliveries[0]);
    let invalid = |cause: &DeliveryCause| {
        matches!(cause, DeliveryCause::Broker { code: ErrorCode::INVALID_RECORD, .. })
    };
    assert!(invalid(&refused.cause), "{refused:?}");
    for delivery in &deliveries[1..] {
        // To give them another sequence might append them twice: they have one, and it is void.
        if fate(delivery).is_err() {
            assert_eq!(failure(delivery).persisted, Persisted::Unknown);
        }
    }
    delivered(&send("after"));
    let log = values(&cluster, "t", 0);
    assert_eq!((log.first(), log.last()), (Some(&"first".into()), Some(&"after".into())));
    for (name, delivery) in ["in doubt", "behind", "last"].iter().zip(&deliveries[1..]) {
        let times = log.iter().filter(|value| value == name).count();
        assert!(times <= 1 && (times == 1 || fate(delivery).is_err()), "{name}: {times} times");
    }
    close(&producer);
}
