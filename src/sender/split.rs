//! A batch that the broker finds too large goes on in parts (KIP-126).

use super::Sender;
use crate::accumulator::batch::ProducerBatch;
use crate::accumulator::inbox::PartitionId;
use crate::client::KafkaClient;
use crate::completion::{BatchResult, Outcome, SplitPart, WaitListener};
use crate::error::DeliveryCause;
use crate::record::RECORD_BATCH_OVERHEAD;
use crate::record::{RecordBatchBuilder, RecordData};
use crate::sync::Arc;
use crate::time::MonoTime;

impl<C: KafkaClient> Sender<C> {
    /// Puts the batch's records back in line in two or more batches of about half its size. They
    /// keep their sequences, and their handles follow them.
    pub(super) fn split(&mut self, id: PartitionId, batch: Box<ProducerBatch>, now: MonoTime) {
        let Some(builders) = halves(&batch.builder) else {
            // We wrote these bytes ourselves.
            debug_assert!(false, "a batch of ours can't be read");
            let cause = DeliveryCause::BadResponse("the batch can't be split".into());
            return self.give_up(id, batch, cause, now);
        };
        let partition = self.index.partition_mut(id);
        let counts = builders.iter().map(RecordBatchBuilder::count);
        let stamps = match &batch.stamp {
            Some(stamp) => {
                partition.sequences.on_split(stamp, counts).into_iter().map(Some).collect()
            }
            None => vec![None; builders.len()],
        };
        let mut parts: Vec<Box<ProducerBatch>> = Vec::with_capacity(builders.len());
        for (builder, stamp) in builders.into_iter().zip(stamps) {
            let listener = Arc::clone(&partition.queue) as Arc<dyn WaitListener>;
            let (topic, number) = (Arc::clone(&partition.queue.topic), partition.queue.partition);
            let result = Arc::new(BatchResult::new(topic, number, listener));
            parts.push(Box::new(ProducerBatch::part_of(&batch, builder, result, stamp)));
        }
        let ProducerBatch { builder, result, callbacks, flushes, pooled, .. } = *batch;
        share_out(
            callbacks,
            &mut parts,
            |callback| callback.record.index,
            |part, mut callback, first| {
                callback.record.index -= first;
                part.callbacks.push(callback);
            },
        );
        for mut token in flushes {
            for part in &mut parts {
                let records = part.record_count() as usize;
                part.flushes.push(token.split_off(records, part.callbacks.len()));
            }
        }
        let mut first = 0;
        let outcome: Vec<_> = parts
            .iter()
            .map(|part| {
                let split = SplitPart { first, result: Arc::clone(&*part.result) };
                first += part.record_count();
                split
            })
            .collect();
        self.accumulator.sensors.with(|sensors| sensors.on_split(now));
        self.index.put_back(id, parts.into_iter());
        if pooled {
            self.freed.extend(builder.into_segments().map(|memory| (id, memory)));
        }
        result.complete(Outcome::Split(outcome.into()));
    }
}

/// Hands `items`, in the order of their indexes, to the parts that hold them.
fn share_out<T>(
    items: Vec<T>,
    parts: &mut [Box<ProducerBatch>],
    index: impl Fn(&T) -> u32,
    mut give: impl FnMut(&mut ProducerBatch, T, u32),
) {
    let mut items = items.into_iter().peekable();
    let mut first = 0;
    for part in parts {
        let end = first + part.record_count();
        while let Some(item) = items.next_if(|item| index(item) < end) {
            give(part, item, first);
        }
        first = end;
    }
}

/// The records again, in batches of at most half the size, or of one record. The memory is not the
/// pool's: the sender can't wait for any.
fn halves(whole: &RecordBatchBuilder) -> Option<Vec<RecordBatchBuilder>> {
    let size: usize = whole.segments().map(Vec::len).sum();
    let target = RECORD_BATCH_OVERHEAD + (size - RECORD_BATCH_OVERHEAD) / 2;
    let mut parts: Vec<RecordBatchBuilder> = Vec::new();
    for record in whole.records() {
        let record = record.ok()?;
        let data = RecordData {
            key: record.key,
            value: record.value,
            headers: &record.headers,
            timestamp: record.timestamp,
        };
        if parts.last_mut().and_then(|part| part.try_append(&data)).is_none() {
            let capacity = target.max(data.size_alone());
            let mut part = RecordBatchBuilder::new(Vec::with_capacity(capacity));
            part.try_append(&data)?;
            parts.push(part);
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Header, RecordBatch};

    /// PB-04, PB-05.
    #[test]
    fn the_parts_hold_the_records_whole_and_in_order() {
        let headers = [
            Header { name: "h".into(), value: Some(b"1"[..].into()) },
            Header { name: "h".into(), value: None },
        ];
        let mut whole = RecordBatchBuilder::new(Vec::with_capacity(1000));
        for i in 0..5u8 {
            let (value, count) = ([b'a' + i; 10], usize::from(i) % 3);
            let value = (i != 3).then_some(&value[..]);
            let key = Some(&b"key"[..]).filter(|_| i % 2 == 0);
            let timestamp = 1_000 - i64::from(i);
            let data = RecordData { key, value, headers: &headers[..count], timestamp };
            whole.try_append(&data).unwrap();
        }
        let mut parts = halves(&whole).unwrap();
        let counts: Vec<_> = parts.iter().map(RecordBatchBuilder::count).collect();
        assert_eq!(counts, [2, 2, 1]);
        let mut expected = whole.records();
        let mut sequence = 7;
        for part in &mut parts {
            part.finish(70, 1, sequence, false);
            let bytes: Vec<u8> = part.segments().flatten().copied().collect();
            let (batch, rest) = RecordBatch::split_first(&bytes).unwrap();
            assert!(rest.is_empty() && batch.validate().is_ok());
            let header = batch.header();
            assert_eq!((header.base_offset, header.base_sequence), (0, sequence));
            sequence += part.count() as i32;
            for (place, record) in (0..).zip(batch.records().unwrap()) {
                let (record, mut expected) = (record.unwrap(), expected.next().unwrap().unwrap());
                expected.offset = place;
                assert_eq!(record, expected);
            }
        }
        assert!(expected.next().is_none());
    }
}
