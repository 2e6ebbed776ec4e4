//! The daemon thread around the sender: turns until the end, and a net under defects of our own.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Sender;
use crate::accumulator::batch::UnsentBatch;
use crate::claims;
use crate::client::KafkaClient;
use crate::completion::CallbackExecutor;
use crate::sync::thread::JoinHandle;
use crate::sync::{Arc, Condvar, Mutex};
use crate::threads::spawn_named;
use crate::time::{Clock, MonoTime};

/// How the sender's thread ended; what `close` waits for.
#[derive(Debug)]
pub(crate) struct Ending {
    state: Mutex<EndingState>,
    changed: Condvar,
}

#[derive(Debug)]
struct EndingState {
    ended: Option<Ended>,
    /// When the time of a close is over; of several at the same time, the first one's that is.
    deadline: MonoTime,
}

impl Default for Ending {
    fn default() -> Self {
        let state = EndingState { ended: None, deadline: MonoTime::MAX };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

/// What the sender leaves behind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    /// Records that were delivered while it drained.
    pub(crate) delivered: usize,
    /// Records that failed while it drained.
    pub(crate) failed: usize,
    /// Records that were given up and are surely not in the log.
    pub(crate) not_sent: usize,
    /// Records that were given up and may be in the log.
    pub(crate) unknown: usize,
    /// If they are wanted back: the batches of `not_sent`, and those of `failed` whose time ran
    /// out before they were sent.
    pub(crate) unsent: Vec<UnsentBatch>,
}

impl Ending {
    /// Has every close end by this moment.
    pub(crate) fn shorten(&self, deadline: MonoTime) {
        let mut state = self.state.lock();
        state.deadline = state.deadline.min(deadline);
        drop(state);
        self.changed.notify_all();
    }

    /// When a close ends.
    pub(crate) fn deadline(&self) -> MonoTime {
        self.state.lock().deadline
    }

    /// Waits until the thread has ended, or until the deadline and `grace` are over.
    ///
    /// What it has to give back is left for [`take_unsent`](Self::take_unsent).
    pub(crate) fn wait(&self, clock: &Clock, grace: Duration) -> Option<Ended> {
        let mut state = self.state.lock();
        while state.ended.is_none() {
            let left = (state.deadline + grace).since(clock.now());
            if left == Duration::ZERO {
                break;
            }
            self.changed.wait_for(&mut state, left);
        }
        let ended = state.ended.as_ref()?;
        Some(Ended { unsent: Vec::new(), ..*ended })
    }

    /// The batches that nobody has taken yet.
    pub(crate) fn take_unsent(&self) -> Vec<UnsentBatch> {
        let mut state = self.state.lock();
        state.ended.as_mut().map(|ended| std::mem::take(&mut ended.unsent)).unwrap_or_default()
    }

    fn set(&self, ended: Ended) {
        let mut state = self.state.lock();
        let before = state.ended.replace(ended);
        self.changed.notify_all();
        debug_assert!(before.is_none(), "ended twice: {before:?}");
        state.ended.iter().for_each(Ended::invariants);
    }
}

impl Ended {
    /// No close has achieved anything yet.
    pub(super) fn is_blank(&self) -> bool {
        let Self { delivered, failed, not_sent, unknown, unsent } = self;
        (delivered + failed + not_sent + unknown == 0) && unsent.is_empty()
    }

    /// Whatever is given back has failed.
    pub(super) fn invariants(&self) {
        if claims::are_checked() {
            let back: usize = self.unsent.iter().map(|b| b.records.count() as usize).sum();
            assert!(back <= self.not_sent + self.failed, "{back} are given back: {self:?}");
        }
    }
}

/// How often everybody is told of a defect that gets in the way of that, too.
const TRIES: usize = 10;

/// Starts the sender's thread. The sender is made on it, since its connections belong to it.
pub(crate) fn start<C: KafkaClient + Send + 'static>(
    name: &str,
    mut sender: Sender<C>,
    clock: Clock,
    executor: Arc<CallbackExecutor>,
    ending: Arc<Ending>,
) -> io::Result<JoinHandle<()>> {
    spawn_named(format!("{name}-sender"), move || {
        let failure = catch_unwind(AssertUnwindSafe(|| run(&mut sender, clock.now())));
        let reason = match failure {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("the system refuses to poll: {error}")),
            Err(panic) => Some(describe(&*panic)),
        };
        // Should this panic too, the next try goes on behind what that one was at.
        let poisoned = reason.is_none_or(|reason| {
            let mut tell = || sender.poison(&reason, clock.now());
            (0..TRIES).any(|_| catch_unwind(AssertUnwindSafe(&mut tell)).is_ok())
        });
        let ended = sender.take_ended();
        // Connections are closed and buffers freed before anybody is told of the end.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(sender)));
        let stopped = catch_unwind(AssertUnwindSafe(|| executor.expect_no_more()));
        ending.set(ended);
        debug_assert!(poisoned && stopped.is_ok(), "a second defect while failing everything");
        debug_assert!(dropped.is_ok(), "a defect in what the sender owned");
    })
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::model::{explore, join, spawn};
    use crate::time::ManualClock;

    #[test]
    fn every_close_hears_of_the_end_or_of_a_shorter_deadline() {
        explore(3, || {
            let ending = Arc::new(Ending::default());
            let waiters = [(); 2].map(|()| {
                let ending = Arc::clone(&ending);
                let clock = Clock::Manual(ManualClock::new());
                spawn(move || ending.wait(&clock, Duration::ZERO).map(|ended| ended.delivered))
            });
            let sender = spawn({
                let ending = Arc::clone(&ending);
                move || ending.set(Ended { delivered: 3, ..Ended::default() })
            });
            waiters.into_iter().for_each(|waiter| assert_eq!(join(waiter), Some(3)));
            join(sender);
        });
        explore(3, || {
            let ending = Arc::new(Ending::default());
            let waiters = [(); 2].map(|()| {
                let ending = Arc::clone(&ending);
                let clock = Clock::Manual(ManualClock::new());
                spawn(move || ending.wait(&clock, Duration::ZERO).is_none())
            });
            ending.shorten(MonoTime::ZERO);
            waiters.into_iter().for_each(|waiter| assert!(join(waiter)));
        });
    }
}

fn run<C: KafkaClient>(sender: &mut Sender<C>, mut now: MonoTime) -> io::Result<()> {
    while !sender.has_ended() {
        now = sender.run_once(now)?;
    }
    sender.end(now);
    Ok(())
}

fn describe(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a defect of this crate: {}", text.unwrap_or("panic"))
}
