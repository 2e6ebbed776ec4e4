//! What a partition's answer means for its batch. Pure: facts in, verdict out.

use crate::protocol::ErrorCode;

/// What is known of a batch when its answer comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) code: ErrorCode,
    /// The batch has a producer id and a sequence.
    pub(super) stamped: bool,
    /// No other batch of the partition with an earlier sequence is outstanding.
    pub(super) first_outstanding: bool,
    /// An earlier attempt may have been appended.
    pub(super) maybe_persisted: bool,
    /// The retries are not used up.
    pub(super) retries_left: bool,
    /// The batch has more than one record.
    pub(super) divisible: bool,
    /// The broker knows where the partition's log begins: it still has the partition.
    pub(super) log_start_known: bool,
}

/// What is to be done with the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is in the log, at the offset of the answer.
    Delivered,
    /// It is in the log since an earlier attempt, at an offset that the broker no longer knows.
    Duplicate,
    /// Again, with the same sequence.
    Retry,
    /// Nothing of this sequence will be accepted: again, after a new beginning.
    RetryAfterBump,
    /// In smaller parts.
    Split,
    /// No more attempts.
    Fail,
}

pub(super) fn verdict(facts: &Facts) -> Verdict {
    let verdict = judge(facts);
    #[cfg(all(test, not(loom)))]
    crate::sim::cover(tests::branch(facts, verdict));
    verdict
}

/// Whether this answer means that the batch is in the log, which depends on nothing else.
pub(super) fn delivers(code: ErrorCode, stamped: bool) -> bool {
    code.is_none() || (code == ErrorCode::DUPLICATE_SEQUENCE_NUMBER && stamped)
}

fn judge(facts: &Facts) -> Verdict {
    match facts.code {
        ErrorCode::NONE => Verdict::Delivered,
        code if delivers(code, facts.stamped) => Verdict::Duplicate,
        code if refuses_sequence(code) && facts.stamped => refused_sequence(facts),
        ErrorCode::MESSAGE_TOO_LARGE if facts.divisible => Verdict::Split,
        code if code.is_retriable() && facts.retries_left => Verdict::Retry,
        _ => Verdict::Fail,
    }
}

/// The broker's idea of the producer differs from ours: it lost its state, aged it out, or missed
/// a batch.
fn refuses_sequence(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
            | ErrorCode::UNKNOWN_PRODUCER_ID
            | ErrorCode::INVALID_PRODUCER_EPOCH
            | ErrorCode::INVALID_PRODUCER_ID_MAPPING
    )
}

fn refused_sequence(facts: &Facts) -> Verdict {
    if facts.code == ErrorCode::UNKNOWN_PRODUCER_ID && !facts.log_start_known {
        // The partition has left the broker while it answered. Its new leader may know us.
        Verdict::Retry
    } else if !facts.first_outstanding {
        // The one before it is missing still; this one's turn comes after it.
        Verdict::Retry
    } else if facts.maybe_persisted {
        // Under a new sequence it might be appended a second time.
        Verdict::Fail
    } else {
        Verdict::RetryAfterBump
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way that a verdict was come to, for the simulator to count.
    #[cfg(not(loom))]
    pub(super) fn branch(facts: &Facts, verdict: Verdict) -> &'static str {
        match (verdict, refuses_sequence(facts.code) && facts.stamped) {
            (Verdict::Delivered, _) => "delivered",
            (Verdict::Duplicate, _) => "duplicate",
            (Verdict::Split, _) => "split",
            (Verdict::RetryAfterBump, _) => "retried after a bump",
            (Verdict::Retry, true) if facts.first_outstanding => "unknown where it led no more",
            (Verdict::Retry, true) => "refused for its sequence, waits for its turn",
            (Verdict::Retry, false) => "retried",
            (Verdict::Fail, true) => "refused for its sequence, may be in the log",
            (Verdict::Fail, false) if facts.code.is_retriable() => "failed, out of retries",
            (Verdict::Fail, false) => "failed",
        }
    }

    fn facts(code: ErrorCode) -> Facts {
        Facts {
            code,
            stamped: true,
            first_outstanding: true,
            maybe_persisted: false,
            retries_left: true,
            divisible: true,
            log_start_known: true,
        }
    }

    #[test]
    fn duplicates_are_successes() {
        assert_eq!(verdict(&facts(ErrorCode::NONE)), Verdict::Delivered);
        assert_eq!(verdict(&facts(ErrorCode::DUPLICATE_SEQUENCE_NUMBER)), Verdict::Duplicate);
    }

    #[test]
    fn a_refused_sequence_waits_for_its_turn_then_begins_anew() {
        let first = facts(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        assert_eq!(verdict(&Facts { first_outstanding: false, ..first }), Verdict::Retry);
        assert_eq!(verdict(&first), Verdict::RetryAfterBump);
        assert_eq!(verdict(&Facts { stamped: false, ..first }), Verdict::Fail);
    }

    #[test]
    fn a_broker_that_has_lost_the_partition_does_not_end_the_epoch() {
        let unknown = facts(ErrorCode::UNKNOWN_PRODUCER_ID);
        for maybe_persisted in [false, true] {
            let facts = Facts { log_start_known: false, maybe_persisted, ..unknown };
            assert_eq!(verdict(&facts), Verdict::Retry);
        }
        let out_of_order = facts(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        let facts = Facts { log_start_known: false, ..out_of_order };
        assert_eq!(verdict(&facts), Verdict::RetryAfterBump);
    }

    #[test]
    fn what_may_be_in_the_log_is_never_renumbered() {
        for code in [ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode::UNKNOWN_PRODUCER_ID] {
            let facts = Facts { maybe_persisted: true, ..facts(code) };
            assert_eq!(verdict(&facts), Verdict::Fail);
        }
    }

    #[test]
    fn retriable_errors_are_retried_until_retries_are_used_up() {
        let facts = facts(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        assert_eq!(verdict(&facts), Verdict::Retry);
        assert_eq!(verdict(&Facts { retries_left: false, ..facts }), Verdict::Fail);
    }

    #[test]
    fn only_a_batch_of_several_records_is_split() {
        let facts = facts(ErrorCode::MESSAGE_TOO_LARGE);
        assert_eq!(verdict(&facts), Verdict::Split);
        assert_eq!(verdict(&Facts { divisible: false, ..facts }), Verdict::Fail);
    }
}
