//! The primitive types of the Kafka protocol, and their compact forms in flexible versions.
//!
//! [`Reader`] takes apart bytes from the network: every length is checked against the bytes that
//! are left before anything is allocated. [`Writer`] appends to a `Vec<u8>`. Both know whether the
//! version at hand is flexible (KIP-482), so that an API's file lists its fields once.

use std::fmt;
use std::sync::Arc;

use crate::types::Uuid;

/// Bytes that are not what the protocol says; the connection that they came from is of no more
/// use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// Where, in bytes from the start of the frame's contents.
    pub offset: usize,
}

/// What is wrong with bytes that could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// A field of this many bytes, or an array of this many elements, goes beyond the end.
    Truncated {
        /// Bytes, or at the least one byte an element, that were announced.
        needed: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// A length is negative and does not stand for null.
    NegativeLength(i32),
    /// Null where the protocol allows none.
    UnexpectedNull,
    /// A string is not UTF-8.
    InvalidUtf8,
    /// An unsigned varint has more than 32 bits.
    VarintTooLong,
    /// This many bytes follow where the message should end.
    TrailingBytes(usize),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DecodeErrorKind::Truncated { needed, remaining } => {
                write!(f, "{needed} bytes announced where {remaining} are left")
            }
            DecodeErrorKind::NegativeLength(length) => write!(f, "a length of {length}"),
            DecodeErrorKind::UnexpectedNull => f.write_str("null where a value must be"),
            DecodeErrorKind::InvalidUtf8 => f.write_str("a string that is not UTF-8"),
            DecodeErrorKind::VarintTooLong => f.write_str("a varint of more than 32 bits"),
            DecodeErrorKind::TrailingBytes(count) => write!(f, "{count} bytes too many"),
        }?;
        write!(f, " (at byte {})", self.offset)
    }
}

impl std::error::Error for DecodeError {}

/// The result of reading from the wire.
pub type Decoded<T> = Result<T, DecodeError>;

/// A position in bytes that came from the network.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    /// The next byte; never beyond `bytes.len()`.
    at: usize,
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// Reads from the first byte on, for now as a version that is not flexible.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, flexible: false }
    }

    /// Whether what follows is in compact form with tagged fields.
    pub(super) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Fails if bytes are left: the message should have ended here.
    pub fn expect_end(&self) -> Decoded<()> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.error(DecodeErrorKind::TrailingBytes(left))),
        }
    }

    fn error(&self, kind: DecodeErrorKind) -> DecodeError {
        DecodeError { kind, offset: self.at }
    }

    fn take(&mut self, count: usize) -> Decoded<&'a [u8]> {
        match self.bytes[self.at..].get(..count) {
            Some(taken) => {
                self.at += count;
                Ok(taken)
            }
            None => {
                let remaining = self.remaining();
                Err(self.error(DecodeErrorKind::Truncated { needed: count, remaining }))
            }
        }
    }

    fn fixed<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let mut value = [0; N];
        value.copy_from_slice(self.take(N)?);
        Ok(value)
    }

    /// One byte; anything but zero is true.
    pub fn bool(&mut self) -> Decoded<bool> {
        Ok(self.fixed::<1>()?[0] != 0)
    }

    /// A signed 16-bit number.
    pub fn i16(&mut self) -> Decoded<i16> {
        self.fixed().map(i16::from_be_bytes)
    }

    /// A signed 32-bit number.
    pub fn i32(&mut self) -> Decoded<i32> {
        self.fixed().map(i32::from_be_bytes)
    }

    /// A signed 64-bit number.
    pub fn i64(&mut self) -> Decoded<i64> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// A topic's id.
    pub fn uuid(&mut self) -> Decoded<Uuid> {
        self.fixed().map(Uuid)
    }

    /// An unsigned number of at most 32 bits, seven a byte, the low ones first.
    pub fn unsigned_varint(&mut self) -> Decoded<u32> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.fixed::<1>()?[0];
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.error(DecodeErrorKind::VarintTooLong))
    }

    /// The number of elements or bytes that follow. `None` is null.
    fn length(
        &mut self,
        fixed_width: impl FnOnce(&mut Self) -> Decoded<i32>,
    ) -> Decoded<Option<usize>> {
        if self.flexible {
            return Ok((self.unsigned_varint()? as usize).checked_sub(1));
        }
        match fixed_width(self)? {
            -1 => Ok(None),
            length => match usize::try_from(length) {
                Ok(length) => Ok(Some(length)),
                Err(_) => Err(self.error(DecodeErrorKind::NegativeLength(length))),
            },
        }
    }

    fn not_null<T>(&self, value: Option<T>) -> Decoded<T> {
        value.ok_or_else(|| self.error(DecodeErrorKind::UnexpectedNull))
    }

    /// A string that may be null.
    pub fn nullable_string(&mut self) -> Decoded<Option<&'a str>> {
        let Some(length) = self.length(|r| r.i16().map(i32::from))? else {
            return Ok(None);
        };
        let bytes = self.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(self.error(DecodeErrorKind::InvalidUtf8)),
        }
    }

    /// A string.
    pub fn string(&mut self) -> Decoded<&'a str> {
        let value = self.nullable_string()?;
        self.not_null(value)
    }

    /// A string that is kept, and may be null.
    pub fn nullable_text(&mut self) -> Decoded<Option<Arc<str>>> {
        Ok(self.nullable_string()?.map(Arc::from))
    }

    /// A string that is kept.
    pub fn text(&mut self) -> Decoded<Arc<str>> {
        self.string().map(Arc::from)
    }

    /// Bytes that may be null; records are such bytes too.
    pub fn nullable_bytes(&mut self) -> Decoded<Option<&'a [u8]>> {
        match self.length(Self::i32)? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// An array that may be null.
    pub fn nullable_array<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Decoded<T>,
    ) -> Decoded<Option<Vec<T>>> {
        let Some(length) = self.length(Self::i32)? else {
            return Ok(None);
        };
        let remaining = self.remaining();
        // Each element takes one byte at the least.
        if length > remaining {
            return Err(self.error(DecodeErrorKind::Truncated { needed: length, remaining }));
        }
        // A lying length can't make us reserve more memory than the frame itself holds.
        let mut elements = Vec::with_capacity(length.min(remaining / size_of::<T>().max(1)));
        for _ in 0..length {
            elements.push(element(self)?);
        }
        Ok(Some(elements))
    }

    /// An array.
    pub fn array<T>(&mut self, element: impl FnMut(&mut Self) -> Decoded<T>) -> Decoded<Vec<T>> {
        let elements = self.nullable_array(element)?;
        self.not_null(elements)
    }

    /// The tagged fields at the end of a struct in a flexible version, each handed to `field` with
    /// its tag and a reader of its own bytes; what `field` does not know it leaves alone.
    pub fn tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, &mut Reader<'a>) -> Decoded<()>,
    ) -> Decoded<()> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let start = self.at;
            self.take(size)?;
            let mut contents =
                Reader { bytes: &self.bytes[..start + size], at: start, flexible: true };
            field(tag, &mut contents)?;
        }
        Ok(())
    }

    /// The tagged fields of a struct that has none that we know.
    pub fn skip_tagged_fields(&mut self) -> Decoded<()> {
        self.tagged_fields(|_, _| Ok(()))
    }
}

/// Appends values in wire form to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    flexible: bool,
}

impl<'a> Writer<'a> {
    /// Appends to `out`, in compact form with tagged fields if `flexible`.
    pub fn new(out: &'a mut Vec<u8>, flexible: bool) -> Self {
        Self { out, flexible }
    }

    /// One byte.
    pub fn bool(&mut self, value: bool) {
        self.out.push(value.into());
    }

    /// A signed 16-bit number.
    pub fn i16(&mut self, value: i16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A signed 32-bit number.
    pub fn i32(&mut self, value: i32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A signed 64-bit number.
    pub fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A topic's id.
    pub fn uuid(&mut self, value: Uuid) {
        self.out.extend_from_slice(&value.0);
    }

    /// An unsigned number, seven bits a byte, the low ones first.
    pub fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// A length plus one, so that zero can stand for null.
    fn compact_length(&mut self, length: Option<usize>) {
        let length = length.map_or(0, |length| length + 1);
        debug_assert!(length <= u32::MAX as usize, "no frame holds so much");
        self.unsigned_varint(length as u32);
    }

    /// The length of bytes, records or an array; `None` is null.
    pub fn length(&mut self, length: Option<usize>) {
        if self.flexible {
            return self.compact_length(length);
        }
        debug_assert!(length.is_none_or(|length| i32::try_from(length).is_ok()));
        self.i32(length.map_or(-1, |length| length as i32));
    }

    /// A string that may be null. Outside flexible versions it has at most 32,767 bytes.
    pub fn nullable_string(&mut self, value: Option<&str>) {
        let length = value.map(str::len);
        if self.flexible {
            self.compact_length(length);
        } else {
            debug_assert!(length.is_none_or(|length| i16::try_from(length).is_ok()));
            self.i16(length.map_or(-1, |length| length as i16));
        }
        self.out.extend_from_slice(value.unwrap_or_default().as_bytes());
    }

    /// A string. Outside flexible versions it has at most 32,767 bytes.
    pub fn string(&mut self, value: &str) {
        self.nullable_string(Some(value));
    }

    /// Bytes, or records, that may be null.
    pub fn nullable_bytes(&mut self, value: Option<&[u8]>) {
        self.length(value.map(<[u8]>::len));
        self.out.extend_from_slice(value.unwrap_or_default());
    }

    /// An array, each element by `element`.
    pub fn array<T>(&mut self, elements: &[T], mut element: impl FnMut(&mut Writer<'_>, &T)) {
        self.length(Some(elements.len()));
        for value in elements {
            element(self, value);
        }
    }

    /// Ends a struct that has no tagged fields.
    pub fn no_tagged_fields(&mut self) {
        self.tagged_field_count(0);
    }

    /// Says how many tagged fields follow, if the version is flexible.
    pub fn tagged_field_count(&mut self, count: u32) {
        if self.flexible {
            self.unsigned_varint(count);
        }
    }

    /// A tagged field, whose contents `contents` writes. Tags go up within a struct.
    pub fn tagged_field(&mut self, tag: u32, contents: impl FnOnce(&mut Writer<'_>)) {
        debug_assert!(self.flexible, "tagged fields exist in flexible versions only");
        let mut bytes = Vec::new();
        contents(&mut Writer::new(&mut bytes, true));
        self.unsigned_varint(tag);
        self.unsigned_varint(bytes.len() as u32);
        self.out.extend_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(flexible: bool, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out, flexible));
        out
    }

    fn reader(bytes: &[u8], flexible: bool) -> Reader<'_> {
        let mut reader = Reader::new(bytes);
        reader.set_flexible(flexible);
        reader
    }

    /// REC-15.
    #[test]
    fn unsigned_varints_have_the_published_bytes() {
        let vectors: [(u32, &[u8]); 7] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (8191, &[0xff, 0x3f]),
            (8192, &[0x80, 0x40]),
            (134_217_728, &[0x80, 0x80, 0x80, 0x40]),
            (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (value, bytes) in vectors {
            assert_eq!(written(true, |w| w.unsigned_varint(value)), bytes);
            assert_eq!(Reader::new(bytes).unsigned_varint(), Ok(value));
        }
    }

    #[test]
    fn a_varint_beyond_32_bits_is_refused() {
        for bytes in [[0xff, 0xff, 0xff, 0xff, 0x1f], [0x80, 0x80, 0x80, 0x80, 0x80]] {
            let error = Reader::new(&bytes).unsigned_varint().unwrap_err();
            assert_eq!(error.kind, DecodeErrorKind::VarintTooLong);
        }
    }

    #[test]
    fn strings_and_bytes_keep_null_and_empty_apart() {
        for flexible in [false, true] {
            for value in [None, Some(""), Some("grün")] {
                let bytes = written(flexible, |w| w.nullable_string(value));
                assert_eq!(reader(&bytes, flexible).nullable_string(), Ok(value));
                let data = value.map(str::as_bytes);
                let bytes = written(flexible, |w| w.nullable_bytes(data));
                assert_eq!(reader(&bytes, flexible).nullable_bytes(), Ok(data));
            }
        }
        let error = Reader::new(&[0xff, 0xff]).string().unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::UnexpectedNull);
    }

    #[test]
    fn a_string_that_is_not_utf8_is_refused() {
        let error = Reader::new(&[0, 1, 0xc0]).string().unwrap_err();
        assert_eq!(error, DecodeError { kind: DecodeErrorKind::InvalidUtf8, offset: 3 });
    }

    /// WIRE-14.
    #[test]
    fn a_length_below_minus_one_is_refused() {
        let error = Reader::new(&[0xff, 0xfe]).nullable_string().unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::NegativeLength(-2));
    }

    /// WIRE-14.
    #[test]
    fn an_array_that_announces_more_than_there_is_fails_before_its_first_element() {
        for (bytes, flexible) in
            [(&[0x7f, 0xff, 0xff, 0xff][..], false), (&[0xff, 0xff, 0xff, 0xff, 0x0f][..], true)]
        {
            let mut asked = 0;
            let result = reader(bytes, flexible).array(|r| {
                asked += 1;
                r.bool()
            });
            assert!(matches!(result.unwrap_err().kind, DecodeErrorKind::Truncated { .. }));
            assert_eq!(asked, 0);
        }
    }

    /// WIRE-13.
    #[test]
    fn unknown_tagged_fields_are_passed_over_and_known_ones_read() {
        let bytes = written(true, |w| {
            w.tagged_field_count(3);
            w.tagged_field(0, |w| w.string("zero"));
            w.tagged_field(1, |w| w.i32(7));
            w.tagged_field(900, |w| w.i64(-1));
            w.bool(true);
        });
        let mut seven = 0;
        let mut r = reader(&bytes, true);
        r.tagged_fields(|tag, r| {
            if tag == 1 {
                seven = r.i32()?;
            }
            Ok(())
        })
        .unwrap();
        assert_eq!((seven, r.bool(), r.expect_end()), (7, Ok(true), Ok(())));
    }

    /// WIRE-13.
    #[test]
    fn a_tagged_field_cannot_read_past_its_own_size() {
        let bytes = written(true, |w| {
            w.tagged_field_count(1);
            w.tagged_field(0, |w| w.i16(1));
            w.i64(0);
        });
        let error = reader(&bytes, true).tagged_fields(|_, r| r.i32().map(drop)).unwrap_err();
        let kind = DecodeErrorKind::Truncated { needed: 4, remaining: 2 };
        assert_eq!(error, DecodeError { kind, offset: 3 });
    }

    /// WIRE-14: texts and bytes too.
    #[test]
    fn a_text_that_announces_more_than_there_is_is_refused() {
        let truncated = |kind: DecodeErrorKind| matches!(kind, DecodeErrorKind::Truncated { .. });
        for (bytes, flexible) in [(&[0x7f, 0xff, b'x'][..], false), (&[0x7f, b'x'][..], true)] {
            let error = reader(bytes, flexible).nullable_string().unwrap_err();
            assert!(truncated(error.kind), "{error:?}");
        }
        for (bytes, flexible) in
            [(&[0x7f, 0xff, 0xff, 0xff, 1][..], false), (&[0xff, 0x7f, 1][..], true)]
        {
            let error = reader(bytes, flexible).nullable_bytes().unwrap_err();
            assert!(truncated(error.kind), "{error:?}");
        }
        let error = reader(&[0xff, 0xff, 0xff, 0xfe], false).nullable_bytes().unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::NegativeLength(-2));
        let error = reader(&[0x80, 0, 0, 0], false).array(|r| r.bool()).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::NegativeLength(i32::MIN));
    }
}
