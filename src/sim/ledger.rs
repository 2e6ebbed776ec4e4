//! What was sent, and what became of it: one entry for each record that a user tried to send.

use std::collections::BTreeMap;

use super::users::now;
use crate::completion::{Delivery, RecordMetadata};
use crate::error::Error;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::time::MonoTime;
use crate::{CloseReport, OwnedRecord};

/// A record of the run, by its place in the ledger; also in its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RecordId(pub(super) u32);

#[derive(Clone, Default)]
pub(super) struct Ledger(Arc<Mutex<Entries>>);

#[derive(Default)]
pub(super) struct Entries {
    pub(super) entries: Vec<Entry>,
    /// The number of the producer that records are sent by now.
    pub(super) life: usize,
    /// How many were accepted so far.
    pub(super) accepted: u32,
    /// Calls that send several records.
    calls_made: u32,
    /// Callbacks in the order in which they were called.
    pub(super) calls: Vec<RecordId>,
    /// Records whose callback runs now, by partition.
    running: BTreeMap<(usize, i32), RecordId>,
    /// What users found wrong.
    pub(super) findings: Vec<String>,
}

pub(super) struct Entry {
    pub(super) topic: usize,
    /// Which producer it was sent by.
    pub(super) life: usize,
    pub(super) sent: Sent,
    pub(super) has_callback: bool,
    /// When its send began.
    pub(super) begun: MonoTime,
    /// The call that it was sent in with others; its place in the order of acceptance is not known
    /// for certain then.
    pub(super) call: Option<Call>,
    /// Sent when all was well: it must be delivered, soon.
    pub(super) calm: bool,
    /// What its callback was told, each time that it was called.
    pub(super) called: Vec<Result<RecordMetadata, Error>>,
    /// When its callback has returned.
    pub(super) returned: Option<MonoTime>,
    /// A close or a purge gave it back: it is surely not in the log.
    pub(super) given_back: bool,
}

/// A call that sends several records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    number: u32,
    /// How many had been accepted when it began.
    pub(super) since: u32,
}

/// What the send said.
pub(super) enum Sent {
    /// It has not returned.
    Pending,
    /// It refused the record.
    Refused(Error),
    /// It took the record: as the how manyth of all, and when.
    Accepted { order: u32, at: MonoTime, delivery: Arc<Delivery> },
}

impl Entry {
    pub(super) fn delivery(&self) -> Option<&Arc<Delivery>> {
        match &self.sent {
            Sent::Accepted { delivery, .. } => Some(delivery),
            Sent::Pending | Sent::Refused(_) => None,
        }
    }

    /// The record is decided and its callback, if it has one, has returned.
    fn is_over(&self) -> bool {
        self.is_decided() && (!self.has_callback || self.returned.is_some())
    }

    fn is_decided(&self) -> bool {
        self.delivery().is_none_or(|delivery| delivery.check().is_some())
    }
}

impl Entries {
    /// When the last of those became over that were accepted by then; none if one is not.
    pub(super) fn over_at(&self, until: MonoTime) -> Option<MonoTime> {
        let before = self.entries.iter().filter(|entry| {
            entry.life == self.life
                && matches!(entry.sent, Sent::Accepted { at, .. } if at <= until)
        });
        let over = before.map(|entry| {
            let (_, decided) = entry.delivery()?.decided_as()?;
            if entry.has_callback {
                entry.returned.map(|at| at.max(decided))
            } else {
                Some(decided)
            }
        });
        over.into_iter().try_fold(MonoTime::ZERO, |last, at| Some(last.max(at?)))
    }

    /// How many records were accepted so far: what is refused at once is no work.
    pub(super) fn work(&self) -> usize {
        self.accepted as usize
    }
}

impl Ledger {
    pub(super) fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock()
    }

    pub(super) fn begin(&self, topic: usize, has_callback: bool, calm: bool) -> RecordId {
        let mut entries = self.lock();
        let id = RecordId(entries.entries.len() as u32);
        let (sent, called) = (Sent::Pending, Vec::new());
        let (begun, call, returned, given_back) = (now(), None, None, false);
        let life = entries.life;
        let entry = Entry {
            topic,
            life,
            sent,
            has_callback,
            begun,
            call,
            calm,
            called,
            returned,
            given_back,
        };
        entries.entries.push(entry);
        id
    }

    /// A call begins that sends all of these.
    pub(super) fn begin_call(&self, ids: &[RecordId]) {
        let mut entries = self.lock();
        entries.calls_made += 1;
        let call = Call { number: entries.calls_made, since: entries.accepted };
        ids.iter().for_each(|id| entries.entries[id.0 as usize].call = Some(call));
    }

    pub(super) fn refuse(&self, id: RecordId, error: &Error) {
        self.lock().entries[id.0 as usize].sent = Sent::Refused(error.clone());
    }

    /// The send took the record.
    pub(super) fn accept(&self, id: RecordId, at: MonoTime, delivery: Delivery) -> Arc<Delivery> {
        let mut entries = self.lock();
        let order = entries.accepted;
        entries.accepted += 1;
        let delivery = Arc::new(delivery);
        let sent = Sent::Accepted { order, at, delivery: Arc::clone(&delivery) };
        entries.entries[id.0 as usize].sent = sent;
        delivery
    }

    /// A callback begins. Those of a partition must not overlap.
    pub(super) fn call(&self, id: RecordId, fate: Result<&RecordMetadata, &Error>) {
        let mut entries = self.lock();
        let entries = &mut *entries;
        entries.calls.push(id);
        let entry = &mut entries.entries[id.0 as usize];
        entry.called.push(fate.cloned().map_err(Error::clone));
        let Some(partition) = entry.delivery().map(|d| d.partition()) else {
            return entries.findings.push(format!("{id:?}: a callback of a record not accepted"));
        };
        if let Some(other) = entries.running.insert((entry.topic, partition), id) {
            let text = format!("{id:?}: its callback began while that of {other:?} ran");
            entries.findings.push(text);
        }
    }

    /// A callback returns.
    pub(super) fn leave(&self, id: RecordId) {
        let mut entries = self.lock();
        let entry = &mut entries.entries[id.0 as usize];
        entry.returned = Some(now());
        let place = entry.delivery().map(|delivery| (entry.topic, delivery.partition()));
        place.map(|place| entries.running.remove(&place));
    }

    /// A close reports: what it gives back is what was given up and is not unknown, and of what
    /// failed that which was too late.
    pub(super) fn give_back(&self, report: &CloseReport) {
        let surely = report.aborted_records - report.unknown;
        let at_most = surely + report.failed;
        if !report.not_sent.is_empty() && !(surely..=at_most).contains(&report.not_sent.len()) {
            let many = report.not_sent.len();
            self.find(format!("a close gave back {many} records of {surely}"));
        }
        self.take_back(&report.not_sent);
    }

    /// These records are surely not in the log, and are given back once.
    pub(super) fn take_back(&self, records: &[OwnedRecord]) {
        let mut entries = self.lock();
        for record in records {
            let id = record.value.as_deref().and_then(id_of);
            let entry = id.and_then(|id| entries.entries.get_mut(id.0 as usize));
            match entry {
                Some(entry) if !entry.given_back => entry.given_back = true,
                _ => entries.findings.push(format!("{record:?} was given back twice, or unsent")),
            }
        }
    }

    pub(super) fn find(&self, text: String) {
        self.lock().findings.push(text);
    }

    /// After a flush: what was accepted before it, and is not over; where the producer is being
    /// closed, which may give callbacks up, what is not decided.
    pub(super) fn unfinished_before(&self, accepted: u32, closing: bool) -> Option<RecordId> {
        let entries = self.lock();
        let before = |entry: &Entry| {
            let accepted_before = |order: u32| order < accepted && entry.life == entries.life;
            matches!(entry.sent, Sent::Accepted { order, .. } if accepted_before(order))
        };
        let is_over = |entry: &Entry| match closing {
            true => entry.is_decided(),
            false => entry.is_over(),
        };
        let place = entries.entries.iter().position(|entry| before(entry) && !is_over(entry));
        place.map(|place| RecordId(place as u32))
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
