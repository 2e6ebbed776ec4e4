//! The end of a producer, as its users see it.

use std::time::Duration;

use super::core::Core;
use crate::accumulator::inbox::Event;
use crate::completion::{in_callback, refuse_in_callback};
use crate::error::Error;

/// What `close` achieved within its time.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CloseReport {
    /// Records that were accepted and given up because the time was over: their handles and
    /// callbacks got an error whose cause is `Closed`.
    pub aborted_records: usize,
    /// Callbacks that had not finished when the time was over; those not begun never will be.
    pub callbacks_left: usize,
    /// Threads that were in user code, or in the system's name resolution, when the time was over
    /// and were left to themselves.
    pub threads_stuck: usize,
    /// Why nothing was closed: the call was made inside a callback ([`Error::InCallback`]) or in a
    /// forked child ([`Error::Forked`]).
    pub refused: Option<Error>,
}

impl CloseReport {
    /// Whether everything that was accepted was decided by the brokers, and every callback ran.
    pub fn is_clean(&self) -> bool {
        self.aborted_records == 0
            && self.callbacks_left == 0
            && self.threads_stuck == 0
            && self.refused.is_none()
    }
}

/// The sender keeps its deadline; this is for a machine that is too busy to run it.
const GRACE: Duration = Duration::from_millis(500);

/// What callbacks get of a close's time, so that those of records given up are called as well.
fn share_of_callbacks(timeout: Duration) -> Duration {
    const AT_MOST: Duration = Duration::from_millis(500);
    (timeout / 8).min(AT_MOST)
}

/// What they get in any case, however short the time was: callbacks that return at once are called.
const LAST_WORDS: Duration = Duration::from_millis(250);

impl Core {
    /// Refuses new records, drains those accepted, runs their callbacks, ends the threads.
    pub(super) fn close(&self, timeout: Duration) -> CloseReport {
        let refused = self.process.check().and_then(|()| refuse_in_callback("close"));
        if let Err(error) = refused {
            return CloseReport { refused: Some(error), ..CloseReport::default() };
        }
        if let Some(report) = self.report.get() {
            return report.clone();
        }
        let deadline = self.clock.now() + timeout;
        self.begin_close(timeout - share_of_callbacks(timeout));
        let ended = self.ending.wait(&self.clock, deadline + GRACE);
        let aborted_records = ended.map_or(0, |ended| ended.aborted_records);
        let mut threads_stuck = 0;
        if let Some(thread) = self.sender_thread.lock().take() {
            match ended {
                // Its last act is behind it.
                Some(_) => drop(thread.join()),
                None => threads_stuck += 1,
            }
        }
        let left = self.executor.close(deadline.since(self.clock.now()).max(LAST_WORDS));
        if !self.resolver.wait_ended(deadline.since(self.clock.now())) {
            threads_stuck += 1;
        }
        self.interceptors.iter().for_each(|chain| chain.close());
        let report = CloseReport {
            aborted_records,
            callbacks_left: left.callbacks,
            threads_stuck: threads_stuck + left.threads_stuck,
            refused: None,
        };
        self.report.get_or_init(|| report).clone()
    }

    fn begin_close(&self, timeout: Duration) {
        self.metadata.close();
        self.executor.slots().close();
        self.accumulator.inbox.push(Event::Close(timeout));
    }

    /// The last handle is gone.
    pub(super) fn on_last_drop(&self) {
        if self.process.check().is_err() || self.report.get().is_some() {
            return;
        }
        if in_callback() {
            // To join here would be to wait for oneself: the sender and the callbacks' threads end
            // by themselves.
            return self.begin_close(self.close_on_drop_timeout);
        }
        let report = self.close(self.close_on_drop_timeout);
        if report.is_clean() {
            log::debug!("producer dropped, everything was delivered");
        } else {
            log::warn!(
                "producer dropped: {} records were given up and {} callbacks did not finish \
                 within {} ms",
                report.aborted_records,
                report.callbacks_left,
                self.close_on_drop_timeout.as_millis()
            );
        }
    }
}
