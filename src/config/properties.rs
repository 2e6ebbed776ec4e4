//! The text of a Java `.properties` file: comments, separators, continued lines, escapes.
//!
//! Errors name the line and show nothing of it: it may hold a secret.

use crate::error::Error;

/// The keys and values in the text's order.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, Error> {
    logical_lines(text)
        .into_iter()
        .map(|line| {
            let number = line.number;
            entry(&line.text)
                .map_err(|why| Error::Config(format!("properties, line {number}: {why}").into()))
        })
        .collect()
}

/// A line with those that continue it, escapes still in place.
struct LogicalLine {
    /// Of its first part, from 1.
    number: usize,
    text: String,
}

fn logical_lines(text: &str) -> Vec<LogicalLine> {
    let mut lines: Vec<LogicalLine> = Vec::new();
    let mut continued = false;
    for (i, part) in natural_lines(text).enumerate() {
        let part = part.trim_start_matches(is_blank);
        if !continued {
            if part.is_empty() || part.starts_with(['#', '!']) {
                continue;
            }
            lines.push(LogicalLine { number: i + 1, text: String::new() });
        }
        let backslashes = part.bytes().rev().take_while(|b| *b == b'\\').count();
        continued = backslashes % 2 == 1;
        if let Some(line) = lines.last_mut() {
            line.text.push_str(if continued { &part[..part.len() - 1] } else { part });
        }
    }
    lines
}

/// Lines end at `\n`, `\r` or `\r\n`.
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

/// The key ends at the first `=`, `:` or blank that no backslash escapes; one `=` or `:`, with
/// blanks around it, is no part of the value.
fn entry(line: &str) -> Result<(String, String), String> {
    let mut escaped = false;
    let ends_key = |c: char| {
        let ends = !escaped && (is_blank(c) || matches!(c, '=' | ':'));
        escaped = c == '\\' && !escaped;
        ends
    };
    let (key, rest) = line.split_at(line.find(ends_key).unwrap_or(line.len()));
    let rest = rest.trim_start_matches(is_blank);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_blank);
    if key.is_empty() {
        return Err("there is no key before the separator".to_owned());
    }
    Ok((unescape(key)?, unescape(value)?))
}

/// `\t \n \r \f` and `\uxxxx` as in Java; a backslash before anything else is dropped.
fn unescape(text: &str) -> Result<String, String> {
    // UTF-16, so that two escapes can make one character.
    let mut units = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let plain = match c {
            '\\' => match chars.next() {
                Some('u') => {
                    units.push(code_unit(&mut chars)?);
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\x0c',
                Some(other) => other,
                None => continue,
            },
            c => c,
        };
        units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16(&units)
        .map_err(|_| r"half of a surrogate pair (\uD800 to \uDFFF)".to_owned())
}

/// The four hexadecimal digits after `\u`.
fn code_unit(chars: &mut std::str::Chars<'_>) -> Result<u16, String> {
    let malformed = || r"malformed \uxxxx: it takes four hexadecimal digits".to_owned();
    (0..4).try_fold(0, |unit, _| {
        let digit = chars.next().and_then(|c| c.to_digit(16)).ok_or_else(malformed)?;
        // A hexadecimal digit fits.
        Ok(unit << 4 | digit as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = entries(text);
        assert_eq!(all.len(), 1, "{text:?}");
        all.remove(0)
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn separators_are_equals_colon_or_blank() {
        for text in ["a=b", "a:b", "a b", "a = b", "a\t:\x0cb", "  a  b", "a =b\r\n", "\n\na=b\r"] {
            assert_eq!(one(text), pair("a", "b"), "{text:?}");
        }
        assert_eq!(one("a==b"), pair("a", "=b"));
        assert_eq!(one("a b=c"), pair("a", "b=c"));
        assert_eq!(one("a"), pair("a", ""));
        assert_eq!(one("a=b  "), pair("a", "b  "));
        assert_eq!(one("bootstrap.servers=h1:1,h2:2"), pair("bootstrap.servers", "h1:1,h2:2"));
    }

    #[test]
    fn comments_and_blank_lines_are_skipped() {
        assert_eq!(one("# x=1\n  ! y=2\n \t\na=b\n#end"), pair("a", "b"));
        assert_eq!(one("# not continued \\\na=b#c"), pair("a", "b#c"));
        assert_eq!(entries(""), []);
    }

    #[test]
    fn a_backslash_continues_the_line() {
        assert_eq!(one("a=b,\\\n   c,\\\r\n\td"), pair("a", "b,c,d"));
        assert_eq!(one("a=b\\\n#c"), pair("a", "b#c"));
        assert_eq!(one("a=b\\\\"), pair("a", "b\\"));
        assert_eq!(entries("a=b\\\\\nc=d"), [pair("a", "b\\"), pair("c", "d")]);
        assert_eq!(entries("a=b\\\n\nc=d"), [pair("a", "b"), pair("c", "d")]);
        assert_eq!(one("a=b\\"), pair("a", "b"));
    }

    #[test]
    fn escapes_are_javas() {
        assert_eq!(one(r"a\=b\:c\ d=e"), pair("a=b:c d", "e"));
        assert_eq!(one(r"a=\t\n\r\f\q\'"), pair("a", "\t\n\r\x0cq'"));
        assert_eq!(one(r"\u0061=\u00e9\u00E9é"), pair("a", "ééé"));
        assert_eq!(one(r"a=\uD83D\uDE00"), pair("a", "😀"));
        assert_eq!(one(r"a=\\u0041"), pair("a", r"\u0041"));
    }

    #[test]
    fn malformed_text_names_its_line_and_shows_nothing_of_it() {
        for (text, line, why) in [
            ("a=b\n\nsecret=\\u00g1", 3, "malformed"),
            ("a=b\\\nc\\u12", 1, "malformed"),
            ("a=\\u", 1, "malformed"),
            ("a=\\uD83D secret", 1, "surrogate"),
            ("#\n=secret", 2, "no key"),
            (": secret", 1, "no key"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("line {line}:")), "{error}");
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
    }
}
