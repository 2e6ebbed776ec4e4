//! The sender: one thread that takes batches from the accumulator to the brokers and the brokers'
//! verdicts to the users.
//!
//! - here: the turn, [`Sender::run_once`]
//! - `index`: what is known of each partition, ready lines, timers
//! - `due`: which batches are to be sent, wait, or have expired
//! - `produce`: drained batches become requests
//! - `in_flight`: requests under way
//! - `verdict`: what an answer means (pure)
//! - `answer`: verdicts carried out
//! - `split`: a batch that is too large goes on in parts
//! - `load`: how loaded partitions are, for whoever chooses among them
//! - `purge`: what was never sent is given up
//! - `upkeep`: metadata and the producer id
//! - `ready`: leaders that somebody waits for are connected to
//! - `reach`: which brokers can't be reached, and why
//! - `shutdown`: drain, then give up
//! - `thread`: the daemon thread around all this
//!
//! Nothing here sleeps, waits for users or runs their code; `now` comes from `client.poll`.

mod answer;
mod due;
mod in_flight;
mod index;
mod load;
#[cfg(all(test, loom))]
mod loom_client;
#[cfg(all(test, loom))]
mod loom_models;
mod produce;
mod purge;
mod reach;
mod ready;
mod shutdown;
mod split;
#[cfg(test)]
mod tests;
pub(crate) mod thread;
mod upkeep;
mod verdict;

use std::time::Duration;

use crate::accumulator::RecordAccumulator;
use crate::accumulator::batch::ProducerBatch;
use crate::accumulator::inbox::{Event, PartitionId};
use crate::accumulator::queue::Told;
use crate::claims;
use crate::client::{ClientEvent, KafkaClient, Stage};
use crate::completion::{CallbackExecutor, CompletedBatch, FlushToken, LogEvent, Outcome};
use crate::error::{DeliveryCause, DeliveryError, Error, Persisted};
use crate::metadata::Metadata;
use crate::random::Random;
use crate::sync::Arc;
use crate::time::MonoTime;
use crate::transaction::TransactionManager;
use crate::types::{NodeId, TopicPartition};

use self::in_flight::Flights;
use self::index::{Index, Partition};
use self::reach::{Reach, Repeats, Subject};
use self::shutdown::Phase;
use self::thread::Ended;

/// The settings that the sender acts by.
#[derive(Clone, Debug)]
pub(crate) struct SenderConfig {
    /// 0, 1, or -1 for all in-sync replicas.
    pub(crate) acks: i16,
    pub(crate) idempotent: bool,
    /// `max.in.flight.requests.per.connection` is 1: one request a partition, for order.
    pub(crate) one_in_flight: bool,
    pub(crate) max_request_size: usize,
    pub(crate) request_timeout: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) linger: Duration,
    pub(crate) retries: u32,
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
    /// A batch whose records all have waiting threads is sent without linger.
    pub(crate) wait_ends_linger: bool,
    /// `partitioner.availability.timeout.ms`; zero: off.
    pub(crate) availability_timeout: Duration,
}

/// All that the sender thread owns.
pub(crate) struct Sender<C> {
    config: SenderConfig,
    accumulator: Arc<RecordAccumulator>,
    client: C,
    metadata: Metadata,
    executor: Arc<CallbackExecutor>,
    /// None without idempotence.
    transaction: Option<TransactionManager>,
    random: Random,
    index: Index,
    flights: Flights,
    loads: load::Loads,
    upkeep: upkeep::Upkeep,
    reach: Reach,
    leaders_wanted: ready::LeadersWanted,
    /// What the log was told of already.
    repeats: Repeats,
    phase: Phase,
    /// What the close achieves, and what it gives back if that is wanted.
    ended: Ended,
    keeps_unsent: bool,
    /// The tag of the next request.
    next_tag: u64,
    /// Memory is kept for reuse until this moment; see [`Sender::rest`].
    trim_at: MonoTime,
    /// The pool's memory that came free in this turn. It is given back at once, so that a thread
    /// that waits for some is woken once a turn and not once a batch.
    freed: Vec<(PartitionId, Vec<u8>)>,
    /// Reused from turn to turn.
    inbox_events: Vec<Event>,
    client_events: Vec<ClientEvent>,
    scratch: produce::Scratch,
}

impl<C: KafkaClient> Sender<C> {
    pub(crate) fn new(
        config: SenderConfig,
        accumulator: Arc<RecordAccumulator>,
        client: C,
        metadata: Metadata,
        executor: Arc<CallbackExecutor>,
        random: Random,
    ) -> Self {
        let transaction = config.idempotent.then(TransactionManager::new);
        Self {
            config,
            accumulator,
            client,
            metadata,
            executor,
            transaction,
            random,
            index: Index::default(),
            flights: Flights::default(),
            loads: load::Loads::default(),
            upkeep: upkeep::Upkeep::default(),
            reach: Reach::default(),
            leaders_wanted: ready::LeadersWanted::default(),
            repeats: Repeats::default(),
            phase: Phase::Running,
            ended: Ended::default(),
            keeps_unsent: false,
            next_tag: 0,
            trim_at: MonoTime::MAX,
            freed: Vec::new(),
            inbox_events: Vec::new(),
            client_events: Vec::new(),
            scratch: produce::Scratch::default(),
        }
    }

    /// One turn: hear the users, look at what is due, send, poll, hear the brokers.
    pub(crate) fn run_once(&mut self, now: MonoTime) -> std::io::Result<MonoTime> {
        self.hear_users(now);
        self.fire_timers(now);
        if self.accumulator.pool.is_wanted() {
            self.send_lingering(now);
        }
        self.keep_up(now);
        // Before anything is sent: what a close has no time for is surely not in the log.
        self.advance_phase(now);
        self.send_batches(now);
        self.publish_loads(now);
        let now = self.poll(now)?;
        self.hear_brokers(now);
        self.invariants();
        Ok(now)
    }

    /// Between turns: nothing of a turn is left, what waits or is under way is looked at in time,
    /// each seat of a partition holds a part of its own, each request has its seats, and what has a
    /// sequence is outstanding, no more and no less.
    fn invariants(&self) {
        if !claims::are_checked() || self.has_ended() {
            return;
        }
        self.scratch.invariants();
        self.upkeep.invariants(&self.metadata, self.transaction.as_ref());
        assert!(self.freed.is_empty(), "memory that nobody gets");
        assert!(self.inbox_events.is_empty() && self.client_events.is_empty(), "unheard");
        assert!(self.flights.last_tag().is_none_or(|tag| tag < self.next_tag), "a tag to come");
        let will_rest = self.trim_at != MonoTime::MAX;
        assert!(will_rest || self.flights.is_empty(), "memory is kept for ever");
        let is_blank = self.ended.is_blank() && !self.keeps_unsent;
        assert!(is_blank || self.phase.is_closing(), "ended before the end: {:?}", self.ended);
        self.index.invariants();
        if self.index.len() <= 64 {
            self.invariants_of_partitions();
        }
    }

    fn invariants_of_partitions(&self) {
        let mut seats = 0;
        for id in self.index.ids() {
            let partition = self.index.partition(id);
            let parts = || partition.in_flight.iter().map(|seat| self.flights.part(*seat));
            assert!(parts().all(|part| part.is_some_and(|p| p.id == id)), "somebody else's seat");
            seats += partition.in_flight.len();
            let queue = partition.queue.lock();
            let queued = queue.batches.iter().filter(|batch| batch.stamp.is_some()).count();
            let flying = parts().flatten().filter(|part| part.stamp.is_some()).count();
            assert_eq!(queued + flying, partition.sequences.outstanding(), "lost sequences");
            let waits = queue.batches.front().filter(|_| queue.told == Told::Nothing);
            let flies = parts().flatten().filter_map(|part| part.batch.as_deref());
            let deadlines = flies.chain(waits.map(|batch| &**batch));
            let first = deadlines.map(|batch| batch.deadline(self.config.delivery_timeout)).min();
            assert!(first.is_none_or(|first| self.index.timer(id) <= first), "it expires unseen");
        }
        assert_eq!(seats, self.flights.part_count(), "a part without a seat");
    }

    fn hear_users(&mut self, now: MonoTime) {
        let mut events = std::mem::take(&mut self.inbox_events);
        self.accumulator.inbox.take(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Partition(id, due) => self.hear_partition(id, due, now),
                Event::MetadataWanted => self.upkeep.want_producer_id(),
                Event::LeaderWanted { topic, until } => {
                    self.upkeep.want_producer_id();
                    self.leaders_wanted.want(topic, until);
                    if self.lacks_wanted_leader() {
                        self.metadata.request_update();
                    }
                }
                // The turn asks the pool in any case.
                Event::MemoryWanted => {}
                Event::LoadWanted(topic) => self.loads.want(topic),
                Event::Flush(token) => self.flush(&token, now),
                Event::Purge(order) => self.purge(order, now),
                Event::Close { timeout, keeps_unsent } => {
                    self.keeps_unsent |= keeps_unsent;
                    self.begin_close(timeout, now);
                }
            }
        }
        self.inbox_events = events;
    }

    fn fire_timers(&mut self, now: MonoTime) {
        while let Some(id) = self.index.next_fired(now) {
            self.look(id, now);
        }
    }

    /// Marks all that is incomplete, and callbacks yet to run, as awaited by the flush, and ends
    /// the linger.
    fn flush(&mut self, token: &FlushToken, now: MonoTime) {
        self.accumulator.join_callbacks(&self.executor, token);
        // All partitions, not just those that the sender knows to hold something: a thread that has
        // started a batch tells of it only then, and another's record may be in it already.
        for id in self.all_partitions(now) {
            let partition = self.index.partition(id);
            let mark = |batch: &mut ProducerBatch| {
                let records = batch.record_count() as usize;
                batch.flushes.push(token.sibling(records, batch.callbacks.len()));
                batch.closed = true;
            };
            let mut queue = partition.queue.lock();
            if queue.batches.is_empty() && partition.in_flight.is_empty() {
                continue;
            }
            queue.batches.iter_mut().for_each(|batch| mark(batch));
            queue.invariants();
            drop(queue);
            for seat in &partition.in_flight {
                let part = self.flights.part_mut(*seat);
                if let Some(batch) = part.and_then(|part| part.batch.as_mut()) {
                    mark(batch);
                }
            }
            self.look(id, now);
        }
    }

    /// Tells users' threads what this turn has brought: memory and callbacks.
    fn tell_users(&mut self) {
        self.accumulator.pool.release_all(self.freed.drain(..));
        self.executor.tell();
    }

    fn poll(&mut self, now: MonoTime) -> std::io::Result<MonoTime> {
        self.rest(now);
        let pool = &self.accumulator.pool;
        let comes_free = !self.freed.is_empty();
        pool.release_all(self.freed.drain(..));
        // A thread that has its share again may now lack what others hold, or the other way round.
        let is_wanted = comes_free && pool.is_wanted();
        self.executor.tell();
        let until = if is_wanted { now } else { self.next_deadline(now) };
        let awake = until <= now || !self.accumulator.inbox.fall_asleep(until);
        let timeout = match until {
            _ if awake => Some(Duration::ZERO),
            MonoTime::MAX => None,
            until => Some(until.since(now)),
        };
        self.client.poll(timeout, now, &mut self.client_events)
    }

    /// When the next turn is due at the latest.
    fn next_deadline(&mut self, now: MonoTime) -> MonoTime {
        let mut until = self.index.next_timer();
        for node in self.index.ready_nodes() {
            until = until.min(now + self.client.ready_delay(node, now));
        }
        until.min(self.upkeep_deadline(now)).min(self.phase.deadline()).min(self.trim_at)
    }

    /// Frees the memory kept for reuse once nothing has been under way for a second.
    fn rest(&mut self, now: MonoTime) {
        const QUIET: Duration = Duration::from_secs(1);
        // Batches that expire may never have been under way.
        if !self.flights.is_empty() || !self.freed.is_empty() {
            self.trim_at = now + QUIET;
        } else if now >= self.trim_at {
            self.accumulator.pool.trim();
            for id in self.index.ids() {
                self.index.partition(id).queue.lock().trim();
            }
            self.freed = Vec::new();
            self.scratch = produce::Scratch::default();
            self.trim_at = MonoTime::MAX;
        }
    }

    fn hear_brokers(&mut self, now: MonoTime) {
        let mut events = std::mem::take(&mut self.client_events);
        for event in events.drain(..) {
            match event {
                ClientEvent::Response(response) => self.hear_response(response, now),
                ClientEvent::Disconnected { node, stage: Stage::Connecting, reason } => {
                    self.hear_unreachable(node, &reason, now);
                }
                ClientEvent::Disconnected { node, stage, reason } => {
                    self.hear_disconnect(node, stage, &reason, now);
                }
                ClientEvent::Connected { node } => self.hear_connected(node),
            }
        }
        self.client_events = events;
        self.tell_users();
    }

    /// The batch's fate is decided: memory back, waiters woken, callbacks handed over.
    fn complete(&mut self, id: PartitionId, batch: Box<ProducerBatch>, outcome: Outcome) {
        let ProducerBatch { builder, result, callbacks, flushes: mut flush, pooled, .. } = *batch;
        let records = builder.count() as usize;
        self.count_while_draining(&outcome, records);
        if pooled {
            self.freed.extend(builder.into_segments().map(|memory| (id, memory)));
        }
        result.complete(outcome);
        for token in &mut flush {
            token.on_completed(records);
        }
        if !callbacks.is_empty() {
            let lane = &self.index.partition(id).queue.lane;
            let result = Arc::clone(&*result);
            self.executor.submit(lane, CompletedBatch { result, callbacks, flush });
        }
    }

    /// The batch has failed.
    fn fail(
        &mut self,
        id: PartitionId,
        batch: Box<ProducerBatch>,
        cause: DeliveryCause,
        now: MonoTime,
    ) {
        if cause == DeliveryCause::Timeout && !batch.maybe_persisted {
            // As good as given up by a close: the record itself is at no fault.
            self.keep_unsent(&batch);
        }
        let error = self.delivery_error(id, &batch, cause, now);
        self.record_failure(id, &batch, now);
        self.complete(id, batch, Outcome::Failed(error));
    }

    fn record_failure(&self, id: PartitionId, batch: &ProducerBatch, now: MonoTime) {
        let (topic, records) = (&self.index.partition(id).queue.topic, batch.record_count());
        self.accumulator.sensors.with(|sensors| sensors.on_failed(topic, records, now));
    }

    fn delivery_error(
        &self,
        id: PartitionId,
        batch: &ProducerBatch,
        cause: DeliveryCause,
        now: MonoTime,
    ) -> Error {
        let Partition { queue, vacancies, .. } = self.index.partition(id);
        let broker = batch.node.map(|node| self.metadata.cluster().name_of(node));
        Error::Delivery(Arc::new(DeliveryError {
            topic_partition: TopicPartition {
                topic: Arc::clone(&queue.topic),
                partition: queue.partition,
            },
            last: self.last_failure(id, batch, now).filter(|last| *last != cause),
            cause,
            attempts: batch.attempts,
            elapsed: now.since(batch.created),
            spent: batch.phases.spent(batch.created, vacancies, batch.retry_at, now),
            broker: broker.map(Into::into),
            persisted: if batch.maybe_persisted { Persisted::Unknown } else { Persisted::No },
        }))
    }

    /// What stood in the way of a batch: of one that waits for a leader out of reach or a producer
    /// id, that; else what its attempts met; and if it had none, that its leader is left alone.
    fn last_failure(
        &self,
        id: PartitionId,
        batch: &ProducerBatch,
        now: MonoTime,
    ) -> Option<DeliveryCause> {
        let met = batch.last_cause.clone();
        if batch.phases.is_under_way() {
            return met;
        }
        let leader = self.index.partition(id).leader;
        let unreachable = || self.reach.trouble(leader).map(DeliveryCause::Unreachable);
        let no_id = || self.upkeep.id_failure().filter(|_| batch.stamp.is_none());
        let throttled = || {
            let delay = self.reach.throttle(leader, now)?;
            Some(DeliveryCause::Throttled { delay })
        };
        unreachable().or_else(no_id).or(met).or_else(throttled)
    }

    /// Logs a failure that may come again and again: at first, and from then on as a number.
    fn log_failure(
        &mut self,
        level: log::Level,
        (subject, node): (Subject, NodeId),
        text: impl FnOnce() -> String,
        now: MonoTime,
    ) {
        if LogEvent::is_wanted(level) {
            if let Some(line) = self.repeats.tell(subject, node, text(), now) {
                self.executor.log(LogEvent::new(level, line));
            }
        }
    }

    fn log(&self, level: log::Level, text: impl FnOnce() -> String) {
        if LogEvent::is_wanted(level) {
            self.executor.log(LogEvent::new(level, text()));
        }
    }
}
