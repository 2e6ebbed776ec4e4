//! The load: what is sent, how fast, and how its outcomes are heard of. [`send_share`] is the loop
//! that is measured, one per thread; nothing in it costs more than it must.

use std::collections::VecDeque;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use kafka_producer::{Delivery, Error, KafkaProducer, TopicProducer, TopicRecord};

use super::measure::{Tally, Totals};
use super::support::Usage;

/// Long enough for any flush: all records are decided before, each within delivery.timeout.ms.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// How outcomes are heard of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Not at all: the handle is dropped.
    None,
    /// From handles, looked at in bulk.
    Handle,
    /// By a callback for each record.
    Callback,
    /// Each record is waited for before the next is sent.
    Sync,
}

/// What is sent.
pub enum Payload {
    /// The same bytes each time.
    Fixed(Vec<u8>),
    /// One of these, by chance.
    OneOf(Vec<Vec<u8>>),
    /// The record's number in decimal.
    Counter,
}

impl Payload {
    /// Capital letters by chance, the same in each run.
    pub fn letters(size: usize) -> Self {
        let mut state = 0;
        let letter = |_| b'A' + (splitmix64(&mut state) % 26) as u8;
        Self::Fixed((0..size).map(letter).collect())
    }

    /// The mean size of a value, about.
    pub fn mean_bytes(&self, records: u64) -> f64 {
        match self {
            Self::Fixed(bytes) => bytes.len() as f64,
            Self::OneOf(values) => {
                values.iter().map(Vec::len).sum::<usize>() as f64 / values.len() as f64
            }
            Self::Counter => records.to_string().len() as f64,
        }
    }
}

/// The values in a file, with `delimiter` between them; at least one.
pub fn read_values(file: &str, delimiter: &str) -> Result<Vec<Vec<u8>>, Usage> {
    let text = fs::read_to_string(file).map_err(|error| Usage(format!("{file}: {error}")))?;
    if delimiter.is_empty() || text.is_empty() {
        return Err(Usage(format!("{file} and --payload-delimiter must not be empty")));
    }
    let end = text.strip_suffix(delimiter).unwrap_or(&text);
    Ok(end.split(delimiter).map(|value| value.as_bytes().to_vec()).collect())
}

/// The part of the load that falls to one thread.
pub struct Share {
    pub how: How,
    /// The number of its first record in the whole run.
    pub first: u64,
    pub records: u64,
    /// So many of its records are not in the steady state.
    pub warm_up: u64,
    /// Latency is measured on every so-manieth record.
    pub sample: u64,
    /// Records a second; `None` for as fast as possible.
    pub throughput: Option<f64>,
    /// How many handles it holds before it looks at them; see [`window`].
    pub handles: usize,
}

/// How many records may be on their way: enough for two batches of each partition, and else few,
/// for all of it to stay in a cache.
pub fn window(partitions: usize, batch_size: usize, record_size: f64) -> usize {
    let records = 2.0 * partitions as f64 * batch_size as f64 / (record_size + 10.0);
    (records as usize).clamp(1 << 14, 1 << 19)
}

/// What a thread has sent.
#[derive(Default)]
pub struct Sent {
    pub records: u64,
    pub bytes: u64,
    /// Why it stopped before its share was done.
    pub refused: Option<Error>,
}

impl Sent {
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.refused = self.refused.take().or(other.refused);
    }
}

/// Sends a thread's share and returns when it is sent, and with handles when it is decided.
pub fn send_share(
    producer: &KafkaProducer,
    topic: &TopicProducer,
    share: &Share,
    payload: &Payload,
    totals: &'static Totals,
) -> Sent {
    let mut source = Source { payload, text: Vec::new(), random: share.first };
    let mut pending = Pending::new(share.handles, totals);
    let mut throttle = share.throughput.map(Throttle::new);
    let mut until_sample = 0;
    let mut sent = Sent::default();
    for i in 0..share.records {
        let value = source.value(share.first + i);
        let bytes = value.len() as u64;
        let record = TopicRecord::new(value);
        let result = if until_sample == 0 {
            until_sample = share.sample;
            send_timed(topic, record, share.how, i >= share.warm_up, totals)
        } else {
            match share.how {
                How::Handle => topic.send(record).map(|delivery| pending.push(delivery)),
                How::None => topic.send(record).map(drop),
                How::Callback => topic.send_with(record, |result| totals.count(result)),
                How::Sync => topic.send(record).map(|delivery| pending.wait_for(&delivery)),
            }
        };
        until_sample -= 1;
        if let Err(error) = result {
            sent.refused = Some(error);
            break;
        }
        sent.records += 1;
        sent.bytes += bytes;
        if let Some(throttle) = &mut throttle {
            throttle.pause();
        }
    }
    if share.how == How::Handle {
        // Ends the linger of the last batches; whether it succeeds, the handles tell.
        let _ = producer.flush(PATIENCE);
        pending.settle_all();
    }
    sent
}

/// Sends a record whose way is timed, until its callback runs, or its wait ends.
fn send_timed(
    topic: &TopicProducer,
    record: TopicRecord<'_>,
    how: How,
    steady: bool,
    totals: &'static Totals,
) -> Result<(), Error> {
    let start = Instant::now();
    if steady {
        totals.start_steady_state(start);
    }
    if how != How::Sync {
        return topic.send_with(record, move |result| {
            if result.is_ok() {
                totals.record_latency(start.elapsed(), steady);
            }
            totals.count(result);
        });
    }
    let outcome = topic.send(record)?.wait();
    if outcome.is_ok() {
        totals.record_latency(start.elapsed(), steady);
    }
    totals.count(outcome.as_ref());
    Ok(())
}

/// Handles whose records are not known to be decided, oldest first.
///
/// They are looked at only when there are many, from the oldest on until one is open: then most
/// of them share few batches, whose results are read while they are in the cache.
struct Pending {
    handles: VecDeque<Delivery>,
    most: usize,
    totals: &'static Totals,
}

impl Pending {
    fn new(most: usize, totals: &'static Totals) -> Self {
        Self { handles: VecDeque::new(), most, totals }
    }

    #[inline]
    fn push(&mut self, delivery: Delivery) {
        if self.handles.len() >= self.most {
            self.make_room();
        }
        self.handles.push_back(delivery);
    }

    /// Waits for the first few records, with one wait, and takes out all decided ones.
    #[cold]
    fn make_room(&mut self) {
        let mut tally = Tally::default();
        // Those before it are decided by then, but for a few of other partitions.
        if let Some(delivery) = self.handles.get(self.handles.len() / 8) {
            let _ = delivery.wait();
        }
        if let Some(oldest) = self.handles.pop_front() {
            self.totals.note(oldest.wait().as_ref(), &mut tally);
        }
        while let Some(outcome) = self.handles.front().and_then(Delivery::check) {
            self.totals.note(outcome, &mut tally);
            self.handles.pop_front();
        }
        self.totals.add(&tally);
    }

    fn settle_all(&mut self) {
        while !self.handles.is_empty() {
            self.make_room();
        }
    }

    fn wait_for(&self, delivery: &Delivery) {
        self.totals.count(delivery.wait().as_ref());
    }
}

/// Makes values.
struct Source<'a> {
    payload: &'a Payload,
    text: Vec<u8>,
    random: u64,
}

impl Source<'_> {
    #[inline]
    fn value(&mut self, number: u64) -> &[u8] {
        match self.payload {
            Payload::Fixed(bytes) => bytes,
            Payload::OneOf(values) => {
                let chance = splitmix64(&mut self.random);
                // The remainder is less than the length.
                &values[(chance % values.len() as u64) as usize]
            }
            Payload::Counter => {
                self.text.clear();
                self.text.extend_from_slice(number.to_string().as_bytes());
                &self.text
            }
        }
    }
}

/// The next of a sequence that looks random; each seed has its own.
pub fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Keeps a thread to its rate.
struct Throttle {
    start: Instant,
    per_second: f64,
    sent: u64,
}

impl Throttle {
    fn new(per_second: f64) -> Self {
        Self { start: Instant::now(), per_second, sent: 0 }
    }

    /// Sleeps off a lead of a millisecond or more: less can't be slept exactly.
    fn pause(&mut self) {
        self.sent += 1;
        let due = Duration::from_secs_f64(self.sent as f64 / self.per_second);
        let lead = due.saturating_sub(self.start.elapsed());
        if lead >= Duration::from_millis(1) {
            thread::sleep(lead);
        }
    }
}
