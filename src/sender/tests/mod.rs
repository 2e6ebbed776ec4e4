//! The sender's outcomes, turn by turn: the real sender, accumulator and metadata between a test
//! that plays the brokers (`mock`) and a clock that is moved by hand.

mod expiry; // what is not delivered in time, and where its memory is
mod load; // which partitions are loaded or out of reach
mod metrics; // what is counted
mod mock; // the client that the test answers for
mod news; // what was not told yet, memory that is wanted, defects
mod order; // which batches go out, when, in which order
mod purge; // what was never sent is given up
mod retries; // errors, backoff, leaders that move
mod sequences; // stamps, new beginnings, what is never renumbered
mod shares; // memory that whoever has used up its share waits for
mod shutdown; // drain, give up, end
mod splitting; // batches that are too large
mod upkeep; // metadata, producer ids, sleep and wake-ups

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use self::mock::{MockClient, Sent, verdict};
use super::{Sender, SenderConfig};
use crate::accumulator::inbox::{Event, Inbox};
use crate::accumulator::queue::Append;
use crate::accumulator::shares::ShareLimits;
use crate::accumulator::topic_map::Placing;
use crate::accumulator::{AccumulatorConfig, Patience, RecordAccumulator};
use crate::client::{RequestFailure, ResponseBody};
use crate::completion::{
    Callback, CallbackExecutor, Delivery, ExecutorKind, FlushWait, Guests, RecordMetadata, Slots,
    UserCallback,
};
use crate::error::{DeliveryCause, DeliveryError, Error};
use crate::metadata::{Metadata, MetadataSettings};
use crate::protocol::{
    ApiKey, ErrorCode, InitProducerIdResponse, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic, PartitionProduceResponse,
};
use crate::random::Random;
use crate::record::RecordData;
use crate::threads::Process;
use crate::time::{Clock, ManualClock, MonoTime};
use crate::types::Uuid;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const OK: ErrorCode = ErrorCode::NONE;

/// What a scenario begins with. A batch size of 1 makes each record a batch of its own, which is
/// ready at once.
struct Setup {
    sender: SenderConfig,
    batch_size: usize,
    memory: usize,
    shares: Option<ShareLimits>,
    max_in_flight: usize,
    produce_version: i16,
    max_age: Duration,
    max_idle: Duration,
    callbacks: ExecutorKind,
    /// Topic `t`'s partitions, and who leads them: node id, epoch; -1 is an error, -2 is nobody.
    leaders: Vec<(i32, i32)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            sender: SenderConfig {
                acks: -1,
                idempotent: true,
                one_in_flight: false,
                max_request_size: 1_000_000,
                request_timeout: 30 * SECOND,
                delivery_timeout: 120 * SECOND,
                linger: Duration::ZERO,
                retries: u32::MAX,
                retry_backoff: 100 * MS,
                retry_backoff_max: SECOND,
                wait_ends_linger: true,
                availability_timeout: Duration::ZERO,
            },
            batch_size: 1,
            memory: 1_000_000,
            shares: None,
            max_in_flight: 5,
            produce_version: 12,
            max_age: 300 * SECOND,
            max_idle: 300 * SECOND,
            callbacks: ExecutorKind::Inline,
            leaders: vec![(1, 0)],
        }
    }
}

/// A producer between its two faces.
struct Scenario {
    sender: Sender<MockClient>,
    client: MockClient,
    accumulator: Arc<RecordAccumulator>,
    manual: Arc<ManualClock>,
    slots: Arc<Slots>,
    /// How often the sender was woken.
    rung: Arc<AtomicUsize>,
    /// What metadata requests are answered with.
    leaders: Vec<(i32, i32)>,
    /// Whether metadata requests are answered, and how often they were made.
    answers_metadata: bool,
    metadata_requests: usize,
    /// The next producer id and its epoch, if InitProducerId is answered.
    next_id: Option<(i64, i16)>,
    id_requests: usize,
    brokers: BTreeSet<i32>,
}

impl Scenario {
    /// A producer that knows topic `t` and has its producer id.
    fn new(change: impl FnOnce(&mut Setup)) -> Self {
        let mut s = Self::unconnected(change);
        s.settle();
        s
    }

    /// One that has delivered a batch of one record to each partition: sequences go on with 1,
    /// and several batches may be in flight.
    fn begun(change: impl FnOnce(&mut Setup)) -> Self {
        let mut s = Self::new(change);
        for partition in 0..s.leaders.len() as u32 {
            s.append(partition, "begun");
            let flush = s.flush();
            let sent = s.sent_one();
            s.answer(&sent, OK, 0);
            assert!(flush.is_over());
        }
        s
    }

    /// One that has done nothing yet.
    fn unconnected(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::default();
        change(&mut setup);
        let manual = ManualClock::new();
        let clock = Clock::Manual(Arc::clone(&manual));
        let rung = Arc::new(AtomicUsize::new(0));
        let bell = Arc::clone(&rung);
        let bell = Arc::new(move || {
            bell.fetch_add(1, Ordering::Relaxed);
        });
        let inbox = Arc::new(Inbox::new(bell, Process::current()));
        let config = AccumulatorConfig {
            batch_size: setup.batch_size,
            linger: setup.sender.linger,
            memory: setup.memory,
            shares: setup.shares.unwrap_or(ShareLimits::none()),
            placing: Placing { adaptive: true, seed: 0 },
        };
        let accumulator = Arc::new(RecordAccumulator::new(config, inbox, clock));
        let settings = MetadataSettings {
            bootstrap: vec![("bootstrap".into(), 9092)],
            max_age: setup.max_age,
            max_idle: setup.max_idle,
            retry_backoff: 100 * MS,
            retry_backoff_max: SECOND,
            auto_create: true,
            unknown_topic_timeout: None,
            rebootstrap_trigger: Some(300 * SECOND),
        };
        let metadata = Metadata::new(settings, Random::new(8));
        metadata.cell().add_topic("t");
        accumulator.topics.find_or_add("t");
        accumulator.inbox.push(Event::MetadataWanted);
        let slots = Arc::new(Slots::new(100));
        let executor =
            CallbackExecutor::start(setup.callbacks, Guests::default(), "test", Arc::clone(&slots));
        let executor = executor.unwrap();
        let client = MockClient::default();
        client.0.borrow_mut().max_in_flight = setup.max_in_flight;
        client.0.borrow_mut().produce_version = setup.produce_version;
        let sender = Sender::new(
            setup.sender,
            Arc::clone(&accumulator),
            client.clone(),
            metadata,
            Arc::new(executor),
            Random::new(7),
        );
        Self {
            sender,
            client,
            accumulator,
            manual,
            slots,
            rung,
            leaders: setup.leaders,
            answers_metadata: true,
            metadata_requests: 0,
            next_id: Some((70, 0)),
            id_requests: 0,
            brokers: [1, 2].into(),
        }
    }

    fn now(&self) -> MonoTime {
        self.accumulator.clock.now()
    }

    /// Moves the clock; the sender's turn comes with `settle`.
    fn advance(&self, by: Duration) {
        self.manual.advance(by);
    }

    /// One turn.
    fn turn(&mut self) {
        let now = self.now();
        assert_eq!(self.sender.run_once(now).unwrap(), now);
        self.answer_upkeep();
    }

    /// Turns until the sender would sleep or has ended; it must come to that. Gives the time-out.
    fn settle(&mut self) -> Option<Duration> {
        for _ in 0..50 {
            if self.sender.has_ended() {
                return None;
            }
            self.turn();
            let wire = self.client.0.borrow();
            let slept = wire.polls.last().copied().flatten();
            if wire.heard_nothing && wire.events.is_empty() && slept != Some(Duration::ZERO) {
                return slept;
            }
        }
        panic!("the sender spins");
    }

    /// Moves the clock to where the sender would wake up, and gives it its turns.
    fn sleep(&mut self) -> Duration {
        let slept = self.settle().expect("a time-out");
        self.advance(slept);
        self.settle();
        slept
    }

    /// Settles, then gives the produce requests since the last look.
    fn sent(&mut self) -> Vec<Sent> {
        self.settle();
        self.client.0.borrow_mut().sent()
    }

    /// As `sent`, with just one of one batch.
    fn sent_one(&mut self) -> Sent {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// Epoch, sequence and values of the requests since the last look, each of one batch.
    fn told(&mut self) -> Vec<(i16, i32, String)> {
        self.sent().iter().map(Sent::told).collect()
    }

    fn answer(&mut self, sent: &Sent, code: ErrorCode, offset: i64) {
        self.answer_with(sent, &verdict(code, offset));
    }

    fn answer_with(&mut self, sent: &Sent, answer: &PartitionProduceResponse) {
        self.client.0.borrow_mut().answer(sent, |_| answer.clone());
        self.settle();
    }

    /// The request's own time is over.
    fn time_out(&mut self, sent: &Sent) {
        self.client.0.borrow_mut().end(sent.tag, Err(RequestFailure::TimedOut), true);
        self.settle();
    }

    /// Sleeps until a request goes out; how long that took.
    fn until_sent(&mut self) -> (Duration, Sent) {
        let begun = self.now();
        for _ in 0..1000 {
            let sent = self.sent();
            if let [only] = &sent[..] {
                return (self.now().since(begun), only.clone());
            }
            assert!(sent.is_empty(), "{sent:?}");
            self.sleep();
        }
        panic!("nothing is sent any more");
    }

    /// The connection to `node` is lost after everything was written.
    fn cut(&mut self, node: i32) {
        self.client.0.borrow_mut().cut(node);
        self.settle();
    }

    fn append(&self, partition: u32, value: &str) -> Delivery {
        self.try_append(partition, value, None).unwrap()
    }

    fn append_with(&self, value: &str, callback: UserCallback) -> Delivery {
        self.slots.try_acquire().expect("a slot").keep();
        self.try_append(0, value, Some(callback.into())).unwrap()
    }

    fn try_append(
        &self,
        partition: u32,
        value: &str,
        callback: Option<Callback>,
    ) -> Result<Delivery, Error> {
        let topic = self.accumulator.topics.find_or_add("t");
        let value = Some(value.as_bytes());
        let data = RecordData { key: None, value, headers: &[], timestamp: 0 };
        let mut append = Append { data, own_timestamp: true, sticky: false };
        let mut callback = callback;
        self.accumulator.append(&topic, partition, &mut append, &mut callback, &mut Patience::None)
    }

    fn flush(&self) -> FlushWait {
        let flush = FlushWait::begin();
        self.accumulator.inbox.push(Event::Flush(flush.token(0, 0)));
        flush
    }

    fn close(&self, timeout: Duration) {
        self.accumulator.inbox.push(Event::Close { timeout, keeps_unsent: true });
    }

    /// All memory is back in the pool.
    fn memory_is_whole(&self) -> bool {
        self.accumulator.pool.available() == self.accumulator.pool.total()
    }

    /// The time of the last poll, as the client was told it.
    fn last_poll(&self) -> Option<Duration> {
        self.client.0.borrow().polls.last().copied().flatten()
    }

    /// Answers the sender's own requests, as far as the scenario wants them answered.
    fn answer_upkeep(&mut self) {
        let wire = Rc::clone(&self.client.0);
        let mut wire = wire.borrow_mut();
        let own = |r: &&crate::client::ClientRequest| r.api != ApiKey::Produce;
        let own: Vec<_> =
            wire.under_way.iter().filter(own).map(|r| (r.tag, r.api, r.version)).collect();
        for (tag, api, version) in own {
            let mut bytes = Vec::new();
            match (api, self.next_id) {
                (ApiKey::Metadata, _) if self.answers_metadata => {
                    self.metadata_requests += 1;
                    self.metadata().encode(version, &mut bytes);
                }
                (ApiKey::InitProducerId, Some((producer_id, producer_epoch))) => {
                    self.id_requests += 1;
                    self.next_id = Some((producer_id + 1, 0));
                    id_answer(OK, producer_id, producer_epoch).encode(version, &mut bytes);
                }
                _ => continue,
            }
            wire.end(tag, Ok(ResponseBody::Bytes(bytes)), true);
        }
    }

    /// Answers the InitProducerId request under way.
    fn answer_id(&mut self, code: ErrorCode, id: i64, epoch: i16) {
        let answer = id_answer(code, id, epoch);
        self.answer_own(ApiKey::InitProducerId, |version, out| answer.encode(version, out));
    }

    /// Answers the sender's own request of this API.
    fn answer_own(&mut self, api: ApiKey, encode: impl FnOnce(i16, &mut Vec<u8>)) {
        {
            let mut wire = self.client.0.borrow_mut();
            let request = wire.under_way.iter().find(|r| r.api == api);
            let (tag, version) = request.map(|r| (r.tag, r.version)).expect("under way");
            let mut bytes = Vec::new();
            encode(version, &mut bytes);
            wire.end(tag, Ok(ResponseBody::Bytes(bytes)), true);
        }
        self.settle();
    }

    fn asks_for_id(&self) -> bool {
        self.client.0.borrow().under_way.iter().any(|r| r.api == ApiKey::InitProducerId)
    }

    fn metadata(&self) -> MetadataResponse {
        let partition =
            |(index, (leader, epoch)): (usize, &(i32, i32))| MetadataResponsePartition {
                error_code: if *leader == -1 { ErrorCode::LEADER_NOT_AVAILABLE } else { OK },
                partition_index: index as i32,
                leader_id: (*leader).max(-1),
                leader_epoch: *epoch,
                replica_nodes: Vec::new(),
                isr_nodes: Vec::new(),
                offline_replicas: Vec::new(),
            };
        let broker = |id: &i32| MetadataResponseBroker {
            node_id: *id,
            host: format!("broker-{id}").into(),
            port: 9092,
            rack: None,
        };
        MetadataResponse {
            throttle_time_ms: 0,
            brokers: self.brokers.iter().map(broker).collect(),
            cluster_id: None,
            controller_id: 1,
            topics: vec![MetadataResponseTopic {
                error_code: OK,
                name: Some("t".into()),
                topic_id: Uuid([9; 16]),
                is_internal: false,
                partitions: self.leaders.iter().enumerate().map(partition).collect(),
            }],
            error_code: OK,
        }
    }
}

fn id_answer(error_code: ErrorCode, id: i64, epoch: i16) -> InitProducerIdResponse {
    InitProducerIdResponse {
        throttle_time_ms: 0,
        error_code,
        producer_id: id,
        producer_epoch: epoch,
    }
}

/// The record's offset; it must be delivered.
fn offset(delivery: &Delivery) -> Option<i64> {
    delivered(delivery).offset()
}

fn delivered(delivery: &Delivery) -> RecordMetadata {
    delivery.try_get().expect("decided").expect("delivered")
}

/// Why the record failed; it must have.
fn failure(delivery: &Delivery) -> Arc<DeliveryError> {
    match delivery.try_get().expect("decided") {
        Err(Error::Delivery(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The broker's error, in whatever words, that ended the delivery.
fn failure_code(delivery: &Delivery) -> Option<ErrorCode> {
    match failure(delivery).cause {
        DeliveryCause::Broker { code, .. } => Some(code),
        _ => None,
    }
}

fn broker_error(code: ErrorCode) -> DeliveryCause {
    DeliveryCause::Broker { code, message: code.message().into() }
}

fn is_open(delivery: &Delivery) -> bool {
    delivery.try_get().is_none()
}

/// Epoch, sequence, values.
fn told(epoch: i16, sequence: i32, values: &str) -> (i16, i32, String) {
    (epoch, sequence, values.to_owned())
}
