//! What faults did. One that is due may find nothing to strike, or nobody may meet it: it counts
//! once something felt it, be it a connection, a broker, a log, a look-up or a request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::faults::Kind;
use super::plan::{MS, Plan};
use super::world::State;
use crate::protocol::{ErrorCode, TopicProduceResponse};
use crate::sync::Arc;
use crate::testing::faults::{FaultId, Faults, Plan as FaultPlan, Target};
use crate::testing::model::{Reply, Request};
use crate::time::MonoTime;

/// How many faults were felt, and how often all of them together.
#[derive(Clone, Copy, Default)]
pub(super) struct Felt {
    pub(super) faults: u64,
    pub(super) times: u64,
}

impl std::ops::AddAssign for Felt {
    fn add_assign(&mut self, other: Self) {
        self.faults += other.faults;
        self.times += other.times;
    }
}

impl std::fmt::Debug for Felt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} times)", self.faults, self.times)
    }
}

/// Of faults, by their numbers in the plan: how often each was felt, and what is whose doing.
#[derive(Default)]
pub(super) struct Effects {
    felt: BTreeMap<usize, u64>,
    /// How often each was tried.
    pub(super) tries: BTreeMap<usize, u64>,
    /// Those that lie in wait for requests, as the model names them.
    pub(super) in_wait: BTreeMap<FaultId, usize>,
    /// Who makes the network slow.
    pub(super) spike: Option<usize>,
    /// Who has names not found.
    pub(super) no_names: Option<usize>,
    /// Who has a topic take only small batches.
    pub(super) shrunk: BTreeMap<usize, usize>,
    /// Who has a broker lag behind.
    pub(super) lagging: BTreeMap<i32, usize>,
    /// Partitions that forgot the producers they knew, and where their logs ended when they did.
    pub(super) forgot: BTreeMap<(usize, i32), i64>,
    /// Partitions that lost what they had acknowledged.
    pub(super) unclean: BTreeSet<(usize, i32)>,
    /// When the sender's thread got no processor.
    pub(super) stalls: Vec<(MonoTime, MonoTime)>,
}

impl Effects {
    pub(super) fn by_kind(&self, plan: &Plan) -> BTreeMap<Kind, Felt> {
        let mut sum = BTreeMap::<_, Felt>::new();
        for (fault, times) in &self.felt {
            let kind = plan.faults[*fault].1.kind;
            *sum.entry(kind).or_default() += Felt { faults: 1, times: *times };
        }
        sum
    }

    pub(super) fn is_felt(&self, fault: usize) -> bool {
        self.felt.contains_key(&fault)
    }

    /// How much later than allowed something may have happened between these moments.
    pub(super) fn slack(&self, from: MonoTime, to: MonoTime) -> Duration {
        let within = self.stalls.iter().filter(|(begun, over)| *begun <= to && from <= *over);
        10 * MS + within.map(|(begun, over)| over.since(*begun)).sum::<Duration>()
    }

    /// A fault no longer lies in wait. Gives what the model calls it, if it did.
    pub(super) fn stop_waiting(&mut self, fault: usize) -> Option<FaultId> {
        let id = self.in_wait.iter().find(|(_, its)| **its == fault).map(|(id, _)| *id)?;
        self.in_wait.remove(&id);
        Some(id)
    }

    /// What is to happen to a request, and which faults say so.
    pub(super) fn meet(&self, faults: &mut Faults, target: &Target<'_>) -> (FaultPlan, Vec<usize>) {
        let mut met = Vec::new();
        let plan = faults.plan_telling(target, |id| met.extend(self.in_wait.get(&id)));
        (plan, met)
    }
}

impl State {
    /// Something felt this fault.
    pub(super) fn felt(&mut self, fault: usize) {
        let times = self.effects.felt.entry(fault).or_default();
        *times += 1;
        if *times == 1 {
            let (now, plan) = (self.now, &self.plan);
            self.trace.note(now, "felt", [fault as u64, 0], || {
                ("world".into(), format!("{:?}, number {fault}", plan.faults[fault].1.kind))
            });
        }
    }

    /// The connection ends with a request that met these faults, before it is carried out.
    pub(super) fn feel_before(&mut self, met: &[usize]) {
        let plan = Arc::clone(&self.plan);
        let kind_of = |number: &usize| plan.faults[*number].1.kind;
        // Of several that cut it off the first does.
        let cut = met.iter().find(|number| plan.faults[**number].1.cuts_after() == Some(false));
        let delays = met.iter().filter(|number| kind_of(number) == Kind::Delay);
        delays.chain(cut).for_each(|number| self.felt(*number));
    }

    /// A request that met these faults was carried out, and came to this reply.
    pub(super) fn feel(&mut self, met: &[usize], cut: bool, request: &Request<'_>, reply: &Reply) {
        let plan = Arc::clone(&self.plan);
        let is_told = !cut && matches!(reply, Reply::Frame(_));
        let asks_for_topics = match request {
            Request::Metadata(asked) => {
                asked.topics.as_ref().is_some_and(|names| !names.is_empty())
            }
            _ => true,
        };
        let (mut is_cut, mut is_mangled) = (false, false);
        for number in met {
            let fault = &plan.faults[*number].1;
            let is_felt = match fault.kind {
                Kind::Delay | Kind::ProduceError | Kind::FatalError => true,
                Kind::UpkeepError => asks_for_topics,
                // Where answers are wanted `feel_answer` sees it.
                Kind::ErrorAfterAppend => *reply == Reply::Close,
                Kind::DelayResponse | Kind::Throttle => is_told,
                // Of several that spoil the same the first does.
                Kind::Mangle => is_told && !std::mem::replace(&mut is_mangled, true),
                _ => {
                    let cuts = cut && fault.cuts_after() == Some(true);
                    cuts && !std::mem::replace(&mut is_cut, true)
                }
            };
            if is_felt {
                self.felt(*number);
            }
        }
    }

    /// What a broker says of one topic's batches.
    pub(super) fn feel_answer(
        &mut self,
        met: &[usize],
        broker: i32,
        name: &str,
        answer: &TopicProduceResponse,
    ) {
        for it in &answer.partitions {
            let doer = match it.error_code {
                ErrorCode::NONE => None,
                ErrorCode::MESSAGE_TOO_LARGE => {
                    let topic = self.cluster.names.iter().position(|its| its == name);
                    topic.and_then(|topic| self.effects.shrunk.get(&topic))
                }
                ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                    self.effects.lagging.get(&broker)
                }
                _ => None,
            };
            // Appended, and answered with an error.
            let after = (it.error_code != ErrorCode::NONE && it.base_offset >= 0).then(|| {
                let is_it =
                    |number: &&usize| self.plan.faults[**number].1.kind == Kind::ErrorAfterAppend;
                met.iter().find(is_it)
            });
            let doers: Vec<usize> = doer.into_iter().chain(after.flatten()).copied().collect();
            doers.into_iter().for_each(|number| self.felt(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::sim::faults::Fault;
    use crate::sim::world::World;

    /// What of a world changes by itself counts at once; the rest, where a producer feels it.
    #[test]
    fn without_a_producer_only_the_cluster_feels_a_fault() {
        let can_all = |plan: &Plan| Kind::ALL.into_iter().all(|kind| kind.can_strike(plan));
        let plan = (0..).map(Plan::of).find(can_all).expect("a world for all faults");
        let is_felt = |kind: &Kind| {
            let mut plan = plan.clone();
            plan.faults = vec![(plan.calm_at / 2, Fault::of(*kind, &mut Random::new(4), &plan))];
            let world = World::new(&Arc::new(plan.clone()), false, None);
            let mut state = world.lock();
            state.strike(&plan.faults[0].1);
            state.effects.by_kind(&plan).contains_key(kind)
        };
        let felt: BTreeSet<Kind> = Kind::ALL.into_iter().filter(is_felt).collect();
        let changes = [
            Kind::BrokerDown,
            Kind::Isolate,
            Kind::Upgrade,
            Kind::Replace,
            Kind::MoveLeader,
            Kind::FailOver,
            Kind::Recreate,
            Kind::AddPartitions,
        ];
        assert_eq!(felt, BTreeSet::from(changes));
    }
}
