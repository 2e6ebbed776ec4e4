//! Kafka's error codes, and what each means for a producer: whether to try again, whether to ask
//! for metadata first, and whether it proves that a batch is not in the log.

use std::fmt;

use crate::error::ErrorClass::{
    self, ApplicationRecoverable, Fatal, InvalidConfiguration, RefreshRetriable, Retriable,
};

/// An error code of the Kafka protocol; may be one that this crate does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub i16);

/// Makes the constants and the table that the methods read.
macro_rules! error_codes {
    ($($code:literal $name:ident $class:ident $message:literal)*) => {
        impl ErrorCode {
            $(#[doc = $message] pub const $name: Self = Self($code);)*

            /// All codes that this crate knows, lowest first.
            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self($code)),*];

            fn entry(self) -> Option<(&'static str, ErrorClass, &'static str)> {
                match self.0 {
                    $($code => Some((stringify!($name), $class, $message)),)*
                    _ => None,
                }
            }
        }
    };
}

// The classes are those of Kafka 4.3's exceptions (KIP-1050): RetriableException and its subclass
// RefreshRetriableException, ApplicationRecoverableException, InvalidConfigurationException. What
// Kafka leaves without a class is fatal here, save for errors that concern one record or batch and
// leave the producer usable (10, 32, 45, 46, 59). `NONE` is not asked for its class.
error_codes! {
    -1 UNKNOWN_SERVER_ERROR Fatal "The broker failed unexpectedly; its log says why."
    0 NONE ApplicationRecoverable "No error."
    1 OFFSET_OUT_OF_RANGE Fatal "The offset is not in the partition's log."
    2 CORRUPT_MESSAGE Retriable "The batch is damaged, or lacks a key that a compacted topic needs."
    3 UNKNOWN_TOPIC_OR_PARTITION RefreshRetriable "The broker does not host this partition."
    4 INVALID_FETCH_SIZE Fatal "The fetch size is invalid."
    5 LEADER_NOT_AVAILABLE RefreshRetriable "The partition has no leader for now."
    6 NOT_LEADER_OR_FOLLOWER RefreshRetriable "The broker is not the partition's leader."
    7 REQUEST_TIMED_OUT Retriable "The broker could not finish the request in time."
    8 BROKER_NOT_AVAILABLE Fatal "The broker is not available."
    9 REPLICA_NOT_AVAILABLE RefreshRetriable "The replica is not available."
    10 MESSAGE_TOO_LARGE InvalidConfiguration "The batch is larger than max.message.bytes allows."
    11 STALE_CONTROLLER_EPOCH Fatal "The controller has moved."
    12 OFFSET_METADATA_TOO_LARGE Fatal "The offset's metadata is too large."
    13 NETWORK_EXCEPTION RefreshRetriable "The connection was lost before the answer."
    14 COORDINATOR_LOAD_IN_PROGRESS Retriable "The coordinator is still loading."
    15 COORDINATOR_NOT_AVAILABLE RefreshRetriable "There is no coordinator for now."
    16 NOT_COORDINATOR RefreshRetriable "The broker is not the coordinator."
    17 INVALID_TOPIC_EXCEPTION InvalidConfiguration "The topic's name is invalid or reserved."
    18 RECORD_LIST_TOO_LARGE InvalidConfiguration "The batch is larger than a log segment."
    19 NOT_ENOUGH_REPLICAS Retriable "Fewer replicas are in sync than min.insync.replicas."
    20 NOT_ENOUGH_REPLICAS_AFTER_APPEND Retriable "Appended, but too few replicas have it."
    21 INVALID_REQUIRED_ACKS InvalidConfiguration "The value of acks is invalid."
    22 ILLEGAL_GENERATION ApplicationRecoverable "The group's generation is another one."
    23 INCONSISTENT_GROUP_PROTOCOL Fatal "The member's protocols do not match the group's."
    24 INVALID_GROUP_ID Fatal "The group id is invalid."
    25 UNKNOWN_MEMBER_ID ApplicationRecoverable "The group does not know this member."
    26 INVALID_SESSION_TIMEOUT Fatal "The session time-out is out of the broker's range."
    27 REBALANCE_IN_PROGRESS Fatal "The group is rebalancing."
    28 INVALID_COMMIT_OFFSET_SIZE Fatal "The offset commit is too large."
    29 TOPIC_AUTHORIZATION_FAILED InvalidConfiguration "Access to the topic is denied."
    30 GROUP_AUTHORIZATION_FAILED InvalidConfiguration "Access to the group is denied."
    31 CLUSTER_AUTHORIZATION_FAILED InvalidConfiguration "Access to the cluster is denied."
    32 INVALID_TIMESTAMP ApplicationRecoverable "A record's timestamp is out of the topic's range."
    33 UNSUPPORTED_SASL_MECHANISM InvalidConfiguration "The broker lacks this SASL mechanism."
    34 ILLEGAL_SASL_STATE InvalidConfiguration "The request does not fit the SASL exchange."
    35 UNSUPPORTED_VERSION InvalidConfiguration "The broker lacks this version of the request."
    36 TOPIC_ALREADY_EXISTS Fatal "A topic of this name exists."
    37 INVALID_PARTITIONS Fatal "The number of partitions is below 1."
    38 INVALID_REPLICATION_FACTOR InvalidConfiguration "The replication factor can't be met."
    39 INVALID_REPLICA_ASSIGNMENT Fatal "The replica assignment is invalid."
    40 INVALID_CONFIG Fatal "A setting is invalid."
    41 NOT_CONTROLLER Retriable "The broker is not the controller."
    42 INVALID_REQUEST Fatal "The broker could not make sense of the request."
    43 UNSUPPORTED_FOR_MESSAGE_FORMAT InvalidConfiguration "The topic's message format is too old."
    44 POLICY_VIOLATION Fatal "A policy of the cluster forbids it."
    45 OUT_OF_ORDER_SEQUENCE_NUMBER ApplicationRecoverable "The batch does not follow the last one."
    46 DUPLICATE_SEQUENCE_NUMBER ApplicationRecoverable "The batch is in the log already."
    47 INVALID_PRODUCER_EPOCH ApplicationRecoverable "The producer's epoch is outdated."
    48 INVALID_TXN_STATE Fatal "The transaction is in another state."
    49 INVALID_PRODUCER_ID_MAPPING ApplicationRecoverable "The producer id has another owner."
    50 INVALID_TRANSACTION_TIMEOUT Fatal "The transaction time-out is above the broker's limit."
    51 CONCURRENT_TRANSACTIONS Retriable "The transaction is being changed already."
    52 TRANSACTION_COORDINATOR_FENCED Fatal "The coordinator that asks is outdated."
    53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED InvalidConfiguration "The transactional id is denied."
    54 SECURITY_DISABLED Fatal "Security is not enabled."
    55 OPERATION_NOT_ATTEMPTED Fatal "Not tried, since another part of the request failed."
    56 KAFKA_STORAGE_ERROR RefreshRetriable "The broker's disk failed."
    57 LOG_DIR_NOT_FOUND Fatal "The broker has no such log directory."
    58 SASL_AUTHENTICATION_FAILED InvalidConfiguration "The credentials were refused."
    59 UNKNOWN_PRODUCER_ID ApplicationRecoverable "The broker has forgotten this producer."
    60 REASSIGNMENT_IN_PROGRESS Fatal "The partition is being reassigned."
    61 DELEGATION_TOKEN_AUTH_DISABLED Fatal "Delegation tokens are not enabled."
    62 DELEGATION_TOKEN_NOT_FOUND Fatal "The delegation token is not known."
    63 DELEGATION_TOKEN_OWNER_MISMATCH Fatal "The delegation token is not of this owner."
    64 DELEGATION_TOKEN_REQUEST_NOT_ALLOWED Fatal "Not allowed over this connection."
    65 DELEGATION_TOKEN_AUTHORIZATION_FAILED InvalidConfiguration "The delegation token is denied."
    66 DELEGATION_TOKEN_EXPIRED Fatal "The delegation token has expired."
    67 INVALID_PRINCIPAL_TYPE Fatal "The type of principal is not supported."
    68 NON_EMPTY_GROUP Fatal "The group has members."
    69 GROUP_ID_NOT_FOUND Fatal "The group does not exist."
    70 FETCH_SESSION_ID_NOT_FOUND Retriable "The fetch session is not known."
    71 INVALID_FETCH_SESSION_EPOCH Retriable "The fetch session's epoch is another one."
    72 LISTENER_NOT_FOUND RefreshRetriable "The leader has no listener like the one asked."
    73 TOPIC_DELETION_DISABLED Fatal "Topics can't be deleted here."
    74 FENCED_LEADER_EPOCH RefreshRetriable "The leader epoch is older than the broker's."
    75 UNKNOWN_LEADER_EPOCH Retriable "The leader epoch is newer than the broker's."
    76 UNSUPPORTED_COMPRESSION_TYPE Fatal "The compression is not supported here."
    77 STALE_BROKER_EPOCH Fatal "The broker's epoch is outdated."
    78 OFFSET_NOT_AVAILABLE Retriable "The new leader does not know its offsets yet."
    79 MEMBER_ID_REQUIRED Fatal "The member needs an id first."
    80 PREFERRED_LEADER_NOT_AVAILABLE RefreshRetriable "The preferred leader is not available."
    81 GROUP_MAX_SIZE_REACHED Fatal "The group is full."
    82 FENCED_INSTANCE_ID ApplicationRecoverable "Another member took this instance id."
    83 ELIGIBLE_LEADERS_NOT_AVAILABLE RefreshRetriable "No eligible leader is available."
    84 ELECTION_NOT_NEEDED RefreshRetriable "The leader needs no election."
    85 NO_REASSIGNMENT_IN_PROGRESS Fatal "The partition is not being reassigned."
    86 GROUP_SUBSCRIBED_TO_TOPIC Fatal "The group uses the topic."
    87 INVALID_RECORD InvalidConfiguration "A record failed the broker's checks."
    88 UNSTABLE_OFFSET_COMMIT Retriable "Offsets of a transaction are pending."
    89 THROTTLING_QUOTA_EXCEEDED Retriable "A quota is used up for now."
    90 PRODUCER_FENCED ApplicationRecoverable "A newer producer has this transactional id."
    91 RESOURCE_NOT_FOUND Fatal "The resource does not exist."
    92 DUPLICATE_RESOURCE Fatal "The resource is named twice."
    93 UNACCEPTABLE_CREDENTIAL Fatal "The credential does not meet the criteria."
    94 INCONSISTENT_VOTER_SET Fatal "A voter is missing from the set."
    95 INVALID_UPDATE_VERSION Fatal "The update's version is invalid."
    96 FEATURE_UPDATE_FAILED Fatal "The features could not be updated."
    97 PRINCIPAL_DESERIALIZATION_FAILURE Fatal "A forwarded principal could not be read."
    98 SNAPSHOT_NOT_FOUND Fatal "The snapshot does not exist."
    99 POSITION_OUT_OF_RANGE Fatal "The position is outside the snapshot."
    100 UNKNOWN_TOPIC_ID RefreshRetriable "The broker does not host a topic of this id."
    101 DUPLICATE_BROKER_REGISTRATION Fatal "The broker id is in use."
    102 BROKER_ID_NOT_REGISTERED Fatal "The broker id is not registered."
    103 INCONSISTENT_TOPIC_ID RefreshRetriable "The topic's id is another one."
    104 INCONSISTENT_CLUSTER_ID Fatal "The cluster's id is another one."
    105 TRANSACTIONAL_ID_NOT_FOUND Fatal "The transactional id does not exist."
    106 FETCH_SESSION_TOPIC_ID_ERROR Retriable "The fetch session mixed topic ids and names."
    107 INELIGIBLE_REPLICA Fatal "A replica may not be in sync."
    108 NEW_LEADER_ELECTED Fatal "The partition has a new leader."
    109 OFFSET_MOVED_TO_TIERED_STORAGE Fatal "The offset is in tiered storage."
    110 FENCED_MEMBER_EPOCH Fatal "The member's epoch is fenced."
    111 UNRELEASED_INSTANCE_ID Fatal "Another member still has the instance id."
    112 UNSUPPORTED_ASSIGNOR Fatal "The group does not support the assignor."
    113 STALE_MEMBER_EPOCH Fatal "The member's epoch is outdated."
    114 MISMATCHED_ENDPOINT_TYPE Fatal "The request went to the wrong kind of endpoint."
    115 UNSUPPORTED_ENDPOINT_TYPE Fatal "The kind of endpoint is not supported."
    116 UNKNOWN_CONTROLLER_ID Fatal "The controller id is not known."
    117 UNKNOWN_SUBSCRIPTION_ID Fatal "The telemetry subscription is outdated."
    118 TELEMETRY_TOO_LARGE Fatal "The telemetry is larger than the broker accepts."
    119 INVALID_REGISTRATION Fatal "The broker's registration is invalid."
    120 TRANSACTION_ABORTABLE Fatal "The transaction failed; it can be aborted."
    121 INVALID_RECORD_STATE Fatal "The record can't be acknowledged."
    122 SHARE_SESSION_NOT_FOUND Retriable "The share session is not known."
    123 INVALID_SHARE_SESSION_EPOCH Retriable "The share session's epoch is another one."
    124 FENCED_STATE_EPOCH Fatal "The share group's state epoch is another one."
    125 INVALID_VOTER_KEY Fatal "The voter's key is another one."
    126 DUPLICATE_VOTER Fatal "The voter is in the set already."
    127 VOTER_NOT_FOUND Fatal "The voter is not in the set."
    128 INVALID_REGULAR_EXPRESSION Fatal "The regular expression is invalid."
    129 REBOOTSTRAP_REQUIRED Fatal "Metadata is outdated; start from the bootstrap servers."
    130 STREAMS_INVALID_TOPOLOGY Fatal "The topology is invalid."
    131 STREAMS_INVALID_TOPOLOGY_EPOCH Fatal "The topology's epoch is invalid."
    132 STREAMS_TOPOLOGY_FENCED Fatal "The topology's epoch is outdated."
    133 SHARE_SESSION_LIMIT_REACHED Retriable "The broker has too many share sessions."
}

impl ErrorCode {
    /// Whether the code says that all went well.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// The code's name, as Kafka spells it. A code that this crate does not know counts as
    /// `UNKNOWN_SERVER_ERROR`, as it does in Java.
    pub fn name(self) -> &'static str {
        self.entry_or_unknown().0
    }

    /// What the code means, in short.
    pub fn message(self) -> &'static str {
        self.entry_or_unknown().2
    }

    /// The kind of reaction that this error calls for, after KIP-1050.
    pub fn class(self) -> ErrorClass {
        self.entry_or_unknown().1
    }

    fn entry_or_unknown(self) -> (&'static str, ErrorClass, &'static str) {
        let unknown = ("UNKNOWN_SERVER_ERROR", Fatal, "An error that this client does not know.");
        self.entry().unwrap_or(unknown)
    }

    /// Whether the same request may succeed later (Java's `RetriableException`).
    pub fn is_retriable(self) -> bool {
        matches!(self.class(), Retriable | RefreshRetriable)
    }

    /// Whether the error calls for fresh metadata (Java's `InvalidMetadataException`).
    pub fn is_invalid_metadata(self) -> bool {
        // These two ask for the coordinator instead.
        let coordinator = matches!(self, Self::COORDINATOR_NOT_AVAILABLE | Self::NOT_COORDINATOR);
        self.class() == RefreshRetriable && !coordinator
    }

    /// Whether a batch whose produce request was answered with this code is surely not in the log
    /// because of that request.
    ///
    /// Only codes that a broker gives before it appends are here. With acks=all a broker appends,
    /// waits for the replicas, and can answer with an error after all; left out for that reason are
    /// - `NOT_LEADER_OR_FOLLOWER`, `UNKNOWN_TOPIC_OR_PARTITION`, `UNKNOWN_TOPIC_ID`,
    ///   `FENCED_LEADER_EPOCH`: the leadership or the replica went away during the wait, and the
    ///   new leader may have the batch;
    /// - `KAFKA_STORAGE_ERROR`: the disk may have failed during the wait or half-way in the append;
    /// - `REQUEST_TIMED_OUT`, `NOT_ENOUGH_REPLICAS_AFTER_APPEND`: appended, by definition;
    /// - `DUPLICATE_SEQUENCE_NUMBER`: an earlier attempt was appended;
    /// - `UNKNOWN_SERVER_ERROR`, `NETWORK_EXCEPTION`, `INVALID_REQUEST` and all that is not known:
    ///   they can come from anywhere.
    pub fn proves_not_appended(self) -> bool {
        matches!(
            self,
            // Access and the request as a whole, before any partition is looked at.
            Self::TOPIC_AUTHORIZATION_FAILED
                | Self::CLUSTER_AUTHORIZATION_FAILED
                | Self::TRANSACTIONAL_ID_AUTHORIZATION_FAILED
                | Self::INVALID_REQUIRED_ACKS
                | Self::UNSUPPORTED_VERSION
                | Self::INVALID_TOPIC_EXCEPTION
                // The number of in-sync replicas before the append; afterwards it is code 20.
                | Self::NOT_ENOUGH_REPLICAS
                // The check of the batch and of its records.
                | Self::CORRUPT_MESSAGE
                | Self::MESSAGE_TOO_LARGE
                | Self::RECORD_LIST_TOO_LARGE
                | Self::INVALID_TIMESTAMP
                | Self::INVALID_RECORD
                | Self::UNSUPPORTED_FOR_MESSAGE_FORMAT
                | Self::UNSUPPORTED_COMPRESSION_TYPE
                // The check of producer id, epoch and sequence, under the log's lock.
                | Self::OUT_OF_ORDER_SEQUENCE_NUMBER
                | Self::INVALID_PRODUCER_EPOCH
                | Self::PRODUCER_FENCED
                | Self::UNKNOWN_PRODUCER_ID
                // The check of the transaction with its coordinator (KIP-890).
                | Self::INVALID_TXN_STATE
                | Self::INVALID_PRODUCER_ID_MAPPING
                | Self::CONCURRENT_TRANSACTIONS
                | Self::TRANSACTION_ABORTABLE
                | Self::COORDINATOR_LOAD_IN_PROGRESS
                | Self::COORDINATOR_NOT_AVAILABLE
                | Self::NOT_COORDINATOR
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(keep: impl Fn(ErrorCode) -> bool) -> Vec<i16> {
        ErrorCode::ALL.iter().copied().filter(|code| keep(*code)).map(|code| code.0).collect()
    }

    /// WIRE-17.
    #[test]
    fn every_code_up_to_the_last_has_its_own_name() {
        assert_eq!(codes(|_| true), (-1..=133).collect::<Vec<_>>());
        let mut names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorCode::ALL.len());
    }

    /// Printed by Kafka 4.3.1's own `Errors`: codes whose exception is a RetriableException.
    #[test]
    fn retriable_are_the_codes_that_java_retries() {
        let retriable = [
            2, 3, 5, 6, 7, 9, 13, 14, 15, 16, 19, 20, 41, 51, 56, 70, 71, 72, 74, 75, 78, 80, 83,
            84, 88, 89, 100, 103, 106, 122, 123, 133,
        ];
        assert_eq!(codes(ErrorCode::is_retriable), retriable);
    }

    /// Printed by Kafka 4.3.1's own `Errors`: codes whose exception is an InvalidMetadataException.
    #[test]
    fn metadata_is_refreshed_for_the_codes_for_which_java_does() {
        let refresh = [3, 5, 6, 9, 13, 56, 72, 74, 80, 83, 84, 100, 103];
        assert_eq!(codes(ErrorCode::is_invalid_metadata), refresh);
    }

    /// Printed by Kafka 4.3.1's own `Errors`.
    #[test]
    fn configuration_and_application_errors_are_those_of_java_and_the_documented_additions() {
        let configuration = [10, 17, 18, 21, 29, 30, 31, 33, 34, 35, 38, 43, 53, 58, 65, 87];
        assert_eq!(codes(|code| code.class() == InvalidConfiguration), configuration);
        let application = [0, 22, 25, 32, 45, 46, 47, 49, 59, 82, 90];
        assert_eq!(codes(|code| code.class() == ApplicationRecoverable), application);
    }

    #[test]
    fn errors_that_can_follow_an_append_prove_nothing() {
        for code in [
            ErrorCode::NONE,
            ErrorCode::UNKNOWN_SERVER_ERROR,
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            ErrorCode::NOT_LEADER_OR_FOLLOWER,
            ErrorCode::REQUEST_TIMED_OUT,
            ErrorCode::NETWORK_EXCEPTION,
            ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            ErrorCode::INVALID_REQUEST,
            ErrorCode::DUPLICATE_SEQUENCE_NUMBER,
            ErrorCode::KAFKA_STORAGE_ERROR,
            ErrorCode::FENCED_LEADER_EPOCH,
            ErrorCode::UNKNOWN_TOPIC_ID,
            ErrorCode(999),
        ] {
            assert!(!code.proves_not_appended(), "{code}");
        }
    }

    #[test]
    fn only_these_codes_prove_that_nothing_was_appended() {
        let proofs = [
            2, 10, 14, 15, 16, 17, 18, 19, 21, 29, 31, 32, 35, 43, 45, 47, 48, 49, 51, 53, 59, 76,
            87, 90, 120,
        ];
        assert_eq!(codes(ErrorCode::proves_not_appended), proofs);
    }

    /// WIRE-17.
    #[test]
    fn a_code_prints_its_name_and_number_and_an_unknown_one_counts_as_an_unknown_error() {
        assert_eq!(ErrorCode::NOT_ENOUGH_REPLICAS.to_string(), "NOT_ENOUGH_REPLICAS (19)");
        assert_eq!(ErrorCode(999).to_string(), "UNKNOWN_SERVER_ERROR (999)");
        assert!(!ErrorCode(999).is_retriable());
    }
}
