//! Produce requests under way: whose batches they carry, so that each answer finds its batch.

use std::collections::BTreeMap;

use crate::accumulator::batch::ProducerBatch;
use crate::accumulator::inbox::PartitionId;
use crate::transaction::Stamp;
use crate::types::Uuid;

/// One partition's share of a request.
pub(super) struct Part {
    pub(super) id: PartitionId,
    /// The topic's id as it was when the request was made.
    pub(super) topic_id: Uuid,
    /// The batch without its bytes, which are the frame's; gone if it has expired meanwhile.
    pub(super) batch: Option<ProducerBatch>,
    /// The batch's stamp, also when the batch is gone.
    pub(super) stamp: Option<Stamp>,
    /// How many of the frame's segments are the batch's.
    pub(super) segments: usize,
    /// Those segments are the pool's.
    pub(super) pooled: bool,
}

/// All produce requests that are under way, by tag.
#[derive(Default)]
pub(super) struct Flights {
    flights: BTreeMap<u64, Vec<Part>>,
}

impl Flights {
    pub(super) fn add(&mut self, tag: u64, parts: Vec<Part>) {
        let previous = self.flights.insert(tag, parts);
        debug_assert!(previous.is_none(), "a tag is used twice");
    }

    pub(super) fn remove(&mut self, tag: u64) -> Option<Vec<Part>> {
        self.flights.remove(&tag)
    }

    /// A partition's share of the request `tag`.
    pub(super) fn part_mut(&mut self, tag: u64, id: PartitionId) -> Option<&mut Part> {
        self.flights.get_mut(&tag)?.iter_mut().find(|part| part.id == id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// The tags of all requests under way.
    pub(super) fn tags(&self) -> Vec<u64> {
        self.flights.keys().copied().collect()
    }

    /// The request's parts.
    pub(super) fn parts_mut(&mut self, tag: u64) -> Option<&mut Vec<Part>> {
        self.flights.get_mut(&tag)
    }
}
