#![no_main]
//! Every decoder of the protocol: each API in each version, requests, responses and headers.

use kafka_producer::internal::protocol::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse,
    MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse, Reader, RequestHeader,
    decode_response_header,
};
use kafka_producer_fuzz::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first two bytes choose the API, the direction and the version.
    let [api, version, body @ ..] = data else { return };
    let key = ApiKey::ALL[usize::from(api / 2) % ApiKey::ALL.len()];
    let range = key.supported();
    let version = range.min + i16::from(*version) % (range.max - range.min + 1);
    bounded(body, |body| {
        let r = &mut Reader::new(body);
        let _ = match (key, api % 2 == 0) {
            (ApiKey::Produce, true) => ProduceRequest::decode(r, version).map(drop),
            (ApiKey::Produce, false) => ProduceResponse::decode(r, version).map(drop),
            (ApiKey::Metadata, true) => MetadataRequest::decode(r, version).map(drop),
            (ApiKey::Metadata, false) => MetadataResponse::decode(r, version).map(drop),
            (ApiKey::ApiVersions, true) => ApiVersionsRequest::decode(r, version).map(drop),
            (ApiKey::ApiVersions, false) => ApiVersionsResponse::decode(r, version).map(drop),
            (ApiKey::InitProducerId, true) => InitProducerIdRequest::decode(r, version).map(drop),
            (ApiKey::InitProducerId, false) => InitProducerIdResponse::decode(r, version).map(drop),
        };
        let _ = RequestHeader::decode(&mut Reader::new(body));
        let _ = decode_response_header(key, version, &mut Reader::new(body));
    });
});
