//! Which of a partition's batches is due: what the sender does whenever it looks at a partition.

use std::collections::BTreeSet;

use super::Sender;
use super::in_flight::Flights;
use super::index::{Index, Partition, leader_of};
use crate::accumulator::batch::ProducerBatch;
use crate::accumulator::buffer_pool::Wanted;
use crate::accumulator::inbox::PartitionId;
use crate::accumulator::queue::{QueueState, Told};
use crate::accumulator::shares::Share;
use crate::client::KafkaClient;
use crate::completion::Outcome;
use crate::error::DeliveryCause;
use crate::planted::{Defect, is_planted};
use crate::time::MonoTime;
use crate::transaction::ProducerIdAndEpoch;
use crate::types::NodeId;

/// What is to be done about a partition's first batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It may be sent.
    Now,
    /// It is to be looked at again at this moment.
    At(MonoTime),
    /// A broker has to answer what it has first.
    OnAnswer,
    /// Something else will make the sender look: metadata, a producer id, a user.
    OnEvent,
}

/// What the decision needs to know beside the partition and its queue.
#[derive(Clone, Copy)]
pub(super) struct Circumstances {
    now: MonoTime,
    /// Idempotent, and if so the producer id, once there is one.
    pub(super) producer: Option<Option<ProducerIdAndEpoch>>,
    one_in_flight: bool,
    wait_ends_linger: bool,
    /// A user waits for memory, or the producer is being closed: no lingering.
    hurry: bool,
    linger: std::time::Duration,
}

impl<C: KafkaClient> Sender<C> {
    /// Looks at a partition: expires what is over time, begins anew where that is due, and puts
    /// it in its leader's line or sets its timer.
    pub(super) fn look(&mut self, id: PartitionId, now: MonoTime) {
        if id.0 as usize >= self.index.len() {
            self.meet_new_partitions(now);
        }
        self.expire_in_flight(id, now);
        let (due, oldest, circumstances) = loop {
            if self.index.partition(id).sequences.is_bump_due() {
                self.begin_anew(id, now);
            }
            let circumstances = self.circumstances(now);
            let partition = self.index.partition(id);
            // One lock in nearly all cases: users' threads want it for each record.
            let mut queue = partition.queue.lock();
            let over = queue.take_overdue(self.config.delivery_timeout, now);
            if over.is_empty() {
                queue.told = Told::Nothing;
                let due = decide(partition, &queue, &circumstances);
                let oldest = queue.batches.front();
                let oldest = oldest.map(|b| b.deadline(self.config.delivery_timeout));
                drop(queue);
                self.index.partition_mut(id).quiet = oldest.is_none();
                break (due, oldest, circumstances);
            }
            drop(queue);
            for batch in over {
                self.give_up(id, batch, DeliveryCause::Timeout, now);
            }
        };
        let partition = self.index.partition(id);
        if let Some(oldest) = oldest {
            if partition.leader.is_none() {
                // The topic may have been given up as idle just as the record came.
                self.metadata.touch(&partition.queue.topic, now);
                self.metadata.request_update();
            }
            if circumstances.producer == Some(None) {
                self.upkeep.want_producer_id();
            }
            self.index.look_at(id, oldest);
        } else {
            // Its broker is waited for no longer.
            self.index.leave_line(id);
        }
        match due {
            Due::Now => self.index.set_ready(id),
            Due::At(at) => self.index.look_at(id, at),
            Due::OnAnswer => {
                if let Some(leader) = owes_answer(&self.index, &self.flights, id) {
                    self.note_waiting(leader, Some(id), now);
                }
            }
            Due::OnEvent => {}
        }
    }

    /// A user's thread tells of a partition: as a rule it is to have a timer or a place in line,
    /// and what is in its queue can wait until it is drained.
    pub(super) fn hear_partition(&mut self, id: PartitionId, due: MonoTime, now: MonoTime) {
        let c = self.circumstances(now);
        if c.hurry || c.producer == Some(None) || !self.index.may_be_drained(id) {
            return self.look(id, now);
        }
        if due > now {
            return self.index.look_at(id, due);
        }
        // Of a linger that is over only a look may be the end: records share a reading of the clock
        // until then, and it may be long before the broker can take the batch. And without a timer
        // nobody would find a batch that stays in line for too long.
        if due > MonoTime::ZERO || !self.index.has_timer(id) {
            return self.look(id, now);
        }
        self.index.partition_mut(id).quiet = false;
        self.index.set_ready(id);
    }

    /// As [`look`](Self::look), after an answer: to a queue that is not at rest, and to what is
    /// under way.
    pub(super) fn look_after_answer(&mut self, id: PartitionId, now: MonoTime) {
        let partition = self.index.partition(id);
        if partition.quiet && !partition.sequences.is_bump_due() {
            self.expire_in_flight(id, now);
        } else {
            self.look(id, now);
        }
    }

    pub(super) fn circumstances(&self, now: MonoTime) -> Circumstances {
        Circumstances {
            now,
            producer: self.transaction.as_ref().map(|t| t.producer()),
            one_in_flight: self.config.one_in_flight,
            wait_ends_linger: self.config.wait_ends_linger,
            hurry: self.accumulator.pool.has_waiters() || self.phase.is_closing(),
            linger: self.config.linger,
        }
    }

    /// Takes in the queues that users' threads have made since the last time.
    pub(super) fn meet_new_partitions(&mut self, now: MonoTime) {
        for queue in self.accumulator.topics.queues_from(self.index.len()) {
            let new = queue.id;
            let (leader, epoch) = leader_of(self.metadata.cluster(), &queue);
            self.index.add(queue);
            self.set_leader(new, leader, epoch, now);
        }
    }

    /// Threads lack memory: what lingers goes out early where it would bring some back and nothing
    /// does so yet. That is where a used-up share has nothing under way or in line; and if memory
    /// of anybody's would help, at each such broker, unless a batch is about to go to one that can
    /// take it. For a share a line is enough also where the broker can't take it: a line is what
    /// has the broker connected to.
    pub(super) fn send_lingering(&mut self, now: MonoTime) {
        let Wanted { any, shares } = self.accumulator.pool.take_wanted();
        let mut lingering = Vec::new();
        let mut brokers = BTreeSet::new();
        for share in shares {
            match share {
                Share::Broker(node) => drop(brokers.insert(node)),
                Share::Partition(id) if self.index.is_idle(id) => lingering.push(id),
                Share::Partition(_) => {}
            }
        }
        if any && !self.index.ready_nodes().any(|node| self.client.is_ready(node, now)) {
            brokers.extend(self.metadata.cluster().nodes.keys());
        }
        let busy = self.flights.nodes();
        brokers.retain(|node| !busy.contains(node) && !self.index.has_ready_for(*node));
        if !brokers.is_empty() {
            lingering.extend(self.index.active_at(&brokers));
        }
        for id in lingering {
            self.end_batch(id, now);
        }
    }

    /// Moves the partition to another leader, and its memory to that broker's share.
    pub(super) fn set_leader(
        &mut self,
        id: PartitionId,
        leader: Option<NodeId>,
        epoch: i32,
        now: MonoTime,
    ) {
        if self.index.set_leader(id, leader, epoch, now) {
            self.accumulator.pool.set_leader(id, leader);
        }
    }

    /// What fills there goes as it is, also if whoever wanted memory has given up by then.
    fn end_batch(&mut self, id: PartitionId, now: MonoTime) {
        let mut queue = self.index.partition(id).queue.lock();
        let is_news = queue.close_last();
        queue.invariants();
        drop(queue);
        if is_news {
            self.look(id, now);
        }
    }

    /// Fails what is under way and has not been delivered in time.
    fn expire_in_flight(&mut self, id: PartitionId, now: MonoTime) {
        let timeout = self.config.delivery_timeout;
        if is_planted(Defect::FailedAndAcknowledged) {
            return self.fail_without_forgetting(id, now);
        }
        let partition = self.index.partition(id);
        let mut over = Vec::new();
        let mut oldest = MonoTime::MAX;
        for seat in &partition.in_flight {
            let Some(part) = self.flights.part_mut(*seat) else { continue };
            debug_assert_eq!(part.id, id);
            let Some(batch) = &part.batch else { continue };
            if batch.deadline(timeout) <= now {
                if is_planted(Defect::FreedInFlight) {
                    self.freed.push((id, Vec::with_capacity(512)));
                }
                over.extend(part.batch.take());
            } else {
                oldest = oldest.min(batch.deadline(timeout));
            }
        }
        if !over.is_empty() {
            self.accumulator.sensors.with(|sensors| {
                for seat in &partition.in_flight {
                    sensors.on_expired_under_way(seat.tag, self.flights.oldest(seat.tag));
                }
            });
        }
        for mut batch in over {
            if let Some(stamp) = &batch.stamp {
                self.index.partition_mut(id).sequences.on_expired_in_flight(stamp);
            }
            // Its bytes may be in the socket.
            batch.maybe_persisted = true;
            self.fail(id, batch, DeliveryCause::Timeout, now);
        }
        self.index.look_at(id, oldest);
    }

    /// The mistake of [`Defect::FailedAndAcknowledged`].
    fn fail_without_forgetting(&self, id: PartitionId, now: MonoTime) {
        for seat in &self.index.partition(id).in_flight {
            let batch = self.flights.part(*seat).and_then(|part| part.batch.as_deref());
            let timeout = self.config.delivery_timeout;
            let is_over =
                |batch: &&ProducerBatch| batch.deadline(timeout) <= now && !batch.result.is_done();
            let Some(batch) = batch.filter(is_over) else { continue };
            let error = self.delivery_error(id, batch, DeliveryCause::Timeout, now);
            batch.result.complete(Outcome::Failed(error));
        }
    }

    /// Fails a batch that no request carries; its sequence, if it has one, is missing from now on.
    pub(super) fn give_up(
        &mut self,
        id: PartitionId,
        batch: Box<ProducerBatch>,
        cause: DeliveryCause,
        now: MonoTime,
    ) {
        if let Some(stamp) = &batch.stamp {
            self.index.partition_mut(id).sequences.on_given_up(stamp);
        }
        self.fail(id, batch, cause, now);
    }

    /// Once all of the partition's requests are settled: takes the stamps off the batches that are
    /// surely not in the log, so that they get new ones under a new epoch.
    ///
    /// A batch that may be in the log keeps its stamp. If it is the first it is sent once more, to
    /// be told apart by the broker; behind others it can't be, since to send it before them would
    /// break the order, and it fails with its persistence unknown.
    fn begin_anew(&mut self, id: PartitionId, now: MonoTime) {
        let partition = self.index.partition_mut(id);
        let renumbers_written = is_planted(Defect::WrittenRenumbered);
        let begins_early = is_planted(Defect::BumpInFlight) || renumbers_written;
        if !partition.in_flight.is_empty() && !begins_early {
            return;
        }
        let mut queue = partition.queue.lock();
        let may_be_written = |b: &ProducerBatch| b.maybe_persisted && !renumbers_written;
        if queue.batches.front().is_some_and(|b| b.stamp.is_some() && may_be_written(b)) {
            return;
        }
        let mut unknown = Vec::new();
        let mut place = 0;
        while let Some(batch) = queue.batches.get_mut(place).filter(|b| b.stamp.is_some()) {
            if may_be_written(batch) {
                unknown.extend(queue.batches.remove(place));
                continue;
            }
            if let Some(stamp) = batch.stamp.take() {
                partition.sequences.on_unstamped(&stamp);
            }
            place += 1;
        }
        queue.invariants();
        drop(queue);
        for batch in unknown {
            let cause = batch.last_cause.clone().unwrap_or(DeliveryCause::Disconnected);
            self.give_up(id, batch, cause, now);
        }
        let partition = self.index.partition_mut(id);
        debug_assert_eq!(partition.sequences.outstanding(), 0);
        if let (Some(t), Some(old)) = (&mut self.transaction, partition.sequences.producer()) {
            t.bump(old);
        }
        partition.sequences.on_bumped();
    }
}

/// The partition's leader, if it has a request with a batch of it: not a former one.
pub(super) fn owes_answer(index: &Index, flights: &Flights, id: PartitionId) -> Option<NodeId> {
    let partition = index.partition(id);
    let mut seats = partition.in_flight.iter();
    partition.leader.filter(|leader| seats.any(|seat| flights.node(seat.tag) == Some(*leader)))
}

/// Whether the partition's first batch may go out. Pure.
pub(super) fn decide(partition: &Partition, queue: &QueueState, c: &Circumstances) -> Due {
    let Some(first) = queue.batches.front() else { return Due::OnEvent };
    if partition.leader.is_none() {
        return Due::OnEvent;
    }
    if c.one_in_flight && !partition.in_flight.is_empty() {
        return Due::OnAnswer;
    }
    if let Some(producer) = c.producer {
        let sequences = &partition.sequences;
        let allowed = match &first.stamp {
            Some(stamp) => sequences.may_retry(stamp) && partition.in_flight.is_empty(),
            None => producer.is_some() && sequences.may_stamp(),
        };
        if !allowed {
            return if partition.in_flight.is_empty() { Due::OnEvent } else { Due::OnAnswer };
        }
    }
    let newer_leader = first.leader_epoch >= 0 && partition.leader_epoch > first.leader_epoch;
    if first.retry_at > c.now && !newer_leader {
        return Due::At(first.retry_at);
    }
    let awaited = c.wait_ends_linger && partition.in_flight.is_empty() && first.fully_awaited();
    if c.hurry || awaited || partition.queue.is_front_full(queue) {
        return Due::Now;
    }
    let lingers_until = first.created + c.linger;
    if lingers_until <= c.now { Due::Now } else { Due::At(lingers_until) }
}
