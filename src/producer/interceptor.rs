//! Interceptors: user code that sees each record before anything else does, and hears what became
//! of it.
//!
//! `on_send` runs on the thread that sends. Acknowledgements run where callbacks do, right before
//! the record's own callback, or, of a record that was refused, on the thread that sent it. What
//! an interceptor does wrong is logged and harms nobody.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::time::Duration;

use super::core::Core;
use super::record::{Headers, TopicRecord};
use crate::accumulator::Patience;
use crate::claims;
use crate::completion::{Callback, Delivery, RecordMetadata, Watched, guarded, log_now};
use crate::error::Error;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex};
use crate::threads::Process;
use crate::time::{Clock, MonoTime};

/// User code around each send, as Java's interface of this name (KIP-42); added by
/// [`ProducerBuilder::interceptor`](crate::ProducerBuilder::interceptor).
///
/// Interceptors form a chain: each gets the record as the one before it left it. For each record
/// that an interceptor was shown in `on_send`, its `on_acknowledgement` is called exactly once:
/// when the record is delivered or has failed, or when the send refuses it. Its
/// [`State`](Self::State) is handed from the one to the other. Once the producer is closed, sends
/// are refused before an interceptor sees them.
///
/// All threads that send call `on_send` at the same time. Acknowledgements run as callbacks do: of
/// one partition one at a time and in order, and bounded by `callback.max.pending`; so slow ones
/// hold callbacks up, and in the end the sends, but never the sending thread's work. With
/// [`Callbacks::Inline`](crate::Callbacks::Inline) that promise is off, for them too. Panics are
/// caught. What goes wrong is logged, at most once a second.
///
/// ```
/// use kafka_producer::{Acknowledgement, InterceptedRecord, InterceptorError};
/// use kafka_producer::{KafkaProducer, ProducerInterceptor};
///
/// /// Marks records with where they come from.
/// struct Origin;
///
/// impl ProducerInterceptor for Origin {
///     type State = usize;
///
///     fn on_send(&self, record: &mut InterceptedRecord<'_>) -> Result<usize, InterceptorError> {
///         record.headers.push("origin", b"till-7");
///         Ok(record.value.as_ref().map_or(0, |value| value.len()))
///     }
///
///     fn on_acknowledgement(&self, size: Option<usize>, ack: &Acknowledgement<'_>) {
///         if let (Some(size), Err(error)) = (size, ack.result) {
///             println!("{size} bytes for {} are lost: {error}", ack.topic);
///         }
///     }
/// }
///
/// let builder = KafkaProducer::builder().bootstrap_servers("localhost:9092").interceptor(Origin);
/// # drop(builder);
/// ```
pub trait ProducerInterceptor: Send + Sync {
    /// What this interceptor keeps of a record until its end: a span, say, or when it was sent.
    /// `()` for nothing.
    type State: Send + 'static;

    /// A record is about to be sent. It may be changed in every respect; what is changed is what is
    /// checked, given a partition, and sent.
    ///
    /// # Errors
    /// Any: it is logged, and the record goes on as this interceptor found it.
    fn on_send(&self, record: &mut InterceptedRecord<'_>) -> Result<Self::State, InterceptorError>;

    /// The record's fate. `state` is what `on_send` returned for it; `None` if that failed.
    fn on_acknowledgement(
        &self,
        state: Option<Self::State>,
        acknowledgement: &Acknowledgement<'_>,
    ) {
        let _ = (state, acknowledgement);
    }

    /// The producer is closed. Called once, on the thread that closes it; if the last
    /// [`KafkaProducer`](crate::KafkaProducer) is dropped inside a callback, which waits for
    /// nothing, when the last [`TopicProducer`](crate::TopicProducer) and the last callback are
    /// gone too.
    ///
    /// A record that was on its way through `send` meanwhile may still be shown and refused.
    /// No acknowledgement comes any more if the close was in time. Of what
    /// [`callbacks_left`](crate::CloseReport::callbacks_left) counts, interceptors are told all the
    /// same, and of the records' true fates, on the callback threads that the close has left to
    /// themselves: as soon as the callback returns that such a thread is in, and never if it does
    /// not.
    fn on_close(&self) {}
}

/// Why an interceptor's `on_send` failed; made by `?` from any error or text.
pub type InterceptorError = Box<dyn StdError + Send + Sync>;

/// A record as interceptors see it, before it is checked or given a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterceptedRecord<'a> {
    /// The topic that it is for.
    pub topic: Cow<'a, str>,
    /// The partition that it asks for, if any.
    pub partition: Option<i32>,
    /// The key; `None` is Kafka's null.
    pub key: Option<Cow<'a, [u8]>>,
    /// The value; `None` is Kafka's null, a tombstone.
    pub value: Option<Cow<'a, [u8]>>,
    /// The headers, in order.
    pub headers: Headers<'a>,
    /// The timestamp that was set, in milliseconds since 1970; without one the record gets the
    /// time of the send.
    pub timestamp: Option<i64>,
}

/// What an interceptor is told of a record's end.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Acknowledgement<'a> {
    /// The topic that the record was for, after all interceptors.
    pub topic: &'a str,
    /// The partition that the record got or asked for; `None` if it asked for none and was refused
    /// before it had one for good, as for want of memory or of a callback's slot.
    pub partition: Option<i32>,
    /// Where it lies, or why it failed or was refused.
    pub result: Result<&'a RecordMetadata, &'a Error>,
}

impl<'a> InterceptedRecord<'a> {
    fn new(topic: &'a str, record: &TopicRecord<'a>) -> Self {
        Self {
            topic: Cow::Borrowed(topic),
            partition: record.partition,
            key: record.key.map(Cow::Borrowed),
            value: record.value.map(Cow::Borrowed),
            headers: record.headers.clone(),
            timestamp: record.timestamp,
        }
    }

    /// The same record, which borrows all from this one.
    fn lend(&self) -> InterceptedRecord<'_> {
        InterceptedRecord {
            topic: Cow::Borrowed(&self.topic),
            partition: self.partition,
            key: self.key.as_deref().map(Cow::Borrowed),
            value: self.value.as_deref().map(Cow::Borrowed),
            headers: self.headers.lend(),
            timestamp: self.timestamp,
        }
    }
}

/// A producer's interceptors.
pub(crate) struct Interceptors {
    chain: Vec<Named>,
    clock: Clock,
    /// When a fault was last logged, in nanoseconds; `u64::MAX` if none was.
    logged_at: AtomicU64,
    /// Faults since then.
    unlogged: AtomicU64,
    closed: AtomicBool,
    /// Whose producer it is: in a forked child nothing ends.
    process: Process,
}

/// An interceptor and its type's name, for the log.
#[derive(Clone)]
pub(super) struct Named {
    name: &'static str,
    interceptor: Arc<dyn Erased>,
}

/// What one interceptor keeps of one record; `None` if its `on_send` failed.
type Kept = Option<Box<dyn Any + Send>>;

/// A [`ProducerInterceptor`] without the type of its states.
trait Erased: Send + Sync {
    fn on_send(&self, record: &mut InterceptedRecord<'_>) -> Result<Kept, InterceptorError>;
    fn on_acknowledgement(&self, kept: Kept, acknowledgement: &Acknowledgement<'_>);
    fn on_close(&self);
}

impl<I: ProducerInterceptor> Erased for I {
    fn on_send(&self, record: &mut InterceptedRecord<'_>) -> Result<Kept, InterceptorError> {
        Ok(Some(Box::new(ProducerInterceptor::on_send(self, record)?)))
    }

    fn on_acknowledgement(&self, kept: Kept, acknowledgement: &Acknowledgement<'_>) {
        let state = kept.and_then(|kept| kept.downcast::<I::State>().ok());
        let state = state.map(|state| *state);
        ProducerInterceptor::on_acknowledgement(self, state, acknowledgement);
    }

    fn on_close(&self) {
        ProducerInterceptor::on_close(self);
    }
}

impl Named {
    pub(super) fn new<I: ProducerInterceptor + 'static>(interceptor: I) -> Self {
        Self { name: std::any::type_name::<I>(), interceptor: Arc::new(interceptor) }
    }
}

impl Interceptors {
    /// `None` without any, so that there is nothing to ask.
    pub(super) fn new(chain: &[Named], clock: &Clock, process: Process) -> Option<Arc<Self>> {
        (!chain.is_empty()).then(|| {
            Arc::new(Self {
                chain: chain.to_vec(),
                clock: clock.clone(),
                logged_at: AtomicU64::new(u64::MAX),
                unlogged: AtomicU64::new(0),
                closed: AtomicBool::new(false),
                process,
            })
        })
    }

    /// Shows the record to all, and goes on with what they made of it and what they keep of it.
    fn on_send<R>(
        &self,
        record: &InterceptedRecord<'_>,
        go_on: impl FnOnce(&InterceptedRecord<'_>, Vec<Kept>) -> R,
    ) -> R {
        self.show(&self.chain, record, Vec::with_capacity(self.chain.len()), go_on)
    }

    /// Shows the record to the rest of the chain. Each gets one that borrows from the last one's,
    /// which stays for the next should this one spoil its own: nothing is copied for that.
    fn show<R>(
        &self,
        chain: &[Named],
        record: &InterceptedRecord<'_>,
        mut all_kept: Vec<Kept>,
        go_on: impl FnOnce(&InterceptedRecord<'_>, Vec<Kept>) -> R,
    ) -> R {
        let Some((named, rest)) = chain.split_first() else { return go_on(record, all_kept) };
        let mut lent = record.lend();
        let mut outcome = Ok(None);
        let called = guarded(|| outcome = named.interceptor.on_send(&mut lent));
        let fault = match (called, outcome) {
            (Ok(()), Ok(kept)) => {
                all_kept.push(kept);
                return self.show(rest, &lent, all_kept, go_on);
            }
            (Ok(()), Err(error)) => format!("failed in on_send: {error}"),
            (Err(panic), _) => format!("panicked in on_send: {panic}"),
        };
        drop(lent);
        self.log_fault(named, &fault);
        all_kept.push(None);
        self.show(rest, record, all_kept, go_on)
    }

    /// They have seen a record, and are to hear of its end.
    fn seen(self: &Arc<Self>, record: &InterceptedRecord<'_>, kept: Vec<Kept>) -> Seen {
        let seen = Seen {
            interceptors: Arc::clone(self),
            kept: Mutex::new(Some(kept)),
            topic: record.topic.as_ref().into(),
            partition: record.partition,
        };
        seen.invariants();
        seen
    }

    fn on_acknowledgement(&self, kept: Vec<Kept>, ack: &Acknowledgement<'_>) {
        for (named, kept) in self.chain.iter().zip(kept) {
            if let Err(panic) = guarded(|| named.interceptor.on_acknowledgement(kept, ack)) {
                self.log_fault(named, &format!("panicked in on_acknowledgement: {panic}"));
            }
        }
    }

    /// Tells all of the producer's end, the first time that it is called.
    pub(super) fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        for named in &self.chain {
            if let Err(panic) = guarded(|| named.interceptor.on_close()) {
                self.log_fault(named, &format!("panicked in on_close: {panic}"));
            }
        }
    }

    /// One line a second at most: a broken interceptor fails for each record.
    fn log_fault(&self, named: &Named, fault: &str) {
        if let Some(before) = self.may_log(self.clock.now()) {
            let name = named.name;
            let more =
                if before > 0 { format!(" (and {before} faults more)") } else { String::new() };
            log_now(log::Level::Warn, &format!("the interceptor {name} {fault}{more}"));
        }
    }

    /// Once a fault was logged one always was: the others are counted from there.
    fn invariants(&self) {
        let has_logged = self.logged_at.load(Ordering::Relaxed) != u64::MAX;
        debug_assert!(has_logged, "{} faults are untold", self.unlogged.load(Ordering::Relaxed));
    }

    /// Whether a fault is to be logged now, and if so how many were not since the last one.
    fn may_log(&self, now: MonoTime) -> Option<u64> {
        const PAUSE: Duration = Duration::from_secs(1);
        let is_due = |last: u64| {
            let due = last == u64::MAX || MonoTime::from_nanos(last) + PAUSE <= now;
            due.then_some(now.as_nanos())
        };
        let due = self.logged_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due);
        self.invariants();
        match due {
            Ok(_) => Some(self.unlogged.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.unlogged.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

/// The last handle may have been dropped inside a callback, where a close waits for nothing.
impl Drop for Interceptors {
    fn drop(&mut self) {
        if self.process.check().is_ok() {
            self.close();
        }
    }
}

/// A record that interceptors have seen and not yet heard of.
struct Seen {
    interceptors: Arc<Interceptors>,
    /// `None` once its fate was told.
    kept: Mutex<Option<Vec<Kept>>>,
    topic: Box<str>,
    partition: Option<i32>,
}

impl Seen {
    /// Until its fate is told there is a place for what each of the chain keeps.
    fn invariants(&self) {
        if claims::are_checked() {
            let kept = self.kept.lock().as_ref().map(Vec::len);
            assert!(kept.is_none_or(|kept| kept == self.interceptors.chain.len()), "{kept:?}");
        }
    }

    /// Tells the record's fate, the first time that it is called.
    fn tell(&self, result: Result<&RecordMetadata, &Error>) {
        let Some(kept) = self.kept.lock().take() else { return };
        let (topic, partition) = match result {
            Ok(metadata) => (metadata.topic(), Some(metadata.partition())),
            Err(Error::Delivery(failure)) => {
                let place = &failure.topic_partition;
                (&*place.topic, Some(place.partition))
            }
            Err(Error::BufferShareExhausted { topic, partition, .. }) => {
                (&**topic, Some(*partition))
            }
            Err(_) => (&*self.topic, self.partition),
        };
        let ack = Acknowledgement { topic, partition, result };
        self.interceptors.on_acknowledgement(kept, &ack);
    }
}

/// The watcher's share in it. Where a batch is lost by a defect of ours, nobody else tells.
struct ToldWhenDropped(Arc<Seen>);

impl Drop for ToldWhenDropped {
    fn drop(&mut self) {
        self.0.tell(Err(&Error::Closed));
    }
}

impl Core {
    /// A send of a producer with interceptors: they come first, and hear of a refusal here. The
    /// callback is taken if the record is in.
    #[cold]
    pub(super) fn send_intercepted(
        &self,
        interceptors: &Arc<Interceptors>,
        (name, record): (&str, &TopicRecord<'_>),
        callback: &mut Option<Callback>,
        patience: &mut Patience,
    ) -> Result<Delivery, Error> {
        // Nobody hears of what comes after the end.
        if self.executor.slots().is_closed() {
            return Err(self.explain(Error::Closed));
        }
        interceptors.on_send(&InterceptedRecord::new(name, record), |record, kept| {
            self.send_seen(record, interceptors.seen(record, kept), callback, patience)
        })
    }

    /// Sends what the interceptors made of a record.
    fn send_seen(
        &self,
        shown: &InterceptedRecord<'_>,
        seen: Seen,
        callback: &mut Option<Callback>,
        patience: &mut Patience,
    ) -> Result<Delivery, Error> {
        let InterceptedRecord { topic, partition, key, value, headers, timestamp } = shown;
        let record = TopicRecord {
            key: key.as_deref(),
            value: value.as_deref(),
            headers: headers.lend(),
            partition: *partition,
            timestamp: *timestamp,
        };
        let seen = Arc::new(seen);
        let hears = ToldWhenDropped(Arc::clone(&seen));
        let watcher = Box::new(move |fate: Result<&_, &_>| hears.0.tell(fate));
        let watched = Watched { watcher, callback: callback.take() };
        let mut watched = Some(Callback::Watched(Box::new(watched)));
        let sent = match self.accumulator.topics.find(topic) {
            Some(topic) => self.send_to_known(&topic, &record, &mut watched, patience),
            None => self.send_to_unknown(topic, &record, &mut watched, patience),
        };
        // While the watcher is still here: if it was not taken its drop would tell less.
        let sent = sent.inspect_err(|error| seen.tell(Err(error)));
        if let Some(Callback::Watched(refused)) = watched {
            *callback = refused.callback;
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Idle;

    impl ProducerInterceptor for Idle {
        type State = ();

        fn on_send(&self, _: &mut InterceptedRecord<'_>) -> Result<(), InterceptorError> {
            Ok(())
        }
    }

    /// Counts how often it is closed.
    struct Closes(Arc<AtomicU64>);

    impl ProducerInterceptor for Closes {
        type State = ();

        fn on_send(&self, _: &mut InterceptedRecord<'_>) -> Result<(), InterceptorError> {
            Ok(())
        }

        fn on_close(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The producer lives on in the parent.
    #[test]
    fn what_a_forked_child_drops_is_not_closed() {
        let closes = Arc::new(AtomicU64::new(0));
        for (process, told) in [(Process::another(), 0), (Process::current(), 1)] {
            let chain = [Named::new(Closes(Arc::clone(&closes)))];
            drop(Interceptors::new(&chain, &Clock::system(), process));
            assert_eq!(closes.load(Ordering::Relaxed), told);
        }
    }

    #[test]
    fn faults_are_logged_once_a_second_and_counted_meanwhile() {
        let chain =
            Interceptors::new(&[Named::new(Idle)], &Clock::system(), Process::current()).unwrap();
        let at = |millis| chain.may_log(MonoTime::ZERO + Duration::from_millis(millis));
        assert_eq!([at(0), at(1), at(999)], [Some(0), None, None]);
        assert_eq!([at(1_000), at(1_500), at(2_500)], [Some(2), None, Some(1)]);
    }
}
