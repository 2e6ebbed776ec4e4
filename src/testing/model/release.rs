//! The Kafka releases that a broker of the model can be, and how older ones differ from 4.3.1.
//!
//! The version ranges are what real brokers of these releases answer to ApiVersions. The rest is
//! what a producer can tell a release by: what it remembers of idempotent producers, and the error
//! codes that came later. Any other check is that of 4.3.1.

use std::collections::BTreeMap;

use crate::protocol::{ApiKey, ErrorCode, VersionRange};

/// A release of Kafka that the test broker can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Release {
    /// 0.11.0, the first with idempotence: of each producer it knows the last batch alone.
    V0_11,
    /// 1.0.0, the only one to answer `DUPLICATE_SEQUENCE_NUMBER`.
    V1_0,
    /// 1.1.
    V1_1,
    /// 2.0, the last whose producers have to start with sequence 0 here (until 2.5, KIP-360).
    V2_0,
    /// 2.8.
    V2_8,
    /// 3.9.
    V3_9,
    /// 4.0.
    V4_0,
    /// 4.3.
    #[default]
    V4_3,
}

/// What a partition's leader remembers of producers, and makes of what it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerRules {
    /// How many batches of a producer are known as duplicates.
    pub(crate) remembered: usize,
    /// What a producer that is not known meets if it does not start at 0; `None`: it may.
    pub(crate) unknown: Option<ErrorCode>,
    /// Deleting a producer's last record makes the partition forget it.
    pub(crate) deletion_forgets: bool,
    /// What lies before all that is remembered is taken for a duplicate.
    pub(crate) older_is_duplicate: bool,
}

impl ProducerRules {
    /// Those of Kafka 4.3.1.
    pub(crate) const LATEST: Self =
        Self { remembered: 5, unknown: None, deletion_forgets: false, older_is_duplicate: false };
}

impl Release {
    /// All of them, oldest first.
    pub const ALL: [Self; 8] = [
        Self::V0_11,
        Self::V1_0,
        Self::V1_1,
        Self::V2_0,
        Self::V2_8,
        Self::V3_9,
        Self::V4_0,
        Self::V4_3,
    ];

    /// What a broker says that it supports, as far as the model does too.
    pub(crate) fn versions(self) -> BTreeMap<ApiKey, VersionRange> {
        let [produce, metadata, api_versions, init_producer_id] = match self {
            Self::V0_11 => [3, 4, 1, 0],
            Self::V1_0 | Self::V1_1 => [5, 5, 1, 0],
            Self::V2_0 => [6, 6, 2, 1],
            Self::V2_8 => [9, 11, 3, 4],
            Self::V3_9 => [11, 12, 4, 5],
            Self::V4_0 => [12, 13, 4, 5],
            // 4.x offers Produce from 0 but closes the connection below 3 (KAFKA-18659).
            Self::V4_3 => [13, 13, 4, 5],
        };
        let up_to = |max| VersionRange { min: 0, max };
        BTreeMap::from([
            (ApiKey::Produce, up_to(produce)),
            (ApiKey::Metadata, up_to(metadata)),
            (ApiKey::ApiVersions, up_to(api_versions)),
            (ApiKey::InitProducerId, up_to(init_producer_id)),
        ])
    }

    /// The versions of Fetch, which is offered and never answered: librdkafka takes a broker
    /// without it for one too old to know record batches.
    pub(crate) fn fetch_versions(self) -> VersionRange {
        let (min, max) = match self {
            Self::V0_11 => (0, 5),
            Self::V1_0 | Self::V1_1 => (0, 6),
            Self::V2_0 => (0, 8),
            Self::V2_8 => (0, 12),
            Self::V3_9 => (0, 17),
            Self::V4_0 => (4, 17),
            Self::V4_3 => (4, 18),
        };
        VersionRange { min, max }
    }

    /// Whether ApiVersions in a version that is too new is answered with the range of this API
    /// (2.4, KIP-511) instead of with none.
    pub(crate) fn tells_api_versions_range(self) -> bool {
        self >= Self::V2_8
    }

    /// Whether it has features to list: KRaft clusters do.
    pub(crate) fn has_features(self) -> bool {
        self >= Self::V3_9
    }

    /// What Metadata says of a topic that it has just created.
    pub(crate) fn code_of_new_topic(self) -> ErrorCode {
        if self >= Self::V3_9 {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        } else {
            ErrorCode::LEADER_NOT_AVAILABLE
        }
    }

    /// Whether a throttled response is sent at once and the connection not read for so long
    /// (2.0, KIP-219); before, the response was held back.
    pub(crate) fn throttles_after_response(self) -> bool {
        self >= Self::V2_0
    }

    /// The default of `log.message.timestamp.after.max.ms`, in milliseconds.
    pub(crate) fn timestamp_after_max_ms(self) -> i64 {
        if self >= Self::V4_0 { 3_600_000 } else { i64::MAX }
    }

    pub(crate) fn producer_rules(self) -> ProducerRules {
        let latest = ProducerRules::LATEST;
        let before_kip_360 = ProducerRules {
            unknown: Some(ErrorCode::UNKNOWN_PRODUCER_ID),
            deletion_forgets: true,
            ..latest
        };
        match self {
            Self::V0_11 => ProducerRules {
                remembered: 1,
                unknown: Some(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER),
                ..before_kip_360
            },
            Self::V1_0 => ProducerRules { older_is_duplicate: true, ..before_kip_360 },
            Self::V1_1 | Self::V2_0 => before_kip_360,
            Self::V2_8 | Self::V3_9 | Self::V4_0 | Self::V4_3 => latest,
        }
    }

    /// The code that this release gives in a produce response of `version` where 4.3.1 gives
    /// `code`.
    pub(crate) fn produce_code(self, code: ErrorCode, version: i16) -> ErrorCode {
        match code {
            // A code of its own came with 2.4 (KIP-467).
            ErrorCode::INVALID_RECORD if self < Self::V2_8 => ErrorCode::CORRUPT_MESSAGE,
            ErrorCode::KAFKA_STORAGE_ERROR if version < 4 => ErrorCode::NOT_LEADER_OR_FOLLOWER,
            code => code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_offers_what_this_crate_can_speak() {
        for release in Release::ALL {
            for (key, offered) in release.versions() {
                assert!(key.supported().highest_common(offered).is_some(), "{release:?} {key:?}");
            }
        }
        assert_eq!(Release::default().versions()[&ApiKey::Produce].max, 13);
    }

    #[test]
    fn releases_are_ordered_and_no_range_ever_shrinks() {
        assert!(Release::ALL.is_sorted());
        for pair in Release::ALL.windows(2) {
            for (key, offered) in pair[0].versions() {
                assert!(pair[1].versions()[&key].max >= offered.max, "{pair:?} {key:?}");
            }
        }
    }
}
