//! Settings as given, read against the table: every key has a value afterwards.

use std::collections::{BTreeMap, BTreeSet};

use super::key::{ConfigKey, Support};
use super::value::Value;
use super::{keys, suggest};
use crate::error::Error;

/// Where a value in force comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueOrigin {
    /// Nobody set the key.
    Default,
    /// The user set it.
    Given,
    /// It follows from other settings: idempotence that gave way, a time-out that was raised, a
    /// backoff that was capped.
    Adjusted,
}

/// A value for each key, and which of them the user gave.
#[derive(Debug)]
pub(super) struct Settings {
    values: BTreeMap<&'static str, Value>,
    given: BTreeSet<&'static str>,
    adjusted: BTreeSet<&'static str>,
}

impl Settings {
    /// Reads the entries; of two for the same key the later one counts.
    ///
    /// The error tells all that is wrong with single entries, not the first alone.
    pub(super) fn read(entries: &[(String, String)]) -> Result<Self, Error> {
        let values = keys::all().map(|key| (key.name(), Value::default_of(key))).collect();
        let mut settings = Self { values, given: BTreeSet::new(), adjusted: BTreeSet::new() };
        let last: BTreeMap<&str, &str> =
            entries.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let mut wrong = Vec::new();
        for (&name, &text) in &last {
            match accept(name, text) {
                Ok((key, value)) => {
                    settings.values.insert(key.name(), value);
                    settings.given.insert(key.name());
                }
                Err(text) => wrong.push(text),
            }
        }
        for key in keys::all().filter(|key| key.is_required() && is_supported(key)) {
            if !last.contains_key(key.name()) {
                wrong.push(format!("{}: it must be given and has no default", key.name()));
            }
        }
        if wrong.is_empty() { Ok(settings) } else { Err(Error::Config(wrong.join("; ").into())) }
    }

    /// Whether the user gave the key, be it at its default.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    /// Replaces a value by what follows from others.
    pub(super) fn resolve(&mut self, name: &'static str, value: Value) {
        self.adjusted.insert(name);
        self.respell(name, value);
    }

    /// Replaces a value by one that means the same.
    pub(super) fn respell(&mut self, name: &'static str, value: Value) {
        let old = self.values.insert(name, value);
        debug_assert!(old.is_some(), "{name} is not in the table");
    }

    pub(super) fn number(&self, name: &str) -> i64 {
        match self.values.get(name) {
            Some(Value::Number(n)) => *n,
            other => unexpected(name, other),
        }
    }

    pub(super) fn decimal(&self, name: &str) -> f64 {
        match self.values.get(name) {
            Some(Value::Double(n)) => *n,
            other => unexpected(name, other),
        }
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        match self.values.get(name) {
            Some(Value::Bool(flag)) => *flag,
            other => unexpected(name, other),
        }
    }

    /// The text of a key that has one; `None` for `null`.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some(Value::Text(text)) => Some(text),
            Some(Value::Null) => None,
            other => unexpected(name, other),
        }
    }

    pub(super) fn list(&self, name: &str) -> &[String] {
        match self.values.get(name) {
            Some(Value::List(items)) => items,
            other => unexpected(name, other),
        }
    }

    fn origin(&self, name: &str) -> ValueOrigin {
        match (self.adjusted.contains(name), self.given.contains(name)) {
            (true, _) => ValueOrigin::Adjusted,
            (false, true) => ValueOrigin::Given,
            (false, false) => ValueOrigin::Default,
        }
    }

    /// The supported keys with the values in force and where these come from, in the table's
    /// order; secrets hidden.
    pub(super) fn in_force(&self) -> Vec<(&'static str, String, ValueOrigin)> {
        let shown = |key: &'static ConfigKey| {
            let value = match self.values.get(key.name()) {
                Some(Value::Text(_)) if key.is_secret() => "[hidden]".to_owned(),
                value => value.map_or_else(String::new, Value::to_string),
            };
            (key.name(), value, self.origin(key.name()))
        };
        keys::all().filter(|key| is_supported(key)).map(shown).collect()
    }
}

/// A key read as a type that it has not is a defect of this module: the first test meets it.
fn unexpected<T: Default>(name: &str, value: Option<&Value>) -> T {
    debug_assert!(false, "{name} read as a type that it has not: {value:?}");
    T::default()
}

fn is_supported(key: &ConfigKey) -> bool {
    key.support() == Support::Supported
}

/// One entry: known, of the right type, in range, and supported.
fn accept(name: &str, text: &str) -> Result<(&'static ConfigKey, Value), String> {
    let key = keys::find(name).ok_or_else(|| suggest::unknown_key(name))?;
    if let Support::Meaningless { why } = key.support() {
        return Err(format!("{name}: known to Kafka, but without meaning here: {why}"));
    }
    let value = Value::parse(key, text)?;
    if let Support::NotYet { why, harmless } = key.support() {
        let same = |text: &&str| Value::parse(key, text).as_ref() == Ok(&value);
        if value != Value::default_of(key) && !harmless.iter().any(same) {
            return Err(format!("{name}: known to Kafka, not supported here: {why}"));
        }
    }
    Ok((key, value))
}
