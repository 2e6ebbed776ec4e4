//! The Kafka protocol: one file an API, in every version that it supports, in both directions.
//!
//! Pure: bytes in, bytes out. The client encodes requests and decodes responses on the sender
//! thread; the test broker does the reverse, with the same code. Errors of decoding are the other
//! side's fault and come as [`DecodeError`]; what the encoders are given is this crate's own.

mod api_versions; // what a broker supports
mod error_code; // codes, their classes, what a code proves
mod header; // frames and headers
mod init_producer_id; // a producer id and epoch
mod metadata; // brokers, topics, partitions and their leaders
mod produce; // records, written around the batches without copying them
mod wire; // primitive types

pub use self::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeature, SupportedFeature,
};
pub use self::error_code::ErrorCode;
pub use self::header::{
    RequestHeader, decode_response_header, encode_request, encode_request_header, encode_response,
    encode_response_header,
};
pub use self::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use self::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
pub use self::produce::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceRequestEncoder, ProduceRequestParams, ProduceResponse, RecordError, TopicKey,
    TopicProduceData, TopicProduceResponse, TopicRef,
};
pub use self::wire::{DecodeError, DecodeErrorKind, Decoded, Reader, Writer};

/// The APIs that this crate speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum ApiKey {
    /// Records for partitions.
    Produce = 0,
    /// Brokers, topics, partitions and their leaders.
    Metadata = 3,
    /// What the broker supports.
    ApiVersions = 18,
    /// A producer id and epoch.
    InitProducerId = 22,
}

/// Versions of an API, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// The lowest version.
    pub min: i16,
    /// The highest version.
    pub max: i16,
}

impl VersionRange {
    /// Whether the version lies in the range.
    pub fn contains(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// The highest version that both ranges hold.
    pub fn highest_common(self, other: Self) -> Option<i16> {
        let max = self.max.min(other.max);
        (max >= self.min.max(other.min)).then_some(max)
    }
}

impl ApiKey {
    /// Every API, in the order of keys.
    pub const ALL: [Self; 4] =
        [Self::Produce, Self::Metadata, Self::ApiVersions, Self::InitProducerId];

    /// The API with this key, if it is one that this crate speaks.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.code() == code)
    }

    /// The key on the wire.
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The API's name, as Kafka spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Produce => "Produce",
            Self::Metadata => "Metadata",
            Self::ApiVersions => "ApiVersions",
            Self::InitProducerId => "InitProducerId",
        }
    }

    /// The versions that this crate can encode and decode. Produce begins at 3, the first that
    /// carries record batches v2; InitProducerId ends before 6, which is not stable yet.
    pub fn supported(self) -> VersionRange {
        let (min, max) = match self {
            Self::Produce => (3, 13),
            Self::Metadata => (4, 13),
            Self::ApiVersions => (0, 4),
            Self::InitProducerId => (0, 5),
        };
        VersionRange { min, max }
    }

    /// The first version with compact types and tagged fields (KIP-482).
    pub fn flexible_from(self) -> i16 {
        match self {
            Self::Produce | Self::Metadata => 9,
            Self::ApiVersions => 3,
            Self::InitProducerId => 2,
        }
    }

    /// The first version in which a broker that asks for a pause leaves it to the client to keep
    /// away (KIP-219). With earlier ones it has kept the answer back for that time already.
    pub fn client_throttles_from(self) -> i16 {
        match self {
            Self::Produce | Self::Metadata => 6,
            Self::ApiVersions => 2,
            Self::InitProducerId => 1,
        }
    }

    /// Whether the version has compact types and tagged fields.
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.flexible_from()
    }

    /// The version of the header that goes before a request of this version.
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the header that goes before a response of this version. ApiVersions keeps
    /// header 0 for ever: a client reads it before it knows what the broker speaks (KIP-511).
    pub fn response_header_version(self, version: i16) -> i16 {
        (self != Self::ApiVersions && self.is_flexible(version)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_found_by_its_key_and_an_unknown_key_is_not() {
        for key in ApiKey::ALL {
            assert_eq!(ApiKey::from_code(key.code()), Some(key));
        }
        assert_eq!(ApiKey::from_code(1), None);
    }

    #[test]
    fn the_highest_common_version_is_none_when_ranges_do_not_meet() {
        let ours = ApiKey::Produce.supported();
        assert_eq!(ours.highest_common(VersionRange { min: 0, max: 9 }), Some(9));
        assert_eq!(ours.highest_common(VersionRange { min: 0, max: 99 }), Some(13));
        assert_eq!(ours.highest_common(VersionRange { min: 0, max: 2 }), None);
        assert_eq!(ours.highest_common(VersionRange { min: 14, max: 20 }), None);
    }
}
