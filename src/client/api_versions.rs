//! What a broker speaks: the answer to ApiVersions, the first request on every connection.
//!
//! The client asks with the highest version it knows; a broker that doesn't know that one says so
//! in the form of version 0, and newer brokers name their own range (KIP-511).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::protocol::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, DecodeError, ErrorCode, Reader, VersionRange,
};

/// The versions that one broker supports, of the APIs that this crate speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeApiVersions(Vec<(ApiKey, VersionRange)>);

impl NodeApiVersions {
    fn new(response: &ApiVersionsResponse) -> Self {
        let known = ApiKey::ALL.into_iter();
        Self(known.filter_map(|api| Some((api, response.versions(api)?))).collect())
    }

    /// What the broker offers of an API.
    pub(super) fn of(&self, api: ApiKey) -> Option<VersionRange> {
        self.0.iter().find(|(of, _)| *of == api).map(|(_, versions)| *versions)
    }

    /// The highest version that both sides speak.
    pub(super) fn highest_common(&self, api: ApiKey) -> Option<i16> {
        api.supported().highest_common(self.of(api)?)
    }
}

/// What to do after an answer to ApiVersions.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Negotiation {
    /// The broker's versions.
    Agreed(NodeApiVersions),
    /// Ask again with this version, which is lower.
    AskAgain(i16),
    /// There is no talking to this broker; says why.
    Refused(String),
}

/// The first version to ask with.
pub(super) fn first_version() -> i16 {
    ApiKey::ApiVersions.supported().max
}

/// Appends the request's body.
pub(super) fn encode_request(version: i16, out: &mut Vec<u8>) {
    let request = ApiVersionsRequest {
        client_software_name: Arc::from("kafka-producer"),
        client_software_version: Arc::from(env!("CARGO_PKG_VERSION")),
    };
    request.encode(version, out);
}

/// Decodes the answer to a request of version `asked`.
pub(super) fn decode_response(asked: i16, body: &[u8]) -> Result<ApiVersionsResponse, DecodeError> {
    ApiVersionsResponse::decode(&mut Reader::new(body), asked)
}

/// Decides what follows from the answer to a request of version `asked`.
pub(super) fn judge(asked: i16, response: &ApiVersionsResponse) -> Negotiation {
    let ours = ApiKey::ApiVersions.supported();
    match response.error_code {
        ErrorCode::NONE => Negotiation::Agreed(NodeApiVersions::new(response)),
        ErrorCode::UNSUPPORTED_VERSION if asked > ours.min => {
            let named = response.versions(ApiKey::ApiVersions);
            let common = named.and_then(|named| ours.highest_common(named));
            // A broker that refuses a version which it names is asked with the lowest.
            Negotiation::AskAgain(common.filter(|version| *version < asked).unwrap_or(ours.min))
        }
        code => Negotiation::Refused(format!("it refused ApiVersions v{asked} with {code}")),
    }
}

/// The feature levels that the cluster has finalized (KIP-584), by the newest answer of any broker.
#[derive(Debug)]
pub(super) struct FinalizedFeatures {
    /// Rises with each change; -1 while nothing is known.
    epoch: i64,
    levels: BTreeMap<Arc<str>, i16>,
}

impl Default for FinalizedFeatures {
    fn default() -> Self {
        Self { epoch: -1, levels: BTreeMap::new() }
    }
}

impl FinalizedFeatures {
    /// Takes over what a broker says, unless something newer is known.
    pub(super) fn update(&mut self, response: &ApiVersionsResponse) {
        if response.finalized_features_epoch <= self.epoch {
            return;
        }
        self.epoch = response.finalized_features_epoch;
        let features = response.finalized_features.iter();
        self.levels = features.map(|f| (Arc::clone(&f.name), f.max_version_level)).collect();
        self.invariants();
    }

    /// What is known is of some epoch.
    fn invariants(&self) {
        debug_assert!(self.epoch >= 0 || self.levels.is_empty(), "{self:?}");
    }

    #[allow(dead_code, reason = "transactions will ask (KIP-890)")]
    pub(super) fn level(&self, name: &str) -> Option<i16> {
        self.levels.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{ApiVersion, FinalizedFeature};

    fn response(error_code: ErrorCode, keys: &[(i16, i16, i16)]) -> ApiVersionsResponse {
        let api = |(api_key, min, max): &(i16, i16, i16)| ApiVersion {
            api_key: *api_key,
            versions: VersionRange { min: *min, max: *max },
        };
        ApiVersionsResponse {
            error_code,
            api_keys: keys.iter().map(api).collect(),
            throttle_time_ms: 0,
            supported_features: Vec::new(),
            finalized_features_epoch: -1,
            finalized_features: Vec::new(),
        }
    }

    /// NC-37, NC-38.
    #[test]
    fn the_highest_common_version_is_used_and_unknown_apis_are_tolerated() {
        let answer =
            response(ErrorCode::NONE, &[(0, 0, 9), (3, 99, 100), (18, 0, 99), (7777, 1, 2)]);
        let Negotiation::Agreed(versions) = judge(4, &answer) else { panic!("not agreed") };
        assert_eq!(versions.highest_common(ApiKey::Produce), Some(9));
        let ours = ApiKey::ApiVersions.supported().max;
        assert_eq!(versions.highest_common(ApiKey::ApiVersions), Some(ours));
        assert_eq!(versions.highest_common(ApiKey::Metadata), None, "the ranges don't meet");
        assert_eq!(versions.of(ApiKey::Metadata), Some(VersionRange { min: 99, max: 100 }));
        assert_eq!(versions.highest_common(ApiKey::InitProducerId), None, "not offered");
    }

    /// NC-08.
    #[test]
    fn a_refused_version_is_lowered_to_what_the_broker_names_or_to_zero() {
        let unsupported = |keys: &[(i16, i16, i16)], asked| {
            judge(asked, &response(ErrorCode::UNSUPPORTED_VERSION, keys))
        };
        assert_eq!(unsupported(&[(18, 0, 3)], 4), Negotiation::AskAgain(3));
        assert_eq!(unsupported(&[], 4), Negotiation::AskAgain(0));
        assert_eq!(
            unsupported(&[(18, 0, 9)], 4),
            Negotiation::AskAgain(0),
            "it contradicts itself"
        );
        assert_eq!(unsupported(&[(18, 8, 9)], 4), Negotiation::AskAgain(0));
        assert!(matches!(unsupported(&[(18, 0, 3)], 0), Negotiation::Refused(_)));
    }

    #[test]
    fn any_other_error_is_a_refusal() {
        let refused = judge(4, &response(ErrorCode::INVALID_REQUEST, &[]));
        let Negotiation::Refused(why) = refused else { panic!("{refused:?}") };
        assert!(why.contains("INVALID_REQUEST"), "{why}");
    }

    /// NC-40.
    #[test]
    fn features_of_an_older_epoch_are_ignored() {
        let mut features = FinalizedFeatures::default();
        let mut answer = response(ErrorCode::NONE, &[]);
        let level = |answer: &mut ApiVersionsResponse, epoch, level| {
            let name = Arc::from("transaction.version");
            answer.finalized_features_epoch = epoch;
            answer.finalized_features =
                vec![FinalizedFeature { name, max_version_level: level, min_version_level: 0 }];
        };
        for (epoch, said, expected) in
            [(-1, 9, None), (5, 1, Some(1)), (4, 0, Some(1)), (6, 2, Some(2))]
        {
            level(&mut answer, epoch, said);
            features.update(&answer);
            assert_eq!(features.level("transaction.version"), expected, "epoch {epoch}");
        }
    }
}
