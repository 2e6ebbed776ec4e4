//! What was sent, and what became of it: one entry for each record that a user tried to send.

use crate::completion::{Delivery, RecordMetadata};
use crate::error::Error;
use crate::sync::{Arc, Mutex};
use crate::time::MonoTime;

/// A record of the run, by its place in the ledger; also in its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordId(pub(super) u32);

#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Entries>>);

#[derive(Default)]
pub(super) struct Entries {
    pub(super) entries: Vec<Entry>,
    /// How many were accepted so far.
    accepted: u32,
}

pub(super) struct Entry {
    pub(super) topic: usize,
    pub(super) state: Sent,
    /// Calls of its callback, and when.
    pub(super) called: Vec<(MonoTime, Result<RecordMetadata, Error>)>,
    pub(super) has_callback: bool,
}

/// What the send said.
pub(super) enum Sent {
    /// It has not returned.
    Pending,
    /// It refused the record.
    Refused,
    /// It took the record: as the how manyth of all, and when.
    Accepted { order: u32, at: MonoTime, delivery: Option<Delivery> },
}

impl Ledger {
    pub(super) fn lock(&self) -> crate::sync::MutexGuard<'_, Entries> {
        self.0.lock()
    }

    pub(super) fn begin(&self, topic: usize, has_callback: bool) -> RecordId {
        let mut entries = self.lock();
        let id = RecordId(entries.entries.len() as u32);
        let state = Sent::Pending;
        entries.entries.push(Entry { topic, state, called: Vec::new(), has_callback });
        id
    }

    pub(super) fn refuse(&self, id: RecordId) {
        self.lock().entries[id.0 as usize].state = Sent::Refused;
    }

    pub(super) fn accept(&self, id: RecordId, at: MonoTime, delivery: Option<Delivery>) {
        let mut entries = self.lock();
        let order = entries.accepted;
        entries.accepted += 1;
        entries.entries[id.0 as usize].state = Sent::Accepted { order, at, delivery };
    }

    pub(super) fn called(&self, id: RecordId, at: MonoTime, fate: Result<RecordMetadata, Error>) {
        self.lock().entries[id.0 as usize].called.push((at, fate));
    }
}

/// The record's value: its id, then padding.
pub(super) fn value_of(id: RecordId, size: usize) -> Vec<u8> {
    let mut value = id.0.to_be_bytes().to_vec();
    value.resize(size.max(4), b'.');
    value
}

pub(super) fn id_of(value: &[u8]) -> Option<RecordId> {
    value.first_chunk::<4>().map(|id| RecordId(u32::from_be_bytes(*id)))
}
