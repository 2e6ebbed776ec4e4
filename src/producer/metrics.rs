//! The producer's metrics, put together on the thread that asks for them.

use super::core::Core;
use crate::accumulator::Patience;
use crate::error::Error;
use crate::metrics::{Gauges, Metrics};
use crate::sync::Arc;

impl Core {
    /// All metrics as of now. Takes each queue's lock in turn, as one append does.
    pub(super) fn metrics(&self) -> Metrics {
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
        let mut metrics = self.accumulator.sensors.with(|sensors| sensors.measure(&gauges, now));
        metrics.client_id = Arc::clone(&self.client_id);
        metrics.start_time_ms = self.start_time_ms;
        metrics
    }

    /// A call that never waits is refused for what the next one may find: that is no error yet.
    #[cold]
    pub(super) fn count_refusal(&self, error: &Error, patience: &Patience) {
        let may_pass = matches!(
            error,
            Error::NotReady { .. }
                | Error::BufferExhausted { .. }
                | Error::CallbackBacklogFull { .. }
        );
        let is_error = !(may_pass && matches!(patience, Patience::None));
        let now = self.clock.now();
        self.accumulator.sensors.with(|sensors| sensors.on_refused(is_error, now));
    }
}
