//! The one door to locks and condition variables, so that a model checker can stand in for them.
//!
//! Lock order (the whole of it): a partition's queue, then nothing. The buffer pool, the sender's
//! inbox, metadata and delivery state are leaves: each is taken with no other lock held.

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
pub(crate) use std::sync::Arc;
