//! Typed setters over the table of keys. Values are checked at `build`, all at once.

use std::fmt;
use std::time::Duration;

use super::key::ConfigKey;
use super::kinds::{Acks, MetadataRecoveryStrategy, PartitionerKind, RecordingLevel};
use super::producer_config::ProducerConfig;
use super::{keys, properties};
use crate::error::Error;
use crate::producer::Parts;

/// Sets up a producer: a setter for each supported key, and [`property`](Self::property) for keys
/// as Kafka writes them. The last setting of a key counts.
///
/// Times are kept in milliseconds, as Kafka's keys have them; parts of one are rounded up. Where
/// no type rules out a wrong value, `build` returns it as [`Error::Config`].
///
/// ```
/// use kafka_producer::{Acks, ProducerConfig};
/// use std::time::Duration;
///
/// let config = ProducerConfig::builder()
///     .bootstrap_servers("broker1:9092,broker2:9092")
///     .acks(Acks::All)
///     .linger(Duration::from_millis(20))
///     .property("batch.size", "131072")
///     .build_config()?;
/// assert_eq!(config.value("linger.ms"), Some("20"));
/// # Ok::<(), kafka_producer::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct ProducerBuilder {
    /// Keys and values as text, in the order they were set: `build_config` reads them by the table.
    entries: Vec<(String, String)>,
    /// What is no text.
    pub(crate) parts: Parts,
}

/// Any key.
impl ProducerBuilder {
    /// Sets a key as Kafka writes it.
    pub fn property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.entries.push((key.into(), value.into()));
        self
    }

    /// Sets many keys as Kafka writes them.
    pub fn properties<K, V>(mut self, entries: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let owned = |(key, value): (K, V)| (key.as_ref().to_owned(), value.as_ref().to_owned());
        self.entries.extend(entries.into_iter().map(owned));
        self
    }

    /// Sets the keys in the text of a Java `.properties` file.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], naming the line, if the text is malformed. Its keys and values are
    /// checked later, by `build`.
    pub fn properties_text(self, text: &str) -> Result<Self, Error> {
        Ok(self.properties(properties::parse(text)?))
    }

    /// Checks everything, without any I/O, and returns the configuration.
    ///
    /// # Errors
    ///
    /// As [`ProducerConfig::from_properties`].
    pub fn build_config(&self) -> Result<ProducerConfig, Error> {
        ProducerConfig::from_entries(&self.entries)
    }
}

/// Addresses and names.
impl ProducerBuilder {
    /// The brokers to ask first for the cluster's metadata: `host:port`, `[ipv6]:port`, commas
    /// between them. One that answers is enough; two or three guard against one that is down.
    ///
    /// Required. Key: `bootstrap.servers`.
    pub fn bootstrap_servers(self, servers: impl Into<String>) -> Self {
        self.property("bootstrap.servers", servers)
    }

    /// The name by which brokers know this client, in their logs, metrics and quotas. If empty,
    /// one is made up.
    ///
    /// Key: `client.id`. Default: ``.
    pub fn client_id(self, id: impl Into<String>) -> Self {
        self.property("client.id", id)
    }
}

/// Delivery.
impl ProducerBuilder {
    /// Which replicas must have a batch before it counts as delivered. Anything but
    /// [`Acks::All`] can lose acknowledged records when a broker fails, and turns idempotence off.
    ///
    /// Key: `acks`. Default: `all`.
    pub fn acks(self, acks: Acks) -> Self {
        self.set("acks", acks)
    }

    /// Whether batches are numbered, so that the broker drops doubles that retries make and keeps
    /// each partition's order. Needs [`Acks::All`], retries above 0 and at most 5 requests in
    /// flight: with `true` set here, a conflict is an error; unset, it turns idempotence off.
    ///
    /// Key: `enable.idempotence`. Default: `true`.
    pub fn enable_idempotence(self, enable: bool) -> Self {
        self.set("enable.idempotence", enable)
    }

    /// How often a batch is sent again after an error that may pass. Better bound the whole by
    /// [`delivery_timeout`](Self::delivery_timeout) and leave this alone.
    ///
    /// Key: `retries`. Default: `2147483647`.
    pub fn retries(self, retries: u32) -> Self {
        self.set("retries", retries)
    }

    /// How many requests a broker is sent before it has answered the first. Above 1 without
    /// idempotence, a retry can change the order of a partition's records.
    ///
    /// Key: `max.in.flight.requests.per.connection`. Default: `5`.
    pub fn max_in_flight(self, requests: usize) -> Self {
        self.set("max.in.flight.requests.per.connection", requests)
    }

    /// The most time from `send`'s return to the record's outcome, with linger, all attempts and
    /// the waits between them. Not less than linger and request time-out together; if unset, it
    /// is raised to these.
    ///
    /// Key: `delivery.timeout.ms`. Default: `120000`.
    pub fn delivery_timeout(self, timeout: Duration) -> Self {
        self.millis("delivery.timeout.ms", timeout)
    }

    /// The most time that a broker's answer may take. Then the connection is closed, and what the
    /// request held is sent again if `retries` and the delivery time-out allow.
    ///
    /// Key: `request.timeout.ms`. Default: `30000`.
    pub fn request_timeout(self, timeout: Duration) -> Self {
        self.millis("request.timeout.ms", timeout)
    }

    /// The wait before a failed request is made again; each failure doubles it, up to
    /// [`retry_backoff_max`](Self::retry_backoff_max), with 20 % of chance (KIP-580).
    ///
    /// Key: `retry.backoff.ms`. Default: `100`.
    pub fn retry_backoff(self, backoff: Duration) -> Self {
        self.millis("retry.backoff.ms", backoff)
    }

    /// The most that the wait before a failed request is made again grows to. If it is less than
    /// [`retry_backoff`](Self::retry_backoff), it is the wait each time.
    ///
    /// Key: `retry.backoff.max.ms`. Default: `1000`.
    pub fn retry_backoff_max(self, backoff: Duration) -> Self {
        self.millis("retry.backoff.max.ms", backoff)
    }
}

/// Batches and memory.
impl ProducerBuilder {
    /// How long a batch that is not full waits for more records before it is sent. Longer makes
    /// batches larger and latency higher.
    ///
    /// Key: `linger.ms`. Default: `5`.
    pub fn linger(self, linger: Duration) -> Self {
        self.millis("linger.ms", linger)
    }

    /// The bytes at which a partition's batch is full and is sent at once; 0 sends each record by
    /// itself. A larger record has a batch of its own.
    ///
    /// Key: `batch.size`. Default: `16384`.
    pub fn batch_size(self, bytes: usize) -> Self {
        self.set("batch.size", bytes)
    }

    /// The most bytes of a produce request, and of a record. The broker's bound is its own:
    /// `message.max.bytes`, of a batch.
    ///
    /// Key: `max.request.size`. Default: `1048576`.
    pub fn max_request_size(self, bytes: usize) -> Self {
        self.set("max.request.size", bytes)
    }

    /// The bytes that records may hold while they wait for their delivery. At the bound, `send`
    /// waits, up to [`max_block`](Self::max_block).
    ///
    /// Key: `buffer.memory`. Default: `33554432`.
    pub fn buffer_memory(self, bytes: u64) -> Self {
        self.set("buffer.memory", bytes)
    }

    /// The part of [`buffer_memory`](Self::buffer_memory), from 0 to 1, that one partition may hold
    /// while others are in use. Past that, `send` to it waits for its own records to be delivered,
    /// and `try_send` is refused with [`Error::BufferShareExhausted`]; nobody else waits. It may be
    /// exceeded by one batch. Who has been sent to within `metadata.max.idle.ms` is in use; a
    /// partition that is alone may hold all of the buffer. 1.0 turns this off.
    ///
    /// Key: `buffer.memory.partition.share`. Default: `0.5`.
    pub fn buffer_memory_partition_share(self, share: f64) -> Self {
        self.set("buffer.memory.partition.share", share)
    }

    /// The same of all partitions that one broker leads, while other brokers are in use.
    ///
    /// Key: `buffer.memory.broker.share`. Default: `0.5`.
    pub fn buffer_memory_broker_share(self, share: f64) -> Self {
        self.set("buffer.memory.broker.share", share)
    }

    /// The most time that one `send` waits, for the topic's metadata, buffer memory and a
    /// callback's place together.
    ///
    /// Key: `max.block.ms`. Default: `60000`.
    pub fn max_block(self, wait: Duration) -> Self {
        self.millis("max.block.ms", wait)
    }
}

/// Partitions.
impl ProducerBuilder {
    /// How a record that names no partition gets one. Producers that share a topic and rely on a
    /// key's partition must use the same way.
    ///
    /// Key: `partitioner.class`, unset for [`PartitionerKind::Default`].
    pub fn partitioner(mut self, kind: PartitionerKind) -> Self {
        self.entries.retain(|(key, _)| key != "partitioner.class");
        match kind.name() {
            Some(name) => self.property("partitioner.class", name),
            None => self,
        }
    }

    /// Whether the default partitioner treats records with a key as if they had none. Other
    /// partitioners are not changed by it.
    ///
    /// Key: `partitioner.ignore.keys`. Default: `false`.
    pub fn partitioner_ignore_keys(self, ignore: bool) -> Self {
        self.set("partitioner.ignore.keys", ignore)
    }

    /// Whether the default partitioner gives records without a key more often to partitions whose
    /// brokers take them faster (KIP-794).
    ///
    /// Key: `partitioner.adaptive.partitioning.enable`. Default: `true`.
    pub fn partitioner_adaptive(self, adaptive: bool) -> Self {
        self.set("partitioner.adaptive.partitioning.enable", adaptive)
    }

    /// If a partition's broker has taken nothing for so long, records without a key go elsewhere;
    /// zero turns this off. Only with
    /// [`partitioner_adaptive`](Self::partitioner_adaptive).
    ///
    /// Key: `partitioner.availability.timeout.ms`. Default: `0`.
    pub fn partitioner_availability_timeout(self, timeout: Duration) -> Self {
        self.millis("partitioner.availability.timeout.ms", timeout)
    }
}

/// Connections.
impl ProducerBuilder {
    /// The wait before a broker is connected to again; each failure doubles it, up to
    /// [`reconnect_backoff_max`](Self::reconnect_backoff_max). Set alone, it is the wait each time.
    ///
    /// Key: `reconnect.backoff.ms`. Default: `50`.
    pub fn reconnect_backoff(self, backoff: Duration) -> Self {
        self.millis("reconnect.backoff.ms", backoff)
    }

    /// The most that the wait before a broker is connected to again grows to.
    ///
    /// Key: `reconnect.backoff.max.ms`. Default: `1000`.
    pub fn reconnect_backoff_max(self, backoff: Duration) -> Self {
        self.millis("reconnect.backoff.max.ms", backoff)
    }

    /// The time that a connection may take to be made; each failure doubles it, up to
    /// [`socket_connection_setup_timeout_max`](Self::socket_connection_setup_timeout_max).
    ///
    /// Key: `socket.connection.setup.timeout.ms`. Default: `10000`.
    pub fn socket_connection_setup_timeout(self, timeout: Duration) -> Self {
        self.millis("socket.connection.setup.timeout.ms", timeout)
    }

    /// The most that the time for making a connection grows to.
    ///
    /// Key: `socket.connection.setup.timeout.max.ms`. Default: `30000`.
    pub fn socket_connection_setup_timeout_max(self, timeout: Duration) -> Self {
        self.millis("socket.connection.setup.timeout.max.ms", timeout)
    }

    /// A connection that was not used for so long is closed; `None` keeps idle connections. Keep
    /// it below the brokers' own bound, 10 minutes by default.
    ///
    /// Key: `connections.max.idle.ms`. Default: `540000`.
    pub fn connections_max_idle(self, idle: impl Into<Option<Duration>>) -> Self {
        match idle.into() {
            Some(idle) => self.millis("connections.max.idle.ms", idle),
            None => self.set("connections.max.idle.ms", -1),
        }
    }

    /// The bytes of each socket's send buffer; `None` leaves them to the operating system.
    ///
    /// Key: `send.buffer.bytes`. Default: `131072`.
    pub fn send_buffer(self, bytes: impl Into<Option<usize>>) -> Self {
        self.bytes_or_system("send.buffer.bytes", bytes.into())
    }

    /// The bytes of each socket's receive buffer; `None` leaves them to the operating system.
    ///
    /// Key: `receive.buffer.bytes`. Default: `32768`.
    pub fn receive_buffer(self, bytes: impl Into<Option<usize>>) -> Self {
        self.bytes_or_system("receive.buffer.bytes", bytes.into())
    }
}

/// Metadata.
impl ProducerBuilder {
    /// Metadata is asked for anew after so long even if nothing has failed, to learn of new
    /// partitions and brokers.
    ///
    /// Key: `metadata.max.age.ms`. Default: `300000`.
    pub fn metadata_max_age(self, age: Duration) -> Self {
        self.millis("metadata.max.age.ms", age)
    }

    /// A topic to which nothing was sent for so long is forgotten; the next `send` asks for its
    /// metadata again. At least 5 seconds.
    ///
    /// Key: `metadata.max.idle.ms`. Default: `300000`.
    pub fn metadata_max_idle(self, idle: Duration) -> Self {
        self.millis("metadata.max.idle.ms", idle)
    }

    /// What to do when no known broker can be reached (KIP-899).
    ///
    /// Key: `metadata.recovery.strategy`. Default: `rebootstrap`.
    pub fn metadata_recovery_strategy(self, strategy: MetadataRecoveryStrategy) -> Self {
        self.set("metadata.recovery.strategy", strategy)
    }

    /// If no metadata could be had for so long, start again from the bootstrap servers (KIP-1102).
    ///
    /// Key: `metadata.recovery.rebootstrap.trigger.ms`. Default: `300000`.
    pub fn metadata_recovery_rebootstrap_trigger(self, after: Duration) -> Self {
        self.millis("metadata.recovery.rebootstrap.trigger.ms", after)
    }
}

/// Metrics.
impl ProducerBuilder {
    /// The samples that rates, averages and maxima are made of; at least 1. They look back over so
    /// many times [`metrics_sample_window`](Self::metrics_sample_window).
    ///
    /// Key: `metrics.num.samples`. Default: `2`.
    pub fn metrics_num_samples(self, samples: u32) -> Self {
        self.set("metrics.num.samples", samples)
    }

    /// The time that a sample spans.
    ///
    /// Key: `metrics.sample.window.ms`. Default: `30000`.
    pub fn metrics_sample_window(self, window: Duration) -> Self {
        self.millis("metrics.sample.window.ms", window)
    }

    /// Which metrics are recorded.
    ///
    /// Key: `metrics.recording.level`. Default: `INFO`.
    pub fn metrics_recording_level(self, level: RecordingLevel) -> Self {
        self.set("metrics.recording.level", level)
    }
}

/// Topics that don't exist, callbacks, waits and close: keys of this crate, unknown to Kafka's
/// producer.
impl ProducerBuilder {
    /// Whether brokers may create a topic that is sent to and does not exist. They do if their own
    /// `auto.create.topics.enable` is on.
    ///
    /// Key: `allow.auto.create.topics`. Default: `true`.
    pub fn allow_auto_create_topics(self, yes: bool) -> Self {
        self.set("allow.auto.create.topics", yes)
    }

    /// The most time that a send waits for a topic of which the brokers say that it does not exist.
    /// `None` for as long as `max.block.ms`, as Java does: the topic may be on its way. Whatever it
    /// is, the brokers are asked at least once.
    ///
    /// Key: `unknown.topic.timeout.ms`. Default: `-1`.
    pub fn unknown_topic_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        match timeout.into() {
            Some(timeout) => self.millis("unknown.topic.timeout.ms", timeout),
            None => self.set("unknown.topic.timeout.ms", -1),
        }
    }

    /// Threads that run callbacks. One partition's callbacks run one at a time, in order, whatever
    /// the number; 1 to 1024.
    ///
    /// Key: `callback.threads`. Default: `1`.
    pub fn callback_threads(self, threads: usize) -> Self {
        self.set("callback.threads", threads)
    }

    /// Records with a callback that may be on their way at once. At the bound, `send` waits, up to
    /// [`max_block`](Self::max_block), until callbacks begin.
    ///
    /// Key: `callback.max.pending`. Default: `100000`.
    pub fn callback_max_pending(self, records: usize) -> Self {
        self.set("callback.max.pending", records)
    }

    /// Whether a batch is sent before its linger is over once each of its records has a thread
    /// that waits for it: nothing more can come of waiting then.
    ///
    /// Key: `wait.ends.linger`. Default: `true`.
    pub fn wait_ends_linger(self, ends: bool) -> Self {
        self.set("wait.ends.linger", ends)
    }

    /// The most time that dropping the producer's last handle waits for accepted records.
    ///
    /// Key: `close.on.drop.timeout.ms`. Default: `30000`.
    pub fn close_on_drop_timeout(self, timeout: Duration) -> Self {
        self.millis("close.on.drop.timeout.ms", timeout)
    }
}

impl ProducerBuilder {
    fn set(self, key: &str, value: impl ToString) -> Self {
        self.property(key, value.to_string())
    }

    /// Rounded up: a short wait is not turned into none.
    fn millis(self, key: &str, time: Duration) -> Self {
        self.set(key, time.as_nanos().div_ceil(1_000_000))
    }

    fn bytes_or_system(self, key: &str, bytes: Option<usize>) -> Self {
        match bytes {
            Some(bytes) => self.set(key, bytes),
            None => self.set(key, -1),
        }
    }
}

/// Values of secret keys and of unknown ones, which may be mistyped secret ones, are hidden.
impl fmt::Debug for ProducerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.entries.iter().map(|(key, value)| {
            let secret = keys::find(key).is_none_or(ConfigKey::is_secret);
            (key.as_str(), if secret { "[hidden]" } else { value.as_str() })
        });
        f.debug_map().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Support;

    /// `(key, default)` of each doc line above that holds a `Key:`.
    fn documented() -> Vec<(&'static str, Option<&'static str>)> {
        let code = |text: &'static str| text.split_once('`').map(|(code, _)| code);
        let line = |line: &'static str| {
            let doc = line.trim().strip_prefix("///")?;
            let (_, rest) = doc.split_once("Key: `")?;
            let default = rest.split_once("Default: `").and_then(|(_, rest)| code(rest));
            Some((code(rest)?, default))
        };
        include_str!("builder.rs").lines().filter_map(line).collect()
    }

    #[test]
    fn defaults_in_the_docs_are_those_of_the_table() {
        for (name, default) in documented() {
            let key = keys::find(name).unwrap_or_else(|| panic!("{name} is not in the table"));
            assert_eq!(key.default_value(), default, "{name}");
        }
    }

    #[test]
    fn each_supported_key_has_one_setter_and_no_other_key_has() {
        let documented: Vec<_> = documented().into_iter().map(|(name, _)| name).collect();
        let distinct: BTreeSet<_> = documented.iter().copied().collect();
        let supported: BTreeSet<_> = keys::all()
            .filter(|key| key.support() == Support::Supported)
            .map(ConfigKey::name)
            .collect();
        assert_eq!(documented.len(), distinct.len());
        assert_eq!(distinct, supported);
    }
}
