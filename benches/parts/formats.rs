//! Bytes: varints, records in batches, checksums, requests, responses.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use kafka_producer::ErrorCode;
use kafka_producer::internal::protocol::{
    PartitionProduceResponse, ProduceRequestEncoder, ProduceRequestParams, ProduceResponse, Reader,
    TopicProduceResponse, TopicRef, Writer,
};
use kafka_producer::internal::record::{Header, RecordBatch, RecordBatchBuilder, RecordData};

/// The version of Produce: with names of topics, which are more work than ids.
const VERSION: i16 = 12;
const VALUE: [u8; 100] = [b'x'; 100];
const BATCH_SIZES: [usize; 2] = [16_384, 131_072];

const RECORD: RecordData<'static> =
    RecordData { key: None, value: Some(&VALUE), headers: &[], timestamp: 1_700_000_000_000 };

/// Lengths as they are in frames, of one byte to five.
#[divan::bench]
fn varints_written(bencher: Bencher) {
    let numbers = numbers();
    let mut out = Vec::with_capacity(8 * numbers.len());
    bencher.counter(ItemsCount::new(numbers.len())).bench_local(|| {
        out.clear();
        let mut writer = Writer::new(&mut out, true);
        black_box(&numbers).iter().for_each(|number| writer.unsigned_varint(*number));
        out.len()
    });
}

#[divan::bench]
fn varints_read(bencher: Bencher) {
    let numbers = numbers();
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, true);
    numbers.iter().for_each(|number| writer.unsigned_varint(*number));
    bencher.counter(ItemsCount::new(numbers.len())).bench_local(|| {
        let mut reader = Reader::new(black_box(&bytes));
        (0..numbers.len()).map(|_| u64::from(reader.unsigned_varint().unwrap())).sum::<u64>()
    });
}

/// Small ones mostly, as in frames; the same in each run.
fn numbers() -> Vec<u32> {
    let magnitude = |i: u32| 7 * (i % 11).saturating_sub(6);
    (0..1_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 25) << magnitude(i)).collect()
}

/// Fills a batch with records of 100 bytes, without the checksum.
#[divan::bench(args = BATCH_SIZES)]
fn batch_encoded(bencher: Bencher, size: usize) {
    let records = ItemsCount::new(filled(size, &RECORD).count());
    let mut memory = Vec::with_capacity(size);
    bencher.counter(records).bench_local(|| {
        let batch = fill(std::mem::take(&mut memory), &RECORD);
        memory = black_box(batch).into_segments().next().unwrap();
    });
}

/// The same, and what makes it ready to be sent: checksum and header.
#[divan::bench(args = BATCH_SIZES)]
fn batch_encoded_and_finished(bencher: Bencher, size: usize) {
    let records = ItemsCount::new(filled(size, &RECORD).count());
    let mut memory = Vec::with_capacity(size);
    bencher.counter(records).bench_local(|| {
        let mut batch = fill(std::mem::take(&mut memory), &RECORD);
        batch.finish(7, 0, 0, false);
        memory = black_box(batch).into_segments().next().unwrap();
    });
}

/// Records with a key and two headers, which take the general way of encoding.
#[divan::bench(args = BATCH_SIZES)]
fn batch_with_headers_encoded(bencher: Bencher, size: usize) {
    let header = |name: &'static str| Header { name: name.into(), value: Some(VALUE[..8].into()) };
    let headers = [header("trace"), header("origin")];
    let record = RecordData { key: Some(&VALUE[..16]), headers: &headers, ..RECORD };
    let records = ItemsCount::new(filled(size, &record).count());
    let mut memory = Vec::with_capacity(size);
    bencher.counter(records).bench_local(|| {
        let batch = fill(std::mem::take(&mut memory), &record);
        memory = black_box(batch).into_segments().next().unwrap();
    });
}

/// What makes a full batch ready to be sent: header and checksum.
#[divan::bench(args = BATCH_SIZES)]
fn batch_finished(bencher: Bencher, size: usize) {
    bencher
        .counter(BytesCount::new(size))
        .with_inputs(|| filled(size, &RECORD))
        .bench_local_refs(|batch| batch.finish(7, 0, 0, false));
}

/// All records of a batch read again, as for a split.
#[divan::bench(args = BATCH_SIZES)]
fn batch_decoded(bencher: Bencher, size: usize) {
    let mut batch = filled(size, &RECORD);
    batch.finish(7, 0, 0, false);
    let bytes = batch.segments().next().unwrap();
    bencher.counter(ItemsCount::new(batch.count())).bench_local(|| {
        let (batch, _) = RecordBatch::split_first(black_box(bytes)).unwrap();
        batch.records().unwrap().filter(Result::is_ok).count()
    });
}

fn filled(size: usize, record: &RecordData<'_>) -> RecordBatchBuilder {
    fill(Vec::with_capacity(size), record)
}

fn fill(memory: Vec<u8>, record: &RecordData<'_>) -> RecordBatchBuilder {
    let mut batch = RecordBatchBuilder::new(memory);
    while batch.try_append(black_box(record)).is_some() {}
    batch
}

/// A produce request for one topic and so many partitions, without the batches.
#[divan::bench(args = [1, 4, 100], sample_size = 100)]
fn request_encoded(bencher: Bencher, partitions: usize) {
    let (mut head, mut splits) = (Vec::new(), Vec::new());
    let params = ProduceRequestParams {
        version: VERSION,
        correlation_id: 7,
        client_id: Some("bench"),
        transactional_id: None,
        acks: -1,
        timeout_ms: 30_000,
    };
    bencher.counter(ItemsCount::new(partitions)).bench_local(|| {
        let params = black_box(&params);
        let mut encoder = ProduceRequestEncoder::start(params, 1, &mut head, &mut splits);
        encoder.topic(TopicRef::Name(black_box("bench")), partitions);
        (0..partitions as i32).for_each(|index| encoder.partition(index, black_box(16_384)));
        encoder.finish()
    });
}

/// A response without errors, for one topic and so many partitions.
#[divan::bench(args = [1, 4, 100], sample_size = 100)]
fn response_decoded(bencher: Bencher, partitions: i32) {
    let partition = |index| PartitionProduceResponse {
        index,
        error_code: ErrorCode::NONE,
        base_offset: 1_000_000,
        log_append_time_ms: -1,
        log_start_offset: 0,
        record_errors: Vec::new(),
        error_message: None,
        current_leader: None,
    };
    let topic = TopicRef::Name("bench").into();
    let topic =
        TopicProduceResponse { topic, partitions: (0..partitions).map(partition).collect() };
    let response =
        ProduceResponse { topics: vec![topic], throttle_time_ms: 0, node_endpoints: Vec::new() };
    let mut bytes = Vec::new();
    response.encode(VERSION, &mut bytes);
    bencher.counter(ItemsCount::new(partitions as usize)).bench_local(|| {
        ProduceResponse::decode(&mut Reader::new(black_box(&bytes)), VERSION).unwrap()
    });
}
