//! The table: every producer key of Kafka 4.3.1 and this crate's own.
//!
//! The order within a subject is that of Kafka's documentation. A key that gains support loses
//! its `not_yet` here and gains a field in `ProducerConfig` and a setter in `ProducerBuilder`.

mod connecting;
mod own;
mod producing;
mod sasl;
mod ssl;

use super::key::ConfigKey;

/// All keys, by subject.
pub(super) fn all() -> impl Iterator<Item = &'static ConfigKey> {
    [producing::KEYS, connecting::KEYS, sasl::KEYS, ssl::KEYS, own::KEYS].into_iter().flatten()
}

/// The entry of a key.
pub(super) fn find(name: &str) -> Option<&'static ConfigKey> {
    all().find(|key| key.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Value;

    /// What Kafka 4.3.1's own `ProducerConfig` says of each key.
    const KAFKA: &str = include_str!("../../../tests/data/kafka-4.3.1-producer-configs.tsv");

    /// Java leaves these unchecked; a negative time would be nonsense here.
    const STRICTER: [&str; 2] =
        ["socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.max.ms"];

    /// Java's way to write a range, in this crate's words.
    fn in_words(valid: &str) -> Option<String> {
        let inner = |text: &str| text.trim_matches(['[', ']']).to_owned();
        if let Some(values) = valid.strip_prefix("(case insensitive) ") {
            return Some(format!("one of {} in any case", inner(values)));
        }
        if valid == "non-empty string" {
            return Some("not empty".to_owned());
        }
        let (range, or) = match valid.split_once(" or ") {
            Some((range, or)) => (range, format!(" or {or}")),
            None => (valid, String::new()),
        };
        let words = match inner(range).split_once(",...") {
            None if valid.is_empty() => return None,
            None => format!("one of {}", inner(range)),
            Some((least, "")) => format!("at least {least}"),
            Some((least, most)) => format!("{least} to {}", most.trim_start_matches(',')),
        };
        Some(words + &or)
    }

    /// CFG-17, CFG-19: the defaults in the table are those of 4.3.1.
    #[test]
    fn the_table_is_that_of_kafka() {
        let mut rows = 0;
        for row in KAFKA.lines().skip(1) {
            let [name, kind, default, valid, importance] = row.split('\t').collect::<Vec<_>>()[..]
            else {
                panic!("{row}")
            };
            let key = find(name).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(format!("{:?}", key.value_type()).to_lowercase(), kind, "{name}");
            assert_eq!(format!("{:?}", key.importance()).to_lowercase(), importance, "{name}");
            assert_eq!(key.is_required(), default == "<required>", "{name}");
            let default = match default {
                "<required>" | "null" => None,
                "\"\"" => Some(""),
                text => Some(text),
            };
            assert_eq!(key.default_value(), default, "{name}");
            if !STRICTER.contains(&name) {
                let type_alone = key.value_type().to_string();
                let expected =
                    in_words(valid).map_or(type_alone.clone(), |w| format!("{type_alone}, {w}"));
                // Listed in another case where case does not matter.
                assert!(key.allowed_values().eq_ignore_ascii_case(&expected), "{name}: {expected}");
            }
            rows += 1;
        }
        let ours = own::KEYS.len();
        assert_eq!(all().count(), rows + ours, "a key is in the table twice, or is not Kafka's");
    }

    #[test]
    fn each_default_is_allowed_and_each_key_is_explained() {
        for key in all() {
            if let Some(text) = key.default_value() {
                let parsed = Value::parse(key, text);
                assert_eq!(parsed, Ok(Value::default_of(key)), "{}", key.name());
            }
            assert!(key.doc().len() > 15 && key.doc().ends_with('.'), "{}", key.name());
        }
    }
}
