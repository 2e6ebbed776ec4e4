//! What must be delivered of all that is sent when all is well again.
//!
//! As a rule everything, and soon. Not where settings or a quota leave no time for it, nor what so
//! many others wait before that a slow network may take all of that time for them; and not to a
//! partition that has lost what it acknowledged, or knew of the producer, and that another broker
//! leads by now, of which the producer may not have heard: a first answer, of one that led it once,
//! proves nothing, and the next one may be a refusal.

use std::collections::BTreeSet;

use super::ledger::{Entry, Sent};
use super::plan::Plan;
use super::world::State;
use crate::testing::model::{Model, Partition};
use crate::time::MonoTime;

pub(super) struct Demands {
    /// None where nothing is demanded at all.
    lenient: Option<BTreeSet<(usize, i32)>>,
    stays: Vec<Stay>,
    /// How many before it leave a record its time.
    most_before: usize,
}

/// A record that was accepted, from then on until it was decided.
struct Stay {
    place: (usize, i32),
    order: u32,
    until: MonoTime,
}

impl Demands {
    pub(super) fn new(plan: &Plan, state: &State, entries: &[Entry]) -> Self {
        let stays = entries.iter().filter_map(Stay::of).collect();
        Self { lenient: lenient(plan, state), stays, most_before: plan.most_before() }
    }

    /// Whether this record has to be delivered. One that was refused might have gone anywhere.
    pub(super) fn of(&self, entry: &Entry) -> bool {
        let Some(lenient) = self.lenient.as_ref().filter(|_| entry.calm) else { return false };
        match &entry.sent {
            Sent::Accepted { order, at, delivery } => {
                let place = (entry.topic, delivery.partition());
                let is_before = |other: &&Stay| {
                    other.place == place && other.order < *order && other.until > *at
                };
                let before = self.stays.iter().filter(is_before).count();
                before <= self.most_before && !lenient.contains(&place)
            }
            Sent::Pending | Sent::Refused(_) => true,
        }
    }
}

impl Stay {
    fn of(entry: &Entry) -> Option<Self> {
        let Sent::Accepted { order, delivery, .. } = &entry.sent else { return None };
        let until = delivery.decided_as().map_or(MonoTime::MAX, |(_, at)| at);
        Some(Self { place: (entry.topic, delivery.partition()), order: *order, until })
    }
}

/// Partitions to which nothing has to be delivered; none where that goes for all of them.
fn lenient(plan: &Plan, state: &State) -> Option<BTreeSet<(usize, i32)>> {
    let model = &state.cluster.model;
    let mut lenient = BTreeSet::new();
    for (topic, (name, _)) in plan.topics.iter().enumerate() {
        let count = model.topic(name).map_or(0, |topic| topic.partitions.len() as i32);
        // Nobody tells a producer that a partition is gone for good, and what it holds for that
        // one others wait for.
        if !plan.has_time() || versions(model, name, count).next().is_some() {
            return None;
        }
        let forgets = |index| {
            let is_anew = versions(model, name, index).count() > 1;
            let effects = &state.effects;
            let loses = effects.forgot.contains_key(&(topic, index))
                || effects.unclean.contains(&(topic, index));
            plan.config.idempotent && (plan.expiry.is_some() || is_anew || loses)
        };
        let moved = |index| {
            let leaders = versions(model, name, index).map(|it| (it.leader, it.leader_epoch));
            let leaders: Vec<_> = leaders.collect();
            let moves = |(leader, epoch): &_| *epoch > 0 || *leader != leaders[0].0;
            !plan.learns_leaders() && leaders.iter().any(moves)
        };
        let of_topic = (0..count).filter(|index| forgets(*index) && moved(*index));
        lenient.extend(of_topic.map(|index| (topic, index)));
    }
    Some(lenient)
}

/// A partition, and those that had its place before its topic was made anew.
fn versions<'a>(
    model: &'a Model,
    name: &'a str,
    index: i32,
) -> impl Iterator<Item = &'a Partition> {
    let deleted = model.deleted_topics().iter().filter(move |(its, _)| **its == *name);
    let topics = deleted.map(|(_, topic)| topic).chain(model.topic(name));
    topics.filter_map(move |topic| topic.partitions.get(usize::try_from(index).ok()?))
}
