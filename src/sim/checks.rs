//! What must hold.

use std::collections::BTreeMap;

use super::ledger::{Entries, RecordId, Sent, id_of};
use super::plan::Plan;
use super::world::State;

/// A rule that was broken, and what it concerns.
pub(super) struct Finding(pub(super) String);

/// All that is looked at when a run is over.
pub(super) struct Evidence<'a> {
    pub(super) plan: &'a Plan,
    pub(super) state: &'a State,
    pub(super) entries: &'a Entries,
}

pub(super) fn check(evidence: &Evidence<'_>) -> Result<(), Finding> {
    let logs = logs(evidence);
    exactly_once(evidence, &logs)
}

/// Where each record is in the logs.
type Logs = BTreeMap<RecordId, Vec<(usize, i32, i64)>>;

fn logs(evidence: &Evidence<'_>) -> Logs {
    let mut logs = Logs::new();
    for (number, (name, _)) in evidence.plan.topics.iter().enumerate() {
        let Some(topic) = evidence.state.cluster.model.topic(name) else { continue };
        for (index, partition) in (0..).zip(&topic.partitions) {
            for record in partition.log.records() {
                let Some(id) = record.value.as_deref().and_then(id_of) else { continue };
                logs.entry(id).or_default().push((number, index, record.offset));
            }
        }
    }
    logs
}

fn exactly_once(evidence: &Evidence<'_>, logs: &Logs) -> Result<(), Finding> {
    for (id, entry) in (0..).map(RecordId).zip(&evidence.entries.entries) {
        let places = logs.get(&id).map_or(&[][..], Vec::as_slice);
        let fate = match &entry.state {
            Sent::Pending => return Err(Finding(format!("{id:?}: its send never returned"))),
            Sent::Refused => continue,
            Sent::Accepted { delivery: Some(delivery), .. } => delivery.try_get(),
            Sent::Accepted { .. } => entry.called.first().map(|(_, fate)| fate.clone()),
        };
        match fate {
            None => return Err(Finding(format!("{id:?} was never completed"))),
            Some(Ok(metadata)) => {
                let place = (entry.topic, metadata.partition(), metadata.offset().unwrap_or(-1));
                if places != [place] {
                    return Err(Finding(format!("{id:?} is at {places:?}, and not at {place:?}")));
                }
            }
            Some(Err(error)) => return Err(Finding(format!("{id:?} failed: {error}"))),
        }
    }
    Ok(())
}
