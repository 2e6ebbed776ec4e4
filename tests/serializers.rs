//! Serializers: the bytes that Kafka's Java client makes, and the typed producer around them.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{builder, close, delivered};
use kafka_producer::testing::{MockProducer, TestCluster};
use kafka_producer::{
    BooleanSerializer, BytesSerializer, DoubleSerializer, Error, FloatSerializer, Headers,
    IntegerSerializer, ListSerializer, LongSerializer, RecordPart, SerializeError, Serializer,
    ShortSerializer, StringSerializer, TypedProducer, TypedRecord, Uuid, UuidSerializer,
    VoidSerializer,
};

fn bytes<S: Serializer>(serializer: &S, data: &S::Input) -> Vec<u8> {
    let mut scratch = Vec::new();
    serializer.serialize("t", &mut Headers::new(), data, &mut scratch).unwrap().to_vec()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |two: &[u8]| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

fn uuid(text: &str) -> Uuid {
    Uuid(from_hex(&text.replace('-', "")).try_into().unwrap())
}

fn list<S: Serializer>(inner: S, text: &str, read: impl Fn(&str) -> S::Input) -> Vec<u8>
where
    S::Input: Sized,
{
    let entries = text.split(',').filter(|_| !text.is_empty());
    let entries: Vec<_> = entries.map(|e| (e != "null").then(|| read(e))).collect();
    bytes(&ListSerializer::<S>::new(inner), &entries)
}

fn list_of_text(text: &str) -> Vec<u8> {
    let entries = text.split(',').filter(|_| !text.is_empty());
    let entries: Vec<_> = entries.map(|e| (e != "null").then(|| e.to_owned())).collect();
    bytes(&ListSerializer::<_, String>::new(StringSerializer), &entries)
}

/// HDR-09: a list has its nulls, and lengths only where its entries need them; that it has an inner
/// serializer is a matter of types.
///
/// HDR-10: booleans are one byte.
///
/// HDR-06, HDR-07: numbers, text and ids.
#[test]
fn the_bytes_are_those_of_the_java_client() {
    let vectors = include_str!("data/kafka-4.3.1-serializers.tsv");
    for line in vectors.lines() {
        let [kind, value, expected] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let made = match kind {
            "string" => bytes(&StringSerializer, std::str::from_utf8(&from_hex(value)).unwrap()),
            "bytes" => bytes(&BytesSerializer, &from_hex(value)),
            "i16" => bytes(&ShortSerializer, &value.parse().unwrap()),
            "i32" => bytes(&IntegerSerializer, &value.parse().unwrap()),
            "i64" => bytes(&LongSerializer, &value.parse().unwrap()),
            "f32" => {
                let bits = u32::from_str_radix(value, 16).unwrap();
                bytes(&FloatSerializer, &f32::from_bits(bits))
            }
            "f64" => {
                let bits = u64::from_str_radix(value, 16).unwrap();
                bytes(&DoubleSerializer, &f64::from_bits(bits))
            }
            "uuid" => bytes(&UuidSerializer, &uuid(value)),
            "bool" => bytes(&BooleanSerializer, &value.parse().unwrap()),
            "list" => match value.split_once(':').unwrap() {
                ("i32", list_) => list(IntegerSerializer, list_, |e| e.parse().unwrap()),
                ("i64", list_) => list(LongSerializer, list_, |e| e.parse().unwrap()),
                ("bool", list_) => list(BooleanSerializer, list_, |e| e.parse().unwrap()),
                ("uuid", list_) => list(UuidSerializer, list_, uuid),
                (_, list_) => list_of_text(list_),
            },
            other => panic!("{other}"),
        };
        assert_eq!(made, from_hex(expected), "{line}");
    }
    assert!(vectors.lines().count() > 40);
}

/// HDR-10, HDR-06: where nothing is to be said any value is refused, and null is sent.
#[test]
fn a_void_serializer_takes_null_only() {
    let mock = MockProducer::new();
    let producer = TypedProducer::new(mock.clone(), VoidSerializer, StringSerializer);
    let refused = producer.send(TypedRecord::new("t", "v").key(&())).unwrap_err();
    assert!(matches!(refused, Error::Serialization { part: RecordPart::Key, .. }), "{refused}");
    producer.send(TypedRecord::new("t", "v")).unwrap();
    producer.send(TypedRecord::tombstone("t")).unwrap();
    let history = mock.history();
    assert!(history.iter().all(|record| record.key.is_none()));
    assert_eq!([&history[0].value, &history[1].value], [&Some(b"v".to_vec()), &None]);
}

/// Notes what it is called with, and adds a header.
#[derive(Default)]
struct Noting {
    name: &'static str,
    calls: Arc<Mutex<Vec<String>>>,
    dropped: Option<Arc<AtomicUsize>>,
}

impl Serializer for Noting {
    type Input = str;

    fn serialize<'s>(
        &self,
        topic: &str,
        headers: &mut Headers<'_>,
        data: &'s str,
        scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8], SerializeError> {
        let before: Vec<_> = headers.iter().map(|header| header.name.to_string()).collect();
        self.calls.lock().unwrap().push(format!("{}: {topic} {before:?} {data}", self.name));
        headers.push(self.name, b"seen");
        if data == "panic" {
            panic!("on purpose");
        }
        scratch.extend_from_slice(data.parse::<u32>()?.to_string().as_bytes());
        Ok(scratch)
    }
}

impl Drop for Noting {
    fn drop(&mut self) {
        if let Some(count) = &self.dropped {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn noting(name: &'static str, calls: &Arc<Mutex<Vec<String>>>) -> Noting {
    Noting { name, calls: Arc::clone(calls), dropped: None }
}

/// KP-10: each serializer gets the topic, the headers and its data once a send, the key's first.
///
/// KP-11: the record that was lent keeps the headers that it had.
#[test]
fn serializers_are_called_once_a_send_with_topic_headers_and_data() {
    let cluster = TestCluster::builder().topic("t", 1).start();
    let real = builder(&cluster).build().unwrap();
    real.wait_ready(&["t"], common::LONG).unwrap();
    let calls = Arc::default();
    let producer = real.typed(noting("key", &calls), noting("value", &calls));
    let record = TypedRecord::new("t", "02").key("01").header("own", "h").timestamp(9);
    for _ in 0..2 {
        delivered(&producer.try_send(&record).unwrap());
        let calls = std::mem::take(&mut *calls.lock().unwrap());
        assert_eq!(calls, [r#"key: t ["own"] 01"#, r#"value: t ["own", "key"] 02"#]);
    }
    delivered(&producer.send(TypedRecord::tombstone("t")).unwrap());
    assert!(calls.lock().unwrap().is_empty(), "null is not shown");
    producer.send_with(record.partition(0), |fate| assert!(fate.is_ok())).unwrap();
    close(producer.producer());
    let stored = cluster.records("t", 0);
    assert_eq!(stored.len(), 4);
    for record in [&stored[0], &stored[1], &stored[3]] {
        assert_eq!((record.key.as_deref(), record.timestamp), (Some(&b"1"[..]), 9));
        assert_eq!(record.value.as_deref(), Some(&b"2"[..]));
        let names: Vec<_> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["own", "key", "value"]);
    }
    assert_eq!((&stored[2].key, &stored[2].value), (&None, &None));
}

#[test]
fn a_serializer_that_fails_or_panics_fails_its_own_send_only() {
    let mock = MockProducer::new();
    let calls = Arc::default();
    let producer = TypedProducer::new(mock.clone(), noting("key", &calls), noting("value", &calls));
    let never = |_: Result<&_, &_>| panic!("the callback of a refused record was called");
    let failed: [(_, _, RecordPart, &str); 3] = [
        ("no number", "1", RecordPart::Key, "invalid digit"),
        ("1", "-1", RecordPart::Value, "invalid digit"),
        ("1", "panic", RecordPart::Value, "on purpose"),
    ];
    for (key, value, part, why) in failed {
        let record = TypedRecord::new("orders", value).key(key);
        let errors = [
            producer.try_send(&record).unwrap_err(),
            producer.send_with(record.clone(), never).unwrap_err(),
            producer.send(record).unwrap_err(),
        ];
        for error in errors {
            let text = error.to_string();
            let Error::Serialization { topic, part: told, .. } = error else { panic!("{text}") };
            assert_eq!((&*topic, told), ("orders", part));
            assert!(text.contains("orders") && text.contains(why), "{text}");
        }
    }
    producer.send(TypedRecord::new("orders", "1").key("2")).unwrap();
    assert_eq!(mock.history().len(), 1);
}

/// KP-18: serializers are dropped once, with the last typed producer that has them.
#[test]
fn serializers_end_once() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let mut key = Noting::default();
    key.dropped = Some(Arc::clone(&dropped));
    let producer = TypedProducer::new(MockProducer::new(), key, StringSerializer);
    producer.send(TypedRecord::new("t", "v").key("1")).unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
    drop(producer);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}
