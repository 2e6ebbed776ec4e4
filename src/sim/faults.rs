//! What goes wrong: kinds of fault, and what a seed makes of them.

use std::time::Duration;

use super::offers::Offer;
use super::plan::{MS, Plan, SECOND, between, pick};
use crate::protocol::ErrorCode;
use crate::random::Random;
use crate::testing::{Release, TopicConfig};

/// The kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A connection is reset.
    Reset,
    /// The broker closes a connection.
    Close,
    /// A write is cut short by a reset, so that a part of a request arrives, or none.
    CutWrite,
    /// Nothing gets through a connection any more.
    BlackHole,
    /// The broker forgets a connection; the client is not told.
    HalfOpen,
    /// A broker refuses connections.
    Refuse,
    /// Attempts to connect to a broker never end.
    HangConnect,
    /// A broker stops, and comes back later.
    BrokerDown,
    /// A broker's host vanishes from the network, and comes back later.
    Isolate,
    /// A broker stops, and comes back as one of a later release.
    Upgrade,
    /// All brokers go for good; others take their place, to which only the bootstrap servers'
    /// addresses lead.
    Replace,
    /// Another broker leads a partition.
    MoveLeader,
    /// Another broker leads a partition, without what was not replicated.
    FailOver,
    /// Another broker leads a partition; acknowledged records are lost.
    Unclean,
    /// Partitions forget the producers that they know.
    ForgetProducers,
    /// A partition remembers the last batch of each producer alone.
    ReloadProducers,
    /// A broker tells of the cluster as it was.
    StaleView,
    /// Produce requests are answered with an error that may pass; nothing is appended.
    ProduceError,
    /// Produce requests are answered with an error though the batch was appended.
    ErrorAfterAppend,
    /// Produce requests are answered with an error that is final.
    FatalError,
    /// Other requests are answered with errors.
    UpkeepError,
    /// Requests are held back.
    Delay,
    /// Responses are held back.
    DelayResponse,
    /// The connection ends before a request is carried out.
    CutBefore,
    /// The connection ends after a request was carried out.
    CutAfter,
    /// From a request on a connection is silent.
    Silence,
    /// Responses ask for a pause.
    Throttle,
    /// Responses are nonsense, or end early.
    Mangle,
    /// A topic takes only small batches.
    ShrinkMessages,
    /// A topic is deleted and made anew.
    Recreate,
    /// A topic gets more partitions.
    AddPartitions,
    /// The network is slow.
    Spike,
    /// The sender's thread gets no processor.
    Stall,
    /// Names are not found.
    NoNames,
}

impl Kind {
    pub(super) const ALL: [Self; 34] = [
        Self::Reset,
        Self::Close,
        Self::CutWrite,
        Self::BlackHole,
        Self::HalfOpen,
        Self::Refuse,
        Self::HangConnect,
        Self::BrokerDown,
        Self::Isolate,
        Self::Upgrade,
        Self::Replace,
        Self::MoveLeader,
        Self::FailOver,
        Self::Unclean,
        Self::ForgetProducers,
        Self::ReloadProducers,
        Self::StaleView,
        Self::ProduceError,
        Self::ErrorAfterAppend,
        Self::FatalError,
        Self::UpkeepError,
        Self::Delay,
        Self::DelayResponse,
        Self::CutBefore,
        Self::CutAfter,
        Self::Silence,
        Self::Throttle,
        Self::Mangle,
        Self::ShrinkMessages,
        Self::Recreate,
        Self::AddPartitions,
        Self::Spike,
        Self::Stall,
        Self::NoNames,
    ];

    /// Whether there may be something for it to strike in a world.
    pub(super) fn can_strike(self, plan: &Plan) -> bool {
        let config = &plan.config;
        match self {
            Self::NoNames => plan.has_names,
            Self::Upgrade => plan.offers.iter().any(|offer| offer.release < Release::default()),
            Self::FailOver | Self::Unclean => {
                let is_replicated =
                    |(_, topic): &(_, TopicConfig)| topic.replication_factor != Some(1);
                plan.brokers() > 1 && plan.topics.iter().any(is_replicated)
            }
            // Who compares leaders' epochs and hears of no ids takes those of a topic that is made
            // anew for old ones (KAFKA-12257).
            Self::Recreate => plan.offers.iter().all(Offer::tells_topics_apart),
            Self::ForgetProducers | Self::ReloadProducers => config.idempotent,
            Self::Throttle | Self::DelayResponse => config.acks != 0,
            // Only what is large is refused.
            Self::ShrinkMessages => {
                config.acks != 0 && (plan.value > 200 || config.batch_size > 1_000)
            }
            _ => true,
        }
    }
}

/// A fault, as the seed chose it.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// Its place in the plan.
    pub(super) number: usize,
    /// Whom it strikes, if it can.
    pub(super) broker: i32,
    pub(super) topic: usize,
    pub(super) partition: i32,
    /// How long it lasts, or what it delays by.
    pub(super) time: Duration,
    /// How many requests it meets, or how much else there is of it.
    pub(super) times: usize,
    pub(super) code: ErrorCode,
    pub(super) draw: u64,
}

const PASSING: &[ErrorCode] = &[
    ErrorCode::NOT_LEADER_OR_FOLLOWER,
    ErrorCode::NOT_ENOUGH_REPLICAS,
    ErrorCode::KAFKA_STORAGE_ERROR,
    ErrorCode::LEADER_NOT_AVAILABLE,
    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode::CORRUPT_MESSAGE,
];
const AFTER: &[ErrorCode] = &[
    ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ErrorCode::REQUEST_TIMED_OUT,
    ErrorCode::NOT_LEADER_OR_FOLLOWER,
];
const FINAL: &[ErrorCode] = &[
    ErrorCode::TOPIC_AUTHORIZATION_FAILED,
    ErrorCode::INVALID_RECORD,
    ErrorCode::POLICY_VIOLATION,
];
const UPKEEP: &[ErrorCode] = &[
    ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    ErrorCode::LEADER_NOT_AVAILABLE,
    ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
    ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
];

impl Fault {
    pub(super) fn of(kind: Kind, random: &mut Random, plan: &Plan) -> Self {
        let topic = random.below(plan.topics.len());
        let codes = match kind {
            // An answer of Kafka 1.0 to what it has appended before.
            Kind::ErrorAfterAppend if plan.config.idempotent && random.below(4) == 0 => {
                &[ErrorCode::DUPLICATE_SEQUENCE_NUMBER]
            }
            Kind::ErrorAfterAppend => AFTER,
            Kind::FatalError => FINAL,
            Kind::UpkeepError => UPKEEP,
            _ => PASSING,
        };
        let longest = match kind {
            Kind::Delay | Kind::DelayResponse => plan.config.request_timeout * 2,
            Kind::Throttle => SECOND,
            Kind::Stall => 200 * MS,
            _ => plan.calm_at / 4,
        };
        let shortest = match kind {
            // As long as it takes to be noticed.
            Kind::Refuse | Kind::HangConnect | Kind::NoNames => longest / 4,
            _ => MS,
        };
        let most = pick(random, &[1, 3, 20]);
        Self {
            kind,
            number: 0,
            broker: 1 + random.below(plan.offers.len()) as i32,
            topic,
            partition: random.below(plan.topics[topic].1.partitions as usize) as i32,
            time: between(random, shortest, longest),
            times: 1 + random.below(most),
            code: pick(random, codes),
            draw: random.next_u64(),
        }
    }
}

impl Fault {
    /// Whether it ends connections at a request, and if so whether that is still carried out.
    pub(super) fn cuts_after(&self) -> Option<bool> {
        match self.kind {
            Kind::CutBefore => Some(false),
            Kind::CutAfter => Some(true),
            Kind::Silence => Some(self.draw % 2 == 1),
            _ => None,
        }
    }
}
