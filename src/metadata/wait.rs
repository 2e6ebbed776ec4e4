//! Waiting for metadata: values that decide (`TopicWait`, `LeaderWait`, `ReadyWait`), which a
//! simulator can step, and the shell that loops them over the cell's condition variable on a user
//! thread.

use std::sync::Arc;

use super::cell::{MetadataCell, Shared, refused};
use super::snapshot::TopicMetadata;
use crate::error::Error;
use crate::protocol::ErrorCode;
use crate::sync::MutexGuard;
use crate::time::{Clock, MonoTime};

/// Where a wait stands.
#[derive(Debug)]
pub(crate) enum Wait<T> {
    /// It is over, and this is what it was for.
    Ready(T),
    /// It is over in vain.
    Failed(Error),
    /// It goes on until something is published, or until `until` at the latest.
    Pending {
        until: MonoTime,
        /// Whether the sender has something new to look at: wake it.
        wake: bool,
    },
}

/// A call's wait for a topic, and for a partition if one was asked for.
///
/// It ends when the topic can be sent to; at once when the brokers refuse the topic, in an answer
/// that came after the wait began; when the producer ends; or at the deadline.
#[derive(Debug)]
pub(crate) struct TopicWait {
    topic: Arc<str>,
    partition: Option<i32>,
    bounds: Bounds,
    /// The version for which the sender was last asked for the topic.
    asked_at: Option<u64>,
    /// The version at the start: errors up to it are old, and are asked for again.
    since: Option<u64>,
}

/// A call's wait until a topic is known and a leader of one of its partitions was reached.
#[derive(Debug)]
pub(crate) struct LeaderWait {
    topic: TopicWait,
    /// What was published as the sender was last told that it is to connect. It forgets that once
    /// a leader is reached, which may be lost before this call has seen it.
    told_at: Option<(u64, u64)>,
}

/// A call's wait for the first answer of any broker.
#[derive(Debug)]
pub(crate) struct ReadyWait {
    bounds: Bounds,
}

#[derive(Debug)]
struct Bounds {
    started: MonoTime,
    deadline: MonoTime,
    /// The count of failures at the start: those up to it are old.
    failures: Option<u64>,
}

impl TopicWait {
    /// A wait that begins at `now`.
    pub(crate) fn new(
        topic: &str,
        partition: Option<i32>,
        now: MonoTime,
        deadline: MonoTime,
    ) -> Self {
        let bounds = Bounds { started: now, deadline, failures: None };
        Self { topic: topic.into(), partition, bounds, asked_at: None, since: None }
    }

    /// Decides; asks for the topic at the start and after each publication that did not bring it.
    #[cfg(test)]
    pub(crate) fn poll(&mut self, cell: &MetadataCell, now: MonoTime) -> Wait<Arc<TopicMetadata>> {
        self.decide(&mut cell.shared.lock(), now)
    }

    /// Decides, and waits for news, until it ends. `wake` is called without any lock held.
    ///
    /// # Errors
    /// `MetadataTimeout`, `InvalidTopic`, `Authorization`, `Closed`, `Fatal`, or what the
    /// sender failed all waits with.
    pub(crate) fn wait(
        &mut self,
        cell: &MetadataCell,
        clock: &Clock,
        wake: &dyn Fn(),
    ) -> Result<Arc<TopicMetadata>, Error> {
        block(cell, clock, wake, |shared, now| self.decide(shared, now))
    }

    fn decide(&mut self, shared: &mut Shared, now: MonoTime) -> Wait<Arc<TopicMetadata>> {
        if let Some(error) = &shared.ended {
            return Wait::Failed(error.clone());
        }
        if let Some(topic) = shared.sendable(&self.topic, self.partition) {
            return Wait::Ready(Arc::clone(topic));
        }
        let since = *self.since.get_or_insert(shared.version);
        let answer = shared.topic_errors.get(&self.topic).filter(|e| e.version > since);
        if let Some(error) = answer.and_then(|e| refused(&self.topic, e.code)) {
            return Wait::Failed(error);
        }
        if let Some(error) = self.bounds.failure(shared) {
            return Wait::Failed(error);
        }
        self.invariants(shared);
        let news = self.asked_at.replace(shared.version) != Some(shared.version);
        let wake = news && shared.ask(&self.topic);
        // A call that may not wait at all still starts the look-up, for those that follow: with
        // news for the sender it is pending once more, past its deadline.
        let until = self.until(shared);
        if now >= until && !wake {
            let cause = self.cause(shared);
            return Wait::Failed(self.bounds.timeout(&self.topic, now, cause));
        }
        Wait::Pending { until, wake }
    }

    /// When the wait is over: sooner for a topic that the brokers, asked since, say not to exist.
    fn until(&self, shared: &Shared) -> MonoTime {
        let answer = shared.topic_errors.get(&self.topic);
        let unknown = answer.filter(|e| e.code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        let unknown = unknown.filter(|e| self.since.is_some_and(|since| e.version > since));
        match unknown.and(shared.unknown_topic_timeout) {
            Some(limit) => self.bounds.deadline.min(self.bounds.started + limit),
            None => self.bounds.deadline,
        }
    }

    /// A wait has seen nothing that is yet to come, and asks only after it has begun.
    fn invariants(&self, shared: &Shared) {
        debug_assert!(self.since.is_none_or(|since| since <= shared.version), "{self:?}");
        debug_assert!(self.asked_at.is_none_or(|at| at <= shared.version), "{self:?}");
        debug_assert!(self.asked_at >= self.since || self.asked_at.is_none(), "{self:?}");
        self.bounds.invariants(shared);
    }

    /// What is known of why the topic is missing.
    fn cause(&self, shared: &Shared) -> Arc<str> {
        let topic = shared.cluster.topic(&self.topic);
        let mut text = match (topic, shared.topic_errors.get(&self.topic), self.partition) {
            (Some(topic), _, Some(partition)) => {
                format!("it has {} partitions, none is {partition}", topic.partition_count())
            }
            (_, Some(error), _) => {
                format!("the brokers answer {}{}", error.code, hint(error.code, shared))
            }
            _ if shared.cluster.bootstrap => match &shared.trouble {
                Some(trouble) => return Arc::clone(trouble),
                None => return "no broker has answered yet".into(),
            },
            _ => String::from("no broker has answered for it yet"),
        };
        if let Some(trouble) = &shared.trouble {
            text.push_str("; ");
            text.push_str(trouble);
        }
        text.into()
    }
}

/// What a topic's error is due to as a rule.
fn hint(code: ErrorCode, shared: &Shared) -> &'static str {
    match (code, shared.auto_create) {
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, true) => {
            " (it does not exist, and auto.create.topics.enable is off)"
        }
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, false) => {
            " (it does not exist, and allow.auto.create.topics is off)"
        }
        _ => "",
    }
}

impl LeaderWait {
    /// A wait that begins at `now`.
    pub(crate) fn new(topic: &str, now: MonoTime, deadline: MonoTime) -> Self {
        Self { topic: TopicWait::new(topic, None, now, deadline), told_at: None }
    }

    /// Decides.
    #[cfg(test)]
    pub(crate) fn poll(&mut self, cell: &MetadataCell, now: MonoTime) -> Wait<()> {
        self.decide(&mut cell.shared.lock(), now)
    }

    /// Decides, and waits for news, until it ends. `wake` is to have the sender connect to the
    /// topic's leaders; it is called without any lock held.
    ///
    /// # Errors
    /// As [`TopicWait::wait`].
    pub(crate) fn wait(
        &mut self,
        cell: &MetadataCell,
        clock: &Clock,
        wake: &dyn Fn(),
    ) -> Result<(), Error> {
        block(cell, clock, wake, |shared, now| self.decide(shared, now))
    }

    fn decide(&mut self, shared: &mut Shared, now: MonoTime) -> Wait<()> {
        let at = (shared.version, shared.reach_version);
        let topic = match self.topic.decide(shared, now) {
            Wait::Ready(topic) => topic,
            Wait::Failed(error) => return Wait::Failed(error),
            Wait::Pending { until, wake } => {
                if wake {
                    self.told_at = Some(at);
                }
                return Wait::Pending { until, wake };
            }
        };
        let mut leaders = topic.partitions.iter().filter_map(|partition| partition.leader);
        if leaders.any(|node| shared.reached.get(&node).is_some_and(|reached| reached.is_ok())) {
            return Wait::Ready(());
        }
        if let Some(error) = self.topic.bounds.failure(shared) {
            return Wait::Failed(error);
        }
        let wake = self.told_at.replace(at) != Some(at);
        self.invariants(shared);
        let bounds = &self.topic.bounds;
        if now >= bounds.deadline && !wake {
            return Wait::Failed(bounds.timeout(&topic.name, now, out_of_reach(&topic, shared)));
        }
        Wait::Pending { until: bounds.deadline, wake }
    }

    /// It has told of nothing that is yet to come, and of nothing before its topic's wait began.
    fn invariants(&self, shared: &Shared) {
        self.topic.bounds.invariants(shared);
        let is_past = |(version, reach): (u64, u64)| {
            version <= shared.version && reach <= shared.reach_version
        };
        debug_assert!(self.told_at.is_none_or(is_past), "{self:?}");
        let since = self.told_at.zip(self.topic.since);
        debug_assert!(since.is_none_or(|((told, _), since)| since <= told), "{self:?}");
    }
}

/// What is known of why no leader of a topic is reached.
fn out_of_reach(topic: &TopicMetadata, shared: &Shared) -> Arc<str> {
    let trouble = |node| shared.reached.get(&node)?.as_ref().err().cloned();
    let mut leaders = topic.partitions.iter().filter_map(|partition| partition.leader);
    let Some(first) = leaders.clone().next() else {
        // Of brokers that were all out of reach leaders are no longer known.
        let any = || shared.reached.values().find_map(|reached| reached.as_ref().err().cloned());
        let trouble = || shared.trouble.clone();
        let lost = if shared.cluster.bootstrap { any().or_else(trouble) } else { None };
        let count = topic.partition_count();
        return lost.unwrap_or_else(|| {
            format!("none of its partitions has a leader ({count} in all): are brokers down?")
                .into()
        });
    };
    leaders.find_map(trouble).unwrap_or_else(|| {
        format!("its leader {} was not reached yet", shared.cluster.name_of(first)).into()
    })
}

impl ReadyWait {
    /// A wait that begins at `now`.
    pub(crate) fn new(now: MonoTime, deadline: MonoTime) -> Self {
        Self { bounds: Bounds { started: now, deadline, failures: None } }
    }

    /// Decides.
    #[cfg(test)]
    pub(crate) fn poll(&mut self, cell: &MetadataCell, now: MonoTime) -> Wait<()> {
        self.decide(&cell.shared.lock(), now)
    }

    /// Decides, and waits for news, until it ends.
    ///
    /// # Errors
    /// As [`TopicWait::wait`], without those of a topic.
    pub(crate) fn wait(&mut self, cell: &MetadataCell, clock: &Clock) -> Result<(), Error> {
        block(cell, clock, &|| (), |shared, now| self.decide(shared, now))
    }

    fn decide(&mut self, shared: &Shared, now: MonoTime) -> Wait<()> {
        if let Some(error) = &shared.ended {
            return Wait::Failed(error.clone());
        }
        if !shared.cluster.bootstrap {
            return Wait::Ready(());
        }
        if let Some(error) = self.bounds.failure(shared) {
            return Wait::Failed(error);
        }
        self.bounds.invariants(shared);
        if now >= self.bounds.deadline {
            let cause = shared.trouble.clone();
            let cause = cause.unwrap_or_else(|| "no broker has answered yet".into());
            return Wait::Failed(self.bounds.timeout(&"*".into(), now, cause));
        }
        Wait::Pending { until: self.bounds.deadline, wake: false }
    }
}

impl Bounds {
    /// No failure was counted that is yet to come.
    fn invariants(&self, shared: &Shared) {
        debug_assert!(self.failures.is_none_or(|n| n <= shared.failures()), "{self:?}");
    }

    /// A failure that came after the wait began.
    fn failure(&mut self, shared: &Shared) -> Option<Error> {
        let before = *self.failures.get_or_insert(shared.failures());
        shared.failure.as_ref().filter(|(count, _)| *count >= before).map(|(_, e)| e.clone())
    }

    fn timeout(&self, topic: &Arc<str>, now: MonoTime, cause: Arc<str>) -> Error {
        let topic = Arc::clone(topic);
        Error::MetadataTimeout { topic, waited: now.since(self.started), cause }
    }
}

/// The shell of every wait: decides under the lock, and gives the lock up only to wait or to wake
/// the sender, so that no publication goes unseen in between.
fn block<T>(
    cell: &MetadataCell,
    clock: &Clock,
    wake_sender: &dyn Fn(),
    mut decide: impl FnMut(&mut Shared, MonoTime) -> Wait<T>,
) -> Result<T, Error> {
    let mut shared = cell.shared.lock();
    loop {
        let now = clock.now();
        match decide(&mut shared, now) {
            Wait::Ready(value) => return Ok(value),
            Wait::Failed(error) => return Err(error),
            Wait::Pending { wake: true, .. } => MutexGuard::unlocked(&mut shared, wake_sender),
            Wait::Pending { until, wake: false } => {
                cell.changed.wait_for(&mut shared, until.since(now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::metadata::snapshot::{Cluster, Node, PartitionMetadata};
    use crate::types::{NodeId, Uuid};

    const START: MonoTime = MonoTime::from_nanos(7_000_000_000);
    const MAX_BLOCK: Duration = Duration::from_secs(60);

    fn cell() -> MetadataCell {
        MetadataCell::new(Arc::new(Cluster::of_bootstrap_servers(&[("h".into(), 1)])))
    }

    /// A cluster that has answered, with this topic of two partitions, or without any.
    fn cluster(topic: Option<&str>) -> Arc<Cluster> {
        let mut cluster = Cluster::default();
        if let Some(name) = topic {
            let partitions = vec![PartitionMetadata::UNKNOWN; 2];
            cluster.insert_topic(TopicMetadata::new(name.into(), Uuid::ZERO, false, partitions));
        }
        Arc::new(cluster)
    }

    fn wait_for(partition: Option<i32>) -> TopicWait {
        TopicWait::new("t", partition, START, START + MAX_BLOCK)
    }

    fn is_pending(wait: &mut TopicWait, cell: &MetadataCell) -> bool {
        matches!(wait.poll(cell, START), Wait::Pending { until, .. } if until == START + MAX_BLOCK)
    }

    fn failure(wait: &mut TopicWait, cell: &MetadataCell, now: MonoTime) -> Error {
        match wait.poll(cell, now) {
            Wait::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }

    fn answer(cell: &MetadataCell, code: ErrorCode) {
        cell.track(&"t".into());
        cell.publish(cluster(None), &[("t".into(), code)], &[]);
    }

    fn cause(wait: &mut TopicWait, cell: &MetadataCell) -> String {
        wait.poll(cell, START);
        match failure(wait, cell, START + MAX_BLOCK) {
            Error::MetadataTimeout { topic, waited, cause } => {
                assert_eq!((&*topic, waited), ("t", MAX_BLOCK));
                cause.to_string()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wait_ends_when_the_topic_is_known() {
        let cell = cell();
        let mut wait = wait_for(None);
        assert!(is_pending(&mut wait, &cell));
        cell.publish(cluster(Some("u")), &[], &[]);
        assert!(is_pending(&mut wait, &cell));
        cell.publish(cluster(Some("t")), &[], &[]);
        assert!(matches!(wait.poll(&cell, START), Wait::Ready(topic) if &*topic.name == "t"));
    }

    #[test]
    fn a_wait_for_a_partition_ends_when_the_topic_has_it() {
        let cell = cell();
        cell.publish(cluster(Some("t")), &[], &[]);
        assert!(matches!(wait_for(Some(1)).poll(&cell, START), Wait::Ready(_)));
        let mut wait = wait_for(Some(2));
        assert!(is_pending(&mut wait, &cell));
        assert_eq!(cause(&mut wait, &cell), "it has 2 partitions, none is 2");
    }

    /// KP-04.
    #[test]
    fn a_wait_asks_at_its_start_and_after_each_answer_without_the_topic() {
        let cell = cell();
        let mut wait = wait_for(None);
        let mut asks = || match wait.poll(&cell, START) {
            Wait::Pending { wake, .. } => (wake, !cell.take_asked().topics.is_empty()),
            other => panic!("{other:?}"),
        };
        assert_eq!(asks(), (true, true));
        assert_eq!(asks(), (false, false));
        cell.publish(cluster(None), &[], &[]);
        assert_eq!(asks(), (true, true));
        assert_eq!(asks(), (false, false));
    }

    /// MD-27, MD-28.
    #[test]
    fn a_refusal_ends_waits_that_began_before_it_and_later_ones_ask_again() {
        for code in [
            ErrorCode::INVALID_TOPIC_EXCEPTION,
            ErrorCode::TOPIC_AUTHORIZATION_FAILED,
            ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
        ] {
            let cell = cell();
            let mut wait = wait_for(None);
            let mut other = TopicWait::new("u", None, START, START + MAX_BLOCK);
            assert!(is_pending(&mut wait, &cell) && is_pending(&mut other, &cell));
            answer(&cell, code);
            assert!(is_pending(&mut other, &cell), "it is another topic's");
            match failure(&mut wait, &cell, START) {
                Error::Authorization { code: c, .. } => assert_eq!(c, code),
                Error::InvalidTopic { .. } => {
                    assert_eq!(code, ErrorCode::INVALID_TOPIC_EXCEPTION);
                }
                other => panic!("{other:?}"),
            }
            cell.take_asked();
            let mut later = wait_for(None);
            assert!(is_pending(&mut later, &cell));
            assert!(!cell.take_asked().topics.is_empty());
            answer(&cell, code);
            failure(&mut later, &cell, START);
        }
    }

    #[test]
    fn errors_that_pass_do_not_end_a_wait_but_explain_its_time_out() {
        let cell = cell();
        let mut wait = wait_for(None);
        assert!(is_pending(&mut wait, &cell));
        answer(&cell, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert!(is_pending(&mut wait, &cell));
        cell.set_trouble("h:1 refused the connection");
        let cause = cause(&mut wait, &cell);
        assert!(cause.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{cause}");
        assert!(cause.contains("h:1 refused the connection"), "{cause}");
    }

    #[test]
    fn a_topic_that_is_not_created_is_told_with_the_setting_that_keeps_it_from_that() {
        let settings = [(true, "and auto.create.topics.enable is off)"), (false, "allow.auto.")];
        for (auto_create, setting) in settings {
            let bootstrap = Cluster::of_bootstrap_servers(&[("h".into(), 1)]);
            let cell = MetadataCell::with(Arc::new(bootstrap), None, auto_create);
            answer(&cell, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            let cause = cause(&mut wait_for(None), &cell);
            assert!(cause.contains(setting), "{cause}");
        }
    }

    #[test]
    fn a_time_out_before_any_answer_tells_of_the_network() {
        let cell = cell();
        assert_eq!(cause(&mut wait_for(None), &cell), "no broker has answered yet");
        cell.set_trouble("the name h does not resolve");
        assert_eq!(cause(&mut wait_for(None), &cell), "the name h does not resolve");
        cell.publish(cluster(None), &[], &[]);
        assert_eq!(cause(&mut wait_for(None), &cell), "no broker has answered for it yet");
    }

    #[test]
    fn a_call_that_may_not_wait_still_starts_the_look_up() {
        let cell = cell();
        let mut wait = TopicWait::new("t", None, START, START);
        assert!(matches!(wait.poll(&cell, START), Wait::Pending { wake: true, .. }));
        assert!(matches!(failure(&mut wait, &cell, START), Error::MetadataTimeout { .. }));
        assert_eq!(cell.take_asked().topics.len(), 1);
    }

    /// MD-12.
    #[test]
    fn a_failure_ends_the_waits_of_its_time_only() {
        let cell = cell();
        let (mut wait, mut ready) = (wait_for(None), ReadyWait::new(START, MonoTime::MAX));
        assert!(is_pending(&mut wait, &cell));
        assert!(matches!(ready.poll(&cell, START), Wait::Pending { .. }));
        let code = ErrorCode::SASL_AUTHENTICATION_FAILED;
        cell.fail_waiting(Error::Authorization { code, resource: "h:1".into() });
        assert!(is_pending(&mut wait_for(None), &cell));
        assert!(matches!(failure(&mut wait, &cell, START), Error::Authorization { .. }));
        assert!(matches!(ready.poll(&cell, START), Wait::Failed(Error::Authorization { .. })));
    }

    /// MD-10, MD-11.
    #[test]
    fn the_end_of_the_producer_ends_every_wait() {
        for end in [Error::Closed, Error::Fatal("defect".into())] {
            let cell = cell();
            cell.publish(cluster(Some("t")), &[], &[]);
            let mut begun = wait_for(Some(9));
            assert!(is_pending(&mut begun, &cell));
            cell.end(end.clone());
            for mut wait in [begun, wait_for(None)] {
                let error = failure(&mut wait, &cell, START);
                assert_eq!(error.to_string(), end.to_string());
            }
            let ready = ReadyWait::new(START, START).poll(&cell, START);
            assert!(matches!(ready, Wait::Failed(_)));
            // An answer that was on its way comes too late.
            cell.publish(cluster(Some("t")), &[], &[]);
            let error = failure(&mut wait_for(None), &cell, START);
            assert_eq!(error.to_string(), end.to_string());
        }
    }

    #[test]
    fn a_producer_is_ready_once_a_broker_has_answered() {
        let cell = cell();
        let mut wait = ReadyWait::new(START, START + MAX_BLOCK);
        assert!(matches!(wait.poll(&cell, START), Wait::Pending { .. }));
        cell.set_trouble("h:1 refused the connection");
        let late = wait.poll(&cell, START + MAX_BLOCK);
        let Wait::Failed(Error::MetadataTimeout { cause, .. }) = late else { panic!("{late:?}") };
        assert_eq!(&*cause, "h:1 refused the connection");
        cell.publish(cluster(None), &[], &[]);
        assert!(matches!(wait.poll(&cell, START), Wait::Ready(())));
    }

    /// With topic `t`, whose partition 1 is led by node 1, if by anybody.
    fn led(leader: Option<NodeId>) -> Arc<Cluster> {
        let mut cluster = Cluster::default();
        let host = Arc::from("h");
        let node = Node { id: NodeId(1), host, port: 9092, rack: None };
        cluster.set_nodes([(NodeId(1), node)].into());
        let partitions =
            vec![PartitionMetadata::UNKNOWN, PartitionMetadata { leader, leader_epoch: 0 }];
        cluster.insert_topic(TopicMetadata::new("t".into(), Uuid::ZERO, false, partitions));
        Arc::new(cluster)
    }

    /// Whether a wait that goes on has the sender look again.
    fn is_told(wait: Wait<()>) -> bool {
        match wait {
            Wait::Pending { wake, .. } => wake,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_wait_for_a_leader_ends_when_one_is_reached() {
        let cell = cell();
        let late = START + MAX_BLOCK;
        let mut wait = LeaderWait::new("t", START, late);
        let why = |wait: &mut LeaderWait| match wait.poll(&cell, late) {
            Wait::Failed(Error::MetadataTimeout { cause, .. }) => cause.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(matches!(wait.poll(&cell, START), Wait::Pending { wake: true, .. }));
        cell.publish(led(None), &[], &[]);
        assert!(is_told(wait.poll(&cell, START)));
        assert!(!is_told(wait.poll(&cell, START)), "it knows");
        assert!(why(&mut wait).starts_with("none of its partitions has a leader (2 in all)"));
        cell.publish(led(Some(NodeId(1))), &[], &[]);
        cell.set_reached([(NodeId(1), Ok(()))].into());
        // Lost again before the waiting thread had its turn: the sender looks for it no more.
        cell.set_reached([(NodeId(2), Ok(()))].into());
        assert!(is_told(wait.poll(&cell, START)));
        assert!(!is_told(wait.poll(&cell, START)));
        assert_eq!(why(&mut wait), "its leader h:9092 (id 1) was not reached yet");
        cell.set_reached([(NodeId(1), Err("refused".into()))].into());
        assert!(is_told(wait.poll(&cell, START)));
        assert_eq!(why(&mut wait), "refused");
        cell.set_reached([(NodeId(1), Ok(()))].into());
        assert!(matches!(wait.poll(&cell, late), Wait::Ready(())));
        let mut next = LeaderWait::new("t", START, START);
        assert!(matches!(next.poll(&cell, START), Wait::Ready(())));
        cell.set_reached([].into());
        let mut next = LeaderWait::new("t", START, START);
        assert!(matches!(next.poll(&cell, START), Wait::Pending { wake: true, .. }));
        assert!(matches!(next.poll(&cell, START), Wait::Failed(_)));
        let mut next = LeaderWait::new("t", START, late);
        next.poll(&cell, START);
        cell.close();
        assert!(matches!(next.poll(&cell, START), Wait::Failed(Error::Closed)));
    }

    /// MD-08.
    #[test]
    fn one_publication_wakes_all_waiting_threads_and_the_sender_is_woken_once() {
        const THREADS: usize = 4;
        let clock = Clock::system();
        for _ in 0..50 {
            let (cell, woken) = (cell(), AtomicUsize::new(0));
            let begun = Barrier::new(THREADS + 1);
            let wake = || {
                woken.fetch_add(1, Ordering::Relaxed);
            };
            thread::scope(|scope| {
                let wait = || {
                    let now = clock.now();
                    let deadline = now + Duration::from_secs(10);
                    let mut wait = TopicWait::new("t", None, now, deadline);
                    begun.wait();
                    let topic = wait.wait(&cell, &clock, &wake);
                    assert!(clock.now() < deadline, "it was the deadline that ended the wait");
                    topic.map(|topic| topic.partition_count())
                };
                let waits: Vec<_> = (0..THREADS).map(|_| scope.spawn(wait)).collect();
                begun.wait();
                while woken.load(Ordering::Relaxed) == 0 {
                    thread::yield_now();
                }
                cell.publish(cluster(Some("t")), &[], &[]);
                for wait in waits {
                    assert_eq!(wait.join().unwrap().unwrap(), 2);
                }
            });
            assert_eq!(woken.into_inner(), 1);
        }
    }

    /// MD-09.
    #[test]
    fn a_blocked_call_returns_at_its_deadline() {
        let (cell, clock) = (cell(), Clock::system());
        let now = clock.now();
        for deadline in [now, now + Duration::from_millis(5)] {
            let waited = TopicWait::new("t", None, now, deadline).wait(&cell, &clock, &|| ());
            assert!(matches!(waited, Err(Error::MetadataTimeout { .. })), "{waited:?}");
            assert!(clock.now() >= deadline);
            let waited = ReadyWait::new(now, deadline).wait(&cell, &clock);
            assert!(matches!(waited, Err(Error::MetadataTimeout { .. })), "{waited:?}");
        }
    }
}
