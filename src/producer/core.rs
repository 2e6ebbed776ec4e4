//! What all handles of a producer share: the way of a record up to its batch.

use std::time::Duration;

use super::close::CloseReport;
use super::interceptor::Interceptors;
use super::partitioner::{self, BuiltInRules, Choice, ClusterView, PartitionInput, Partitioner};
use super::record::{TopicRecord, validate_topic};
use crate::accumulator::inbox::Event;
use crate::accumulator::queue::Append;
use crate::accumulator::topic_map::Topic;
use crate::accumulator::{Patience, RecordAccumulator};
use crate::client::ResolverThread;
use crate::completion::{
    BatchResult, Callback, CallbackExecutor, Delivery, FlushWait, PendingCallback, RecordFacts,
    guarded, refuse_in_callback, refuse_in_inline_callback,
};
use crate::error::Error;
use crate::metadata::{MetadataCell, TopicMetadata, TopicWait};
use crate::record::{RecordData, estimate_size_upper_bound};
use crate::sender::thread::Ending;
use crate::sync::thread::JoinHandle;
use crate::sync::{Arc, Mutex, OnceLock};
use crate::threads::Process;
use crate::time::{Clock, MonoTime};

/// The shared middle of a producer. Handles, topic handles and the builder hold it; it holds no
/// handle, so that the last handle's drop is the producer's end.
pub(crate) struct Core {
    pub(super) accumulator: Arc<RecordAccumulator>,
    pub(super) metadata: Arc<MetadataCell>,
    pub(super) executor: Arc<CallbackExecutor>,
    pub(super) rules: BuiltInRules,
    pub(super) partitioner: Option<Arc<dyn Partitioner>>,
    pub(super) interceptors: Option<Arc<Interceptors>>,
    pub(super) max_block: Duration,
    pub(super) max_request_size: usize,
    /// No record is surely sound if it is larger: the smaller of `max.request.size` and
    /// `buffer.memory`, or 0 with interceptors, which each record has to pass first.
    pub(super) max_plain_size: usize,
    pub(super) close_on_drop_timeout: Duration,
    pub(super) clock: Clock,
    /// The name of the producer, and when it was started, by the wall clock: for metrics.
    pub(super) client_id: Arc<str>,
    pub(super) start_time_ms: i64,
    pub(super) process: Process,
    pub(super) ending: Arc<Ending>,
    pub(super) sender_thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) resolver: ResolverThread,
    pub(super) report: OnceLock<CloseReport>,
}

impl Core {
    /// How long a call may wait: `max.block.ms`, or not at all where a wait could not end.
    #[inline]
    pub(super) fn patience(&self) -> Patience {
        Patience::For(self.max_block)
    }

    /// From the topic's name to the batch.
    #[inline]
    pub(super) fn send(
        &self,
        name: &str,
        record: &TopicRecord<'_>,
        patience: &mut Patience,
    ) -> Result<Delivery, Error> {
        match self.accumulator.topics.find(name) {
            Some(topic) => self.send_to(&topic, record, patience),
            None => self.send_to_new(name, record, &mut None, patience),
        }
    }

    /// As [`send`](Self::send), with a callback in place of the handle. It is taken if the record
    /// is in.
    pub(super) fn send_with(
        &self,
        name: &str,
        record: &TopicRecord<'_>,
        callback: &mut Option<Callback>,
        patience: &mut Patience,
    ) -> Result<(), Error> {
        match self.accumulator.topics.find(name) {
            Some(topic) => self.send_to_with(&topic, record, callback, patience),
            None => self.send_to_new(name, record, callback, patience).map(drop),
        }
    }

    /// As [`send_with`](Self::send_with), with a handle beside the callback.
    #[cfg(test)]
    pub(super) fn send_observed(
        &self,
        name: &str,
        record: &TopicRecord<'_>,
        callback: Callback,
        patience: &mut Patience,
    ) -> Result<Delivery, Error> {
        match self.accumulator.topics.find(name) {
            Some(topic) => self.send_by_all_means(&topic, record, &mut Some(callback), patience),
            None => self.send_to_new(name, record, &mut Some(callback), patience),
        }
    }

    #[cold]
    fn send_to_new(
        &self,
        name: &str,
        record: &TopicRecord<'_>,
        callback: &mut Option<Callback>,
        patience: &mut Patience,
    ) -> Result<Delivery, Error> {
        let sent = match &self.interceptors {
            Some(chain) => self.send_intercepted(chain, (name, record), callback, patience),
            None => self.send_to_unknown(name, record, callback, patience),
        };
        sent.inspect_err(|error| self.count_refusal(error, patience))
    }

    /// To a topic that has to be asked for first. The callback is taken if the record is in.
    pub(super) fn send_to_unknown(
        &self,
        name: &str,
        record: &TopicRecord<'_>,
        callback: &mut Option<Callback>,
        patience: &mut Patience,
    ) -> Result<Delivery, Error> {
        record.validate()?;
        let topic = self.find_topic(name, record.partition, patience)?;
        self.send_to_known(&topic, record, callback, patience)
    }

    /// From the topic to the batch.
    #[inline]
    pub(super) fn send_to(
        &self,
        topic: &Topic,
        record: &TopicRecord<'_>,
        patience: &mut Patience,
    ) -> Result<Delivery, Error> {
        let mut timestamp = 0;
        match self.send_plainly(topic, record, &mut timestamp) {
            Some((result, index)) => {
                let facts = RecordFacts::new(index, timestamp, record.key, record.value);
                Ok(Delivery::new(result, facts))
            }
            None => self.send_by_all_means(topic, record, &mut None, patience),
        }
    }

    /// As [`send_to`](Self::send_to), with a callback in place of the handle.
    pub(super) fn send_to_with(
        &self,
        topic: &Topic,
        record: &TopicRecord<'_>,
        callback: &mut Option<Callback>,
        patience: &mut Patience,
    ) -> Result<(), Error> {
        match self.send_plainly_with(topic, record, callback) {
            Some(()) => Ok(()),
            None => self.send_by_all_means(topic, record, callback, patience).map(drop),
        }
    }

    /// The way of nearly all records: into the open batch of a partition that needs no choice. At
    /// anything out of the ordinary nothing is done.
    ///
    /// The parts of a handle, in registers and one by one: one that is put together here and moved
    /// on would be read while its stores are still under way, behind those of the record.
    fn send_plainly(
        &self,
        topic: &Topic,
        record: &TopicRecord<'_>,
        timestamp: &mut i64,
    ) -> Option<(Arc<BatchResult>, u32)> {
        let (partition, mut append) = self.plain(topic, record)?;
        topic.queue(partition).append_to_open(&mut append, &self.clock, |batch, facts| {
            *timestamp = facts.timestamp();
            (Arc::clone(&batch.result), facts.index)
        })
    }

    /// As [`send_plainly`](Self::send_plainly); takes the callback if the record is in.
    fn send_plainly_with(
        &self,
        topic: &Topic,
        record: &TopicRecord<'_>,
        callback: &mut Option<Callback>,
    ) -> Option<()> {
        let (partition, mut append) = self.plain(topic, record)?;
        let slot = self.executor.slots().try_acquire()?;
        topic.queue(partition).append_to_open(&mut append, &self.clock, |batch, facts| {
            batch.callbacks.extend(callback.take().map(|run| PendingCallback::new(facts, run)));
        })?;
        slot.keep();
        Some(())
    }

    /// The record ready to be appended, if it is surely sound and its partition is plain.
    #[inline(always)]
    fn plain<'r>(&self, topic: &Topic, record: &'r TopicRecord<'_>) -> Option<(u32, Append<'r>)> {
        if !self.is_surely_small(record) || record.validate().is_err() {
            return None;
        }
        let (partition, sticky) = self.plain_partition(topic, record)?;
        Some((partition, append_of(record, sticky)))
    }

    /// The way of all records: interceptors, and then the rest.
    #[inline(never)]
    fn send_by_all_means(
        &self,
        topic: &Topic,
        record: &TopicRecord<'_>,
        callback: &mut Option<Callback>,
        patience: &mut Patience,
    ) -> Result<Delivery, Error> {
        let sent = match &self.interceptors {
            Some(chain) => self.send_intercepted(chain, (&topic.name, record), callback, patience),
            None => self.send_to_known(topic, record, callback, patience),
        };
        sent.inspect_err(|error| self.count_refusal(error, patience))
    }

    /// Sizes, the partition, the callback's slot, the append; waits where there is something to
    /// wait for. The callback is taken if the record is in.
    pub(super) fn send_to_known(
        &self,
        topic: &Topic,
        record: &TopicRecord<'_>,
        callback: &mut Option<Callback>,
        patience: &mut Patience,
    ) -> Result<Delivery, Error> {
        record.validate()?;
        self.check_size(record)?;
        let (partition, sticky) = self.partition(topic, record, patience)?;
        let slot = match callback {
            Some(_) => Some(self.take_slot(patience)?),
            None => None,
        };
        let mut append = append_of(record, sticky);
        let open =
            topic.queue(partition).append_to_open(&mut append, &self.clock, |batch, facts| {
                batch.enter(facts, callback)
            });
        let delivery = match open {
            Some(delivery) => delivery,
            None => self
                .accumulator
                .append(topic, partition, &mut append, callback, patience)
                .map_err(|error| self.explain(error))?,
        };
        if let Some(slot) = slot {
            slot.keep();
        }
        Ok(delivery)
    }

    /// Whatever was closed was closed for a reason.
    pub(super) fn explain(&self, error: Error) -> Error {
        match error {
            Error::Closed => self.metadata.ended().unwrap_or(Error::Closed),
            other => other,
        }
    }

    #[inline]
    fn is_surely_small(&self, record: &TopicRecord<'_>) -> bool {
        // More than all overhead of a record without headers.
        const OVERHEAD: usize = 128;
        let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        bytes + OVERHEAD <= self.max_plain_size && record.headers.is_empty()
    }

    fn check_size(&self, record: &TopicRecord<'_>) -> Result<(), Error> {
        let (key, value) = (record.key.map(<[u8]>::len), record.value.map(<[u8]>::len));
        let size = estimate_size_upper_bound(key, value, record.headers.as_slice());
        let too_large = |limit, setting| Err(Error::RecordTooLarge { size, limit, setting });
        if size > self.max_request_size {
            return too_large(self.max_request_size, "max.request.size");
        }
        let memory = self.accumulator.pool.total();
        if size > memory {
            return too_large(memory, "buffer.memory");
        }
        Ok(())
    }

    fn take_slot(&self, patience: &mut Patience) -> Result<crate::completion::Slot<'_>, Error> {
        let slots = self.executor.slots();
        if let Some(slot) = slots.try_acquire() {
            return Ok(slot);
        }
        match self.begin_wait(patience)? {
            Some((_, deadline)) => {
                slots.acquire(&self.clock, deadline).map_err(|error| self.explain(error))
            }
            None => Err(Error::CallbackBacklogFull { waited: Duration::ZERO }),
        }
    }

    /// The partition, and whether it is the topic's sticky one, if nothing is to be waited for and
    /// nobody to be asked.
    #[inline(always)]
    fn plain_partition(&self, topic: &Topic, record: &TopicRecord<'_>) -> Option<(u32, bool)> {
        let count = topic.partition_count();
        match record.partition {
            Some(partition) => {
                let partition = partition as u32;
                (partition < count).then_some((partition, false))
            }
            None if self.partitioner.is_some() || count == 0 => None,
            None if self.rules.is_sticky(record.key) => Some((topic.sticky_partition(), true)),
            None if self.rules.goes_by_key() => {
                let partition = self.rules.by_key(record.key?, count as i32);
                Some((partition as u32, false))
            }
            None => None,
        }
    }

    /// The partition, and whether it is the topic's sticky one.
    fn partition(
        &self,
        topic: &Topic,
        record: &TopicRecord<'_>,
        patience: &mut Patience,
    ) -> Result<(u32, bool), Error> {
        if let Some(plain) = self.plain_partition(topic, record) {
            return Ok(plain);
        }
        let explicit = record.partition;
        let count = topic.partition_count();
        if count == 0 || explicit.is_some_and(|partition| partition as u32 >= count) {
            self.find_topic(&topic.name, explicit, patience)?;
        }
        match explicit {
            Some(partition) => Ok((partition as u32, false)),
            None => self.choose_partition(topic, record),
        }
    }

    fn choose_partition(
        &self,
        topic: &Topic,
        record: &TopicRecord<'_>,
    ) -> Result<(u32, bool), Error> {
        let available = topic.available();
        let count = topic.partition_count().max(1) as i32;
        let view = ClusterView::new(count, &available);
        let choice = match &self.partitioner {
            Some(partitioner) => {
                let input = PartitionInput::new(&topic.name, record.key, record.value)
                    .with_headers(&record.headers);
                // The user's rule may panic: that is this send's failure and no other's.
                let mut chosen = Ok(0);
                guarded(|| chosen = partitioner::ask(&**partitioner, &input, &view)).map_err(
                    |panic| {
                        let text = format!("the partitioner panicked for {}: {panic}", topic.name);
                        Error::InvalidRecord(text.into())
                    },
                )?;
                Choice::Partition(chosen?)
            }
            None => self.rules.choose(record.key, &view, || topic.draw(), || topic.next_turn()),
        };
        match choice {
            Choice::Partition(partition) => Ok((partition as u32, false)),
            Choice::Sticky => Ok((topic.sticky_partition(), true)),
        }
    }

    /// The topic once it can be sent to, with `partition` if one is asked for.
    pub(super) fn find_topic(
        &self,
        name: &str,
        partition: Option<i32>,
        patience: &mut Patience,
    ) -> Result<Arc<Topic>, Error> {
        let metadata = self.wait_for_topic(name, partition, patience)?;
        let topic = self.accumulator.topics.find_or_add(name);
        // A later answer may have come before the sender could see the topic.
        let metadata = self.metadata.try_topic(name, partition).unwrap_or(metadata);
        let count = u32::try_from(metadata.partition_count()).unwrap_or(0);
        if count > topic.partition_count() {
            topic.learn(count, metadata.available.as_slice().into());
        }
        topic.touch(self.clock.now());
        Ok(topic)
    }

    /// Waits until the brokers tell of the topic.
    pub(super) fn wait_for_topic(
        &self,
        name: &str,
        partition: Option<i32>,
        patience: &mut Patience,
    ) -> Result<Arc<TopicMetadata>, Error> {
        validate_topic(name)?;
        // Before any lock: in a forked child its holder may not be there.
        self.process.check()?;
        let wake = || self.accumulator.inbox.push(Event::MetadataWanted);
        match self.metadata.try_topic(name, partition) {
            Ok(topic) => return Ok(topic),
            Err(refusal) => {
                if refusal.wake {
                    wake();
                }
                if !matches!(refusal.error, Error::NotReady { .. }) {
                    let ended = matches!(refusal.error, Error::Closed | Error::Fatal(_));
                    if ended || matches!(patience, Patience::None) {
                        return Err(refusal.error);
                    }
                }
            }
        }
        let Some((begun, deadline)) = self.begin_wait(patience)? else {
            return Err(Error::NotReady { topic: name.into() });
        };
        let (asked, mut wait) =
            (self.clock.now(), TopicWait::new(name, partition, begun, deadline));
        let topic = wait.wait(&self.metadata, &self.clock, &wake);
        let took = self.clock.now().since(asked);
        self.accumulator.sensors.with(|s| s.on_metadata_wait(took));
        topic
    }

    /// The bounds of a wait; `None` if the call never waits.
    ///
    /// # Errors
    /// Where a wait could not end: in a forked child, and on the sender's own thread.
    fn begin_wait(&self, patience: &mut Patience) -> Result<Option<(MonoTime, MonoTime)>, Error> {
        if matches!(patience, Patience::None) {
            return Ok(None);
        }
        self.process.check()?;
        refuse_in_inline_callback("send")?;
        Ok(patience.begin(&self.clock))
    }

    pub(super) fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.process.check()?;
        refuse_in_callback("flush")?;
        let begun = self.clock.now();
        let flush = FlushWait::begin();
        if let Some(Event::Flush(token)) =
            self.accumulator.inbox.try_push(Event::Flush(flush.token(0, 0)))
        {
            // The sender has ended: all is decided, but callbacks may have yet to run.
            self.accumulator.join_callbacks(&self.executor, &token);
        }
        let flushed = flush.wait(&self.clock, begun + timeout);
        let took = self.clock.now().since(begun);
        self.accumulator.sensors.with(|s| s.on_flush(took));
        flushed
    }
}

#[inline]
fn append_of<'r>(record: &'r TopicRecord<'_>, sticky: bool) -> Append<'r> {
    let data = RecordData {
        key: record.key,
        value: record.value,
        headers: record.headers.as_slice(),
        timestamp: record.timestamp.unwrap_or(0),
    };
    Append { data, own_timestamp: record.timestamp.is_some(), sticky }
}
