//! ApiVersions and InitProducerId, the requests that begin a connection and a producer.

use kafka_producer::ErrorCode;
use kafka_producer::internal::protocol::{
    ApiKey, ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeature,
    InitProducerIdRequest, InitProducerIdResponse, SupportedFeature, VersionRange,
};
use kafka_protocol::messages;
use kafka_protocol::messages::api_versions_response as theirs;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::{Pair, text, versions, witnessed};

fn range() -> impl Strategy<Value = VersionRange> {
    any::<(i16, i16)>().prop_map(|(min, max)| VersionRange { min, max })
}

prop_compose! {
    fn api_versions_response()(
        // With UNSUPPORTED_VERSION every version has the form of version 0.
        error_code in any::<i16>().prop_filter("has a form of its own", |code| *code != 35),
        api_keys in vec((any::<i16>(), range()), 0..5),
        throttle_time_ms: i32,
        supported in vec((text(), range()), 0..3),
        epoch in -1..i64::MAX,
        finalized in vec((text(), any::<(i16, i16)>()), 0..3),
    ) -> ApiVersionsResponse {
        let api_version = |(api_key, versions)| ApiVersion { api_key, versions };
        let api_keys = api_keys.into_iter().map(api_version).collect();
        let supported = supported.into_iter();
        let finalized = finalized.into_iter();
        ApiVersionsResponse {
            error_code: ErrorCode(error_code),
            api_keys,
            throttle_time_ms,
            supported_features: supported
                .map(|(name, versions)| SupportedFeature { name: name.into(), versions })
                .collect(),
            finalized_features_epoch: epoch,
            finalized_features: finalized
                .map(|(name, (max_version_level, min_version_level))| {
                    FinalizedFeature { name: name.into(), max_version_level, min_version_level }
                })
                .collect(),
        }
    }
}

/// The response as the version carries it.
fn api_versions_pair(
    full: &ApiVersionsResponse,
    version: i16,
) -> Pair<ApiVersionsResponse, messages::ApiVersionsResponse> {
    let mut ours = full.clone();
    if version < 1 {
        ours.throttle_time_ms = 0;
    }
    if version < 3 {
        ours.supported_features.clear();
        ours.finalized_features_epoch = -1;
        ours.finalized_features.clear();
    }
    let api_keys = ours.api_keys.iter().map(|api| {
        theirs::ApiVersion::default()
            .with_api_key(api.api_key)
            .with_min_version(api.versions.min)
            .with_max_version(api.versions.max)
    });
    let supported = ours.supported_features.iter().map(|feature| {
        theirs::SupportedFeatureKey::default()
            .with_name(feature.name.to_string().into())
            .with_min_version(feature.versions.min)
            .with_max_version(feature.versions.max)
    });
    let finalized = ours.finalized_features.iter().map(|feature| {
        theirs::FinalizedFeatureKey::default()
            .with_name(feature.name.to_string().into())
            .with_max_version_level(feature.max_version_level)
            .with_min_version_level(feature.min_version_level)
    });
    let theirs = messages::ApiVersionsResponse::default()
        .with_error_code(ours.error_code.0)
        .with_api_keys(api_keys.collect())
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_supported_features(supported.collect())
        .with_finalized_features_epoch(ours.finalized_features_epoch)
        .with_finalized_features(finalized.collect());
    Pair { ours, theirs, version }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn api_versions_requests(name in text(), software_version in text()) {
        for version in versions(ApiKey::ApiVersions) {
            let carried = |text: &str| if version < 3 { String::new() } else { text.to_owned() };
            let ours = ApiVersionsRequest {
                client_software_name: carried(&name).into(),
                client_software_version: carried(&software_version).into(),
            };
            let theirs = messages::ApiVersionsRequest::default()
                .with_client_software_name(carried(&name).into())
                .with_client_software_version(carried(&software_version).into());
            let pair = Pair { ours, theirs, version };
            // Up to version 2 there are no bytes, and nothing to cut short.
            pair.agree(ApiVersionsRequest::encode, ApiVersionsRequest::decode)?;
        }
    }

    /// WIRE-18.
    #[test]
    fn api_versions_responses(full in api_versions_response()) {
        for version in versions(ApiKey::ApiVersions) {
            let mut pair = api_versions_pair(&full, version);
            pair.agree(ApiVersionsResponse::encode, ApiVersionsResponse::decode)?;
            if version >= 3 {
                for api in &mut pair.theirs.api_keys {
                    api.unknown_tagged_fields.insert(9, vec![1, 2].into());
                }
                pair.theirs.unknown_tagged_fields.insert(99, vec![3; 200].into());
                let bytes = witnessed(&pair.theirs, version);
                pair.is_read(&bytes, ApiVersionsResponse::decode)?;
            }
        }
    }

    #[test]
    fn init_producer_id_requests(
        transactional_id in option::of(text()),
        transaction_timeout_ms: i32,
        (producer_id, producer_epoch) in any::<(i64, i16)>(),
    ) {
        for version in versions(ApiKey::InitProducerId) {
            let (producer_id, producer_epoch) =
                if version >= 3 { (producer_id, producer_epoch) } else { (-1, -1) };
            let ours = InitProducerIdRequest {
                transactional_id: transactional_id.as_deref().map(Into::into),
                transaction_timeout_ms,
                producer_id,
                producer_epoch,
            };
            let their_id =
                transactional_id.clone().map(|id| messages::TransactionalId(id.into()));
            let theirs = messages::InitProducerIdRequest::default()
                .with_transactional_id(their_id)
                .with_transaction_timeout_ms(transaction_timeout_ms)
                .with_producer_id(messages::ProducerId(producer_id))
                .with_producer_epoch(producer_epoch);
            Pair { ours, theirs, version }
                .agree(InitProducerIdRequest::encode, InitProducerIdRequest::decode)?;
        }
    }

    /// WIRE-18.
    #[test]
    fn init_producer_id_responses(
        (throttle_time_ms, error_code) in any::<(i32, i16)>(),
        (producer_id, producer_epoch) in any::<(i64, i16)>(),
    ) {
        for version in versions(ApiKey::InitProducerId) {
            let ours = InitProducerIdResponse {
                throttle_time_ms,
                error_code: ErrorCode(error_code),
                producer_id,
                producer_epoch,
            };
            let theirs = messages::InitProducerIdResponse::default()
                .with_throttle_time_ms(throttle_time_ms)
                .with_error_code(error_code)
                .with_producer_id(messages::ProducerId(producer_id))
                .with_producer_epoch(producer_epoch);
            Pair { ours, theirs, version }
                .agree(InitProducerIdResponse::encode, InitProducerIdResponse::decode)?;
        }
    }
}
