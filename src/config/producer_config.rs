//! The checked configuration, as typed values.

use std::fmt;
use std::time::Duration;

use super::builder::ProducerBuilder;
use super::host_port::HostPort;
use super::key::ConfigKey;
use super::kinds::{Acks, MetadataRecoveryStrategy, PartitionerKind, RecordingLevel};
use super::settings::{Settings, ValueOrigin};
use super::{checks, keys, properties};
use crate::error::Error;

/// A checked configuration of a producer, made from Kafka's own keys or by [`ProducerBuilder`].
///
/// Defaults are those of Kafka 4.3.1. `Display` and `Debug` show the values in force, one
/// `key=value` each, without secrets.
///
/// ```
/// use kafka_producer::ProducerConfig;
///
/// let config = ProducerConfig::from_properties([
///     ("bootstrap.servers", "localhost:9092"),
///     ("linger.ms", "20"),
/// ])?;
/// assert_eq!(config.value("linger.ms"), Some("20"));
/// assert_eq!(config.value("batch.size"), Some("16384"));
/// # Ok::<(), kafka_producer::Error>(())
/// ```
#[derive(Clone)]
pub struct ProducerConfig {
    /// At least one, no doubles, not resolved.
    pub(crate) bootstrap_servers: Vec<HostPort>,
    /// Empty if it was not set: the producer makes one up.
    pub(crate) client_id: String,

    pub(crate) acks: Acks,
    /// As resolved: never true beside other acks than `All`, 0 retries or more than 5 in flight.
    pub(crate) enable_idempotence: bool,
    pub(crate) retries: u32,
    /// At least 1.
    pub(crate) max_in_flight: usize,
    /// Not less than `linger` + `request_timeout`.
    pub(crate) delivery_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) linger: Duration,
    /// In bytes; 0: each record has a batch of its own.
    pub(crate) batch_size: usize,
    /// In bytes.
    pub(crate) max_request_size: usize,
    /// In bytes.
    pub(crate) buffer_memory: u64,
    /// From 0 to 1.
    pub(crate) partition_share: f64,
    /// From 0 to 1.
    pub(crate) broker_share: f64,
    pub(crate) max_block: Duration,

    pub(crate) partitioner: PartitionerKind,
    pub(crate) partitioner_ignore_keys: bool,
    pub(crate) partitioner_adaptive: bool,
    /// Zero: off.
    pub(crate) partitioner_availability_timeout: Duration,

    /// Not more than `retry_backoff_max`; the like holds for the two pairs below.
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
    pub(crate) reconnect_backoff: Duration,
    pub(crate) reconnect_backoff_max: Duration,
    pub(crate) socket_connection_setup_timeout: Duration,
    pub(crate) socket_connection_setup_timeout_max: Duration,
    /// `None`: never closed for idleness.
    pub(crate) connections_max_idle: Option<Duration>,
    /// In bytes; `None`: the operating system's default.
    pub(crate) send_buffer: Option<usize>,
    /// In bytes; `None`: the operating system's default.
    pub(crate) receive_buffer: Option<usize>,

    pub(crate) metadata_max_age: Duration,
    pub(crate) metadata_max_idle: Duration,
    pub(crate) metadata_recovery_strategy: MetadataRecoveryStrategy,
    pub(crate) metadata_recovery_rebootstrap_trigger: Duration,
    pub(crate) allow_auto_create_topics: bool,
    /// `None`: `max_block`.
    pub(crate) unknown_topic_timeout: Option<Duration>,

    /// At least 1.
    pub(crate) metrics_num_samples: usize,
    pub(crate) metrics_sample_window: Duration,
    pub(crate) metrics_recording_level: RecordingLevel,

    /// At least 1.
    pub(crate) callback_threads: usize,
    /// At least 1.
    pub(crate) callback_max_pending: usize,
    pub(crate) wait_ends_linger: bool,
    pub(crate) close_on_drop_timeout: Duration,

    /// Supported keys in the table's order, secrets hidden.
    in_force: Vec<(&'static str, String, ValueOrigin)>,
}

impl ProducerConfig {
    /// Typed setters for the same keys.
    pub fn builder() -> ProducerBuilder {
        ProducerBuilder::default()
    }

    /// Reads Kafka's own keys; the later of two entries for one key counts.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], naming the key: it is unknown (the nearest known one is named), known to
    /// Kafka but not supported here, or its value is of the wrong type, out of range, or in
    /// conflict with another setting.
    pub fn from_properties<K, V>(entries: impl IntoIterator<Item = (K, V)>) -> Result<Self, Error>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        Self::builder().properties(entries).build_config()
    }

    /// Reads the text of a Java `.properties` file, such as Kafka's `producer.properties`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], naming the line if the text is malformed, else as
    /// [`from_properties`](Self::from_properties).
    pub fn from_properties_text(text: &str) -> Result<Self, Error> {
        Self::from_properties(properties::parse(text)?)
    }

    /// Every key that is known: Kafka's, supported or not, and this crate's own.
    pub fn keys() -> impl Iterator<Item = &'static ConfigKey> {
        keys::all()
    }

    /// The values in force as `(key, value)`, supported keys only, without secrets: for logs.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.in_force.iter().map(|(name, value, _)| (*name, value.as_str()))
    }

    /// The value in force of a supported key.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Where the value in force of a supported key comes from.
    ///
    /// ```
    /// use kafka_producer::{ProducerConfig, ValueOrigin};
    ///
    /// let config = ProducerConfig::from_properties([
    ///     ("bootstrap.servers", "localhost:9092"),
    ///     ("acks", "1"),
    /// ])?;
    /// assert_eq!(config.origin("acks"), Some(ValueOrigin::Given));
    /// // Idempotence needs acks=all, and nobody asked for it.
    /// assert_eq!(config.origin("enable.idempotence"), Some(ValueOrigin::Adjusted));
    /// assert_eq!(config.origin("linger.ms"), Some(ValueOrigin::Default));
    /// # Ok::<(), kafka_producer::Error>(())
    /// ```
    pub fn origin(&self, key: &str) -> Option<ValueOrigin> {
        self.in_force.iter().find(|(name, ..)| *name == key).map(|(.., origin)| *origin)
    }

    pub(super) fn from_entries(entries: &[(String, String)]) -> Result<Self, Error> {
        let mut settings = Settings::read(entries)?;
        checks::resolve(&mut settings)?;
        Self::from_settings(&settings)
    }

    fn from_settings(s: &Settings) -> Result<Self, Error> {
        Ok(Self {
            bootstrap_servers: HostPort::parse_list(s.list("bootstrap.servers"))?,
            client_id: s.text("client.id").unwrap_or_default().to_owned(),
            acks: Acks::parse(s.text("acks").unwrap_or_default()),
            enable_idempotence: s.flag("enable.idempotence"),
            retries: u32::try_from(s.number("retries")).unwrap_or(u32::MAX),
            max_in_flight: size(s, "max.in.flight.requests.per.connection"),
            delivery_timeout: millis(s, "delivery.timeout.ms"),
            request_timeout: millis(s, "request.timeout.ms"),
            linger: millis(s, "linger.ms"),
            batch_size: size(s, "batch.size"),
            max_request_size: size(s, "max.request.size"),
            buffer_memory: s.number("buffer.memory").unsigned_abs(),
            partition_share: s.decimal("buffer.memory.partition.share"),
            broker_share: s.decimal("buffer.memory.broker.share"),
            max_block: millis(s, "max.block.ms"),
            partitioner: s
                .text("partitioner.class")
                .map_or(Ok(PartitionerKind::Default), PartitionerKind::parse)?,
            partitioner_ignore_keys: s.flag("partitioner.ignore.keys"),
            partitioner_adaptive: s.flag("partitioner.adaptive.partitioning.enable"),
            partitioner_availability_timeout: millis(s, "partitioner.availability.timeout.ms"),
            retry_backoff: millis(s, "retry.backoff.ms"),
            retry_backoff_max: millis(s, "retry.backoff.max.ms"),
            reconnect_backoff: millis(s, "reconnect.backoff.ms"),
            reconnect_backoff_max: millis(s, "reconnect.backoff.max.ms"),
            socket_connection_setup_timeout: millis(s, "socket.connection.setup.timeout.ms"),
            socket_connection_setup_timeout_max: millis(
                s,
                "socket.connection.setup.timeout.max.ms",
            ),
            connections_max_idle: (s.number("connections.max.idle.ms") >= 0)
                .then(|| millis(s, "connections.max.idle.ms")),
            send_buffer: usize::try_from(s.number("send.buffer.bytes")).ok(),
            receive_buffer: usize::try_from(s.number("receive.buffer.bytes")).ok(),
            metadata_max_age: millis(s, "metadata.max.age.ms"),
            metadata_max_idle: millis(s, "metadata.max.idle.ms"),
            metadata_recovery_strategy: MetadataRecoveryStrategy::parse(
                s.text("metadata.recovery.strategy").unwrap_or_default(),
            ),
            metadata_recovery_rebootstrap_trigger: millis(
                s,
                "metadata.recovery.rebootstrap.trigger.ms",
            ),
            metrics_num_samples: size(s, "metrics.num.samples"),
            metrics_sample_window: millis(s, "metrics.sample.window.ms"),
            metrics_recording_level: RecordingLevel::parse(
                s.text("metrics.recording.level").unwrap_or_default(),
            ),
            allow_auto_create_topics: s.flag("allow.auto.create.topics"),
            unknown_topic_timeout: (s.number("unknown.topic.timeout.ms") >= 0)
                .then(|| millis(s, "unknown.topic.timeout.ms")),
            callback_threads: size(s, "callback.threads"),
            callback_max_pending: size(s, "callback.max.pending"),
            wait_ends_linger: s.flag("wait.ends.linger"),
            close_on_drop_timeout: millis(s, "close.on.drop.timeout.ms"),
            in_force: s.in_force(),
        })
    }
}

/// The table keeps such numbers from being negative.
fn millis(settings: &Settings, name: &str) -> Duration {
    Duration::from_millis(u64::try_from(settings.number(name)).unwrap_or(0))
}

fn size(settings: &Settings, name: &str) -> usize {
    usize::try_from(settings.number(name)).unwrap_or(0)
}

impl fmt::Display for ProducerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (name, value)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ProducerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(entries: &[(&str, &str)]) -> ProducerConfig {
        let all = [("bootstrap.servers", "b:9092")].iter().chain(entries).copied();
        ProducerConfig::from_properties(all).unwrap()
    }

    #[test]
    fn typed_values_have_kafkas_defaults() {
        let c = config(&[]);
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        assert_eq!(c.bootstrap_servers, [HostPort { host: "b".to_owned(), port: 9092 }]);
        assert_eq!(c.client_id, "");
        assert_eq!((c.acks, c.enable_idempotence), (Acks::All, true));
        assert_eq!((c.retries, c.max_in_flight), (2_147_483_647, 5));
        assert_eq!((c.delivery_timeout, c.request_timeout), (s(120), s(30)));
        assert_eq!((c.linger, c.max_block), (ms(5), s(60)));
        assert_eq!((c.batch_size, c.max_request_size), (16_384, 1_048_576));
        assert_eq!(c.buffer_memory, 33_554_432);
        assert_eq!(c.partitioner, PartitionerKind::Default);
        assert!(c.partitioner_adaptive && !c.partitioner_ignore_keys);
        assert_eq!(c.partitioner_availability_timeout, Duration::ZERO);
        assert_eq!((c.retry_backoff, c.retry_backoff_max), (ms(100), s(1)));
        assert_eq!((c.reconnect_backoff, c.reconnect_backoff_max), (ms(50), s(1)));
        assert_eq!(c.socket_connection_setup_timeout, s(10));
        assert_eq!(c.socket_connection_setup_timeout_max, s(30));
        assert_eq!(c.connections_max_idle, Some(s(540)));
        assert_eq!((c.send_buffer, c.receive_buffer), (Some(131_072), Some(32_768)));
        assert_eq!((c.metadata_max_age, c.metadata_max_idle), (s(300), s(300)));
        assert_eq!(c.metadata_recovery_strategy, MetadataRecoveryStrategy::Rebootstrap);
        assert_eq!(c.metadata_recovery_rebootstrap_trigger, s(300));
        assert_eq!((c.metrics_num_samples, c.metrics_sample_window), (2, s(30)));
        assert_eq!(c.metrics_recording_level, RecordingLevel::Info);
        assert_eq!((c.allow_auto_create_topics, c.unknown_topic_timeout), (true, None));
        assert_eq!((c.callback_threads, c.callback_max_pending), (1, 100_000));
        assert!(c.wait_ends_linger);
        assert_eq!(c.close_on_drop_timeout, s(30));
    }

    #[test]
    fn minus_one_means_none_and_long_bounds_fit() {
        let c = config(&[
            ("connections.max.idle.ms", "-1"),
            ("send.buffer.bytes", "-1"),
            ("receive.buffer.bytes", "0"),
            ("max.block.ms", "9223372036854775807"),
            ("metadata.recovery.strategy", "NONE"),
        ]);
        assert_eq!(c.connections_max_idle, None);
        assert_eq!((c.send_buffer, c.receive_buffer), (None, Some(0)));
        assert_eq!(c.max_block, Duration::from_millis(i64::MAX.unsigned_abs()));
        assert_eq!(c.metadata_recovery_strategy, MetadataRecoveryStrategy::None);
    }

    #[test]
    fn resolved_values_reach_the_typed_ones() {
        let c = config(&[("acks", "1"), ("linger.ms", "200000"), ("reconnect.backoff.ms", "70")]);
        assert_eq!((c.acks, c.enable_idempotence), (Acks::Leader, false));
        assert_eq!(c.delivery_timeout, Duration::from_secs(230));
        assert_eq!(c.reconnect_backoff_max, Duration::from_millis(70));
    }
}
