//! Ends before their time: a producer is closed under its users' hands, by one of them or by two,
//! or its last handle goes, at any moment from its first on. What it owes them then is checked
//! here: calls that are under way return, later ones are refused, nothing of it is left.

use std::time::Duration;

use super::plan::{Config, MS, Plan, SECOND, WORK, between, pick};
use super::users::{Crowd, User, now, slack, sleep, sleep_until};
use super::world::seat;
use crate::error::Error;
use crate::protocol::ApiKey;
use crate::random::Random;
use crate::sync::Arc;
use crate::threads::spawn_named;
use crate::{CloseReport, KafkaProducer, ProducerRecord, Purge, TopicProducer};

/// How a producer ends while its users are at work.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// When the first of `closes` begins, or the users leave.
    pub(super) at: Duration,
    /// If there are none the users leave, and whoever has the last handle drops it.
    pub(super) closes: Vec<Close>,
    /// `close.on.drop.timeout.ms`.
    pub(super) on_drop: Duration,
    /// Callbacks have handles, too: the last one may be dropped in one of them.
    pub(super) callbacks_hold: bool,
}

/// One user's close.
#[derive(Clone, Copy, Debug)]
pub(super) struct Close {
    /// So much later than the first one.
    pub(super) later: Duration,
    pub(super) timeout: Duration,
    pub(super) gives_back: bool,
}

/// What callbacks get beside a close's time, and the user's own executor.
const LAST_WORDS: Duration = Duration::from_millis(350);

fn timeout(random: &mut Random) -> Duration {
    match random.below(3) {
        0 => Duration::ZERO,
        1 => pick(random, &[1, 20, 300, 2000]) * MS,
        _ => between(random, MS, 8 * SECOND),
    }
}

impl Close {
    pub(super) fn within(timeout: Duration) -> Self {
        Self { later: Duration::ZERO, timeout, gives_back: true }
    }
}

impl Ending {
    pub(super) fn of(random: &mut Random, at: Duration) -> Self {
        let many = pick(random, &[0, 1, 1, 2, 2]);
        let mut closes: Vec<_> = (0..many).map(|_| Close::within(timeout(random))).collect();
        for close in &mut closes {
            close.gives_back = random.below(3) > 0;
        }
        if let [first, second] = &mut closes[..] {
            let most = pick(random, &[Duration::ZERO, MS, first.timeout]);
            second.later = between(random, Duration::ZERO, most);
        }
        Self { at, closes, on_drop: timeout(random), callbacks_hold: random.below(2) == 0 }
    }

    /// That of a world's first producer: before anything is known of the cluster, while it finds
    /// its way, or soon after.
    pub(super) fn soon(random: &mut Random, plan: &Plan) -> Self {
        let round_trip = 2 * plan.weather.latency.1 + plan.work.1;
        let spans = [Duration::ZERO, round_trip, 8 * round_trip, 200 * MS, SECOND];
        let most = pick(random, &spans);
        let at = between(random, Duration::ZERO, most);
        Self::of(random, at)
    }

    /// When the producer has ended, if all of its time is needed.
    pub(super) fn time(&self, config: &Config) -> Duration {
        let closes = self.closes.iter().map(|close| close.later + close.timeout);
        // Users wait for their records, and callbacks keep the producer open.
        self.at + closes.min().unwrap_or(config.delivery_timeout + self.on_drop)
    }

    fn is_drop(&self) -> bool {
        self.closes.is_empty()
    }
}

/// The end of a producer whose time has come, and of all that it has started.
pub(super) fn end_early(producer: KafkaProducer, crowd: &Arc<Crowd>, ending: &Ending) {
    sleep_until(ending.at);
    while !crowd.is_first && crowd.ledger.lock().work() < WORK {
        sleep(MS);
    }
    crowd.note_what_is_known(&producer);
    for close in ending.closes.iter().skip(1).copied() {
        let (producer, crowd) = (producer.clone(), Arc::clone(crowd));
        let closer = move || {
            sleep(close.later);
            crowd.close(&producer, close);
            drop(producer);
            crowd.leave();
        };
        if spawn_named("closer".to_owned(), closer).is_err() {
            return;
        }
    }
    match ending.closes.first() {
        Some(close) => crowd.close(&producer, *close),
        None => crowd.send_all_home(),
    }
    crowd.drop_handle(producer);
    let topics = crowd.wait_for_all();
    wait_until_alone(crowd, ending);
    for topic in topics {
        refuses_to_send(crowd, &topic);
    }
}

/// The producer's own threads end, too.
fn wait_until_alone(crowd: &Crowd, ending: &Ending) {
    let Some(seat) = seat() else { return };
    let plan = &crowd.plan;
    let (begun, mut most) = (now(), SECOND);
    if ending.is_drop() {
        // Callbacks keep it open until they have run, and then it has its time.
        most += plan.config.delivery_timeout + ending.on_drop + 60 * SECOND;
    }
    let until = begun + most;
    loop {
        // One that looks a name up can't be called off.
        let mut others = seat.others();
        others.retain(|name| name != "kafka-producer-resolver");
        if others.is_empty() {
            break;
        }
        if now() > until + slack(begun) {
            return crowd.ledger.find(format!("threads are left at the end: {others:?}"));
        }
        sleep(MS);
    }
    if seat.world.lock().net.is_in_use() {
        crowd.ledger.find("a connection is left at the end".to_owned());
    }
}

/// A handle for a topic outlives the producer, and is of no use any more.
fn refuses_to_send(crowd: &Crowd, topic: &TopicProducer) {
    let record = ProducerRecord::new(topic.name(), "!!");
    let outcomes = [topic.send(record.without_topic().clone()), {
        let record = record.without_topic();
        topic.try_send(record)
    }];
    for outcome in outcomes {
        expect_closed(crowd, "a send to a topic", &outcome);
    }
}

fn expect_closed<T>(crowd: &Crowd, call: &str, outcome: &Result<T, Error>) {
    let text = match outcome {
        Err(Error::Closed) => return,
        Err(error) => error.to_string(),
        Ok(_) => "success".to_owned(),
    };
    crowd.ledger.find(format!("{call} after the close ends in {text}"));
}

impl Crowd {
    /// Closes the producer: by one user, perhaps while another does so, too.
    pub(super) fn close(&self, producer: &KafkaProducer, close: Close) {
        let begun = now();
        let first = self.begin_close(begun + close.timeout);
        let report = match close.gives_back {
            true => producer.close_and_return(close.timeout),
            false => producer.close(close.timeout),
        };
        self.ledger.give_back(&report);
        // What another close has left, if that is less.
        let deadline = self.deadline().max(begun);
        self.bound("close", begun, deadline.since(begun) + LAST_WORDS);
        let early = self.ending.as_ref();
        if early.is_none() && !report.is_clean() {
            self.ledger.find(format!("a close with time enough was not clean: {report:?}"));
        }
        // A look-up may take longer than the close has time.
        if report.threads_stuck > 0 && !(early.is_some() && self.plan.has_names) {
            self.ledger.find(format!("threads are stuck: {report:?}"));
        }
        let alone = early.is_none_or(|ending| ending.closes.len() == 1);
        let surely_not = report.aborted_records - report.unknown;
        if alone && close.gives_back && surely_not > 0 && report.not_sent.is_empty() {
            self.ledger.find(format!("a close gives nothing back: {report:?}"));
        }
        if seat().is_some_and(|seat| seat.world.lock().net.is_in_use()) {
            self.ledger.find("a close has returned, and a connection stands".to_owned());
        }
        if !first {
            self.meet("close");
        }
        self.end_close(&report);
    }

    /// Two closes tell of the same end.
    pub(super) fn compare(&self, one: &CloseReport, other: &CloseReport) {
        let numbers = |it: &CloseReport| {
            (it.delivered, it.failed, it.aborted_records, it.unknown, it.callbacks_left)
        };
        if numbers(one) != numbers(other) {
            self.ledger.find(format!("two closes tell {one:?} and {other:?}"));
        }
    }

    /// Notes what the producer has heard of the cluster by its end, and what is waited for.
    fn note_what_is_known(&self, producer: &KafkaProducer) {
        for (key, moment) in [
            (ApiKey::Metadata, "before metadata"),
            (ApiKey::InitProducerId, "before a producer id"),
        ] {
            if !self.has_asked(key) && (key == ApiKey::Metadata || self.plan.config.idempotent) {
                self.meet(moment);
            }
        }
        if producer.insides().0.pool.has_waiters() {
            self.meet("memory is waited for");
        }
        if self.ending.as_ref().is_some_and(Ending::is_drop) {
            self.meet("drop");
        }
    }

    /// Gives a handle up, perhaps the last one: that closes the producer.
    pub(super) fn drop_handle(&self, producer: KafkaProducer) {
        let begun = now();
        drop(producer);
        let most = self.ending.as_ref().map_or(30 * SECOND, |ending| ending.on_drop);
        self.bound("drop", begun, most + LAST_WORDS);
    }
}

impl User {
    /// All kinds of calls, until the producer is closed or the users are to leave it.
    pub(super) fn work_until_the_end(&mut self) {
        let plan = Arc::clone(&self.crowd.plan);
        let is_drop = self.crowd.ending.as_ref().is_some_and(Ending::is_drop);
        // Who waits for long keeps its handle for as long.
        let long = if is_drop { SECOND } else { 60 * SECOND };
        let mut left: usize = 150;
        while left > 0 && !self.crowd.is_over() {
            let think = between(&mut self.random, Duration::ZERO, plan.think);
            let timeout = pick(&mut self.random, &[Duration::ZERO, 20 * MS, long, long]);
            match self.random.below(20) {
                0 | 1 => self.wait_ready(timeout),
                2 | 3 => {
                    self.crowd.flush(&self.producer, timeout);
                }
                4 => self.ask_for_partitions(),
                5 => self.purge(),
                6 => self.wait(),
                7 => left -= self.send_all(left),
                8..11 => {
                    let burst = self.random.below(25).min(left);
                    (0..burst).for_each(|_| drop(self.send(false)));
                    left -= burst;
                }
                _ => {
                    drop(self.send(false));
                    left -= 1;
                }
            }
            sleep(think);
        }
        while !self.crowd.is_over() {
            sleep(MS);
        }
        if !is_drop {
            self.call_in_vain();
        }
    }

    fn wait_ready(&mut self, timeout: Duration) {
        let plan = Arc::clone(&self.crowd.plan);
        let names: Vec<_> = plan.topics.iter().map(|(name, _)| name.as_str()).collect();
        let many = self.random.below(names.len() + 1);
        let begun = now();
        let outcome = self.producer.wait_ready(&names[..many], timeout);
        self.crowd.bound("wait_ready", begun, timeout);
        match outcome {
            Ok(()) | Err(Error::Authorization { .. }) => {}
            Err(Error::MetadataTimeout { .. }) if now().since(begun) >= timeout => {}
            Err(Error::Closed) if self.crowd.is_closing() => {}
            Err(error) => self.crowd.ledger.find(format!("wait_ready: {error}")),
        }
    }

    fn ask_for_partitions(&mut self) {
        let plan = Arc::clone(&self.crowd.plan);
        let topic = self.random.below(plan.topics.len());
        let begun = now();
        let outcome = self.producer.partitions_for(&plan.topics[topic].0);
        self.crowd.bound("partitions_for", begun, plan.config.max_block);
        if matches!(outcome, Err(Error::Closed)) && !self.crowd.is_closing() {
            self.crowd.ledger.find("partitions_for: closed before the close".to_owned());
        }
    }

    /// Each call, of a producer that is closed: refused at once.
    fn call_in_vain(&mut self) {
        let (crowd, producer) = (&self.crowd, &self.producer);
        let name = &crowd.plan.topics[0].0;
        let record = || ProducerRecord::new(name, "!!");
        let begun = now();
        let sent = producer.send_all(&[record()]).map_err(|partial| partial.error);
        expect_closed(crowd, "send_all", &sent);
        expect_closed(crowd, "send", &producer.send(record()));
        expect_closed(crowd, "send_with", &producer.send_with(record(), |_| ()));
        expect_closed(crowd, "try_send", &producer.try_send(record()).map_err(Error::from));
        expect_closed(crowd, "topic", &producer.topic(name));
        expect_closed(crowd, "partitions_for", &producer.partitions_for(name));
        expect_closed(crowd, "wait_ready", &producer.wait_ready(&[], SECOND));
        expect_closed(crowd, "wait_ready of a topic", &producer.wait_ready(&[name], SECOND));
        self.topics.values().for_each(|topic| refuses_to_send(crowd, topic));
        match producer.purge(Purge::All) {
            Ok(0) => {}
            other => crowd.ledger.find(format!("a purge after the close ends in {other:?}")),
        }
        let again = producer.close_and_return(SECOND);
        crowd.bound("all calls after the close", begun, Duration::ZERO);
        crowd.ledger.give_back(&again);
        crowd.compare_with_first(&again);
        // A callback that was too slow for the close may run on.
        crowd.flush(producer, SECOND);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the fixed seeds' worlds have such an end.
    fn count(is_such: impl Fn(&Plan, &Ending) -> bool) -> usize {
        let has = |plan: &Plan| plan.lives().iter().flatten().any(|ending| is_such(plan, ending));
        (0..2000).filter(|seed| has(&Plan::of(*seed))).count()
    }

    #[test]
    fn producers_end_at_any_moment_and_in_all_ways() {
        let round_trip = |plan: &Plan| 2 * plan.weather.latency.0;
        let pair = |ending: &Ending| ending.closes.len() == 2;
        let is_zero = |close: &Close| close.timeout.is_zero();
        let counts = [
            count(|_, ending| ending.at.is_zero()),
            count(|plan, ending| !ending.at.is_zero() && ending.at < round_trip(plan)),
            count(|_, ending| ending.at > SECOND),
            count(|_, ending| ending.is_drop() && ending.callbacks_hold),
            count(|_, ending| ending.is_drop() && !ending.callbacks_hold),
            count(|_, ending| pair(ending) && ending.closes.iter().all(is_zero)),
            count(|_, ending| pair(ending) && ending.closes.iter().any(is_zero)),
            count(|_, ending| pair(ending) && ending.closes[1].later.is_zero()),
            count(|_, ending| ending.closes.iter().any(|close| close.timeout > 5 * SECOND)),
        ];
        assert!(counts.iter().all(|count| *count >= 15), "{counts:?}");
    }

    /// It has its work to do all the same.
    #[test]
    fn a_world_whose_first_producer_ends_soon_has_another_one() {
        let firsts: Vec<_> = (0..2000).map(Plan::of).filter(|plan| plan.first.is_some()).collect();
        assert!(firsts.len() > 400);
        assert!(firsts.iter().all(|plan| plan.lives().len() == 2));
        assert!(firsts.iter().any(|plan| plan.early_close.is_some()), "both may end early");
    }
}
