//! A pure model of a Kafka cluster: requests in, responses out, and nothing else.
//!
//! It opens no socket and reads no clock; the same requests at the same times give the same
//! answers. Behind TCP it is the test broker ([`server`](super::server) calls it, a request at a
//! time, under one lock). It aims at the error codes and the order of checks of Kafka 4.3.1.

mod api; // bytes to requests, requests to responses
mod batch; // the checks that a batch needs no log for
mod produce; // the Produce API
mod producer_state; // sequences, epochs, duplicates
mod topic; // partitions and their logs

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::producer::record::validate_topic;
use crate::protocol::{ApiKey, VersionRange};
use crate::types::Uuid;

pub(crate) use self::api::{Reply, parse};
pub(crate) use self::topic::{Keep, Partition, Topic};
pub use self::topic::{StoredRecord, TopicConfig};

/// What holds for the whole cluster.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `auto.create.topics.enable`.
    pub(crate) auto_create: bool,
    /// What an automatically created topic is like.
    pub(crate) default_topic: TopicConfig,
    pub(crate) keep: Keep,
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
        }
    }

    /// What Kafka 4.3.1 says that it supports, as far as this model does too.
    pub(crate) fn default_versions() -> BTreeMap<ApiKey, VersionRange> {
        // 4.x offers Produce from 0 but closes the connection below 3 (KAFKA-18659).
        let produce = VersionRange { min: 0, max: ApiKey::Produce.supported().max };
        let others = [ApiKey::Metadata, ApiKey::ApiVersions, ApiKey::InitProducerId];
        let others = others.into_iter().map(|key| (key, key.supported()));
        others.chain([(ApiKey::Produce, produce)]).collect()
    }

    pub(crate) fn brokers(&self) -> &BTreeMap<i32, Broker> {
        &self.brokers
    }

    pub(crate) fn broker_mut(&mut self, id: i32) -> Option<&mut Broker> {
        self.brokers.get_mut(&id)
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
            Some(topic) => self.names.remove(&topic.id).is_some(),
            None => false,
        }
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
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.alive = false;
        }
        self.each_partition(|partition| partition.broker_gone(id));
    }

    /// Brings a broker back; it leads those of its partitions that have no leader.
    pub(crate) fn broker_back(&mut self, id: i32) {
        if let Some(broker) = self.brokers.get_mut(&id) {
            broker.alive = true;
        }
        self.each_partition(|partition| partition.broker_back(id));
    }

    /// Makes every partition forget the producers that it knows.
    pub(crate) fn forget_producers(&mut self) {
        self.each_partition(|partition| partition.log.producers.forget_all());
    }

    fn each_partition(&mut self, action: impl FnMut(&mut Partition)) {
        self.topics.values_mut().flat_map(|topic| &mut topic.partitions).for_each(action);
    }
}
