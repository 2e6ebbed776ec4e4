//! From a request's bytes to a response's, for every API but Produce, which has a file of its own.

use std::sync::Arc;

use crate::producer::record::validate_topic;
use crate::protocol::ErrorCode;
use crate::protocol::{
    ApiKey, ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeature,
    InitProducerIdRequest, InitProducerIdResponse, MetadataRequest, MetadataResponse,
    MetadataResponseTopic, ProduceRequest, Reader, RequestHeader, SupportedFeature, TopicRef,
    VersionRange, encode_response,
};
use crate::testing::faults::{Plan, Target};
use crate::types::Uuid;

use super::Model;

/// A request, taken apart; the records of a produce request are still in the frame.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    pub(crate) key: ApiKey,
    version: i16,
    correlation_id: i32,
    pub(crate) request: Request<'a>,
}

/// The body of a request.
#[derive(Debug)]
pub(crate) enum Request<'a> {
    Produce(ProduceRequest<'a>),
    Metadata(MetadataRequest),
    ApiVersions,
    /// One in a version that the broker does not know.
    UnsupportedApiVersions,
    InitProducerId(InitProducerIdRequest),
}

/// What a broker does about a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Sends this frame, length included.
    Frame(Vec<u8>),
    /// Sends nothing: the client asked for no acknowledgement.
    Nothing,
    /// Closes the connection.
    Close,
}

/// Takes a frame (without its length) apart. `None` if it is no request that `broker` supports:
/// Kafka then closes the connection.
pub(crate) fn parse<'a>(model: &Model, broker: i32, frame: &'a [u8]) -> Option<Parsed<'a>> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::decode(&mut reader).ok()?;
    let (version, correlation_id) = (header.api_version, header.correlation_id);
    let key = ApiKey::from_code(header.api_key)?;
    let offered = model.brokers.get(&broker)?.versions.get(&key)?;
    let request = if offered.contains(version) && key.supported().contains(version) {
        body(key, version, &mut reader)?
    } else if key == ApiKey::ApiVersions {
        Request::UnsupportedApiVersions
    } else {
        return None;
    };
    Some(Parsed { key, version, correlation_id, request })
}

fn body<'a>(key: ApiKey, version: i16, reader: &mut Reader<'a>) -> Option<Request<'a>> {
    let request = match key {
        ApiKey::Produce => Request::Produce(ProduceRequest::decode(reader, version).ok()?),
        ApiKey::Metadata => Request::Metadata(MetadataRequest::decode(reader, version).ok()?),
        ApiKey::ApiVersions => {
            ApiVersionsRequest::decode(reader, version).ok()?;
            Request::ApiVersions
        }
        ApiKey::InitProducerId => {
            Request::InitProducerId(InitProducerIdRequest::decode(reader, version).ok()?)
        }
    };
    Some(request)
}

impl Parsed<'_> {
    /// What the faults' filters look at.
    pub(crate) fn target<'s>(&'s self, model: &'s Model, broker: i32) -> Target<'s> {
        let partitions = match &self.request {
            Request::Produce(request) => {
                let topics = request.topics.iter().map(|topic| {
                    let name = match topic.topic {
                        TopicRef::Name(name) => name,
                        TopicRef::Id(id) => model.name_of(id).map_or("", |name| name),
                    };
                    topic.partitions.iter().map(move |partition| (name, Some(partition.index)))
                });
                topics.flatten().collect()
            }
            Request::Metadata(request) => {
                request.topics.iter().flatten().map(|name| (&**name, None)).collect()
            }
            _ => Vec::new(),
        };
        Target { api: self.key, broker, partitions }
    }
}

impl Model {
    /// Carries a request out as `broker` would at `now_ms` (milliseconds since 1970), with the
    /// errors and the throttling that `plan` asks for.
    pub(crate) fn answer(
        &mut self,
        broker: i32,
        parsed: &Parsed<'_>,
        now_ms: i64,
        plan: &Plan,
    ) -> Reply {
        self.tick(now_ms);
        let key = parsed.key;
        // Whatever was asked for, an unsupported version is answered in the form of version 0.
        let supported = !matches!(parsed.request, Request::UnsupportedApiVersions);
        let version = if supported { parsed.version } else { 0 };
        let mut body = Vec::new();
        match &parsed.request {
            Request::Produce(request) => {
                let outcome = self.produce(broker, version, request, now_ms, plan);
                if request.acks == 0 {
                    // Closing is the only way to tell a client that wants no answer.
                    return if outcome.has_error() { Reply::Close } else { Reply::Nothing };
                }
                outcome.into_response(throttle_ms(plan)).encode(version, &mut body);
            }
            Request::Metadata(request) => {
                self.metadata(broker, request, plan).encode(version, &mut body);
            }
            Request::ApiVersions | Request::UnsupportedApiVersions => {
                self.api_versions(broker, version, supported, plan).encode(version, &mut body);
            }
            Request::InitProducerId(request) => {
                self.init_producer_id(request, plan).encode(version, &mut body);
            }
        }
        let mut frame = Vec::with_capacity(body.len() + 16);
        encode_response(key, version, parsed.correlation_id, &mut frame, |out| {
            out.extend_from_slice(&body);
        });
        Reply::Frame(frame)
    }

    fn api_versions(
        &self,
        broker: i32,
        version: i16,
        supported: bool,
        plan: &Plan,
    ) -> ApiVersionsResponse {
        let error = plan.error().map(|error| error.code);
        let error_code = if supported {
            error.unwrap_or(ErrorCode::NONE)
        } else {
            ErrorCode::UNSUPPORTED_VERSION
        };
        let release = self.release(broker);
        let offered = self.brokers.get(&broker).map(|b| &b.versions);
        let fetch = ApiVersion { api_key: 1, versions: release.fetch_versions() };
        let api_keys = offered
            .into_iter()
            .flatten()
            // An unsupported version is answered with the range of this API alone (KIP-511).
            .filter(|(key, _)| {
                supported || (**key == ApiKey::ApiVersions && release.tells_api_versions_range())
            })
            .map(|(key, versions)| ApiVersion { api_key: key.code(), versions: *versions })
            .chain(supported.then_some(fetch))
            .collect();
        let mut response = ApiVersionsResponse {
            error_code,
            api_keys,
            throttle_time_ms: throttle_ms(plan),
            supported_features: Vec::new(),
            finalized_features_epoch: -1,
            finalized_features: Vec::new(),
        };
        if release.has_features() {
            add_features(&mut response, version);
        }
        response
    }

    fn init_producer_id(
        &mut self,
        request: &InitProducerIdRequest,
        plan: &Plan,
    ) -> InitProducerIdResponse {
        let given = (request.producer_id == -1, request.producer_epoch == -1);
        let error_code = if let Some(error) = plan.error() {
            error.code
        } else if given.0 != given.1 {
            ErrorCode::INVALID_REQUEST
        } else if request.transactional_id.is_some() {
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED // transactions are not modelled
        } else {
            ErrorCode::NONE
        };
        let mut response = InitProducerIdResponse {
            throttle_time_ms: throttle_ms(plan),
            error_code,
            producer_id: -1,
            producer_epoch: -1,
        };
        if error_code == ErrorCode::NONE {
            // Without a transactional id a broker knows no owner, so an id that the client already
            // has is ignored and a new one handed out.
            response.producer_id = self.next_producer_id;
            response.producer_epoch = self.settings.first_epoch;
            self.next_producer_id += 1;
        }
        response
    }

    fn metadata(
        &mut self,
        broker: i32,
        request: &MetadataRequest,
        plan: &Plan,
    ) -> MetadataResponse {
        let view = self.views.get(&broker);
        let brokers = view.map_or_else(|| self.alive_brokers(), |view| view.brokers.clone());
        let topics = match (&request.topics, view) {
            (None, Some(view)) => view.topics.values().cloned().collect(),
            (None, None) => {
                self.topics.iter().map(|(name, topic)| self.describe(name, topic)).collect()
            }
            (Some(names), _) => names
                .iter()
                .map(|name| match plan.error_for(name, None) {
                    Some(error) => failed(name, error.code),
                    None => self.look_up(broker, name, request.allow_auto_topic_creation),
                })
                .collect(),
        };
        MetadataResponse {
            throttle_time_ms: throttle_ms(plan),
            controller_id: brokers.first().map_or(-1, |broker| broker.node_id),
            brokers,
            cluster_id: Some("test-cluster".into()),
            topics,
            error_code: ErrorCode::NONE,
        }
    }

    /// A topic as a client sees it that asks for it by name. An unknown one may be created, but is
    /// there only for those who ask again, as in Kafka.
    fn look_up(&mut self, broker: i32, name: &Arc<str>, may_create: bool) -> MetadataResponseTopic {
        if let Some(view) = self.views.get(&broker) {
            let topic = view.topics.get(name).cloned();
            return topic.unwrap_or_else(|| failed(name, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        }
        if let Some(topic) = self.topics.get(name) {
            return self.describe(name, topic);
        }
        if validate_topic(name).is_err() {
            return failed(name, ErrorCode::INVALID_TOPIC_EXCEPTION);
        }
        if may_create && self.settings.auto_create {
            self.create_topic(name, self.settings.default_topic.clone());
            return failed(name, self.release(broker).code_of_new_topic());
        }
        failed(name, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }
}

/// Those of 4.3.1. Below version 4 a feature that may be off can't be listed (KAFKA-17011).
fn add_features(response: &mut ApiVersionsResponse, version: i16) {
    let feature = |name: &str, min, max| SupportedFeature {
        name: name.into(),
        versions: VersionRange { min, max },
    };
    response.supported_features.push(feature("metadata.version", 7, 30));
    if version >= 4 {
        response.supported_features.push(feature("transaction.version", 0, 2));
    }
    response.finalized_features_epoch = 1;
    response.finalized_features.push(FinalizedFeature {
        name: "metadata.version".into(),
        max_version_level: 30,
        min_version_level: 30,
    });
}

fn failed(name: &Arc<str>, error_code: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code,
        name: Some(Arc::clone(name)),
        topic_id: Uuid::ZERO,
        is_internal: false,
        partitions: Vec::new(),
    }
}

fn throttle_ms(plan: &Plan) -> i32 {
    i32::try_from(plan.throttle.as_millis()).unwrap_or(i32::MAX)
}
