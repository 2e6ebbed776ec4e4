//! Keys that Kafka's producer has not: topics that don't exist, callbacks, waits, close.

use crate::config::key::{Allowed, ConfigKey, Importance::*, ValueType::*, key};

pub(super) const KEYS: &[ConfigKey] = &[
    key(
        "allow.auto.create.topics",
        Boolean,
        Some("true"),
        Medium,
        "Whether brokers may create a topic that is sent to and does not exist, where their \
         auto.create.topics.enable allows it too.",
    ),
    key(
        "unknown.topic.timeout.ms",
        Long,
        Some("-1"),
        Low,
        "The most milliseconds that send waits for a topic of which the brokers say that it does \
         not exist; negative: max.block.ms.",
    ),
    key(
        "callback.threads",
        Int,
        Some("1"),
        Medium,
        "Threads that run callbacks. One partition's callbacks run one at a time, in order, \
         whatever the number.",
    )
    .between(1, 1024),
    key(
        "callback.max.pending",
        Int,
        Some("100000"),
        Medium,
        "Records with a callback that may be on their way before send waits, up to max.block.ms, \
         for callbacks to begin.",
    )
    .at_least(1),
    key(
        "buffer.memory.partition.share",
        Double,
        Some("0.5"),
        Low,
        "The part of buffer.memory that one partition may hold while others are in use, so that \
         one that stands still does not starve them. 1.0 turns this off.",
    )
    .allowed(Allowed::Within(0.0, 1.0)),
    key(
        "buffer.memory.broker.share",
        Double,
        Some("0.5"),
        Low,
        "The part of buffer.memory that all partitions of one broker may hold while other \
         brokers are in use, so that one that stands still does not starve them. 1.0 turns this \
         off.",
    )
    .allowed(Allowed::Within(0.0, 1.0)),
    key(
        "wait.ends.linger",
        Boolean,
        Some("true"),
        Low,
        "Whether a batch is sent before linger.ms is over once each of its records has a thread \
         that waits for it.",
    ),
    key(
        "close.on.drop.timeout.ms",
        Long,
        Some("30000"),
        Low,
        "The most milliseconds that dropping the last handle waits for accepted records.",
    )
    .at_least(0),
];
