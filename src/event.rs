//! What a program may want to act upon though no record of its own fails.

use std::fmt;
use std::sync::Arc;

use crate::protocol::ErrorCode;

/// Something that no record's outcome tells of; see
/// [`ProducerBuilder::on_event`](crate::ProducerBuilder::on_event).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProducerEvent {
    /// A partition's leader may have lost records that it had acknowledged: it refused the sequence
    /// of the batch right behind them, as one does after an unclean election or the loss of a disk.
    /// Their handles and callbacks told of a delivery and can't take that back. To do: compare what
    /// the partition holds with what was acknowledged of late. The producer itself goes on, under a
    /// new epoch (KIP-360). Counted as `acknowledged-loss-total`, and logged as a warning.
    #[non_exhaustive]
    AcknowledgedLoss {
        /// The topic's name.
        topic: Arc<str>,
        /// The partition's number.
        partition: i32,
        /// The leader's refusal.
        code: ErrorCode,
    },
}

impl fmt::Display for ProducerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcknowledgedLoss { topic, partition, code } => write!(
                f,
                "{topic}-{partition}: {code} right behind the last acknowledged record: the \
                 cluster may have lost acknowledged data; going on under a new epoch"
            ),
        }
    }
}
