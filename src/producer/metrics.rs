//! The producer's metrics, put together on the thread that asks for them.

use super::core::Core;
use crate::accumulator::Patience;
use crate::error::Error;
use crate::metrics::{Gauges, Metrics};
use crate::sync::Arc;

impl Core {
    /// All metrics as of now. Takes each queue's lock in turn, as one append does. Empty in a
    /// forked child, where locks may be held by threads that are not there.
    pub(super) fn metrics(&self) -> Metrics {
        if self.process.check().is_err() {
            return Metrics::default();
        }
        let (pool, executor) = (&self.accumulator.pool, &self.executor);
        let gauges = Gauges {
            queues: self.accumulator.backlog(),
            buffer_total: pool.total(),
            buffer_available: pool.available(),
            waiting_threads: pool.waiting_threads(),
            callbacks_pending: executor.slots().used(),
            callback_backlog: executor.outstanding(),
            callback_panics: executor.panicked(),
            callbacks_dropped: executor.dropped(),
        };
        let now = self.clock.now();
        let mut metrics = self.accumulator.sensors.measure(&gauges, now);
        metrics.client_id = Arc::clone(&self.client_id);
        metrics.start_time_ms = self.start_time_ms;
        metrics
    }

    /// A call that never waits is refused for what the next one may find: that is no error yet.
    #[cold]
    pub(super) fn count_refusal(&self, error: &Error, patience: &Patience) {
        if self.process.check().is_err() {
            return;
        }
        let is_error = !(error.is_retriable() && matches!(patience, Patience::None));
        let now = self.clock.now();
        self.accumulator.sensors.with(|sensors| sensors.on_refused(is_error, now));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::threads::Process;
    use crate::{KafkaProducer, ProducerRecord};

    const LONG: Duration = Duration::from_secs(20);

    fn unconnected() -> KafkaProducer {
        KafkaProducer::builder().bootstrap_servers("127.0.0.1:1").build().unwrap()
    }

    /// The producer as it is in this process, or as a forked child finds it.
    fn in_process(mut producer: KafkaProducer, process: Process) -> KafkaProducer {
        let handle = Arc::get_mut(&mut producer.handle).expect("the only one");
        Arc::get_mut(&mut handle.core).expect("the only one").process = process;
        producer
    }

    /// The thread that holds the lock at the moment of the fork does not exist in the child.
    #[test]
    fn no_call_waits_in_a_forked_child_for_a_lock_of_its_parent() {
        let producer = in_process(unconnected(), Process::another());
        let core = Arc::clone(&producer.handle.core);
        let (told, answers) = mpsc::channel();
        let (answer, asking) = core.accumulator.sensors.with(|_| {
            let asking = std::thread::spawn(move || {
                let refused = producer.send(ProducerRecord::new("t", "v")).unwrap_err();
                told.send((refused, producer.metrics())).unwrap();
                producer
            });
            (answers.recv_timeout(LONG).expect("an answer"), asking)
        });
        let ((refused, metrics), producer) = (answer, asking.join().unwrap());
        drop(core);
        assert!(matches!(refused, Error::Forked), "{refused}");
        assert_eq!(metrics.topics.len() + metrics.nodes.len(), 0);
        in_process(producer, Process::current());
    }

    /// What the next call that does not wait may find is no failed record.
    #[test]
    fn a_refusal_that_may_pass_is_no_error_of_a_call_that_does_not_wait() {
        let producer = unconnected();
        let core = &producer.handle.core;
        let waited = Duration::ZERO;
        let (topic, setting) = (Arc::from("t"), "buffer.memory.partition.share");
        for error in [
            Error::NotReady { topic: Arc::clone(&topic) },
            Error::BufferExhausted { waited },
            Error::BufferShareExhausted { topic, partition: 0, setting, waited },
            Error::CallbackBacklogFull { waited },
        ] {
            core.count_refusal(&error, &Patience::None);
        }
        core.count_refusal(&Error::Closed, &Patience::None);
        core.count_refusal(&Error::BufferExhausted { waited }, &core.patience());
        let metrics = producer.metrics().producer;
        assert_eq!((metrics.record_refused.total, metrics.record_error.total), (6, 2));
    }
}
