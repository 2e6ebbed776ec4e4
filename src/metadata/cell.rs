//! `MetadataCell`: what user threads and the sender share of the metadata, under one leaf lock.
//!
//! User threads read the current `Cluster`, ask for topics and wait (`wait`); the sender takes
//! what was asked for and publishes what the brokers answered (`updates`). Whoever is told that
//! the sender has something new to look at wakes it, once the lock is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::snapshot::{Cluster, TopicMetadata};
use crate::claims;
use crate::error::Error;
use crate::protocol::ErrorCode;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};
use crate::types::NodeId;

/// The shared face of the metadata.
#[derive(Debug)]
pub(crate) struct MetadataCell {
    pub(super) shared: Mutex<Shared>,
    /// Notified of each publication, failure and end.
    pub(super) changed: Condvar,
    /// A copy of [`Shared::version`] to be read without the lock.
    version: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) cluster: Arc<Cluster>,
    /// `unknown.topic.timeout.ms`: how long calls wait for a topic that is said not to exist.
    pub(super) unknown_topic_timeout: Option<Duration>,
    /// `allow.auto.create.topics`.
    pub(super) auto_create: bool,
    /// Counts the responses that were applied.
    pub(super) version: u64,
    /// The topics that the sender keeps up to date, and those of `asked`.
    tracked: BTreeSet<Arc<str>>,
    /// Topics that somebody waits for and the sender has not looked at yet; part of `tracked`.
    asked: BTreeSet<Arc<str>>,
    /// Whether all topics are to be refreshed; not looked at by the sender yet.
    refresh: bool,
    /// What the brokers answered last for tracked topics that can't be sent to.
    pub(super) topic_errors: BTreeMap<Arc<str>, TopicError>,
    /// What keeps the sender from asking any broker; cleared by a response.
    pub(super) trouble: Option<Arc<str>>,
    /// The brokers that are reached, and why others aren't; nothing of those not tried.
    pub(super) reached: BTreeMap<NodeId, Result<(), Arc<str>>>,
    /// Counts the changes of `reached`.
    pub(super) reach_version: u64,
    /// A failure for those that were waiting when it came, as when credentials are refused, and
    /// how many came before it; whoever comes later tries again.
    pub(super) failure: Option<(u64, Error)>,
    /// `Closed` or `Fatal`: no call succeeds any more.
    pub(super) ended: Option<Error>,
}

/// A broker's error for a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicError {
    pub(super) code: ErrorCode,
    /// The version that brought it.
    pub(super) version: u64,
}

/// What user threads asked for since the sender last looked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) topics: BTreeSet<Arc<str>>,
    pub(super) refresh: bool,
}

/// The answer of a call that never waits.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) error: Error,
    /// Whether the sender has something new to look at: wake it.
    pub(crate) wake: bool,
}

impl MetadataCell {
    /// A cell that knows the bootstrap servers.
    #[cfg(test)]
    pub(crate) fn new(bootstrap: Arc<Cluster>) -> Self {
        Self::with(bootstrap, None, true)
    }

    /// The same, with `unknown.topic.timeout.ms` and `allow.auto.create.topics`.
    pub(super) fn with(
        bootstrap: Arc<Cluster>,
        unknown_topic_timeout: Option<Duration>,
        auto_create: bool,
    ) -> Self {
        let shared =
            Shared { cluster: bootstrap, unknown_topic_timeout, auto_create, ..Shared::default() };
        Self { shared: Mutex::new(shared), changed: Condvar::new(), version: AtomicU64::new(0) }
    }

    /// The current snapshot.
    #[cfg(test)]
    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.shared.lock().cluster)
    }

    /// Counts publications: while it stays the same, a snapshot read after it is current.
    #[cfg(test)]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Has the sender keep this topic up to date. Says whether it is new, so that the sender is to
    /// be woken.
    #[cfg(test)]
    pub(crate) fn add_topic(&self, name: &str) -> bool {
        let mut shared = self.shared.lock();
        if shared.tracked.contains(name) { false } else { shared.ask(&name.into()) }
    }

    /// Asks for a refresh of all topics. Says whether the sender is to be woken.
    #[cfg(test)]
    pub(crate) fn request_update(&self) -> bool {
        !mem::replace(&mut self.shared.lock().refresh, true)
    }

    /// The topic as far as it is known now, for calls that never wait. What is missing is asked
    /// for, so that a later call may find it.
    ///
    /// # Errors
    /// `Closed` or `Fatal`; `InvalidTopic` or `Authorization` if that was the brokers' last answer;
    /// else `NotReady`.
    pub(crate) fn try_topic(
        &self,
        name: &str,
        partition: Option<i32>,
    ) -> Result<Arc<TopicMetadata>, Refusal> {
        let mut shared = self.shared.lock();
        if let Some(error) = &shared.ended {
            return Err(Refusal { error: error.clone(), wake: false });
        }
        if let Some(topic) = shared.sendable(name, partition) {
            return Ok(Arc::clone(topic));
        }
        let topic: Arc<str> = name.into();
        let known = shared.topic_errors.get(name).and_then(|e| refused(&topic, e.code));
        let wake = shared.ask(&topic);
        Err(Refusal { error: known.unwrap_or(Error::NotReady { topic }), wake })
    }

    /// Tells what keeps the sender from reaching a broker, for the causes of time-outs: a refused
    /// connection, a name that does not resolve. The next response clears it.
    pub(crate) fn set_trouble(&self, text: impl Into<Arc<str>>) {
        self.shared.lock().trouble = Some(text.into());
    }

    /// Tells which brokers are reached and why others aren't, to those who wait for a leader.
    pub(crate) fn set_reached(&self, reached: BTreeMap<NodeId, Result<(), Arc<str>>>) {
        let mut shared = self.shared.lock();
        if shared.reached != reached {
            shared.reached = reached;
            shared.reach_version += 1;
            shared.invariants();
            drop(shared);
            self.changed.notify_all();
        }
    }

    /// Fails all calls that wait now. Later ones try again.
    pub(crate) fn fail_waiting(&self, error: Error) {
        let mut shared = self.shared.lock();
        let count = shared.failures();
        shared.failure = Some((count, error));
        shared.invariants();
        drop(shared);
        self.changed.notify_all();
    }

    /// Fails all calls with [`Error::Closed`] from now on.
    pub(crate) fn close(&self) {
        self.end(Error::Closed);
    }

    /// Fails all calls with this error from now on; the first end stays.
    pub(crate) fn end(&self, error: Error) {
        self.shared.lock().ended.get_or_insert(error);
        self.changed.notify_all();
    }

    /// Why no call succeeds any more, if that is so.
    pub(crate) fn ended(&self) -> Option<Error> {
        self.shared.lock().ended.clone()
    }

    /// Takes what was asked for.
    pub(super) fn take_asked(&self) -> Asked {
        let mut shared = self.shared.lock();
        if shared.asked.is_empty() && !shared.refresh {
            return Asked::default();
        }
        let topics = mem::take(&mut shared.asked);
        let asked = Asked { topics, refresh: mem::take(&mut shared.refresh) };
        shared.invariants();
        asked
    }

    /// Counts a topic that the sender itself found in use as tracked.
    pub(super) fn track(&self, name: &Arc<str>) {
        let mut shared = self.shared.lock();
        shared.tracked.insert(Arc::clone(name));
        shared.invariants();
    }

    /// Publishes a response: the new snapshot, the topics' errors and the topics given up.
    pub(super) fn publish(
        &self,
        cluster: Arc<Cluster>,
        errors: &[(Arc<str>, ErrorCode)],
        expired: &[Arc<str>],
    ) {
        let mut shared = self.shared.lock();
        shared.version += 1;
        let version = shared.version;
        shared.trouble = None;
        for name in expired {
            // Asked for again meanwhile: then it stays, and the sender takes it for a new one.
            if !shared.asked.contains(name) {
                shared.tracked.remove(name);
            }
            shared.topic_errors.remove(name);
        }
        shared.topic_errors.retain(|name, _| cluster.topic(name).is_none());
        for (name, code) in errors {
            shared.topic_errors.insert(Arc::clone(name), TopicError { code: *code, version });
        }
        let before = mem::replace(&mut shared.cluster, cluster);
        self.version.store(version, Ordering::Release);
        self.invariants(&shared);
        drop(shared);
        self.changed.notify_all();
        drop(before); // perhaps the last one, and large: not under the lock
    }

    /// Publishes a snapshot that no response brought: new leaders, or the bootstrap servers again.
    pub(super) fn replace(&self, cluster: Arc<Cluster>) {
        let mut shared = self.shared.lock();
        shared.version += 1;
        let before = mem::replace(&mut shared.cluster, cluster);
        self.version.store(shared.version, Ordering::Release);
        self.invariants(&shared);
        drop(shared);
        self.changed.notify_all();
        drop(before);
    }

    /// After a publication: the snapshot is sound, and the copy of its version is one.
    fn invariants(&self, shared: &Shared) {
        if claims::are_checked() {
            shared.cluster.invariants();
            shared.invariants();
            assert_eq!(self.version.load(Ordering::Acquire), shared.version, "a stale copy");
        }
    }
}

impl Shared {
    /// Has the sender ask the brokers for this topic. Says whether that is news to it.
    pub(super) fn ask(&mut self, name: &Arc<str>) -> bool {
        self.tracked.insert(Arc::clone(name));
        let is_news = self.asked.insert(Arc::clone(name));
        self.invariants();
        is_news
    }

    /// The topic, if it is known and has the partition that is asked for, if one is.
    pub(super) fn sendable(
        &self,
        name: &str,
        partition: Option<i32>,
    ) -> Option<&Arc<TopicMetadata>> {
        let topic = self.cluster.topic(name)?;
        partition.is_none_or(|p| topic.partition(p).is_some()).then_some(topic)
    }

    /// How many failures there were.
    pub(super) fn failures(&self) -> u64 {
        self.failure.as_ref().map_or(0, |(before, _)| before + 1)
    }

    /// What is asked for is tracked, and what is known of topics and brokers came with a version.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        assert!(self.asked.is_subset(&self.tracked), "a topic is asked for and not tracked");
        assert!(
            self.reach_version > 0 || self.reached.is_empty(),
            "nobody was told who is reached"
        );
        for (name, error) in &self.topic_errors {
            assert!(self.tracked.contains(name), "{name} has an error and is not tracked");
            assert!(self.cluster.topic(name).is_none(), "{name} is fine and has an error");
            assert!(error.version <= self.version);
        }
    }
}

/// The error of a call for a topic that the brokers refuse; none if waiting may help.
pub(super) fn refused(topic: &Arc<str>, code: ErrorCode) -> Option<Error> {
    match code {
        ErrorCode::INVALID_TOPIC_EXCEPTION => Some(Error::InvalidTopic {
            topic: Arc::clone(topic),
            reason: "the brokers refuse the name".into(),
        }),
        ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED => {
            Some(Error::Authorization { code, resource: Arc::clone(topic) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::snapshot::PartitionMetadata;
    use crate::types::Uuid;

    fn cell() -> MetadataCell {
        MetadataCell::new(Arc::new(Cluster::of_bootstrap_servers(&[("h".into(), 1)])))
    }

    fn with_topic(name: &str) -> Arc<Cluster> {
        let mut cluster = Cluster::default();
        let partitions = vec![PartitionMetadata::UNKNOWN; 2];
        cluster.insert_topic(TopicMetadata::new(name.into(), Uuid::ZERO, false, partitions));
        Arc::new(cluster)
    }

    fn code_of(refused: Result<Arc<TopicMetadata>, Refusal>) -> ErrorCode {
        match refused {
            Err(Refusal { error: Error::Authorization { code, .. }, .. }) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_topic_is_new_once() {
        let cell = cell();
        assert!(cell.add_topic("t"));
        assert!(!cell.add_topic("t"));
        let asked = cell.take_asked();
        assert_eq!(asked, Asked { topics: ["t".into()].into(), refresh: false });
        assert!(!cell.add_topic("t"));
        assert_eq!(cell.take_asked(), Asked::default());
    }

    #[test]
    fn an_expired_topic_is_new_again_unless_it_was_asked_for_meanwhile() {
        let cell = cell();
        cell.add_topic("t");
        cell.take_asked();
        cell.publish(Arc::default(), &[], &["t".into()]);
        assert!(cell.add_topic("t"));
        cell.publish(Arc::default(), &[], &["t".into()]);
        assert_eq!(cell.take_asked().topics, ["t".into()].into());
        assert!(!cell.add_topic("t"));
    }

    #[test]
    fn an_update_is_requested_once_until_the_sender_looks() {
        let cell = cell();
        assert!(cell.request_update());
        assert!(!cell.request_update());
        assert!(cell.take_asked().refresh);
        assert!(cell.request_update());
    }

    #[test]
    fn a_call_that_never_waits_asks_for_what_is_missing() {
        let cell = cell();
        for first in [true, false] {
            let refusal = cell.try_topic("t", None).unwrap_err();
            assert!(matches!(refusal.error, Error::NotReady { .. }));
            assert_eq!(refusal.wake, first);
        }
        cell.take_asked();
        let before = cell.version();
        cell.publish(with_topic("t"), &[], &[]);
        assert_ne!(cell.version(), before);
        assert_eq!(cell.try_topic("t", Some(1)).unwrap().partition_count(), 2);
        let refusal = cell.try_topic("t", Some(2)).unwrap_err();
        assert!(refusal.wake && matches!(refusal.error, Error::NotReady { .. }));
    }

    #[test]
    fn a_refusal_by_the_brokers_is_told_and_looked_into_again() {
        let cell = cell();
        cell.track(&"t".into());
        let denied = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
        cell.publish(Arc::default(), &[("t".into(), denied)], &[]);
        assert_eq!(code_of(cell.try_topic("t", None)), denied);
        assert_eq!(cell.take_asked().topics, ["t".into()].into());
        cell.publish(with_topic("t"), &[], &[]);
        assert!(cell.try_topic("t", None).is_ok());
    }

    #[test]
    fn of_a_topic_that_is_given_up_no_refusal_is_remembered() {
        let cell = cell();
        cell.track(&"t".into());
        cell.publish(Arc::default(), &[("t".into(), ErrorCode::INVALID_TOPIC_EXCEPTION)], &[]);
        cell.publish(Arc::default(), &[], &["t".into()]);
        let refusal = cell.try_topic("t", None).unwrap_err();
        assert!(matches!(refusal.error, Error::NotReady { .. }), "{:?}", refusal.error);
        assert!(refusal.wake, "it is asked for anew");
    }

    #[test]
    fn the_first_end_stays() {
        let cell = cell();
        cell.publish(with_topic("t"), &[], &[]);
        cell.end(Error::Fatal("defect".into()));
        cell.close();
        let refusal = cell.try_topic("t", None).unwrap_err();
        assert!(matches!(refusal.error, Error::Fatal(_)), "{:?}", refusal.error);
    }

    /// MD-34: as many topics, nodes and partitions as belong together, whoever reads when.
    #[test]
    fn snapshots_are_whole_while_they_are_replaced_and_read() {
        const ROUNDS: usize = 2000;
        let cell = cell();
        let snapshot = |n: usize| {
            let mut cluster =
                Cluster { cluster_id: Some(n.to_string().into()), ..Cluster::default() };
            let nodes = (0..n as i32).map(|id| {
                let id = NodeId(id);
                let host = Arc::from("h");
                (id, crate::metadata::snapshot::Node { id, host, port: 9092, rack: None })
            });
            cluster.set_nodes(nodes.collect());
            let partitions = vec![PartitionMetadata::UNKNOWN; n];
            let topic = TopicMetadata::new("t".into(), Uuid::ZERO, false, partitions);
            cluster.insert_topic(topic);
            Arc::new(cluster)
        };
        cell.publish(snapshot(1), &[], &[]);
        let last_version = ROUNDS as u64 + 1;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut version = 0;
                    while version < last_version {
                        let next = cell.version();
                        assert!(next >= version, "versions go up");
                        version = next;
                        let cluster = cell.cluster();
                        let said: usize = cluster.cluster_id.as_ref().unwrap().parse().unwrap();
                        assert_eq!(cluster.nodes.len(), said);
                        assert_eq!(cluster.topic("t").unwrap().partitions.len(), said);
                        assert!(cell.try_topic("t", Some(0)).is_ok());
                    }
                });
            }
            for round in 0..ROUNDS {
                cell.publish(snapshot(1 + round % 7), &[], &[]);
            }
        });
    }
}
