//! Waiting for metadata: values that decide (`TopicWait`, `ReadyWait`), which a simulator can step,
//! and the shell that loops them over the cell's condition variable on a user thread.

use std::sync::Arc;

use super::cell::{MetadataCell, Shared, refused};
use super::snapshot::TopicMetadata;
use crate::error::Error;
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
    pub(crate) fn poll(&mut self, cell: &MetadataCell, now: MonoTime) -> Wait<Arc<TopicMetadata>> {
        self.decide(&mut cell.shared.lock(), now)
    }

    /// Loops [`TopicWait::poll`] until it ends. `wake` is called without any lock held.
    ///
    /// # Errors
    /// `MetadataTimeout`, `InvalidTopic`, `Authorization`, `Closed`, `Fatal`, or what was given to
    /// [`MetadataCell::fail_waiting`].
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
        let news = self.asked_at.replace(shared.version) != Some(shared.version);
        let wake = news && shared.ask(&self.topic);
        // A call that may not wait at all still starts the look-up, for those that follow: with
        // news for the sender it is pending once more, past its deadline.
        if now >= self.bounds.deadline && !wake {
            let cause = self.cause(shared);
            return Wait::Failed(self.bounds.timeout(&self.topic, now, cause));
        }
        Wait::Pending { until: self.bounds.deadline, wake }
    }

    /// What is known of why the topic is missing.
    fn cause(&self, shared: &Shared) -> Arc<str> {
        let topic = shared.cluster.topic(&self.topic);
        let mut text = match (topic, shared.topic_errors.get(&self.topic), self.partition) {
            (Some(topic), _, Some(partition)) => {
                format!("it has {} partitions, none is {partition}", topic.partition_count())
            }
            (_, Some(error), _) => format!("the brokers answer {}", error.code),
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

impl ReadyWait {
    /// A wait that begins at `now`.
    pub(crate) fn new(now: MonoTime, deadline: MonoTime) -> Self {
        Self { bounds: Bounds { started: now, deadline, failures: None } }
    }

    /// Decides.
    pub(crate) fn poll(&mut self, cell: &MetadataCell, now: MonoTime) -> Wait<()> {
        self.decide(&cell.shared.lock(), now)
    }

    /// Loops [`ReadyWait::poll`] until it ends.
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
        if now >= self.bounds.deadline {
            let cause = shared.trouble.clone();
            let cause = cause.unwrap_or_else(|| "no broker has answered yet".into());
            return Wait::Failed(self.bounds.timeout(&"*".into(), now, cause));
        }
        Wait::Pending { until: self.bounds.deadline, wake: false }
    }
}

impl Bounds {
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
