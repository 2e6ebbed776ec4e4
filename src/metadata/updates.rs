//! `Metadata`: the sender's side. Decides when to ask, what for, and takes in the answers.
//!
//! Lives on the sender thread, which sends its requests through the client. It takes user threads'
//! wishes from the [`MetadataCell`] and publishes snapshots there. How a response becomes a
//! snapshot is told in `apply`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::apply;
use super::cell::MetadataCell;
use super::schedule::Schedule;
use super::snapshot::{Cluster, Node, PartitionMetadata};
use crate::claims;
use crate::config::{MetadataRecoveryStrategy, ProducerConfig};
use crate::protocol::{ErrorCode, MetadataRequest, MetadataResponse, NodeEndpoint};
use crate::random::Random;
use crate::time::MonoTime;
use crate::types::{NodeId, TopicPartition, Uuid};

/// What of the configuration concerns metadata.
#[derive(Clone, Debug)]
pub(crate) struct MetadataSettings {
    /// `bootstrap.servers`, not resolved.
    pub(crate) bootstrap: Vec<(Arc<str>, u16)>,
    /// `metadata.max.age.ms`: a full refresh is due after it.
    pub(crate) max_age: Duration,
    /// `metadata.max.idle.ms`: a topic that was not used for so long is given up.
    pub(crate) max_idle: Duration,
    /// `retry.backoff.ms`.
    pub(crate) retry_backoff: Duration,
    /// `retry.backoff.max.ms`.
    pub(crate) retry_backoff_max: Duration,
    /// `allow.auto.create.topics`.
    pub(crate) auto_create: bool,
    /// `unknown.topic.timeout.ms`.
    pub(crate) unknown_topic_timeout: Option<Duration>,
    /// `metadata.recovery.rebootstrap.trigger.ms`, unless `metadata.recovery.strategy` is `none`.
    pub(crate) rebootstrap_trigger: Option<Duration>,
}

impl From<&ProducerConfig> for MetadataSettings {
    fn from(config: &ProducerConfig) -> Self {
        let servers = config.bootstrap_servers.iter();
        let rebootstrap = match config.metadata_recovery_strategy {
            MetadataRecoveryStrategy::Rebootstrap => true,
            MetadataRecoveryStrategy::None => false,
        };
        Self {
            bootstrap: servers.map(|s| (s.host.as_str().into(), s.port)).collect(),
            max_age: config.metadata_max_age,
            max_idle: config.metadata_max_idle,
            retry_backoff: config.retry_backoff,
            retry_backoff_max: config.retry_backoff_max,
            auto_create: config.allow_auto_create_topics,
            unknown_topic_timeout: config.unknown_topic_timeout,
            rebootstrap_trigger: rebootstrap
                .then_some(config.metadata_recovery_rebootstrap_trigger),
        }
    }
}

/// The metadata as its only writer sees it.
#[derive(Debug)]
pub(crate) struct Metadata {
    cell: Arc<MetadataCell>,
    settings: MetadataSettings,
    schedule: Schedule,
    /// The topics to keep up to date; those of the snapshot are among them.
    pub(super) topics: BTreeMap<Arc<str>, Tracked>,
    /// The published snapshot.
    pub(super) cluster: Arc<Cluster>,
    /// Whether all topics are to be asked for.
    full_wanted: bool,
    in_flight: Option<Scope>,
    /// Since when an update was due without an answer; none while nothing is due.
    unanswered_since: Option<MonoTime>,
    /// How often it went back to the bootstrap servers since a broker was last reached.
    rebootstraps: u32,
    /// No new start before this.
    rebootstrap_not_before: MonoTime,
}

/// A topic that is kept up to date.
#[derive(Debug)]
pub(super) struct Tracked {
    /// When it was last sent to or waited for.
    pub(super) last_used: MonoTime,
    /// Whether no response has named it yet.
    pub(super) is_new: bool,
    /// The last known id, kept while the topic is missing from responses.
    pub(super) id: Uuid,
    /// The last seen leader epoch of each partition, -1 if unknown; kept while the topic is
    /// missing, so that a broker that lags behind can't take a leader back (KIP-320).
    pub(super) epochs: Vec<i32>,
}

/// What a request covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    AllTopics,
    NewTopics,
}

/// What became of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// A new snapshot was published.
    Applied,
    /// It was of no use, which counts as a failure of the request. Why.
    Refused(Arc<str>),
    /// The cluster told the client to start anew (KIP-1102): the bootstrap servers are the nodes
    /// again. Close all connections.
    Rebootstrap,
}

/// A leader that a produce response named (KIP-951).
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaderChange<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) leader: NodeId,
    pub(crate) leader_epoch: i32,
}

impl Metadata {
    /// The metadata of a client that has talked to no broker yet.
    /// `random` spreads its backoffs.
    pub(crate) fn new(settings: MetadataSettings, random: Random) -> Self {
        let cluster = Arc::new(Cluster::of_bootstrap_servers(&settings.bootstrap));
        let (backoff, max) = (settings.retry_backoff, settings.retry_backoff_max);
        Self {
            cell: Arc::new(MetadataCell::with(
                Arc::clone(&cluster),
                settings.unknown_topic_timeout,
                settings.auto_create,
            )),
            schedule: Schedule::new(backoff, max, settings.max_age, random),
            settings,
            topics: BTreeMap::new(),
            cluster,
            full_wanted: true,
            in_flight: None,
            unanswered_since: None,
            rebootstraps: 0,
            rebootstrap_not_before: MonoTime::ZERO,
        }
    }

    /// The face for user threads.
    pub(crate) fn cell(&self) -> &Arc<MetadataCell> {
        &self.cell
    }

    /// The current snapshot.
    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// The time until the next request is to be sent: zero if it is due now, `Duration::MAX` while
    /// one is in flight. Takes in what user threads asked for.
    pub(crate) fn due(&mut self, now: MonoTime) -> Duration {
        let asked = self.cell.take_asked();
        self.full_wanted |= asked.refresh;
        for name in asked.topics {
            if !self.touch(&name, now) {
                // Still on its way if it is new; else somebody misses what the last answer lacked.
                self.full_wanted |= !self.topics[&name].is_new;
            }
        }
        if self.in_flight.is_some() {
            return Duration::MAX;
        }
        let wanted = self.full_wanted || self.has_new_topics();
        let wait = self.schedule.wait(wanted, now);
        if wait.is_zero() {
            self.unanswered_since.get_or_insert(now);
        }
        self.invariants();
        wait
    }

    /// Whether the topic is kept up to date: it was not idle for too long.
    pub(crate) fn knows(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Whether a request is under way.
    pub(crate) fn is_asking(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Asks for a refresh of all topics, as after an error that tells of outdated metadata.
    pub(crate) fn request_update(&mut self) {
        self.full_wanted = true;
    }

    /// Notes that a topic is in use; one that is not kept up to date is from here on. Says whether
    /// it is new.
    pub(crate) fn touch(&mut self, name: &Arc<str>, now: MonoTime) -> bool {
        if let Some(tracked) = self.topics.get_mut(name) {
            tracked.last_used = tracked.last_used.max(now);
            return false;
        }
        let tracked = Tracked { last_used: now, is_new: true, id: Uuid::ZERO, epochs: Vec::new() };
        self.topics.insert(Arc::clone(name), tracked);
        self.cell.track(name);
        self.schedule.on_new_topic();
        self.invariants();
        true
    }

    /// The request to send now. Its outcome is to be told to [`Metadata::handle_response`] or
    /// [`Metadata::handle_failure`].
    pub(crate) fn next_request(&mut self, now: MonoTime) -> MetadataRequest {
        debug_assert!(self.in_flight.is_none(), "one request at a time");
        let full = self.full_wanted || self.schedule.is_aged(now) || !self.has_new_topics();
        let asked = self.topics.iter().filter(|(_, t)| full || t.is_new);
        let topics = asked.map(|(name, _)| Arc::clone(name)).collect();
        self.schedule.on_request(now);
        self.unanswered_since.get_or_insert(now);
        self.in_flight = Some(if full { Scope::AllTopics } else { Scope::NewTopics });
        // What is requested from here on concerns what this request may be too early to see.
        self.full_wanted &= !full;
        self.invariants();
        let allow_auto_topic_creation = self.settings.auto_create;
        MetadataRequest { topics: Some(topics), allow_auto_topic_creation }
    }

    /// Takes in a response of this version. Topics that were idle too long are given up, save
    /// those that have records `pending`.
    pub(crate) fn handle_response(
        &mut self,
        response: &MetadataResponse,
        version: i16,
        now: MonoTime,
        pending: &dyn Fn(&str) -> bool,
    ) -> Update {
        if response.error_code == ErrorCode::REBOOTSTRAP_REQUIRED && self.start_anew() {
            self.schedule.on_failure(now);
            return Update::Rebootstrap;
        }
        if let Err(reason) = apply::check(response) {
            self.cell.set_trouble(Arc::clone(&reason));
            self.handle_failure(now);
            return Update::Refused(reason);
        }
        let scope = self.in_flight.take().unwrap_or(Scope::NewTopics);
        let expired = self.expire(now, pending);
        let outcome = self.apply(response, version, scope == Scope::AllTopics);
        self.full_wanted |= outcome.refresh;
        self.unanswered_since = None;
        self.schedule.on_success(scope == Scope::AllTopics, outcome.learned, now);
        self.cluster = Arc::new(outcome.cluster);
        self.cell.publish(Arc::clone(&self.cluster), &outcome.errors, &expired);
        self.invariants_of_snapshot();
        Update::Applied
    }

    /// The request failed, or there was no node to send it to.
    pub(crate) fn handle_failure(&mut self, now: MonoTime) {
        self.full_wanted |= self.in_flight.take() == Some(Scope::AllTopics);
        self.schedule.on_failure(now);
        self.invariants();
    }

    /// Takes in leaders that produce responses named (KIP-951), with the addresses that came along.
    /// Only newer epochs of known partitions count, and only leaders whose address is known.
    /// Returns the partitions that changed.
    pub(crate) fn update_leaders(
        &mut self,
        changes: &[LeaderChange<'_>],
        endpoints: &[NodeEndpoint],
    ) -> Vec<TopicPartition> {
        let named = endpoints.iter().filter_map(|e| Node::new(e.node_id, &e.host, e.port, &e.rack));
        let named: BTreeMap<NodeId, Node> = named.map(|node| (node.id, node)).collect();
        let mut leaders = BTreeMap::<Arc<str>, Vec<_>>::new();
        let mut changed = Vec::new();
        for change in changes {
            let leader = change.leader;
            if !named.contains_key(&leader) && !self.cluster.nodes.contains_key(&leader) {
                continue;
            }
            let Some((partition, topic)) = self.accept_leader(change) else { continue };
            let to = PartitionMetadata { leader: Some(leader), leader_epoch: change.leader_epoch };
            leaders.entry(Arc::clone(&topic)).or_default().push((partition, to));
            changed.push(TopicPartition { topic, partition: change.partition });
        }
        if changed.is_empty() {
            return changed;
        }
        let mut cluster = Cluster::clone(&self.cluster);
        cluster.nodes.extend(named);
        for (topic, leaders) in &leaders {
            cluster.set_leaders(topic, leaders);
        }
        self.cluster = Arc::new(cluster);
        self.cell.replace(Arc::clone(&self.cluster));
        self.invariants_of_snapshot();
        changed
    }

    /// Whether no update succeeded for so long that the bootstrap servers are to be asked again
    /// (KIP-1102). Then call [`Metadata::rebootstrap`] and close all connections.
    pub(crate) fn rebootstrap_due(&self, now: MonoTime) -> bool {
        let since = self.unanswered_since.zip(self.settings.rebootstrap_trigger);
        !self.cluster.bootstrap && since.is_some_and(|(since, trigger)| since + trigger <= now)
    }

    /// Starts anew from the bootstrap servers, also when no known node can be reached (KIP-899).
    /// Says whether it did: not if the configuration forbids it, and not if the bootstrap servers
    /// are the nodes already. Topics stay known, so that sends go on into the buffer; their
    /// leaders and epochs don't, since the cluster may be another one.
    ///
    /// Bootstrap servers may name brokers that can't be reached, time and again. So until one is
    /// reached each further start waits longer, and the brokers get their chance meanwhile.
    pub(crate) fn rebootstrap(&mut self, now: MonoTime) -> bool {
        if now < self.rebootstrap_not_before || !self.start_anew() {
            return false;
        }
        self.rebootstrap_not_before = now + self.schedule.backoff(self.rebootstraps);
        self.rebootstraps = self.rebootstraps.saturating_add(1);
        self.invariants();
        true
    }

    /// A broker that the cluster named was reached.
    pub(crate) fn on_broker_reached(&mut self) {
        (self.rebootstraps, self.rebootstrap_not_before) = (0, MonoTime::ZERO);
        self.invariants();
    }

    fn start_anew(&mut self) -> bool {
        if self.settings.rebootstrap_trigger.is_none() || self.cluster.bootstrap {
            return false;
        }
        let mut cluster = Cluster::clone(&self.cluster);
        let bootstrap = Cluster::of_bootstrap_servers(&self.settings.bootstrap);
        cluster.forget_leaders();
        cluster.set_nodes(bootstrap.nodes);
        (cluster.bootstrap, cluster.controller) = (true, None);
        for tracked in self.topics.values_mut() {
            tracked.epochs.clear();
            tracked.id = Uuid::ZERO;
        }
        (self.in_flight, self.unanswered_since, self.full_wanted) = (None, None, true);
        self.cluster = Arc::new(cluster);
        self.cell.replace(Arc::clone(&self.cluster));
        self.invariants_of_snapshot();
        true
    }

    fn has_new_topics(&self) -> bool {
        self.topics.values().any(|t| t.is_new)
    }

    /// Gives up the topics that were not used for too long. One that no response has named yet
    /// stays however long that takes.
    fn expire(&mut self, now: MonoTime, pending: &dyn Fn(&str) -> bool) -> Vec<Arc<str>> {
        let idle = |t: &Tracked| !t.is_new && t.last_used + self.settings.max_idle <= now;
        let expired = self.topics.iter().filter(|(name, t)| idle(t) && !pending(name));
        let expired: Vec<_> = expired.map(|(name, _)| Arc::clone(name)).collect();
        for name in &expired {
            self.topics.remove(name);
        }
        expired
    }

    /// Records the epoch of a newer leader; returns the partition's place and the topic's name.
    fn accept_leader(&mut self, change: &LeaderChange<'_>) -> Option<(usize, Arc<str>)> {
        let topic = self.cluster.topic(change.topic)?;
        let partition = usize::try_from(change.partition).ok()?;
        topic.partitions.get(partition)?;
        let tracked = self.topics.get_mut(change.topic)?;
        let known = tracked.epochs.get_mut(partition)?;
        if change.leader_epoch <= *known {
            return None;
        }
        *known = change.leader_epoch;
        Some((partition, Arc::clone(&topic.name)))
    }

    /// An update is due from when it is first wanted, also while its request is under way, and
    /// starts hold each other back only where there was one.
    fn invariants(&self) {
        debug_assert!(self.in_flight.is_none() || self.unanswered_since.is_some(), "never due");
        let is_held = self.rebootstrap_not_before != MonoTime::ZERO;
        debug_assert!(self.rebootstraps > 0 || !is_held, "{} starts", self.rebootstraps);
    }

    /// The snapshot is what is published, of tracked topics; no leader is of an unknown epoch.
    fn invariants_of_snapshot(&self) {
        if !claims::are_checked() {
            return;
        }
        self.invariants();
        assert!(Arc::ptr_eq(&self.cluster, &self.cell.shared.lock().cluster), "unpublished");
        for (name, topic) in &self.cluster.topics {
            let tracked = self.topics.get(name);
            assert!(tracked.is_some_and(|tracked| !tracked.is_new), "{name} was never asked for");
            let epochs = tracked.map_or(&[][..], |tracked| &tracked.epochs);
            for (number, partition) in topic.partitions.iter().enumerate() {
                let seen = epochs.get(number).copied();
                let is_recorded = seen.is_some_and(|seen| partition.leader_epoch <= seen);
                let is_unknown = *partition == PartitionMetadata::UNKNOWN;
                assert!(is_recorded || is_unknown, "{name}: epoch was not recorded");
            }
        }
    }
}
