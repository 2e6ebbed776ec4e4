//! What must hold when a run is over.

use std::collections::{BTreeMap, BTreeSet};

use super::demands::Demands;
use super::faults::Kind;
use super::ledger::{Call, Entries, Entry, RecordId, Sent, id_of};
use super::plan::Plan;
use super::run::Remains;
use super::world::State;
use crate::error::{DeliveryCause, Error, Persisted, TimeSpent};
use crate::testing::StoredRecord;
use crate::time::MonoTime;

/// All that is looked at when a run is over.
pub(super) struct Evidence<'a> {
    pub(super) plan: &'a Plan,
    pub(super) state: &'a State,
    pub(super) entries: &'a Entries,
    /// Of each producer.
    pub(super) remains: Vec<Remains>,
}

/// Where a record is, or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    topic: usize,
    partition: i32,
    offset: i64,
    /// Lost with a truncation or a deleted topic.
    gone: bool,
}

type Places = BTreeMap<RecordId, Vec<Place>>;

/// The first rule that was broken, if one was.
pub(super) fn check(evidence: &Evidence<'_>) -> Result<(), String> {
    if let Some(finding) = evidence.entries.findings.first() {
        return Err(finding.clone());
    }
    let places = places(evidence);
    let demands = Demands::new(evidence.plan, evidence.state, &evidence.entries.entries);
    for (id, entry) in (0..).map(RecordId).zip(&evidence.entries.entries) {
        let places = places.get(&id).map_or(&[][..], Vec::as_slice);
        check_record(evidence, entry, places)
            .and_then(|()| check_demand(evidence, &demands, entry))
            .map_err(|text| format!("{id:?}: {text}"))?;
    }
    check_order(evidence)?;
    check_calls(evidence)?;
    check_dropped(evidence)?;
    evidence.remains.iter().try_for_each(check_remains)
}

fn places(evidence: &Evidence<'_>) -> Places {
    let mut places = Places::new();
    let model = &evidence.state.cluster.model;
    for (topic, (name, _)) in evidence.plan.topics.iter().enumerate() {
        let deleted = model.deleted_topics().iter().filter(|(deleted, _)| **deleted == **name);
        let topics = deleted.map(|(_, t)| (t, true)).chain(model.topic(name).map(|t| (t, false)));
        for (it, deleted) in topics {
            for (partition, log) in (0..).zip(it.partitions.iter().map(|p| &p.log)) {
                let mut add = |records: Vec<StoredRecord>, gone| {
                    for record in records {
                        let Some(id) = record.value.as_deref().and_then(id_of) else { continue };
                        let offset = record.offset;
                        let place = Place { topic, partition, offset, gone };
                        places.entry(id).or_default().push(place);
                    }
                };
                add(log.records(), deleted);
                add(log.cut_records(), true);
            }
        }
    }
    places
}

/// One record: its send, its completion, and the log tell the same.
fn check_record(evidence: &Evidence<'_>, entry: &Entry, places: &[Place]) -> Result<(), String> {
    let (at, delivery) = match &entry.sent {
        Sent::Pending => return Err("its send never returned".to_owned()),
        Sent::Refused(_) if places.is_empty() && entry.called.is_empty() => return Ok(()),
        Sent::Refused(_) => {
            return Err("it was refused, and is in the log or called back".to_owned());
        }
        Sent::Accepted { at, delivery, .. } => (*at, delivery),
    };
    let Some(fate) = delivery.try_get() else { return Err("it was never completed".to_owned()) };
    check_callback(evidence, entry, &fate)?;
    let plan = evidence.plan;
    let decided_at = delivery.decided_as().map_or(MonoTime::MAX, |(_, at)| at);
    let slack = evidence.state.effects.slack(at, decided_at);
    let latest = at + plan.config.delivery_timeout + slack;
    if decided_at > latest {
        return Err(format!("it was completed at {decided_at:?}, and not by {latest:?}"));
    }
    let is_given_up = |error: &Error| {
        matches!(error, Error::Delivery(failure)
            if matches!(
                failure.cause,
                DeliveryCause::Closed | DeliveryCause::Timeout | DeliveryCause::Purged
            )
                && failure.persisted == Persisted::No)
    };
    if entry.given_back && !fate.as_ref().is_err_and(is_given_up) {
        return Err(format!("it was given back, and its fate is {fate:?}"));
    }
    match fate {
        Ok(metadata) => {
            let (topic, partition) = (entry.topic, metadata.partition());
            let is_there = |place: &&Place| {
                place.topic == topic
                    && place.partition == partition
                    && metadata.offset().is_none_or(|offset| offset == place.offset)
            };
            if plan.config.acks != 0 && places.iter().find(is_there).is_none() {
                let told = (topic, partition, metadata.offset());
                return Err(format!("it was acknowledged at {told:?}, and is at {places:?}"));
            }
        }
        Err(error) => check_failure(evidence, entry, decided_at, &error, places)?,
    }
    let live: Vec<_> = places.iter().filter(|place| !place.gone).collect();
    if let ([first, .., last], true) = (&live[..], plan.config.idempotent) {
        // A partition that forgets a producer takes what it has had before for new.
        let place = (first.topic, first.partition);
        let forgot_at = evidence.state.effects.forgot.get(&place);
        let was_there = forgot_at.is_some_and(|end| first.offset < *end);
        if !was_there || (last.topic, last.partition) != place {
            return Err(format!("it is in the log more than once: {places:?}"));
        }
    }
    Ok(())
}

fn check_callback(
    evidence: &Evidence<'_>,
    entry: &Entry,
    fate: &Result<crate::RecordMetadata, Error>,
) -> Result<(), String> {
    let early = evidence.plan.ends_early(entry.life);
    match (&entry.called[..], entry.has_callback) {
        ([], false) => Ok(()),
        // Callbacks that are too slow for a close are given up.
        ([], true) if early => Ok(()),
        ([called], true) => {
            let agrees = match (called, fate) {
                (Ok(a), Ok(b)) => a.offset() == b.offset() && a.partition() == b.partition(),
                (Err(a), Err(b)) => a.to_string() == b.to_string(),
                _ => false,
            };
            if agrees { Ok(()) } else { Err(format!("called back with {called:?}, not {fate:?}")) }
        }
        (called, _) => Err(format!("called back {} times", called.len())),
    }
}

fn check_failure(
    evidence: &Evidence<'_>,
    entry: &Entry,
    decided_at: MonoTime,
    error: &Error,
    places: &[Place],
) -> Result<(), String> {
    let (plan, life) = (evidence.plan, entry.life);
    let Error::Delivery(failure) = error else { return Err(format!("it failed with {error}")) };
    if failure.persisted == Persisted::No && !places.is_empty() {
        return Err(format!("it is said not to be in the log, and is at {places:?}: {error}"));
    }
    let timeout = plan.config.delivery_timeout;
    // The batch may have been begun long before the record.
    let begun = MonoTime::ZERO + decided_at.since(MonoTime::ZERO + failure.elapsed);
    if failure.elapsed > timeout + evidence.state.effects.slack(begun, decided_at) {
        return Err(format!("it failed late: {error}"));
    }
    let is_early = match &failure.cause {
        DeliveryCause::Timeout => failure.elapsed < timeout,
        // Behind others an attempt that may be in the log can't be told apart after a bump.
        _ if plan.config.idempotent && failure.persisted == Persisted::Unknown => false,
        DeliveryCause::Broker { code, .. } => code.is_retriable() && plan.config.retries.is_none(),
        DeliveryCause::RequestTimeout => plan.config.retries.is_none(),
        _ => false,
    };
    if is_early {
        return Err(format!("it was given up too early: {error}"));
    }
    let TimeSpent { metadata, queued, in_flight, backoff } = failure.spent;
    if metadata + queued + in_flight + backoff != failure.elapsed {
        return Err(format!("its phases don't add up: {error}"));
    }
    let causes = [Some(&failure.cause), failure.last.as_ref()];
    for cause in causes.into_iter().flatten() {
        let odd = match cause {
            DeliveryCause::BadResponse(_) => !plan.strikes(Kind::Mangle),
            DeliveryCause::Fatal(_) => true,
            DeliveryCause::Closed => !plan.ends_early(life),
            _ => false,
        };
        if odd {
            return Err(format!("nothing has happened to make it fail so: {error}"));
        }
    }
    Ok(())
}

/// A record that was sent when all was well: it is delivered, and soon.
fn check_demand(evidence: &Evidence<'_>, demands: &Demands, entry: &Entry) -> Result<(), String> {
    if !demands.of(entry) {
        return Ok(());
    }
    let delivery = match &entry.sent {
        Sent::Accepted { delivery, .. } => delivery,
        Sent::Refused(error) => return Err(format!("all was well, and it was refused: {error}")),
        Sent::Pending => return Ok(()),
    };
    if let Some(Err(error)) = delivery.try_get() {
        return Err(format!("all was well, and it failed: {error}"));
    }
    let decided_at = delivery.decided_as().map_or(MonoTime::MAX, |(_, at)| at);
    let took = decided_at.since(entry.begun);
    let slack = evidence.state.effects.slack(entry.begun, decided_at);
    if took > evidence.plan.patience() + slack {
        return Err(format!("all was well, and it took {took:?}"));
    }
    Ok(())
}

/// The records of a partition that have to be in the order in which they were accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ordered {
    /// All of them, wherever they are in the log.
    All,
    /// Those that were acknowledged, where each first is in the log.
    Acknowledged,
    None,
}

/// Idempotent, all of them. A broker that has lost what it knew of the producer takes any sequence,
/// though: a batch may get ahead of one that was refused (KAFKA-14359), which no producer can
/// prevent. Nor can it where its epochs run out: a new producer id keeps nothing out that was sent
/// under the old one and given up since. With one request in flight it holds for what was
/// acknowledged: what was given up may still arrive, late. So may an earlier attempt, and without
/// idempotence it is all there is of a record that the log has lost.
fn ordered(plan: &Plan, keeps_log: bool, remembers: bool, ids: usize) -> Ordered {
    let config = &plan.config;
    if config.idempotent && keeps_log && remembers && ids < 2 {
        return Ordered::All;
    }
    let goes_singly = config.acks != 0 && config.max_in_flight == 1;
    if goes_singly && (config.idempotent || keeps_log) {
        return Ordered::Acknowledged;
    }
    Ordered::None
}

/// The order in a partition is the order in which its records were accepted. What a producer that
/// was closed has sent may come after what the next one has.
fn check_order(evidence: &Evidence<'_>) -> Result<(), String> {
    let plan = evidence.plan;
    for (number, (name, _)) in plan.topics.iter().enumerate() {
        let model = &evidence.state.cluster.model;
        let Some(topic) = model.topic(name) else { continue };
        let was_deleted = model.deleted_topics().iter().any(|(deleted, _)| **deleted == **name);
        for (index, partition) in (0..).zip(&topic.partitions) {
            let effects = &evidence.state.effects;
            let lost = match plan.config.idempotent {
                // What nobody had been told of is sent again.
                true => effects.unclean.contains(&(number, index)),
                false => !partition.log.cut_records().is_empty(),
            };
            let keeps_log = !was_deleted && !lost;
            let has_expired = partition.log.producers.has_expired();
            let remembers = !effects.forgot.contains_key(&(number, index)) && !has_expired;
            let log = partition.log.records();
            for life in 0..plan.lives().len() {
                let rule = ordered(plan, keeps_log, remembers, ids_of(evidence, life, &log));
                if rule == Ordered::None {
                    continue;
                }
                check_order_of(evidence, rule, life, &log)
                    .map_err(|text| format!("{name}-{index}: {text}"))?;
            }
        }
    }
    Ok(())
}

/// By how many producer ids the records of one producer were sent.
fn ids_of(evidence: &Evidence<'_>, life: usize, log: &[StoredRecord]) -> usize {
    let is_its = |record: &&StoredRecord| {
        let id = record.value.as_deref().and_then(id_of);
        let entry = id.and_then(|id| evidence.entries.entries.get(id.0 as usize));
        entry.is_some_and(|entry| entry.life == life)
    };
    log.iter().filter(is_its).map(|record| record.producer_id).collect::<BTreeSet<_>>().len()
}

fn check_order_of(
    evidence: &Evidence<'_>,
    rule: Ordered,
    life: usize,
    log: &[StoredRecord],
) -> Result<(), String> {
    let order_of = |id: RecordId| {
        let entry = evidence.entries.entries.get(id.0 as usize)?;
        match &entry.sent {
            _ if entry.life != life => None,
            Sent::Accepted { order, delivery, .. } => {
                let counts = rule == Ordered::All || matches!(delivery.try_get(), Some(Ok(_)));
                counts.then_some((*order, entry.call))
            }
            _ => None,
        }
    };
    let ids = log.iter().filter_map(|r| id_of(r.value.as_deref()?));
    let mut seen = BTreeSet::new();
    let mut last: Option<(RecordId, u32)> = None;
    let mut last_of_call: Option<(RecordId, u32, Call)> = None;
    for id in ids.filter(|id| rule == Ordered::All || seen.insert(*id)) {
        let Some((order, call)) = order_of(id) else { continue };
        if let Some((before, _)) = last.filter(|(_, least)| order < *least) {
            return Err(format!("{id:?} comes after {before:?}"));
        }
        // Of a call that sends several it is known that each comes after what was accepted before
        // the call, and before what others sent after it; and among themselves they keep theirs.
        let least = call.map_or(order, |call| call.since);
        if last.is_none_or(|(_, before)| before <= least) {
            last = Some((id, least));
        }
        let Some(call) = call else { continue };
        if let Some((before, its, _)) = last_of_call.filter(|(_, _, its)| *its == call) {
            if order < its {
                return Err(format!("{id:?} comes after {before:?} of the same call"));
            }
        }
        last_of_call = Some((id, order, call));
    }
    Ok(())
}

/// Callbacks of a partition are called in the order in which its batches were decided.
fn check_calls(evidence: &Evidence<'_>) -> Result<(), String> {
    let mut last = BTreeMap::new();
    for id in &evidence.entries.calls {
        let entry = &evidence.entries.entries[id.0 as usize];
        let Sent::Accepted { order, delivery, .. } = &entry.sent else { continue };
        let decided = delivery.decided_as().map(|(number, _)| number);
        let place = (entry.life, entry.topic, delivery.partition());
        let before = last.insert(place, ((decided, *order), *id));
        if let Some((before, other)) = before {
            if before > (decided, *order) {
                return Err(format!("{id:?}: called back after {other:?}"));
            }
        }
    }
    Ok(())
}

/// Callbacks that were not called were dropped, which is counted.
fn check_dropped(evidence: &Evidence<'_>) -> Result<(), String> {
    for (life, (_, executor)) in evidence.remains.iter().enumerate() {
        let is_missing = |entry: &&Entry| {
            entry.life == life
                && entry.has_callback
                && entry.called.is_empty()
                && matches!(entry.sent, Sent::Accepted { .. })
        };
        let missing = evidence.entries.entries.iter().filter(is_missing).count() as u64;
        if missing != executor.dropped() {
            let dropped = executor.dropped();
            return Err(format!("{missing} callbacks were not called, and {dropped} dropped"));
        }
    }
    Ok(())
}

/// All memory is back, and nobody is waited for.
fn check_remains((accumulator, executor): &Remains) -> Result<(), String> {
    let (available, total) = (accumulator.pool.available(), accumulator.pool.total());
    if available != total {
        return Err(format!("of {total} bytes of memory {available} are left"));
    }
    if accumulator.pool.held() != 0 {
        return Err(format!("{} bytes are charged to partitions", accumulator.pool.held()));
    }
    if accumulator.pool.has_waiters() {
        return Err("somebody waits for memory for ever".to_owned());
    }
    let (outstanding, slots) = (executor.outstanding(), executor.slots().used());
    if outstanding > 0 || slots > 0 {
        return Err(format!("{outstanding} callbacks and {slots} slots are left"));
    }
    Ok(())
}
