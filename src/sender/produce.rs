//! From ready lines to requests: at most one batch a partition, as many as `max.request.size`
//! allows, written from where they lie.

use super::Sender;
use super::due::{Due, decide};
use super::in_flight::{Part, Seat};
use crate::accumulator::batch::ProducerBatch;
use crate::accumulator::inbox::PartitionId;
use crate::claims;
use crate::client::{ClientRequest, KafkaClient, VersionError};
use crate::error::DeliveryCause;
use crate::network::{OutFrame, Piece};
use crate::planted::{Defect, is_planted};
use crate::protocol::ApiKey;
use crate::protocol::{ProduceRequestEncoder, ProduceRequestParams, TopicRef};
use crate::sync::Arc;
use crate::time::MonoTime;
use crate::types::{NodeId, Uuid};

/// The last version that names topics; later ones go by id (KIP-516).
const LAST_BY_NAME: i16 = 12;

/// Vectors that keep their memory from request to request.
#[derive(Default)]
pub(super) struct Scratch {
    splits: Vec<usize>,
    /// Frames that came back, for their vectors.
    frames: Vec<OutFrame>,
    parts: Vec<Vec<Part>>,
    drained: Vec<Drained>,
    /// With the moment at which the next batch is due, where that is known.
    visited: Vec<(PartitionId, Option<MonoTime>)>,
}

impl Scratch {
    /// Keeps a request's vectors for the next one.
    pub(super) fn recycle(&mut self, mut frame: OutFrame, parts: Vec<Part>) {
        const KEPT: usize = 16;
        debug_assert!(parts.is_empty() && frame.segments.is_empty());
        if self.frames.len() < KEPT && frame.head.capacity() <= 64 * 1024 {
            frame.head.clear();
            frame.pieces.clear();
            self.frames.push(frame);
            self.parts.push(parts);
        }
        self.invariants();
    }

    /// What is kept comes in pairs, and of a request nothing is left in it. Looked at for the last.
    pub(super) fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        assert_eq!(self.frames.len(), self.parts.len(), "half of a request's vectors");
        let is_empty = |frame: &OutFrame| {
            frame.head.is_empty() && frame.pieces.is_empty() && frame.segments.is_empty()
        };
        assert!(self.frames.last().is_none_or(is_empty), "a request's bytes are left");
        assert!(self.parts.last().is_none_or(Vec::is_empty), "a request's parts are left");
        assert!(self.drained.is_empty() && self.visited.is_empty(), "a turn's work is left");
    }
}

/// A batch on its way from its queue into a request.
struct Drained {
    id: PartitionId,
    topic: Arc<str>,
    partition: i32,
    topic_id: Uuid,
    batch: Box<ProducerBatch>,
}

impl<C: KafkaClient> Sender<C> {
    /// Sends what is ready to every broker that can take it.
    pub(super) fn send_batches(&mut self, now: MonoTime) {
        let mut last = None;
        while let Some(node) = self.index.next_ready_node(last) {
            last = Some(node);
            while self.index.has_ready_for(node) && self.client.ready(node, now) {
                let mut drained = std::mem::take(&mut self.scratch.drained);
                self.drain(node, &mut drained, now);
                if !drained.is_empty() {
                    self.send_request(node, &mut drained, now);
                    self.note_taken(node);
                }
                self.scratch.drained = drained;
                self.look_at_visited(now);
            }
            if self.index.has_ready_for(node) {
                self.note_waiting(node, None, now);
            }
        }
    }

    /// Takes the first batch of each partition in the node's line, beginning where the last
    /// request left off. The first one is taken whatever its size.
    fn drain(&mut self, node: NodeId, drained: &mut Vec<Drained>, now: MonoTime) {
        let mut size = 0;
        let cluster = Arc::clone(self.metadata.cluster());
        let mut visited = std::mem::take(&mut self.scratch.visited);
        let circumstances = self.circumstances(now);
        while let Some(id) = self.index.next_ready(node) {
            let partition = self.index.partition_mut(id);
            let mut queue = partition.queue.lock();
            let due = decide(partition, &queue, &circumstances);
            let next = queue.batches.front().filter(|_| due == Due::Now);
            let Some(next_size) = next.map(|b| b.builder.size()) else {
                drop(queue);
                visited.push((id, None));
                continue;
            };
            if size > 0 && size + next_size > self.config.max_request_size {
                drop(queue);
                self.index.put_back_ready(node, id);
                break;
            }
            let first = partition.queue.take_first(&mut queue);
            // Its waiters may have come while another batch was first: it may go after the answer.
            let awaited = queue.batches.front().is_some_and(|next| next.fully_awaited());
            drop(queue);
            let Some((mut batch, next)) = first else { continue };
            partition.quiet = !awaited;
            if let Some(due) = next {
                visited.push((id, Some(due)));
            }
            batch.closed = true;
            if let (None, Some(Some(producer))) = (&batch.stamp, circumstances.producer) {
                batch.stamp = partition.sequences.stamp(producer, batch.record_count());
                debug_assert!(batch.stamp.is_some(), "drained without leave to stamp");
            }
            size += next_size;
            let deadline = batch.deadline(self.config.delivery_timeout);
            self.index.look_at(id, deadline);
            let queue = &self.index.partition(id).queue;
            let (topic, number) = (Arc::clone(&queue.topic), queue.partition);
            let topic_id = cluster.topic(&topic).map_or(Uuid::ZERO, |t| t.id);
            drained.push(Drained { id, topic, partition: number, topic_id, batch });
        }
        self.scratch.visited = visited;
    }

    /// Whoever has more goes to the end of the line, for the next request. Not before this one is
    /// under way: until then its batches are in neither a queue nor a flight.
    fn look_at_visited(&mut self, now: MonoTime) {
        let mut visited = std::mem::take(&mut self.scratch.visited);
        for (id, due) in visited.drain(..) {
            match due {
                Some(due) => self.hear_partition(id, due, now),
                None => self.look(id, now),
            }
        }
        self.scratch.visited = visited;
    }

    fn send_request(&mut self, node: NodeId, drained: &mut Vec<Drained>, now: MonoTime) {
        let highest = match self.client.api_version(node, ApiKey::Produce) {
            Ok(version) => version,
            Err(error) => return self.cannot_send(&error, drained, now),
        };
        let all_known = drained.iter().all(|d| d.topic_id.is_known());
        let version = if all_known { highest } else { highest.min(LAST_BY_NAME) };
        if is_planted(Defect::LastOfDrain) && drained.len() > 1 {
            std::mem::forget(drained.pop());
        }
        // A request lists each topic once.
        drained.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        let tag = self.next_tag;
        self.next_tag += 1;
        self.record_request(tag, drained, now);
        let correlation_id = self.client.next_correlation_id();
        let mut frame = self.scratch.frames.pop().unwrap_or_default();
        self.encode(version, correlation_id, drained, &mut frame);
        let mut parts = self.scratch.parts.pop().unwrap_or_default();
        for d in drained.drain(..) {
            let seat = Seat { tag, place: parts.len() };
            parts.push(self.load(node, seat, d, &mut frame, now));
        }
        seal_pieces(&self.scratch.splits, &parts, &mut frame);
        self.flights.add(tag, node, parts);
        let request = ClientRequest {
            node,
            api: ApiKey::Produce,
            version,
            frame,
            correlation_id,
            expects_response: self.config.acks != 0,
            timeout: self.config.request_timeout,
            tag,
        };
        self.client.send(request, now);
    }

    fn record_request(&self, tag: u64, drained: &[Drained], now: MonoTime) {
        let records = |of: &[Drained]| of.iter().map(|d| u64::from(d.batch.record_count())).sum();
        let oldest = drained.iter().map(|d| d.batch.created).min().unwrap_or(now);
        self.accumulator.sensors.with(|sensors| {
            sensors.on_request(tag, oldest, records(drained), now);
            for topic in drained.chunk_by(|a, b| a.topic == b.topic) {
                let bytes = topic.iter().map(|d| d.batch.builder.size() as u64).sum();
                sensors.on_topic_sent(&topic[0].topic, records(topic), bytes, now);
                for d in topic {
                    sensors.on_batch_sent(d.batch.as_sent(now), now);
                }
            }
        });
    }

    /// Writes all of the request but its batches.
    fn encode(
        &mut self,
        version: i16,
        correlation_id: i32,
        drained: &[Drained],
        frame: &mut OutFrame,
    ) {
        let timeout = self.config.request_timeout.as_millis();
        let params = ProduceRequestParams {
            version,
            correlation_id,
            client_id: Some(self.client.client_id()),
            transactional_id: None,
            acks: self.config.acks,
            timeout_ms: i32::try_from(timeout).unwrap_or(i32::MAX),
        };
        let topics = || drained.chunk_by(|a, b| a.topic == b.topic);
        let splits = &mut self.scratch.splits;
        let mut encoder =
            ProduceRequestEncoder::start(&params, topics().count(), &mut frame.head, splits);
        for topic in topics() {
            let name = match version > LAST_BY_NAME {
                true => TopicRef::Id(topic[0].topic_id),
                false => TopicRef::Name(&topic[0].topic),
            };
            encoder.topic(name, topic.len());
            for d in topic {
                encoder.partition(d.partition, d.batch.builder.size());
            }
        }
        encoder.finish();
    }

    /// Finishes a batch's header and moves its bytes into the frame.
    fn load(
        &mut self,
        node: NodeId,
        seat: Seat,
        drained: Drained,
        frame: &mut OutFrame,
        now: MonoTime,
    ) -> Part {
        let Drained { id, topic_id, mut batch, .. } = drained;
        let partition = self.index.partition_mut(id);
        let ProducerBatch { phases, retry_at, .. } = &mut *batch;
        phases.depart(&partition.vacancies, *retry_at, now);
        batch.node = Some(node);
        batch.attempts += 1;
        // Metadata without epochs, of an older broker, makes no leader look newer later on.
        batch.leader_epoch = batch.leader_epoch.max(partition.leader_epoch);
        let (producer_id, epoch, sequence) = match &batch.stamp {
            Some(stamp) => (stamp.producer.id, stamp.producer.epoch, stamp.base_sequence),
            None => (-1, -1, -1),
        };
        batch.builder.finish(producer_id, epoch, sequence, false);
        let before = frame.segments.len();
        batch.builder.move_segments(&mut frame.segments);
        partition.in_flight.push_back(seat);
        let (stamp, pooled, segments) = (batch.stamp, batch.pooled, frame.segments.len() - before);
        Part { id, topic_id, batch: Some(batch), stamp, segments, pooled }
    }

    /// The connection was lost since it was asked for, or speaks no version that we do.
    fn cannot_send(&mut self, error: &VersionError, drained: &mut Vec<Drained>, now: MonoTime) {
        for Drained { id, batch, .. } in std::mem::take(drained) {
            match error {
                VersionError::NotReady => {
                    self.index.put_back(id, std::iter::once(batch));
                    self.look(id, now);
                }
                VersionError::Unsupported(unsupported) => {
                    let cause = DeliveryCause::UnsupportedVersion(unsupported.to_string().into());
                    self.give_up(id, batch, cause, now);
                }
            }
        }
    }
}

/// Lists the frame's parts in the order in which they go to the socket.
fn seal_pieces(splits: &[usize], parts: &[Part], frame: &mut OutFrame) {
    let mut segment = 0;
    for (split, part) in splits.iter().zip(parts) {
        frame.pieces.push(Piece::Head(*split));
        for _ in 0..part.segments {
            frame.pieces.push(Piece::Segment(segment));
            segment += 1;
        }
    }
    if splits.last().is_none_or(|last| *last < frame.head.len()) {
        frame.pieces.push(Piece::Head(frame.head.len()));
    }
}
