//! From a request's body to a frame, and from a response's frame to its body.

use crate::network::OutFrame;
use crate::protocol::{self, ApiKey, DecodeError, Reader};

/// The frame of a request that carries no record batches. `body` appends the encoded body.
pub(crate) fn request_frame(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: &str,
    body: impl FnOnce(&mut Vec<u8>),
) -> OutFrame {
    let mut head = Vec::new();
    protocol::encode_request(api, version, correlation_id, Some(client_id), &mut head, body);
    OutFrame::from_head(head)
}

/// Takes the header off a response: its correlation id, and what follows.
pub(super) fn split_response(
    api: ApiKey,
    version: i16,
    mut response: Vec<u8>,
) -> Result<(i32, Vec<u8>), DecodeError> {
    let mut reader = Reader::new(&response);
    let correlation_id = protocol::decode_response_header(api, version, &mut reader)?;
    let header = response.len() - reader.remaining();
    response.drain(..header);
    Ok((correlation_id, response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_loses_its_header_in_either_version() {
        let mut old = vec![0, 0, 0, 7, 42];
        assert_eq!(split_response(ApiKey::Produce, 8, old.clone()), Ok((7, vec![42])));
        // Header version 1 has tagged fields: one, with tag 5 and two bytes.
        old.splice(4..4, [1, 5, 2, 9, 9]);
        assert_eq!(split_response(ApiKey::Produce, 9, old), Ok((7, vec![42])));
        assert!(split_response(ApiKey::Produce, 8, vec![0, 0, 7]).is_err());
    }

    #[test]
    fn a_request_is_one_piece_with_its_length_before_it() {
        let frame = request_frame(ApiKey::ApiVersions, 0, 3, "me", |_| {});
        assert_eq!(frame.head, [0, 0, 0, 12, 0, 18, 0, 0, 0, 0, 0, 3, 0, 2, b'm', b'e']);
        assert_eq!(frame.total_len(), 16);
    }
}
