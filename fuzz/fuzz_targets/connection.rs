#![no_main]
//! A whole connection: the client sends its requests and hears what the input says.

use kafka_producer::internal::peer::feed_connection;
use kafka_producer_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    bounded(data, feed_connection);
});
