//! Metadata (key 3), versions 4 to 13: the brokers, and topics with their partitions' leaders.

use std::sync::Arc;

use super::wire::{Decoded, Reader, Writer};
use super::{ApiKey, ErrorCode};
use crate::types::Uuid;

/// What stands for "not asked for" in the place of authorized operations (KIP-430).
const NO_AUTHORIZED_OPERATIONS: i32 = i32::MIN;

/// Asks for topics by name, or for all topics. Authorized operations are never asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataRequest {
    /// The topics' names. `None` is all topics of the cluster, an empty list no topic at all.
    pub topics: Option<Vec<Arc<str>>>,
    /// Whether the broker may create topics that do not exist, if it is set to do so.
    pub allow_auto_topic_creation: bool,
}

impl MetadataRequest {
    /// Appends the request's body.
    pub fn encode(&self, version: i16, out: &mut Vec<u8>) {
        let mut w = Writer::new(out, ApiKey::Metadata.is_flexible(version));
        w.length(self.topics.as_ref().map(Vec::len));
        for name in self.topics.iter().flatten() {
            if version >= 10 {
                w.uuid(Uuid::ZERO);
            }
            w.string(name);
            w.no_tagged_fields();
        }
        w.bool(self.allow_auto_topic_creation);
        if (8..=10).contains(&version) {
            w.bool(false);
        }
        if version >= 8 {
            w.bool(false);
        }
        w.no_tagged_fields();
    }

    /// Reads the request's body. A topic asked for by id only is an error: this crate asks by name.
    pub fn decode(r: &mut Reader<'_>, version: i16) -> Decoded<Self> {
        r.set_flexible(ApiKey::Metadata.is_flexible(version));
        let topics = r.nullable_array(|r| {
            if version >= 10 {
                r.uuid()?;
            }
            let name = r.text()?;
            r.skip_tagged_fields()?;
            Ok(name)
        })?;
        let allow_auto_topic_creation = r.bool()?;
        if (8..=10).contains(&version) {
            r.bool()?;
        }
        if version >= 8 {
            r.bool()?;
        }
        r.skip_tagged_fields()?;
        Ok(Self { topics, allow_auto_topic_creation })
    }
}

/// The cluster as one broker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataResponse {
    /// Milliseconds for which the client is to leave the broker alone.
    pub throttle_time_ms: i32,
    /// The brokers that are alive.
    pub brokers: Vec<MetadataResponseBroker>,
    /// The cluster's id.
    pub cluster_id: Option<Arc<str>>,
    /// The controller's node id, or -1.
    pub controller_id: i32,
    /// The topics that were asked for.
    pub topics: Vec<MetadataResponseTopic>,
    /// An error of the whole request, or `NONE`: with `REBOOTSTRAP_REQUIRED` the client is to start
    /// again from its bootstrap servers (version 13, KIP-1102).
    pub error_code: ErrorCode,
}

/// A broker's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataResponseBroker {
    /// The broker's node id.
    pub node_id: i32,
    /// The host to connect to.
    pub host: Arc<str>,
    /// The port to connect to.
    pub port: i32,
    /// The broker's rack.
    pub rack: Option<Arc<str>>,
}

/// A topic, or why there is nothing to tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataResponseTopic {
    /// The topic's error, or `NONE`.
    pub error_code: ErrorCode,
    /// The topic's name; null only for topics asked for by id (version 12 and later).
    pub name: Option<Arc<str>>,
    /// The topic's id (version 10 and later), or zero.
    pub topic_id: Uuid,
    /// Whether Kafka keeps its own data in the topic.
    pub is_internal: bool,
    /// The topic's partitions, in no set order.
    pub partitions: Vec<MetadataResponsePartition>,
}

/// A partition and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataResponsePartition {
    /// The partition's error, or `NONE`; replicas are valid even with some errors.
    pub error_code: ErrorCode,
    /// The partition's number.
    pub partition_index: i32,
    /// The leader's node id, or -1.
    pub leader_id: i32,
    /// The leader's epoch (version 7 and later), or -1.
    pub leader_epoch: i32,
    /// The brokers that hold the partition.
    pub replica_nodes: Vec<i32>,
    /// Those of them that are in sync with the leader.
    pub isr_nodes: Vec<i32>,
    /// Those of them that are offline (version 5 and later).
    pub offline_replicas: Vec<i32>,
}

impl MetadataResponse {
    /// Appends the response's body.
    pub fn encode(&self, version: i16, out: &mut Vec<u8>) {
        let mut w = Writer::new(out, ApiKey::Metadata.is_flexible(version));
        w.i32(self.throttle_time_ms);
        w.array(&self.brokers, |w, broker| broker.encode(w));
        w.nullable_string(self.cluster_id.as_deref());
        w.i32(self.controller_id);
        w.array(&self.topics, |w, topic| topic.encode(version, w));
        if (8..=10).contains(&version) {
            w.i32(NO_AUTHORIZED_OPERATIONS);
        }
        if version >= 13 {
            w.i16(self.error_code.0);
        }
        w.no_tagged_fields();
    }

    /// Reads the response's body; what the version lacks is `NONE`, zero, -1 or empty.
    pub fn decode(r: &mut Reader<'_>, version: i16) -> Decoded<Self> {
        r.set_flexible(ApiKey::Metadata.is_flexible(version));
        let throttle_time_ms = r.i32()?;
        let brokers = r.array(MetadataResponseBroker::decode)?;
        let cluster_id = r.nullable_text()?;
        let controller_id = r.i32()?;
        let topics = r.array(|r| MetadataResponseTopic::decode(r, version))?;
        if (8..=10).contains(&version) {
            r.i32()?;
        }
        let error_code = if version >= 13 { ErrorCode(r.i16()?) } else { ErrorCode::NONE };
        r.skip_tagged_fields()?;
        Ok(Self { throttle_time_ms, brokers, cluster_id, controller_id, topics, error_code })
    }
}

impl MetadataResponseBroker {
    fn encode(&self, w: &mut Writer<'_>) {
        w.i32(self.node_id);
        w.string(&self.host);
        w.i32(self.port);
        w.nullable_string(self.rack.as_deref());
        w.no_tagged_fields();
    }

    fn decode(r: &mut Reader<'_>) -> Decoded<Self> {
        let (node_id, host, port) = (r.i32()?, r.text()?, r.i32()?);
        let rack = r.nullable_text()?;
        r.skip_tagged_fields()?;
        Ok(Self { node_id, host, port, rack })
    }
}

impl MetadataResponseTopic {
    fn encode(&self, version: i16, w: &mut Writer<'_>) {
        w.i16(self.error_code.0);
        if version >= 12 {
            w.nullable_string(self.name.as_deref());
        } else {
            debug_assert!(self.name.is_some(), "only version 12 and later can leave names out");
            w.string(self.name.as_deref().unwrap_or_default());
        }
        if version >= 10 {
            w.uuid(self.topic_id);
        }
        w.bool(self.is_internal);
        w.array(&self.partitions, |w, partition| partition.encode(version, w));
        if version >= 8 {
            w.i32(NO_AUTHORIZED_OPERATIONS);
        }
        w.no_tagged_fields();
    }

    fn decode(r: &mut Reader<'_>, version: i16) -> Decoded<Self> {
        let error_code = ErrorCode(r.i16()?);
        let name = if version >= 12 { r.nullable_text()? } else { Some(r.text()?) };
        let topic_id = if version >= 10 { r.uuid()? } else { Uuid::ZERO };
        let is_internal = r.bool()?;
        let partitions = r.array(|r| MetadataResponsePartition::decode(r, version))?;
        if version >= 8 {
            r.i32()?;
        }
        r.skip_tagged_fields()?;
        Ok(Self { error_code, name, topic_id, is_internal, partitions })
    }
}

impl MetadataResponsePartition {
    fn encode(&self, version: i16, w: &mut Writer<'_>) {
        w.i16(self.error_code.0);
        w.i32(self.partition_index);
        w.i32(self.leader_id);
        if version >= 7 {
            w.i32(self.leader_epoch);
        }
        w.array(&self.replica_nodes, |w, node| w.i32(*node));
        w.array(&self.isr_nodes, |w, node| w.i32(*node));
        if version >= 5 {
            w.array(&self.offline_replicas, |w, node| w.i32(*node));
        }
        w.no_tagged_fields();
    }

    fn decode(r: &mut Reader<'_>, version: i16) -> Decoded<Self> {
        let partition = Self {
            error_code: ErrorCode(r.i16()?),
            partition_index: r.i32()?,
            leader_id: r.i32()?,
            leader_epoch: if version >= 7 { r.i32()? } else { -1 },
            replica_nodes: r.array(Reader::i32)?,
            isr_nodes: r.array(Reader::i32)?,
            offline_replicas: if version >= 5 { r.array(Reader::i32)? } else { Vec::new() },
        };
        r.skip_tagged_fields()?;
        Ok(partition)
    }
}
