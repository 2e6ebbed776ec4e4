//! Metadata: topics by name, brokers, partitions and leaders.

use kafka_producer::internal::protocol::{
    ApiKey, MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use kafka_producer::{ErrorCode, Uuid};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{self, BrokerId, TopicName, metadata_response as theirs};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::{Pair, id, text, their_id, versions, witnessed};

prop_compose! {
    fn partition()(
        (error_code, partition_index, leader_id, leader_epoch) in any::<(i16, i32, i32, i32)>(),
        replica_nodes in vec(any::<i32>(), 0..4),
        isr_nodes in vec(any::<i32>(), 0..4),
        offline_replicas in vec(any::<i32>(), 0..4),
    ) -> MetadataResponsePartition {
        MetadataResponsePartition {
            error_code: ErrorCode(error_code),
            partition_index,
            leader_id,
            leader_epoch,
            replica_nodes,
            isr_nodes,
            offline_replicas,
        }
    }
}

prop_compose! {
    fn topic()(
        error_code: i16,
        name in option::weighted(0.8, text()),
        topic_id in id(),
        is_internal: bool,
        partitions in vec(partition(), 0..4),
    ) -> MetadataResponseTopic {
        MetadataResponseTopic {
            error_code: ErrorCode(error_code),
            name: name.map(Into::into),
            topic_id: Uuid(topic_id),
            is_internal,
            partitions,
        }
    }
}

prop_compose! {
    fn broker()(
        (node_id, port) in any::<(i32, i32)>(),
        host in text(),
        rack in option::of(text()),
    ) -> MetadataResponseBroker {
        MetadataResponseBroker { node_id, host: host.into(), port, rack: rack.map(Into::into) }
    }
}

prop_compose! {
    fn response()(
        (throttle_time_ms, controller_id, error_code) in any::<(i32, i32, i16)>(),
        brokers in vec(broker(), 0..4),
        cluster_id in option::of(text()),
        topics in vec(topic(), 0..4),
    ) -> MetadataResponse {
        MetadataResponse {
            throttle_time_ms,
            brokers,
            cluster_id: cluster_id.map(Into::into),
            controller_id,
            topics,
            error_code: ErrorCode(error_code),
        }
    }
}

/// The response as the version carries it.
fn carried(full: &MetadataResponse, version: i16) -> MetadataResponse {
    let mut response = full.clone();
    if version < 13 {
        response.error_code = ErrorCode::NONE;
    }
    for topic in &mut response.topics {
        if version < 12 {
            topic.name.get_or_insert_with(|| "".into());
        }
        if version < 10 {
            topic.topic_id = Uuid::ZERO;
        }
        for partition in &mut topic.partitions {
            if version < 7 {
                partition.leader_epoch = -1;
            }
            if version < 5 {
                partition.offline_replicas.clear();
            }
        }
    }
    response
}

fn nodes(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn their_partition(partition: &MetadataResponsePartition) -> theirs::MetadataResponsePartition {
    theirs::MetadataResponsePartition::default()
        .with_error_code(partition.error_code.0)
        .with_partition_index(partition.partition_index)
        .with_leader_id(BrokerId(partition.leader_id))
        .with_leader_epoch(partition.leader_epoch)
        .with_replica_nodes(nodes(&partition.replica_nodes))
        .with_isr_nodes(nodes(&partition.isr_nodes))
        .with_offline_replicas(nodes(&partition.offline_replicas))
}

fn their_topic(topic: &MetadataResponseTopic) -> theirs::MetadataResponseTopic {
    theirs::MetadataResponseTopic::default()
        .with_error_code(topic.error_code.0)
        .with_name(topic.name.as_ref().map(|name| TopicName(name.to_string().into())))
        .with_topic_id(their_id(topic.topic_id.0))
        .with_is_internal(topic.is_internal)
        .with_partitions(topic.partitions.iter().map(their_partition).collect())
}

fn their_response(ours: &MetadataResponse) -> messages::MetadataResponse {
    let brokers = ours.brokers.iter().map(|broker| {
        theirs::MetadataResponseBroker::default()
            .with_node_id(BrokerId(broker.node_id))
            .with_host(broker.host.to_string().into())
            .with_port(broker.port)
            .with_rack(broker.rack.as_ref().map(|rack| rack.to_string().into()))
    });
    messages::MetadataResponse::default()
        .with_throttle_time_ms(ours.throttle_time_ms)
        .with_brokers(brokers.collect())
        .with_cluster_id(ours.cluster_id.as_ref().map(|id| id.to_string().into()))
        .with_controller_id(BrokerId(ours.controller_id))
        .with_topics(ours.topics.iter().map(their_topic).collect())
        .with_error_code(ours.error_code.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// WIRE-11.
    #[test]
    fn requests(
        topics in option::weighted(0.8, vec(text(), 0..4)),
        allow_auto_topic_creation: bool,
    ) {
        for version in versions(ApiKey::Metadata) {
            let topics = topics.as_deref();
            let ours = MetadataRequest {
                topics: topics.map(|names| names.iter().map(|name| name.as_str().into()).collect()),
                allow_auto_topic_creation,
            };
            let topic = |name: &String| {
                MetadataRequestTopic::default().with_name(Some(TopicName(name.clone().into())))
            };
            let theirs = messages::MetadataRequest::default()
                .with_topics(topics.map(|names| names.iter().map(topic).collect()))
                .with_allow_auto_topic_creation(allow_auto_topic_creation);
            Pair { ours, theirs, version }
                .agree(MetadataRequest::encode, MetadataRequest::decode)?;
        }
    }

    /// WIRE-13, WIRE-15, WIRE-18.
    #[test]
    fn responses(full in response()) {
        for version in versions(ApiKey::Metadata) {
            let ours = carried(&full, version);
            let theirs = their_response(&ours);
            let mut pair = Pair { ours, theirs, version };
            pair.agree(MetadataResponse::encode, MetadataResponse::decode)?;

            // What we never ask for, and what brokers may add, is passed over.
            if version >= 8 {
                pair.theirs.topics.iter_mut().for_each(|t| t.topic_authorized_operations = 77);
            }
            if (8..=10).contains(&version) {
                pair.theirs.cluster_authorized_operations = 77;
            }
            if version >= 9 {
                pair.theirs.unknown_tagged_fields.insert(7, vec![1].into());
                for topic in &mut pair.theirs.topics {
                    topic.unknown_tagged_fields.insert(0, vec![2; 130].into());
                    for partition in &mut topic.partitions {
                        partition.unknown_tagged_fields.insert(1, vec![].into());
                    }
                }
            }
            let bytes = witnessed(&pair.theirs, version);
            pair.is_read(&bytes, MetadataResponse::decode)?;
        }
    }
}
