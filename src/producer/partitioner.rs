//! Which partition a record goes to: the hash functions that clients of Kafka agree on, the choice
//! for records without a key, and the trait for a user's own rule.
//!
//! Runs on the user's thread, before any lock is taken. What is kept per topic, such as the sticky
//! partition and how many bytes went there, lives in `accumulator`; the choice itself is made by
//! pure functions here.

use std::error::Error as StdError;
use std::fmt;

use super::key_hash::{crc32_partition, fnv1a_partition, murmur2_partition};
use super::record::Headers;
use crate::config::PartitionerKind;
use crate::error::Error;

/// A user's own rule for choosing partitions; any closure of this shape is one.
///
/// It is asked for records without an explicit partition, on the thread that calls `send`, by many
/// threads at once. If it fails, panics, or chooses a partition that does not exist, only that
/// `send` fails, with [`Error::InvalidRecord`].
///
/// ```
/// use kafka_producer::{ClusterView, PartitionError, PartitionInput, Partitioner};
/// use kafka_producer::murmur2_partition;
///
/// // Audit records go to partition 0, all others by their keys to the rest.
/// let rule = |input: &PartitionInput<'_>, cluster: &ClusterView<'_>| {
///     let key = input.key.ok_or("every record needs a key")?;
///     if key == b"audit" || cluster.partition_count() == 1 {
///         return Ok::<i32, PartitionError>(0);
///     }
///     Ok(1 + murmur2_partition(key, cluster.partition_count() - 1))
/// };
/// let cluster = ClusterView::new(3, &[0, 1, 2]);
/// assert_eq!(rule.partition(&PartitionInput::new("t", Some(b"audit"), None), &cluster)?, 0);
/// # Ok::<(), PartitionError>(())
/// ```
pub trait Partitioner: Send + Sync {
    /// The partition for this record, from 0 up to but not including the topic's partition count.
    ///
    /// # Errors
    /// Whatever keeps the rule from choosing; its text becomes part of the error of `send`.
    fn partition(
        &self,
        input: &PartitionInput<'_>,
        cluster: &ClusterView<'_>,
    ) -> Result<i32, PartitionError>;
}

/// Why a [`Partitioner`] did not choose; made by `?` from any error or text.
pub type PartitionError = Box<dyn StdError + Send + Sync>;

impl<F> Partitioner for F
where
    F: Fn(&PartitionInput<'_>, &ClusterView<'_>) -> Result<i32, PartitionError> + Send + Sync,
{
    fn partition(
        &self,
        input: &PartitionInput<'_>,
        cluster: &ClusterView<'_>,
    ) -> Result<i32, PartitionError> {
        self(input, cluster)
    }
}

/// What a [`Partitioner`] sees of a record, after serialization.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct PartitionInput<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// The key; `None` is Kafka's null.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is Kafka's null.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a Headers<'a>,
}

impl<'a> PartitionInput<'a> {
    /// A record without headers, to try a [`Partitioner`] with.
    pub fn new(topic: &'a str, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Self {
        const NONE: &Headers<'_> = &Headers::new();
        Self { topic, key, value, headers: NONE }
    }

    /// The same record with these headers.
    pub fn with_headers(self, headers: &'a Headers<'a>) -> Self {
        Self { headers, ..self }
    }
}

impl fmt::Debug for PartitionInput<'_> {
    /// Sizes instead of payloads, as for records.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionInput")
            .field("topic", &self.topic)
            .field("key_size", &self.key.map(<[u8]>::len))
            .field("value_size", &self.value.map(<[u8]>::len))
            .field("headers", &self.headers.len())
            .finish()
    }
}

/// The record's topic as the cluster hosts it now.
#[derive(Clone, Copy, Debug)]
pub struct ClusterView<'a> {
    partition_count: i32,
    available: &'a [i32],
}

impl<'a> ClusterView<'a> {
    /// A topic of `partition_count` partitions, those of `available` with a leader.
    ///
    /// # Panics
    /// If the count is below 1.
    pub fn new(partition_count: i32, available: &'a [i32]) -> Self {
        assert!(partition_count > 0, "a topic has at least one partition");
        Self { partition_count, available }
    }

    /// How many partitions the topic has; at least one.
    pub fn partition_count(&self) -> i32 {
        self.partition_count
    }

    /// The partitions that have a leader, ascending; empty during an outage. To others records can
    /// be sent as well: they wait for a leader.
    pub fn available(&self) -> &'a [i32] {
        self.available
    }

    /// Maps a random or counted number evenly to partitions: to those with a leader if there are
    /// any, else to all.
    fn spread(&self, number: u64) -> i32 {
        if self.available.is_empty() {
            // The remainder is below the count, an i32.
            (number % u64::from(self.partition_count.unsigned_abs())) as i32
        } else {
            self.available[(number % self.available.len() as u64) as usize]
        }
    }
}

/// Asks a user's rule, and refuses a partition that does not exist. A panic goes through.
///
/// # Errors
/// [`Error::InvalidRecord`].
pub(crate) fn ask(
    partitioner: &dyn Partitioner,
    input: &PartitionInput<'_>,
    cluster: &ClusterView<'_>,
) -> Result<i32, Error> {
    let topic = input.topic;
    let failed =
        |e| Error::InvalidRecord(format!("the partitioner failed for {topic}: {e}").into());
    let partition = partitioner.partition(input, cluster).map_err(failed)?;
    let count = cluster.partition_count;
    if !(0..count).contains(&partition) {
        let text = format!("the partitioner chose partition {partition} of {count} of {topic}");
        return Err(Error::InvalidRecord(text.into()));
    }
    Ok(partition)
}

/// What a built-in rule says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// This one.
    Partition(i32),
    /// Any: the topic's sticky partition, so that records fill batches together (KIP-794).
    Sticky,
}

/// The rules that the configuration can name.
#[derive(Debug)]
pub(crate) struct BuiltInRules {
    kind: PartitionerKind,
    /// `partitioner.ignore.keys`; concerns the default rule only, as in Java.
    ignore_keys: bool,
}

impl BuiltInRules {
    /// The rule of this kind.
    pub(crate) fn new(kind: PartitionerKind, ignore_keys: bool) -> Self {
        Self { kind, ignore_keys }
    }

    /// Whether a record with this key goes to the topic's sticky partition, whatever the cluster.
    #[inline]
    pub(crate) fn is_sticky(&self, key: Option<&[u8]>) -> bool {
        match self.kind {
            PartitionerKind::Default => key.is_none() || self.ignore_keys,
            PartitionerKind::ConsistentRandom => key.is_none_or(<[u8]>::is_empty),
            PartitionerKind::Murmur2Random | PartitionerKind::Fnv1aRandom => key.is_none(),
            _ => false,
        }
    }

    /// Whether a record with a key goes where the key alone decides, unless it
    /// [`is_sticky`](Self::is_sticky).
    #[inline]
    pub(crate) fn goes_by_key(&self) -> bool {
        !matches!(self.kind, PartitionerKind::RoundRobin | PartitionerKind::Random)
    }

    /// The partition of a record that goes by this key.
    pub(crate) fn by_key(&self, key: &[u8], count: i32) -> i32 {
        match self.kind {
            PartitionerKind::Consistent | PartitionerKind::ConsistentRandom => {
                crc32_partition(key, count)
            }
            PartitionerKind::Fnv1a | PartitionerKind::Fnv1aRandom => fnv1a_partition(key, count),
            _ => murmur2_partition(key, count),
        }
    }

    /// Chooses. `random` is drawn and `turn`, the topic's counter, advanced only if need be.
    ///
    /// librdkafka's rules: those named `_random` leave records without a key to chance, and
    /// `consistent_random` those with an empty key too; the others hash a null key like an empty
    /// one.
    pub(crate) fn choose(
        &self,
        key: Option<&[u8]>,
        cluster: &ClusterView<'_>,
        random: impl FnOnce() -> u32,
        turn: impl FnOnce() -> u32,
    ) -> Choice {
        if self.is_sticky(key) {
            return Choice::Sticky;
        }
        let partition = match self.kind {
            PartitionerKind::RoundRobin => cluster.spread(turn().into()),
            PartitionerKind::Random => cluster.spread(random().into()),
            _ => self.by_key(key.unwrap_or_default(), cluster.partition_count),
        };
        Choice::Partition(partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// librdkafka's table: a kind and the hashes behind the partitions of the keys null, empty,
    /// "23456", a long one, and "hejsan"; none where chance decides.
    const LIBRDKAFKA: &[(PartitionerKind, [Option<u32>; 5])] = &[
        (
            PartitionerKind::Consistent,
            [Some(0), Some(0), Some(0xb1b4_51d7), Some(0xb015_0df7), Some(0xd077_037e)],
        ),
        (
            PartitionerKind::ConsistentRandom,
            [None, None, Some(0xb1b4_51d7), Some(0xb015_0df7), Some(0xd077_037e)],
        ),
        (
            PartitionerKind::Murmur2,
            [
                Some(0x106e_08d9),
                Some(0x106e_08d9),
                Some(0x058d_780f),
                Some(0x4f77_03da),
                Some(0x5ec1_9395),
            ],
        ),
        (
            PartitionerKind::Murmur2Random,
            [None, Some(0x106e_08d9), Some(0x058d_780f), Some(0x4f77_03da), Some(0x5ec1_9395)],
        ),
        (
            PartitionerKind::Fnv1a,
            [
                Some(0x7ee3_623b),
                Some(0x7ee3_623b),
                Some(0x27e6_f469),
                Some(0x155e_3e5f),
                Some(0x17b1_e27a),
            ],
        ),
        (
            PartitionerKind::Fnv1aRandom,
            [None, Some(0x7ee3_623b), Some(0x27e6_f469), Some(0x155e_3e5f), Some(0x17b1_e27a)],
        ),
    ];

    fn choose(rules: &BuiltInRules, key: Option<&[u8]>, view: &ClusterView) -> Choice {
        rules.choose(key, view, || 0, || 0)
    }

    #[test]
    fn keys_go_where_librdkafka_sends_them() {
        let long = "this is another string with more length to it perhaps";
        let keys: [Option<&[u8]>; 5] =
            [None, Some(b""), Some(b"23456"), Some(long.as_bytes()), Some(b"hejsan")];
        for (kind, hashes) in LIBRDKAFKA {
            let rules = BuiltInRules::new(*kind, false);
            for (key, hash) in keys.iter().zip(hashes) {
                let chosen = choose(&rules, *key, &ClusterView::new(17, &[]));
                let expected = hash.map_or(Choice::Sticky, |h| Choice::Partition((h % 17) as i32));
                assert_eq!(chosen, expected, "{kind:?} {key:?}");
            }
        }
    }

    /// PART-07, PART-15: a key's partition may have no leader; with `partitioner.ignore.keys` a key
    /// changes nothing.
    #[test]
    fn the_default_hashes_keys_as_java_does_and_null_keys_stick() {
        let view = ClusterView::new(7, &[3]);
        let rules = BuiltInRules::new(PartitionerKind::Default, false);
        assert_eq!(choose(&rules, None, &view), Choice::Sticky);
        for key in ["", "foobar", "schlüssel", "ключ"].map(str::as_bytes) {
            let expected = Choice::Partition(murmur2_partition(key, 7));
            assert_eq!(choose(&rules, Some(key), &view), expected);
        }
        let ignoring = BuiltInRules::new(PartitionerKind::Default, true);
        assert_eq!(choose(&ignoring, Some(b"foobar"), &view), Choice::Sticky);
    }

    /// PART-11: only partitions with a leader, if there are any, and evenly.
    #[test]
    fn round_robin_takes_available_partitions_in_turn() {
        let rules = BuiltInRules::new(PartitionerKind::RoundRobin, false);
        let view = ClusterView::new(3, &[0, 2]);
        let mut hits = [0; 3];
        for i in 0..100 {
            let key: Option<&[u8]> = (i % 3 == 0).then_some(b"key");
            let Choice::Partition(p) = rules.choose(key, &view, || 0, || i) else { panic!() };
            hits[p as usize] += 1;
        }
        assert_eq!(hits, [50, 0, 50]);
        let nobody = ClusterView::new(2, &[]);
        let turns = [0, 1, 0].map(Choice::Partition);
        assert_eq!(turns, [0, 1, 2].map(|i| rules.choose(None, &nobody, || 0, || i)));
    }

    #[test]
    fn random_spreads_over_available_partitions_whatever_the_key() {
        let rules = BuiltInRules::new(PartitionerKind::Random, false);
        let view = ClusterView::new(9, &[4, 6]);
        let chosen = |n| rules.choose(Some(b"k"), &view, || n, || 0);
        assert_eq!([0, 1, u32::MAX].map(chosen), [4, 6, 6].map(Choice::Partition));
    }

    #[test]
    fn a_users_rule_fails_only_with_a_typed_error() {
        let view = ClusterView::new(3, &[]);
        let input = PartitionInput::new("t", None, None);
        let rule = |result: fn() -> Result<i32, PartitionError>| {
            ask(&move |_: &PartitionInput<'_>, _: &ClusterView<'_>| result(), &input, &view)
        };
        assert_eq!(rule(|| Ok(2)).unwrap(), 2);
        for wrong in [rule(|| Ok(3)), rule(|| Ok(-1)), rule(|| Err("no luck".into()))] {
            assert!(matches!(wrong, Err(Error::InvalidRecord(_))), "{wrong:?}");
        }
    }
}
