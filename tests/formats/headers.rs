//! Headers of requests and responses.

use kafka_producer::internal::protocol::{
    ApiKey, Reader, RequestHeader, decode_response_header, encode_request_header,
    encode_response_header,
};
use kafka_protocol::messages;
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::decode_request_header_from_buffer;
use proptest::prelude::*;

use crate::{text, versions, witnessed};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// WIRE-07, WIRE-08.
    #[test]
    fn request_headers(correlation_id: i32, client_id in proptest::option::of(text())) {
        for key in ApiKey::ALL {
            for version in versions(key) {
                let client_id = client_id.as_deref();
                let mut bytes = Vec::new();
                encode_request_header(key, version, correlation_id, client_id, &mut bytes);

                let theirs = decode_request_header_from_buffer(&mut &bytes[..]).unwrap();
                let expected = messages::RequestHeader::default()
                    .with_request_api_key(key.code())
                    .with_request_api_version(version)
                    .with_correlation_id(correlation_id)
                    .with_client_id(client_id.map(|id| id.to_owned().into()));
                prop_assert_eq!(&theirs, &expected);
                let header_version = key.request_header_version(version);
                prop_assert_eq!(&bytes, &witnessed(&expected, header_version));

                let expected = RequestHeader {
                    api_key: key.code(),
                    api_version: version,
                    correlation_id,
                    client_id,
                };
                let mut reader = Reader::new(&bytes);
                prop_assert_eq!(RequestHeader::decode(&mut reader), Ok(expected));
                prop_assert_eq!(reader.expect_end(), Ok(()));
            }
        }
    }

    #[test]
    fn response_headers(correlation_id: i32) {
        for key in ApiKey::ALL {
            let their_key = messages::ApiKey::try_from(key.code()).unwrap();
            for version in versions(key) {
                let header_version = their_key.response_header_version(version);
                prop_assert_eq!(key.response_header_version(version), header_version);
                let their_request_header_version = their_key.request_header_version(version);
                prop_assert_eq!(key.request_header_version(version), their_request_header_version);

                let mut bytes = Vec::new();
                encode_response_header(key, version, correlation_id, &mut bytes);
                let theirs =
                    messages::ResponseHeader::decode(&mut &bytes[..], header_version).unwrap();
                prop_assert_eq!(theirs.correlation_id, correlation_id);
                prop_assert_eq!(&bytes, &witnessed(&theirs, header_version));
                let mut reader = Reader::new(&bytes);
                let read = decode_response_header(key, version, &mut reader);
                prop_assert_eq!(read, Ok(correlation_id));
                prop_assert_eq!(reader.expect_end(), Ok(()));
            }
        }
    }
}
