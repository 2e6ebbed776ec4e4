//! Who this producer is to the brokers: its producer id and epoch, and what it takes to get them.
//!
//! Owned by the sender thread. The sequences of each partition are in `partition`; here is what
//! all of them share. Without transactions there is no fatal state: whatever the cluster answers,
//! a new epoch or a new id is taken and records flow again (KIP-360).

pub(crate) mod partition;

use std::time::Duration;

use crate::time::MonoTime;

/// A producer id and its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerIdAndEpoch {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// What a batch carries from its first drain on: with the record count it makes every attempt
/// recognisable to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) producer: ProducerIdAndEpoch,
    pub(crate) base_sequence: i32,
    /// Counts this partition's new beginnings, so that stamps of different ids can be compared.
    pub(crate) generation: u32,
}

impl Stamp {
    /// Whether this stamp was given before `other`; sequences wrap to 0 after `i32::MAX`.
    pub(crate) fn precedes(&self, other: &Self) -> bool {
        if self.generation != other.generation {
            return self.generation < other.generation;
        }
        let ahead = other.base_sequence.wrapping_sub(self.base_sequence) & i32::MAX;
        ahead != 0 && ahead < i32::MAX / 2
    }
}

/// The states of the producer id.
///
/// | from | to | when |
/// |---|---|---|
/// | `Uninitialized` | `Initializing` | a batch is to be sent and a broker is ready |
/// | `Initializing` | `Ready` | the broker gave an id |
/// | `Initializing` | `Uninitialized` | the broker refused, or the connection was lost |
/// | `Ready` | `Ready` | the epoch is bumped |
/// | `Ready` | `Uninitialized` | the epoch is used up: a new id is needed |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Uninitialized { not_before: MonoTime },
    Initializing,
    Ready(ProducerIdAndEpoch),
}

impl State {
    fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Uninitialized { .. }, Self::Initializing)
            | (Self::Initializing, Self::Ready(_) | Self::Uninitialized { .. })
            | (Self::Ready(_), Self::Uninitialized { .. }) => true,
            (Self::Ready(before), Self::Ready(after)) => {
                before.id == after.id && before.epoch < after.epoch
            }
            _ => false,
        }
    }
}

/// The producer's identity. There is none unless idempotence is on.
pub(crate) struct TransactionManager {
    state: State,
    /// Failures of InitProducerId in a row, for the backoff.
    failures: u32,
}

impl TransactionManager {
    pub(crate) fn new() -> Self {
        let state = State::Uninitialized { not_before: MonoTime::ZERO };
        Self { state, failures: 0 }
    }

    /// The id and epoch for new batches, once there are any.
    pub(crate) fn producer(&self) -> Option<ProducerIdAndEpoch> {
        match self.state {
            State::Ready(producer) => Some(producer),
            State::Uninitialized { .. } | State::Initializing => None,
        }
    }

    /// From when on InitProducerId is to be sent; `None` while it needn't be.
    pub(crate) fn wants_id_at(&self) -> Option<MonoTime> {
        match self.state {
            State::Uninitialized { not_before } => Some(not_before),
            State::Initializing | State::Ready(_) => None,
        }
    }

    /// Failures of InitProducerId in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// InitProducerId is under way.
    pub(crate) fn is_initializing(&self) -> bool {
        self.state == State::Initializing
    }

    pub(crate) fn on_id_requested(&mut self) {
        self.transition_to(State::Initializing);
    }

    pub(crate) fn on_id(&mut self, producer: ProducerIdAndEpoch) {
        self.failures = 0;
        self.transition_to(State::Ready(producer));
    }

    /// InitProducerId failed; it is tried again after `backoff`.
    pub(crate) fn on_id_failed(&mut self, now: MonoTime, backoff: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.transition_to(State::Uninitialized { not_before: now + backoff });
    }

    /// A partition that used `old` needs a new beginning. The epoch is raised once however many
    /// partitions ask; when it is used up a new producer id is asked for.
    pub(crate) fn bump(&mut self, old: ProducerIdAndEpoch) {
        let State::Ready(current) = self.state else { return };
        if current != old {
            return;
        }
        match current.epoch.checked_add(1) {
            // The broker keeps the last epoch for itself.
            Some(epoch) if epoch < i16::MAX => {
                self.transition_to(State::Ready(ProducerIdAndEpoch { epoch, ..current }));
            }
            _ => self.transition_to(State::Uninitialized { not_before: MonoTime::ZERO }),
        }
    }

    fn transition_to(&mut self, next: State) {
        debug_assert!(self.state.may_become(next), "{:?} to {next:?}", self.state);
        self.state = next;
        self.invariants();
    }

    /// Failures are counted until there is an id, and nothing else is a reason to wait.
    fn invariants(&self) {
        let is_sound = match self.state {
            State::Uninitialized { not_before } => {
                self.failures > 0 || not_before == MonoTime::ZERO
            }
            State::Initializing => true,
            State::Ready(_) => self.failures == 0,
        };
        debug_assert!(is_sound, "{:?} after {} failures", self.state, self.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: ProducerIdAndEpoch = ProducerIdAndEpoch { id: 7, epoch: 0 };

    fn ready(producer: ProducerIdAndEpoch) -> TransactionManager {
        let mut manager = TransactionManager::new();
        manager.on_id_requested();
        manager.on_id(producer);
        manager
    }

    #[test]
    fn one_bump_serves_all_partitions_of_the_old_epoch() {
        let mut manager = ready(FIRST);
        manager.bump(FIRST);
        manager.bump(FIRST);
        assert_eq!(manager.producer(), Some(ProducerIdAndEpoch { id: 7, epoch: 1 }));
    }

    #[test]
    fn a_used_up_epoch_asks_for_a_new_id() {
        let last = ProducerIdAndEpoch { id: 7, epoch: i16::MAX - 1 };
        let mut manager = ready(last);
        manager.bump(last);
        assert_eq!(manager.producer(), None);
        assert_eq!(manager.wants_id_at(), Some(MonoTime::ZERO));
    }

    #[test]
    fn a_refused_id_is_asked_for_again_after_the_backoff() {
        let mut manager = TransactionManager::new();
        manager.on_id_requested();
        assert_eq!(manager.wants_id_at(), None);
        manager.on_id_failed(MonoTime::from_nanos(5), Duration::from_nanos(10));
        assert_eq!(manager.wants_id_at(), Some(MonoTime::from_nanos(15)));
        assert_eq!(manager.failures(), 1);
    }

    #[test]
    fn stamps_are_ordered_across_the_wrap_and_across_generations() {
        let stamp =
            |base_sequence, generation| Stamp { producer: FIRST, base_sequence, generation };
        assert!(stamp(i32::MAX - 3, 0).precedes(&stamp(2, 0)));
        assert!(!stamp(2, 0).precedes(&stamp(i32::MAX - 3, 0)));
        assert!(stamp(900, 0).precedes(&stamp(0, 1)));
        assert!(!stamp(5, 0).precedes(&stamp(5, 0)));
    }
}
