//! What an unknown key was probably meant to be.

use super::keys;

/// librdkafka's names of things that Kafka's Java client calls otherwise.
const LIBRDKAFKA: &[(&str, &str)] = &[
    ("batch.num.messages", "batch.size"),
    ("compression.codec", "compression.type"),
    ("compression.level", "compression.gzip.level"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("message.max.bytes", "max.request.size"),
    ("message.send.max.retries", "retries"),
    ("message.timeout.ms", "delivery.timeout.ms"),
    ("metadata.broker.list", "bootstrap.servers"),
    ("partitioner", "partitioner.class"),
    ("queue.buffering.max.kbytes", "buffer.memory"),
    ("queue.buffering.max.messages", "buffer.memory"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("request.required.acks", "acks"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("socket.receive.buffer.bytes", "receive.buffer.bytes"),
    ("socket.send.buffer.bytes", "send.buffer.bytes"),
    ("socket.timeout.ms", "request.timeout.ms"),
    ("topic.metadata.refresh.interval.ms", "metadata.max.age.ms"),
];

/// The text of the error. It has no value: that of a mistyped key may be a secret.
pub(super) fn unknown_key(name: &str) -> String {
    if let Some((_, ours)) = LIBRDKAFKA.iter().find(|(theirs, _)| *theirs == name) {
        return format!("{name}: unknown key; Kafka's Java client has `{ours}` for it");
    }
    let nearest = keys::all().map(|key| key.name()).min_by_key(|known| distance(name, known));
    format!("{name}: unknown key; the nearest known one is `{}`", nearest.unwrap_or_default())
}

/// Levenshtein's distance: how many characters must be put in, left out or replaced.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_single_changes() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn slips_find_their_key() {
        for (slip, meant) in [
            ("linger.mss", "`linger.ms`"),
            ("bootstrap.server", "`bootstrap.servers`"),
            ("Batch.Size", "`batch.size`"),
            ("batch_size", "`batch.size`"),
            ("delivery.timeout", "`delivery.timeout.ms`"),
            ("max.inflight.requests.per.connection", "`max.in.flight.requests.per.connection`"),
            ("metadata.broker.list", "`bootstrap.servers`"),
        ] {
            let text = unknown_key(slip);
            assert!(text.contains(meant), "{text}");
        }
    }

    #[test]
    fn hints_name_known_keys_for_unknown_ones() {
        for (theirs, ours) in LIBRDKAFKA {
            assert!(keys::find(theirs).is_none(), "{theirs}");
            assert!(keys::find(ours).is_some(), "{ours}");
        }
    }
}
