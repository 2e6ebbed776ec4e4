//! Keys of batching, delivery, partitioners, compression and transactions.

use crate::config::key::{Allowed, ConfigKey, Importance::*, ValueType::*, key};

const COMPRESSION: &str = "this version sends records uncompressed";
const TRANSACTIONS: &str = "this version has no transactions";
const SERIALIZERS: &str = "serializers are Rust values here; records take bytes, and typed \
                           records take their serializers where they are sent";

pub(super) const KEYS: &[ConfigKey] = &[
    key(
        "acks",
        String,
        Some("all"),
        Low,
        "Which replicas must have a batch before it counts as delivered: 0 none, 1 the leader, \
         all (or -1) every in-sync replica. Idempotence needs all.",
    )
    .one_of(&["all", "-1", "0", "1"]),
    key(
        "batch.size",
        Int,
        Some("16384"),
        Medium,
        "The size in bytes at which a partition's batch is full and is sent without waiting for \
         linger.ms. 0 sends each record by itself. A larger record has a batch of its own.",
    )
    .at_least(0),
    key(
        "buffer.memory",
        Long,
        Some("33554432"),
        High,
        "Bytes that records may hold while they wait for delivery. At the bound, send waits up to \
         max.block.ms.",
    )
    .at_least(0),
    key(
        "compression.type",
        String,
        Some("none"),
        High,
        "The codec that batches are compressed with.",
    )
    .one_of(&["none", "gzip", "snappy", "lz4", "zstd"])
    .not_yet(COMPRESSION),
    key("compression.gzip.level", Int, Some("-1"), Medium, "The effort of gzip; -1 is zlib's own.")
        .allowed(Allowed::BetweenOr(1, 9, -1))
        .not_yet(COMPRESSION),
    key("compression.lz4.level", Int, Some("9"), Medium, "The effort of lz4.")
        .between(1, 17)
        .not_yet(COMPRESSION),
    key("compression.zstd.level", Int, Some("3"), Medium, "The effort of zstd.")
        .between(-131_072, 22)
        .not_yet(COMPRESSION),
    key(
        "delivery.timeout.ms",
        Int,
        Some("120000"),
        Medium,
        "The most milliseconds from send's return to the outcome, with linger, attempts and \
         retries included. Not less than linger.ms + request.timeout.ms.",
    )
    .at_least(0),
    key(
        "enable.idempotence",
        Boolean,
        Some("true"),
        Low,
        "Whether batches are numbered, so that the broker drops doubles that retries make and \
         keeps a partition's order. Needs acks=all, retries above 0 and at most 5 requests in \
         flight; unless set to true, it is turned off where these do not hold.",
    ),
    key(
        "interceptor.classes",
        List,
        Some(""),
        Low,
        "Classes that see each record before it is sent and each outcome.",
    )
    .not_yet("interceptors are Rust values here and are not set by a key"),
    key("key.serializer", Class, None, High, "The class that turns keys into bytes.")
        .required()
        .meaningless(SERIALIZERS),
    key("value.serializer", Class, None, High, "The class that turns values into bytes.")
        .required()
        .meaningless(SERIALIZERS),
    key(
        "linger.ms",
        Long,
        Some("5"),
        Medium,
        "How many milliseconds a batch that is not full waits for more records before it is sent.",
    )
    .at_least(0),
    key(
        "max.block.ms",
        Long,
        Some("60000"),
        Medium,
        "The most milliseconds that send waits for a topic's metadata and for buffer memory \
         together.",
    )
    .at_least(0),
    key(
        "max.in.flight.requests.per.connection",
        Int,
        Some("5"),
        Low,
        "How many requests a broker is sent before it has answered the first. Above 1 without \
         idempotence, a retry can change the order of records.",
    )
    .at_least(1),
    key(
        "max.request.size",
        Int,
        Some("1048576"),
        Medium,
        "The most bytes of a produce request, and of a record before compression.",
    )
    .at_least(0),
    key(
        "partitioner.adaptive.partitioning.enable",
        Boolean,
        Some("true"),
        Low,
        "Whether records without a key go more often to partitions whose brokers take them \
         faster (KIP-794).",
    ),
    key(
        "partitioner.availability.timeout.ms",
        Long,
        Some("0"),
        Low,
        "A partition whose broker has taken nothing for so many milliseconds gets no records \
         without a key (KIP-794); 0 turns this off.",
    )
    .at_least(0),
    key(
        "partitioner.class",
        Class,
        None,
        Medium,
        "How a record that names no partition gets one: unset for Java's built-in way, a class \
         name of Java's or a partitioner's name of librdkafka's.",
    ),
    key(
        "partitioner.ignore.keys",
        Boolean,
        Some("false"),
        Medium,
        "Whether the built-in partitioner treats records with a key as if they had none.",
    ),
    key(
        "retries",
        Int,
        Some("2147483647"),
        High,
        "How often a batch is sent again after an error that may pass. delivery.timeout.ms is \
         the better bound.",
    )
    .between(0, i32::MAX as i64),
    key(
        "transaction.timeout.ms",
        Int,
        Some("60000"),
        Low,
        "The milliseconds after which the coordinator aborts an open transaction.",
    )
    .not_yet(TRANSACTIONS),
    key(
        "transaction.two.phase.commit.enable",
        Boolean,
        Some("false"),
        Low,
        "Whether transactions take part in an outer two-phase commit (KIP-939).",
    )
    .not_yet(TRANSACTIONS),
    key("transactional.id", String, None, Low, "The name under which transactions are made.")
        .allowed(Allowed::NonEmpty)
        .not_yet(TRANSACTIONS),
];
