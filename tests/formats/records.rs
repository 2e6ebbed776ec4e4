//! Record batches: what the builder makes the witness reads, and the other way round.

use std::borrow::Cow;

use kafka_producer::internal::record::{
    Header, RECORD_BATCH_OVERHEAD, RecordBatch, RecordBatchBuilder, RecordData,
};
use kafka_protocol::records as theirs;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::text;

type Bytes = Option<Vec<u8>>;

#[derive(Clone, Debug)]
struct Wanted {
    key: Bytes,
    value: Bytes,
    headers: Vec<(String, Bytes)>,
    timestamp: i64,
}

fn bytes() -> impl Strategy<Value = Bytes> {
    option::weighted(0.8, prop_oneof![3 => vec(any::<u8>(), 0..3), 1 => vec(any::<u8>(), 0..200)])
}

fn records() -> impl Strategy<Value = Vec<Wanted>> {
    let timestamp = prop_oneof![3 => 0..5_000i64, 1 => 0..i64::MAX / 2];
    let name = prop_oneof![3 => "[a-c]", 1 => text()];
    let record = (bytes(), bytes(), vec((name, bytes()), 0..4), timestamp);
    vec(
        record.prop_map(|(key, value, headers, timestamp)| Wanted {
            key,
            value,
            headers,
            timestamp,
        }),
        1..20,
    )
}

/// Who writes: id, epoch, base sequence, transactional. Sequences stay clear of the wrap-around.
fn producer() -> impl Strategy<Value = (i64, i16, i32, bool)> {
    prop_oneof![Just((-1, -1, -1, false)), (0..i64::MAX, 0..i16::MAX, 0..1_000_000, any::<bool>()),]
}

fn our_headers(record: &Wanted) -> Vec<Header<'_>> {
    let headers = record.headers.iter();
    headers
        .map(|(name, value)| Header {
            name: Cow::Borrowed(name),
            value: value.as_deref().map(Cow::Borrowed),
        })
        .collect()
}

/// The witness keeps headers in a map: of duplicates it knows the place of the first and the value
/// of the last.
fn their_record(
    (index, wanted): (usize, &Wanted),
    (producer_id, producer_epoch, base_sequence, transactional): (i64, i16, i32, bool),
) -> theirs::Record {
    let sequence = if producer_id < 0 { -1 } else { base_sequence + index as i32 };
    let headers = wanted.headers.iter().cloned();
    theirs::Record {
        transactional,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id,
        producer_epoch,
        timestamp_type: theirs::TimestampType::Creation,
        offset: index as i64,
        sequence,
        timestamp: wanted.timestamp,
        key: wanted.key.clone().map(Into::into),
        value: wanted.value.clone().map(Into::into),
        headers: headers.map(|(name, value)| (name.into(), value.map(Into::into))).collect(),
    }
}

fn build(records: &[Wanted], producer: (i64, i16, i32, bool)) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(Vec::with_capacity(RECORD_BATCH_OVERHEAD));
    for record in records {
        let headers = our_headers(record);
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let data = RecordData { key, value, headers: &headers, timestamp: record.timestamp };
        if builder.try_append(&data).is_none() {
            builder.add_segment(Vec::with_capacity(builder.record_size(&data) + 300));
            builder.try_append(&data).unwrap();
        }
    }
    builder.finish(producer.0, producer.1, producer.2, producer.3);
    builder.segments().flatten().copied().collect()
}

/// The fields that a batch's header has for the producer.
fn producer_of(batch: &RecordBatch<'_>) -> (i64, i16, i32, bool) {
    let header = batch.header();
    let (id, epoch) = (header.producer_id, header.producer_epoch);
    (id, epoch, header.base_sequence, header.is_transactional())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_witness_reads_what_the_builder_makes(records in records(), producer in producer()) {
        let batch = build(&records, producer);
        let mut rest = &batch[..];
        let set = theirs::RecordBatchDecoder::decode(&mut rest).unwrap();
        prop_assert_eq!(rest.len(), 0);
        prop_assert_eq!((set.version, set.compression), (2, theirs::Compression::None));
        // The witness counts sequences up from -1 where there are none.
        let expected = records.iter().enumerate().map(|pair| {
            let mut record = their_record(pair, producer);
            if producer.0 < 0 {
                record.sequence += pair.0 as i32;
            }
            record
        });
        prop_assert_eq!(set.records, expected.collect::<Vec<_>>());
    }

    #[test]
    fn the_reader_reads_what_the_witness_makes(
        mut records in records(),
        producer in producer(),
    ) {
        for record in &mut records {
            let mut seen = Vec::new();
            record.headers.retain(|(name, _)| {
                let new = !seen.contains(name);
                seen.push(name.clone());
                new
            });
        }
        let mut bytes = Vec::new();
        let options =
            theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
        let sources: Vec<_> =
            records.iter().enumerate().map(|pair| their_record(pair, producer)).collect();
        theirs::RecordBatchEncoder::encode(&mut bytes, &sources, &options).unwrap();

        let mut rest = &bytes[..];
        let mut read = Vec::new();
        // The witness may begin a new batch where the sequence does not go up.
        while !rest.is_empty() {
            let (batch, after) = RecordBatch::split_first(rest).unwrap();
            prop_assert_eq!(batch.validate(), Ok(()));
            let (id, epoch, sequence, transactional) = producer_of(&batch);
            let first = if producer.0 < 0 { -1 } else { producer.2 + read.len() as i32 };
            prop_assert_eq!((id, epoch), (producer.0, producer.1));
            prop_assert_eq!((sequence, transactional), (first, producer.3));
            read.extend(batch.records().unwrap().map(Result::unwrap));
            rest = after;
        }
        prop_assert_eq!(read.len(), records.len());
        for (index, (read, wanted)) in read.iter().zip(&records).enumerate() {
            prop_assert_eq!((read.offset, read.timestamp), (index as i64, wanted.timestamp));
            prop_assert_eq!(read.key, wanted.key.as_deref());
            prop_assert_eq!(read.value, wanted.value.as_deref());
            prop_assert_eq!(&read.headers, &our_headers(wanted));
        }
    }
}

/// Of these the witness would keep one; the order and the duplicate are in the bytes all the same.
#[test]
fn duplicate_headers_keep_their_order() {
    let headers = ["b", "a", "b"].map(|name| (name.to_owned(), Some(name.as_bytes().to_vec())));
    let wanted = Wanted { key: None, value: None, headers: headers.to_vec(), timestamp: 1 };
    let batch = build(std::slice::from_ref(&wanted), (-1, -1, -1, false));
    let (read, _) = RecordBatch::split_first(&batch).unwrap();
    let records: Vec<_> = read.records().unwrap().map(Result::unwrap).collect();
    assert_eq!(records[0].headers, our_headers(&wanted));
    assert!(batch.ends_with(&[6, 2, b'b', 2, b'b', 2, b'a', 2, b'a', 2, b'b', 2, b'b']));
}
