//! How soon records flow again, and at what price, when a part of the cluster is gone.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kafka_producer::testing::{Fault, TestCluster};
use kafka_producer::{DeliveryCause, Error, KafkaProducer, Persisted, ProducerRecord};

use crate::common::{LONG, builder, close, delivered, failure, impatient, ms, timed, values};

/// What a busy machine may add to a time that is kept.
const SLACK: Duration = Duration::from_secs(2);

#[test]
fn a_dead_leader_costs_less_than_a_second() {
    let cluster = TestCluster::builder().brokers(3).topic("t", 3).start();
    let servers = cluster.bootstrap_servers();
    let producer = KafkaProducer::builder().bootstrap_servers(servers).build().unwrap();
    let send = |value: &str| {
        let sends = (0..3).map(|p| producer.send(ProducerRecord::new("t", value).partition(p)));
        sends.for_each(|delivery| drop(delivered(&delivery.unwrap())));
    };
    send("before");
    let (leader, _) = cluster.leader("t", 0).unwrap();
    cluster.stop_broker(leader);
    let ((), time) = timed(|| send("after"));
    assert!(time < ms(1_000) + SLACK, "{time:?}");
    assert_eq!(values(&cluster, "t", 0), ["before", "after"]);
    close(&producer);
}

/// A name under which at one time one cluster is found, and then another.
fn relay(target: Arc<Mutex<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let target = *target.lock().unwrap();
            let Ok(broker) = TcpStream::connect(target) else { continue };
            for (mut from, mut to) in [(&client, &broker), (&broker, &client)]
                .map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap()))
            {
                std::thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    address
}

#[test]
fn a_cluster_that_is_replaced_as_a_whole_is_found_by_its_old_name() {
    let old = TestCluster::builder().brokers(2).topic("t", 1).start();
    let new = TestCluster::builder().brokers(2).topic("t", 1).start();
    let first = |cluster: &TestCluster| {
        cluster.bootstrap_servers().split(',').next().unwrap().parse::<SocketAddr>().unwrap()
    };
    let target = Arc::new(Mutex::new(first(&old)));
    let name = relay(Arc::clone(&target)).to_string();
    let producer = impatient(&name).build().unwrap();
    let send = |value: &str| producer.send(ProducerRecord::new("t", value).partition(0)).unwrap();
    delivered(&send("0"));
    *target.lock().unwrap() = first(&new);
    old.stop_broker(1);
    old.stop_broker(2);
    let deliveries = [send("1"), send("2")];
    let ((), time) = timed(|| deliveries.iter().for_each(|delivery| drop(delivered(delivery))));
    assert!(time < ms(1_000) + SLACK, "{time:?}");
    assert_eq!(values(&old, "t", 0), ["0"]);
    assert_eq!(values(&new, "t", 0), ["1", "2"]);
    close(&producer);
}

/// As in a service registry whose entry is changed. The names are no system's.
#[test]
fn a_name_that_moves_is_looked_up_again_by_the_programs_own_rule() {
    let old = TestCluster::builder().topic("t", 1).start();
    let new = TestCluster::builder().topic("t", 1).start();
    let address =
        |cluster: &TestCluster| cluster.bootstrap_servers().parse::<SocketAddr>().unwrap();
    let registry = Arc::new(Mutex::new(Ok(address(&old))));
    let (asks, asked) = std::sync::mpsc::channel();
    let (entry, fails) = (Arc::clone(&registry), std::sync::atomic::AtomicBool::new(true));
    let lookup = move |host: &str, port: u16| {
        asks.send((host.to_owned(), port, std::thread::current().name().map(str::to_owned)))
            .unwrap();
        // What goes wrong at first is tried again.
        assert!(!fails.swap(false, std::sync::atomic::Ordering::SeqCst), "as planned");
        (*entry.lock().unwrap()).map(|address| vec![address]).map_err(io::Error::from)
    };
    let producer = impatient("kafka.registry:7").resolve_with(lookup).build().unwrap();
    let send = |value: &str| producer.send(ProducerRecord::new("t", value).partition(0)).unwrap();
    delivered(&send("0"));

    *registry.lock().unwrap() = Err(io::ErrorKind::NotFound);
    old.stop_broker(1);
    let delivery = send("1");
    let refused = producer.wait_ready(&["other"], ms(300)).unwrap_err();
    assert!(matches!(refused, Error::MetadataTimeout { .. }), "{refused:?}");
    *registry.lock().unwrap() = Ok(address(&new));
    delivered(&delivery);
    assert_eq!((values(&old, "t", 0), values(&new, "t", 0)), (vec!["0".into()], vec!["1".into()]));
    close(&producer);
    let asked: Vec<_> = asked.try_iter().collect();
    assert!(asked.len() >= 3, "{asked:?}");
    let resolver = Some("kafka-producer-resolver".to_owned());
    let expected = ("kafka.registry".to_owned(), 7, resolver);
    assert!(asked.iter().all(|ask| *ask == expected), "{asked:?}");
}

#[test]
fn a_broker_that_throttles_is_left_alone_and_records_expire_all_the_same() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let fault = cluster.inject(Fault::produce().times(1).throttle(Duration::from_secs(60)));
    let producer =
        builder(&cluster).delivery_timeout(ms(600)).request_timeout(ms(500)).build().unwrap();
    delivered(&producer.send(ProducerRecord::new("t", "0")).unwrap());
    assert_eq!(cluster.fired(fault), 1);
    let (error, time) = timed(|| failure(&producer.send(ProducerRecord::new("t", "1")).unwrap()));
    assert!(time >= ms(600) && time < ms(600) + SLACK, "{time:?}");
    assert_eq!((&error.cause, error.attempts), (&DeliveryCause::Timeout, 0));
    assert_eq!(error.last, Some(DeliveryCause::Throttled { delay: Duration::from_secs(60) }));
    assert_eq!(error.persisted, Persisted::No);
    assert!(producer.close(LONG).is_clean());
    assert_eq!(values(&cluster, "t", 0), ["0"]);
}

/// As the system names them.
#[cfg(target_os = "linux")]
fn threads_named(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

#[test]
#[cfg(target_os = "linux")]
fn forty_brokers_take_no_more_threads_than_one() {
    for (brokers, name) in [(1, "single"), (40, "forty")] {
        let cluster = TestCluster::builder().brokers(brokers).topic("t", 40).start();
        let producer = builder(&cluster).client_id(name).build().unwrap();
        let deliveries: Vec<_> = (0..40)
            .map(|p| producer.send(ProducerRecord::new("t", "v").partition(p)).unwrap())
            .collect();
        deliveries.iter().for_each(|delivery| drop(delivered(delivery)));
        assert!(cluster.counters().connections() >= brokers as u64, "{name}");
        assert_eq!(threads_named(name), 2, "{name}: the sender's and one for callbacks");
        close(&producer);
    }
}
