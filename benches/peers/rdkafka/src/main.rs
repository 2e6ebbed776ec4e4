//! What `producer_perf` does, by the `rdkafka` crate over librdkafka: the arguments are ADDRESS
//! TOPIC RECORDS SIZE WARM-UP bulk|sync KEY=VALUE..., and the last line is for the script.

use std::env;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

static DELIVERED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Counts deliveries; and tells of each, if somebody waits for it.
struct Count(Option<Sender<()>>);

impl ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &DELIVERED } else { &FAILED };
        let before = counter.fetch_add(1, Ordering::Relaxed);
        if let (Err((error, _)), 0) = (result, before) {
            eprintln!("the first failure: {error}");
        }
        if let Some(waiting) = &self.0 {
            let _ = waiting.send(());
        }
    }
}

struct Load<'a> {
    producer: ThreadedProducer<Count>,
    topic: &'a str,
    value: Vec<u8>,
    /// Where deliveries are told of, if each is waited for.
    told: Option<Receiver<()>>,
    latencies: Vec<Duration>,
}

impl Load<'_> {
    fn send(&mut self, records: u64) -> Result<(), Box<dyn Error>> {
        for _ in 0..records {
            let begun = self.told.is_some().then(Instant::now);
            self.send_one()?;
            if let (Some(told), Some(begun)) = (&self.told, begun) {
                told.recv()?;
                self.latencies.push(begun.elapsed());
            }
        }
        Ok(self.producer.flush(Duration::from_secs(600))?)
    }

    fn send_one(&self) -> Result<(), KafkaError> {
        loop {
            let record = BaseRecord::<(), [u8]>::to(self.topic).payload(&self.value);
            match self.producer.send(record) {
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [address, topic, records, size, warm_up, mode, properties @ ..] = &args[..] else {
        return Err("ADDRESS TOPIC RECORDS SIZE WARM-UP bulk|sync KEY=VALUE...".into());
    };
    let (records, warm_up): (u64, u64) = (records.parse()?, warm_up.parse()?);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    // Else a batch ends at 10,000 records, and the queue is full at 100,000.
    config.set("batch.num.messages", "1000000").set("queue.buffering.max.messages", "1000000");
    for (key, value) in properties.iter().filter_map(|property| property.split_once('=')) {
        config.set(key, value);
    }
    let (sender, told) = channel();
    let sync = mode == "sync";
    let mut load = Load {
        producer: config.create_with_context(Count(sync.then_some(sender)))?,
        topic,
        value: vec![b'x'; size.parse()?],
        told: sync.then_some(told),
        latencies: Vec::with_capacity(if sync { (records + warm_up) as usize } else { 0 }),
    };
    load.send(warm_up)?;
    load.latencies.clear();
    let before = DELIVERED.load(Ordering::Relaxed);
    let (start, cpu) = (Instant::now(), ProcessTime::now());
    load.send(records)?;
    let (took, cpu) = (start.elapsed(), cpu.elapsed());
    load.latencies.sort_unstable();
    let at = |share: f64| {
        let place = (load.latencies.len() as f64 * share) as usize;
        load.latencies.get(place).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    };
    println!(
        "sent={records} delivered={} failed={} rate={:.0} cpu_us_per_record={:.4} p50_us={:.1} \
         p99_us={:.1}",
        DELIVERED.load(Ordering::Relaxed) - before,
        FAILED.load(Ordering::Relaxed),
        records as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / records as f64,
        at(0.5),
        at(0.99),
    );
    Ok(())
}
