//! Logical users: what a program's threads do with a producer, and what they find wrong with it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::ledger::{Ledger, RecordId, value_of};
use super::plan::{MS, Plan, SECOND, between, pick};
use super::world::seat;
use crate::completion::{Callback, Delivery};
use crate::error::Error;
use crate::random::Random;
use crate::sync::{Arc, Condvar, Mutex};
use crate::time::MonoTime;
use crate::{KafkaProducer, ProducerRecord, Purge, TopicProducer, TopicRecord};

/// What all users of a run share.
pub(super) struct Crowd {
    pub(super) plan: Arc<Plan>,
    pub(super) ledger: Ledger,
    state: Mutex<CrowdState>,
    changed: Condvar,
}

struct CrowdState {
    at_work: usize,
    /// A close has begun, or returned.
    closing: bool,
    closed: bool,
}

/// One user.
pub(super) struct User {
    producer: KafkaProducer,
    crowd: Arc<Crowd>,
    random: Random,
    /// Topics that it has looked up, by their number in the plan.
    topics: BTreeMap<usize, TopicProducer>,
    /// Its own records' handles, the latest ones.
    handles: Vec<Arc<Delivery>>,
}

pub(super) fn now() -> MonoTime {
    seat().map_or(MonoTime::ZERO, |seat| seat.now())
}

pub(super) fn sleep(time: Duration) {
    seat().into_iter().for_each(|seat| seat.sleep(time));
}

pub(super) fn sleep_until(moment: Duration) {
    sleep((MonoTime::ZERO + moment).since(now()));
}

impl Crowd {
    pub(super) fn new(plan: &Arc<Plan>, ledger: &Ledger) -> Arc<Self> {
        let state = CrowdState { at_work: plan.users, closing: false, closed: false };
        Arc::new(Self {
            plan: Arc::clone(plan),
            ledger: ledger.clone(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    pub(super) fn wait_for_all(&self) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.at_work > 0);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    /// Checks that a call kept its bound.
    fn bound(&self, call: &str, begun: MonoTime, at_most: Duration) {
        let (took, slack) = (now().since(begun), self.plan.slack());
        if took > at_most + slack {
            self.ledger.find(format!("{call} took {took:?}, and had {at_most:?}"));
        }
    }

    pub(super) fn close(&self, producer: &KafkaProducer, timeout: Duration) {
        self.state.lock().closing = true;
        let begun = now();
        let early = self.plan.early_close.is_some();
        let report = producer.close_and_return(timeout);
        self.ledger.give_back(&report);
        // Its grace for a busy machine, and callbacks' last words.
        self.bound("close", begun, timeout + 750 * MS + self.plan.slow_callback);
        if !early && !report.is_clean() {
            self.ledger.find(format!("a close with time enough was not clean: {report:?}"));
        }
        // A look-up may take longer than the close has time.
        if report.threads_stuck > 0 && !(early && self.plan.has_names) {
            self.ledger.find(format!("threads are stuck: {report:?}"));
        }
        self.state.lock().closed = true;
    }

    pub(super) fn flush(&self, producer: &KafkaProducer, timeout: Duration) -> bool {
        let (begun, accepted) = (now(), self.ledger.lock().accepted);
        let outcome = producer.flush(timeout);
        self.bound("flush", begun, timeout);
        match outcome {
            Ok(()) if self.is_closing() => {}
            Ok(()) => {
                if let Some(id) = self.ledger.unfinished_before(accepted) {
                    self.ledger.find(format!("a flush returned before {id:?} was over"));
                }
            }
            Err(Error::FlushTimeout { .. }) if now().since(begun) >= timeout => return false,
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
        self.work_in_trouble();
        if self.crowd.plan.early_close.is_none() {
            sleep_until(self.crowd.plan.calm_sends_at());
            self.work_when_calm();
        }
        self.leave();
    }

    fn leave(self) {
        let Self { producer, crowd, handles, topics, .. } = self;
        drop((producer, handles, topics));
        crowd.state.lock().at_work -= 1;
        crowd.changed.notify_all();
    }

    fn work_in_trouble(&mut self) {
        let plan = Arc::clone(&self.crowd.plan);
        let share = plan.records.0.div_ceil(plan.users);
        // What is refused is no work done.
        let mut left = share;
        while left > 0 && now() < MonoTime::ZERO + plan.calm_at {
            let think = between(&mut self.random, Duration::ZERO, plan.think);
            match self.random.below(40) {
                0 => {
                    let timeout = pick(&mut self.random, &[Duration::ZERO, 20 * MS, SECOND]);
                    self.crowd.flush(&self.producer, timeout);
                }
                1..4 => self.wait(),
                5 => left -= self.send_all(left),
                6 if self.random.below(4) == 0 => self.purge(),
                4 => {
                    let burst = self.random.below(25).min(left);
                    left -= (0..burst).filter(|_| self.send(false).is_ok()).count();
                    sleep(think * burst as u32);
                }
                _ => {
                    left -= usize::from(self.send(false).is_ok());
                    sleep(think);
                }
            }
        }
        // Whoever was held up catches up.
        while left > 0 && !self.crowd.is_closing() {
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
    fn purge(&mut self) {
        let plan = Arc::clone(&self.crowd.plan);
        let topic = self.random.below(plan.topics.len());
        let name = &plan.topics[topic].0;
        let partition = self.random.below(6) as i32 % plan.partitions(topic);
        let what = [Purge::All, Purge::Topic(name), Purge::Partition(name, partition)];
        let begun = now();
        let outcome = self.producer.purge(pick(&mut self.random, &what));
        self.crowd.bound("purge", begun, Duration::ZERO);
        if let Err(error) = outcome {
            self.crowd.ledger.find(format!("purge: {error}"));
        }
    }

    /// Waits for one of its records, in one of the ways.
    fn wait(&mut self) {
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

    fn send(&mut self, calm: bool) -> Result<Arc<Delivery>, Error> {
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
        let closed = self.crowd.state.lock().closed;
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
    fn send_all(&mut self, most: usize) -> usize {
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
                if let Error::Fatal(_) = error {
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
    let (producer, crowd) = (producer.clone(), Arc::clone(crowd));
    move |fate| {
        crowd.ledger.call(id, fate);
        let slow = crowd.plan.slow_callback;
        if draw % 4 == 0 && !slow.is_zero() {
            sleep(slow.mul_f64((draw >> 8 & 0xff) as f64 / 256.0));
        }
        match draw >> 16 & 31 {
            0..4 => send_again(draw, &producer, &crowd),
            4 if !matches!(producer.flush(SECOND), Err(Error::InCallback { .. })) => {
                crowd.ledger.find("a flush in a callback is not refused".to_owned());
            }
            5 if producer.close(SECOND).refused.is_none() => {
                crowd.ledger.find("a close in a callback is not refused".to_owned());
            }
            6 => {
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
