//! The calls of a producer as a trait, so that a program can be tested with a stand-in.
//!
//! [`KafkaProducer`] has the same calls of its own; a program that names it needs nothing of this.

use std::time::Duration;

use super::{
    CloseReport, KafkaProducer, OwnedRecord, Partial, PartitionInfo, ProducerRecord, Purge,
    Refused, RefusedWith,
};
use crate::accumulator::Patience;
use crate::completion::{Callback, Delivery, UserCallback};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::sync::Arc;

/// A callback as the trait [`Producer`] takes it; [`KafkaProducer::send_with`] boxes it by itself.
pub type BoxedCallback = UserCallback;

/// What a program asks of a producer: [`KafkaProducer`], or `MockProducer` (feature `testing`) in
/// its unit tests.
///
/// Usable as a bound and as `&dyn Producer`; references and `Arc`s of producers are producers.
///
/// ```
/// use kafka_producer::testing::MockProducer;
/// use kafka_producer::{Error, Producer, ProducerRecord};
///
/// fn report(producer: &dyn Producer, order: &str) -> Result<(), Error> {
///     let record = ProducerRecord::new("orders", order);
///     producer.send_with(record, Box::new(|result| assert!(result.is_ok())))
/// }
///
/// let mock = MockProducer::new();
/// report(&mock, "paid")?;
/// assert_eq!(mock.history()[0].value.as_deref(), Some(&b"paid"[..]));
/// # Ok::<(), Error>(())
/// ```
pub trait Producer: Send + Sync {
    /// As [`KafkaProducer::send`].
    ///
    /// # Errors
    /// As there.
    fn send(&self, record: ProducerRecord<'_>) -> Result<Delivery, Error>;

    /// As [`KafkaProducer::send_with`], with the callback in a box.
    ///
    /// # Errors
    /// As there.
    fn send_with(&self, record: ProducerRecord<'_>, callback: BoxedCallback) -> Result<(), Error>;

    /// As [`KafkaProducer::send_timeout`].
    ///
    /// # Errors
    /// As there.
    fn send_timeout(
        &self,
        record: ProducerRecord<'_>,
        timeout: Duration,
    ) -> Result<Delivery, Error>;

    /// As [`KafkaProducer::send_with_timeout`], with the callback in a box.
    ///
    /// # Errors
    /// As there.
    fn send_with_timeout(
        &self,
        record: ProducerRecord<'_>,
        callback: BoxedCallback,
        timeout: Duration,
    ) -> Result<(), Error>;

    /// As [`KafkaProducer::try_send`].
    ///
    /// # Errors
    /// As there.
    fn try_send<'a>(&self, record: ProducerRecord<'a>) -> Result<Delivery, Refused<'a>>;

    /// As [`KafkaProducer::try_send_with`].
    ///
    /// # Errors
    /// As there.
    fn try_send_with<'a>(
        &self,
        record: ProducerRecord<'a>,
        callback: BoxedCallback,
    ) -> Result<(), RefusedWith<'a>>;

    /// As [`KafkaProducer::send_all`].
    ///
    /// # Errors
    /// As there.
    fn send_all(&self, records: &[ProducerRecord<'_>]) -> Result<Vec<Delivery>, Partial> {
        let mut accepted = Vec::with_capacity(records.len());
        for record in records {
            match self.send(record.clone()) {
                Ok(delivery) => accepted.push(delivery),
                Err(error) => return Err(Partial { accepted, error }),
            }
        }
        Ok(accepted)
    }

    /// As [`KafkaProducer::flush`].
    ///
    /// # Errors
    /// As there.
    fn flush(&self, timeout: Duration) -> Result<(), Error>;

    /// As [`KafkaProducer::partitions_for`].
    ///
    /// # Errors
    /// As there.
    fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionInfo>, Error>;

    /// As [`KafkaProducer::wait_ready`].
    ///
    /// # Errors
    /// As there.
    fn wait_ready(&self, topics: &[&str], timeout: Duration) -> Result<(), Error>;

    /// As [`KafkaProducer::metrics`].
    fn metrics(&self) -> Metrics;

    /// As [`KafkaProducer::purge`].
    ///
    /// # Errors
    /// As there.
    fn purge(&self, what: Purge<'_>) -> Result<usize, Error>;

    /// As [`KafkaProducer::purge_and_return`].
    ///
    /// # Errors
    /// As there.
    fn purge_and_return(&self, what: Purge<'_>) -> Result<Vec<OwnedRecord>, Error>;

    /// As [`KafkaProducer::close`].
    fn close(&self, timeout: Duration) -> CloseReport;

    /// As [`KafkaProducer::close_and_return`].
    fn close_and_return(&self, timeout: Duration) -> CloseReport;
}

impl KafkaProducer {
    /// A send with a callback that has its box already.
    fn send_boxed(
        &self,
        record: &ProducerRecord<'_>,
        callback: BoxedCallback,
        patience: &mut Patience,
    ) -> Result<(), Error> {
        let mut callback = Some(Callback::User(callback));
        let (name, record) = (record.topic(), record.without_topic());
        self.handle.core.send_with(name, record, &mut callback, patience)
    }
}

impl Producer for KafkaProducer {
    fn send(&self, record: ProducerRecord<'_>) -> Result<Delivery, Error> {
        self.send(record)
    }

    fn send_with(&self, record: ProducerRecord<'_>, callback: BoxedCallback) -> Result<(), Error> {
        self.send_boxed(&record, callback, &mut self.handle.core.patience())
    }

    fn send_timeout(
        &self,
        record: ProducerRecord<'_>,
        timeout: Duration,
    ) -> Result<Delivery, Error> {
        self.send_timeout(record, timeout)
    }

    fn send_with_timeout(
        &self,
        record: ProducerRecord<'_>,
        callback: BoxedCallback,
        timeout: Duration,
    ) -> Result<(), Error> {
        self.send_boxed(&record, callback, &mut Patience::For(timeout))
    }

    fn try_send<'a>(&self, record: ProducerRecord<'a>) -> Result<Delivery, Refused<'a>> {
        self.try_send(record)
    }

    fn try_send_with<'a>(
        &self,
        record: ProducerRecord<'a>,
        callback: BoxedCallback,
    ) -> Result<(), RefusedWith<'a>> {
        self.try_send_with(record, callback)
    }

    fn send_all(&self, records: &[ProducerRecord<'_>]) -> Result<Vec<Delivery>, Partial> {
        self.send_all(records)
    }

    fn flush(&self, timeout: Duration) -> Result<(), Error> {
        self.flush(timeout)
    }

    fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionInfo>, Error> {
        self.partitions_for(topic)
    }

    fn wait_ready(&self, topics: &[&str], timeout: Duration) -> Result<(), Error> {
        self.wait_ready(topics, timeout)
    }

    fn metrics(&self) -> Metrics {
        self.metrics()
    }

    fn purge(&self, what: Purge<'_>) -> Result<usize, Error> {
        self.purge(what)
    }

    fn purge_and_return(&self, what: Purge<'_>) -> Result<Vec<OwnedRecord>, Error> {
        self.purge_and_return(what)
    }

    fn close(&self, timeout: Duration) -> CloseReport {
        self.close(timeout)
    }

    fn close_and_return(&self, timeout: Duration) -> CloseReport {
        self.close_and_return(timeout)
    }
}

/// Passes each call on to what is pointed to.
macro_rules! pass_on {
    ($pointer:ty) => {
        impl<P: Producer + ?Sized> Producer for $pointer {
            fn send(&self, record: ProducerRecord<'_>) -> Result<Delivery, Error> {
                (**self).send(record)
            }

            fn send_with(
                &self,
                record: ProducerRecord<'_>,
                callback: BoxedCallback,
            ) -> Result<(), Error> {
                (**self).send_with(record, callback)
            }

            fn send_timeout(
                &self,
                record: ProducerRecord<'_>,
                timeout: Duration,
            ) -> Result<Delivery, Error> {
                (**self).send_timeout(record, timeout)
            }

            fn send_with_timeout(
                &self,
                record: ProducerRecord<'_>,
                callback: BoxedCallback,
                timeout: Duration,
            ) -> Result<(), Error> {
                (**self).send_with_timeout(record, callback, timeout)
            }

            fn try_send<'a>(&self, record: ProducerRecord<'a>) -> Result<Delivery, Refused<'a>> {
                (**self).try_send(record)
            }

            fn try_send_with<'a>(
                &self,
                record: ProducerRecord<'a>,
                callback: BoxedCallback,
            ) -> Result<(), RefusedWith<'a>> {
                (**self).try_send_with(record, callback)
            }

            fn send_all(&self, records: &[ProducerRecord<'_>]) -> Result<Vec<Delivery>, Partial> {
                (**self).send_all(records)
            }

            fn flush(&self, timeout: Duration) -> Result<(), Error> {
                (**self).flush(timeout)
            }

            fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionInfo>, Error> {
                (**self).partitions_for(topic)
            }

            fn wait_ready(&self, topics: &[&str], timeout: Duration) -> Result<(), Error> {
                (**self).wait_ready(topics, timeout)
            }

            fn metrics(&self) -> Metrics {
                (**self).metrics()
            }

            fn purge(&self, what: Purge<'_>) -> Result<usize, Error> {
                (**self).purge(what)
            }

            fn purge_and_return(&self, what: Purge<'_>) -> Result<Vec<OwnedRecord>, Error> {
                (**self).purge_and_return(what)
            }

            fn close(&self, timeout: Duration) -> CloseReport {
                (**self).close(timeout)
            }

            fn close_and_return(&self, timeout: Duration) -> CloseReport {
                (**self).close_and_return(timeout)
            }
        }
    };
}

pass_on!(&P);
pass_on!(Arc<P>);
