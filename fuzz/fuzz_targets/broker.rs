#![no_main]
//! A broker of the test cluster: a client says what the input says.

use kafka_producer::internal::peer::feed_broker;
use kafka_producer_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let heard = bounded(data, feed_broker);
    assert!(heard.answered <= heard.requests && heard.requests * 4 <= data.len());
});
