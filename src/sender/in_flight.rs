//! Produce requests under way: whose batches they carry, so that each answer finds its batch.

use std::collections::{BTreeMap, BTreeSet};

use crate::accumulator::batch::ProducerBatch;
use crate::accumulator::inbox::PartitionId;
use crate::claims;
use crate::time::MonoTime;
use crate::transaction::Stamp;
use crate::types::{NodeId, Uuid};

/// One partition's share of a request.
pub(super) struct Part {
    pub(super) id: PartitionId,
    /// The topic's id as it was when the request was made.
    pub(super) topic_id: Uuid,
    /// The batch without its bytes, which are the frame's; gone if it has expired meanwhile.
    pub(super) batch: Option<Box<ProducerBatch>>,
    /// The batch's stamp, also when the batch is gone.
    pub(super) stamp: Option<Stamp>,
    /// How many of the frame's segments are the batch's.
    pub(super) segments: usize,
    /// Those segments are the pool's.
    pub(super) pooled: bool,
}

/// Where a partition's batch is under way: the request's tag, and the batch's place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) tag: u64,
    pub(super) place: usize,
}

/// All produce requests that are under way, by tag.
#[derive(Default)]
pub(super) struct Flights {
    flights: BTreeMap<u64, Flight>,
}

struct Flight {
    node: NodeId,
    parts: Vec<Part>,
}

impl Flights {
    pub(super) fn add(&mut self, tag: u64, node: NodeId, parts: Vec<Part>) {
        let previous = self.flights.insert(tag, Flight { node, parts });
        debug_assert!(previous.is_none(), "a tag is used twice");
        self.invariants();
    }

    /// Tags rise, and what is under way has nothing but its bytes elsewhere. Looked at for the
    /// latest request: the others were it once.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        let Some((_, Flight { parts, .. })) = self.flights.last_key_value() else { return };
        assert!(!parts.is_empty(), "a request for nobody");
        for Part { batch, stamp, segments, pooled, .. } in parts {
            let Some(batch) = batch else { continue };
            batch.invariants();
            assert!(batch.closed && batch.phases.is_under_way(), "not on its way");
            assert!(!batch.builder.has_bytes() && *segments > 0, "its bytes are not the frame's");
            assert_eq!((*stamp, *pooled), (batch.stamp, batch.pooled), "another batch's part");
        }
    }

    /// The latest tag that is in use.
    pub(super) fn last_tag(&self) -> Option<u64> {
        self.flights.last_key_value().map(|(tag, _)| *tag)
    }

    pub(super) fn remove(&mut self, tag: u64) -> Option<Vec<Part>> {
        self.flights.remove(&tag).map(|flight| flight.parts)
    }

    /// What sits there; none while the request is being answered.
    pub(super) fn part_mut(&mut self, seat: Seat) -> Option<&mut Part> {
        self.flights.get_mut(&seat.tag)?.parts.get_mut(seat.place)
    }

    /// As [`part_mut`](Self::part_mut), to look at.
    pub(super) fn part(&self, seat: Seat) -> Option<&Part> {
        self.flights.get(&seat.tag)?.parts.get(seat.place)
    }

    /// How many batches are under way.
    pub(super) fn part_count(&self) -> usize {
        self.flights.values().map(|flight| flight.parts.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// The brokers that have a request of ours.
    pub(super) fn nodes(&self) -> BTreeSet<NodeId> {
        self.flights.values().map(|flight| flight.node).collect()
    }

    /// The broker that has this request.
    pub(super) fn node(&self, tag: u64) -> Option<NodeId> {
        self.flights.get(&tag).map(|flight| flight.node)
    }

    /// The tags of all requests under way.
    pub(super) fn tags(&self) -> Vec<u64> {
        self.flights.keys().copied().collect()
    }

    /// When the oldest record under way in the request was appended; none if all were given up.
    pub(super) fn oldest(&self, tag: u64) -> Option<MonoTime> {
        let parts = self.flights.get(&tag)?.parts.iter();
        parts.filter_map(|part| part.batch.as_ref()).map(|batch| batch.created).min()
    }

    /// The request's parts.
    pub(super) fn parts_mut(&mut self, tag: u64) -> Option<&mut Vec<Part>> {
        self.flights.get_mut(&tag).map(|flight| &mut flight.parts)
    }
}
