//! A child process that cannot outlive the test: dropping it kills it, and so does the end of the
//! test process, however that comes about.
//!
//! A small shell stands guard. It holds the read end of a pipe whose only write end is here, and
//! kills the child when that closes without a word; then it turns itself into the child, which
//! therefore has the process id that was started, and is reaped here.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// A line on the pipe dismisses the guard; the end of the pipe makes it kill.
const GUARD: &str = r#"exec 3<&0 </dev/null
(read -r _ <&3 || kill -9 $$) >/dev/null 2>&1 &
exec 3<&-
exec "$@""#;

pub struct Guarded {
    child: Child,
    /// `Some` until a test takes it.
    guard: Option<ChildStdin>,
}

impl Guarded {
    /// Starts `command` in a process group of its own (a Ctrl-C is for the test, not for it), with
    /// its output appended to `log`.
    pub fn spawn(command: &Command, log: &File) -> io::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .process_group(0)
            .spawn()?;
        let guard = child.stdin.take();
        Ok(Self { child, guard })
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id fits");
        // An error means that it has ended, which the caller learns from `is_running`.
        let _ = signal::kill(Pid::from_raw(pid), signal);
    }

    /// Asks it to end, and kills it when it has not done so after `grace`.
    pub fn stop(mut self, grace: Duration) {
        self.signal(Signal::SIGTERM);
        self.signal(Signal::SIGCONT); // a paused process hears only then
        let deadline = Instant::now() + grace;
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        // And the rest is `drop`.
    }
}

impl Drop for Guarded {
    /// Returns when the process is gone, and its ports with it.
    fn drop(&mut self) {
        let _ = self.child.kill();
        // Before `wait`: once it is reaped its id may be another's.
        if let Some(guard) = &mut self.guard {
            let _ = guard.write_all(b"\n");
        }
        let _ = self.child.wait();
    }
}

/// Whether a process with this id exists, ours or not.
pub fn exists(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    signal::kill(Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH)
}

#[test]
fn a_guarded_process_dies_with_the_end_of_its_pipe() {
    use std::os::unix::process::ExitStatusExt;

    let log = File::options().write(true).open("/dev/null").unwrap();
    let mut sleeper = Command::new("sleep");
    sleeper.arg("60");
    let mut guarded = Guarded::spawn(&sleeper, &log).unwrap();
    assert!(guarded.is_running());
    guarded.guard = None; // what the kernel does when this process ends
    assert_eq!(guarded.child.wait().unwrap().signal(), Some(9));
}
