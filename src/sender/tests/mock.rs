//! A client whose brokers are the test: it keeps every request, and hands out the answers that it
//! is given. Requests are read back with the crate's own decoder, checksums checked, so that a
//! test sees what a broker would see.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::client::{
    ClientEvent, ClientRequest, ClientResponse, KafkaClient, NodeAddress, RequestFailure,
    ResponseBody, Stage, UnsupportedVersion, VersionError,
};
use crate::network::{OutFrame, Piece};
use crate::protocol::{
    ApiKey, LeaderIdAndEpoch, PartitionProduceResponse, ProduceRequest, ProduceResponse, Reader,
    RequestHeader, TopicKey, TopicProduceResponse,
};
use crate::record::RecordBatch;
use crate::time::MonoTime;
use crate::types::NodeId;

/// The client that the sender owns; the test holds a clone.
#[derive(Clone, Default)]
pub(super) struct MockClient(pub(super) Rc<RefCell<Wire>>);

/// What the test sees and sets.
#[derive(Default)]
pub(super) struct Wire {
    pub(super) nodes: Vec<NodeAddress>,
    /// How often they were handed over.
    pub(super) handed_over: usize,
    /// Nodes that can't be reached, and from when on they may be tried again.
    pub(super) down: BTreeMap<NodeId, MonoTime>,
    pub(super) max_in_flight: usize,
    pub(super) produce_version: i16,
    pub(super) unsupported: BTreeSet<i16>,
    /// Requests under way, oldest first.
    pub(super) under_way: Vec<ClientRequest>,
    pub(super) events: Vec<ClientEvent>,
    /// The last poll brought no events.
    pub(super) heard_nothing: bool,
    /// The time-out of each poll.
    pub(super) polls: Vec<Option<Duration>>,
    pub(super) throttled: Vec<(NodeId, Duration)>,
    pub(super) disconnected: Vec<NodeId>,
    /// A defect to act out: the next question for an API version panics.
    pub(super) panics: bool,
    /// The tags of the produce requests that the test has not looked at yet.
    pub(super) unseen: Vec<u64>,
    correlation_id: i32,
    /// When each request under way was sent, by its tag.
    sent_at: BTreeMap<u64, MonoTime>,
}

/// A produce request as a broker reads it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) tag: u64,
    pub(super) node: i32,
    pub(super) version: i16,
    pub(super) acks: i16,
    pub(super) batches: Vec<SentBatch>,
}

/// A batch in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SentBatch {
    pub(super) topic: TopicKey,
    pub(super) partition: i32,
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
    pub(super) sequence: i32,
    pub(super) values: Vec<String>,
}

impl Sent {
    /// The only batch.
    pub(super) fn batch(&self) -> &SentBatch {
        assert_eq!(self.batches.len(), 1, "{self:?}");
        &self.batches[0]
    }

    /// Epoch, sequence and values of the only batch.
    pub(super) fn told(&self) -> (i16, i32, String) {
        let batch = self.batch();
        (batch.epoch, batch.sequence, batch.values.join(" "))
    }

    /// The partitions of the batches.
    pub(super) fn partitions(&self) -> Vec<i32> {
        self.batches.iter().map(|b| b.partition).collect()
    }
}

/// The bytes of a frame in the order in which they go to the socket.
fn bytes_of(frame: &OutFrame) -> Vec<u8> {
    let (mut out, mut head) = (Vec::new(), 0);
    for piece in &frame.pieces {
        match *piece {
            Piece::Head(end) => {
                out.extend_from_slice(&frame.head[std::mem::replace(&mut head, end)..end])
            }
            Piece::Segment(index) => out.extend_from_slice(&frame.segments[index]),
        }
    }
    assert_eq!(out.len(), frame.total_len(), "pieces that don't cover the frame");
    out
}

fn read(request: &ClientRequest) -> Sent {
    let bytes = bytes_of(&request.frame);
    let (length, body) = bytes.split_at(4);
    assert_eq!(i32::from_be_bytes(length.try_into().unwrap()) as usize, body.len());
    let mut reader = Reader::new(body);
    let header = RequestHeader::decode(&mut reader).unwrap();
    assert_eq!(header.correlation_id, request.correlation_id);
    let produce = ProduceRequest::decode(&mut reader, request.version).unwrap();
    let mut batches = Vec::new();
    for topic in &produce.topics {
        for partition in &topic.partitions {
            let (batch, rest) = RecordBatch::split_first(partition.records.unwrap()).unwrap();
            assert!(rest.is_empty(), "one batch a partition");
            batch.validate().unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let values = batch.records().unwrap().map(|r| text(r.unwrap().value.unwrap()));
            batches.push(SentBatch {
                topic: topic.topic.into(),
                partition: partition.index,
                producer_id: batch.header().producer_id,
                epoch: batch.header().producer_epoch,
                sequence: batch.header().base_sequence,
                values: values.collect(),
            });
        }
    }
    let (tag, node, version) = (request.tag, request.node.0, request.version);
    Sent { tag, node, version, acks: produce.acks, batches }
}

/// An answer for one partition.
pub(super) fn verdict(code: crate::protocol::ErrorCode, offset: i64) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index: 0,
        error_code: code,
        base_offset: offset,
        log_append_time_ms: -1,
        log_start_offset: 0,
        record_errors: Vec::new(),
        error_message: None,
        current_leader: None,
    }
}

/// An answer that names the new leader (KIP-951).
pub(super) fn moved_to(leader: i32, epoch: i32) -> PartitionProduceResponse {
    let current_leader = Some(LeaderIdAndEpoch { leader_id: leader, leader_epoch: epoch });
    let not_leader = crate::protocol::ErrorCode::NOT_LEADER_OR_FOLLOWER;
    PartitionProduceResponse { current_leader, ..verdict(not_leader, -1) }
}

impl Wire {
    /// The produce requests since the last look.
    pub(super) fn sent(&mut self) -> Vec<Sent> {
        let unseen = std::mem::take(&mut self.unseen);
        let of = |tag: &u64| self.under_way.iter().find(|r| r.tag == *tag).map(read);
        unseen.iter().filter_map(of).collect()
    }

    /// Takes a request off those under way.
    pub(super) fn take(&mut self, tag: u64) -> ClientRequest {
        let place = self.under_way.iter().position(|r| r.tag == tag);
        self.under_way.remove(place.expect("under way"))
    }

    /// The request's outcome comes with the next poll.
    pub(super) fn end(
        &mut self,
        tag: u64,
        outcome: Result<ResponseBody, RequestFailure>,
        sent: bool,
    ) {
        let ClientRequest { node, api, version, frame, tag, .. } = self.take(tag);
        let created_at = self.sent_at.remove(&tag).expect("sent");
        self.events.push(ClientEvent::Response(ClientResponse {
            node,
            tag,
            api,
            version,
            frame,
            outcome,
            sent,
            created_at,
        }));
    }

    /// Answers a produce request, each batch by `answer`.
    pub(super) fn answer(
        &mut self,
        sent: &Sent,
        mut answer: impl FnMut(&SentBatch) -> PartitionProduceResponse,
    ) {
        let topics = sent.batches.iter().map(|batch| TopicProduceResponse {
            topic: batch.topic.clone(),
            partitions: vec![PartitionProduceResponse { index: batch.partition, ..answer(batch) }],
        });
        let topics = topics.collect();
        let response = ProduceResponse { topics, throttle_time_ms: 0, node_endpoints: Vec::new() };
        self.respond(sent, &response);
    }

    pub(super) fn respond(&mut self, sent: &Sent, response: &ProduceResponse) {
        let mut bytes = Vec::new();
        response.encode(sent.version, &mut bytes);
        self.end(sent.tag, Ok(ResponseBody::Bytes(bytes)), true);
    }

    /// The connection is lost, with everything on it.
    pub(super) fn cut(&mut self, node: i32) {
        let node = NodeId(node);
        let on_it = |r: &&ClientRequest| r.node == node;
        let tags: Vec<u64> = self.under_way.iter().filter(on_it).map(|r| r.tag).collect();
        for tag in tags {
            self.end(tag, Err(RequestFailure::Disconnected), true);
        }
        let (stage, reason) = (Stage::InUse, "cut".to_owned());
        self.events.push(ClientEvent::Disconnected { node, stage, reason });
    }

    fn is_known(&self, node: NodeId) -> bool {
        self.nodes.iter().any(|n| n.id == node)
    }

    fn is_ready(&self, node: NodeId) -> bool {
        self.is_known(node)
            && !self.down.contains_key(&node)
            && self.in_flight(node) < self.max_in_flight
    }

    fn in_flight(&self, node: NodeId) -> usize {
        self.under_way.iter().filter(|r| r.node == node).count()
    }
}

impl KafkaClient for MockClient {
    fn set_nodes(&mut self, nodes: Vec<NodeAddress>, _now: MonoTime) {
        let mut wire = self.0.borrow_mut();
        (wire.nodes, wire.handed_over) = (nodes, wire.handed_over + 1);
    }

    fn ready(&mut self, node: NodeId, _now: MonoTime) -> bool {
        self.0.borrow().is_ready(node)
    }

    fn is_ready(&self, node: NodeId, _now: MonoTime) -> bool {
        self.0.borrow().is_ready(node)
    }

    fn ready_delay(&self, node: NodeId, now: MonoTime) -> Duration {
        let wire = self.0.borrow();
        wire.down.get(&node).map_or(Duration::MAX, |at| match *at {
            MonoTime::MAX => Duration::MAX,
            at => at.since(now),
        })
    }

    fn least_loaded_node(&mut self, _now: MonoTime) -> Option<NodeId> {
        let wire = self.0.borrow();
        let up = wire.nodes.iter().map(|n| n.id).filter(|n| !wire.down.contains_key(n));
        up.min_by_key(|n| wire.in_flight(*n))
    }

    fn any_node_available(&self, _now: MonoTime) -> bool {
        let wire = self.0.borrow();
        wire.nodes.iter().any(|n| !wire.down.contains_key(&n.id))
    }

    fn api_version(&self, node: NodeId, api: ApiKey) -> Result<i16, VersionError> {
        let wire = self.0.borrow();
        assert!(!wire.panics, "a defect");
        let client = api.supported();
        if wire.unsupported.contains(&api.code()) {
            let node = format!("broker {node}");
            let unsupported = UnsupportedVersion { node, api, client, broker: None };
            return Err(VersionError::Unsupported(unsupported));
        }
        Ok(if api == ApiKey::Produce { wire.produce_version } else { client.max })
    }

    fn finalized_feature(&self, _name: &str) -> Option<i16> {
        None
    }

    fn next_correlation_id(&mut self) -> i32 {
        let mut wire = self.0.borrow_mut();
        wire.correlation_id += 1;
        wire.correlation_id
    }

    fn client_id(&self) -> &str {
        "mock"
    }

    fn send(&mut self, request: ClientRequest, now: MonoTime) {
        let mut wire = self.0.borrow_mut();
        assert!(wire.is_ready(request.node), "sent to a node that is not ready");
        if request.api == ApiKey::Produce {
            wire.unseen.push(request.tag);
        }
        wire.sent_at.insert(request.tag, now);
        wire.under_way.push(request);
    }

    fn throttle(&mut self, node: NodeId, duration: Duration, _now: MonoTime) {
        self.0.borrow_mut().throttled.push((node, duration));
    }

    fn disconnect(&mut self, node: NodeId, _now: MonoTime) {
        self.0.borrow_mut().disconnected.push(node);
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        now: MonoTime,
        events: &mut Vec<ClientEvent>,
    ) -> io::Result<MonoTime> {
        let mut wire = self.0.borrow_mut();
        wire.polls.push(timeout);
        wire.heard_nothing = wire.events.is_empty();
        events.append(&mut wire.events);
        Ok(now)
    }

    fn close(&mut self, _now: MonoTime, events: &mut Vec<ClientEvent>) {
        let mut wire = self.0.borrow_mut();
        let tags: Vec<u64> = wire.under_way.iter().map(|r| r.tag).collect();
        for tag in tags {
            wire.end(tag, Err(RequestFailure::Disconnected), true);
        }
        events.append(&mut wire.events);
    }
}
