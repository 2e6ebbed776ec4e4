//! The examples' own rules: how lines become records, how options are read.

use std::io::BufReader;

#[path = "../examples/console_producer/line_reader.rs"]
mod line_reader;
#[path = "../examples/support/options.rs"]
#[allow(dead_code, reason = "the examples use the rest")]
mod options;

use line_reader::{Line, LineFormat, read_line};
use options::{Args, Spec, flag, one, optional, some};

fn format(properties: &[(&str, &str)]) -> LineFormat {
    LineFormat::new(properties).unwrap()
}

fn error_of(properties: &[(&str, &str)], line: &str) -> String {
    format(properties).parse(line.as_bytes()).unwrap_err()
}

/// The parts as text; `None` is null.
type Parts<'a> = (Option<&'a str>, Option<&'a str>, &'a [(&'a str, Option<&'a str>)]);

fn assert_parts(properties: &[(&str, &str)], line: &str, (key, value, headers): Parts<'_>) {
    let expected = Line {
        key: key.map(str::as_bytes),
        value: value.map(str::as_bytes),
        headers: headers.iter().map(|(n, v)| ((*n).into(), v.map(str::as_bytes))).collect(),
    };
    assert_eq!(format(properties).parse(line.as_bytes()).unwrap(), expected, "{line:?}");
}

const KEY: (&str, &str) = ("parse.key", "true");
const HEADERS: (&str, &str) = ("parse.headers", " TRUE ");
const NULL: (&str, &str) = ("null.marker", "NULL");
const IGNORE: (&str, &str) = ("ignore.error", "true");

#[test]
fn a_line_is_a_value_unless_more_is_asked_for() {
    assert_parts(&[], "a\tb:c", (None, Some("a\tb:c"), &[]));
    assert_parts(&[], "", (None, Some(""), &[]));
    assert_parts(&[("parse.key", "yes")], "a\tb", (None, Some("a\tb"), &[]));
}

#[test]
fn headers_come_first_then_the_key_then_the_value() {
    assert_parts(&[KEY], "k\tv\tw", (Some("k"), Some("v\tw"), &[]));
    let headers = &[("h", Some("1")), ("i", Some("2:3")), ("h", Some(""))];
    assert_parts(&[HEADERS], "h:1,i:2:3,h:\tv", (None, Some("v"), headers));
    assert_parts(&[HEADERS, KEY], "h:1\tk\tv", (Some("k"), Some("v"), &headers[..1]));
    let own = [
        HEADERS,
        KEY,
        ("headers.delimiter", "!"),
        ("headers.separator", "&&"),
        ("headers.key.separator", "->"),
        ("key.separator", "#"),
    ];
    let headers = &[("a", Some("1")), ("b", Some("2"))];
    assert_parts(&own, "a->1&&b->2!k#v", (Some("k"), Some("v"), headers));
    assert_parts(&own, "a->1&&!#", (Some(""), Some(""), &headers[..1]));
}

#[test]
fn empty_headers_at_the_end_are_none() {
    assert_parts(&[HEADERS], "a:1,,\tv", (None, Some("v"), &[("a", Some("1"))]));
    assert_parts(&[HEADERS], ",\tv", (None, Some("v"), &[]));
    assert!(error_of(&[HEADERS], ",a:1\tv").contains("header key separator"));
    assert!(error_of(&[HEADERS], "\tv").contains("header key separator"));
}

#[test]
fn the_null_marker_is_null_and_nothing_is_empty() {
    assert_parts(&[KEY, NULL], "NULL\tNULL", (None, None, &[]));
    assert_parts(&[KEY, NULL], "\tNULLS", (Some(""), Some("NULLS"), &[]));
    assert_parts(&[HEADERS, NULL], "h:NULL\tv", (None, Some("v"), &[("h", None)]));
    assert_parts(&[HEADERS, NULL], "NULL\tv", (None, Some("v"), &[]));
    assert_parts(&[("null.marker", "")], "", (None, None, &[]));
    assert!(error_of(&[HEADERS, NULL], "NULL:1\tv").contains("null"));
}

#[test]
fn a_missing_separator_is_an_error_or_is_ignored() {
    assert!(error_of(&[KEY], "v").contains("key separator"));
    assert!(error_of(&[HEADERS], "a:1").contains("headers delimiter"));
    assert!(error_of(&[HEADERS], "a\tv").contains("header key separator"));
    assert_parts(&[KEY, IGNORE], "v", (None, Some("v"), &[]));
    assert_parts(&[HEADERS, KEY, IGNORE], "a\tk\tv", (Some("k"), Some("v"), &[("a", None)]));
    assert_parts(&[HEADERS, KEY, IGNORE], "a:1\tv", (None, Some("v"), &[("a", Some("1"))]));
}

#[test]
fn separators_that_cannot_be_told_apart_are_refused() {
    for (key, value, why) in [
        ("headers.delimiter", ",", "headers.separator"),
        ("headers.delimiter", ":", "headers.key.separator"),
        ("headers.separator", ":", "headers.key.separator"),
        ("null.marker", "\t", "headers.delimiter"),
        ("null.marker", ":", "headers.key.separator"),
        ("key.separator", "", "empty"),
        ("parse.keys", "true", "parse.keys"),
    ] {
        let error = LineFormat::new(&[(key, value)]).err().unwrap();
        assert!(error.contains(why), "{key}={value}: {error}");
    }
}

#[test]
fn lines_end_as_java_has_them() {
    for capacity in [1, 2, 100] {
        let mut input = BufReader::with_capacity(capacity, &b"a\nb\r\n\rc\r\xff"[..]);
        let (mut lines, mut line) = (Vec::new(), Vec::new());
        while read_line(&mut input, &mut line).unwrap() {
            lines.push(line.clone());
        }
        assert_eq!(lines, [&b"a"[..], b"b", b"", b"c", b"\xff"], "{capacity} bytes at a time");
    }
}

static SPEC: Spec = Spec {
    about: "Does things.",
    options: &[
        one(&["--topic"], "NAME", "where to"),
        one(&["--rate"], "N", "how fast").default("-1"),
        some(&["--property", "--props"], "K=V", "how"),
        flag(&["--sync"], "one by one"),
        optional(&["--codec"], "NAME", "gzip", "how small"),
    ],
};

fn parse(line: &str) -> Result<Option<Args>, options::Usage> {
    SPEC.parse(line.split_whitespace().map(str::to_owned))
}

#[test]
fn options_are_found_with_their_values() {
    let args = parse("--topic=a --topic b --props a=1 b=2=3 --sync --property c= --codec").unwrap();
    let args = args.unwrap();
    assert_eq!((args.value("--topic"), args.value("--rate")), (Some("b"), Some("-1")));
    assert_eq!(args.given("--rate"), None);
    assert_eq!(args.number("--rate", -1..=9).unwrap(), -1);
    assert!(args.flag("--sync"));
    assert_eq!(args.value("--codec"), Some("gzip"));
    assert_eq!(args.pairs("--property").unwrap(), [("a", "1"), ("b", "2=3"), ("c", "")]);
    assert_eq!(parse("--rate -1 --codec none").unwrap().unwrap().value("--codec"), Some("none"));
}

#[test]
fn a_wrong_command_line_is_told_what_is_wrong() {
    for (line, why) in [
        ("--topic", "--topic NAME"),
        ("--topic --sync", "--topic NAME"),
        ("--sync=1", "--sync takes no value"),
        ("--topics a", "--topic meant"),
        ("stray", "\"stray\" stands alone"),
        ("-x", "no option \"-x\""),
        ("--props", "--props K=V"),
    ] {
        let error = parse(line).err().unwrap().to_string();
        assert!(error.contains(why), "{line}: {error}");
    }
    let args = parse("--rate 11 --property a").unwrap().unwrap();
    let error = args.number("--rate", 0..=10).unwrap_err().to_string();
    assert!(error.contains("--rate") && error.contains("0 to 10"), "{error}");
    assert!(args.pairs("--property").unwrap_err().to_string().contains("key=value"));
    assert!(args.required("--topic").unwrap_err().to_string().contains("--topic is required"));
}

#[test]
fn help_tells_of_each_option() {
    assert!(parse("--topic a --help --nonsense").unwrap().is_none());
    let help = SPEC.help();
    for part in ["Does things.", "--topic <NAME>", "--property, --props <K=V>...", "[default: -1]"]
    {
        assert!(help.contains(part), "{part} is missing in {help}");
    }
}
