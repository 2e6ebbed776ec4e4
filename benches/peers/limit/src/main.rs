//! The least that a producer can do: one thread encodes records into batches, checksums them,
//! writes requests and reads responses. No settings but the size of batches, no memory bound, no
//! retries, no sequence numbers, no outcome by record. What this reaches, no producer passes.
//! The arguments are those of the other peers: ADDRESS TOPIC RECORDS SIZE WARM-UP bulk|sync
//! KEY=VALUE..., of which only batch.size is heard.

use std::env;
use std::error::Error;
use std::io::{IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use kafka_producer::ErrorCode;
use kafka_producer::internal::protocol::{
    ApiKey, ProduceRequestEncoder, ProduceRequestParams, ProduceResponse, Reader, TopicRef,
    decode_response_header,
};
use kafka_producer::internal::record::{RecordBatchBuilder, RecordData};

const VERSION: i16 = 12;
const PARTITIONS: usize = 4;
const IN_FLIGHT: u32 = 5;

struct Limit<'a> {
    socket: TcpStream,
    topic: &'a str,
    value: Vec<u8>,
    /// The memory of batches, one a partition.
    memory: Vec<Vec<u8>>,
    head: Vec<u8>,
    splits: Vec<usize>,
    answer: Vec<u8>,
    outstanding: u32,
    failed: u64,
}

impl Limit<'_> {
    /// Sends so many records, as a batch for each partition in each request.
    fn send(&mut self, records: u64, at_once: u64) -> Result<(), Box<dyn Error>> {
        let mut left = records;
        while left > 0 {
            let mut batches = Vec::with_capacity(PARTITIONS);
            let mut share = left.min(at_once);
            left -= share;
            for memory in self.memory.drain(..) {
                let mut batch = RecordBatchBuilder::new(memory);
                let before = share;
                let record = RecordData {
                    key: None,
                    value: Some(&self.value),
                    headers: &[],
                    timestamp: 1_700_000_000_000,
                };
                while share > 0 && batch.try_append(&record).is_some() {
                    share -= 1;
                }
                if before > share {
                    batch.finish(-1, -1, -1, false);
                }
                batches.push(batch);
            }
            left += share;
            self.request(&batches)?;
            self.memory.extend(batches.into_iter().flat_map(RecordBatchBuilder::into_segments));
            while self.outstanding >= IN_FLIGHT.min(at_once as u32) {
                self.response()?;
            }
        }
        while self.outstanding > 0 {
            self.response()?;
        }
        Ok(())
    }

    fn request(&mut self, batches: &[RecordBatchBuilder]) -> Result<(), Box<dyn Error>> {
        let filled: Vec<_> = batches.iter().enumerate().filter(|(_, b)| !b.is_empty()).collect();
        let params = ProduceRequestParams {
            version: VERSION,
            correlation_id: 0,
            client_id: None,
            transactional_id: None,
            acks: -1,
            timeout_ms: 30_000,
        };
        let mut encoder =
            ProduceRequestEncoder::start(&params, 1, &mut self.head, &mut self.splits);
        encoder.topic(TopicRef::Name(self.topic), filled.len());
        for (partition, batch) in &filled {
            encoder.partition(*partition as i32, batch.size());
        }
        encoder.finish();
        let mut parts = Vec::with_capacity(2 * PARTITIONS + 1);
        let mut from = 0;
        for (split, (_, batch)) in self.splits.iter().zip(&filled) {
            parts.push(IoSlice::new(&self.head[from..*split]));
            parts.extend(batch.segments().map(|segment| IoSlice::new(segment)));
            from = *split;
        }
        parts.push(IoSlice::new(&self.head[from..]));
        let mut rest = &mut parts[..];
        while !rest.is_empty() {
            let written = self.socket.write_vectored(rest)?;
            IoSlice::advance_slices(&mut rest, written);
        }
        self.outstanding += 1;
        Ok(())
    }

    fn response(&mut self) -> Result<(), Box<dyn Error>> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        self.answer.resize(u32::from_be_bytes(length) as usize, 0);
        self.socket.read_exact(&mut self.answer)?;
        self.outstanding -= 1;
        let mut reader = Reader::new(&self.answer);
        decode_response_header(ApiKey::Produce, VERSION, &mut reader).map_err(debug)?;
        let response = ProduceResponse::decode(&mut reader, VERSION).map_err(debug)?;
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let errors = partitions.filter(|partition| partition.error_code != ErrorCode::NONE);
        self.failed += errors.count() as u64;
        Ok(())
    }
}

fn debug(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [address, topic, records, size, warm_up, mode, properties @ ..] = &args[..] else {
        return Err("ADDRESS TOPIC RECORDS SIZE WARM-UP bulk|sync KEY=VALUE...".into());
    };
    let (records, warm_up): (u64, u64) = (records.parse()?, warm_up.parse()?);
    let batch_size = properties.iter().find_map(|p| p.strip_prefix("batch.size="));
    let batch_size: usize = batch_size.unwrap_or("16384").parse()?;
    let value = vec![b'x'; size.parse()?];
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let capacity = batch_size.max(value.len() + 128);
    let mut limit = Limit {
        socket,
        topic,
        value,
        memory: (0..PARTITIONS).map(|_| Vec::with_capacity(capacity)).collect(),
        head: Vec::new(),
        splits: Vec::new(),
        answer: Vec::new(),
        outstanding: 0,
        failed: 0,
    };
    let (at_once, calls, each) =
        if mode == "sync" { (1, records, 1) } else { (u64::MAX, 1, records) };
    limit.send(warm_up, at_once)?;
    let mut latencies: Vec<Duration> = Vec::with_capacity(calls as usize);
    let (start, cpu) = (Instant::now(), ProcessTime::now());
    for _ in 0..calls {
        let begun = Instant::now();
        limit.send(each, at_once)?;
        latencies.push(begun.elapsed());
    }
    let (took, cpu) = (start.elapsed(), cpu.elapsed());
    latencies.sort_unstable();
    let at = |share: f64| {
        let place = (latencies.len() as f64 * share) as usize;
        latencies.get(place).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    };
    println!(
        "sent={records} delivered={} failed={} rate={:.0} cpu_us_per_record={:.4} p50_us={:.1} \
         p99_us={:.1}",
        if limit.failed == 0 { records } else { 0 },
        limit.failed,
        records as f64 / took.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / records as f64,
        at(0.5),
        at(0.99),
    );
    Ok(())
}
