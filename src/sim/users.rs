//! Logical users: what a program's threads do with a producer.

use std::time::Duration;

use super::ledger::{Ledger, value_of};
use super::plan::Plan;
use super::world::{Seat, seat};
use crate::random::Random;
use crate::sync::Arc;
use crate::{KafkaProducer, ProducerRecord};

/// What one user's thread has.
pub(super) struct User {
    pub(super) producer: KafkaProducer,
    pub(super) plan: Arc<Plan>,
    pub(super) ledger: Ledger,
    pub(super) random: Random,
    pub(super) seat: Seat,
}

impl User {
    pub(super) fn new(
        number: u64,
        producer: KafkaProducer,
        plan: &Arc<Plan>,
        ledger: &Ledger,
    ) -> Self {
        let random = Random::new(plan.seed.wrapping_mul(31).wrapping_add(number));
        let seat = seat().expect("a simulated thread");
        Self { producer, plan: Arc::clone(plan), ledger: ledger.clone(), random, seat }
    }

    pub(super) fn work(mut self) {
        let share = (self.plan.records as usize).div_ceil(self.plan.users);
        for _ in 0..share {
            self.send();
            if self.random.below(4) == 0 {
                self.seat.sleep(Duration::from_micros(self.random.below(3000) as u64));
            }
        }
    }

    fn send(&mut self) {
        let topic = self.random.below(self.plan.topics.len());
        let id = self.ledger.begin(topic, false);
        let value = value_of(id, self.random.below(200));
        let record = ProducerRecord::new(&self.plan.topics[topic].0, &value);
        match self.producer.send(record) {
            Ok(delivery) => self.ledger.accept(id, self.seat.now(), Some(delivery)),
            Err(_) => self.ledger.refuse(id),
        }
    }
}
