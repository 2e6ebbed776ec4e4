//! How this crate starts a thread: named, and out of reach of the process's signals.

use std::io;

use crate::error::Error;
use crate::sync::thread::{Builder, JoinHandle};

/// Starts a thread under the given name with all signals blocked, so that the program's handlers
/// run on its own threads only. They are blocked before the thread exists, since it inherits them.
///
/// # Errors
/// Those of the operating system, when it has no thread to give.
pub(crate) fn spawn_named<T: Send + 'static>(
    name: String,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    // A client's id may have any character, and a thread's name may not have this one.
    let name = name.replace('\0', "\u{fffd}");
    let _blocked = SignalsBlocked::enter()?;
    #[cfg(all(test, not(loom)))]
    let body = crate::sim::adopt(&name, body);
    Builder::new().name(name).spawn(body)
}

/// The process that a producer was built in. A forked child has its memory but not its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn current() -> Self {
        Self(std::process::id())
    }

    /// One that this is not.
    #[cfg(test)]
    pub(crate) fn another() -> Self {
        Self(std::process::id().wrapping_add(1))
    }

    pub(crate) fn id(self) -> u32 {
        self.0
    }

    /// Refuses what would wait for threads that are not there. Costs a system call: for waiting
    /// calls and once a batch, not for each record.
    ///
    /// # Errors
    /// [`Error::Forked`] in any process but the one of [`Process::current`].
    pub(crate) fn check(self) -> Result<(), Error> {
        if std::process::id() == self.0 { Ok(()) } else { Err(Error::Forked) }
    }
}

#[cfg(unix)]
struct SignalsBlocked(nix::sys::signal::SigSet);

#[cfg(unix)]
impl SignalsBlocked {
    fn enter() -> io::Result<Self> {
        use nix::sys::signal::{SigSet, SigmaskHow};
        Ok(Self(SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?))
    }
}

#[cfg(unix)]
impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // The mask came from the system itself, which therefore takes it back.
        let restored = self.0.thread_set_mask();
        debug_assert!(restored.is_ok());
    }
}

#[cfg(not(unix))]
struct SignalsBlocked;

#[cfg(not(unix))]
impl SignalsBlocked {
    fn enter() -> io::Result<Self> {
        Ok(Self)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use nix::sys::signal::{SigSet, Signal};

    #[test]
    fn a_thread_has_its_name_and_takes_no_signals() {
        let before = SigSet::thread_get_mask().unwrap();
        let thread = spawn_named("kp-test".to_owned(), || {
            (std::thread::current().name().map(str::to_owned), SigSet::thread_get_mask().unwrap())
        });
        let (name, mask) = thread.unwrap().join().unwrap();
        assert_eq!(name.as_deref(), Some("kp-test"));
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGALRM] {
            assert!(mask.contains(signal), "{signal} is not blocked");
        }
        assert_eq!(SigSet::thread_get_mask().unwrap(), before, "the caller's mask is restored");
    }
}
