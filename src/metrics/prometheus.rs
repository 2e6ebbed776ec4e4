//! The text that Prometheus reads, version 0.0.4: for each name what it means, how it moves, and
//! its values.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::catalogue::{Metric, MetricKind, NODE_GROUP, TOPIC_GROUP};
use super::snapshot::Metrics;

impl Metrics {
    /// All metrics in Prometheus' text format, to be served as `text/plain; version=0.0.4`.
    ///
    /// Names begin with `kafka_producer_`, and go on with `node_` for those of brokers and with
    /// `topic_` for those of topics: `kafka_producer_topic_record_send_total{client_id="orders",
    /// topic="paid"} 7`. For several producers in one page see
    /// [`prometheus_text`].
    pub fn to_prometheus(&self) -> String {
        prometheus_text([self])
    }
}

/// The metrics of several producers as one page; see [`Metrics::to_prometheus`]. Their `client_id`
/// tells them apart.
pub fn prometheus_text<'a>(snapshots: impl IntoIterator<Item = &'a Metrics>) -> String {
    // A name's values stand together, in the order in which names first come.
    let mut places = BTreeMap::new();
    let mut families: Vec<Vec<Metric<'_>>> = Vec::new();
    for metric in snapshots.into_iter().flat_map(Metrics::iter) {
        let place = *places.entry((metric.group, metric.name)).or_insert(families.len());
        match families.get_mut(place) {
            Some(family) => family.push(metric),
            None => families.push(vec![metric]),
        }
    }
    let mut text = String::new();
    for family in &families {
        let written = write_family(&mut text, family);
        debug_assert!(written.is_ok(), "a string takes all that is written");
    }
    text
}

fn write_family(text: &mut String, family: &[Metric<'_>]) -> fmt::Result {
    let Some(first) = family.first() else { return Ok(()) };
    let of = match first.group {
        NODE_GROUP => "node_",
        TOPIC_GROUP => "topic_",
        _ => "",
    };
    let name = format!("kafka_producer_{of}{}", first.name.replace('-', "_"));
    let help = first.description.replace('\\', "\\\\").replace('\n', "\\n");
    let kind = match first.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
    };
    writeln!(text, "# HELP {name} {help}")?;
    writeln!(text, "# TYPE {name} {kind}")?;
    for metric in family {
        text.push_str(&name);
        for (index, (tag, value)) in metric.tags.iter().enumerate() {
            text.push(if index == 0 { '{' } else { ',' });
            write!(text, "{}=\"", tag.replace('-', "_"))?;
            for c in value.chars() {
                match c {
                    '\\' | '"' => text.extend(['\\', c]),
                    '\n' => text.push_str("\\n"),
                    c => text.push(c),
                }
            }
            text.push('"');
        }
        writeln!(text, "}} {}", metric.value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::figures::Meter;
    use super::super::snapshot::TopicMetrics;
    use super::*;

    fn snapshot(client_id: &str, topic: &str, total: u64) -> Metrics {
        let record_send = Meter { rate: 0.5, total };
        let topic = TopicMetrics { name: topic.into(), record_send, ..TopicMetrics::default() };
        Metrics { client_id: client_id.into(), topics: vec![topic], ..Metrics::default() }
    }

    #[test]
    fn each_name_is_told_once_with_its_meaning_its_type_and_all_its_values() {
        let text = prometheus_text([&snapshot("a", "t", 3), &snapshot("b", "t", 4)]);
        let expected = "\
# HELP kafka_producer_topic_record_send_total Records sent; those sent again count again.
# TYPE kafka_producer_topic_record_send_total counter
kafka_producer_topic_record_send_total{client_id=\"a\",topic=\"t\"} 3
kafka_producer_topic_record_send_total{client_id=\"b\",topic=\"t\"} 4
";
        assert!(text.contains(expected), "{text}");
        assert!(
            text.contains("topic_record_send_rate{client_id=\"a\",topic=\"t\"} 0.5\n"),
            "{text}"
        );
        assert!(text.contains("# TYPE kafka_producer_record_size_avg gauge\n"), "{text}");
        assert!(text.contains("kafka_producer_record_size_avg{client_id=\"a\"} NaN\n"), "{text}");
    }

    /// The format's grammar, as far as this crate uses it.
    #[test]
    fn every_line_is_of_the_format() {
        let text = snapshot("c", "t", 1).to_prometheus();
        let is_name = |name: &str| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
        };
        let mut family = "";
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, about) = help.split_once(' ').unwrap();
                assert!(is_name(name) && about.ends_with('.'), "{line}");
                assert!(seen.insert(name), "twice: {line}");
                family = name;
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let counts = family.ends_with("_total");
                let kind_of = format!("{family} {}", if counts { "counter" } else { "gauge" });
                assert_eq!(kind, kind_of);
            } else {
                let (name, rest) = line.split_once('{').unwrap();
                assert_eq!(name, family, "{line}");
                let (tags, value) = rest.rsplit_once("} ").unwrap();
                assert!(tags.starts_with("client_id=\"c\""), "{line}");
                value.parse::<f64>().unwrap();
            }
        }
        assert!(seen.len() > 80, "only {}", seen.len());
    }

    #[test]
    fn names_of_others_are_escaped() {
        let text = snapshot("a\"b\\c\nd", "t", 1).to_prometheus();
        assert!(text.contains("{client_id=\"a\\\"b\\\\c\\nd\",topic=\"t\"}"), "{text}");
    }
}
