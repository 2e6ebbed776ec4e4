//! Frames and headers: what goes before every request and response.
//!
//! A frame is a length of four bytes, not counting itself, and then a header and a body. The
//! version of the header follows from API and version.

use super::ApiKey;
use super::wire::{Decoded, Reader, Writer};

/// The header of a request, as a broker reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// The API's key; may be one that this crate does not know.
    pub api_key: i16,
    /// The version of the request; may be one that this crate does not know.
    pub api_version: i16,
    /// What the response will repeat.
    pub correlation_id: i32,
    /// The client's name.
    pub client_id: Option<&'a str>,
}

impl<'a> RequestHeader<'a> {
    /// Reads a request's header. A request of an unknown API has a header like version 1's, and so
    /// much is read of it; an unknown version of a known API counts as flexible.
    pub fn decode(r: &mut Reader<'a>) -> Decoded<Self> {
        r.set_flexible(false);
        let (api_key, api_version, correlation_id) = (r.i16()?, r.i16()?, r.i32()?);
        // The client id keeps its old form in header version 2.
        let client_id = r.nullable_string()?;
        let flexible = ApiKey::from_code(api_key).is_some_and(|key| key.is_flexible(api_version));
        r.set_flexible(flexible);
        r.skip_tagged_fields()?;
        Ok(Self { api_key, api_version, correlation_id, client_id })
    }
}

/// Appends a request's header. `client_id` has at most 32,767 bytes.
pub fn encode_request_header(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    out: &mut Vec<u8>,
) {
    debug_assert!(key.supported().contains(version), "{key:?} v{version}");
    let mut w = Writer::new(out, false);
    w.i16(key.code());
    w.i16(version);
    w.i32(correlation_id);
    // The client id keeps its old form in header version 2.
    w.nullable_string(client_id);
    Writer::new(out, key.is_flexible(version)).no_tagged_fields();
}

/// Reads a response's header; gives its correlation id.
pub fn decode_response_header(key: ApiKey, version: i16, r: &mut Reader<'_>) -> Decoded<i32> {
    r.set_flexible(key.response_header_version(version) > 0);
    let correlation_id = r.i32()?;
    r.skip_tagged_fields()?;
    Ok(correlation_id)
}

/// Appends a response's header.
pub fn encode_response_header(key: ApiKey, version: i16, correlation_id: i32, out: &mut Vec<u8>) {
    let mut w = Writer::new(out, key.response_header_version(version) > 0);
    w.i32(correlation_id);
    w.no_tagged_fields();
}

/// Appends a whole request: length, header, and the body that `body` appends.
pub fn encode_request(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>),
) {
    frame(out, |out| {
        encode_request_header(key, version, correlation_id, client_id, out);
        body(out);
    });
}

/// Appends a whole response: length, header, and the body that `body` appends.
pub fn encode_response(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>),
) {
    frame(out, |out| {
        encode_response_header(key, version, correlation_id, out);
        body(out);
    });
}

fn frame(out: &mut Vec<u8>, contents: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    contents(out);
    let length = out.len() - start - 4;
    debug_assert!(i32::try_from(length).is_ok(), "a frame of {length} bytes");
    out[start..start + 4].copy_from_slice(&(length as u32).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_of_a_flexible_version_keeps_the_old_form_of_client_id() {
        let mut out = vec![9];
        encode_request(ApiKey::Metadata, 9, 5, Some("me"), &mut out, |out| out.push(77));
        let expected = [9, 0, 0, 0, 14, 0, 3, 0, 9, 0, 0, 0, 5, 0, 2, b'm', b'e', 0, 77];
        assert_eq!(out, expected);
    }

    #[test]
    fn headers_are_read_as_they_were_written_in_every_version() {
        for key in ApiKey::ALL {
            for version in key.supported().min..=key.supported().max {
                for client_id in [None, Some(""), Some("me")] {
                    let mut out = Vec::new();
                    encode_request_header(key, version, -3, client_id, &mut out);
                    let mut r = Reader::new(&out);
                    let header = RequestHeader {
                        api_key: key.code(),
                        api_version: version,
                        correlation_id: -3,
                        client_id,
                    };
                    assert_eq!(RequestHeader::decode(&mut r), Ok(header));
                    assert_eq!(r.expect_end(), Ok(()));
                }
                let mut out = Vec::new();
                encode_response_header(key, version, 1 << 30, &mut out);
                let mut r = Reader::new(&out);
                assert_eq!(decode_response_header(key, version, &mut r), Ok(1 << 30));
                assert_eq!(r.expect_end(), Ok(()));
            }
        }
    }
}
