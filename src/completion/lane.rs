//! A partition's queue of decided batches: what keeps its callbacks in order.
//!
//! The sender pushes; one executor thread at a time takes. The lock is a leaf and is held for a
//! push or a pop only.

use std::collections::VecDeque;

use super::callback::CompletedBatch;
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
}

impl Lane {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a batch. True if the lane was idle: the caller must schedule it.
    pub(super) fn push(&self, batch: CompletedBatch) -> bool {
        let mut state = self.state.lock();
        state.waiting.push_back(batch);
        !std::mem::replace(&mut state.scheduled, true)
    }

    /// The next batch, for the thread that the lane was scheduled to.
    pub(super) fn take(&self) -> Option<CompletedBatch> {
        let mut state = self.state.lock();
        debug_assert!(state.scheduled);
        state.waiting.pop_front()
    }

    /// The batch that was taken is done with. True if there are more: the caller must schedule
    /// the lane again. Otherwise it is idle.
    pub(super) fn finish(&self) -> bool {
        let mut state = self.state.lock();
        debug_assert!(state.scheduled);
        state.scheduled = !state.waiting.is_empty();
        state.scheduled
    }
}
