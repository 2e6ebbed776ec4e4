//! Giving up what was never sent, by a user's wish.

use super::Sender;
use crate::accumulator::batch::UnsentBatch;
use crate::accumulator::inbox::PurgeOrder;
use crate::client::KafkaClient;
use crate::error::DeliveryCause;
use crate::sync::atomic::Ordering;
use crate::time::MonoTime;

impl<C: KafkaClient> Sender<C> {
    /// Fails all batches that the order names and that no request has carried. They have no
    /// sequence, so that none is missing behind them.
    pub(super) fn purge(&mut self, order: PurgeOrder, now: MonoTime) {
        for id in self.all_partitions(now) {
            let queue = &self.index.partition(id).queue;
            if !order.names(&queue.topic, queue.partition) {
                continue;
            }
            let unsent = queue.lock().take_unsent();
            if unsent.is_empty() {
                continue;
            }
            for batch in unsent {
                order.purged.fetch_add(batch.record_count() as usize, Ordering::AcqRel);
                if let Some(kept) = &order.kept {
                    kept.lock().push(UnsentBatch::of(&batch));
                }
                self.fail(id, batch, DeliveryCause::Purged, now);
            }
            self.look(id, now);
        }
        // Ends the wait of whoever gave it.
        drop(order.done);
    }
}
