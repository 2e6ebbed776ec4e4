//! The daemon thread around the sender: turns until the end, and a net under defects of our own.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::Sender;
use crate::client::KafkaClient;
use crate::completion::CallbackExecutor;
use crate::sync::thread::JoinHandle;
use crate::sync::{Arc, Condvar, Mutex};
use crate::threads::spawn_named;
use crate::time::{Clock, MonoTime};

/// How the sender's thread ended; what `close` waits for.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    state: Mutex<Option<Ended>>,
    changed: Condvar,
}

/// What the sender leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Records that were given up.
    pub(crate) aborted_records: usize,
}

impl Ending {
    /// Waits until the thread has ended, or until `deadline`.
    pub(crate) fn wait(&self, clock: &Clock, deadline: MonoTime) -> Option<Ended> {
        let mut state = self.state.lock();
        while state.is_none() {
            let left = deadline.since(clock.now());
            if left == Duration::ZERO {
                break;
            }
            self.changed.wait_for(&mut state, left);
        }
        *state
    }

    fn set(&self, ended: Ended) {
        *self.state.lock() = Some(ended);
        self.changed.notify_all();
    }
}

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
        if let Some(reason) = reason {
            // Should this panic too, its second half is lost, but waiting calls have deadlines.
            let poisoned = catch_unwind(AssertUnwindSafe(|| sender.poison(&reason, clock.now())));
            debug_assert!(poisoned.is_ok(), "a second defect while failing everything");
        }
        let aborted_records = sender.aborted_records();
        // Connections are closed and buffers freed before anybody is told of the end.
        drop(sender);
        executor.begin_close();
        ending.set(Ended { aborted_records });
    })
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
