//! What the table says of one key: its type, default, allowed values and whether it is supported.

use std::fmt;

/// One configuration key: an entry of [`ProducerConfig::keys`](super::ProducerConfig::keys).
#[derive(Debug)]
pub struct ConfigKey {
    name: &'static str,
    value_type: ValueType,
    default: Option<&'static str>,
    required: bool,
    allowed: Allowed,
    importance: Importance,
    support: Support,
    doc: &'static str,
}

/// The type of a key's value, by Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueType {
    /// `true` or `false`.
    Boolean,
    /// A whole number of 16 bits.
    Short,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Long,
    /// A decimal number.
    Double,
    /// Text.
    String,
    /// Texts with commas between them.
    List,
    /// The name of a Java class, or what stands for one here.
    Class,
    /// A secret text: never shown.
    Password,
}

/// How much a key matters, as Kafka's documentation grades it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// Think of it in each installation.
    High,
    /// Worth knowing.
    Medium,
    /// The default will do.
    Low,
}

/// What this crate does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Support {
    /// It has Kafka's effect.
    Supported,
    /// Kafka has it, this version has not: only values that change nothing are accepted.
    NotYet {
        /// What is missing.
        why: &'static str,
        /// Values beside the default that describe what this crate does anyway.
        harmless: &'static [&'static str],
    },
    /// It can have no meaning outside a JVM: no value is accepted.
    Meaningless {
        /// Why, and what to use instead.
        why: &'static str,
    },
}

/// Which values of its type a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Allowed {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    BetweenOr(i64, i64, i64),
    Within(f64, f64),
    OneOf(&'static [&'static str]),
    OneOfAnyCase(&'static [&'static str]),
    NonEmpty,
}

/// The start of a table entry: a supported key that takes any value of its type.
pub(super) const fn key(
    name: &'static str,
    value_type: ValueType,
    default: Option<&'static str>,
    importance: Importance,
    doc: &'static str,
) -> ConfigKey {
    ConfigKey {
        name,
        value_type,
        default,
        required: false,
        allowed: Allowed::Any,
        importance,
        support: Support::Supported,
        doc,
    }
}

/// The table's vocabulary.
impl ConfigKey {
    pub(super) const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub(super) const fn at_least(self, least: i64) -> Self {
        self.allowed(Allowed::AtLeast(least))
    }

    pub(super) const fn between(self, least: i64, most: i64) -> Self {
        self.allowed(Allowed::Between(least, most))
    }

    pub(super) const fn one_of(self, values: &'static [&'static str]) -> Self {
        self.allowed(Allowed::OneOf(values))
    }

    pub(super) const fn allowed(mut self, allowed: Allowed) -> Self {
        self.allowed = allowed;
        self
    }

    pub(super) const fn not_yet(self, why: &'static str) -> Self {
        self.not_yet_but(why, &[])
    }

    pub(super) const fn not_yet_but(
        mut self,
        why: &'static str,
        harmless: &'static [&'static str],
    ) -> Self {
        self.support = Support::NotYet { why, harmless };
        self
    }

    pub(super) const fn meaningless(mut self, why: &'static str) -> Self {
        self.support = Support::Meaningless { why };
        self
    }

    pub(super) fn range(&self) -> Allowed {
        self.allowed
    }
}

impl ConfigKey {
    /// The key, as Kafka writes it: `linger.ms`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The type of its value.
    pub fn value_type(&self) -> ValueType {
        self.value_type
    }

    /// The value if none is given; `None` is Java's `null`, or no default at all.
    pub fn default_value(&self) -> Option<&'static str> {
        self.default
    }

    /// Whether a value must be given.
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// How much it matters.
    pub fn importance(&self) -> Importance {
        self.importance
    }

    /// What this crate does with it.
    pub fn support(&self) -> Support {
        self.support
    }

    /// Its effect, in a paragraph.
    pub fn doc(&self) -> &'static str {
        self.doc
    }

    /// The type and the allowed values in words: `an int, at least 0`.
    pub fn allowed_values(&self) -> String {
        match self.allowed {
            Allowed::Any => self.value_type.to_string(),
            range => format!("{}, {range}", self.value_type),
        }
    }

    pub(super) fn is_secret(&self) -> bool {
        self.value_type == ValueType::Password
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "a boolean (true or false)",
            Self::Short => "a short (whole number of 16 bits)",
            Self::Int => "an int (whole number of 32 bits)",
            Self::Long => "a long (whole number of 64 bits)",
            Self::Double => "a double (decimal number)",
            Self::String => "a string",
            Self::List => "a list (commas between items)",
            Self::Class => "a class name",
            Self::Password => "a password",
        })
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::Between(least, most) => write!(f, "{least} to {most}"),
            Self::BetweenOr(least, most, or) => write!(f, "{least} to {most} or {or}"),
            Self::Within(least, most) => write!(f, "{least:?} to {most:?}"),
            Self::OneOf(values) => write!(f, "one of {}", values.join(", ")),
            Self::OneOfAnyCase(values) => {
                write!(f, "one of {} in any case", values.join(", "))
            }
            Self::NonEmpty => f.write_str("not empty"),
        }
    }
}
