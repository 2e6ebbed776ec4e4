//! Faults that a test injects: which requests they meet, and what they do to them.
//!
//! Pure, like the model: [`Faults::plan`] says what is to happen to a request, the server (or a
//! simulator) does it.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::ApiKey;
use crate::protocol::ErrorCode;

/// A fault: the requests that it meets and what it does to them.
///
/// Made from one of the first functions below, narrowed by filters, and ended by an effect:
///
/// ```
/// use kafka_producer::ErrorCode;
/// use kafka_producer::testing::Fault;
///
/// // The third and fourth produce request for partition 0 are refused.
/// Fault::produce().topic("orders").partition(0).skip(2).times(2)
///     .error(ErrorCode::NOT_LEADER_OR_FOLLOWER);
/// // The records arrive, their acknowledgement does not.
/// Fault::produce().disconnect_after();
/// ```
#[derive(Clone, Debug)]
pub struct Fault {
    filter: FaultBuilder,
    effect: Effect,
}

/// The requests that a fault meets: by default the first one of its API.
#[derive(Clone, Debug)]
#[must_use = "a fault is complete with its effect"]
pub struct FaultBuilder {
    api: Option<ApiKey>,
    broker: Option<i32>,
    topic: Option<Arc<str>>,
    partition: Option<i32>,
    skip: u64,
    times: u64,
}

#[derive(Clone, Debug)]
enum Effect {
    Error { code: ErrorCode, after: bool },
    Delay { by: Duration, after: bool },
    Disconnect { after: bool },
    Silence { after: bool },
    Throttle(Duration),
    Mangle(Mangle),
}

/// What is done to a response's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mangle {
    /// Its length is right, each byte after the correlation id is 0xFF.
    Garbage,
    /// Only so many bytes of the frame are sent, then the connection is closed.
    Truncate(usize),
    /// In its place comes a frame whose length is said to be two gigabytes.
    Oversize,
}

impl Fault {
    /// Meets produce requests.
    pub fn produce() -> FaultBuilder {
        Self::of(Some(ApiKey::Produce))
    }

    /// Meets metadata requests.
    pub fn metadata() -> FaultBuilder {
        Self::of(Some(ApiKey::Metadata))
    }

    /// Meets requests for a producer id.
    pub fn init_producer_id() -> FaultBuilder {
        Self::of(Some(ApiKey::InitProducerId))
    }

    /// Meets the request with which a client opens a connection.
    pub fn api_versions() -> FaultBuilder {
        Self::of(Some(ApiKey::ApiVersions))
    }

    /// Meets every request.
    pub fn any() -> FaultBuilder {
        Self::of(None)
    }

    fn of(api: Option<ApiKey>) -> FaultBuilder {
        FaultBuilder { api, broker: None, topic: None, partition: None, skip: 0, times: 1 }
    }
}

impl FaultBuilder {
    /// Only requests to this broker.
    pub fn broker(mut self, id: i32) -> Self {
        self.broker = Some(id);
        self
    }

    /// Only requests that name this topic; an error then concerns this topic alone.
    pub fn topic(mut self, name: &str) -> Self {
        self.topic = Some(name.into());
        self
    }

    /// Only produce requests with records for this partition; an error then concerns this
    /// partition alone.
    pub fn partition(mut self, index: i32) -> Self {
        self.partition = Some(index);
        self
    }

    /// Lets the first `requests` of them pass.
    pub fn skip(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Meets so many, then no more. Without it, one.
    pub fn times(mut self, requests: u64) -> Self {
        self.times = requests;
        self
    }

    /// Meets all of them, until the fault is removed.
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// Nothing is appended (or looked up, or handed out); the answer is this code.
    pub fn error(self, code: ErrorCode) -> Fault {
        self.with(Effect::Error { code, after: false })
    }

    /// The records are appended, but the answer is this code.
    pub fn error_after(self, code: ErrorCode) -> Fault {
        self.with(Effect::Error { code, after: true })
    }

    /// The request is held back before anything is done, and with it those that come after it on
    /// the same connection.
    pub fn delay(self, by: Duration) -> Fault {
        self.with(Effect::Delay { by, after: false })
    }

    /// The request is carried out at once, its response held back.
    pub fn delay_response(self, by: Duration) -> Fault {
        self.with(Effect::Delay { by, after: true })
    }

    /// The connection is closed; nothing is appended.
    pub fn disconnect(self) -> Fault {
        self.with(Effect::Disconnect { after: false })
    }

    /// The records are appended, then the connection is closed without a response.
    pub fn disconnect_after(self) -> Fault {
        self.with(Effect::Disconnect { after: true })
    }

    /// From this request on the connection swallows what it is sent and answers nothing.
    pub fn silence(self) -> Fault {
        self.with(Effect::Silence { after: false })
    }

    /// The same, but this request is still carried out.
    pub fn silence_after(self) -> Fault {
        self.with(Effect::Silence { after: true })
    }

    /// The response asks the client to pause (`throttle_time_ms`), and for so long the broker does
    /// not read from the connection (KIP-219).
    pub fn throttle(self, time: Duration) -> Fault {
        self.with(Effect::Throttle(time))
    }

    /// The response has the right length and correlation id and is otherwise nonsense.
    pub fn garbage(self) -> Fault {
        self.with(Effect::Mangle(Mangle::Garbage))
    }

    /// Only so many bytes of the response are sent, then the connection is closed.
    pub fn truncate(self, bytes: usize) -> Fault {
        self.with(Effect::Mangle(Mangle::Truncate(bytes)))
    }

    /// In place of the response comes the start of a frame of two gigabytes.
    pub fn oversize(self) -> Fault {
        self.with(Effect::Mangle(Mangle::Oversize))
    }

    fn with(self, effect: Effect) -> Fault {
        Fault { filter: self, effect }
    }

    fn meets(&self, request: &Target<'_>) -> bool {
        let names = |topic: &str, partition: Option<i32>| {
            self.topic.as_deref().is_none_or(|wanted| wanted == topic)
                && self.partition.is_none_or(|wanted| partition == Some(wanted))
        };
        self.api.is_none_or(|api| api == request.api)
            && self.broker.is_none_or(|id| id == request.broker)
            && ((self.topic.is_none() && self.partition.is_none())
                || request.partitions.iter().any(|(topic, index)| names(topic, *index)))
    }
}

/// Names an injected fault, to ask after it or remove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultId(u64);

/// What the filters look at.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) api: ApiKey,
    pub(crate) broker: i32,
    /// The topics that the request names; with a partition in a produce request.
    pub(crate) partitions: Vec<(&'a str, Option<i32>)>,
}

/// What is to happen to a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay_before: Duration,
    pub(crate) cut_before: Option<Cut>,
    pub(crate) errors: Vec<InjectedError>,
    /// What the response tells the client (`throttle_time_ms`).
    pub(crate) throttle: Duration,
    /// For how long the broker reads nothing from the connection after it has responded; set by
    /// [`Model::throttle`](super::model::Model::throttle).
    pub(crate) mute: Duration,
    pub(crate) delay_after: Duration,
    pub(crate) cut_after: Option<Cut>,
    pub(crate) mangle: Option<Mangle>,
}

/// How a connection is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Disconnect,
    Silence,
}

/// An error to answer with.
#[derive(Clone, Debug)]
pub(crate) struct InjectedError {
    topic: Option<Arc<str>>,
    partition: Option<i32>,
    pub(crate) code: ErrorCode,
    /// Whether the request is carried out all the same.
    pub(crate) after: bool,
}

impl Plan {
    /// The error for a partition of a produce request, or for a topic of a metadata request.
    pub(crate) fn error_for(&self, topic: &str, partition: Option<i32>) -> Option<&InjectedError> {
        self.errors.iter().find(|error| {
            error.topic.as_deref().is_none_or(|wanted| wanted == topic)
                && error.partition.is_none_or(|wanted| partition == Some(wanted))
        })
    }

    /// The error for a request that names no topic.
    pub(crate) fn error(&self) -> Option<&InjectedError> {
        self.errors.first()
    }

    fn add(&mut self, fault: &Fault) {
        let cut = |plan: &mut Self, cut, after| {
            let place = if after { &mut plan.cut_after } else { &mut plan.cut_before };
            place.get_or_insert(cut);
        };
        match fault.effect {
            Effect::Error { code, after } => self.errors.push(InjectedError {
                topic: fault.filter.topic.clone(),
                partition: fault.filter.partition,
                code,
                after,
            }),
            Effect::Delay { by, after: false } => self.delay_before += by,
            Effect::Delay { by, after: true } => self.delay_after += by,
            Effect::Disconnect { after } => cut(self, Cut::Disconnect, after),
            Effect::Silence { after } => cut(self, Cut::Silence, after),
            Effect::Throttle(time) => self.throttle = self.throttle.max(time),
            Effect::Mangle(mangle) => self.mangle = self.mangle.or(Some(mangle)),
        }
    }
}

#[derive(Clone, Debug)]
struct Injected {
    id: FaultId,
    fault: Fault,
    /// Requests that the filters let through, those skipped included.
    seen: u64,
    fired: u64,
}

/// All faults of a cluster, in the order in which they were injected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    injected: Vec<Injected>,
    made: u64,
}

impl Faults {
    pub(crate) fn inject(&mut self, fault: Fault) -> FaultId {
        let id = FaultId(self.made);
        self.made += 1;
        self.injected.push(Injected { id, fault, seen: 0, fired: 0 });
        id
    }

    pub(crate) fn remove(&mut self, id: FaultId) {
        self.injected.retain(|injected| injected.id != id);
    }

    pub(crate) fn clear(&mut self) {
        self.injected.clear();
    }

    /// How many requests a fault has met; 0 once it is removed.
    pub(crate) fn fired(&self, id: FaultId) -> u64 {
        self.injected.iter().find(|injected| injected.id == id).map_or(0, |i| i.fired)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.injected.is_empty()
    }

    /// What is to happen to this request. Counts it, so ask once. All faults that meet it work
    /// together; where two contradict each other the one injected first wins.
    pub(crate) fn plan(&mut self, request: &Target<'_>) -> Plan {
        self.plan_telling(request, |_| {})
    }

    /// The same, and tells of each fault that it meets.
    pub(crate) fn plan_telling(
        &mut self,
        request: &Target<'_>,
        mut met: impl FnMut(FaultId),
    ) -> Plan {
        let mut plan = Plan::default();
        for injected in &mut self.injected {
            let filter = &injected.fault.filter;
            if !filter.meets(request) {
                continue;
            }
            injected.seen += 1;
            if injected.seen > filter.skip && injected.fired < filter.times {
                injected.fired += 1;
                met(injected.id);
                plan.add(&injected.fault);
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn produce<'a>(broker: i32, partitions: &[(&'a str, i32)]) -> Target<'a> {
        let partitions = partitions.iter().map(|(topic, index)| (*topic, Some(*index))).collect();
        Target { api: ApiKey::Produce, broker, partitions }
    }

    #[test]
    fn a_fault_meets_the_nth_request_for_its_partition_only() {
        let mut faults = Faults::default();
        let code = ErrorCode::NOT_ENOUGH_REPLICAS;
        let fault = Fault::produce().topic("a").partition(1).skip(1).times(2).error(code);
        let id = faults.inject(fault);
        let both = produce(1, &[("a", 0), ("a", 1)]);
        let codes: Vec<_> = (0..4)
            .map(|_| {
                assert!(faults.plan(&produce(1, &[("a", 0), ("b", 1)])).errors.is_empty());
                let plan = faults.plan(&both);
                assert!(plan.error_for("a", Some(0)).is_none());
                plan.error_for("a", Some(1)).map(|error| error.code)
            })
            .collect();
        assert_eq!(codes, [None, Some(code), Some(code), None]);
        assert_eq!(faults.fired(id), 2);
    }

    #[test]
    fn faults_work_together_and_can_be_removed() {
        let mut faults = Faults::default();
        let second = Duration::from_secs(1);
        faults.inject(Fault::any().always().delay(second));
        let id = faults.inject(Fault::produce().always().broker(2).delay(second));
        faults.inject(Fault::metadata().always().disconnect());
        assert_eq!(faults.plan(&produce(1, &[])).delay_before, second);
        assert_eq!(faults.plan(&produce(2, &[])).delay_before, 2 * second);
        faults.remove(id);
        assert_eq!(faults.plan(&produce(2, &[])).delay_before, second);
        assert_eq!(faults.plan(&produce(2, &[])).cut_before, None);
    }
}
