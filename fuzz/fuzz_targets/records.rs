#![no_main]
//! Record batches as a peer may send them: the header, the checksum, and the records, which are
//! read whether the checksum is right or not.

use kafka_producer::internal::record::RecordBatch;
use kafka_producer_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    bounded(data, |mut rest| {
        while let Ok((batch, after)) = RecordBatch::split_first(rest) {
            assert!(after.len() < rest.len(), "no progress");
            rest = after;
            let _ = batch.validate();
            // The first error is the last item: a count that lies ends with the bytes.
            let most = data.len() + 1;
            let read = batch.records().into_iter().flatten().take(most).count();
            assert!(read < most, "more records than bytes");
        }
    });
});
