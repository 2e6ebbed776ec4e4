//! Serializers: from a value to the bytes that Kafka's Java client would make of it, or to those
//! of a format of one's own.
//!
//! They run on the thread that sends, before anything else is done with the record and before any
//! lock is taken.

use std::borrow::Borrow;
use std::error::Error as StdError;
use std::fmt;
use std::marker::PhantomData;

use super::record::Headers;
use crate::types::Uuid;

/// Makes bytes of keys or values; used by [`TypedProducer`](crate::TypedProducer).
///
/// Called once for each key or value that is not null; null stays null and is not shown. By many
/// threads at once. One that fails or panics fails that send only, with
/// [`Error::Serialization`](crate::Error::Serialization).
///
/// ```
/// use kafka_producer::{Headers, SerializeError, Serializer};
///
/// struct Celsius(f32);
///
/// /// Tenths of a degree, as two bytes; which, says a header.
/// struct Tenths;
///
/// impl Serializer for Tenths {
///     type Input = Celsius;
///
///     fn serialize<'s>(
///         &self,
///         _topic: &str,
///         headers: &mut Headers<'_>,
///         data: &'s Celsius,
///         scratch: &'s mut Vec<u8>,
///     ) -> Result<&'s [u8], SerializeError> {
///         let tenths = (data.0 * 10.0).round();
///         if !(-2732.0..=32767.0).contains(&tenths) {
///             return Err(format!("{} degrees", data.0).into());
///         }
///         headers.push("unit", b"0.1 C");
///         scratch.extend_from_slice(&(tenths as i16).to_be_bytes());
///         Ok(scratch)
///     }
/// }
///
/// let (mut headers, mut scratch) = (Headers::new(), Vec::new());
/// let bytes = Tenths.serialize("rooms", &mut headers, &Celsius(21.5), &mut scratch)?;
/// assert_eq!(bytes, [0, 215]);
/// # Ok::<(), SerializeError>(())
/// ```
pub trait Serializer: Send + Sync {
    /// What it takes.
    type Input: ?Sized;

    /// The bytes of `data`: some of its own, which saves a copy, or those put into `scratch`,
    /// which comes empty. Headers may be added, as by formats that name their schema there.
    ///
    /// # Errors
    /// Whatever keeps the value from being sent; its text becomes part of the send's error.
    fn serialize<'s>(
        &self,
        topic: &str,
        headers: &mut Headers<'_>,
        data: &'s Self::Input,
        scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8], SerializeError>;

    /// Whether all values take the same number of bytes; a [`ListSerializer`] writes no lengths
    /// then.
    fn is_fixed_width(&self) -> bool {
        false
    }
}

/// Why a [`Serializer`] failed; made by `?` from any error or text.
pub type SerializeError = Box<dyn StdError + Send + Sync>;

/// Bytes as they are, as Java's `ByteArraySerializer`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BytesSerializer;

/// Text in UTF-8, as Java's `StringSerializer`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StringSerializer;

impl Serializer for BytesSerializer {
    type Input = [u8];

    fn serialize<'s>(
        &self,
        _topic: &str,
        _headers: &mut Headers<'_>,
        data: &'s [u8],
        _scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8], SerializeError> {
        Ok(data)
    }
}

impl Serializer for StringSerializer {
    type Input = str;

    fn serialize<'s>(
        &self,
        _topic: &str,
        _headers: &mut Headers<'_>,
        data: &'s str,
        _scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8], SerializeError> {
        Ok(data.as_bytes())
    }
}

/// Serializers whose bytes have to be made.
macro_rules! made {
    ($($(#[$doc:meta])* $name:ident: $input:ty, $fixed:literal, $bytes:expr;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name;

        impl Serializer for $name {
            type Input = $input;

            fn serialize<'s>(
                &self,
                _topic: &str,
                _headers: &mut Headers<'_>,
                data: &'s $input,
                scratch: &'s mut Vec<u8>,
            ) -> Result<&'s [u8], SerializeError> {
                let bytes: fn(&$input) -> _ = $bytes;
                scratch.extend_from_slice(&bytes(data));
                Ok(scratch)
            }

            fn is_fixed_width(&self) -> bool {
                $fixed
            }
        }
    )* };
}

made! {
    /// Two bytes, the highest first, as Java's `ShortSerializer`.
    ShortSerializer: i16, true, |data| data.to_be_bytes();
    /// Four bytes, the highest first, as Java's `IntegerSerializer`.
    IntegerSerializer: i32, true, |data| data.to_be_bytes();
    /// Eight bytes, the highest first, as Java's `LongSerializer`.
    LongSerializer: i64, true, |data| data.to_be_bytes();
    /// The four bytes of IEEE 754, the highest first, as Java's `FloatSerializer`.
    FloatSerializer: f32, true, |data| data.to_be_bytes();
    /// The eight bytes of IEEE 754, the highest first, as Java's `DoubleSerializer`: each NaN is
    /// the same one.
    DoubleSerializer: f64, true, |data| {
        const NAN: u64 = 0x7ff8_0000_0000_0000;
        if data.is_nan() { NAN.to_be_bytes() } else { data.to_be_bytes() }
    };
    /// The usual 36 characters, as Java's `UUIDSerializer`.
    UuidSerializer: Uuid, true, |data| uuid_text(data);
    /// One byte, 0 or 1, as Java's `BooleanSerializer`.
    BooleanSerializer: bool, false, |data| [u8::from(*data)];
}

fn uuid_text(uuid: &Uuid) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    // A hyphen stands before the bytes 4, 6, 8 and 10.
    let places = (0..36).filter(|place| !matches!(place, 8 | 13 | 18 | 23));
    let nibbles = uuid.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    for (place, nibble) in places.zip(nibbles) {
        text[place] = DIGITS[usize::from(nibble)];
    }
    text
}

/// Nothing but null, as Java's `VoidSerializer`: any value is refused.
#[derive(Clone, Copy, Debug, Default)]
pub struct VoidSerializer;

impl Serializer for VoidSerializer {
    type Input = ();

    fn serialize<'s>(
        &self,
        _topic: &str,
        _headers: &mut Headers<'_>,
        _data: &'s (),
        _scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8], SerializeError> {
        Err("only null can be sent where nothing is to be said".into())
    }
}

/// Lists whose entries may be null, as Java's `ListSerializer` (KIP-466): with lengths, or, where
/// the inner serializer's values all have the same, with the places of the nulls.
///
/// `B` is what entries are kept as, if that is not what the inner serializer takes:
/// `ListSerializer<StringSerializer, String>` takes `[Option<String>]`.
pub struct ListSerializer<S, B = <S as Serializer>::Input> {
    inner: S,
    entries: PhantomData<fn(&B)>,
}

impl<S: Serializer, B: Borrow<S::Input>> ListSerializer<S, B> {
    /// Lists of what `inner` takes.
    pub fn new(inner: S) -> Self {
        Self { inner, entries: PhantomData }
    }
}

impl<S: fmt::Debug, B> fmt::Debug for ListSerializer<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ListSerializer").field(&self.inner).finish()
    }
}

impl<S: Serializer, B: Borrow<S::Input>> Serializer for ListSerializer<S, B> {
    type Input = [Option<B>];

    fn serialize<'s>(
        &self,
        topic: &str,
        headers: &mut Headers<'_>,
        data: &'s [Option<B>],
        scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8], SerializeError> {
        const WITHOUT_LENGTHS: u8 = 0;
        const WITH_LENGTHS: u8 = 1;
        let has_lengths = !self.inner.is_fixed_width();
        scratch.push(if has_lengths { WITH_LENGTHS } else { WITHOUT_LENGTHS });
        if !has_lengths {
            let nulls = || (0..).zip(data).filter(|(_, entry)| entry.is_none());
            push_length(scratch, nulls().count())?;
            nulls().for_each(|(place, _): (i32, _)| scratch.extend(place.to_be_bytes()));
        }
        push_length(scratch, data.len())?;
        let mut of_entry = Vec::new();
        for entry in data {
            match entry {
                Some(entry) => {
                    of_entry.clear();
                    let entry = entry.borrow();
                    let bytes = self.inner.serialize(topic, headers, entry, &mut of_entry)?;
                    if has_lengths {
                        push_length(scratch, bytes.len())?;
                    }
                    scratch.extend_from_slice(bytes);
                }
                None if has_lengths => scratch.extend((-1i32).to_be_bytes()),
                None => {}
            }
        }
        Ok(scratch)
    }
}

fn push_length(bytes: &mut Vec<u8>, length: usize) -> Result<(), SerializeError> {
    let length = i32::try_from(length).map_err(|_| format!("a length of {length}"))?;
    bytes.extend(length.to_be_bytes());
    Ok(())
}
