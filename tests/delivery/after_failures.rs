//! What comes after records that failed: the producer goes on, and nothing is in the log twice.

use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{DeliveryCause, ErrorCode, Persisted, ProducerEvent, ProducerRecord};

use std::sync::{Mutex, mpsc};

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

/// Keeps what is said of losses.
struct Losses(Mutex<Vec<String>>);

static LOSSES: Losses = Losses(Mutex::new(Vec::new()));

impl log::Log for Losses {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        if line.contains("may have lost") || line.contains("listener") {
            self.0.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}

/// Only what is missing right behind an acknowledged record can't be told apart from a loss.
#[test]
fn a_loss_that_the_client_can_see_is_told_in_the_log_and_to_the_listener() {
    log::set_logger(&LOSSES).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let cluster = TestCluster::builder().topic("lost", 1).start();
    let (tell, events) = mpsc::channel();
    let listener = move |event: &ProducerEvent| {
        let thread = std::thread::current();
        let _ = tell.send((event.clone(), thread.name().map(str::to_owned)));
        panic!("what a listener may do");
    };
    let producer = builder(&cluster).linger(ms(0)).batch_size(1).client_id("teller");
    let producer = producer.on_event(listener).build().unwrap();
    let send = |value: &str| producer.send(ProducerRecord::new("lost", value)).unwrap();
    delivered(&send("first"));
    cluster.inject(Fault::produce().error(ErrorCode::NOT_ENOUGH_REPLICAS));
    delivered(&send("retried"));
    cluster.inject(Fault::produce().error(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    delivered(&send("second"));
    // The log is written by the threads of callbacks, which end with the producer.
    close(&producer);
    let told = LOSSES.0.lock().unwrap();
    let of_ours: Vec<_> = told.iter().filter(|line| line.starts_with("lost-0: ")).collect();
    assert_eq!(of_ours.len(), 1, "{told:?}");
    assert!(of_ours[0].contains("OUT_OF_ORDER_SEQUENCE_NUMBER"), "{of_ours:?}");
    assert!(told.iter().any(|line| line.contains("what a listener may do")), "{told:?}");
    let (event, thread) = events.try_recv().expect("the listener is told too");
    assert_eq!(event.to_string(), *of_ours[0]);
    assert!(thread.is_some_and(|name| name.starts_with("teller-callb")));
    assert!(events.try_recv().is_err(), "told once");
}
