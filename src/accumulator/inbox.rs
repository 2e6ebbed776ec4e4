//! What users' threads tell the sender: a list of events under one leaf lock, and the bell.
//!
//! A thread pushes after it has released the partition's lock, and rings only if the sender sleeps
//! past the moment at which the event wants attention. The sender takes all events at the top of a
//! turn, and says before it polls until when it will sleep, so that no wake-up is lost and few are
//! paid for.

use std::time::Duration;

use crate::accumulator::batch::UnsentBatch;
use crate::claims;
use crate::completion::FlushToken;
use crate::planted::{Defect, is_planted};
use crate::sync::atomic::AtomicUsize;
use crate::sync::{Arc, Mutex};
use crate::threads::Process;
use crate::time::MonoTime;

/// Rings the sender's poll.
pub(crate) type Bell = Arc<dyn Fn() + Send + Sync>;

/// The index of a partition's queue among all of this producer's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PartitionId(pub(crate) u32);

/// What happened on a user's thread.
pub(crate) enum Event {
    /// A batch was started or filled here, or a thread waits for one of its records. The partition
    /// wants to be looked at by then.
    Partition(PartitionId, MonoTime),
    /// A thread waits for metadata.
    MetadataWanted,
    /// A thread waits until this moment for a leader of the topic to be reached.
    LeaderWanted { topic: Arc<str>, until: MonoTime },
    /// A thread waits for memory, or was refused some: lingering batches may be worth sending now.
    /// A bell and no more: whose memory it is the pool tells.
    MemoryWanted,
    /// A topic's sticky partition has moved: the next choice wants to know how loaded partitions
    /// are. No reason to wake up.
    LoadWanted(Arc<str>),
    /// A thread flushes: what was accepted so far is to be sent without linger.
    Flush(FlushToken),
    /// A thread has what was not sent given up.
    Purge(PurgeOrder),
    /// The producer is closed: drain for this long, then give up.
    Close {
        timeout: Duration,
        /// Who closes wants back what is surely not in the log.
        keeps_unsent: bool,
    },
}

/// What is to be given up of what was never sent.
pub(crate) struct PurgeOrder {
    /// Of this topic, or of all.
    pub(crate) topic: Option<Arc<str>>,
    /// Of this partition, or of all.
    pub(crate) partition: Option<i32>,
    /// How many records were given up.
    pub(crate) purged: Arc<AtomicUsize>,
    /// Where they are left, if they are wanted back.
    pub(crate) kept: Option<Arc<Mutex<Vec<UnsentBatch>>>>,
    /// Dropped when it is done.
    pub(crate) done: FlushToken,
}

impl PurgeOrder {
    /// Whether it concerns the partition.
    pub(crate) fn names(&self, topic: &str, partition: i32) -> bool {
        self.topic.as_ref().is_none_or(|named| **named == *topic)
            && self.partition.is_none_or(|named| named == partition)
    }
}

impl Event {
    /// When it wants attention.
    fn due(&self) -> MonoTime {
        match self {
            Self::Partition(_, due) => *due,
            Self::LoadWanted(_) => MonoTime::MAX,
            _ => MonoTime::ZERO,
        }
    }
}

/// The sender's letterbox.
pub(crate) struct Inbox {
    state: Mutex<State>,
    bell: Bell,
    /// Where the sender lives.
    pub(crate) process: Process,
}

struct State {
    events: Vec<Event>,
    /// Until when the sender sleeps; `None` while it is awake.
    asleep_until: Option<MonoTime>,
    /// `MemoryWanted` is among the events: threads that try again and again add it once.
    memory_wanted: bool,
    /// The sender has ended: what comes now is given back.
    closed: bool,
}

impl Inbox {
    pub(crate) fn new(bell: Bell, process: Process) -> Self {
        let state =
            State { events: Vec::new(), asleep_until: None, memory_wanted: false, closed: false };
        Self { state: Mutex::new(state), bell, process }
    }

    /// Tells the sender of `event`. Once it has ended nobody wants to know.
    pub(crate) fn push(&self, event: Event) {
        drop(self.try_push(event));
    }

    /// As [`push`](Self::push); gives the event back if the sender has ended.
    pub(crate) fn try_push(&self, event: Event) -> Option<Event> {
        let due = event.due();
        let mut state = self.state.lock();
        if state.closed {
            return Some(event);
        }
        if matches!(event, Event::MemoryWanted) && std::mem::replace(&mut state.memory_wanted, true)
        {
            // Told already, and not yet heard.
            return None;
        }
        state.events.push(event);
        let ring =
            state.asleep_until.is_some_and(|until| due < until) && !is_planted(Defect::LostWakeUp);
        if ring {
            state.asleep_until = None;
        }
        state.invariants();
        drop(state);
        if ring {
            (self.bell)();
        }
        None
    }

    /// Moves all events into `into`, which must be empty; the sender is awake from here on.
    pub(crate) fn take(&self, into: &mut Vec<Event>) {
        debug_assert!(into.is_empty());
        let mut state = self.state.lock();
        state.asleep_until = None;
        state.memory_wanted = false;
        std::mem::swap(&mut state.events, into);
        state.invariants();
    }

    /// The sender takes nothing any more; what it has not taken yet.
    pub(crate) fn close(&self) -> Vec<Event> {
        let mut state = self.state.lock();
        state.closed = true;
        state.memory_wanted = false;
        let events = std::mem::take(&mut state.events);
        state.invariants();
        events
    }

    /// The sender is about to sleep until `until`; false if there are events to take first.
    pub(crate) fn fall_asleep(&self, until: MonoTime) -> bool {
        let mut state = self.state.lock();
        if state.events.is_empty() {
            state.asleep_until = Some(until);
        }
        state.invariants();
        state.events.is_empty()
    }
}

impl State {
    /// Nobody sleeps past what wants attention, and what is told once is here once.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        assert!(!self.closed || self.events.is_empty(), "events that nobody will take");
        let asleep_until = self.asleep_until.unwrap_or(MonoTime::ZERO);
        let overslept = self.events.iter().any(|event| event.due() < asleep_until);
        assert!(!overslept || is_planted(Defect::LostWakeUp), "the sender sleeps past an event");
        let wanted = self.events.iter().filter(|event| matches!(event, Event::MemoryWanted));
        assert_eq!(wanted.count(), usize::from(self.memory_wanted), "memory is wanted once");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn inbox() -> (Inbox, Arc<AtomicUsize>) {
        let rung = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&rung);
        let bell = Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        (Inbox::new(bell, Process::current()), rung)
    }

    #[test]
    fn the_bell_rings_once_and_only_for_a_sleeper() {
        let (inbox, rung) = inbox();
        inbox.push(Event::MetadataWanted);
        assert!(!inbox.fall_asleep(MonoTime::MAX), "slept over an event");
        let mut events = Vec::new();
        inbox.take(&mut events);
        assert_eq!((events.len(), rung.load(Ordering::Relaxed)), (1, 0));
        assert!(inbox.fall_asleep(MonoTime::MAX));
        inbox.push(Event::MetadataWanted);
        inbox.push(Event::MemoryWanted);
        assert_eq!(rung.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_flush_ends_when_nobody_will_read_of_it() {
        let (inbox, _) = inbox();
        let flushes = [crate::completion::FlushWait::begin(), Default::default()];
        inbox.push(Event::Flush(flushes[0].token(0, 0)));
        assert_eq!(inbox.close().len(), 1);
        inbox.push(Event::Flush(flushes[1].token(0, 0)));
        assert!(flushes.iter().all(crate::completion::FlushWait::is_over));
    }

    #[test]
    fn an_event_that_can_wait_does_not_ring() {
        let (inbox, rung) = inbox();
        let at = MonoTime::from_nanos;
        assert!(inbox.fall_asleep(at(100)));
        inbox.push(Event::Partition(PartitionId(0), at(100)));
        assert_eq!(rung.load(Ordering::Relaxed), 0);
        inbox.push(Event::Partition(PartitionId(1), at(99)));
        assert_eq!(rung.load(Ordering::Relaxed), 1);
    }
}
