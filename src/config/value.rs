//! A setting's value: read from text by the key's type, checked against what the key allows.

use std::fmt;

use super::key::{Allowed, ConfigKey, ValueType};

/// A value of any [`ValueType`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// No value: Java's `null`.
    Null,
    Bool(bool),
    Number(i64),
    Double(f64),
    Text(String),
    List(Vec<String>),
}

impl Value {
    /// The value that a key has if none is given.
    pub(super) fn default_of(key: &ConfigKey) -> Self {
        let parsed = key.default_value().map(|text| Self::read(key, text));
        debug_assert!(parsed.as_ref().is_none_or(Option::is_some), "default of {}", key.name());
        parsed.flatten().unwrap_or(Self::Null)
    }

    /// Reads `text` as the key's type, and checks the key's range.
    ///
    /// The error says what is allowed, and shows no secret.
    pub(super) fn parse(key: &ConfigKey, text: &str) -> Result<Self, String> {
        match Self::read(key, text) {
            Some(value) if value.is_within(key.range()) => Ok(value.in_listed_case(key.range())),
            _ => {
                let shown = if key.is_secret() { "[hidden]" } else { text };
                let allowed = key.allowed_values();
                Err(format!("{}: `{shown}` is not allowed; it must be {allowed}", key.name()))
            }
        }
    }

    fn read(key: &ConfigKey, text: &str) -> Option<Self> {
        let trimmed = text.trim();
        match key.value_type() {
            ValueType::Boolean if trimmed.eq_ignore_ascii_case("true") => Some(Self::Bool(true)),
            ValueType::Boolean if trimmed.eq_ignore_ascii_case("false") => Some(Self::Bool(false)),
            ValueType::Boolean => None,
            ValueType::Short => trimmed.parse::<i16>().ok().map(|n| Self::Number(n.into())),
            ValueType::Int => trimmed.parse::<i32>().ok().map(|n| Self::Number(n.into())),
            ValueType::Long => trimmed.parse().ok().map(Self::Number),
            ValueType::Double => trimmed.parse().ok().map(Self::Double),
            ValueType::String | ValueType::Class => Some(Self::Text(trimmed.to_owned())),
            ValueType::Password => Some(Self::Text(text.to_owned())),
            // An empty item is a comma too many, as at a line's end.
            ValueType::List => {
                let items = trimmed.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(Self::List(items.map(str::to_owned).collect()))
            }
        }
    }

    fn is_within(&self, range: Allowed) -> bool {
        match (self, range) {
            (_, Allowed::Any) => true,
            (Self::Number(n), Allowed::AtLeast(least)) => *n >= least,
            (Self::Number(n), Allowed::Between(least, most)) => (least..=most).contains(n),
            (Self::Number(n), Allowed::BetweenOr(least, most, or)) => {
                *n == or || (least..=most).contains(n)
            }
            (Self::Double(d), Allowed::Within(least, most)) => (least..=most).contains(d),
            (Self::Text(text), Allowed::OneOf(values)) => values.contains(&text.as_str()),
            (Self::Text(text), Allowed::OneOfAnyCase(values)) => {
                values.iter().any(|value| value.eq_ignore_ascii_case(text))
            }
            (Self::Text(text), Allowed::NonEmpty) => !text.is_empty(),
            _ => false,
        }
    }

    /// So that values compare equal whatever the case they were written in.
    fn in_listed_case(self, range: Allowed) -> Self {
        match (&self, range) {
            (Self::Text(text), Allowed::OneOfAnyCase(values)) => {
                let listed = values.iter().find(|value| value.eq_ignore_ascii_case(text));
                listed.map_or(self.clone(), |value| Self::Text((*value).to_owned()))
            }
            _ => self,
        }
    }
}

/// For values that are no secret.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Double(value) => write!(f, "{value:?}"),
            Self::Text(value) => f.write_str(value),
            Self::List(items) => f.write_str(&items.join(",")),
        }
    }
}
