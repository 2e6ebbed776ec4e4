//! Keys of addresses, connections, time-outs, metadata and metrics.

use crate::config::key::{Allowed, ConfigKey, Importance::*, ValueType::*, key};

const JVM: &str = "it names Java classes, which can't be loaded here";

pub(super) const KEYS: &[ConfigKey] = &[
    key(
        "bootstrap.servers",
        List,
        None,
        High,
        "Brokers to ask first for the cluster's metadata, as host:port with commas between them. \
         One that answers is enough.",
    )
    .required(),
    key(
        "client.dns.lookup",
        String,
        Some("use_all_dns_ips"),
        Medium,
        "use_all_dns_ips: each address that a name has is tried, the next one beside a slow one \
         after 250 ms.",
    )
    .one_of(&["use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"])
    .not_yet("canonical names need a reverse look-up, which this version has not"),
    key(
        "client.id",
        String,
        Some(""),
        Medium,
        "The name by which brokers know this client in logs, metrics and quotas.",
    ),
    key("config.providers", List, Some(""), Low, "Classes that replace variables in values.")
        .meaningless(JVM),
    key(
        "connections.max.idle.ms",
        Long,
        Some("540000"),
        Medium,
        "A connection that was not used for so many milliseconds is closed; negative: never.",
    ),
    key(
        "enable.metrics.push",
        Boolean,
        Some("true"),
        Low,
        "Whether the client's metrics are pushed to brokers that subscribe to them (KIP-714).",
    )
    .not_yet_but("this version pushes no metrics", &["false"]),
    key(
        "metadata.max.age.ms",
        Long,
        Some("300000"),
        Low,
        "Metadata is asked for anew after so many milliseconds even if nothing has failed.",
    )
    .at_least(0),
    key(
        "metadata.max.idle.ms",
        Long,
        Some("300000"),
        Low,
        "A topic to which nothing was sent for so many milliseconds is forgotten.",
    )
    .at_least(5000),
    key(
        "metadata.recovery.rebootstrap.trigger.ms",
        Long,
        Some("300000"),
        Low,
        "If no metadata could be had for so many milliseconds, start again from \
         bootstrap.servers (KIP-1102).",
    )
    .at_least(0),
    key(
        "metadata.recovery.strategy",
        String,
        Some("rebootstrap"),
        Low,
        "What to do if no known broker can be reached: rebootstrap starts again from \
         bootstrap.servers, none keeps trying the known ones (KIP-899).",
    )
    .allowed(Allowed::OneOfAnyCase(&["rebootstrap", "none"])),
    key(
        "metric.reporters",
        List,
        Some("org.apache.kafka.common.metrics.JmxReporter"),
        Low,
        "Classes that publish metrics.",
    )
    .meaningless(JVM),
    key(
        "metrics.num.samples",
        Int,
        Some("2"),
        Low,
        "The samples that rates, averages and maxima are made of.",
    )
    .at_least(1),
    key(
        "metrics.recording.level",
        String,
        Some("INFO"),
        Low,
        "Which metrics are recorded: from DEBUG on, percentiles of each broker's latency too.",
    )
    .one_of(&["INFO", "DEBUG", "TRACE"]),
    key("metrics.sample.window.ms", Long, Some("30000"), Low, "The milliseconds of a sample.")
        .at_least(0),
    key(
        "receive.buffer.bytes",
        Int,
        Some("32768"),
        Medium,
        "The socket's receive buffer (SO_RCVBUF); -1 leaves it to the operating system.",
    )
    .at_least(-1),
    key(
        "reconnect.backoff.max.ms",
        Long,
        Some("1000"),
        Low,
        "The most milliseconds between attempts to connect to a broker that does not answer. \
         Takes reconnect.backoff.ms's value if only that is set.",
    )
    .at_least(0),
    key(
        "reconnect.backoff.ms",
        Long,
        Some("50"),
        Low,
        "The milliseconds before a broker is connected to again; doubled by each failure.",
    )
    .at_least(0),
    key(
        "request.timeout.ms",
        Int,
        Some("30000"),
        Medium,
        "The most milliseconds that an answer may take; then the connection is closed and the \
         request is made again if it may be.",
    )
    .at_least(0),
    key(
        "retry.backoff.max.ms",
        Long,
        Some("1000"),
        Low,
        "The most milliseconds before a failed request is made again.",
    )
    .at_least(0),
    key(
        "retry.backoff.ms",
        Long,
        Some("100"),
        Low,
        "The milliseconds before a failed request is made again; doubled by each failure.",
    )
    .at_least(0),
    key(
        "security.protocol",
        String,
        Some("PLAINTEXT"),
        Medium,
        "How brokers are spoken to: plain or by TLS, with or without SASL.",
    )
    .allowed(Allowed::OneOfAnyCase(&["SASL_SSL", "PLAINTEXT", "SSL", "SASL_PLAINTEXT"]))
    .not_yet("this version speaks PLAINTEXT only"),
    key("security.providers", String, None, Low, "Classes that provide Java's cryptography.")
        .meaningless(JVM),
    key(
        "send.buffer.bytes",
        Int,
        Some("131072"),
        Medium,
        "The socket's send buffer (SO_SNDBUF); -1 leaves it to the operating system.",
    )
    .at_least(-1),
    key(
        "socket.connection.setup.timeout.max.ms",
        Long,
        Some("30000"),
        Medium,
        "The most milliseconds that a connection may take to be made, after failures.",
    )
    .at_least(0),
    key(
        "socket.connection.setup.timeout.ms",
        Long,
        Some("10000"),
        Medium,
        "The milliseconds that a connection may take to be made; doubled by each failure.",
    )
    .at_least(0),
];
