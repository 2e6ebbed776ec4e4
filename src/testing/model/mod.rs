//! A pure model of a Kafka cluster: requests in, responses out, and nothing else.
//!
//! It opens no socket and reads no clock; the same requests at the same times give the same
//! answers. Behind TCP it is the test broker ([`server`](super::server) calls it, a request at a
//! time, under one lock); behind virtual time it can be a simulator's. It aims at the error codes
//! and the order of checks of Kafka 4.3.1, and of older releases where a producer can tell them.
//!
//! Not in it: transactions, compression, consumers, a leader that does not know that it was
//! deposed, and waiting: replicas that are in sync have a record at once, or as the request's
//! [`Plan`] says (an error or a cut after the append).

mod api; // bytes to requests, requests to responses
mod batch; // the checks that a batch needs no log for
mod log; // a partition's records
mod produce; // the Produce API
mod producer_state; // sequences, epochs, duplicates
mod release; // older brokers
#[cfg(test)]
mod tests; // through requests and responses
mod topic; // topics, partitions, leaders
mod view; // what a broker tells of the cluster

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::producer::record::validate_topic;
use crate::protocol::{ApiKey, VersionRange};
use crate::testing::faults::Plan;
use crate::types::Uuid;

#[cfg(test)]
pub(crate) use self::api::Request;
pub(crate) use self::api::{Parsed, Reply, parse};
pub(crate) use self::log::Keep;
pub use self::log::StoredRecord;
pub use self::release::Release;
pub use self::topic::TopicConfig;
pub(crate) use self::topic::{Partition, Topic};
use self::view::View;

/// What holds for the whole cluster.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `auto.create.topics.enable`.
    pub(crate) auto_create: bool,
    /// What an automatically created topic is like.
    pub(crate) default_topic: TopicConfig,
    pub(crate) keep: Keep,
    /// `producer.id.expiration.ms`: from what age of its last records on a producer is forgotten.
    pub(crate) producer_id_expiration_ms: i64,
    /// `producer.id.expiration.check.interval.ms`: how often brokers look for such producers.
    pub(crate) producer_id_check_interval_ms: i64,
    /// The epoch that a new producer id comes with: 0 in Kafka. A higher one lets a test see the
    /// epochs run out.
    pub(crate) first_epoch: i16,
    /// How many bytes a second a broker takes in Produce requests before it throttles the client
    /// (the quota `producer_byte_rate`).
    pub(crate) producer_byte_rate: Option<u32>,
}

impl Default for Settings {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            auto_create: true,
            default_topic: TopicConfig::new(1),
            keep: Keep::Records,
            producer_id_expiration_ms: 86_400_000,
            producer_id_check_interval_ms: 600_000,
            first_epoch: 0,
            producer_byte_rate: None,
        }
    }
}

/// A broker of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    pub(crate) rack: Option<Arc<str>>,
    /// Whether the others see it.
    pub(crate) alive: bool,
    /// What it says that it supports.
    pub(crate) versions: BTreeMap<ApiKey, VersionRange>,
    /// Whose rules it follows in all else.
    pub(crate) release: Release,
    /// Bytes of Produce requests that count against the quota, and when they came, in
    /// milliseconds since 1970; oldest first.
    charged: VecDeque<(i64, usize)>,
}

impl Broker {
    /// One of a release, alive, and at this address.
    pub(crate) fn new(release: Release, host: &str, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            rack: None,
            alive: true,
            versions: release.versions(),
            release,
            charged: VecDeque::new(),
        }
    }

    /// Lowers what it offers of an API: it is of no release that [`Release`] lists, or there is a
    /// proxy in front of it.
    #[cfg(test)]
    pub(crate) fn offer_at_most(&mut self, key: ApiKey, max: i16) {
        if let Some(offered) = self.versions.get_mut(&key) {
            offered.max = offered.max.min(max);
        }
    }
}

/// The cluster.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) settings: Settings,
    brokers: BTreeMap<i32, Broker>,
    topics: BTreeMap<Arc<str>, Topic>,
    names: BTreeMap<Uuid, Arc<str>>,
    topics_created: u64,
    next_producer_id: i64,
    /// Of brokers that lag behind.
    views: BTreeMap<i32, View>,
    /// Topics that were deleted, oldest first, for those who check what became of their records.
    deleted: Vec<(Arc<str>, Topic)>,
    /// When brokers looked for producers to forget, in milliseconds since 1970; 0 before the first
    /// request.
    producers_checked_ms: i64,
}

impl Model {
    pub(crate) fn new(settings: Settings, brokers: BTreeMap<i32, Broker>) -> Self {
        Self {
            settings,
            brokers,
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            topics_created: 0,
            next_producer_id: 1000,
            views: BTreeMap::new(),
            deleted: Vec::new(),
            producers_checked_ms: 0,
        }
    }

    pub(crate) fn brokers(&self) -> &BTreeMap<i32, Broker> {
        &self.brokers
    }

    pub(crate) fn broker_mut(&mut self, id: i32) -> Option<&mut Broker> {
        self.brokers.get_mut(&id)
    }

    /// What a broker is; the latest if there is none of that id.
    pub(crate) fn release(&self, broker: i32) -> Release {
        self.brokers.get(&broker).map(|broker| broker.release).unwrap_or_default()
    }

    pub(crate) fn topic_mut(&mut self, name: &str) -> Option<&mut Topic> {
        self.topics.get_mut(name)
    }

    pub(crate) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub(crate) fn name_of(&self, id: Uuid) -> Option<&Arc<str>> {
        self.names.get(&id)
    }

    /// Creates a topic; `false` if there is one of that name or the name is invalid.
    pub(crate) fn create_topic(&mut self, name: &str, config: TopicConfig) -> bool {
        if self.topics.contains_key(name) || validate_topic(name).is_err() {
            return false;
        }
        self.topics_created += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(b"topic-id");
        id[8..].copy_from_slice(&self.topics_created.to_be_bytes());
        let (id, name) = (Uuid(id), Arc::<str>::from(name));
        let partitions =
            (0..config.partitions).map(|index| self.new_partition(index, &config)).collect();
        self.names.insert(id, Arc::clone(&name));
        self.topics.insert(name, Topic { id, config, partitions });
        true
    }

    /// Deletes a topic with all that is in it; `false` if there is none. One that is created
    /// later under the same name has another id.
    pub(crate) fn delete_topic(&mut self, name: &str) -> bool {
        match self.topics.remove(name) {
            Some(topic) => {
                let name = self.names.remove(&topic.id);
                self.deleted.extend(name.map(|name| (name, topic)));
                true
            }
            None => false,
        }
    }

    /// The topics that were deleted, with what was in them, oldest first.
    pub(crate) fn deleted_topics(&self) -> &[(Arc<str>, Topic)] {
        &self.deleted
    }

    /// Adds partitions until there are `total`; `false` if the topic is unknown.
    pub(crate) fn add_partitions(&mut self, name: &str, total: i32) -> bool {
        let Some(topic) = self.topics.get(name) else {
            return false;
        };
        let (first, config) = (topic.partitions.len() as i32, topic.config.clone());
        let added: Vec<_> = (first..total).map(|i| self.new_partition(i, &config)).collect();
        if let Some(topic) = self.topics.get_mut(name) {
            topic.partitions.extend(added);
        }
        true
    }

    /// Replicas go round the brokers that are alive, each partition starting one further.
    fn new_partition(&self, index: i32, config: &TopicConfig) -> Partition {
        let alive = self.brokers.iter().filter(|(_, b)| b.alive).map(|(id, _)| *id);
        let mut replicas: Vec<_> = alive.collect();
        let first = index.unsigned_abs() as usize % replicas.len().max(1);
        replicas.rotate_left(first);
        replicas.truncate(config.replication_factor.unwrap_or(3));
        Partition::new(replicas)
    }

    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<&Partition> {
        self.topics.get(topic)?.partitions.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn partition_mut(&mut self, topic: &str, index: i32) -> Option<&mut Partition> {
        self.topics.get_mut(topic)?.partitions.get_mut(usize::try_from(index).ok()?)
    }

    /// Takes a broker out of the cluster: partitions that have another in-sync replica get a new
    /// leader, the others have none.
    pub(crate) fn broker_gone(&mut self, id: i32) {
        self.set_alive(id, false, Partition::broker_gone);
    }

    /// Brings a broker back; it leads those of its partitions that have no leader, if it has all
    /// of their records that were acknowledged.
    pub(crate) fn broker_back(&mut self, id: i32) {
        self.set_alive(id, true, Partition::broker_back);
    }

    fn set_alive(&mut self, id: i32, alive: bool, tell: fn(&mut Partition, i32, &[i32], usize)) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.alive = alive;
        }
        let all: Vec<_> = self.brokers.iter().filter(|(_, b)| b.alive).map(|(id, _)| *id).collect();
        for topic in self.topics.values_mut() {
            for partition in topic.partitions.iter_mut().filter(|p| p.replicas.contains(&id)) {
                tell(partition, id, &all, partition.min_in_sync(&topic.config));
            }
        }
    }

    /// Makes a broker that of another release, as an upgrade does between its stop and its start.
    pub(crate) fn upgrade(&mut self, id: i32, release: Release) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.release = release;
            broker.versions = release.versions();
        }
    }

    /// Puts other brokers, at other addresses, in the place of all: whoever had id `i` has
    /// `i + by`, and the same records.
    #[cfg(test)]
    pub(crate) fn replace_brokers(&mut self, by: i32, host: impl Fn(i32) -> String) {
        let old = std::mem::take(&mut self.brokers);
        self.brokers = old
            .into_iter()
            .map(|(id, broker)| (id + by, Broker { host: host(id + by).into(), ..broker }))
            .collect();
        self.views.clear();
        self.each_partition(|partition| partition.renumber(by));
    }

    /// Says which replicas of a partition are in sync; gives whether there is such a partition.
    pub(crate) fn set_in_sync(&mut self, topic: &str, index: i32, in_sync: Vec<i32>) -> bool {
        let Some(topic) = self.topics.get_mut(topic) else { return false };
        let index = usize::try_from(index).ok();
        let Some(partition) = index.and_then(|i| topic.partitions.get_mut(i)) else { return false };
        partition.set_in_sync(in_sync, partition.min_in_sync(&topic.config));
        true
    }

    /// Makes every partition forget the producers that it knows.
    pub(crate) fn forget_producers(&mut self) {
        self.each_partition(|partition| partition.log.producers.forget_all());
    }

    /// Makes a partition remember of each producer the last batch alone, as if its leader had been
    /// shut down and started; gives whether there is such a partition.
    pub(crate) fn reload_producers(&mut self, topic: &str, index: i32) -> bool {
        let partition = self.partition_mut(topic, index);
        partition.map(|partition| partition.log.producers.keep_last_batches()).is_some()
    }

    /// Does what brokers do by themselves as time passes: now and then they forget producers that
    /// have not written for long. Each request does this first.
    pub(crate) fn tick(&mut self, now_ms: i64) {
        let Settings { producer_id_expiration_ms: age_ms, producer_id_check_interval_ms, .. } =
            self.settings;
        if self.producers_checked_ms == 0 {
            self.producers_checked_ms = now_ms;
        }
        if now_ms - self.producers_checked_ms >= producer_id_check_interval_ms {
            self.producers_checked_ms = now_ms;
            self.each_partition(|p| p.log.producers.forget_older(now_ms, age_ms));
        }
    }

    /// Counts a request of so many bytes against the broker's quota, and makes of the throttling in
    /// its plan what the broker does: since 2.0 (KIP-219) it responds at once and then reads
    /// nothing from the connection; before, it held the response back. To be called before
    /// [`answer`](Self::answer).
    pub(crate) fn throttle(
        &mut self,
        broker: i32,
        parsed: &Parsed<'_>,
        bytes: usize,
        now_ms: i64,
        plan: &mut Plan,
    ) {
        if parsed.key == ApiKey::Produce {
            plan.throttle = plan.throttle.max(self.charge(broker, bytes, now_ms));
        }
        if self.release(broker).throttles_after_response() {
            plan.mute = plan.throttle;
        } else {
            plan.delay_after += plan.throttle;
        }
    }

    /// Much as Kafka's, which counts the last ten seconds, though not to the millisecond.
    fn charge(&mut self, broker: i32, bytes: usize, now_ms: i64) -> Duration {
        const WINDOW_MS: i64 = 10_000;
        let (Some(rate), Some(broker)) =
            (self.settings.producer_byte_rate, self.brokers.get_mut(&broker))
        else {
            return Duration::ZERO;
        };
        broker.charged.push_back((now_ms, bytes));
        while broker.charged.front().is_some_and(|(at_ms, _)| *at_ms + WINDOW_MS <= now_ms) {
            broker.charged.pop_front();
        }
        let charged: usize = broker.charged.iter().map(|(_, bytes)| bytes).sum();
        let takes_ms = (charged as i64).saturating_mul(1_000) / i64::from(rate.max(1));
        Duration::from_millis(u64::try_from(takes_ms - WINDOW_MS).unwrap_or(0))
    }

    fn each_partition(&mut self, action: impl FnMut(&mut Partition)) {
        self.topics.values_mut().flat_map(|topic| &mut topic.partitions).for_each(action);
    }
}
