//! Kafka's protocol by hand: a connection that sends one request at a time, and record batches
//! with whatever is wrong with them.

#![allow(dead_code)] // each test binary uses a part of it

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use kafka_producer::internal::protocol::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse,
    MetadataRequest, MetadataResponse, PartitionProduceResponse, ProduceRequestEncoder,
    ProduceRequestParams, ProduceResponse, Reader, TopicRef, decode_response_header,
    encode_request,
};

/// How long a broker may take for an answer before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to a broker.
pub struct Connection {
    stream: TcpStream,
    correlation_id: i32,
    /// Of Metadata requests.
    pub metadata_version: i16,
    /// Of InitProducerId requests.
    pub init_producer_id_version: i16,
}

/// What a produce request is about, beside its records.
#[derive(Clone, Copy, Debug)]
pub struct Produce<'a> {
    pub version: i16,
    pub acks: i16,
    pub transactional_id: Option<&'a str>,
    pub timeout_ms: i32,
    pub topic: TopicRef<'a>,
    pub partition: i32,
}

impl<'a> Produce<'a> {
    /// Version 12 with acks=all.
    pub fn to(topic: &'a str, partition: i32) -> Self {
        let topic = TopicRef::Name(topic);
        let transactional_id = None;
        Self { version: 12, acks: -1, transactional_id, timeout_ms: 10_000, topic, partition }
    }

    /// The whole frame.
    pub fn frame(&self, correlation_id: i32, records: &[u8]) -> Vec<u8> {
        let params = ProduceRequestParams {
            version: self.version,
            correlation_id,
            client_id: Some("raw"),
            transactional_id: self.transactional_id,
            acks: self.acks,
            timeout_ms: self.timeout_ms,
        };
        let (mut head, mut splits) = (Vec::new(), Vec::new());
        let mut encoder = ProduceRequestEncoder::start(&params, 1, &mut head, &mut splits);
        encoder.topic(self.topic, 1);
        encoder.partition(self.partition, records.len());
        encoder.finish();
        let (before, after) = head.split_at(splits[0]);
        [before, records, after].concat()
    }
}

impl Connection {
    pub fn open(port: u16) -> Self {
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, correlation_id: 0, metadata_version: 12, init_producer_id_version: 4 }
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next frame, without its length; `None` if the connection is closed.
    pub fn read_frame(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        closed_or(self.stream.read_exact(&mut length))?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        closed_or(self.stream.read_exact(&mut frame))?;
        Some(frame)
    }

    pub fn read_exact(&mut self, bytes: &mut [u8]) {
        self.stream.read_exact(bytes).unwrap();
    }

    /// Whether nothing arrives within `time`. The connection is of no more use then.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let error = self.stream.read(&mut [0]).map_err(|error| error.kind());
        matches!(error, Err(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
    }

    /// Sends a request and gives the body of its response; `None` if the connection is closed.
    pub fn request(
        &mut self,
        key: ApiKey,
        version: i16,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        let id = self.next_id();
        encode_request(key, version, id, Some("raw"), &mut frame, body);
        self.write(&frame);
        self.response(key, version)
    }

    pub fn next_id(&mut self) -> i32 {
        self.correlation_id += 1;
        self.correlation_id
    }

    /// Reads the response to the last request, and checks its correlation id.
    pub fn response(&mut self, key: ApiKey, version: i16) -> Option<Vec<u8>> {
        let frame = self.read_frame()?;
        let mut reader = Reader::new(&frame);
        let id = decode_response_header(key, version, &mut reader).unwrap();
        assert_eq!(id, self.correlation_id, "a response to another request");
        Some(frame[frame.len() - reader.remaining()..].to_vec())
    }

    pub fn api_versions(&mut self, version: i16) -> ApiVersionsResponse {
        let request = ApiVersionsRequest {
            client_software_name: "raw".into(),
            client_software_version: "1".into(),
        };
        let body = self.request(ApiKey::ApiVersions, version, |out| request.encode(version, out));
        ApiVersionsResponse::decode(&mut Reader::new(&body.unwrap()), version).unwrap()
    }

    pub fn metadata(&mut self, topics: Option<&[&str]>, create: bool) -> MetadataResponse {
        let request = MetadataRequest {
            topics: topics.map(|names| names.iter().map(|name| (*name).into()).collect()),
            allow_auto_topic_creation: create,
        };
        let version = self.metadata_version;
        let body = self.request(ApiKey::Metadata, version, |out| request.encode(version, out));
        MetadataResponse::decode(&mut Reader::new(&body.unwrap()), version).unwrap()
    }

    pub fn init_producer_id(&mut self, id: i64, epoch: i16) -> InitProducerIdResponse {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            producer_id: id,
            producer_epoch: epoch,
        };
        let version = self.init_producer_id_version;
        let body =
            self.request(ApiKey::InitProducerId, version, |out| request.encode(version, out));
        InitProducerIdResponse::decode(&mut Reader::new(&body.unwrap()), version).unwrap()
    }

    /// Sends a produce request for one partition and gives its verdict; `None` if the connection
    /// is closed.
    pub fn produce(
        &mut self,
        to: &Produce<'_>,
        records: &[u8],
    ) -> Option<PartitionProduceResponse> {
        let response = self.produce_whole(to, records)?;
        response.topics.into_iter().next()?.partitions.into_iter().next()
    }

    /// The same with the whole response.
    pub fn produce_whole(&mut self, to: &Produce<'_>, records: &[u8]) -> Option<ProduceResponse> {
        self.send_produce(to, records);
        let body = self.response(ApiKey::Produce, to.version)?;
        Some(ProduceResponse::decode(&mut Reader::new(&body), to.version).unwrap())
    }

    pub fn send_produce(&mut self, to: &Produce<'_>, records: &[u8]) {
        let frame = to.frame(self.correlation_id + 1, records);
        self.next_id();
        self.write(&frame);
    }
}

fn closed_or(result: std::io::Result<()>) -> Option<()> {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match result {
        Ok(()) => Some(()),
        Err(error) => match error.kind() {
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => None,
            _ => panic!("no answer: {error}"),
        },
    }
}

/// A record batch to be encoded; each field may be wrong.
#[derive(Clone, Debug)]
pub struct Batch {
    pub base_offset: i64,
    /// Added to the right length.
    pub length_error: i32,
    pub magic: u8,
    /// XORed into the right checksum.
    pub crc_error: u32,
    pub attributes: i16,
    /// Without it, one less than there are records.
    pub last_offset_delta: Option<i32>,
    pub base_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    /// Without it, as many as there are.
    pub count: Option<i32>,
    pub records: Vec<Record>,
    /// Bytes after the records, counted in the length and the checksum.
    pub tail: Vec<u8>,
}

/// A record to be encoded.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub timestamp_delta: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Batch {
    /// A right one, of no idempotent producer, with a record for each value.
    pub fn of(values: &[&str]) -> Self {
        let records = values
            .iter()
            .map(|value| Record { value: Some(value.as_bytes().to_vec()), ..Record::default() });
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            base_offset: 0,
            length_error: 0,
            magic: 2,
            crc_error: 0,
            attributes: 0,
            last_offset_delta: None,
            base_timestamp: since_1970.unwrap().as_millis() as i64,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            count: None,
            records: records.collect(),
            tail: Vec::new(),
        }
    }

    /// `count` records of an idempotent producer.
    pub fn idempotent(id: i64, epoch: i16, sequence: i32, count: usize) -> Self {
        let batch = Self::of(&vec!["v"; count]);
        Self { producer_id: id, producer_epoch: epoch, base_sequence: sequence, ..batch }
    }

    pub fn encode(&self) -> Vec<u8> {
        let count = self.records.len() as i32;
        let mut body = Vec::new();
        body.extend(self.attributes.to_be_bytes());
        body.extend(self.last_offset_delta.unwrap_or(count - 1).to_be_bytes());
        body.extend(self.base_timestamp.to_be_bytes());
        let max_delta = self.records.iter().map(|record| record.timestamp_delta).max();
        body.extend((self.base_timestamp + max_delta.unwrap_or(0)).to_be_bytes());
        body.extend(self.producer_id.to_be_bytes());
        body.extend(self.producer_epoch.to_be_bytes());
        body.extend(self.base_sequence.to_be_bytes());
        body.extend(self.count.unwrap_or(count).to_be_bytes());
        for (index, record) in self.records.iter().enumerate() {
            record.encode(index as i64, &mut body);
        }
        body.extend(&self.tail);
        let mut batch = Vec::new();
        batch.extend(self.base_offset.to_be_bytes());
        batch.extend((9 + body.len() as i32 + self.length_error).to_be_bytes());
        batch.extend((-1_i32).to_be_bytes()); // partition leader epoch
        batch.push(self.magic);
        batch.extend((crc32c::crc32c(&body) ^ self.crc_error).to_be_bytes());
        batch.extend(body);
        batch
    }
}

impl Record {
    fn encode(&self, index: i64, out: &mut Vec<u8>) {
        let mut body = vec![0];
        varint(self.timestamp_delta, &mut body);
        varint(index, &mut body);
        bytes(self.key.as_deref(), &mut body);
        bytes(self.value.as_deref(), &mut body);
        varint(self.headers.len() as i64, &mut body);
        for (name, value) in &self.headers {
            bytes(Some(name.as_bytes()), &mut body);
            bytes(value.as_deref(), &mut body);
        }
        varint(body.len() as i64, out);
        out.extend(body);
    }
}

fn bytes(value: Option<&[u8]>, out: &mut Vec<u8>) {
    varint(value.map_or(-1, |value| value.len() as i64), out);
    out.extend(value.unwrap_or_default());
}

fn varint(value: i64, out: &mut Vec<u8>) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}
