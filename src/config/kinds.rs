//! Settings that are a choice: acknowledgements, partitioner, recovery of metadata.

use std::fmt;

use crate::error::Error;

/// Which replicas must have a batch before the broker acknowledges it (`acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acks {
    /// None: a batch counts as delivered when its last byte is in the socket; offsets are unknown.
    None,
    /// The partition's leader only: records are lost if it fails before the others have them.
    Leader,
    /// All in-sync replicas (`min.insync.replicas` of the topic bounds how few these may be).
    All,
}

impl Acks {
    /// The field of the produce request: 0, 1 or -1.
    pub(crate) fn as_i16(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        match text {
            "0" => Self::None,
            "1" => Self::Leader,
            _ => Self::All,
        }
    }
}

impl fmt::Display for Acks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "0",
            Self::Leader => "1",
            Self::All => "all",
        })
    }
}

/// What to do when none of the brokers known from metadata can be reached (KIP-899, KIP-1102).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetadataRecoveryStrategy {
    /// Keep to the brokers that were known last.
    None,
    /// Start again from `bootstrap.servers`.
    Rebootstrap,
}

impl MetadataRecoveryStrategy {
    pub(super) fn parse(text: &str) -> Self {
        if text.eq_ignore_ascii_case("none") { Self::None } else { Self::Rebootstrap }
    }
}

impl fmt::Display for MetadataRecoveryStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Rebootstrap => "rebootstrap",
        })
    }
}

/// Which metrics are recorded (`metrics.recording.level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum RecordingLevel {
    /// What costs next to nothing: the default.
    Info,
    /// Percentiles of each broker's latency too.
    Debug,
    /// As `Debug`.
    Trace,
}

impl RecordingLevel {
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "DEBUG" => Self::Debug,
            "TRACE" => Self::Trace,
            _ => Self::Info,
        }
    }
}

impl fmt::Display for RecordingLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        })
    }
}

/// How a record that names no partition gets one (`partitioner.class`).
///
/// Producers that share a topic and rely on a key's partition must use the same one: Java's
/// clients hash by murmur2 (`Default`, `Murmur2Random`), librdkafka's by CRC-32
/// (`ConsistentRandom`) unless told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PartitionerKind {
    /// Java's built-in one (KIP-794): a key's murmur2 hash; without a key, one partition until
    /// `batch.size` bytes went there, chosen by the partitions' load.
    #[default]
    Default,
    /// Each partition in turn, keys ignored: Java's `RoundRobinPartitioner`.
    RoundRobin,
    /// Any partition, keys ignored: librdkafka's `random`.
    Random,
    /// The key's CRC-32; a record without a key goes where an empty key goes.
    Consistent,
    /// The key's CRC-32; without a key, any partition. librdkafka's default.
    ConsistentRandom,
    /// The key's murmur2 hash; a record without a key goes where an empty key goes.
    Murmur2,
    /// The key's murmur2 hash, as Java's; without a key, any partition.
    Murmur2Random,
    /// The key's FNV-1a hash; a record without a key goes where an empty key goes.
    Fnv1a,
    /// The key's FNV-1a hash, as Sarama's; without a key, any partition.
    Fnv1aRandom,
}

const ROUND_ROBIN: &str = "org.apache.kafka.clients.producer.RoundRobinPartitioner";
const STICKY: &str = "org.apache.kafka.clients.producer.UniformStickyPartitioner";
const OLD_DEFAULT: &str = "org.apache.kafka.clients.producer.internals.DefaultPartitioner";

impl PartitionerKind {
    const NAMED: [(&str, Self); 8] = [
        (ROUND_ROBIN, Self::RoundRobin),
        ("random", Self::Random),
        ("consistent", Self::Consistent),
        ("consistent_random", Self::ConsistentRandom),
        ("murmur2", Self::Murmur2),
        ("murmur2_random", Self::Murmur2Random),
        ("fnv1a", Self::Fnv1a),
        ("fnv1a_random", Self::Fnv1aRandom),
    ];

    /// The value of `partitioner.class`; `None` (unset) is the default partitioner.
    pub(super) fn name(self) -> Option<&'static str> {
        Self::NAMED.iter().find(|(_, kind)| *kind == self).map(|(name, _)| *name)
    }

    /// Takes Java's class names and librdkafka's names, each in their own case.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        if let Some((_, kind)) = Self::NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*kind);
        }
        let why = match text {
            STICKY => "Kafka removed it in 4.0; leave partitioner.class unset and set \
                 partitioner.ignore.keys=true"
                .to_owned(),
            OLD_DEFAULT => "Kafka removed it in 4.0; leave partitioner.class unset".to_owned(),
            _ => {
                let names: Vec<_> = Self::NAMED.iter().map(|(name, _)| *name).collect();
                format!("known are: unset, {}", names.join(", "))
            }
        };
        Err(Error::Config(format!("partitioner.class: `{text}` is no partitioner: {why}").into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_named_partitioner_reads_back() {
        for (name, kind) in PartitionerKind::NAMED {
            assert_eq!(PartitionerKind::parse(name).unwrap(), kind);
            assert_eq!(kind.name(), Some(name));
        }
        assert_eq!(PartitionerKind::Default.name(), None);
    }

    #[test]
    fn removed_and_unknown_partitioners_say_what_to_do() {
        let text = |name| PartitionerKind::parse(name).unwrap_err().to_string();
        assert!(text(STICKY).contains("partitioner.ignore.keys=true"));
        assert!(text(OLD_DEFAULT).contains("unset"));
        let unknown = text("Murmur2");
        for (name, _) in PartitionerKind::NAMED {
            assert!(unknown.contains(name), "{unknown}");
        }
    }

    #[test]
    fn acks_have_the_wire_values() {
        let wire = ["0", "1", "all", "-1"].map(|text| Acks::parse(text).as_i16());
        assert_eq!(wire, [0, 1, -1, -1]);
    }
}
