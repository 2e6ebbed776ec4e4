//! The sender's log lines and events on their way to the user's logger and listener, which are user
//! code: they may block, and they may panic. The sender leaves values in a bounded channel; a
//! callback thread tells them.

use std::borrow::Cow;

use super::events::EventListener;
use super::panics::guarded;
use crate::event::ProducerEvent;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::channel::{Receiver, Sender, bounded};

/// What this crate's lines are logged under.
const TARGET: &str = "kafka_producer";
/// Lines and events that wait to be told; more are counted, and told as a number.
const CAPACITY: usize = 512;
/// Lines and events told in one go, before callbacks get their turn.
const TURN: usize = 64;

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEvent {
    level: log::Level,
    text: Cow<'static, str>,
}

impl LogEvent {
    pub(crate) fn new(level: log::Level, text: impl Into<Cow<'static, str>>) -> Self {
        Self { level, text: text.into() }
    }

    /// Whether lines of this level are logged at all: ask before formatting one on a busy path.
    pub(crate) fn is_wanted(level: log::Level) -> bool {
        level <= log::STATIC_MAX_LEVEL && level <= log::max_level()
    }
}

/// What the relay carries.
#[derive(Debug)]
enum Told {
    Line(LogEvent),
    Event(ProducerEvent),
}

impl Told {
    /// Where user code may run; `log_now` logs a line.
    fn tell(self, listener: Option<&EventListener>, log_now: &mut impl FnMut(log::Level, &str)) {
        match self {
            Self::Line(line) => log_now(line.level, &line.text),
            Self::Event(event) => {
                let told = listener.map_or(Ok(()), |listener| listener.tell(&event));
                if let Err(panic) = told {
                    log_now(
                        log::Level::Error,
                        &format!("the listener of events panicked: {panic}"),
                    );
                }
            }
        }
    }
}

/// Logs a line here and now; only where user code may run. A logger's panic ends with the line.
pub(crate) fn log_now(level: log::Level, text: &str) {
    // There is nobody left to tell that the logger itself is broken.
    let _ = guarded(|| log::log!(target: TARGET, level, "{text}"));
}

/// The channel between the two.
#[derive(Debug)]
pub(super) struct LogRelay {
    sender: Sender<Told>,
    receiver: Receiver<Told>,
    /// Lines and events that did not fit, and whose number was not yet told.
    lost: AtomicU64,
    /// Whether a thread is, or will be, draining: one at a time, so that lines keep their order.
    draining: AtomicBool,
}

impl LogRelay {
    pub(super) fn new() -> Self {
        let (sender, receiver) = bounded(CAPACITY);
        Self { sender, receiver, lost: AtomicU64::new(0), draining: AtomicBool::new(false) }
    }

    /// Leaves a line; never blocks. True if the caller must have the relay drained.
    pub(super) fn push(&self, event: LogEvent) -> bool {
        LogEvent::is_wanted(event.level) && self.leave(Told::Line(event))
    }

    /// As [`push`](Self::push), for an event.
    pub(super) fn push_event(&self, event: ProducerEvent) -> bool {
        self.leave(Told::Event(event))
    }

    fn leave(&self, told: Told) -> bool {
        if self.sender.try_send(told).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        !self.draining.swap(true, Ordering::SeqCst)
    }

    /// Logs a turn's worth of lines, and tells the listener of events, if there is one. True if
    /// there are more: the caller must come again.
    pub(super) fn drain_turn(&self, listener: Option<&EventListener>) -> bool {
        self.drain_turn_to(listener, log_now)
    }

    fn drain_turn_to(
        &self,
        listener: Option<&EventListener>,
        mut log_now: impl FnMut(log::Level, &str),
    ) -> bool {
        for told in self.receiver.try_iter().take(TURN) {
            told.tell(listener, &mut log_now);
        }
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            log_now(
                log::Level::Warn,
                &format!("{lost} log lines or events were lost: the log is too slow"),
            );
        }
        if !self.receiver.is_empty() {
            return true;
        }
        self.draining.store(false, Ordering::SeqCst);
        // A line that came in between found the mark still set.
        !self.receiver.is_empty() && !self.draining.swap(true, Ordering::SeqCst)
    }

    /// Logs all that is left, here and now: for a sender that runs user code itself.
    pub(super) fn drain_rest(&self, listener: Option<&EventListener>) {
        while self.drain_turn(listener) {}
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::Arc;
    use crate::sync::model::{explore, join, spawn};

    #[test]
    fn a_line_left_while_the_drain_ends_is_not_forgotten() {
        explore(4, || {
            let relay = Arc::new(LogRelay::new());
            let users = [(); 2].map(|()| {
                let relay = Arc::clone(&relay);
                spawn(move || {
                    let mut logged = 0;
                    for _ in 0..2 {
                        // Whoever is asked to drain does it at once.
                        let mut more =
                            relay.leave(Told::Line(LogEvent::new(log::Level::Info, "line")));
                        while more {
                            more = relay.drain_turn_to(None, |_, _| logged += 1);
                        }
                    }
                    logged
                })
            });
            let logged: u32 = users.into_iter().map(join).sum();
            assert_eq!(logged, 4);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> Told {
        Told::Line(LogEvent::new(log::Level::Info, number.to_string()))
    }

    fn drain_turn(relay: &LogRelay) -> (Vec<String>, bool) {
        let mut lines = Vec::new();
        let has_more = relay.drain_turn_to(None, |_, text| lines.push(text.to_owned()));
        (lines, has_more)
    }

    #[test]
    fn lines_keep_their_order_and_are_logged_in_turns() {
        let relay = LogRelay::new();
        assert!(relay.leave(line(0)), "the first line asks for a drain");
        assert!((1..=TURN).all(|number| !relay.leave(line(number))), "the others need none");
        let (first, has_more) = drain_turn(&relay);
        assert_eq!(first, (0..TURN).map(|number| number.to_string()).collect::<Vec<_>>());
        assert!(has_more);
        assert!(!relay.leave(line(TURN + 1)), "the drain goes on");
        let rest = vec![TURN.to_string(), (TURN + 1).to_string()];
        assert_eq!(drain_turn(&relay), (rest, false));
        assert!(relay.leave(line(0)), "and has ended");
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_told_of() {
        let relay = LogRelay::new();
        for number in 0..CAPACITY + 3 {
            relay.leave(line(number));
        }
        let (lines, has_more) = drain_turn(&relay);
        assert_eq!(lines.len(), TURN + 1);
        assert_eq!(lines[TURN], "3 log lines or events were lost: the log is too slow");
        assert!(has_more);
        assert_eq!(drain_turn(&relay).0.len(), TURN, "the loss is told once");
    }

    #[test]
    fn a_line_left_while_the_drain_ends_is_not_forgotten() {
        const LINES: usize = 20_000;
        let relay = LogRelay::new();
        let (asked, asks) = std::sync::mpsc::channel();
        let drained = std::thread::scope(|scope| {
            let relay = &relay;
            let drainer = scope.spawn(move || {
                let mut lines = 0;
                for () in asks {
                    loop {
                        let (some, has_more) = drain_turn(relay);
                        lines += some.iter().filter(|text| !text.contains("lost")).count();
                        if !has_more {
                            break;
                        }
                    }
                }
                lines
            });
            let mut left = 0;
            while left < LINES {
                if relay.sender.is_full() {
                    std::thread::yield_now();
                    continue;
                }
                left += 1;
                if relay.leave(line(left)) {
                    asked.send(()).unwrap();
                }
            }
            drop(asked);
            drainer.join().unwrap()
        });
        assert_eq!(drained, LINES);
    }
}
