//! The end: drain what was accepted, and when the time is up give up the rest.
//!
//! | phase | appends | batches | ends |
//! |---|---|---|---|
//! | `Running` | accepted | linger | by `close` |
//! | `Draining` | refused | sent at once, retried | when all is completed, or at the deadline |
//! | `Aborting` | refused | failed, written or not | with the turn |
//! | `Ended` | refused | none | |

use std::time::Duration;

use super::Sender;
use super::thread::Ended;
use crate::accumulator::batch::{ProducerBatch, UnsentBatch};
use crate::accumulator::inbox::{Event, PartitionId};
use crate::claims;
use crate::client::KafkaClient;
use crate::completion::Outcome;
use crate::error::{DeliveryCause, Error};
use crate::planted::{Defect, is_planted};
use crate::time::MonoTime;

/// Where the producer's end stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    Draining { deadline: MonoTime },
    Aborting,
    Ended,
}

impl Phase {
    pub(super) fn is_closing(self) -> bool {
        self != Self::Running
    }

    /// When the phase ends by itself.
    pub(super) fn deadline(self) -> MonoTime {
        match self {
            Self::Running => MonoTime::MAX,
            Self::Draining { deadline } => deadline,
            Self::Aborting | Self::Ended => MonoTime::ZERO,
        }
    }
}

impl<C: KafkaClient> Sender<C> {
    pub(crate) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// What the close has achieved; the batches that are given back leave with it.
    pub(crate) fn take_ended(&mut self) -> Ended {
        std::mem::take(&mut self.ended)
    }

    /// Records given up because the time to drain was over.
    #[cfg(test)]
    pub(crate) fn aborted_records(&self) -> usize {
        self.ended.not_sent + self.ended.unknown
    }

    /// A batch is decided: the report of a close tells of it.
    pub(super) fn count_while_draining(&mut self, outcome: &Outcome, records: usize) {
        if let Phase::Draining { .. } = self.phase {
            match outcome {
                Outcome::Delivered { .. } => self.ended.delivered += records,
                Outcome::Failed(_) | Outcome::FailedEach(_) => self.ended.failed += records,
                // Its parts are to be decided.
                Outcome::Split(_) => {}
            }
        }
    }

    /// Refuses appends and sends what there is, for `timeout` at most. A later call can only
    /// shorten the time.
    pub(super) fn begin_close(&mut self, timeout: Duration, now: MonoTime) {
        let deadline = now + timeout;
        self.phase = match self.phase {
            Phase::Running => Phase::Draining { deadline },
            Phase::Draining { .. } if is_planted(Defect::LaterCloseIgnored) => self.phase,
            Phase::Draining { deadline: earlier } => {
                Phase::Draining { deadline: earlier.min(deadline) }
            }
            ended => ended,
        };
        self.accumulator.pool.close();
        self.accumulator.topics.close();
        for id in self.all_partitions(now) {
            self.look(id, now);
        }
    }

    /// From draining to the end.
    pub(super) fn advance_phase(&mut self, now: MonoTime) {
        if let Phase::Draining { deadline } = self.phase {
            if self.is_drained() {
                self.phase = Phase::Ended;
            } else if deadline <= now {
                self.phase = Phase::Aborting;
            }
        }
        if self.phase == Phase::Aborting {
            self.abort(&DeliveryCause::Closed, now);
            self.phase = Phase::Ended;
        }
    }

    /// Whether no batch is left, queued or under way. Whoever has one has a timer for it.
    fn is_drained(&self) -> bool {
        let is_empty = |id: &PartitionId| self.index.partition(*id).queue.lock().batches.is_empty();
        self.flights.is_empty() && self.index.active().iter().all(is_empty)
    }

    /// Closes all connections; what still came back on the way is settled.
    pub(crate) fn end(&mut self, now: MonoTime) {
        self.client.close(now, &mut self.client_events);
        self.hear_brokers(now);
        self.close_inbox();
        self.accumulator.pool.trim();
    }

    /// All is decided. A flush that came last still waits for callbacks.
    fn close_inbox(&mut self) {
        for event in self.accumulator.inbox.close() {
            if let Event::Flush(token) = event {
                self.accumulator.join_callbacks(&self.executor, &token);
            }
        }
    }

    /// Fails every batch, those under way too.
    fn abort(&mut self, cause: &DeliveryCause, now: MonoTime) {
        for tag in self.flights.tags() {
            for part in self.flights.parts_mut(tag).into_iter().flatten() {
                if let Some(batch) = &mut part.batch {
                    // Its bytes may be in the socket.
                    batch.maybe_persisted = true;
                }
            }
            let taken: Vec<_> = self
                .flights
                .parts_mut(tag)
                .into_iter()
                .flatten()
                .filter_map(|part| Some((part.id, part.batch.take()?)))
                .collect();
            for (id, batch) in taken {
                self.abort_batch(id, batch, cause, now);
            }
        }
        for id in self.all_partitions(now) {
            let batches = std::mem::take(&mut self.index.partition(id).queue.lock().batches);
            for batch in batches {
                if is_planted(Defect::DroppedAtClose) {
                    std::mem::forget(batch);
                    continue;
                }
                self.abort_batch(id, batch, cause, now);
            }
        }
    }

    /// Fails a batch for good.
    fn abort_batch(
        &mut self,
        id: PartitionId,
        batch: Box<ProducerBatch>,
        cause: &DeliveryCause,
        now: MonoTime,
    ) {
        let records = batch.record_count() as usize;
        if batch.maybe_persisted {
            self.ended.unknown += records;
        } else {
            self.ended.not_sent += records;
            self.keep_unsent(&batch);
        }
        self.fail(id, batch, cause.clone(), now);
    }

    /// A batch fails that is surely not in the log: whoever closes may want it back.
    pub(super) fn keep_unsent(&mut self, batch: &ProducerBatch) {
        if self.keeps_unsent {
            self.ended.unsent.push(UnsentBatch::of(batch));
        }
    }

    /// All partitions, also those that no thread has told of yet.
    pub(super) fn all_partitions(&mut self, now: MonoTime) -> Vec<PartitionId> {
        self.meet_new_partitions(now);
        self.index.ids().collect()
    }

    /// After a defect of our own: everybody who waits is told, nothing is accepted any more.
    pub(crate) fn poison(&mut self, reason: &str, now: MonoTime) {
        claims::give_up();
        self.phase = Phase::Ended;
        self.metadata.cell().end(Error::Fatal(reason.into()));
        self.executor.slots().close();
        self.accumulator.pool.close();
        self.accumulator.topics.close();
        self.abort(&DeliveryCause::Fatal(reason.into()), now);
        self.close_inbox();
        self.tell_users();
    }
}
