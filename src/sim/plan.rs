//! What a seed chooses: the cluster, the network, the producer's configuration, the users' work
//! and the faults.

use std::time::Duration;

use super::net::Weather;
use crate::random::Random;
use crate::testing::TopicConfig;

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) brokers: i32,
    pub(super) topics: Vec<(String, TopicConfig)>,
    pub(super) weather: Weather,
    /// The least and the most that a broker works on a request.
    pub(super) work: (Duration, Duration),
    pub(super) users: usize,
    /// Sends of all users together.
    pub(super) records: u32,
    /// No run lasts longer.
    pub(super) limit: Duration,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let least = MS * (1 + random.below(5) as u32) / 10;
        let most = least * (1 + random.below(8) as u32);
        Self {
            seed,
            brokers: 1,
            topics: vec![("a".into(), TopicConfig::new(3))],
            weather: Weather {
                latency: (least, most),
                room: 64 << random.below(12),
                short: random.below(4) * 4,
                spurious: random.below(3) * 20,
                preempt: random.below(3) * 5,
            },
            work: (MS / 20, MS),
            users: 1 + random.below(4),
            records: 500,
            limit: 600 * 1000 * MS,
        }
    }
}
