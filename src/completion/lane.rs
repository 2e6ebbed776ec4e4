//! A partition's queue of decided batches: what keeps its callbacks in order.
//!
//! The sender pushes; one executor thread at a time takes. The lock is a leaf and is held for a
//! push or a pop only.

use std::collections::VecDeque;

use super::callback::CompletedBatch;
use super::flush::FlushToken;
use crate::claims;
use crate::planted::{Defect, is_planted};
use crate::sync::Mutex;

/// One a partition. Its batches' callbacks run one batch at a time, in the order of submission.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    state: Mutex<LaneState>,
}

#[derive(Debug, Default)]
struct LaneState {
    waiting: VecDeque<CompletedBatch>,
    /// The lane is in the run queue, or its batch is being run: nobody may schedule it again.
    scheduled: bool,
    /// Callbacks of the batch that is being run.
    running: usize,
    /// Flushes that began since it was taken.
    joined: Vec<FlushToken>,
}

impl Lane {
    /// Batches that an idle lane has room for.
    const KEPT: usize = 8;

    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a batch. True if the lane was idle: the caller must schedule it.
    pub(super) fn push(&self, batch: CompletedBatch) -> bool {
        let mut state = self.state.lock();
        state.waiting.push_back(batch);
        let was_idle = !std::mem::replace(&mut state.scheduled, true);
        state.invariants();
        was_idle || is_planted(Defect::TwoInOneLane)
    }

    /// The next batch, for the thread that the lane was scheduled to.
    pub(super) fn take(&self) -> Option<CompletedBatch> {
        let mut state = self.state.lock();
        debug_assert!(state.scheduled);
        let batch = state.waiting.pop_front();
        state.running = batch.as_ref().map_or(0, |batch| batch.callbacks.len());
        state.invariants();
        batch
    }

    /// Has a flush wait for the callbacks of all batches that are here, the one being run included;
    /// of that one it counts all until the last has run.
    pub(super) fn join(&self, flush: &FlushToken) {
        let mut state = self.state.lock();
        for batch in &mut state.waiting {
            batch.flush.push(flush.sibling(0, batch.callbacks.len()));
        }
        if state.running > 0 {
            let token = flush.sibling(0, state.running);
            state.joined.push(token);
        }
        state.invariants();
    }

    /// The batch that was taken is done with. True if there are more: the caller must schedule
    /// the lane again. Otherwise it is idle.
    pub(super) fn finish(&self) -> bool {
        let mut state = self.state.lock();
        debug_assert!(state.scheduled);
        state.scheduled = !state.waiting.is_empty();
        state.running = 0;
        if !state.scheduled && state.waiting.capacity() > Self::KEPT {
            // The room that a backlog has left behind.
            state.waiting = VecDeque::new();
        }
        let over = std::mem::take(&mut state.joined);
        let has_more = state.scheduled;
        state.invariants();
        drop(state);
        drop(over);
        has_more
    }
}

impl LaneState {
    /// An idle lane holds nothing, flushes join only what is run, and what waits has callbacks
    /// that may be called: looked at for the latest batch, the others were it once.
    fn invariants(&self) {
        if !claims::are_checked() || is_planted(Defect::TwoInOneLane) {
            return;
        }
        assert!(self.scheduled || (self.waiting.is_empty() && self.running == 0), "{self:?}");
        assert!(self.running > 0 || self.joined.is_empty(), "a flush of nothing: {self:?}");
        let callable = |last: &CompletedBatch| !last.callbacks.is_empty() && last.result.is_done();
        assert!(self.waiting.back().is_none_or(callable), "{self:?}");
    }
}
