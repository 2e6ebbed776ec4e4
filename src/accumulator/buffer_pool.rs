//! Memory for batches, bounded by `buffer.memory`, handed out first come, first served.
//!
//! Users' threads take memory before they take a partition's lock; the sender gives it back when
//! the network no longer needs it. What is charged is what a batch holds, so that ten thousand
//! sparse partitions don't exhaust the pool. Buffers of `batch.size` are kept for reuse.
//!
//! A thread that waits holds nothing until there is all that it needs, and nobody behind it gets
//! any meanwhile. One whose partition or broker has used its share up (`shares`) is passed over
//! until some of that comes back: it waits for nobody else's memory, and nobody waits for it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::inbox::PartitionId;
use super::shares::{Share, ShareLimits, Shares};
use crate::claims;
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
    /// Nothing came free before the deadline; if a share is used up, nothing of that.
    Exhausted(Option<Share>),
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
    short: AtomicUsize,
    /// Some thread waits, for whatever, or was refused.
    is_wanted: AtomicBool,
}

/// Whose memory threads lack.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Anybody's.
    pub(crate) any: bool,
    /// That of these shares, which are used up.
    pub(crate) shares: BTreeSet<Share>,
}

struct State {
    /// Bytes neither handed out nor on the free list.
    unallocated: usize,
    /// Buffers of exactly `poolable` bytes.
    free: Vec<Vec<u8>>,
    /// Longest-waiting first.
    waiters: VecDeque<Arc<Waiter>>,
    /// Memory of threads that have left the queue with it and have not woken up yet.
    granted: Vec<Grant>,
    /// What those lack that were refused, since the sender looked last.
    refused: Wanted,
    shares: Shares,
    closed: bool,
}

/// A thread's place in the queue.
struct Waiter {
    /// Any one of these; of those whose share allows it the first.
    wants: Vec<Want>,
    turn: Condvar,
}

/// Memory that a thread needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// For whom; none only in tests and benches.
    pub(crate) id: Option<PartitionId>,
    pub(crate) size: usize,
}

/// What has come of a wait.
struct Grant {
    waiter: Arc<Waiter>,
    /// Which of its wants.
    place: usize,
    memory: Taken,
}

/// A place in the queue, to be turned into memory by [`BufferPool::wait`].
pub(crate) struct Place(Arc<Waiter>);

/// What asking for memory comes to at once.
pub(crate) enum Allocation {
    Granted(Vec<u8>),
    /// A share is used up, or else there is too little.
    Refused(Option<Share>),
}

impl BufferPool {
    pub(crate) fn new(total: usize, poolable: usize, shares: ShareLimits) -> Self {
        let state = State {
            unallocated: total,
            free: Vec::new(),
            waiters: VecDeque::new(),
            granted: Vec::new(),
            refused: Wanted::default(),
            shares: Shares::new(shares),
            closed: false,
        };
        Self {
            total,
            poolable,
            state: Mutex::new(state),
            short: AtomicUsize::new(0),
            is_wanted: AtomicBool::new(false),
        }
    }

    /// Whether a thread waits for memory, no matter whose: lingering batches are then worth
    /// sending.
    pub(crate) fn has_waiters(&self) -> bool {
        self.short.load(Ordering::Acquire) > 0
    }

    /// Whether a thread waits, if only for its share, or was refused since the last call of
    /// [`take_wanted`](Self::take_wanted).
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    /// Whether a thread waits for memory such as this partition's.
    pub(crate) fn is_wanted_of(&self, id: PartitionId) -> bool {
        if !self.is_wanted() {
            return false;
        }
        let state = self.state.lock();
        self.has_waiters() || (!state.waiters.is_empty() && state.shares.used_up(id).is_some())
    }

    /// What the threads lack that wait now, and those that were refused since the last call.
    pub(crate) fn take_wanted(&self) -> Wanted {
        let mut state = self.state.lock();
        let mut wanted = std::mem::take(&mut state.refused);
        for waiter in &state.waiters {
            match state.choose(&waiter.wants) {
                Ok(_) => wanted.any = true,
                Err(_) => {
                    let shares = waiter.wants.iter().filter_map(|want| state.used_up(*want));
                    wanted.shares.extend(shares);
                }
            }
        }
        self.is_wanted.store(!state.waiters.is_empty(), Ordering::Release);
        self.invariants(&state);
        wanted
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

    /// Memory for a partition, if there is some without a wait. A newcomer never overtakes a
    /// waiter whose share allows it to have some.
    pub(crate) fn begin(
        &self,
        id: PartitionId,
        size: usize,
        now: MonoTime,
    ) -> Result<Allocation, PoolError> {
        self.begin_for(Want { id: Some(id), size }, now)
    }

    fn begin_for(&self, want: Want, now: MonoTime) -> Result<Allocation, PoolError> {
        if want.size > self.total {
            return Err(PoolError::TooLarge);
        }
        let mut state = self.state.lock();
        if state.closed {
            return Err(PoolError::Closed);
        }
        if let Some(id) = want.id {
            state.shares.ask(id, now);
        }
        let mut garbage = self.serve(&mut state);
        let used_up = state.used_up(want);
        let may_have = used_up.is_none() && self.short.load(Ordering::Relaxed) == 0;
        let taken = if may_have { self.take(&mut state, want, &mut garbage) } else { None };
        if taken.is_none() {
            match used_up {
                Some(share) => drop(state.refused.shares.insert(share)),
                None => state.refused.any = true,
            }
            self.is_wanted.store(true, Ordering::Release);
        }
        self.invariants(&state);
        drop(state);
        drop(garbage);
        Ok(match taken {
            Some(taken) => Allocation::Granted(taken.into_buffer(want.size)),
            None => Allocation::Refused(used_up),
        })
    }

    /// As [`begin`](Self::begin), charged to nobody.
    #[cfg(any(test, feature = "__internal"))]
    pub(crate) fn begin_uncharged(&self, size: usize) -> Result<Allocation, PoolError> {
        self.begin_for(Want { id: None, size }, MonoTime::ZERO)
    }

    /// Takes a place at the end of the queue, for whichever of `wants` can be had first.
    pub(crate) fn queue_up(&self, wants: Vec<Want>) -> Result<Place, PoolError> {
        let waiter = Arc::new(Waiter { wants, turn: Condvar::new() });
        let mut state = self.state.lock();
        if state.closed {
            return Err(PoolError::Closed);
        }
        state.waiters.push_back(Arc::clone(&waiter));
        self.is_wanted.store(true, Ordering::Release);
        let garbage = self.serve(&mut state);
        self.invariants(&state);
        drop(state);
        drop(garbage);
        Ok(Place(waiter))
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

    /// The outcome of a wait, if there is one yet.
    #[cfg(test)]
    pub(crate) fn poll(&self, place: &Place) -> Option<Result<(usize, Vec<u8>), PoolError>> {
        let outcome = self.state.lock().outcome(place)?;
        Some(outcome.map(Grant::into_buffer))
    }

    /// Waits in the queue until `deadline`: which of the wants it is, and its memory. Each way out
    /// leaves the queue.
    pub(crate) fn wait(
        &self,
        place: Place,
        clock: &Clock,
        deadline: MonoTime,
    ) -> Result<(usize, Vec<u8>), PoolError> {
        let mut state = self.state.lock();
        loop {
            if let Some(outcome) = state.outcome(&place) {
                self.invariants(&state);
                drop(state);
                return outcome.map(Grant::into_buffer);
            }
            let left = deadline.since(clock.now());
            if left == Duration::ZERO {
                break;
            }
            place.0.turn.wait_for(&mut state, left);
        }
        // As it is now: others may have used the share up meanwhile, or have left some of it.
        let used_up = state.choose(&place.0.wants).err();
        if !is_planted(Defect::PoolTimeoutStays) {
            state.waiters.retain(|waiter| !Arc::ptr_eq(waiter, &place.0));
        }
        let garbage = self.serve(&mut state);
        self.invariants(&state);
        drop(state);
        drop(garbage);
        Err(PoolError::Exhausted(used_up))
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
            if let Some(id) = id {
                state.shares.refund(id, buffer.capacity());
            }
            if buffer.capacity() == self.poolable && !state.closed {
                buffer.clear();
                state.free.push(buffer);
            } else {
                state.unallocated += buffer.capacity();
                garbage.push(buffer);
            }
        }
        let forgets = is_planted(Defect::ShareNotServed) && !self.has_waiters();
        let dissolved = if forgets { Vec::new() } else { self.serve(&mut state) };
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
            waiter.turn.notify_one();
        }
        let garbage = self.serve(&mut state);
        self.invariants(&state);
        drop(state);
        drop(garbage);
    }

    /// Gives the longest-waiting threads whose shares allow it what they need, as far as there is
    /// enough. What comes back is to be dropped when the lock is gone.
    fn serve(&self, state: &mut State) -> Vec<Vec<u8>> {
        let mut garbage = Vec::new();
        // The threads passed that any memory would help: none of them is overtaken.
        let mut short = 0;
        let mut place = 0;
        while let Some(waiter) = state.waiters.get(place).map(Arc::clone) {
            place += 1;
            let Ok(chosen) = state.choose(&waiter.wants) else { continue };
            let want = waiter.wants[chosen];
            let taken = if short == 0 { self.take(state, want, &mut garbage) } else { None };
            let Some(memory) = taken else {
                short += 1;
                continue;
            };
            place -= 1;
            state.waiters.remove(place);
            waiter.turn.notify_one();
            state.granted.push(Grant { waiter, place: chosen, memory });
        }
        self.short.store(short, Ordering::Release);
        garbage
    }

    /// Takes memory out of the pool's state, if there is enough, and charges it.
    fn take(&self, state: &mut State, want: Want, garbage: &mut Vec<Vec<u8>>) -> Option<Taken> {
        if want.size > state.unallocated + state.free.len() * self.poolable {
            return None;
        }
        if let Some(id) = want.id {
            state.shares.charge(id, want.size);
        }
        if want.size == self.poolable {
            if let Some(buffer) = state.free.pop() {
                return Some(Taken::Reused(buffer));
            }
        }
        // As many buffers off the free list as it takes.
        let missing = want.size.saturating_sub(state.unallocated).div_ceil(self.poolable);
        garbage.extend(state.free.drain(state.free.len() - missing..));
        state.unallocated += missing * self.poolable;
        state.unallocated -= want.size;
        Some(Taken::Fresh)
    }

    /// Bytes are free, or somebody's, once; who is told of waits, and who waits lacks something.
    fn invariants(&self, state: &State) {
        if !claims::are_checked() {
            return;
        }
        let granted: usize = state.granted.iter().map(|grant| grant.want().size).sum();
        let available = state.unallocated + state.free.len() * self.poolable;
        assert!(available + granted <= self.total, "more memory than there is");
        assert!(!state.closed || state.waiters.is_empty(), "a waiter after close");
        assert!(self.short.load(Ordering::Relaxed) <= state.waiters.len());
        let is_wanted = !state.waiters.is_empty() || state.refused != Wanted::default();
        assert!(!is_wanted || self.is_wanted.load(Ordering::Relaxed), "unheard of");
        assert!(state.free.last().is_none_or(|kept| kept.capacity() == self.poolable));
        let mut wants = state.waiters.iter().filter_map(|waiter| {
            state.choose(&waiter.wants).ok().map(|place| waiter.wants[place].size)
        });
        let starves = wants.next().is_some_and(|size| size <= available);
        assert!(!starves || is_planted(Defect::ShareNotServed), "{available} are free");
        if state.shares.is_small() {
            assert!(available + state.shares.held() <= self.total, "free, and held");
        }
        state.shares.invariants();
    }
}

impl State {
    fn used_up(&self, want: Want) -> Option<Share> {
        want.id.and_then(|id| self.shares.used_up(id))
    }

    /// The first want whose share allows it, by its place; else the first one's share.
    fn choose(&self, wants: &[Want]) -> Result<usize, Share> {
        let mut first = None;
        for (place, want) in wants.iter().enumerate() {
            match self.used_up(*want) {
                Some(share) => first = first.or(Some(share)),
                None => return Ok(place),
            }
        }
        first.map_or(Ok(0), Err)
    }

    fn outcome(&mut self, place: &Place) -> Option<Result<Grant, PoolError>> {
        let is_its = |grant: &Grant| Arc::ptr_eq(&grant.waiter, &place.0);
        match self.granted.iter().position(is_its) {
            Some(granted) => Some(Ok(self.granted.swap_remove(granted))),
            None => self.closed.then_some(Err(PoolError::Closed)),
        }
    }
}

impl Grant {
    fn want(&self) -> Want {
        self.waiter.wants[self.place]
    }

    fn into_buffer(self) -> (usize, Vec<u8>) {
        let size = self.want().size;
        (self.place, self.memory.into_buffer(size))
    }
}

/// Memory taken from the pool's state; turned into a buffer when the lock is gone.
enum Taken {
    Reused(Vec<u8>),
    Fresh,
}

impl Taken {
    fn into_buffer(self, size: usize) -> Vec<u8> {
        match self {
            Self::Reused(buffer) => buffer,
            Self::Fresh => Vec::with_capacity(size),
        }
    }
}

#[cfg(all(test, loom))]
#[path = "buffer_pool_loom.rs"]
mod loom_models;

#[cfg(test)]
#[path = "buffer_pool_tests.rs"]
mod tests;
