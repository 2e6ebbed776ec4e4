//! Memory for batches, bounded by `buffer.memory`, handed out first come, first served.
//!
//! Users' threads take memory before they take a partition's lock; the sender gives it back when
//! the network no longer needs it. What is charged is what a batch holds, so that ten thousand
//! sparse partitions don't exhaust the pool. Buffers of `batch.size` are kept for reuse.
//!
//! A thread whose partition or broker has used its share up (`shares`) is passed over until some of
//! that comes back: it waits for nobody else's memory, and nobody waits for it.

use std::collections::VecDeque;
use std::time::Duration;

use super::inbox::PartitionId;
use super::shares::{ShareLimits, Shares, UsedUp};
use crate::planted::{Defect, is_planted};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Condvar, Mutex};
use crate::time::{Clock, MonoTime};
use crate::types::NodeId;

/// Why no memory was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoolError {
    /// More than the whole pool holds was asked for.
    TooLarge,
    /// Nothing came free before the deadline.
    Exhausted,
    /// The pool was closed before or while the caller waited.
    Closed,
}

/// The pool. All of its state is behind one leaf lock.
pub(crate) struct BufferPool {
    /// `buffer.memory`, in bytes.
    total: usize,
    /// The size of the buffers that are kept for reuse: `batch.size`.
    poolable: usize,
    state: Mutex<State>,
    /// Threads in the queue that any memory would help, for the sender to see without the lock.
    waiting: AtomicUsize,
}

struct State {
    /// Bytes neither handed out, nor on the free list, nor gathered by a waiter.
    unallocated: usize,
    /// Buffers of exactly `poolable` bytes.
    free: Vec<Vec<u8>>,
    /// Longest-waiting first.
    waiters: VecDeque<Arc<Waiter>>,
    /// Bytes held by the waiters' `gathered`.
    gathered: usize,
    /// Buffers of `poolable` bytes, counted as gathered, for waiters that were granted as many.
    reserved: Vec<Vec<u8>>,
    shares: Shares,
    closed: bool,
}

/// A thread's place in the queue. Fields but the condition variable change under the pool's lock.
struct Waiter {
    /// For whom; none only in tests and benches.
    id: Option<PartitionId>,
    needed: usize,
    /// It is this waiter's turn: what it needs is charged to its partition.
    charged: AtomicBool,
    /// Bytes that this waiter has so far; all of `needed` once it is granted.
    gathered: AtomicUsize,
    granted: AtomicBool,
    turn: Condvar,
}

/// A place in the queue, given up by [`BufferPool::cancel`] or turned into memory.
pub(crate) struct Place(Arc<Waiter>, Option<UsedUp>);

impl Place {
    /// The share for whose memory this place waits; none if it waits for any memory.
    pub(crate) fn used_up(&self) -> Option<UsedUp> {
        self.1
    }
}

/// What asking for memory comes to at once.
pub(crate) enum Allocation {
    Granted(Vec<u8>),
    Queued(Place),
}

impl BufferPool {
    pub(crate) fn new(total: usize, poolable: usize, shares: ShareLimits) -> Self {
        let state = State {
            unallocated: total,
            free: Vec::new(),
            waiters: VecDeque::new(),
            gathered: 0,
            reserved: Vec::new(),
            shares: Shares::new(shares),
            closed: false,
        };
        Self { total, poolable, state: Mutex::new(state), waiting: AtomicUsize::new(0) }
    }

    /// Whether a thread waits for memory, no matter whose: lingering batches are then worth
    /// sending.
    pub(crate) fn has_waiters(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// How many threads wait for memory, those that wait for their own share included.
    pub(crate) fn waiting_threads(&self) -> usize {
        self.state.lock().waiters.len()
    }

    /// `buffer.memory`, in bytes.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// The bytes that could be handed out now, the free list's included.
    pub(crate) fn available(&self) -> usize {
        let state = self.state.lock();
        state.unallocated + state.free.len() * self.poolable
    }

    /// Memory for a partition at once, or a place in the queue. A newcomer never overtakes a waiter
    /// whose share allows it to have some.
    pub(crate) fn begin(
        &self,
        id: PartitionId,
        size: usize,
        now: MonoTime,
    ) -> Result<Allocation, PoolError> {
        self.begin_for(Some(id), size, now)
    }

    fn begin_for(
        &self,
        id: Option<PartitionId>,
        size: usize,
        now: MonoTime,
    ) -> Result<Allocation, PoolError> {
        if size > self.total {
            return Err(PoolError::TooLarge);
        }
        let mut state = self.state.lock();
        if state.closed {
            return Err(PoolError::Closed);
        }
        if let Some(id) = id {
            state.shares.ask(id, now);
        }
        // Whoever is still in the queue then has what there was, or waits for a share.
        let mut garbage = self.serve(&mut state);
        let used_up = id.and_then(|id| state.shares.used_up(id));
        if used_up.is_none() {
            if let Some(memory) = self.take(&mut state, size) {
                state.charge(id, size);
                drop(state);
                return Ok(Allocation::Granted(memory.into_buffer(size)));
            }
        }
        let waiter = Arc::new(Waiter {
            id,
            needed: size,
            charged: AtomicBool::new(false),
            gathered: AtomicUsize::new(0),
            granted: AtomicBool::new(false),
            turn: Condvar::new(),
        });
        state.waiters.push_back(Arc::clone(&waiter));
        garbage.extend(self.serve(&mut state));
        self.invariants(&state);
        drop(state);
        drop(garbage);
        Ok(Allocation::Queued(Place(waiter, used_up)))
    }

    /// As [`begin`](Self::begin), charged to nobody.
    #[cfg(any(test, feature = "__internal"))]
    pub(crate) fn begin_uncharged(&self, size: usize) -> Result<Allocation, PoolError> {
        self.begin_for(None, size, MonoTime::ZERO)
    }

    /// The partition has another leader.
    pub(crate) fn set_leader(&self, id: PartitionId, leader: Option<NodeId>) {
        let mut state = self.state.lock();
        state.shares.set_leader(id, leader);
        let garbage = self.serve(&mut state);
        self.invariants(&state);
        drop(state);
        drop(garbage);
    }

    /// What all partitions hold.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.state.lock().shares.held()
    }

    /// Memory only if no thread has to wait for it.
    #[cfg(test)]
    pub(crate) fn try_allocate(&self, size: usize) -> Result<Vec<u8>, PoolError> {
        match self.begin_uncharged(size)? {
            Allocation::Granted(memory) => Ok(memory),
            Allocation::Queued(place) => self.poll(&place).unwrap_or_else(|| {
                self.cancel(place);
                Err(PoolError::Exhausted)
            }),
        }
    }

    /// The outcome of a wait, if there is one yet.
    pub(crate) fn poll(&self, place: &Place) -> Option<Result<Vec<u8>, PoolError>> {
        let mut state = self.state.lock();
        self.poll_locked(&mut state, place)
    }

    /// Waits in the queue until `deadline`. Each way out leaves the queue.
    pub(crate) fn wait(
        &self,
        place: Place,
        clock: &Clock,
        deadline: MonoTime,
    ) -> Result<Vec<u8>, PoolError> {
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = self.poll_locked(&mut state, &place) {
                return outcome;
            }
            let left = deadline.since(clock.now());
            if left == Duration::ZERO {
                drop(state);
                self.cancel(place);
                return Err(PoolError::Exhausted);
            }
            place.0.turn.wait_for(&mut state, left);
        }
    }

    fn poll_locked(&self, state: &mut State, place: &Place) -> Option<Result<Vec<u8>, PoolError>> {
        if place.0.granted.swap(false, Ordering::AcqRel) {
            let size = place.0.gathered.swap(0, Ordering::AcqRel);
            state.gathered -= size;
            let reserved = if size == self.poolable { state.reserved.pop() } else { None };
            self.invariants(state);
            return Some(Ok(reserved.unwrap_or_else(|| Vec::with_capacity(size))));
        }
        state.closed.then_some(Err(PoolError::Closed))
    }

    /// Leaves the queue, and returns what was gathered to whoever is next.
    pub(crate) fn cancel(&self, place: Place) {
        let mut state = self.state.lock();
        state.waiters.retain(|w| !Arc::ptr_eq(w, &place.0));
        if place.0.charged.load(Ordering::Acquire) {
            state.refund(place.0.id, place.0.needed);
        }
        let granted = place.0.granted.swap(false, Ordering::AcqRel);
        let gathered = place.0.gathered.swap(0, Ordering::AcqRel);
        state.gathered -= gathered;
        let reserved =
            if granted && gathered == self.poolable { state.reserved.pop() } else { None };
        match reserved {
            Some(buffer) => state.free.push(buffer),
            None if is_planted(Defect::PoolTimeoutKeeps) => {}
            None => state.unallocated += gathered,
        }
        let garbage = self.serve(&mut state);
        self.invariants(&state);
        drop(state);
        drop(garbage);
    }

    /// Takes a partition's buffer back, to be reused or freed.
    pub(crate) fn release(&self, id: PartitionId, buffer: Vec<u8>) {
        self.take_back(std::iter::once((Some(id), buffer)));
    }

    /// Takes buffers back under one lock.
    pub(crate) fn release_all(&self, buffers: impl IntoIterator<Item = (PartitionId, Vec<u8>)>) {
        self.take_back(buffers.into_iter().map(|(id, buffer)| (Some(id), buffer)));
    }

    /// As [`release_all`](Self::release_all), of what was charged to nobody.
    #[cfg(any(test, feature = "__internal"))]
    pub(crate) fn release_uncharged(&self, buffers: impl IntoIterator<Item = Vec<u8>>) {
        self.take_back(buffers.into_iter().map(|buffer| (None, buffer)));
    }

    fn take_back(&self, mut buffers: impl Iterator<Item = (Option<PartitionId>, Vec<u8>)>) {
        let Some(first) = buffers.next() else { return };
        let mut state = self.state.lock();
        let mut garbage = Vec::new();
        for (id, mut buffer) in std::iter::once(first).chain(buffers) {
            state.refund(id, buffer.capacity());
            if buffer.capacity() == self.poolable && !state.closed {
                buffer.clear();
                state.free.push(buffer);
            } else {
                state.unallocated += buffer.capacity();
                garbage.push(buffer);
            }
        }
        let dissolved = self.serve(&mut state);
        self.invariants(&state);
        // Freed only when the lock is gone.
        drop(state);
        drop((garbage, dissolved));
    }

    /// Frees what lies on the free list; for the sender when it has been idle.
    pub(crate) fn trim(&self) {
        let mut state = self.state.lock();
        let free = std::mem::take(&mut state.free);
        state.unallocated += free.len() * self.poolable;
        self.invariants(&state);
        drop(state);
        drop(free);
    }

    /// Refuses new requests and wakes all waiters with [`PoolError::Closed`]; releases still work.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for waiter in std::mem::take(&mut state.waiters) {
            let gathered = waiter.gathered.swap(0, Ordering::AcqRel);
            state.gathered -= gathered;
            state.unallocated += gathered;
            if waiter.charged.swap(false, Ordering::AcqRel) {
                state.refund(waiter.id, waiter.needed);
            }
            waiter.turn.notify_one();
        }
        self.waiting.store(0, Ordering::Release);
        self.invariants(&state);
    }

    /// Takes `size` bytes out of the pool's state, from the free list where that fits.
    fn take(&self, state: &mut State, size: usize) -> Option<Taken> {
        if size == self.poolable {
            if let Some(buffer) = state.free.pop() {
                return Some(Taken::Reused(buffer));
            }
        }
        if size > state.unallocated + state.free.len() * self.poolable {
            return None;
        }
        let garbage = self.dissolve(state, size);
        state.unallocated -= size;
        Some(Taken::Fresh { _freed_outside_the_lock: garbage })
    }

    /// Takes as many buffers off the free list as it takes to have `size` bytes unallocated, or
    /// all of them. They are to be dropped when the lock is gone.
    fn dissolve(&self, state: &mut State, size: usize) -> Vec<Vec<u8>> {
        let short = size.saturating_sub(state.unallocated);
        let count = short.div_ceil(self.poolable).min(state.free.len());
        state.unallocated += count * self.poolable;
        state.free.split_off(state.free.len() - count)
    }

    /// Gives what there is to the longest-waiting threads whose shares allow it. What comes back is
    /// to be dropped when the lock is gone.
    fn serve(&self, state: &mut State) -> Vec<Vec<u8>> {
        let mut garbage = Vec::new();
        // The threads passed that any memory would help; the first of them has gathered all.
        let mut short = 0;
        let mut place = 0;
        while let Some(waiter) = state.waiters.get(place).map(Arc::clone) {
            let is_charged = waiter.charged.load(Ordering::Acquire);
            if !is_charged && waiter.id.is_some_and(|id| state.shares.used_up(id).is_some()) {
                place += 1;
                continue;
            }
            if short == 0 && self.serve_one(state, &waiter, &mut garbage) {
                state.waiters.remove(place);
                continue;
            }
            short += 1;
            place += 1;
        }
        self.waiting.store(short, Ordering::Release);
        garbage
    }

    /// Gives a thread what there is; whether that is all that it needs.
    fn serve_one(&self, state: &mut State, waiter: &Waiter, garbage: &mut Vec<Vec<u8>>) -> bool {
        if !waiter.charged.swap(true, Ordering::AcqRel) {
            state.charge(waiter.id, waiter.needed);
        }
        let has = waiter.gathered.load(Ordering::Acquire);
        let gets = if has == 0 && waiter.needed == self.poolable && !state.free.is_empty() {
            // As it is, without the allocator.
            state.reserved.extend(state.free.pop());
            self.poolable
        } else {
            let missing = waiter.needed - has;
            garbage.append(&mut self.dissolve(state, missing));
            let gets = missing.min(state.unallocated);
            state.unallocated -= gets;
            gets
        };
        waiter.gathered.store(has + gets, Ordering::Release);
        state.gathered += gets;
        if has + gets < waiter.needed {
            return false;
        }
        waiter.granted.store(true, Ordering::Release);
        waiter.turn.notify_one();
        true
    }

    fn invariants(&self, state: &State) {
        debug_assert!(
            state.unallocated + state.gathered + state.free.len() * self.poolable <= self.total,
            "more memory than there is"
        );
        debug_assert!(
            state.reserved.len() * self.poolable <= state.gathered,
            "reserved for nobody"
        );
        debug_assert!(!state.closed || state.waiters.is_empty(), "a waiter after close");
        debug_assert!(self.waiting.load(Ordering::Relaxed) <= state.waiters.len());
        state.shares.invariants();
    }
}

impl State {
    fn charge(&mut self, id: Option<PartitionId>, size: usize) {
        if let Some(id) = id {
            self.shares.charge(id, size);
        }
    }

    fn refund(&mut self, id: Option<PartitionId>, size: usize) {
        if let Some(id) = id {
            self.shares.refund(id, size);
        }
    }
}

/// Memory taken from the pool's state; turned into a buffer when the lock is gone.
enum Taken {
    Reused(Vec<u8>),
    Fresh { _freed_outside_the_lock: Vec<Vec<u8>> },
}

impl Taken {
    fn into_buffer(self, size: usize) -> Vec<u8> {
        match self {
            Self::Reused(buffer) => buffer,
            Self::Fresh { .. } => Vec::with_capacity(size),
        }
    }
}

#[cfg(all(test, loom))]
#[path = "buffer_pool_loom.rs"]
mod loom_models;

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(total: usize, poolable: usize) -> BufferPool {
        BufferPool::new(total, poolable, ShareLimits::none(total))
    }

    fn granted(pool: &BufferPool, size: usize) -> Vec<u8> {
        match pool.begin_uncharged(size).unwrap() {
            Allocation::Granted(buffer) => buffer,
            Allocation::Queued(_) => panic!("queued"),
        }
    }

    fn queued(pool: &BufferPool, size: usize) -> Place {
        match pool.begin_uncharged(size).unwrap() {
            Allocation::Granted(_) => panic!("granted"),
            Allocation::Queued(place) => place,
        }
    }

    /// A thread that waits for as long as a test may take, and most likely sleeps by now.
    fn waiting(
        pool: &Arc<BufferPool>,
        size: usize,
    ) -> std::thread::JoinHandle<Result<Vec<u8>, PoolError>> {
        let place = queued(pool, size);
        let pool = Arc::clone(pool);
        let (begins, begun) = std::sync::mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let clock = Clock::system();
            let deadline = clock.now() + Duration::from_secs(30);
            begins.send(()).unwrap();
            let waited = pool.wait(place, &clock, deadline);
            assert!(clock.now() < deadline, "it was the deadline that ended the wait");
            waited
        });
        begun.recv().unwrap();
        (0..1000).for_each(|_| std::thread::yield_now());
        waiter
    }

    /// BP-01, BP-02, BP-03, BP-04.
    #[test]
    fn buffers_of_batch_size_are_reused_and_others_freed() {
        let pool = pool(64, 16);
        let mut buffer = granted(&pool, 16);
        assert_eq!((buffer.capacity(), pool.available()), (16, 48));
        buffer.extend_from_slice(b"used");
        let address = buffer.as_ptr();
        pool.release_uncharged([buffer]);
        assert_eq!(pool.available(), 64);
        let again = granted(&pool, 16);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        let odd = granted(&pool, 10);
        assert_eq!(pool.available(), 38);
        pool.release_uncharged([odd, again]);
        assert_eq!(pool.available(), 64);
        assert_eq!(pool.state.lock().unallocated, 48);
        pool.trim();
        assert_eq!(pool.state.lock().unallocated, 64);
    }

    #[test]
    fn the_free_list_is_dissolved_for_a_larger_buffer() {
        let pool = pool(64, 16);
        let four: Vec<_> = (0..4).map(|_| granted(&pool, 16)).collect();
        pool.release_uncharged(four);
        assert_eq!(granted(&pool, 40).capacity(), 40);
        assert_eq!(pool.available(), 24);
    }

    /// BP-05.
    #[test]
    fn more_than_the_pool_is_refused_at_once_and_all_of_it_is_granted() {
        let pool = pool(64, 16);
        assert!(matches!(pool.begin_uncharged(65), Err(PoolError::TooLarge)));
        assert_eq!(granted(&pool, 64).capacity(), 64);
    }

    /// BP-17.
    #[test]
    fn memory_goes_to_the_longest_waiting_first_and_piecemeal() {
        let pool = pool(64, 16);
        let (a, b) = (granted(&pool, 16), granted(&pool, 48));
        let large = queued(&pool, 40);
        let small = queued(&pool, 8);
        pool.release_uncharged([a]);
        assert!(pool.poll(&large).is_none());
        assert!(pool.poll(&small).is_none(), "a newcomer overtook");
        pool.release_uncharged([b]);
        assert_eq!(pool.poll(&large).unwrap().unwrap().capacity(), 40);
        assert_eq!(pool.poll(&small).unwrap().unwrap().capacity(), 8);
        assert!(!pool.has_waiters());
    }

    /// BP-09.
    #[test]
    fn a_waiter_that_gives_up_leaves_the_queue_and_returns_what_it_gathered() {
        let pool = pool(64, 16);
        let (a, b) = (granted(&pool, 16), granted(&pool, 48));
        let large = queued(&pool, 40);
        let small = queued(&pool, 16);
        pool.release_uncharged([a]);
        pool.cancel(large);
        assert_eq!(pool.poll(&small).unwrap().unwrap().capacity(), 16);
        pool.release_uncharged([b]);
        assert_eq!(pool.available(), 48);
    }

    #[test]
    fn a_grant_that_comes_as_the_waiter_gives_up_is_not_lost() {
        for size in [40, 16] {
            let pool = pool(64, 16);
            let all: Vec<_> = (0..4).map(|_| granted(&pool, 16)).collect();
            let place = queued(&pool, size);
            pool.release_uncharged(all);
            pool.cancel(place);
            assert_eq!(pool.available(), 64);
        }
    }

    #[test]
    fn a_waiter_for_a_whole_buffer_gets_the_one_that_comes_back() {
        let pool = pool(32, 16);
        let (a, b) = (granted(&pool, 16), granted(&pool, 16));
        let places = [queued(&pool, 16), queued(&pool, 8)];
        let address = b.as_ptr();
        pool.release_uncharged([a, b]);
        let [whole, half] = places.map(|place| pool.poll(&place).unwrap().unwrap());
        assert_eq!((whole.as_ptr(), whole.len(), whole.capacity()), (address, 0, 16));
        assert_eq!((half.capacity(), pool.available()), (8, 8));
        pool.release_uncharged([whole, half]);
        assert_eq!(pool.available(), 32);
    }

    /// BP-08, BP-09.
    #[test]
    fn a_wait_ends_at_its_deadline_and_not_before() {
        let pool = pool(64, 16);
        let _most = granted(&pool, 60);
        let clock = Clock::system();
        let begun = clock.now();
        let deadline = begun + Duration::from_millis(20);
        let place = queued(&pool, 5);
        assert_eq!(pool.available(), 0, "gathered");
        assert_eq!(pool.wait(place, &clock, deadline), Err(PoolError::Exhausted));
        assert!(clock.now() >= deadline);
        assert!(!pool.has_waiters());
        assert_eq!(pool.try_allocate(5), Err(PoolError::Exhausted));
        assert!(!pool.has_waiters());
        assert_eq!(pool.available(), 4);
    }

    /// BP-06.
    #[test]
    fn a_wait_for_all_of_the_pool_ends_as_the_last_byte_comes_back() {
        let pool = Arc::new(pool(64, 16));
        let (most, last) = (granted(&pool, 63), granted(&pool, 1));
        let waiter = waiting(&pool, 64);
        pool.release_uncharged([most]);
        assert!(pool.has_waiters());
        pool.release_uncharged([last]);
        assert_eq!(waiter.join().unwrap().unwrap().capacity(), 64);
        assert_eq!(pool.available(), 0);
    }

    /// BP-14.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_pool_may_be_larger_than_32_bits_can_count() {
        const TWO: usize = 2_000_000_000;
        // What is not touched takes no memory.
        let pool = pool(10 * TWO, TWO);
        let (a, b, c) = (granted(&pool, TWO), granted(&pool, TWO), granted(&pool, TWO + 1));
        assert_eq!(pool.available(), 7 * TWO - 1);
        pool.release_uncharged([a, b]);
        assert_eq!(pool.available(), 9 * TWO - 1);
        assert_eq!(pool.state.lock().unallocated, 7 * TWO - 1);
        pool.release_uncharged([c]);
        assert_eq!(pool.available(), 10 * TWO);
    }

    /// BP-15, BP-16.
    #[test]
    fn close_wakes_waiters_and_refuses_newcomers_but_takes_memory_back() {
        let pool = Arc::new(pool(64, 16));
        let all = granted(&pool, 60);
        let waiters = [8, 16, 60].map(|size| waiting(&pool, size));
        pool.close();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Err(PoolError::Closed));
        }
        assert!(!pool.has_waiters());
        assert!(matches!(pool.begin_uncharged(1), Err(PoolError::Closed)));
        pool.release_uncharged([all]);
        assert_eq!(pool.available(), 64);
    }

    /// BP-13.
    #[test]
    fn memory_is_whole_again_after_ten_threads_mixed_sizes() {
        let pool = Arc::new(pool(1000, 100));
        let clock = Clock::system();
        let deadline = clock.now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            for t in 0..10 {
                let (pool, clock) = (&pool, &clock);
                scope.spawn(move || {
                    for i in 0..2000 {
                        let size = if i % 2 == 0 { 100 } else { 1 + (t * 131 + i * 17) % 400 };
                        let buffer = match pool.begin_uncharged(size).unwrap() {
                            Allocation::Granted(buffer) => buffer,
                            Allocation::Queued(place) => pool.wait(place, clock, deadline).unwrap(),
                        };
                        assert_eq!(buffer.capacity(), size);
                        pool.release_uncharged([buffer]);
                    }
                });
            }
        });
        assert_eq!(pool.available(), 1000);
        assert!(!pool.has_waiters());
    }
}
