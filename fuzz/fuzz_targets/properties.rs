#![no_main]
//! The text of a properties file, as far as a checked configuration.

use kafka_producer::KafkaProducer;
use kafka_producer_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    bounded(text.as_bytes(), |_| {
        let builder = KafkaProducer::builder().properties_text(text);
        let _ = builder.and_then(|builder| builder.build_config());
    });
});
