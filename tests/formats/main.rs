//! The wire format against an independent witness, the `kafka-protocol` crate: what we encode it
//! decodes, and what it encodes we decode, in every version that we support.

mod headers;
mod initial; // ApiVersions and InitProducerId
mod metadata;
mod produce;
mod records;

use std::fmt::Debug;

use kafka_producer::internal::protocol::{ApiKey, Decoded, Reader};
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

/// Every version of an API that we support.
fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    key.supported().min..=key.supported().max
}

/// A message in our form and in the witness's, in a version whose lacking fields are at defaults.
struct Pair<Ours, Theirs> {
    ours: Ours,
    theirs: Theirs,
    version: i16,
}

impl<Ours: Debug + PartialEq, Theirs: Debug + PartialEq + Encodable + Decodable>
    Pair<Ours, Theirs>
{
    /// Checks that both encode to the same bytes, and that each decodes the other's.
    fn agree(
        &self,
        encode: impl FnOnce(&Ours, i16, &mut Vec<u8>),
        decode: impl Fn(&mut Reader<'_>, i16) -> Decoded<Ours>,
    ) -> TestCaseResult {
        let version = self.version;
        let mut by_us = Vec::new();
        encode(&self.ours, version, &mut by_us);
        prop_assert_eq!(&by_us, &witnessed(&self.theirs, version), "version {}", version);

        let mut rest = &by_us[..];
        prop_assert_eq!(&Theirs::decode(&mut rest, version).unwrap(), &self.theirs);
        prop_assert_eq!(rest.len(), 0);

        self.is_read(&by_us, &decode)?;
        let longer = [&by_us[..], &[1, 0xFF, 0]].concat();
        // A newer broker may have more to say behind what we know.
        let mut reader = Reader::new(&longer);
        let read = decode(&mut reader, version);
        prop_assert_eq!(read.as_ref(), Ok(&self.ours));
        prop_assert_eq!(reader.remaining(), 3);
        // An answer that is cut short is an error, wherever it is cut.
        for end in 0..by_us.len() {
            prop_assert!(decode(&mut Reader::new(&by_us[..end]), version).is_err());
        }
        Ok(())
    }

    /// Checks that we read `bytes` as the message, to their end.
    fn is_read(
        &self,
        bytes: &[u8],
        decode: impl Fn(&mut Reader<'_>, i16) -> Decoded<Ours>,
    ) -> TestCaseResult {
        let mut reader = Reader::new(bytes);
        let read = decode(&mut reader, self.version);
        prop_assert_eq!(read.as_ref(), Ok(&self.ours));
        prop_assert_eq!(reader.expect_end(), Ok(()));
        Ok(())
    }
}

/// What the witness makes of its message.
fn witnessed(message: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes, version).unwrap();
    bytes
}

/// Short strings, and some whose compact length takes two bytes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "\\PC{0,6}", 1 => "[a-z]{126,130}"]
}

/// Bytes of a topic id, with zero among them.
fn id() -> impl Strategy<Value = [u8; 16]> {
    prop_oneof![3 => any::<[u8; 16]>(), 1 => Just([0; 16])]
}

/// A topic id in the witness's type, which is not ours to name: it parses from hex digits.
fn their_id<T: std::str::FromStr<Err: Debug>>(id: [u8; 16]) -> T {
    format!("{:032x}", u128::from_be_bytes(id)).parse().unwrap()
}
