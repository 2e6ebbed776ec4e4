//! How a record's fate reaches users, under every interleaving: handles, flushes, slots, log
//! lines, and the callbacks' way past a close.

use std::time::Duration;

use super::callback::{CompletedBatch, PendingCallback, UserCallback};
use super::*;
use crate::error::Error;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::model::{Poll, explore, join, spawn};
use crate::sync::{Arc, Mutex};
use crate::time::{Clock, ManualClock, MonoTime};

const LONG: Duration = Duration::from_secs(600);

struct Unheard;

impl WaitListener for Unheard {
    fn on_wait(&self) {}
}

fn batch() -> Arc<BatchResult> {
    Arc::new(BatchResult::new("t".into(), 0, Arc::new(Unheard)))
}

fn record(result: &Arc<BatchResult>, index: u32) -> Delivery {
    Delivery::new(Arc::clone(result), RecordFacts::new(index, 0, None, None))
}

fn delivered(base_offset: i64) -> Outcome {
    Outcome::Delivered { base_offset, log_append_time: None }
}

fn offset(delivery: &Delivery) -> Option<i64> {
    delivery.wait().unwrap().offset()
}

/// A clock that a thread of the model moves past [`deadline`].
fn manual() -> (Arc<ManualClock>, Clock) {
    let manual = ManualClock::new();
    (Arc::clone(&manual), Clock::Manual(manual))
}

fn deadline() -> MonoTime {
    MonoTime::ZERO + Duration::from_secs(1)
}

#[test]
fn every_handle_that_waits_hears_of_the_end_and_one_may_be_dropped_meanwhile() {
    explore(3, || {
        let result = batch();
        let [first, second, third] = [0, 1, 2].map(|index| record(&result, index));
        let waiters = [(first, 100), (second, 101)].map(|(delivery, expected)| {
            spawn(move || assert_eq!(offset(&delivery), Some(expected)))
        });
        let dropper = spawn(move || drop(third));
        result.complete(delivered(100));
        drop(result);
        waiters.into_iter().for_each(join);
        join(dropper);
    });
}

#[test]
fn a_handle_that_waits_is_led_through_a_split() {
    explore(2, || {
        let (whole, parts) = (batch(), [batch(), batch()]);
        let waiter = spawn({
            let delivery = record(&whole, 3);
            move || assert_eq!(offset(&delivery), Some(51))
        });
        let poller = spawn({
            let delivery = record(&whole, 0);
            move || {
                let early = delivery.try_get().map(|fate| fate.unwrap().offset());
                assert!(matches!(early, None | Some(Some(10))), "{early:?}");
                assert_eq!(offset(&delivery), Some(10));
            }
        });
        let of = |first: u32, part: &Arc<BatchResult>| SplitPart { first, result: part.clone() };
        whole.complete(Outcome::Split([of(0, &parts[0]), of(2, &parts[1])].into()));
        drop(whole);
        parts[1].complete(delivered(50));
        parts[0].complete(delivered(10));
        join(waiter);
        join(poller);
    });
}

#[test]
fn a_flush_ends_with_its_last_token_or_its_time() {
    explore(2, || {
        let (manual, clock) = manual();
        let flush = Arc::new(FlushWait::begin());
        let tokens = [flush.token(1, 0), flush.token(1, 1)];
        let patient = spawn({
            let (flush, clock) = (Arc::clone(&flush), clock.clone());
            move || flush.wait(&clock, MonoTime::MAX).unwrap()
        });
        let impatient = spawn({
            let flush = Arc::clone(&flush);
            move || match flush.wait(&clock, deadline()) {
                Ok(()) => assert!(flush.is_over()),
                Err(error) => assert!(matches!(error, Error::FlushTimeout { .. }), "{error}"),
            }
        });
        let time = spawn(move || flush.time_passes(|| manual.advance(LONG)));
        tokens.into_iter().for_each(|mut token| token.on_completed(1));
        join(patient);
        join(impatient);
        join(time);
    });
}

#[test]
fn a_slot_that_comes_free_reaches_whoever_still_waits() {
    explore(3, || {
        let (manual, clock) = manual();
        let slots = Arc::new(Slots::new(1));
        slots.try_acquire().unwrap().keep();
        let patient = spawn({
            let (slots, clock) = (Arc::clone(&slots), clock.clone());
            move || drop(slots.acquire(&clock, MonoTime::MAX).unwrap())
        });
        let impatient = spawn({
            let slots = Arc::clone(&slots);
            move || match slots.acquire(&clock, deadline()) {
                Ok(slot) => drop(slot),
                Err(error) => {
                    assert!(matches!(error, Error::CallbackBacklogFull { .. }), "{error}");
                }
            }
        });
        let time = spawn({
            let slots = Arc::clone(&slots);
            move || slots.time_passes(|| manual.advance(LONG))
        });
        slots.release();
        join(patient);
        join(impatient);
        join(time);
        assert_eq!(slots.used(), 0);
    });
}

#[test]
fn close_ends_every_wait_for_a_slot() {
    explore(3, || {
        let slots = Arc::new(Slots::new(1));
        slots.try_acquire().unwrap().keep();
        let waiters = [(); 2].map(|()| {
            let (slots, (_, clock)) = (Arc::clone(&slots), manual());
            spawn(move || match slots.acquire(&clock, MonoTime::MAX) {
                Ok(slot) => slot.keep(),
                Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
            })
        });
        let closer = spawn({
            let slots = Arc::clone(&slots);
            move || slots.close()
        });
        slots.release();
        waiters.into_iter().for_each(join);
        join(closer);
        assert!(slots.used() <= 1);
    });
}

#[test]
fn close_ends_all_waits_for_slots_that_nobody_frees() {
    explore(3, || {
        let slots = Arc::new(Slots::new(0));
        let waiters = [(); 2].map(|()| {
            let (slots, (_, clock)) = (Arc::clone(&slots), manual());
            spawn(move || {
                let end = slots.acquire(&clock, MonoTime::MAX).map(Slot::keep);
                assert!(matches!(end, Err(Error::Closed)));
            })
        });
        slots.close();
        waiters.into_iter().for_each(join);
    });
}

#[test]
fn who_has_flushed_sees_what_was_done_before_each_token_was_dropped() {
    explore(3, || {
        let flush = FlushWait::begin();
        let done = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let droppers = done.clone().map(|done| {
            let mut token = flush.token(1, 1);
            spawn(move || {
                token.on_completed(1);
                // Without an order of its own.
                done.store(1, Ordering::Relaxed);
                token.on_callback();
            })
        });
        flush.wait(&manual().1, MonoTime::MAX).unwrap();
        assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 1));
        droppers.into_iter().for_each(join);
    });
}

/// What the callbacks of a model did.
#[derive(Default)]
struct Ran {
    order: Mutex<Vec<u32>>,
    /// Callbacks that were run or dropped.
    gone: AtomicUsize,
}

/// Counts its callback's end, whether it was run or dropped.
struct Gone(Arc<Ran>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.gone.fetch_add(1, Ordering::SeqCst);
    }
}

/// A decided batch of one callback, which notes its number.
fn with_callback(executor: &CallbackExecutor, ran: &Arc<Ran>, number: u32) -> CompletedBatch {
    let result = batch();
    result.complete(delivered(0));
    executor.slots().try_acquire().unwrap().keep();
    let gone = Gone(Arc::clone(ran));
    let run = Callback::User(Box::new(move |_| gone.0.order.lock().push(number)));
    let callback = PendingCallback { record: RecordFacts::new(0, 0, None, None), run };
    CompletedBatch { result, callbacks: vec![callback], flush: Vec::new() }
}

fn executor(threads: usize) -> Arc<CallbackExecutor> {
    let slots = Arc::new(Slots::new(10));
    let (kind, guests) = (ExecutorKind::Threads(threads), Guests::default());
    Arc::new(CallbackExecutor::start(kind, guests, "model", slots).unwrap())
}

#[test]
fn callbacks_handed_over_before_close_run_once_each_and_a_partitions_in_order() {
    explore(2, || {
        let (executor, ran) = (executor(2), Arc::new(Ran::default()));
        let lanes = [(); 2].map(|()| Arc::new(Lane::new()));
        for (number, lane) in [(0, &lanes[0]), (10, &lanes[1]), (1, &lanes[0])] {
            executor.submit(lane, with_callback(&executor, &ran, number));
        }
        executor.tell();
        executor.expect_no_more();
        assert_eq!(executor.close(LONG), CallbacksLeft::default());
        let mut order = ran.order.lock().clone();
        order.retain(|number| *number < 10);
        assert_eq!(order, [0, 1]);
        assert_eq!(ran.gone.load(Ordering::SeqCst), 3);
        assert_eq!((executor.outstanding(), executor.slots().used()), (0, 0));
    });
}

/// The sender is late: it hands over while, and after, the producer is closed.
fn handed_over_during_close(time: Duration) {
    let (executor, ran) = (executor(1), Arc::new(Ran::default()));
    let flush = Arc::new(FlushWait::begin());
    let sender = spawn({
        let (executor, ran, flush) = (Arc::clone(&executor), Arc::clone(&ran), flush.clone());
        move || {
            let lane = Arc::new(Lane::new());
            for number in 0..2 {
                let mut batch = with_callback(&executor, &ran, number);
                batch.flush.push(flush.token(0, 1));
                executor.submit(&lane, batch);
                executor.tell();
            }
            executor.expect_no_more();
        }
    });
    let left = executor.close(time);
    join(sender);
    // At a deadline a thread may be inside a callback, and is detached.
    assert!(time == Duration::ZERO || left.threads_stuck == 0, "{left:?}");
    executor.wait_for_threads();
    let order = ran.order.lock().clone();
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(ran.gone.load(Ordering::SeqCst), 2, "a callback was forgotten");
    assert_eq!((executor.outstanding(), executor.slots().used()), (0, 0));
    assert_eq!(order.len() as u64 + executor.dropped(), 2);
    assert!(flush.is_over());
}

#[test]
fn no_callback_is_forgotten_that_is_handed_over_during_close() {
    explore(3, || handed_over_during_close(LONG));
}

#[test]
fn no_callback_is_forgotten_when_the_time_of_close_is_over() {
    explore(2, || handed_over_during_close(Duration::ZERO));
}

#[test]
fn a_close_that_a_shorter_one_joins_ends_with_it() {
    explore(2, || {
        let (executor, ran) = (executor(1), Arc::new(Ran::default()));
        executor.submit(&Arc::new(Lane::new()), with_callback(&executor, &ran, 0));
        executor.tell();
        // The sender never says that it is done, so that no thread ends before its time.
        let patient = spawn({
            let executor = Arc::clone(&executor);
            move || executor.close(LONG)
        });
        executor.close(Duration::ZERO);
        join(patient);
        executor.expect_no_more();
        executor.wait_for_threads();
        assert_eq!(ran.gone.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn callbacks_of_two_partitions_run_side_by_side() {
    explore(2, || {
        let (executor, ran) = (executor(2), Arc::new(Ran::default()));
        let met = Arc::new(Poll::default());
        let (waits, wakes) = (Arc::clone(&met), met);
        let run: [UserCallback; 2] =
            [Box::new(move |_| waits.wait()), Box::new(move |_| wakes.wake())];
        for callback in run {
            let mut batch = with_callback(&executor, &ran, 0);
            batch.callbacks[0].run = Callback::User(callback);
            executor.submit(&Arc::new(Lane::new()), batch);
        }
        executor.tell();
        executor.expect_no_more();
        assert_eq!(executor.close(LONG), CallbacksLeft::default());
    });
}

/// Takes its time to be dropped.
struct Hangs(Arc<Poll>);

impl Drop for Hangs {
    fn drop(&mut self) {
        self.0.wait();
    }
}

#[test]
fn a_close_waits_for_no_callback_that_hangs_as_it_is_dropped() {
    explore(3, || {
        let (executor, ran) = (executor(1), Arc::new(Ran::default()));
        let end = Arc::new(Poll::default());
        let hangs = Hangs(Arc::clone(&end));
        let mut batch = with_callback(&executor, &ran, 0);
        batch.callbacks[0].run = Callback::User(Box::new(move |_| drop(hangs)));
        executor.submit(&Arc::new(Lane::new()), batch);
        executor.tell();
        executor.expect_no_more();
        executor.close(Duration::ZERO);
        end.wake();
        executor.wait_for_threads();
        assert_eq!(executor.outstanding(), 0);
    });
}

/// A pool that runs nothing.
#[derive(Default)]
struct Keeps(Mutex<Vec<CallbackTask>>);

impl Executor for Keeps {
    fn execute(&self, task: CallbackTask) {
        self.0.lock().push(task);
    }
}

#[test]
fn our_thread_ends_with_the_time_of_close_though_the_programs_pool_keeps_a_task() {
    explore(3, || {
        let (keeps, ran) = (Arc::new(Keeps::default()), Arc::new(Ran::default()));
        let kind = ExecutorKind::Custom(Arc::clone(&keeps) as Arc<dyn Executor>);
        let slots = Arc::new(Slots::new(10));
        let executor =
            Arc::new(CallbackExecutor::start(kind, Guests::default(), "model", slots).unwrap());
        executor.submit(&Arc::new(Lane::new()), with_callback(&executor, &ran, 0));
        executor.tell();
        let sender = spawn({
            let executor = Arc::clone(&executor);
            move || executor.expect_no_more()
        });
        executor.close(Duration::ZERO);
        join(sender);
        executor.wait_for_threads();
        keeps.0.lock().clear();
        assert_eq!((ran.gone.load(Ordering::SeqCst), executor.outstanding()), (1, 0));
    });
}
