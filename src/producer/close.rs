//! The end of a producer, as its users see it.

use std::time::Duration;

use super::core::Core;
use super::owned::OwnedRecord;
use super::record::Headers;
use crate::accumulator::batch::UnsentBatch;
use crate::accumulator::inbox::Event;
use crate::completion::{in_callback, log_now, refuse_in_callback};
use crate::error::Error;
use crate::sync::Arc;

/// What `close` achieved within its time.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CloseReport {
    /// Records that were delivered while the producer closed.
    pub delivered: usize,
    /// Records that failed while the producer closed, for reasons of their own.
    pub failed: usize,
    /// Records that were accepted and given up because the time was over: their handles and
    /// callbacks got an error whose cause is `Closed`.
    pub aborted_records: usize,
    /// How many of those may be in the log all the same: they were sent, and no answer came. The
    /// others are surely not.
    pub unknown: usize,
    /// Those that are surely not in the log, each partition's in their order: to be kept, or sent
    /// elsewhere. Those of [`failed`](Self::failed) are here too that reached
    /// `delivery.timeout.ms`, with cause [`Timeout`](crate::DeliveryCause::Timeout), and are as
    /// surely not in the log. Only
    /// [`close_and_return`](crate::KafkaProducer::close_and_return) gives them back, and once;
    /// otherwise it is empty.
    pub not_sent: Vec<OwnedRecord>,
    /// Callbacks that had not finished when the time was over; those not begun never will be.
    /// Callbacks that the program's own [`Executor`](crate::Executor) has ever dropped count too.
    pub callbacks_left: usize,
    /// Threads that were in user code, or in name resolution, when the time was over
    /// and were left to themselves.
    pub threads_stuck: usize,
    /// Why nothing was closed: the call was made inside a callback ([`Error::InCallback`]) or in a
    /// forked child ([`Error::Forked`]).
    pub refused: Option<Error>,
}

impl CloseReport {
    /// Whether nothing was given up: all that was accepted was delivered, or failed for a reason of
    /// its own ([`failed`](Self::failed)), and every callback ran.
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

/// The records of a batch, read from its bytes.
pub(super) fn records(batch: &UnsentBatch) -> impl Iterator<Item = OwnedRecord> {
    // We wrote these bytes ourselves.
    batch.records.records().filter_map(Result::ok).map(|record| OwnedRecord {
        topic: Arc::clone(&batch.topic),
        partition: batch.partition,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers: record.headers.into_iter().collect::<Headers<'_>>().into_owned(),
        timestamp: record.timestamp,
    })
}

impl Core {
    /// Refuses new records, drains those accepted, runs their callbacks, ends the threads.
    pub(super) fn close(&self, timeout: Duration, gives_back: bool) -> CloseReport {
        let mut report = self.end(timeout, gives_back);
        if gives_back && report.refused.is_none() {
            report.not_sent = self.ending.take_unsent().iter().flat_map(records).collect();
        }
        report
    }

    fn end(&self, timeout: Duration, keeps_unsent: bool) -> CloseReport {
        let refused = self.process.check().and_then(|()| refuse_in_callback("close"));
        if let Err(error) = refused {
            return CloseReport { refused: Some(error), ..CloseReport::default() };
        }
        if let Some(report) = self.report.get() {
            return report.clone();
        }
        self.ending.shorten(self.clock.now() + timeout);
        self.begin_close(timeout - share_of_callbacks(timeout), keeps_unsent);
        let ended = self.ending.wait(&self.clock, GRACE);
        if ended.is_some() {
            // Its last act is behind it. Another close may have joined it.
            let thread = self.sender_thread.lock().take();
            thread.into_iter().for_each(|thread| drop(thread.join()));
        }
        // Of the earliest close: it may have come meanwhile.
        let time_left = self.ending.deadline().since(self.clock.now());
        let left = self.executor.close(time_left.max(LAST_WORDS));
        let resolver_ended = self.resolver.wait_ended(&self.clock, self.ending.deadline());
        let threads_stuck = usize::from(ended.is_none()) + usize::from(!resolver_ended);
        self.interceptors.iter().for_each(|chain| chain.close());
        let ended = ended.unwrap_or_default();
        let report = CloseReport {
            delivered: ended.delivered,
            failed: ended.failed,
            aborted_records: ended.not_sent + ended.unknown,
            unknown: ended.unknown,
            not_sent: Vec::new(),
            callbacks_left: left.callbacks,
            threads_stuck: threads_stuck + left.threads_stuck,
            refused: None,
        };
        self.report.get_or_init(|| report).clone()
    }

    fn begin_close(&self, timeout: Duration, keeps_unsent: bool) {
        self.metadata.close();
        self.executor.slots().close();
        self.accumulator.inbox.push(Event::Close { timeout, keeps_unsent });
    }

    /// The last handle is gone.
    pub(super) fn on_last_drop(&self) {
        if self.process.check().is_err() || self.report.get().is_some() {
            return;
        }
        if in_callback() {
            // To join here would be to wait for oneself: the sender and the callbacks' threads end
            // by themselves.
            return self.begin_close(self.close_on_drop_timeout, false);
        }
        let report = self.close(self.close_on_drop_timeout, false);
        let (level, text) = last_line(&report, self.close_on_drop_timeout);
        log_now(level, &text);
    }
}

/// What is logged of a producer that nobody has closed.
fn last_line(report: &CloseReport, timeout: Duration) -> (log::Level, String) {
    if report.is_clean() && report.failed == 0 {
        return (log::Level::Debug, "producer dropped, all that was left was delivered".to_owned());
    }
    let text = format!(
        "producer dropped: {} records failed, {} were given up and {} callbacks did not finish \
         within {} ms",
        report.failed,
        report.aborted_records,
        report.callbacks_left,
        timeout.as_millis()
    );
    (log::Level::Warn, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_that_lost_records_is_told_as_such() {
        let line = |report: CloseReport| last_line(&report, Duration::from_secs(2));
        let (level, text) = line(CloseReport { delivered: 7, ..CloseReport::default() });
        assert_eq!(level, log::Level::Debug, "{text}");
        let lossy = [
            CloseReport { failed: 12, ..CloseReport::default() },
            CloseReport { aborted_records: 12, ..CloseReport::default() },
            CloseReport { callbacks_left: 12, ..CloseReport::default() },
        ];
        for report in lossy {
            let (level, text) = line(report);
            assert_eq!(level, log::Level::Warn, "{text}");
            assert!(text.contains("12 ") && text.contains("2000 ms"), "{text}");
        }
    }
}
