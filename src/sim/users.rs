//! Logical users: what a program's threads do with a producer, and what they find wrong with it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::ends::Ending;
use super::ledger::{Ledger, RecordId, value_of};
use super::plan::{MS, Plan, SECOND, between, pick};
use super::world::seat;
use crate::completion::{Callback, Delivery};
use crate::error::Error;
use crate::protocol::ApiKey;
use crate::random::Random;
use crate::sync::{Arc, Condvar, Mutex};
use crate::time::MonoTime;
use crate::{CloseReport, KafkaProducer, ProducerRecord, Purge, TopicProducer, TopicRecord};

/// What all users of a run share.
pub(super) struct Crowd {
    pub(super) plan: Arc<Plan>,
    pub(super) ledger: Ledger,
    /// This producer is followed by another one.
    pub(super) is_first: bool,
    /// How the producer ends, if that is early.
    pub(super) ending: Option<Ending>,
    /// Requests of each kind that were carried out before this producer was made.
    spoken: BTreeMap<(ApiKey, i16), u64>,
    state: Mutex<CrowdState>,
    changed: Condvar,
}

struct CrowdState {
    at_work: usize,
    /// When the first close began, and when one returned.
    closing: Option<MonoTime>,
    closed: Option<MonoTime>,
    /// Until when closes have time, all of them.
    deadline: MonoTime,
    /// What a close has told.
    report: Option<CloseReport>,
    /// The users are to go and leave the producer to itself.
    leaving: bool,
    /// Handles for topics that were left behind.
    topics: Vec<TopicProducer>,
}

/// One user.
pub(super) struct User {
    pub(super) producer: KafkaProducer,
    pub(super) crowd: Arc<Crowd>,
    pub(super) random: Random,
    /// Topics that it has looked up, by their number in the plan.
    pub(super) topics: BTreeMap<usize, TopicProducer>,
    /// Its own records' handles, the latest ones.
    handles: Vec<Arc<Delivery>>,
}

pub(super) fn now() -> MonoTime {
    seat().map_or(MonoTime::ZERO, |seat| seat.now())
}

/// How much later than allowed what has begun then may be over.
pub(super) fn slack(begun: MonoTime) -> Duration {
    seat().map_or(Duration::ZERO, |seat| {
        let state = seat.world.lock();
        state.effects.slack(begun, state.now)
    })
}

pub(super) fn sleep(time: Duration) {
    seat().into_iter().for_each(|seat| seat.sleep(time));
}

pub(super) fn sleep_until(moment: Duration) {
    sleep((MonoTime::ZERO + moment).since(now()));
}

impl Crowd {
    pub(super) fn new(plan: &Arc<Plan>, ledger: &Ledger, life: usize) -> Arc<Self> {
        ledger.lock().life = life;
        let lives = plan.lives();
        let ending = lives[life].cloned();
        let closers = ending.as_ref().map_or(0, |ending| ending.closes.len().saturating_sub(1));
        let state = CrowdState {
            at_work: plan.users + closers,
            closing: None,
            closed: None,
            deadline: MonoTime::MAX,
            report: None,
            leaving: false,
            topics: Vec::new(),
        };
        Arc::new(Self {
            plan: Arc::clone(plan),
            ledger: ledger.clone(),
            is_first: life + 1 < lives.len(),
            ending,
            spoken: seat().map(|seat| seat.world.lock().spoken.clone()).unwrap_or_default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// Gives the handles for topics that were left behind.
    pub(super) fn wait_for_all(&self) -> Vec<TopicProducer> {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.at_work > 0);
        std::mem::take(&mut state.topics)
    }

    /// A user, or another one who closes, is done.
    pub(super) fn leave(&self) {
        self.state.lock().at_work -= 1;
        self.changed.notify_all();
    }

    pub(super) fn send_all_home(&self) {
        self.state.lock().leaving = true;
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state.lock().closing.is_some()
    }

    /// The producer is closed, or the users are to go.
    pub(super) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.closed.is_some() || state.leaving
    }

    /// A close begins. Tells whether it is the first.
    pub(super) fn begin_close(&self, deadline: MonoTime) -> bool {
        let mut state = self.state.lock();
        state.deadline = state.deadline.min(deadline);
        let is_first = state.closing.is_none();
        state.closing.get_or_insert(now());
        is_first
    }

    /// Until when closes have time, as far as they have begun.
    pub(super) fn deadline(&self) -> MonoTime {
        self.state.lock().deadline
    }

    /// A close has returned.
    pub(super) fn end_close(&self, report: &CloseReport) {
        {
            let mut state = self.state.lock();
            state.closed.get_or_insert(now());
            if state.report.is_none() {
                state.report = Some(report.clone());
            }
        }
        self.compare_with_first(report);
    }

    pub(super) fn compare_with_first(&self, report: &CloseReport) {
        let first = self.state.lock().report.clone();
        first.into_iter().for_each(|first| self.compare(&first, report));
    }

    /// Whether a request of this kind was carried out since the producer was made.
    pub(super) fn has_asked(&self, key: ApiKey) -> bool {
        let count = |spoken: &BTreeMap<(ApiKey, i16), u64>| {
            spoken.iter().filter(|((of, _), _)| *of == key).map(|(_, times)| times).sum::<u64>()
        };
        seat().is_some_and(|seat| count(&seat.world.lock().spoken) > count(&self.spoken))
    }

    /// The producer ended at such a moment.
    pub(super) fn meet(&self, moment: &'static str) {
        if let Some(seat) = seat() {
            *seat.world.lock().met.entry(moment).or_default() += 1;
        }
    }

    /// Checks that a call kept its bound, and that it did not outlive the producer.
    pub(super) fn bound(&self, call: &'static str, begun: MonoTime, at_most: Duration) {
        let (took, slack) = (now().since(begun), slack(begun));
        if took > at_most + slack {
            self.ledger.find(format!("{call} took {took:?}, and had {at_most:?}"));
        }
        let (closing, closed) = {
            let state = self.state.lock();
            (state.closing, state.closed)
        };
        if call != "close" && closing.is_some_and(|at| begun < at) {
            self.meet(call);
        }
        // A flush waits for the callback that runs.
        let most = slack + self.plan.slow_callback;
        if closed.is_some_and(|at| begun < at && now() > at + most) {
            self.ledger.find(format!("{call} goes on {:?} after the close", now().since(begun)));
        }
    }

    pub(super) fn flush(&self, producer: &KafkaProducer, timeout: Duration) -> bool {
        let (begun, accepted) = (now(), self.ledger.lock().accepted);
        let outcome = producer.flush(timeout);
        self.bound("flush", begun, timeout);
        match outcome {
            Ok(()) => {
                if let Some(id) = self.ledger.unfinished_before(accepted, self.is_closing()) {
                    self.ledger.find(format!("a flush returned before {id:?} was over"));
                }
            }
            Err(Error::FlushTimeout { .. }) if now().since(begun) >= timeout => {
                // What was sent before the sender heard of it is waited for, too.
                let over_at = self.ledger.lock().over_at(begun + slack(begun));
                if !self.is_closing() && over_at.is_some_and(|at| begun < at && at + MS < now()) {
                    let text = format!("a flush of {begun:?} does not end in {timeout:?}");
                    self.ledger.find(format!("{text}: all was over at {over_at:?}"));
                }
                return false;
            }
            Err(error) => self.ledger.find(format!("flush: {error}")),
        }
        true
    }
}

impl User {
    pub(super) fn new(number: u64, producer: KafkaProducer, crowd: &Arc<Crowd>) -> Self {
        let random = Random::new(crowd.plan.seed.wrapping_mul(31).wrapping_add(number));
        Self {
            producer,
            crowd: Arc::clone(crowd),
            random,
            topics: BTreeMap::new(),
            handles: Vec::new(),
        }
    }

    pub(super) fn work(mut self) {
        if self.crowd.is_first {
            self.work_until_the_end();
        } else {
            self.work_in_trouble();
            if self.crowd.ending.is_none() {
                sleep_until(self.crowd.plan.calm_sends_at());
                self.work_when_calm();
            }
        }
        self.leave();
    }

    fn leave(self) {
        let Self { producer, crowd, handles, topics, .. } = self;
        crowd.drop_handle(producer);
        drop(handles);
        crowd.state.lock().topics.extend(topics.into_values());
        crowd.leave();
    }

    fn work_in_trouble(&mut self) {
        let plan = Arc::clone(&self.crowd.plan);
        let share = plan.records.0.div_ceil(plan.users);
        // What is refused is no work done.
        let mut left = share;
        let is_left = |crowd: &Crowd| crowd.state.lock().leaving;
        while left > 0 && now() < MonoTime::ZERO + plan.calm_at && !is_left(&self.crowd) {
            let think = between(&mut self.random, Duration::ZERO, plan.think);
            match self.random.below(40) {
                0 => {
                    let timeout = pick(&mut self.random, &[Duration::ZERO, 20 * MS, SECOND]);
                    self.crowd.flush(&self.producer, timeout);
                }
                1..=3 => self.wait(),
                5 => left -= self.send_all(left),
                6 if self.random.below(4) == 0 => self.purge(),
                way => {
                    let many = if way == 4 { 25 } else { 3 };
                    let burst = (1 + self.random.below(many)).min(left);
                    left -= (0..burst).filter(|_| self.send(false).is_ok()).count();
                    sleep(think * burst as u32);
                }
            }
        }
        // Whoever was held up catches up.
        while left > 0 && !self.crowd.is_closing() && !is_left(&self.crowd) {
            match self.send(false) {
                Ok(_) => left -= 1,
                Err(_) => sleep(20 * MS),
            }
        }
    }

    fn work_when_calm(&mut self) {
        let plan = Arc::clone(&self.crowd.plan);
        for _ in 0..plan.records.1.div_ceil(plan.users) {
            // What must become of it is checked in the end.
            let _ = self.send(true).and_then(|delivery| delivery.wait().map(drop));
            let pause = pick(&mut self.random, &[Duration::ZERO, MS, 400 * MS]);
            sleep(pause);
        }
    }

    /// Gives up what was not sent, of all users.
    pub(super) fn purge(&mut self) {
        let plan = Arc::clone(&self.crowd.plan);
        let topic = self.random.below(plan.topics.len());
        let name = &plan.topics[topic].0;
        let partition = self.random.below(6) as i32 % plan.partitions(topic);
        let what = [Purge::All, Purge::Topic(name), Purge::Partition(name, partition)];
        let begun = now();
        let what = pick(&mut self.random, &what);
        let outcome = match self.random.below(2) {
            0 => self.producer.purge(what).map(drop),
            _ => {
                let records = self.producer.purge_and_return(what);
                records.map(|records| self.crowd.ledger.take_back(&records))
            }
        };
        self.crowd.bound("purge", begun, Duration::ZERO);
        if let Err(error) = outcome {
            self.crowd.ledger.find(format!("purge: {error}"));
        }
    }

    /// Waits for one of its records, in one of the ways.
    pub(super) fn wait(&mut self) {
        if self.handles.is_empty() {
            return;
        }
        let place = self.random.below(self.handles.len());
        let handle = self.handles.swap_remove(place);
        let begun = now();
        match self.random.below(4) {
            0 => {
                let timeout = pick(&mut self.random, &[Duration::ZERO, 5 * MS, 300 * MS]);
                let outcome = handle.wait_timeout(timeout);
                self.crowd.bound("wait_timeout", begun, timeout);
                if matches!(outcome, Err(Error::WaitTimeout)) {
                    let decided = handle.decided_as().map_or(MonoTime::MAX, |(_, at)| at);
                    if decided < now() && now().since(decided) > MS {
                        self.crowd.ledger.find(format!("a wait goes on, decided at {decided:?}"));
                    }
                    self.handles.push(handle);
                }
            }
            _ => {
                let _ = handle.wait();
                let at_most = self.crowd.plan.config.delivery_timeout;
                self.crowd.bound("wait", begun, at_most);
            }
        }
    }

    pub(super) fn send(&mut self, calm: bool) -> Result<Arc<Delivery>, Error> {
        let plan = Arc::clone(&self.crowd.plan);
        let topic = self.random.below(plan.topics.len());
        let way = self.random.below(8);
        let has_callback = way < 3 && !calm;
        let id = self.crowd.ledger.begin(topic, has_callback, calm);
        let value = value_of(id, self.random.below(plan.value));
        let key = [b'k', self.random.below(8) as u8];
        let mut record = ProducerRecord::new(&plan.topics[topic].0, &value);
        match self.random.below(8) {
            0..3 => record = record.key(&key),
            3 => record = record.partition(self.random.below(6) as i32 % plan.partitions(topic)),
            _ => {}
        }
        let begun = now();
        let closed = self.crowd.state.lock().closed.is_some();
        let outcome = if has_callback {
            let callback = callback(id, self.random.next_u64(), &self.producer, &self.crowd);
            self.producer.send_observed(record, Callback::User(Box::new(callback)))
        } else if way == 3 && !calm {
            self.producer.try_send(record).map_err(Error::from)
        } else if way == 4 {
            self.send_to_topic(topic, record.without_topic(), calm)
        } else {
            self.producer.send(record)
        };
        // The look-up of a topic has the same time once more.
        let calls = if way == 4 { 2 } else { 1 };
        self.crowd.bound("send", begun, plan.config.max_block * calls);
        self.take(id, outcome, closed)
    }

    /// By the handle for a topic, which was looked up before, perhaps long ago.
    fn send_to_topic(
        &mut self,
        topic: usize,
        record: &TopicRecord<'_>,
        calm: bool,
    ) -> Result<Delivery, Error> {
        let handle = match self.topics.entry(topic) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(self.producer.topic(&self.crowd.plan.topics[topic].0)?)
            }
        };
        match self.random.below(4) {
            // One that never waits may be refused, however well all is.
            0 if !calm => handle.try_send(record),
            _ => handle.send(record.clone()),
        }
    }

    /// Several records at once. Gives how many were accepted.
    pub(super) fn send_all(&mut self, most: usize) -> usize {
        let plan = Arc::clone(&self.crowd.plan);
        let topic = self.random.below(plan.topics.len());
        let name = &plan.topics[topic].0;
        let many = (1 + self.random.below(4)).min(most);
        let ids: Vec<_> = (0..many).map(|_| self.crowd.ledger.begin(topic, false, false)).collect();
        let values: Vec<_> = ids.iter().map(|id| value_of(*id, 30)).collect();
        let records: Vec<_> = values.iter().map(|v| ProducerRecord::new(name, v)).collect();
        // Others may send between two of them.
        self.crowd.ledger.begin_call(&ids);
        let begun = now();
        let (accepted, error) = match self.producer.send_all(&records) {
            Ok(accepted) => (accepted, None),
            Err(partial) => (partial.accepted, Some(partial.error)),
        };
        self.crowd.bound("send_all", begun, plan.config.max_block);
        let taken = accepted.len();
        let mut accepted = accepted.into_iter();
        for id in ids {
            let outcome = accepted.next().ok_or_else(|| error.clone().unwrap_or(Error::Closed));
            drop(self.take(id, outcome, false));
        }
        taken
    }

    fn take(
        &mut self,
        id: RecordId,
        outcome: Result<Delivery, Error>,
        was_closed: bool,
    ) -> Result<Arc<Delivery>, Error> {
        match outcome {
            Ok(delivery) => {
                if was_closed {
                    self.crowd.ledger.find(format!("{id:?} was accepted after the close"));
                }
                note_accepted(id, &delivery);
                let delivery = self.crowd.ledger.accept(id, now(), delivery);
                self.handles.push(Arc::clone(&delivery));
                if self.handles.len() > 40 {
                    let place = self.random.below(40);
                    self.handles.swap_remove(place);
                }
                Ok(delivery)
            }
            Err(error) => {
                let early = matches!(error, Error::Closed) && !self.crowd.is_closing();
                if early || matches!(error, Error::Fatal(_)) {
                    self.crowd.ledger.find(format!("send: {error}"));
                }
                self.crowd.ledger.refuse(id, &error);
                Err(error)
            }
        }
    }
}

fn note_accepted(id: RecordId, delivery: &Delivery) {
    let Some(seat) = seat() else { return };
    let mut state = seat.world.lock();
    let now = state.now;
    state.trace.note(now, "accepted", [u64::from(id.0), delivery.partition() as u64], || {
        (format!("{}-{}", delivery.topic(), delivery.partition()), format!("{id:?}"))
    });
}

/// A callback that does what callbacks should not, now and then.
fn callback(
    id: RecordId,
    draw: u64,
    producer: &KafkaProducer,
    crowd: &Arc<Crowd>,
) -> impl FnOnce(Result<&crate::RecordMetadata, &Error>) + Send + 'static {
    let holds = crowd.ending.as_ref().is_none_or(|ending| ending.callbacks_hold);
    let (producer, crowd) = (holds.then(|| producer.clone()), Arc::clone(crowd));
    move |fate| {
        crowd.ledger.call(id, fate);
        let slow = crowd.plan.slow_callback;
        if draw % 4 == 0 && !slow.is_zero() {
            sleep(slow.mul_f64((draw >> 8 & 0xff) as f64 / 256.0));
        }
        match (draw >> 16 & 31, &producer) {
            (0..4, Some(producer)) => send_again(draw, producer, &crowd),
            (4, Some(producer))
                if !matches!(producer.flush(SECOND), Err(Error::InCallback { .. })) =>
            {
                crowd.ledger.find("a flush in a callback is not refused".to_owned());
            }
            (5, Some(producer)) if producer.close(SECOND).refused.is_none() => {
                crowd.ledger.find("a close in a callback is not refused".to_owned());
            }
            (6, _) => {
                crowd.ledger.leave(id);
                std::panic::resume_unwind(Box::new("a callback's own"));
            }
            _ => {}
        }
        crowd.ledger.leave(id);
    }
}

fn send_again(draw: u64, producer: &KafkaProducer, crowd: &Arc<Crowd>) {
    let topic = draw as usize % crowd.plan.topics.len();
    let id = crowd.ledger.begin(topic, false, false);
    let value = value_of(id, 20);
    let record = ProducerRecord::new(&crowd.plan.topics[topic].0, &value);
    let begun = now();
    let outcome = producer.send(record);
    crowd.bound("send in a callback", begun, crowd.plan.config.max_block);
    match outcome {
        Ok(delivery) => {
            note_accepted(id, &delivery);
            crowd.ledger.accept(id, now(), delivery);
        }
        Err(error) => crowd.ledger.refuse(id, &error),
    }
}
