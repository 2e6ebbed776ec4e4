//! Who leads a partition, as brokers tell it: whoever has heard of a newer leader goes by that.
//!
//! A client that believes metadata which are older than what it knows is told from others by what
//! it does alone: it writes a request to a broker that it should know to lead no longer.

use std::collections::BTreeMap;

use crate::protocol::{ErrorCode, MetadataResponse, ProduceResponse};

/// The first version of Metadata whose epochs a client goes by (KAFKA-9212).
pub(super) const RELIABLE_EPOCHS: i16 = 9;

/// A partition, by its topic's name and its number.
pub(super) type Place = (String, i32);

/// What a response told, for the moment at which the client has read it.
pub(super) struct News {
    /// How many pieces of news the client had heard when it asked, if that is certain.
    asked_at: Option<u64>,
    /// All topics that it was asked for.
    asked: Vec<String>,
    /// Those of which it tells.
    topics: Vec<(String, [u8; 16], Epochs)>,
}

/// Partitions, each with the epoch of its leader.
type Epochs = Vec<(i32, i32)>;

/// All that was told, and what the client has heard of it.
#[derive(Default)]
pub(super) struct Leaders {
    /// Leaders by epoch, as some broker told them some time.
    told: BTreeMap<Place, BTreeMap<i32, Vec<i32>>>,
    /// The newest epochs that the client knew of, each with the piece of news from which on; -1
    /// for none.
    known: BTreeMap<Place, Vec<(u64, i32)>>,
    /// The topic's id that it heard of last.
    ids: BTreeMap<String, [u8; 16]>,
    /// A run is long enough for it to forget topics that nobody uses.
    may_idle: bool,
    /// How many pieces of news it has heard.
    pub(super) heard: u64,
    /// It has begun anew since then, and goes by no answer to what it had asked before.
    anew_since: u64,
}

impl Leaders {
    pub(super) fn new(may_idle: bool) -> Self {
        Self { may_idle, ..Self::default() }
    }

    /// A broker answers a question for metadata. Gives what the client will know then.
    pub(super) fn tell(
        &mut self,
        response: &MetadataResponse,
        version: i16,
        asked_at: Option<u64>,
    ) -> News {
        let mut topics = Vec::new();
        for topic in response.topics.iter().filter(|topic| topic.error_code == ErrorCode::NONE) {
            let Some(name) = topic.name.as_deref() else { continue };
            let mut epochs = Vec::new();
            for it in topic.partitions.iter().filter(|it| it.leader_id >= 0) {
                self.note((name.to_owned(), it.partition_index), it.leader_epoch, it.leader_id);
                let epoch = if version < RELIABLE_EPOCHS { -1 } else { it.leader_epoch };
                epochs.push((it.partition_index, epoch));
            }
            topics.push((name.to_owned(), topic.topic_id.0, epochs));
        }
        let asked = response.topics.iter().filter_map(|topic| topic.name.as_deref());
        let asked = asked.map(str::to_owned).collect();
        News { asked_at, asked, topics }
    }

    /// A broker that refuses a batch names who leads (KIP-951).
    pub(super) fn tell_in_refusal(&mut self, response: &ProduceResponse, name: &str, at: usize) {
        for it in &response.topics[at].partitions {
            if let Some(leader) = &it.current_leader {
                self.note((name.to_owned(), it.index), leader.leader_epoch, leader.leader_id);
            }
        }
    }

    fn note(&mut self, place: Place, epoch: i32, leader: i32) {
        self.told.entry(place).or_default().entry(epoch).or_default().push(leader);
    }

    /// The client has read a response.
    pub(super) fn hear(&mut self, news: News) {
        if news.asked_at.is_some_and(|at| at < self.anew_since) {
            return;
        }
        self.heard += 1;
        self.forget_idle(&news.asked);
        for (name, id, epochs) in news.topics {
            if news.asked_at.is_none() {
                // It may go by this, or not.
                self.forget(|(topic, _)| *topic == name);
                continue;
            }
            let before = self.ids.insert(name.clone(), id);
            // A topic made anew begins its epochs anew, of partitions that it lacks as yet, too.
            if before.is_some_and(|before| before != id) {
                self.forget(|(topic, _)| *topic == name);
            }
            for (partition, epoch) in epochs {
                let known = self.known.entry((name.clone(), partition)).or_default();
                let newest = known.last().map_or(-1, |(_, epoch)| *epoch);
                if epoch < 0 || epoch > newest {
                    known.push((self.heard, epoch));
                }
            }
        }
    }

    /// A topic that nobody has sent to for `metadata.max.idle.ms` is forgotten, and asked for no
    /// more until it is new again. Where some are not asked for it can't be told which: the others
    /// may be all that the client knows, or new to it.
    fn forget_idle(&mut self, asked: &[String]) {
        if self.may_idle && self.ids.keys().any(|name| !asked.contains(name)) {
            self.ids.clear();
            self.forget(|_| true);
        }
    }

    /// The client asks a bootstrap server, which it does when it has given all others up. It may
    /// come back to their connections once it knows them again.
    pub(super) fn begin_anew(&mut self) {
        self.heard += 1;
        self.anew_since = self.heard;
        self.forget(|_| true);
    }

    fn forget(&mut self, is_meant: impl Fn(&Place) -> bool) {
        let known = self.known.iter_mut().filter(|(place, _)| is_meant(place));
        known.for_each(|(_, known)| known.push((self.heard, -1)));
    }

    /// A request for this partition has come to a broker; the client began to write it when it had
    /// heard so many pieces of news.
    pub(super) fn judge(&self, place: &Place, broker: i32, heard: u64) -> Result<(), String> {
        let known = self.known.get(place).map_or(&[][..], Vec::as_slice);
        let newest = known.iter().rev().find(|(since, _)| *since <= heard);
        let Some((_, epoch)) = newest.filter(|(_, epoch)| *epoch >= 0) else { return Ok(()) };
        let since = self.told.get(place).into_iter().flat_map(|told| told.range(epoch..));
        if since.flat_map(|(_, leaders)| leaders).any(|leader| *leader == broker) {
            return Ok(());
        }
        let (topic, partition) = place;
        Err(format!(
            "{topic}-{partition}: a batch goes to broker {broker}, which does not lead \
            since epoch {epoch}, of which the client has heard"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        ("t".to_owned(), 0)
    }

    fn news(epoch: i32, asked_at: u64) -> News {
        let topics = vec![("t".to_owned(), [1; 16], vec![(0, epoch)])];
        News { asked_at: Some(asked_at), asked: vec!["t".to_owned()], topics }
    }

    #[test]
    fn who_has_heard_of_a_newer_leader_goes_by_that() {
        let mut leaders = Leaders::default();
        leaders.note(place(), 3, 1);
        leaders.note(place(), 4, 2);
        assert_eq!(leaders.judge(&place(), 1, 0), Ok(()), "it has heard of nobody");
        leaders.hear(news(3, 0));
        leaders.hear(news(4, 1));
        leaders.hear(news(3, 2));
        assert_eq!(leaders.judge(&place(), 1, 1), Ok(()), "it was written before");
        assert!(leaders.judge(&place(), 1, 3).is_err());
        assert_eq!(leaders.judge(&place(), 2, 3), Ok(()));
        leaders.note(place(), 5, 1);
        assert_eq!(leaders.judge(&place(), 1, 3), Ok(()), "a refusal may have told it");
    }

    /// Its partitions may come back one by one.
    #[test]
    fn a_topic_made_anew_has_other_epochs() {
        let mut leaders = Leaders::default();
        leaders.note(place(), 3, 1);
        leaders.hear(news(3, 0));
        let other = |epochs| News { topics: vec![("t".to_owned(), [2; 16], epochs)], ..news(0, 1) };
        leaders.hear(other(vec![(1, 0)]));
        assert_eq!(leaders.judge(&place(), 7, 2), Ok(()));
        leaders.note(place(), 0, 2);
        leaders.hear(other(vec![(0, 0), (1, 0)]));
        assert_eq!(leaders.judge(&place(), 2, 3), Ok(()));
        assert!(leaders.judge(&place(), 4, 3).is_err());
    }

    #[test]
    fn what_was_heard_before_a_new_beginning_does_not_count() {
        let mut leaders = Leaders::default();
        leaders.note(place(), 3, 1);
        leaders.note(place(), 4, 2);
        leaders.hear(news(4, 0));
        leaders.begin_anew();
        leaders.hear(news(4, 1));
        assert_eq!(leaders.judge(&place(), 1, 2), Ok(()));
        leaders.hear(news(4, 2));
        assert!(leaders.judge(&place(), 1, 3).is_err());
    }

    #[test]
    fn a_topic_that_is_asked_for_no_more_is_forgotten() {
        let asked = |names: &[&str], at| News {
            asked_at: Some(at),
            asked: names.iter().map(|name| (*name).to_owned()).collect(),
            topics: Vec::new(),
        };
        for may_idle in [true, false] {
            let mut leaders = Leaders::new(may_idle);
            leaders.note(place(), 3, 1);
            leaders.note(place(), 4, 2);
            leaders.hear(news(4, 0));
            leaders.hear(asked(&["t", "new"], 1));
            assert!(leaders.judge(&place(), 1, 2).is_err(), "it was asked for, too");
            leaders.hear(asked(&[], 2));
            leaders.hear(news(3, 3));
            assert_eq!(leaders.judge(&place(), 1, 4).is_ok(), may_idle);
        }
    }

    /// It was written when the socket had room again, and may be from before a new beginning.
    #[test]
    fn of_an_answer_to_an_old_question_nothing_is_held_against_anybody() {
        let mut leaders = Leaders::default();
        leaders.note(place(), 3, 1);
        leaders.note(place(), 4, 2);
        leaders.hear(news(4, 0));
        leaders.hear(News { asked_at: None, ..news(4, 0) });
        assert!(leaders.judge(&place(), 1, 1).is_err());
        assert_eq!(leaders.judge(&place(), 1, 2), Ok(()));
    }
}
