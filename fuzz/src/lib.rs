//! What the fuzz targets share: an allocator that counts, so that a few bytes that lie about what
//! follows them can't make us take much memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counted.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all of it is the system allocator's work; the counters touch no memory of its.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: as the caller has promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller has promised.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `body` on `bytes` from outside, and panics if it held more memory than they are worth:
/// values in memory are larger than on the wire, but by no more than a factor.
pub fn bounded<T>(bytes: &[u8], body: impl FnOnce(&[u8]) -> T) -> T {
    const FACTOR: usize = 100;
    const BASE: usize = 256 * 1024;
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = body(bytes);
    let most = MOST.load(Ordering::Relaxed).saturating_sub(before);
    assert!(most <= BASE + FACTOR * bytes.len(), "{most} bytes held for {}", bytes.len());
    result
}
