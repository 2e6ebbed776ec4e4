//! Lines into records, by the rules of Kafka's `LineMessageReader`.
//!
//! Two deviations: bytes that are no UTF-8 are kept as they are in keys and values, and
//! `headers.separator` is plain text, not a regular expression.

use std::borrow::Cow;
use std::io::{self, BufRead};

/// How a line is taken apart.
pub struct LineFormat {
    parse_key: bool,
    key_separator: Vec<u8>,
    parse_headers: bool,
    /// Between the headers and what follows.
    headers_delimiter: Vec<u8>,
    /// Between two headers.
    headers_separator: Vec<u8>,
    /// Between a header's name and its value.
    headers_key_separator: Vec<u8>,
    /// Whether a line that lacks a separator is taken as it is.
    ignore_error: bool,
    /// What stands for null.
    null_marker: Option<Vec<u8>>,
}

/// A record's parts, borrowed from its line.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<Header<'a>>,
}

/// A name and a value; `None` is null.
type Header<'a> = (Cow<'a, str>, Option<&'a [u8]>);

impl LineFormat {
    /// Reads the reader's properties; the later of two for one key counts.
    ///
    /// # Errors
    /// In words, if a key is unknown, or two separators are the same.
    pub fn new(properties: &[(&str, &str)]) -> Result<Self, String> {
        let mut format = Self {
            parse_key: false,
            key_separator: b"\t".into(),
            parse_headers: false,
            headers_delimiter: b"\t".into(),
            headers_separator: b",".into(),
            headers_key_separator: b":".into(),
            ignore_error: false,
            null_marker: None,
        };
        for (key, value) in properties {
            let yes = value.trim().eq_ignore_ascii_case("true");
            let bytes = value.as_bytes().to_vec();
            match *key {
                "parse.key" => format.parse_key = yes,
                "key.separator" => format.key_separator = bytes,
                "parse.headers" => format.parse_headers = yes,
                "headers.delimiter" => format.headers_delimiter = bytes,
                "headers.separator" => format.headers_separator = bytes,
                "headers.key.separator" => format.headers_key_separator = bytes,
                "ignore.error" => format.ignore_error = yes,
                "null.marker" => format.null_marker = Some(bytes),
                _ => return Err(format!("the reader has no property {key:?}")),
            }
        }
        format.check()?;
        Ok(format)
    }

    fn check(&self) -> Result<(), String> {
        let named = [
            ("headers.delimiter", &self.headers_delimiter),
            ("headers.separator", &self.headers_separator),
            ("headers.key.separator", &self.headers_key_separator),
        ];
        for (i, (name, text)) in named.iter().enumerate() {
            if let Some((other, _)) = named[i + 1..].iter().find(|(_, other)| other == text) {
                return Err(format!("{name} and {other} may not be equal"));
            }
        }
        let key_separator = ("key.separator", &self.key_separator);
        for (name, text) in named.into_iter().chain([key_separator]) {
            if text.is_empty() {
                return Err(format!("{name} must not be empty"));
            }
            if self.null_marker.as_ref() == Some(text) {
                return Err(format!("null.marker and {name} may not be equal"));
            }
        }
        Ok(())
    }

    /// Takes a line apart.
    ///
    /// # Errors
    /// In words, if a separator is missing and `ignore.error` isn't set.
    pub fn parse<'a>(&self, line: &'a [u8]) -> Result<Line<'a>, String> {
        let (headers, rest) =
            self.before(self.parse_headers, line, &self.headers_delimiter, "headers delimiter")?;
        let (key, value) =
            self.before(self.parse_key, rest, &self.key_separator, "key separator")?;
        let headers = match headers.and_then(|headers| self.unless_null(headers)) {
            Some(headers) => self.headers(headers)?,
            None => Vec::new(),
        };
        let key = key.and_then(|key| self.unless_null(key));
        Ok(Line { key, value: self.unless_null(value), headers })
    }

    /// What is before a separator, if one is looked for, and what is after it.
    fn before<'a>(
        &self,
        wanted: bool,
        text: &'a [u8],
        separator: &[u8],
        name: &str,
    ) -> Result<(Option<&'a [u8]>, &'a [u8]), String> {
        if !wanted {
            return Ok((None, text));
        }
        match split_once(text, separator) {
            Some((before, after)) => Ok((Some(before), after)),
            None if self.ignore_error => Ok((None, text)),
            None => Err(format!("there is no {name}")),
        }
    }

    fn headers<'a>(&self, text: &'a [u8]) -> Result<Vec<Header<'a>>, String> {
        let mut pairs = Vec::new();
        let mut rest = text;
        while let Some((pair, after)) = split_once(rest, &self.headers_separator) {
            pairs.push(pair);
            rest = after;
        }
        pairs.push(rest);
        // As in Java: empty pairs at the end are none, unless nothing was split.
        while pairs.len() > 1 && pairs.last().is_some_and(|pair| pair.is_empty()) {
            pairs.pop();
        }
        if pairs.len() == 1 && pairs[0].is_empty() && !text.is_empty() {
            pairs.pop();
        }
        pairs.into_iter().map(|pair| self.header(pair)).collect()
    }

    fn header<'a>(&self, pair: &'a [u8]) -> Result<Header<'a>, String> {
        let (name, value) = match split_once(pair, &self.headers_key_separator) {
            Some((name, value)) => (name, self.unless_null(value)),
            None if self.ignore_error => return Ok((String::from_utf8_lossy(pair), None)),
            None => {
                let pair = String::from_utf8_lossy(pair);
                return Err(format!("there is no header key separator in {pair:?}"));
            }
        };
        if self.null_marker.as_deref() == Some(name) {
            return Err("a header's name can't be null, and is the null marker".to_owned());
        }
        Ok((String::from_utf8_lossy(name), value))
    }

    fn unless_null<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        Some(text).filter(|text| self.null_marker.as_deref() != Some(text))
    }
}

/// `separator` is not empty.
fn split_once<'a>(text: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(separator.len()).position(|part| part == separator)?;
    Some((&text[..at], &text[at + separator.len()..]))
}

/// Reads a line into `line`, without its end: `\n`, `\r` or `\r\n`. Gives whether there was one.
pub fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut began = false;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(began);
        }
        began = true;
        let Some(end) = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            line.extend_from_slice(buffer);
            let read = buffer.len();
            input.consume(read);
            continue;
        };
        line.extend_from_slice(&buffer[..end]);
        let is_return = buffer[end] == b'\r';
        input.consume(end + 1);
        if is_return && input.fill_buf()?.first() == Some(&b'\n') {
            input.consume(1);
        }
        return Ok(true);
    }
}
