//! Giving up what was accepted and not sent, by the user's wish.

use std::time::Duration;

use super::KafkaProducer;
use super::close::records;
use super::core::Core;
use super::owned::OwnedRecord;
use crate::accumulator::batch::UnsentBatch;
use crate::accumulator::inbox::{Event, PurgeOrder};
use crate::completion::{FlushWait, refuse_in_inline_callback};
use crate::error::Error;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex};

/// What [`KafkaProducer::purge`] is to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purge<'a> {
    /// All that was not sent.
    All,
    /// What was not sent of this topic.
    Topic(&'a str),
    /// What was not sent of this topic's partition.
    Partition(&'a str, i32),
}

/// What the sender gets for it. It never waits, so that this is for a machine that is too busy.
const AT_MOST: Duration = Duration::from_secs(5);

impl KafkaProducer {
    /// Gives up what was accepted and never sent; tells how many records that were. Their handles
    /// and callbacks get [`Error::Delivery`] with cause
    /// [`Purged`](crate::DeliveryCause::Purged): they are surely not in the log.
    ///
    /// What was sent is left alone, be it under way or waiting to be tried again: nobody could say
    /// whether it is in the log. It is decided by `delivery.timeout.ms`, as ever. (librdkafka's
    /// `rd_kafka_purge` can give that up too, at the price of an unknown fate.) Records that other
    /// threads send meanwhile may be spared. Works in a callback, too.
    ///
    /// Returns once the sender has done it, which takes it one turn.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`] if the machine is so busy that it did not get to it within five
    /// seconds; it will.
    /// [`Error::InCallback`] inside a callback on the sender's own thread, [`Error::Forked`] in a
    /// forked child.
    pub fn purge(&self, what: Purge<'_>) -> Result<usize, Error> {
        self.handle.core.purge(what, None)
    }

    /// As [`purge`](Self::purge), and gives the records back, each partition's in their order: to
    /// be sent elsewhere, or again. Costs a copy of their memory.
    ///
    /// # Errors
    /// As [`purge`](Self::purge). After [`Error::WaitTimeout`] the records are given up and not
    /// given back.
    pub fn purge_and_return(&self, what: Purge<'_>) -> Result<Vec<OwnedRecord>, Error> {
        let kept = Arc::default();
        self.handle.core.purge(what, Some(&kept))?;
        let batches = std::mem::take(&mut *kept.lock());
        Ok(batches.iter().flat_map(records).collect())
    }
}

impl Core {
    /// Leaves what is purged in `kept`, if there is such a place.
    fn purge(
        &self,
        what: Purge<'_>,
        kept: Option<&Arc<Mutex<Vec<UnsentBatch>>>>,
    ) -> Result<usize, Error> {
        self.process.check()?;
        refuse_in_inline_callback("purge")?;
        let (topic, partition) = match what {
            Purge::All => (None, None),
            Purge::Topic(topic) => (Some(topic), None),
            Purge::Partition(topic, partition) => (Some(topic), Some(partition)),
        };
        let deadline = self.clock.now() + AT_MOST;
        let (done, purged) = (FlushWait::begin(), Arc::new(AtomicUsize::new(0)));
        let order = PurgeOrder {
            topic: topic.map(Arc::from),
            partition,
            purged: Arc::clone(&purged),
            kept: kept.map(Arc::clone),
            done: done.token(0, 0),
        };
        self.accumulator.inbox.push(Event::Purge(order));
        done.wait(&self.clock, deadline).map_err(|_| Error::WaitTimeout)?;
        Ok(purged.load(Ordering::Acquire))
    }
}
