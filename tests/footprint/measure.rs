//! What the system and the allocator tell of this process.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::COUNTED;
use crate::common::LONG;

pub const KB: u64 = 1024;
pub const MB: u64 = 1024 * KB;

/// The bytes in memory now, to the page.
pub fn resident() -> u64 {
    kilobytes("/proc/self/smaps_rollup", "Rss:")
}

/// The most bytes in memory so far.
pub fn peak() -> u64 {
    kilobytes("/proc/self/status", "VmHWM:")
}

fn kilobytes(path: &str, field: &str) -> u64 {
    KB * number(&fs::read_to_string(path).unwrap(), field)
}

/// The number in the line that begins with `field`.
fn number(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap_or_else(|| panic!("no {field}")).parse().unwrap()
}

/// The bytes allocated and not freed.
pub fn allocated() -> usize {
    let stats = COUNTED.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// How often each other thread of this process has gone to sleep of its own will, and its name.
pub fn naps() -> Vec<(String, u64)> {
    let me = fs::read_link("/proc/thread-self").unwrap();
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap());
    let others = tasks.filter(|task| me.file_name() != Some(&task.file_name()));
    // A thread that has ended meanwhile naps no more.
    let told = others.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    told.map(|status| {
        let name = status.lines().next().unwrap_or_default().to_owned();
        (name, number(&status, "voluntary_ctxt_switches:"))
    })
    .collect()
}

/// Waits until a figure has stood still for longer than the second after which a producer at rest
/// gives back what it keeps for the next batches.
#[track_caller]
pub fn until_still<T: PartialEq>(figure: impl Fn() -> T) -> T {
    const STILL: Duration = Duration::from_millis(1_200);
    let start = Instant::now();
    let (mut last, mut since) = (figure(), start);
    while since.elapsed() < STILL {
        assert!(start.elapsed() < LONG, "it comes to no rest");
        sleep(Duration::from_millis(20));
        let next = figure();
        if next != last {
            (last, since) = (next, Instant::now());
        }
    }
    last
}

/// The time that all threads have been on a core, in the kernel too.
pub fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let duration = |time: TimeVal| {
        Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()).unsigned_abs())
    };
    duration(usage.user_time()) + duration(usage.system_time())
}
