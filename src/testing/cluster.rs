//! The test broker's public face: [`TestCluster`], made by [`TestClusterBuilder`].

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::producer::record::validate_topic;
use crate::protocol::ApiKey;
use crate::sync::Arc;

use super::faults::{Fault, FaultId};
use super::model::{Broker, Keep, Model, Release, Settings, StoredRecord, TopicConfig};
use super::server::{Counters, Mode, Shared, State};

/// A Kafka cluster inside the process, for tests: real TCP on the loopback interface, no disk, no
/// Java.
///
/// It answers what a producer asks (Produce, Metadata, ApiVersions, InitProducerId) with the error
/// codes of Kafka 4.3.1, keeps what it is sent for comparison, and can be made to misbehave. All
/// methods take `&self` and may be called from any thread. Dropping it closes every connection and
/// ends its threads. It knows neither transactions, consumers, TLS, SASL nor compression.
///
/// ```
/// use kafka_producer::testing::TestCluster;
///
/// let cluster = TestCluster::builder().brokers(3).topic("orders", 2).start();
/// println!("connect to {}", cluster.bootstrap_servers());
/// assert_eq!(cluster.count("orders"), 0);
/// ```
#[derive(Debug)]
pub struct TestCluster {
    shared: Arc<Shared>,
}

/// What a [`TestCluster`] is like.
#[derive(Clone, Debug)]
#[must_use = "nothing runs before `start`"]
pub struct TestClusterBuilder {
    brokers: i32,
    topics: Vec<(String, TopicConfig)>,
    settings: Settings,
    release: Release,
    releases: BTreeMap<i32, Release>,
    max_versions: BTreeMap<ApiKey, i16>,
}

impl TestClusterBuilder {
    /// How many brokers, with ids from 1 on. Without it, one.
    pub fn brokers(mut self, count: i32) -> Self {
        self.brokers = count.max(1);
        self
    }

    /// Creates a topic before the cluster starts; `config` may be the number of partitions.
    pub fn topic(mut self, name: &str, config: impl Into<TopicConfig>) -> Self {
        self.topics.push((name.to_owned(), config.into()));
        self
    }

    /// Whether a topic is created when a client first asks for it. Without it, yes.
    pub fn auto_create(mut self, yes: bool) -> Self {
        self.settings.auto_create = yes;
        self
    }

    /// What automatically created topics are like. Without it, they have one partition.
    pub fn default_topic(mut self, config: impl Into<TopicConfig>) -> Self {
        self.settings.default_topic = config.into();
        self
    }

    /// Keeps no records, only counts them, for measurements: [`TestCluster::count`] works and
    /// [`TestCluster::records`] is empty. With `checksums`, each batch's checksum is verified.
    pub fn discard(mut self, checksums: bool) -> Self {
        self.settings.keep = Keep::Counts { checksums };
        self
    }

    /// Makes the brokers those of an older Kafka. Without it, they are of 4.3.
    pub fn release(mut self, release: Release) -> Self {
        self.release = release;
        self
    }

    /// Makes one broker that of another Kafka, as during an upgrade.
    pub fn broker_release(mut self, broker: i32, release: Release) -> Self {
        self.releases.insert(broker, release);
        self
    }

    /// Limits the versions of Produce, Metadata, ApiVersions or InitProducerId that the brokers
    /// offer.
    pub fn max_version(mut self, api: Api, version: i16) -> Self {
        let max = self.max_versions.entry(api.key()).or_insert(version);
        *max = version.min(*max);
        self
    }

    /// `producer.id.expiration.ms`: a producer is forgotten if its last records are so old, by
    /// their own timestamps, when the brokers look; they do so every `check_interval`. Without it,
    /// a day and ten minutes.
    pub fn producer_id_expiration(mut self, age: Duration, check_interval: Duration) -> Self {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        self.settings.producer_id_expiration_ms = millis(age);
        self.settings.producer_id_check_interval_ms = millis(check_interval);
        self
    }

    /// Starts the cluster.
    ///
    /// # Panics
    /// If no loopback socket or no thread can be had, or if a topic's name is invalid or given
    /// twice: a test can do nothing without its cluster.
    pub fn start(self) -> TestCluster {
        match self.try_start() {
            Ok(cluster) => cluster,
            Err(error) => panic!("the test cluster can't start: {error}"),
        }
    }

    /// Starts the cluster, or says why it can't.
    ///
    /// # Errors
    /// As [`start`](Self::start) panics.
    pub fn try_start(self) -> io::Result<TestCluster> {
        let brokers = (1..=self.brokers).map(|id| (id, self.broker(id))).collect();
        let mut model = Model::new(self.settings, brokers);
        for (name, config) in self.topics {
            if !model.create_topic(&name, config) {
                let wrong = validate_topic(&name).err().map(|error| error.to_string());
                let text = wrong.unwrap_or_else(|| format!("there are two topics {name:?}"));
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        let cluster = TestCluster { shared: Shared::new(model) };
        for id in 1..=self.brokers {
            cluster.shared.start(id)?;
        }
        Ok(cluster)
    }
}

impl TestClusterBuilder {
    fn broker(&self, id: i32) -> Broker {
        let release = self.releases.get(&id).copied().unwrap_or(self.release);
        let mut broker = Broker::new(release, "127.0.0.1", 0);
        for (key, range) in &mut broker.versions {
            let max = self.max_versions.get(key).copied().unwrap_or(range.max);
            range.max = range.max.min(max);
        }
        broker
    }
}

/// An API of the Kafka protocol that the test broker answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Api {
    /// Records for partitions.
    Produce,
    /// Brokers, topics and their leaders.
    Metadata,
    /// What the broker supports.
    ApiVersions,
    /// A producer id and epoch.
    InitProducerId,
}

impl Api {
    fn key(self) -> ApiKey {
        match self {
            Self::Produce => ApiKey::Produce,
            Self::Metadata => ApiKey::Metadata,
            Self::ApiVersions => ApiKey::ApiVersions,
            Self::InitProducerId => ApiKey::InitProducerId,
        }
    }
}

impl Counters {
    /// Connections accepted, whether still open or not.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Requests of an API, whatever became of them.
    pub fn requests(&self, api: Api) -> u64 {
        self.requests.get(&api.key()).copied().unwrap_or_default()
    }

    /// Bytes of all requests.
    pub fn request_bytes(&self) -> u64 {
        self.request_bytes
    }

    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.request_bytes += other.request_bytes;
        for (key, count) in &other.requests {
            *self.requests.entry(*key).or_default() += count;
        }
    }
}

impl TestCluster {
    /// One broker that creates topics, with one partition, as they are asked for.
    ///
    /// # Panics
    /// As [`TestClusterBuilder::start`].
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A cluster to one's own taste.
    pub fn builder() -> TestClusterBuilder {
        TestClusterBuilder {
            brokers: 1,
            topics: Vec::new(),
            settings: Settings::default(),
            release: Release::default(),
            releases: BTreeMap::new(),
            max_versions: BTreeMap::new(),
        }
    }

    /// The addresses of all brokers, stopped ones too, as a client's `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> String {
        let state = self.shared.lock();
        let ports = state.model.brokers().values().map(|b| format!("{}:{}", b.host, b.port));
        ports.collect::<Vec<_>>().join(",")
    }

    /// A broker's port; `None` if there is no broker of that id. It keeps it when it is stopped
    /// and started again.
    pub fn port(&self, broker: i32) -> Option<u16> {
        self.shared.lock().model.brokers().get(&broker).map(|b| b.port)
    }

    /// Creates a topic; `config` may be the number of partitions. Gives whether it did: not if
    /// there is one of that name, nor if the name is invalid.
    pub fn create_topic(&self, name: &str, config: impl Into<TopicConfig>) -> bool {
        let config = config.into();
        self.shared.change(|state| state.model.create_topic(name, config))
    }

    /// Deletes a topic with all its records; gives whether there was one. A later one of the same
    /// name has another topic id.
    pub fn delete_topic(&self, name: &str) -> bool {
        self.shared.change(|state| state.model.delete_topic(name))
    }

    /// Adds partitions until the topic has `total`; gives whether there is such a topic.
    pub fn add_partitions(&self, topic: &str, total: i32) -> bool {
        self.shared.change(|state| state.model.add_partitions(topic, total))
    }

    /// Sets a topic's `max.message.bytes`, as [`TopicConfig::max_message_bytes`] does beforehand;
    /// gives whether there is such a topic.
    pub fn set_max_message_bytes(&self, topic: &str, bytes: usize) -> bool {
        self.shared.change(|state| {
            let topic = state.model.topic_mut(topic);
            topic.map(|topic| topic.config.max_message_bytes = bytes).is_some()
        })
    }

    /// The records of a partition, oldest first; empty if there is no such partition.
    pub fn records(&self, topic: &str, partition: i32) -> Vec<StoredRecord> {
        let state = self.shared.lock();
        state.model.partition(topic, partition).map(|p| p.log.records()).unwrap_or_default()
    }

    /// The records of a partition in the topics of this name that were deleted, oldest first.
    pub fn deleted_records(&self, topic: &str, partition: i32) -> Vec<StoredRecord> {
        let state = self.shared.lock();
        let topics = state.model.deleted_topics().iter().filter(|(name, _)| **name == *topic);
        let index = usize::try_from(partition).ok();
        let partitions = topics.filter_map(|(_, topic)| topic.partitions.get(index?));
        partitions.flat_map(|partition| partition.log.records()).collect()
    }

    /// How many records a topic has, in all partitions.
    pub fn count(&self, topic: &str) -> u64 {
        count(&self.shared.lock(), topic)
    }

    /// Waits until a topic has at least so many records; gives whether it has.
    pub fn wait_for_count(&self, topic: &str, records: u64, timeout: Duration) -> bool {
        let enough = |state: &mut State| (count(state, topic) >= records).then_some(());
        self.shared.wait_for(timeout, enough).is_some()
    }

    /// The partition's leader and its epoch; `None` if it has no leader, or there is no such
    /// partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        let state = self.shared.lock();
        let partition = state.model.partition(topic, partition)?;
        Some((partition.leader?, partition.leader_epoch))
    }

    /// Makes another broker the partition's leader, or none; gives whether there is such a
    /// partition. The clients are not told: the old leader answers `NOT_LEADER_OR_FOLLOWER`.
    pub fn move_leader(&self, topic: &str, partition: i32, to: Option<i32>) -> bool {
        self.shared.change(|state| {
            let partition = state.model.partition_mut(topic, partition);
            partition.map(|partition| partition.lead_by(to)).is_some()
        })
    }

    /// Makes another broker the leader of a partition whose copy of the log ends at `end_offset`:
    /// later records are lost, as in an unclean election, or as those are that were acknowledged
    /// by the old leader alone. Gives whether there is such a partition.
    pub fn fail_over(&self, topic: &str, partition: i32, to: i32, end_offset: i64) -> bool {
        self.shared.change(|state| {
            let partition = state.model.partition_mut(topic, partition);
            partition.map(|partition| partition.fail_over(to, end_offset)).is_some()
        })
    }

    /// The records of a partition that [`fail_over`](Self::fail_over) lost, in the order in which
    /// they went.
    pub fn lost_records(&self, topic: &str, partition: i32) -> Vec<StoredRecord> {
        let state = self.shared.lock();
        state.model.partition(topic, partition).map(|p| p.log.cut_records()).unwrap_or_default()
    }

    /// Makes a broker tell of the cluster as it is now, until it
    /// [catches up](Self::catch_up_broker): of later leaders, topics and brokers it has not heard.
    pub fn hold_back_broker(&self, id: i32) {
        self.shared.change(|state| state.model.hold_view(id));
    }

    /// Ends [`hold_back_broker`](Self::hold_back_broker).
    pub fn catch_up_broker(&self, id: i32) {
        self.shared.change(|state| state.model.release_view(id));
    }

    /// Says which replicas are in sync; gives whether there is such a partition.
    pub fn set_in_sync_replicas(&self, topic: &str, partition: i32, brokers: &[i32]) -> bool {
        self.shared.change(|state| state.model.set_in_sync(topic, partition, brokers.to_vec()))
    }

    /// The quota `producer_byte_rate`: how many bytes a second each broker takes in Produce
    /// requests, over ten seconds, before it throttles the client. Without it, any number.
    pub fn set_producer_byte_rate(&self, bytes: Option<u32>) {
        self.shared.change(|state| state.model.settings.producer_byte_rate = bytes);
    }

    /// Deletes a partition's records before `offset`.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        self.shared.change(|state| {
            if let Some(partition) = state.model.partition_mut(topic, partition) {
                partition.log.delete_before(before);
            }
        });
    }

    /// Makes all partitions forget the idempotent producers that they know, as Kafka does after
    /// `producer.id.expiration.ms`.
    pub fn forget_producers(&self) {
        self.shared.change(|state| state.model.forget_producers());
    }

    /// Makes a partition forget all but the last batch of each idempotent producer, as a broker
    /// does that was shut down and started again. Gives whether there is such a partition.
    pub fn reload_producers(&self, topic: &str, partition: i32) -> bool {
        self.shared.change(|state| state.model.reload_producers(topic, partition))
    }

    /// Stops a broker: its connections break, new ones are refused, and other brokers lead its
    /// partitions where they have a replica in sync. Its port stays its own.
    pub fn stop_broker(&self, id: i32) {
        self.shared.stop(id);
    }

    /// Makes a broker that of another Kafka from its next connection on, as an upgrade does
    /// between [`stop_broker`](Self::stop_broker) and [`start_broker`](Self::start_broker).
    pub fn upgrade_broker(&self, id: i32, release: Release) {
        self.shared.change(|state| state.model.upgrade(id, release));
    }

    /// Starts a stopped broker on the port that it had.
    ///
    /// # Errors
    /// If another process has taken the port, or there is no thread to be had.
    pub fn start_broker(&self, id: i32) -> io::Result<()> {
        let stopped = |state: &State| state.links.get(&id).is_some_and(|l| l.mode == Mode::Stopped);
        if stopped(&self.shared.lock()) { self.shared.start(id) } else { Ok(()) }
    }

    /// Makes a broker a black hole: it takes connections and requests, and answers none until it
    /// is thawed. The others still count it in, as they do for some seconds in a real cluster.
    pub fn freeze_broker(&self, id: i32) {
        self.switch(id, Mode::Running, Mode::Frozen);
    }

    /// Lets a frozen broker go on: it answers what has piled up.
    pub fn thaw_broker(&self, id: i32) {
        self.switch(id, Mode::Frozen, Mode::Running);
    }

    fn switch(&self, id: i32, from: Mode, to: Mode) {
        self.shared.change(|state| {
            if let Some(link) = state.links.get_mut(&id).filter(|link| link.mode == from) {
                link.mode = to;
            }
        });
    }

    /// Makes the brokers misbehave.
    pub fn inject(&self, fault: Fault) -> FaultId {
        self.shared.change(|state| state.faults.inject(fault))
    }

    /// How many requests a fault has met so far; 0 if it was removed.
    pub fn fired(&self, fault: FaultId) -> u64 {
        self.shared.lock().faults.fired(fault)
    }

    /// Waits until a fault has met at least so many requests; gives whether it has.
    pub fn wait_for_fault(&self, fault: FaultId, requests: u64, timeout: Duration) -> bool {
        let met = |state: &mut State| (state.faults.fired(fault) >= requests).then_some(());
        self.shared.wait_for(timeout, met).is_some()
    }

    /// Takes a fault back.
    pub fn remove_fault(&self, fault: FaultId) {
        self.shared.change(|state| state.faults.remove(fault));
    }

    /// Takes all faults back.
    pub fn clear_faults(&self) {
        self.shared.change(|state| state.faults.clear());
    }

    /// What all brokers have been asked so far.
    pub fn counters(&self) -> Counters {
        total(&self.shared.lock())
    }

    /// What one broker has been asked so far.
    pub fn broker_counters(&self, id: i32) -> Counters {
        let state = self.shared.lock();
        state.links.get(&id).map(|link| link.counters.clone()).unwrap_or_default()
    }

    /// Waits until the brokers have got at least so many requests of an API; gives whether they
    /// have.
    pub fn wait_for_requests(&self, api: Api, requests: u64, timeout: Duration) -> bool {
        let enough = |state: &mut State| (total(state).requests(api) >= requests).then_some(());
        self.shared.wait_for(timeout, enough).is_some()
    }
}

fn count(state: &State, topic: &str) -> u64 {
    let partitions = state.model.topic(topic).into_iter().flat_map(|topic| &topic.partitions);
    partitions.map(|p| p.log.end_offset.abs_diff(p.log.start_offset)).sum()
}

fn total(state: &State) -> Counters {
    let mut total = Counters::default();
    state.links.values().for_each(|link| total.add(&link.counters));
    total
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        let ids: Vec<_> = self.shared.lock().links.keys().copied().collect();
        for id in ids {
            self.shared.stop(id);
        }
    }
}
