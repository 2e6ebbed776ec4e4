//! A command line read by a table, which is also what `--help` prints.

use std::error::Error;
use std::fmt::{self, Display, Write};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What a program does and the options that it takes.
pub struct Spec {
    pub about: &'static str,
    pub options: &'static [Opt],
}

/// An option: its names (the first is the one to look it up by), its arguments, its meaning.
pub struct Opt {
    names: &'static [&'static str],
    takes: Takes,
    default: Option<&'static str>,
    help: &'static str,
}

/// How many arguments follow an option. Text in angle brackets of `--help`.
enum Takes {
    Nothing,
    One(&'static str),
    /// One or none, which means the given value.
    Optional(&'static str, &'static str),
    /// One or more.
    Some(&'static str),
}

pub const fn flag(names: &'static [&'static str], help: &'static str) -> Opt {
    Opt { names, takes: Takes::Nothing, default: None, help }
}

pub const fn one(names: &'static [&'static str], what: &'static str, help: &'static str) -> Opt {
    Opt { names, takes: Takes::One(what), default: None, help }
}

/// As `one`; it may be given many times, and [`Args::all`] gives them all.
pub const fn many(names: &'static [&'static str], what: &'static str, help: &'static str) -> Opt {
    one(names, what, help)
}

/// Each time it is given, any number of arguments follow, at least one.
pub const fn some(names: &'static [&'static str], what: &'static str, help: &'static str) -> Opt {
    Opt { names, takes: Takes::Some(what), default: None, help }
}

/// With no argument it means `bare`.
pub const fn optional(
    names: &'static [&'static str],
    what: &'static str,
    bare: &'static str,
    help: &'static str,
) -> Opt {
    Opt { names, takes: Takes::Optional(what, bare), default: None, help }
}

impl Opt {
    /// The value if it isn't given.
    pub const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }
}

/// The command line is wrong; the text says how.
#[derive(Debug)]
pub struct Usage(pub String);

impl Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}

/// The options that were given.
pub struct Args {
    spec: &'static Spec,
    /// By first name, in the order given; empty text for a flag.
    given: Vec<(&'static str, String)>,
}

impl Spec {
    /// Reads `--name value` and `--name=value`; `None` if help is asked for.
    pub fn parse(
        &'static self,
        args: impl IntoIterator<Item = String>,
    ) -> Result<Option<Args>, Usage> {
        let mut args = args.into_iter().peekable();
        let mut given = Vec::new();
        while let Some(arg) = args.next() {
            if matches!(&*arg, "--help" | "-h") {
                return Ok(None);
            }
            let (name, mut attached) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (&*arg, None),
            };
            let option = self.find(name)?;
            let mut follow =
                || attached.take().or_else(|| args.next_if(|next| !next.starts_with("--")));
            let missing = |what| Usage(format!("{name} needs a value: {name} {what}"));
            let first = option.names[0];
            match option.takes {
                Takes::Nothing => given.push((first, String::new())),
                Takes::One(what) => given.push((first, follow().ok_or_else(|| missing(what))?)),
                Takes::Optional(_, bare) => given.push((first, follow().unwrap_or(bare.into()))),
                Takes::Some(what) => {
                    given.push((first, follow().ok_or_else(|| missing(what))?));
                    given.extend(std::iter::from_fn(&mut follow).map(|value| (first, value)));
                }
            }
            if attached.is_some() {
                return Err(Usage(format!("{name} takes no value")));
            }
        }
        Ok(Some(Args { spec: self, given }))
    }

    fn find(&self, name: &str) -> Result<&'static Opt, Usage>
    where
        Self: 'static,
    {
        let options: &'static [Opt] = self.options;
        options.iter().find(|option| option.names.contains(&name)).ok_or_else(|| {
            if !name.starts_with('-') {
                return Usage(format!("{name:?} stands alone: all that this takes are options"));
            }
            let all = options.iter().flat_map(|option| option.names);
            let near = all.max_by_key(|known| alike(known, name)).filter(|n| alike(n, name) > 4);
            let near = near.map(|near| format!("; is {near} meant?")).unwrap_or_default();
            Usage(format!("there is no option {name:?}{near}"))
        })
    }

    /// What `--help` prints.
    pub fn help(&self) -> String {
        let mut text =
            format!("{}\n\nOptions, as --name value or --name=value:\n", self.about.trim());
        for option in self.options {
            let names = option.names.join(", ");
            let arguments = match option.takes {
                Takes::Nothing => String::new(),
                Takes::One(what) => format!(" <{what}>"),
                Takes::Optional(what, _) => format!(" [{what}]"),
                Takes::Some(what) => format!(" <{what}>..."),
            };
            // Writing to a string can't fail.
            let _ = writeln!(text, "  {names}{arguments}");
            for line in option.help.lines() {
                let _ = writeln!(text, "      {}", line.trim());
            }
            if let Some(default) = option.default {
                let _ = writeln!(text, "      [default: {default}]");
            }
        }
        text.push_str("  --help\n      prints this\n");
        text
    }
}

/// How many characters two names begin with in common.
fn alike(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

impl Args {
    pub fn flag(&self, name: &'static str) -> bool {
        self.given(name).is_some()
    }

    /// The last value given, or the default.
    pub fn value(&self, name: &'static str) -> Option<&str> {
        let default = || self.spec.options.iter().find(|o| o.names[0] == name)?.default;
        self.given(name).or_else(default)
    }

    /// The last value given.
    pub fn given(&self, name: &'static str) -> Option<&str> {
        self.all(name).next_back()
    }

    /// All values given, in order.
    pub fn all(&self, name: &'static str) -> impl DoubleEndedIterator<Item = &str> {
        debug_assert!(self.spec.options.iter().any(|option| option.names[0] == name), "{name}");
        self.given.iter().filter(move |(given, _)| *given == name).map(|(_, value)| &**value)
    }

    pub fn required(&self, name: &'static str) -> Result<&str, Usage> {
        self.value(name).ok_or_else(|| Usage(format!("{name} is required")))
    }

    /// A number within a range; required, unless the option has a default.
    pub fn number<T>(&self, name: &'static str, range: RangeInclusive<T>) -> Result<T, Usage>
    where
        T: FromStr + PartialOrd + Display,
    {
        let text = self.required(name)?;
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (from, to) = range.into_inner();
            Usage(format!("{name} takes a number from {from} to {to}, and {text:?} is none"))
        })
    }

    /// All values given, each of which is `key=value`.
    pub fn pairs(&self, name: &'static str) -> Result<Vec<(&str, &str)>, Usage> {
        let pair = |text| {
            split_pair(text)
                .ok_or_else(|| Usage(format!("{name} takes key=value, and {text:?} isn't that")))
        };
        self.all(name).map(pair).collect()
    }
}

fn split_pair(text: &str) -> Option<(&str, &str)> {
    text.split_once('=').filter(|(key, _)| !key.is_empty())
}
