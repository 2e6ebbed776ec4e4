//! Users' threads against the sender's at the letterbox and at a partition's queue, under every
//! interleaving. The sender is played here by as much of its turn as these two know of.

use std::time::Duration;

use super::inbox::{Bell, Event, Inbox, PartitionId};
use super::queue::{Append, Limits};
use super::topic_map::{Placing, TopicMap};
use super::*;
use crate::completion::{FlushWait, Outcome};
use crate::record::RecordData;
use crate::sync::model::{Poll, explore, join, spawn};
use crate::threads::Process;
use crate::time::ManualClock;

fn inbox(poll: &Arc<Poll>) -> Arc<Inbox> {
    let poll = Arc::clone(poll);
    let bell: Bell = Arc::new(move || poll.wake());
    Arc::new(Inbox::new(bell, Process::current()))
}

#[test]
fn the_sender_never_sleeps_over_an_event() {
    explore(4, || {
        let poll = Arc::new(Poll::default());
        let inbox = inbox(&poll);
        let far = MonoTime::ZERO + Duration::from_secs(9);
        let users = [(); 2].map(|()| {
            let inbox = Arc::clone(&inbox);
            spawn(move || {
                // The first one is due when the sender wakes anyway, the second one is not.
                inbox.push(Event::Partition(PartitionId(0), far));
                inbox.push(Event::MetadataWanted);
            })
        });
        let (mut heard, mut events) = (0, Vec::new());
        while heard < 4 {
            inbox.take(&mut events);
            heard += events.drain(..).len();
            if heard < 4 && inbox.fall_asleep(far) {
                poll.wait();
            }
        }
        users.into_iter().for_each(join);
    });
}

#[test]
fn a_flush_that_meets_the_senders_end_is_over() {
    explore(4, || {
        let inbox = inbox(&Arc::default());
        let flusher = spawn({
            let inbox = Arc::clone(&inbox);
            move || {
                let flush = FlushWait::begin();
                inbox.push(Event::Flush(flush.token(0, 0)));
                flush.wait(&Clock::Manual(ManualClock::new()), MonoTime::MAX).unwrap();
            }
        });
        inbox.take(&mut Vec::new());
        drop(inbox.close());
        join(flusher);
    });
}

/// Appends a record in memory of its own, and says whether it was accepted.
fn append(topics: &TopicMap, value: &'static [u8]) -> Option<Delivery> {
    let data = RecordData { key: None, value: Some(value), headers: &[], timestamp: 0 };
    let mut append = Append { data, own_timestamp: true, sticky: false };
    let clock = Clock::Manual(ManualClock::new());
    let mut memory = Some(Vec::with_capacity(512));
    let topic = topics.find_or_add("t");
    match topic.queue(0).append(&mut append, &mut None, &mut memory, &clock) {
        Appended::Done(delivery) => Some(delivery),
        Appended::Closed => None,
        _ => panic!("it needs no more memory, and there is no other partition"),
    }
}

/// Takes what the partition holds and delivers it; the number of records.
fn drain(queue: &queue::PartitionQueue) -> u32 {
    let mut state = queue.lock();
    state.told = queue::Told::Nothing;
    let batches = std::mem::take(&mut state.batches);
    drop(state);
    let deliver = |batch: Box<batch::ProducerBatch>| {
        let outcome = Outcome::Delivered { base_offset: 0, log_append_time: None };
        batch.result.complete(outcome);
        batch.record_count()
    };
    batches.into_iter().map(deliver).sum()
}

fn topics(inbox: &Arc<Inbox>) -> Arc<TopicMap> {
    let limits = Limits { batch_size: 1, linger: Duration::ZERO };
    Arc::new(TopicMap::new(Arc::clone(inbox), limits, Placing { adaptive: false, seed: 0 }))
}

#[test]
fn what_is_appended_during_close_is_refused_or_found() {
    explore(3, || {
        // Nobody rings: what was accepted is to be found without being told of.
        let topics = topics(&inbox(&Arc::default()));
        let users = [b"a", b"b"].map(|value| {
            let topics = Arc::clone(&topics);
            spawn(move || append(&topics, value))
        });
        topics.close();
        let drained: u32 = topics.queues_from(0).iter().map(|queue| drain(queue)).sum();
        let accepted: Vec<_> = users.into_iter().filter_map(join).collect();
        assert_eq!(drained as usize, accepted.len());
        assert!(accepted.iter().all(|delivery| delivery.check().is_some()));
    });
}

#[test]
fn the_sender_hears_of_what_is_appended_and_of_waits_for_it() {
    explore(2, || {
        let poll = Arc::new(Poll::default());
        let inbox = inbox(&poll);
        let topics = topics(&inbox);
        topics.find_or_add("t").queue(0);
        let users = [b"a", b"b"].map(|value| {
            let topics = Arc::clone(&topics);
            spawn(move || append(&topics, value).unwrap().wait().unwrap())
        });
        let (mut drained, mut events) = (0, Vec::new());
        while drained < 2 {
            inbox.take(&mut events);
            for event in events.drain(..) {
                let Event::Partition(id, _) = event else { panic!("there are no others") };
                drained += drain(&topics.queues_from(id.0 as usize)[0]);
            }
            if drained < 2 && inbox.fall_asleep(MonoTime::MAX) {
                poll.wait();
            }
        }
        users.into_iter().for_each(|user| drop(join(user)));
    });
}
