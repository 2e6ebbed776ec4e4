//! The end: what was accepted is drained, then given up; nobody is left waiting.

use super::*;
use crate::completion::{CallbackTask, Executor, Outcome};
use crate::error::Persisted;
use crate::sync::Mutex;
use crate::types::NodeId;

/// Turns until the end, and what the thread does then. The clock moves where the sender sleeps.
fn run_out(s: &mut Scenario) {
    for _ in 0..100 {
        if s.sender.has_ended() {
            let now = s.now();
            return s.sender.end(now);
        }
        s.turn();
        if let (true, Some(slept)) = (s.client.0.borrow().heard_nothing, s.last_poll()) {
            s.advance(slept);
        }
    }
    panic!("no end");
}

fn closed(delivery: &Delivery) -> Persisted {
    let error = failure(delivery);
    assert_eq!(error.cause, DeliveryCause::Closed);
    error.persisted
}

#[test]
fn a_producer_that_has_nothing_ends_at_once() {
    let mut s = Scenario::unconnected(|_| {});
    s.close(60 * SECOND);
    run_out(&mut s);
    assert_eq!((s.now(), s.sender.aborted_records()), (MonoTime::ZERO, 0));
}

#[test]
fn what_lingers_is_sent_at_once_and_the_end_comes_with_the_last_answer() {
    let mut s = Scenario::new(|s| {
        s.batch_size = 1000;
        s.sender.linger = 60 * SECOND;
    });
    let delivery = s.append(0, "a");
    assert_eq!(s.sent().len(), 0);
    s.close(SECOND);
    let sent = s.sent_one();
    assert!(!s.sender.has_ended());
    s.answer(&sent, OK, 3);
    run_out(&mut s);
    assert_eq!((offset(&delivery), s.sender.aborted_records()), (Some(3), 0));
    assert_eq!(s.now(), MonoTime::ZERO);
    assert!(s.memory_is_whole());
}

#[test]
fn nothing_is_accepted_after_close_not_even_for_a_partition_never_used() {
    let mut s = Scenario::new(|s| s.leaders = vec![(1, 0); 2]);
    s.append(0, "a");
    s.close(SECOND);
    s.settle();
    for partition in [0, 1] {
        assert!(matches!(s.try_append(partition, "b", None), Err(Error::Closed)));
    }
}

#[test]
fn retries_go_on_while_there_is_time() {
    let mut s = Scenario::new(|_| {});
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    s.close(10 * SECOND);
    s.answer(&sent, ErrorCode::NOT_ENOUGH_REPLICAS, -1);
    let (_, again) = s.until_sent();
    s.answer(&again, OK, 0);
    run_out(&mut s);
    assert_eq!(offset(&delivery), Some(0));
}

/// RA-19, RA-32.
#[test]
fn at_the_deadline_the_rest_is_given_up_sent_or_not() {
    let mut s = Scenario::new(|_| {});
    let sent = s.append(0, "a");
    let unsent = s.append(0, "b");
    s.sent_one();
    let flush = s.flush();
    s.close(SECOND);
    assert_eq!(s.settle(), Some(SECOND));
    assert!(is_open(&sent) && !flush.is_over());
    run_out(&mut s);
    assert_eq!(s.now(), MonoTime::ZERO + SECOND);
    assert_eq!((closed(&sent), closed(&unsent)), (Persisted::Unknown, Persisted::No));
    assert_eq!((s.sender.ended.unknown, s.sender.ended.not_sent), (1, 1));
    assert!(flush.is_over() && s.memory_is_whole());
}

#[test]
fn a_close_without_patience_gives_up_at_once() {
    let mut s = Scenario::new(|_| {});
    let delivery = s.append(0, "a");
    s.close(Duration::ZERO);
    run_out(&mut s);
    // Not sent first only to be given up.
    assert_eq!(closed(&delivery), Persisted::No);
    assert_eq!(s.now(), MonoTime::ZERO);
    assert!(s.memory_is_whole());
}

/// The connections' end settles the one in flight, when the queued one's stamp is no more.
#[test]
fn stamped_batches_are_given_up_in_flight_and_in_the_queue() {
    let mut s = Scenario::begun(|_| {});
    let (first, second) = (s.append(0, "a"), s.append(0, "b"));
    let sent = s.sent();
    s.answer(&sent[1], ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
    assert!(is_open(&second));
    s.close(Duration::ZERO);
    run_out(&mut s);
    assert_eq!((closed(&first), closed(&second)), (Persisted::Unknown, Persisted::No));
    assert!(s.memory_is_whole());
}

#[test]
fn a_second_close_can_only_shorten_the_time() {
    for (first, second) in [(10, 2), (2, 10)] {
        let mut s = Scenario::new(|_| {});
        s.append(0, "a");
        s.close(first * SECOND);
        s.settle();
        s.close(second * SECOND);
        run_out(&mut s);
        assert_eq!(s.now(), MonoTime::ZERO + 2 * SECOND);
    }
}

#[test]
fn a_delivery_time_out_comes_before_a_later_end() {
    let mut s = Scenario::new(|_| {});
    s.client.0.borrow_mut().down.insert(NodeId(1), MonoTime::MAX);
    let delivery = s.append(0, "a");
    s.close(1000 * SECOND);
    run_out(&mut s);
    assert_eq!(failure(&delivery).cause, DeliveryCause::Timeout);
    assert_eq!((s.now(), s.sender.aborted_records()), (MonoTime::ZERO + 120 * SECOND, 0));
}

#[test]
fn a_close_waits_for_a_producer_id_only_as_long_as_it_has_time() {
    for answered in [true, false] {
        let mut s = Scenario::unconnected(|_| {});
        s.next_id = None;
        s.settle();
        let delivery = s.append(0, "a");
        s.close(SECOND);
        assert_eq!(s.sent().len(), 0);
        if answered {
            s.answer_id(OK, 70, 0);
            let sent = s.sent_one();
            s.answer(&sent, OK, 0);
        }
        run_out(&mut s);
        match answered {
            true => assert_eq!(offset(&delivery), Some(0)),
            false => assert_eq!(closed(&delivery), Persisted::No),
        }
    }
}

/// SND-30.
#[test]
fn an_epoch_that_is_used_up_at_the_end_is_replaced_and_all_is_drained() {
    let mut s = Scenario::unconnected(|_| {});
    s.next_id = Some((70, i16::MAX - 1));
    s.append(0, "a");
    let sent = s.sent_one();
    let last = s.append(0, "b");
    s.close(10 * SECOND);
    s.answer(&sent, ErrorCode::UNKNOWN_PRODUCER_ID, -1);
    for (sequence, value) in [(0, "a"), (1, "b")] {
        let (_, again) = s.until_sent();
        assert_eq!((again.batch().producer_id, again.told()), (71, told(0, sequence, value)));
        s.answer(&again, OK, i64::from(sequence));
    }
    run_out(&mut s);
    assert_eq!(offset(&last), Some(1));
}

/// SND-31.
#[test]
fn a_close_that_gives_up_does_not_wait_for_the_id_that_replaces_a_used_up_epoch() {
    let mut s = Scenario::unconnected(|_| {});
    s.next_id = Some((70, i16::MAX - 1));
    s.append(0, "a");
    let sent = s.sent_one();
    s.next_id = None;
    s.answer(&sent, OK, 0);
    let refused = s.append(0, "b");
    let sent = s.sent_one();
    s.answer(&sent, ErrorCode::UNKNOWN_PRODUCER_ID, -1);
    let waiting = s.append(0, "c");
    assert!(s.asks_for_id());
    s.close(Duration::ZERO);
    run_out(&mut s);
    assert_eq!([closed(&refused), closed(&waiting)], [Persisted::No; 2]);
    assert!(s.now() == MonoTime::ZERO && s.memory_is_whole());
}

#[test]
fn a_flush_after_the_end_is_over_at_once() {
    let mut s = Scenario::new(|_| {});
    s.close(SECOND);
    run_out(&mut s);
    assert!(s.flush().is_over());
}

#[test]
fn a_defect_of_our_own_leaves_nobody_waiting() {
    let mut s = Scenario::begun(|s| s.batch_size = 1000);
    let in_flight = s.append(0, "a");
    let sent = s.sent_one();
    let queued = s.append(0, "b");
    let flush = s.flush();
    s.client.0.borrow_mut().panics = true;
    let now = s.now();
    let turn = std::panic::AssertUnwindSafe(|| s.sender.run_once(now));
    assert!(std::panic::catch_unwind(turn).is_err());
    s.sender.poison("a defect", now);
    let fatal = DeliveryCause::Fatal("a defect".into());
    assert_eq!(failure(&in_flight).cause, fatal);
    assert_eq!(failure(&in_flight).persisted, Persisted::Unknown);
    assert!(s.sender.has_ended());
    assert!(s.try_append(0, "c", None).is_err() && s.flush().is_over());
    // It was on its way from the queue into a request.
    assert!(matches!(queued.try_get(), Some(Err(Error::Fatal(_)))));
    assert!(flush.is_over());
    drop(sent);
}

/// What was found to be wrong is wrong still while everybody is told.
#[test]
fn a_claim_that_stays_broken_leaves_nobody_waiting() {
    let mut s = Scenario::begun(|s| s.batch_size = 1000);
    let in_flight = s.append(0, "a");
    let _sent = s.sent_one();
    let queued = s.append(0, "b");
    let flush = s.flush();
    let pool = std::panic::AssertUnwindSafe(&s.accumulator.pool);
    let twice = move || pool.release_uncharged([Vec::with_capacity(pool.total())]);
    assert_eq!(std::panic::catch_unwind(twice).is_err(), cfg!(debug_assertions));
    let now = s.now();
    s.sender.poison("a defect", now);
    let fatal = DeliveryCause::Fatal("a defect".into());
    assert_eq!([&failure(&in_flight).cause, &failure(&queued).cause], [&fatal; 2]);
    assert!(flush.is_over() && s.sender.has_ended());
}

/// Nor does one that gets in the way of telling them.
#[test]
fn a_second_defect_costs_what_it_was_at_and_no_more() {
    let mut s = Scenario::new(|s| s.batch_size = 1000);
    let deliveries = [s.append(0, "a"), s.append(1, "b"), s.append(2, "c")];
    let flush = s.flush();
    let now = s.now();
    s.turn();
    let done = s.sender.all_partitions(now)[1];
    let lost = Error::Fatal("decided by mistake".into());
    let queue = s.sender.index.partition(done).queue.lock();
    queue.batches[0].result.complete(Outcome::Failed(lost));
    drop(queue);
    let mut poison = || s.sender.poison("a defect", now);
    let first = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut poison));
    assert_eq!(first.is_err(), cfg!(debug_assertions));
    poison();
    assert!(deliveries.iter().all(|delivery| delivery.try_get().is_some()) && flush.is_over());
}

/// The sender's last look at its news comes before its end.
#[test]
fn a_flush_that_comes_with_the_end_waits_for_callbacks() {
    struct Keeps(Mutex<std::sync::mpsc::Sender<CallbackTask>>);
    impl Executor for Keeps {
        fn execute(&self, task: CallbackTask) {
            let _ = self.0.lock().send(task);
        }
    }
    for poisoned in [false, true] {
        let (given, tasks) = std::sync::mpsc::channel();
        let executor = Arc::new(Keeps(Mutex::new(given)));
        let mut s = Scenario::new(|s| s.callbacks = ExecutorKind::Custom(executor));
        s.append_with("a", Box::new(|_| ()));
        let sent = s.sent_one();
        s.close(SECOND);
        s.answer(&sent, OK, 0);
        assert!(s.sender.has_ended());
        let flush = s.flush();
        let now = s.now();
        if poisoned {
            s.sender.poison("a defect", now)
        } else {
            s.sender.end(now)
        }
        assert!(!flush.is_over());
        tasks.recv().unwrap().run();
        assert!(flush.is_over());
    }
}
