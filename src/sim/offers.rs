//! What a world's brokers are: their releases, and the versions of each API that they offer.

use std::collections::BTreeMap;

use super::leaders::RELIABLE_EPOCHS;
use super::plan::pick;
use crate::protocol::{ApiKey, ErrorCode};
use crate::random::Random;
use crate::testing::Release;

/// The first version of Produce in whose answers a client is told to pause (KIP-219).
const PAUSES: i16 = 6;
/// The first versions that know topics by their ids (KIP-516).
const IDS_IN_METADATA: i16 = 10;
const IDS_IN_PRODUCE: i16 = 13;

/// An error that came with a version of Produce which also tells the log's start: where that is not
/// told the producer can't know what it means.
const FORGOTTEN: Option<ErrorCode> = Some(ErrorCode::UNKNOWN_PRODUCER_ID);
const FORGETS: i16 = 5;

/// A broker, as it says what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) release: Release,
    /// The highest version of some APIs, where that is not the release's: brokers are of releases
    /// between those that [`Release`] lists, too, and proxies speak what they know.
    pub(super) at_most: BTreeMap<ApiKey, i16>,
}

impl Offer {
    fn whole(release: Release) -> Self {
        Self { release, at_most: BTreeMap::new() }
    }

    /// Of each API as much as the release has, or less.
    fn of(release: Release, random: &mut Random) -> Self {
        let mut offer = Self::whole(release);
        for (key, offered) in release.versions() {
            if random.below(2) == 0 {
                let mut least = key.supported().min;
                if key == ApiKey::Produce && release.producer_rules().unknown == FORGOTTEN {
                    least = least.max(FORGETS);
                }
                let max = least + random.below((offered.max - least + 1) as usize) as i16;
                offer.at_most.insert(key, max);
            }
        }
        // Nobody takes topics by ids that it does not tell.
        if offer.highest(ApiKey::Metadata) < IDS_IN_METADATA {
            let produce = offer.highest(ApiKey::Produce).min(IDS_IN_PRODUCE - 1);
            offer.at_most.insert(ApiKey::Produce, produce);
        }
        offer
    }

    /// The highest version that it offers of an API.
    pub(super) fn highest(&self, key: ApiKey) -> i16 {
        let whole = self.release.versions().get(&key).map_or(-1, |offered| offered.max);
        self.at_most.get(&key).map_or(whole, |max| whole.min(*max))
    }

    /// Whether a client can tell a topic that is made anew from the one before: by its id, or where
    /// it goes by no epochs.
    pub(super) fn tells_topics_apart(&self) -> bool {
        !(RELIABLE_EPOCHS..IDS_IN_METADATA).contains(&self.highest(ApiKey::Metadata))
    }

    /// Whether a client knows of its pauses: it answers at once, and says how long it will not
    /// read.
    pub(super) fn tells_pauses(&self) -> bool {
        self.release.throttles_after_response() && self.highest(ApiKey::Produce) >= PAUSES
    }
}

/// Those of a world, alike or mixed.
pub(super) fn offers(random: &mut Random, brokers: usize) -> Vec<Offer> {
    let one = |random: &mut Random| {
        let release = match random.below(2) {
            0 => Release::default(),
            _ => pick(random, &Release::ALL),
        };
        match random.below(3) {
            0 => Offer::of(release, random),
            _ => Offer::whole(release),
        }
    };
    let first = one(random);
    let mixed = random.below(3) == 0;
    (0..brokers).map(|_| if mixed { one(random) } else { first.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::plan::Plan;
    use super::*;

    #[test]
    fn there_are_one_to_seven_brokers() {
        for brokers in 1..=7 {
            let some = (0..500).any(|seed| Plan::of(seed).brokers() == brokers);
            assert!(some, "{brokers} brokers");
        }
    }

    #[test]
    fn every_version_is_the_highest_of_some_broker() {
        let plans: Vec<_> = (0..2000).map(Plan::of).collect();
        let offers = || plans.iter().flat_map(|plan| &plan.offers);
        for key in ApiKey::ALL {
            for version in key.supported().min..=key.supported().max {
                assert!(offers().any(|offer| offer.highest(key) == version), "{key:?} {version}");
            }
        }
        let by_ids = |offer: &&Offer| offer.highest(ApiKey::Produce) >= IDS_IN_PRODUCE;
        assert!(
            offers().filter(by_ids).all(|o| o.highest(ApiKey::Metadata) >= IDS_IN_METADATA),
            "ids are taken that nobody tells"
        );
    }
}
