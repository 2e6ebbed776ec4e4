//! Giving up what was accepted and not sent, by the user's wish.

use std::time::Duration;

use super::KafkaProducer;
use super::core::Core;
use crate::accumulator::inbox::{Event, PurgeOrder};
use crate::completion::{FlushWait, refuse_in_inline_callback};
use crate::error::Error;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicUsize, Ordering};

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
        self.handle.core.purge(what)
    }
}

impl Core {
    fn purge(&self, what: Purge<'_>) -> Result<usize, Error> {
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
            done: done.token(0, 0),
        };
        self.accumulator.inbox.push(Event::Purge(order));
        done.wait(&self.clock, deadline).map_err(|_| Error::WaitTimeout)?;
        Ok(purged.load(Ordering::Acquire))
    }
}
