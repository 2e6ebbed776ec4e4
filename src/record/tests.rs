//! What the builder writes, the reader reads; and what the reader refuses.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::batch::offset;
use super::*;

/// An owned record, as a test wants it.
#[derive(Clone, Debug)]
struct Wanted {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<Header<'static>>,
    timestamp: i64,
}

impl Wanted {
    fn data(&self) -> RecordData<'_> {
        RecordData {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
            timestamp: self.timestamp,
        }
    }

    fn read(&self, offset: i64) -> Record<'_> {
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        Record { offset, timestamp: self.timestamp, key, value, headers: self.headers.clone() }
    }
}

fn bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(prop_oneof![3 => vec(any::<u8>(), 0..4), 1 => vec(any::<u8>(), 0..300)])
}

fn header() -> impl Strategy<Value = Header<'static>> {
    ("[a-c]{0,3}|ü", bytes())
        .prop_map(|(name, value)| Header { name: name.into(), value: value.map(Cow::Owned) })
}

fn record() -> impl Strategy<Value = Wanted> {
    let timestamp = prop_oneof![3 => 1_700_000_000_000..1_700_000_000_100i64, 1 => any::<i64>()];
    (bytes(), bytes(), vec(header(), 0..4), timestamp)
        .prop_map(|(key, value, headers, timestamp)| Wanted { key, value, headers, timestamp })
}

fn data(value: &[u8]) -> RecordData<'_> {
    RecordData { key: None, value: Some(value), headers: &[], timestamp: 1000 }
}

fn built(records: &[RecordData<'_>]) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new(Vec::with_capacity(4096));
    for record in records {
        builder.try_append(record).unwrap();
    }
    builder.finish(-1, -1, -1, false);
    bytes_of(&builder)
}

/// Changes a batch and mends its checksum.
fn forged(batch: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    let crc = crc32c::crc32c(&bytes[offset::ATTRIBUTES..]);
    bytes[offset::CRC..][..4].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn verdict(bytes: &[u8]) -> Result<(), BatchError> {
    RecordBatch::split_first(bytes).and_then(|(batch, _)| batch.validate())
}

/// REC-01, REC-23.
#[test]
fn a_batch_has_the_bytes_that_the_format_says() {
    let headers = [Header { name: "h".into(), value: None }];
    let first = RecordData { key: Some(b"k"), value: Some(b"v"), headers: &headers, timestamp: 5 };
    let second = RecordData { key: None, value: None, headers: &[], timestamp: 4 };
    let mut builder = RecordBatchBuilder::new(Vec::with_capacity(128));
    assert_eq!((builder.try_append(&first), builder.try_append(&second)), (Some(0), Some(1)));
    builder.finish(9, 3, 7, true);
    let expected = [
        &[0; 8][..],    // base offset
        &[0, 0, 0, 68], // length
        &[255; 4],      // leader epoch
        &[2],           // magic
        &builder.segments().next().unwrap()[17..21],
        &[0, 16],                  // attributes: transactional
        &[0, 0, 0, 1],             // last offset delta
        &[0, 0, 0, 0, 0, 0, 0, 5], // base timestamp
        &[0, 0, 0, 0, 0, 0, 0, 5], // max timestamp
        &[0, 0, 0, 0, 0, 0, 0, 9], // producer id
        &[0, 3],                   // epoch
        &[0, 0, 0, 7],             // base sequence
        &[0, 0, 0, 2],             // count
        &[22, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 1],
        &[12, 0, 1, 2, 1, 1, 0],
    ];
    assert_eq!(bytes_of(&builder), expected.concat());
}

/// REC-22.
#[test]
fn a_record_that_does_not_fit_writes_nothing_and_goes_into_the_next_segment() {
    let value = [7; 20];
    let mut builder = RecordBatchBuilder::new(Vec::with_capacity(RECORD_BATCH_OVERHEAD + 30));
    assert_eq!(builder.record_size(&data(&value)), 27);
    assert_eq!(builder.try_append(&data(&value)), Some(0));
    let before = (builder.size(), builder.count(), builder.segments().next().unwrap().clone());
    assert_eq!(builder.try_append(&data(&value)), None);
    assert_eq!(
        (builder.size(), builder.count(), builder.segments().next().unwrap().clone()),
        before
    );

    builder.add_segment(vec![0; 27]);
    assert_eq!(builder.try_append(&data(&value)), Some(1));
    assert_eq!(builder.room(), 0);
    builder.finish(1, 0, 0, false);
    assert_eq!(verdict(&bytes_of(&builder)), Ok(()));
}

#[test]
fn finishing_again_renumbers_the_header_and_leaves_the_records_alone() {
    let mut builder = RecordBatchBuilder::new(Vec::with_capacity(256));
    builder.try_append(&data(b"value")).unwrap();
    builder.finish(1, 2, 3, false);
    let first = bytes_of(&builder);
    builder.finish(1, 3, 0, false);
    let second = bytes_of(&builder);
    assert_eq!(first[RECORD_BATCH_OVERHEAD..], second[RECORD_BATCH_OVERHEAD..]);
    assert_eq!(verdict(&second), Ok(()));
    let header = RecordBatchHeader::decode(&second).unwrap();
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (1, 3, 0));
}

/// REC-07.
#[test]
fn the_broker_may_set_base_offset_and_leader_epoch_without_a_new_checksum() {
    let mut batch = built(&[data(b"one"), data(b"two")]);
    batch[offset::BASE_OFFSET..][..8].copy_from_slice(&1_000i64.to_be_bytes());
    batch[offset::PARTITION_LEADER_EPOCH..][..4].copy_from_slice(&7i32.to_be_bytes());
    assert_eq!(verdict(&batch), Ok(()));
    let (read, _) = RecordBatch::split_first(&batch).unwrap();
    let offsets: Vec<_> = read.records().unwrap().map(|r| r.unwrap().offset).collect();
    assert_eq!(offsets, [1_000, 1_001]);
}

/// REC-08, REC-09: made with Kafka's own `MemoryRecords`.
#[test]
fn checksums_are_those_of_java() {
    assert_eq!(crc32c::crc32c(b"Some String"), 608_512_271);
    let parts = crc32c::crc32c_append(crc32c::crc32c(b"Some "), b"String");
    assert_eq!(parts, 608_512_271);
    let [first, second] =
        [(b"key1", b"value1", 283_843), (b"key2", b"value2", 1_234)].map(|(k, v, timestamp)| {
            RecordData { key: Some(k), value: Some(v), headers: &[], timestamp }
        });
    let batch = built(&[first, second]);
    let crc = u32::from_be_bytes(batch[offset::CRC..][..4].try_into().unwrap());
    assert_eq!(crc, 3_851_219_455);
}

/// REC-06.
#[test]
fn a_flipped_bit_anywhere_after_the_checksum_is_found() {
    let good = built(&[data(b"one"), data(b"two")]);
    assert_eq!(verdict(&good), Ok(()));
    for at in offset::CRC..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(matches!(verdict(&bad), Err(BatchError::Checksum { .. })), "byte {at}");
    }
}

#[test]
fn a_batch_cut_anywhere_is_refused() {
    let good = built(&[data(b"one")]);
    for end in 0..good.len() {
        let error = verdict(&good[..end]).unwrap_err();
        assert!(matches!(error, BatchError::Truncated { available, .. } if available == end));
    }
}

/// REC-06.
#[test]
fn headers_that_lie_are_refused() {
    let good = built(&[data(b"one"), data(b"two")]);
    let set = |at: usize, value: i32| {
        forged(&good, |bytes| bytes[at..at + 4].copy_from_slice(&value.to_be_bytes()))
    };
    let count = |record_count, last_offset_delta| {
        Err(BatchError::Count { record_count, last_offset_delta })
    };
    assert_eq!(verdict(&set(offset::RECORD_COUNT, 3)), count(3, 1));
    assert_eq!(verdict(&set(offset::RECORD_COUNT, -1)), count(-1, 1));
    assert_eq!(verdict(&set(offset::LAST_OFFSET_DELTA, 0)), count(2, 0));
    assert_eq!(verdict(&set(offset::BATCH_LENGTH, 48)), Err(BatchError::Length(48)));
    assert_eq!(verdict(&set(offset::BATCH_LENGTH, -1)), Err(BatchError::Length(-1)));
    assert_eq!(verdict(&forged(&good, |b| b[offset::MAGIC] = 1)), Err(BatchError::Magic(1)));
    let compressed = forged(&good, |b| b[offset::ATTRIBUTES + 1] |= 1);
    assert_eq!(verdict(&compressed), Err(BatchError::Compressed));

    // A count that agrees with the last offset, but not with the bytes.
    let fewer = forged(&good, |b| {
        b[offset::LAST_OFFSET_DELTA + 3] = 0;
        b[offset::RECORD_COUNT + 3] = 1;
    });
    assert_eq!(verdict(&fewer), Err(BatchError::TrailingBytes(10)));
    let huge = forged(&good, |b| {
        b[offset::LAST_OFFSET_DELTA..][..4].copy_from_slice(&0x7fff_fffei32.to_be_bytes());
        b[offset::RECORD_COUNT..][..4].copy_from_slice(&0x7fff_ffffi32.to_be_bytes());
    });
    assert_eq!(verdict(&huge), count(0x7fff_ffff, 0x7fff_fffe));
}

/// REC-12.
#[test]
fn records_that_lie_are_refused() {
    let good = built(&[data(b"one"), data(b"two")]);
    // Each record: length, attributes, timestamp, offset, key length, value length, 3 bytes, count.
    for (at, value) in [
        (0, 20),   // a length of 10, beyond the record
        (0, 0x01), // a length of -1
        (3, 2),    // the offset of the other record
        (4, 0x03), // a key length of -2
        (5, 0x40), // a value beyond the record
        (9, 0x7e), // 63 headers
    ] {
        let bad = forged(&good, |bytes| bytes[RECORD_BATCH_OVERHEAD + at] = value);
        assert_eq!(verdict(&bad), Err(BatchError::Record(0)), "byte {at}");
    }
}

#[test]
fn the_estimate_is_that_of_java() {
    // Kafka 4.3.1: AbstractRecords.estimateSizeInBytesUpperBound, magic 2, no compression.
    let headers = [Header { name: "name".into(), value: Some(b"value"[..].into()) }];
    assert_eq!(estimate_size_upper_bound(None, Some(100), &[]), 61 + 21 + 1 + 102 + 1);
    assert_eq!(estimate_size_upper_bound(Some(3), None, &headers), 61 + 21 + 4 + 1 + 1 + 5 + 6);
}

proptest! {
    /// RA-05, REC-01, REC-05, REC-10, REC-11, REC-20, REC-22, REC-27.
    #[test]
    fn what_is_built_is_read_whatever_the_segments(
        records in vec(record(), 1..20),
        capacity in RECORD_BATCH_OVERHEAD..900,
        (id, epoch, sequence, transactional) in any::<(i64, i16, i32, bool)>(),
    ) {
        let mut builder = RecordBatchBuilder::new(Vec::with_capacity(capacity));
        for (i, record) in records.iter().enumerate() {
            let (record, size) = (record.data(), builder.size());
            let predicted = builder.record_size(&record);
            let (key, value) = (record.key.map(<[u8]>::len), record.value.map(<[u8]>::len));
            let estimate = estimate_size_upper_bound(key, value, record.headers);
            prop_assert!(predicted + RECORD_BATCH_OVERHEAD <= estimate);
            let fits = predicted <= builder.room();
            let index = builder.try_append(&record);
            prop_assert_eq!(index.is_some(), fits);
            if !fits {
                builder.add_segment(Vec::with_capacity(capacity.max(predicted)));
                prop_assert_eq!(builder.try_append(&record), Some(i as u32));
            }
            prop_assert_eq!(builder.size(), size + predicted);
        }
        let place_of = |s: &Vec<u8>| (s.as_ptr(), s.capacity());
        let memory: Vec<_> = builder.segments().map(place_of).collect();
        builder.finish(id, epoch, sequence, transactional);

        let bytes = bytes_of(&builder);
        prop_assert_eq!(bytes.len(), builder.size());
        let (batch, rest) = RecordBatch::split_first(&bytes).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(batch.validate(), Ok(()));
        let header = batch.header();
        prop_assert_eq!(
            (header.producer_id, header.producer_epoch, header.base_sequence),
            (id, epoch, sequence)
        );
        prop_assert_eq!(header.is_transactional(), transactional);
        prop_assert_eq!(header.max_timestamp, records.iter().map(|r| r.timestamp).max().unwrap());
        let wanted: Vec<_> = (0..).zip(&records).map(|(i, r)| Ok(r.read(i))).collect();
        prop_assert_eq!(&batch.records().unwrap().collect::<Vec<_>>(), &wanted);
        prop_assert_eq!(&builder.records().collect::<Vec<_>>(), &wanted);
        let after: Vec<_> = builder.into_segments().map(|segment| place_of(&segment)).collect();
        prop_assert_eq!(memory, after);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        mut bytes in vec(any::<u8>(), 0..200),
        length in 49..190i32,
        count in -1..40i32,
    ) {
        let _ = verdict(&bytes);
        if bytes.len() > RECORD_BATCH_OVERHEAD {
            bytes[offset::BATCH_LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
            bytes[offset::MAGIC] = 2;
            bytes[offset::ATTRIBUTES + 1] &= !7;
            bytes[offset::RECORD_COUNT..][..4].copy_from_slice(&count.to_be_bytes());
            if let Ok((batch, _)) = RecordBatch::split_first(&bytes) {
                let _ = batch.records().map(|records| records.count());
            }
        }
    }
}

fn bytes_of(builder: &RecordBatchBuilder) -> Vec<u8> {
    builder.segments().flatten().copied().collect()
}
