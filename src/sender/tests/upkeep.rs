//! Metadata, the producer id, and sleep: asked for when needed, woken when it matters.

use super::*;
use crate::client::{ClientEvent, NodeAddress, Stage};
use crate::types::NodeId;

fn rung(s: &Scenario) -> usize {
    s.rung.load(Ordering::Relaxed)
}

fn out_of_reach(s: &Scenario, node: i32, until: MonoTime) {
    s.client.0.borrow_mut().down.insert(NodeId(node), until);
}

impl Scenario {
    /// The tag of the request for metadata that has no answer yet.
    fn metadata_under_way(&self) -> Option<u64> {
        let wire = self.client.0.borrow();
        wire.under_way.iter().find(|r| r.api == ApiKey::Metadata).map(|r| r.tag)
    }
}

fn lingering(s: &mut Setup) {
    s.batch_size = 1000;
    s.sender.linger = 60 * SECOND;
}

#[test]
fn a_producer_at_rest_sleeps_until_its_metadata_is_old() {
    let mut s = Scenario::new(|_| {});
    assert_eq!(s.settle(), Some(300 * SECOND));
    s.sleep();
    assert_eq!((s.metadata_requests, s.settle()), (2, Some(300 * SECOND)));
}

/// SND-09.
#[test]
fn a_producer_id_is_asked_for_once_and_not_without_need() {
    let mut s = Scenario::new(|s| s.leaders = vec![(1, 0); 3]);
    for partition in [0, 1, 2] {
        s.append(partition, "a");
    }
    let sent = s.sent_one();
    assert!(sent.batches.iter().all(|b| (b.producer_id, b.epoch) == (70, 0)));
    assert_eq!(s.id_requests, 1);
    let mut s = Scenario::new(|s| s.sender.idempotent = false);
    s.append(0, "a");
    s.settle();
    assert_eq!(s.id_requests, 0);
}

/// SND-66.
#[test]
fn a_retriable_refusal_of_an_id_is_tried_again_after_growing_backoffs() {
    let mut s = Scenario::unconnected(|_| {});
    s.next_id = None;
    let delivery = s.append(0, "a");
    s.settle();
    let mut ever_differs = false;
    for expected in [100 * MS, 200 * MS, 400 * MS] {
        assert!(s.asks_for_id());
        s.answer_id(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, -1, -1);
        assert!(!s.asks_for_id());
        let begun = s.now();
        while !s.asks_for_id() {
            s.sleep();
        }
        let took = s.now().since(begun);
        assert!(took >= expected * 8 / 10 && took <= expected * 12 / 10, "{took:?}");
        ever_differs |= took != expected;
    }
    assert!(ever_differs, "there is no jitter");
    s.answer_id(OK, 80, 3);
    let sent = s.sent_one();
    assert_eq!((sent.batch().producer_id, sent.told()), (80, told(3, 0, "a")));
    assert!(is_open(&delivery));
}

/// SND-12.
#[test]
fn a_refused_id_fails_what_needs_one_and_the_next_record_asks_again() {
    let mut s = Scenario::unconnected(|_| {});
    s.next_id = None;
    let code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
    let delivery = s.append(0, "a");
    s.settle();
    s.answer_id(code, -1, -1);
    assert_eq!(failure_code(&delivery), Some(code));
    assert!(s.memory_is_whole());
    s.advance(10 * SECOND);
    s.settle();
    assert!(!s.asks_for_id(), "nobody needs one");
    s.next_id = Some((70, 0));
    s.append(0, "b");
    assert_eq!(s.told(), [told(0, 0, "b")]);
}

/// SND-10.
#[test]
fn a_broker_that_takes_one_request_at_a_time_gives_metadata_then_an_id() {
    let mut s = Scenario::unconnected(|s| s.max_in_flight = 1);
    (s.answers_metadata, s.brokers) = (false, [1].into());
    let delivery = s.append(0, "a");
    s.settle();
    assert_eq!((s.client.0.borrow().under_way.len(), s.asks_for_id()), (1, false));
    s.answers_metadata = true;
    let sent = s.sent_one();
    assert_eq!((sent.told(), s.id_requests), (told(0, 0, "a"), 1));
    s.answer(&sent, OK, 0);
    assert_eq!(offset(&delivery), Some(0));
}

/// SND-11.
#[test]
fn an_id_is_asked_for_once_a_broker_is_ready_and_no_turn_is_wasted_before() {
    let mut s = Scenario::unconnected(|_| {});
    let at = MonoTime::ZERO + 3 * SECOND;
    for node in [-1, 1, 2] {
        out_of_reach(&s, node, at);
    }
    s.append(0, "a");
    assert_eq!((s.settle(), s.id_requests), (Some(3 * SECOND), 0));
    s.client.0.borrow_mut().down.remove(&NodeId(-1));
    s.settle();
    out_of_reach(&s, -1, at);
    s.advance(3 * SECOND);
    s.client.0.borrow_mut().down.clear();
    assert_eq!((s.told(), s.id_requests), (vec![told(0, 0, "a")], 1));
}

#[test]
fn a_record_that_waits_for_an_id_in_vain_tells_of_the_last_attempt_to_get_one() {
    let mut s = Scenario::unconnected(|s| s.leaders = vec![(1, 0), (2, 0)]);
    s.next_id = None;
    let waits = s.append(0, "a");
    s.settle();
    s.answer_id(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, -1, -1);
    s.advance(120 * SECOND);
    s.settle();
    let no_id = |cause| Some(DeliveryCause::NoProducerId(Arc::new(cause)));
    let loading = broker_error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS);
    assert_eq!(failure(&waits).last, no_id(loading));
    let waits = s.append(0, "b");
    s.settle();
    assert!(s.asks_for_id());
    s.cut(1);
    s.cut(2);
    s.advance(120 * SECOND);
    s.settle();
    assert_eq!(failure(&waits).last, no_id(DeliveryCause::Disconnected));
    s.next_id = Some((70, 0));
    let under_way = s.append(0, "c");
    s.sleep();
    s.advance(120 * SECOND);
    s.settle();
    assert_eq!(failure(&under_way).last, None, "there is an id now");
}

/// NC-13: not only the answers to Produce ask for a pause.
#[test]
fn a_broker_that_throttles_metadata_or_an_id_is_left_alone() {
    let mut s = Scenario::unconnected(|_| {});
    (s.answers_metadata, s.next_id) = (false, None);
    s.append(0, "a");
    s.settle();
    assert!(s.asks_for_id());
    let metadata = MetadataResponse { throttle_time_ms: 250, ..s.metadata() };
    s.answer_own(ApiKey::Metadata, |version, out| metadata.encode(version, out));
    let id = InitProducerIdResponse { throttle_time_ms: 350, ..id_answer(OK, 70, 0) };
    s.answer_own(ApiKey::InitProducerId, |version, out| id.encode(version, out));
    let asked = NodeId(-1);
    assert_eq!(s.client.0.borrow().throttled, [(asked, 250 * MS), (asked, 350 * MS)]);
    assert_eq!(s.sent_one().told(), told(0, 0, "a"));
}

/// RA-26.
#[test]
fn brokers_that_give_no_ids_are_told_of_and_asked_again_with_the_next_record() {
    let mut s = Scenario::unconnected(|_| {});
    s.client.0.borrow_mut().unsupported.insert(ApiKey::InitProducerId.code());
    let delivery = s.append(0, "a");
    s.settle();
    assert!(matches!(failure(&delivery).cause, DeliveryCause::UnsupportedVersion(_)));
    assert!(s.memory_is_whole());
    s.client.0.borrow_mut().unsupported.clear();
    s.append(0, "b");
    assert_eq!(s.told(), [told(0, 0, "b")]);
}

#[test]
fn a_lost_request_for_an_id_is_made_again() {
    let mut s = Scenario::unconnected(|_| {});
    s.next_id = None;
    s.append(0, "a");
    s.settle();
    assert!(s.asks_for_id());
    for node in [-1, 1, 2] {
        s.cut(node);
    }
    s.next_id = Some((70, 0));
    assert_eq!(s.until_sent().1.told(), told(0, 0, "a"));
}

#[test]
fn a_broker_in_backoff_is_tried_when_it_is_over_and_not_before() {
    let mut s = Scenario::new(|_| {});
    out_of_reach(&s, 1, MonoTime::ZERO + 3 * SECOND);
    s.append(0, "a");
    assert_eq!(s.settle(), Some(3 * SECOND));
    s.advance(3 * SECOND);
    s.client.0.borrow_mut().down.clear();
    assert_eq!(s.told(), [told(0, 0, "a")]);
}

#[test]
fn no_turn_is_wasted_while_all_brokers_are_out_of_reach() {
    let mut s = Scenario::new(|_| {});
    for node in [1, 2] {
        out_of_reach(&s, node, MonoTime::MAX);
    }
    s.append(0, "a");
    s.sender.metadata.request_update();
    s.settle();
    let turns = s.client.0.borrow().polls.len();
    let begun = s.now();
    while s.now().since(begun) < 119 * SECOND {
        s.sleep();
    }
    let polls = s.client.0.borrow().polls.len() - turns;
    assert!(polls < 400, "{polls} turns");
}

/// MD-04: whatever became of the request, and after an answer without news, by random times.
#[test]
fn the_backoffs_of_metadata_have_jitter() {
    let unreadable = || Ok(ResponseBody::Bytes(vec![1]));
    let ways = [|| Err(RequestFailure::TimedOut), unreadable];
    for end in ways.into_iter().map(Some).chain([None]) {
        let mut s = Scenario::new(|_| {});
        s.advance(SECOND);
        s.settle();
        let mut ever_differs = false;
        for expected in [100 * MS, 200 * MS, 400 * MS] {
            s.answers_metadata = end.is_none();
            s.sender.metadata.request_update();
            s.settle();
            if let Some(end) = end {
                let tag = s.metadata_under_way().expect("asked for");
                s.client.0.borrow_mut().end(tag, end(), true);
                s.settle();
            }
            s.sender.metadata.request_update();
            let slept = s.settle().expect("a time-out");
            assert!(slept >= expected * 8 / 10 && slept <= expected * 12 / 10, "{slept:?}");
            ever_differs |= slept != expected;
            s.advance(slept);
        }
        assert!(ever_differs, "there is no jitter");
    }
}

/// RA-33.
#[test]
fn a_batch_without_a_leader_asks_for_metadata_and_goes_when_there_is_one() {
    let mut s = Scenario::new(|s| s.leaders = vec![(-1, -1)]);
    let before = s.metadata_requests;
    s.advance(SECOND);
    let delivery = s.append(0, "a");
    assert_eq!(s.sent().len(), 0);
    assert!(s.metadata_requests > before);
    s.leaders = vec![(2, 1)];
    let (took, sent) = s.until_sent();
    assert!(sent.node == 2 && took <= SECOND, "{took:?}");
    s.answer(&sent, OK, 0);
    assert_eq!(offset(&delivery), Some(0));
}

/// RA-33: nothing else would make the sender ask.
#[test]
fn a_batch_of_a_partition_that_metadata_lacks_has_it_asked_for() {
    let mut s = Scenario::new(|_| {});
    s.advance(SECOND);
    let before = s.metadata_requests;
    assert_eq!(s.settle(), Some(299 * SECOND));
    let delivery = s.append(1, "a");
    assert_eq!(s.sent().len(), 0);
    assert_eq!(s.metadata_requests, before + 1);
    for _ in 0..20 {
        assert!(s.sleep() <= SECOND + SECOND / 5, "it goes on asking");
    }
    assert_eq!(s.metadata_requests, before + 21);
    s.leaders = vec![(1, 0), (2, 0)];
    let (took, sent) = s.until_sent();
    assert!((sent.node, sent.batch().partition) == (2, 1) && took <= 2 * SECOND, "{took:?}");
    s.answer(&sent, OK, 0);
    assert_eq!(offset(&delivery), Some(0));
}

/// A call waits for a leader where the topic is known.
#[test]
fn a_leader_that_is_waited_for_is_asked_for_once_an_answer() {
    let mut s = Scenario::new(|s| s.leaders = vec![(-2, -1)]);
    s.advance(2 * SECOND);
    s.settle();
    let (before, until) = (s.metadata_requests, s.now() + 10 * SECOND);
    s.accumulator.inbox.push(Event::LeaderWanted { topic: "t".into(), until });
    s.settle();
    for asked in 1..4 {
        assert_eq!(s.metadata_requests, before + asked, "once an answer");
        while s.metadata_requests == before + asked {
            assert!(s.sleep() <= 2 * SECOND, "it goes on asking");
        }
    }
    s.leaders = vec![(2, 1)];
    s.advance(2 * SECOND);
    s.settle();
    let asked = s.metadata_requests;
    s.advance(2 * SECOND);
    s.settle();
    assert_eq!(s.metadata_requests, asked, "there is one");
    // Of a topic that brokers refuse nothing is to be had by asking for all.
    s.accumulator.inbox.push(Event::LeaderWanted { topic: "refused".into(), until });
    s.settle();
    s.advance(SECOND);
    s.settle();
    assert_eq!(s.metadata_requests, asked);
}

#[test]
fn the_sender_is_woken_for_the_first_record_the_full_batch_and_the_flush_and_for_nothing_else() {
    let mut s = Scenario::begun(lingering);
    // Timers of the first batch still run; one that fires early does no harm.
    while s.settle() < Some(130 * SECOND) {
        s.sleep();
    }
    let asleep = rung(&s);
    s.append(0, "a");
    assert_eq!(rung(&s), asleep + 1);
    assert_eq!(s.settle(), Some(60 * SECOND));
    s.append(0, "b");
    assert_eq!(rung(&s), asleep + 1, "woken for a second record");
    let large = "v".repeat(990);
    s.append(0, &large);
    assert_eq!(rung(&s), asleep + 2, "not woken for a full batch");
    s.append(0, &large);
    assert_eq!(rung(&s), asleep + 2, "woken twice before it looked");
    s.settle();
    s.flush();
    assert_eq!(rung(&s), asleep + 3);
}

/// KP-21, PB-08, RA-17, REC-26.
#[test]
fn a_flush_covers_what_was_appended_before_it_and_not_what_came_after() {
    let mut s = Scenario::begun(|s| {
        lingering(s);
        s.leaders = vec![(1, 0), (2, 0)];
    });
    s.append(0, "a");
    s.flush();
    let in_flight = s.sent_one();
    s.append(0, "b");
    s.append(1, "x");
    s.settle();
    let flush = s.flush();
    let sent = s.sent();
    let later = s.append(1, "y");
    assert_eq!(s.sent().len(), 0);
    for answered in [&in_flight, &sent[0], &sent[1]] {
        assert!(!flush.is_over());
        s.answer(answered, OK, 1);
    }
    assert!(flush.is_over() && is_open(&later));
}

#[test]
fn a_flush_of_a_failed_batch_is_over_too() {
    let mut s = Scenario::begun(lingering);
    s.append(0, "a");
    let flush = s.flush();
    let sent = s.sent_one();
    s.answer(&sent, ErrorCode::TOPIC_AUTHORIZATION_FAILED, -1);
    assert!(flush.is_over());
}

/// A thread that waits for `size` bytes of the pool, until it has a place in the queue.
fn waits_for(s: &Scenario, size: usize) -> std::thread::JoinHandle<bool> {
    let accumulator = Arc::clone(&s.accumulator);
    let waiter = std::thread::spawn(move || {
        let topic = accumulator.topics.find("t").unwrap();
        let value = vec![b'w'; size];
        let data = RecordData { key: None, value: Some(&value), headers: &[], timestamp: 0 };
        let mut append = Append { data, own_timestamp: true, sticky: false };
        // By the scenario's clock, which stands still.
        let mut patience = Patience::For(3600 * SECOND);
        accumulator.append(&topic, 0, &mut append, &mut None, &mut patience).is_ok()
    });
    while !s.accumulator.pool.has_waiters() {
        std::thread::yield_now();
    }
    waiter
}

#[test]
fn who_waits_for_memory_ends_the_linger() {
    let mut s = Scenario::begun(|s| {
        lingering(s);
        s.memory = 2000;
        s.leaders = vec![(1, 0), (2, 0)];
    });
    let value = "v".repeat(800);
    s.append(1, &value);
    assert_eq!(s.sent().len(), 0);
    let waiter = waits_for(&s, 1500);
    let sent = s.sent_one();
    assert_eq!(sent.batch().values, [value]);
    s.answer(&sent, OK, 0);
    assert!(waiter.join().unwrap());
}

#[test]
fn what_waits_for_a_broker_out_of_reach_brings_no_memory_back() {
    let mut s = Scenario::begun(|s| {
        lingering(s);
        s.memory = 2000;
        s.leaders = vec![(1, 0), (2, 0)];
    });
    out_of_reach(&s, 1, MonoTime::MAX);
    s.append(0, "small");
    s.flush();
    s.settle();
    let value = "v".repeat(800);
    s.append(1, &value);
    assert_eq!(s.sent().len(), 0);
    let waiter = waits_for(&s, 1000);
    let sent = s.sent_one();
    assert_eq!(sent.batch().values, [value]);
    s.answer(&sent, OK, 0);
    assert!(waiter.join().unwrap());
}

/// MD-13: a topic is not idle while the producer holds a record for it.
#[test]
fn a_topic_whose_records_wait_for_a_broker_is_not_forgotten() {
    let mut s = Scenario::begun(|s| s.max_idle = 5 * SECOND);
    out_of_reach(&s, 1, MonoTime::MAX);
    let delivery = s.append(0, "waits");
    s.settle();
    let is_known_later = |s: &mut Scenario| {
        let asked = s.metadata_requests;
        s.advance(6 * SECOND);
        s.sender.metadata.request_update();
        s.settle();
        assert_eq!(s.metadata_requests, asked + 1, "nothing was forgotten that is asked for again");
        s.sender.metadata.knows("t")
    };
    assert!((0..3).all(|_| is_known_later(&mut s)));
    s.client.0.borrow_mut().down.clear();
    let sent = s.sent_one();
    s.answer(&sent, OK, 1);
    assert!(delivery.wait().is_ok());
    assert!((0..2).any(|_| !is_known_later(&mut s)), "and then it is");
}

#[test]
fn brokers_of_a_new_snapshot_are_handed_to_the_client() {
    let mut s = Scenario::new(|_| {});
    let ids = |s: &Scenario| -> Vec<i32> {
        s.client.0.borrow().nodes.iter().map(|n: &NodeAddress| n.id.0).collect()
    };
    assert_eq!(ids(&s), [1, 2]);
    s.brokers = [2, 3].into();
    s.leaders = vec![(3, 1)];
    s.advance(SECOND);
    s.sender.metadata.request_update();
    s.settle();
    assert_eq!(ids(&s), [2, 3]);
    s.append(0, "a");
    assert_eq!(s.sent_one().node, 3);
}

/// RA-16.
#[test]
fn a_batch_in_line_moves_with_its_leader() {
    let mut s = Scenario::new(|_| {});
    out_of_reach(&s, 1, MonoTime::MAX);
    s.append(0, "a");
    assert_eq!(s.sent().len(), 0);
    s.advance(SECOND);
    s.leaders = vec![(2, 1)];
    s.sender.metadata.request_update();
    s.sender.metadata.request_update();
    let (took, sent) = s.until_sent();
    assert!(sent.node == 2 && took <= SECOND, "{took:?}");
    // The broker that is back leads nothing, and is sent nothing.
    s.client.0.borrow_mut().down.clear();
    s.append(0, "b");
    s.answer(&sent, OK, 0);
    assert_eq!(s.sent_one().node, 2);
}

/// NC-09: a connection that ended, by a request's time-out too, may mean that the leader moved.
#[test]
fn the_loss_of_a_broker_has_metadata_asked_for() {
    let mut s = Scenario::begun(|_| {});
    s.advance(SECOND);
    s.settle();
    let before = s.metadata_requests;
    s.cut(1);
    s.advance(SECOND);
    s.settle();
    assert_eq!(s.metadata_requests, before + 1);
    s.append(0, "a");
    let sent = s.sent_one();
    s.time_out(&sent);
    s.advance(SECOND);
    s.settle();
    assert!(s.metadata_requests > before + 1);
}

#[test]
fn a_connection_that_was_cut_as_idle_is_no_reason_to_ask_for_metadata() {
    let mut s = Scenario::begun(|_| {});
    s.advance(20 * SECOND);
    s.settle();
    let before = s.metadata_requests;
    let (node, stage, reason) = (NodeId(1), Stage::Idle, "cut".to_owned());
    let cut = ClientEvent::Disconnected { node, stage, reason };
    s.client.0.borrow_mut().events.push(cut);
    s.settle();
    s.advance(20 * SECOND);
    s.settle();
    assert_eq!(s.metadata_requests, before);
}

/// KP-02, KP-07: nobody used the topic for `metadata.max.idle.ms`; whoever wants it again waits
/// for an answer, and one is enough.
#[test]
fn a_topic_that_idled_out_is_asked_for_by_the_next_call() {
    let mut s = Scenario::begun(|_| {});
    for _ in 0..4 {
        s.sleep();
    }
    let topic = s.accumulator.topics.find("t").unwrap();
    assert_eq!(topic.partition_count(), 0, "a send has to wait again");
    let cell = Arc::clone(s.sender.metadata.cell());
    let before = s.metadata_requests;
    let refusal = cell.try_topic("t", None).unwrap_err();
    assert!(refusal.wake && matches!(refusal.error, Error::NotReady { .. }));
    s.accumulator.inbox.push(Event::MetadataWanted);
    s.settle();
    assert_eq!(s.metadata_requests, before + 1);
    assert!(cell.try_topic("t", None).is_ok());
    assert_eq!(topic.partition_count(), 1);
}

#[test]
fn a_lost_leader_has_another_broker_asked_for_the_new_one_at_once() {
    let mut s = Scenario::new(|s| s.leaders = vec![(1, 0), (2, 0)]);
    s.advance(10 * SECOND);
    s.settle();
    let before = s.metadata_requests;
    s.client.0.borrow_mut().down.insert(NodeId(1), MonoTime::MAX);
    s.leaders[0] = (2, 1);
    s.cut(1);
    assert_eq!(s.metadata_requests, before + 1, "no time has passed");
    s.append(0, "a");
    assert_eq!(s.sent_one().node, 2);
}
