//! The executor as the sender and the user see it: order, bounds, panics, dropped tasks, and a
//! close that no callback can hold up. Threads meet at channels and barriers; nothing sleeps.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread::{self, ThreadId};
use std::time::Duration;

use super::*;
use crate::error::Error;
use crate::sync::{Arc, Mutex};
use crate::time::Clock;

const LONG: Duration = Duration::from_secs(600);
const NO_TIME: Duration = Duration::ZERO;

struct Deaf;

impl WaitListener for Deaf {
    fn on_wait(&self) {}
}

fn open_batch() -> Arc<BatchResult> {
    Arc::new(BatchResult::new("t".into(), 0, Arc::new(Deaf)))
}

fn executor(kind: ExecutorKind) -> CallbackExecutor {
    CallbackExecutor::start(kind, Guests::default(), "kp-test", Arc::new(Slots::new(1_000_000)))
        .unwrap()
}

fn threads(threads: usize) -> CallbackExecutor {
    executor(ExecutorKind::Threads(threads))
}

/// Submits a delivered batch, base offset 100, with these callbacks; each takes a slot.
fn submit(executor: &CallbackExecutor, lane: &Arc<Lane>, callbacks: Vec<Callback>) {
    submit_for(executor, lane, callbacks, &FlushWait::begin());
}

fn submit_for(
    executor: &CallbackExecutor,
    lane: &Arc<Lane>,
    callbacks: Vec<Callback>,
    flush: &FlushWait,
) {
    let result = open_batch();
    let flush = vec![flush.token(0, callbacks.len())];
    let callbacks = (0..).zip(callbacks).map(|(index, run)| {
        executor.slots().try_acquire().expect("enough slots").keep();
        PendingCallback::new(RecordFacts::new(index, 5, None, Some(b"abc")), run)
    });
    let callbacks = callbacks.collect();
    result.complete(Outcome::Delivered { base_offset: 100, log_append_time: None });
    executor.submit(lane, CompletedBatch { result, callbacks, flush });
    executor.tell();
}

fn callback(run: impl FnOnce() + Send + 'static) -> Callback {
    Callback::User(Box::new(move |_| run()))
}

fn all_done() -> CallbacksLeft {
    CallbacksLeft { callbacks: 0, threads_stuck: 0 }
}

/// Counts its drops, and panics in them if told to.
struct Payload {
    drops: Arc<AtomicUsize>,
    panics: bool,
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics, "in a payload's drop");
    }
}

/// Leaves each task to whoever reads the channel.
struct ToChannel(Mutex<mpsc::Sender<CallbackTask>>);

impl Executor for ToChannel {
    fn execute(&self, task: CallbackTask) {
        let _ = self.0.lock().send(task);
    }
}

fn to_channel() -> (CallbackExecutor, mpsc::Receiver<CallbackTask>) {
    let (sender, tasks) = mpsc::channel();
    (executor(ExecutorKind::Custom(Arc::new(ToChannel(Mutex::new(sender))))), tasks)
}

/// The sender has submitted its last, and the producer is closed.
fn close(executor: &CallbackExecutor, timeout: Duration) -> CallbacksLeft {
    executor.expect_no_more();
    executor.close(timeout)
}

#[test]
fn pending_callbacks_are_small() {
    assert!(size_of::<PendingCallback>() <= 48, "{} bytes", size_of::<PendingCallback>());
}

#[test]
fn callbacks_are_told_of_success_and_failure_on_a_named_thread() {
    let executor = threads(1);
    let lane = Arc::new(Lane::new());
    let (told, results) = mpsc::channel();
    let record = |index, told: mpsc::Sender<_>| {
        let run: UserCallback = Box::new(move |fate| {
            let name = thread::current().name().map(str::to_owned);
            told.send((fate.cloned().map_err(Error::clone), name)).unwrap();
        });
        PendingCallback::new(RecordFacts::new(index, 5, None, Some(b"abc")), run.into())
    };
    for outcome in [
        Outcome::Delivered { base_offset: 100, log_append_time: Some(8) },
        Outcome::Failed(Error::Closed),
    ] {
        executor.slots().try_acquire().unwrap().keep();
        let result = open_batch();
        result.complete(outcome);
        let callbacks = vec![record(4, told.clone())];
        executor.submit(&lane, CompletedBatch { result, callbacks, flush: Vec::new() });
        executor.tell();
    }
    let (metadata, name) = results.recv().unwrap();
    let metadata = metadata.unwrap();
    assert_eq!((metadata.offset(), metadata.timestamp()), (Some(104), 8));
    assert_eq!((metadata.key_size(), metadata.value_size()), (None, Some(3)));
    assert_eq!(name.as_deref(), Some("kp-test-callback-0"));
    assert!(matches!(results.recv().unwrap().0, Err(Error::Closed)));
    assert_eq!(close(&executor, LONG), all_done());
}

#[test]
fn one_lanes_callbacks_run_one_at_a_time_in_order_on_four_threads() {
    const LANES: usize = 5;
    const BATCHES: usize = 200;
    let executor = threads(4);
    let lanes: Vec<_> = (0..LANES).map(|_| Arc::new(Lane::new())).collect();
    let seen: Vec<_> = (0..LANES).map(|_| Arc::new(Mutex::new(Vec::new()))).collect();
    let busy: Vec<_> = (0..LANES).map(|_| Arc::new(AtomicBool::new(false))).collect();
    let workers = Arc::new(Mutex::new(Vec::<ThreadId>::new()));
    for batch in 0..BATCHES {
        for lane in 0..LANES {
            let one = |number: usize| {
                let (seen, busy, workers) =
                    (seen[lane].clone(), busy[lane].clone(), workers.clone());
                callback(move || {
                    assert!(!busy.swap(true, Ordering::SeqCst), "two at a time");
                    thread::yield_now();
                    seen.lock().push(number);
                    workers.lock().push(thread::current().id());
                    busy.store(false, Ordering::SeqCst);
                })
            };
            submit(&executor, &lanes[lane], vec![one(2 * batch), one(2 * batch + 1)]);
        }
    }
    assert_eq!(close(&executor, LONG), all_done());
    for seen in seen {
        assert_eq!(*seen.lock(), (0..2 * BATCHES).collect::<Vec<_>>());
    }
    assert_eq!(executor.panicked(), 0);
    assert_eq!(executor.slots().used(), 0);
}

#[test]
fn several_lanes_run_at_once_on_several_threads() {
    let executor = threads(3);
    let meet = Arc::new(Barrier::new(3));
    for _ in 0..3 {
        let meet = meet.clone();
        let wait = callback(move || {
            meet.wait();
        });
        submit(&executor, &Arc::new(Lane::new()), vec![wait]);
    }
    assert_eq!(close(&executor, LONG), all_done(), "all three met");
}

#[test]
fn a_busy_lane_lets_others_have_their_turn() {
    let executor = threads(1);
    let (start, started) = mpsc::channel::<()>();
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |text: &'static str| {
        let order = order.clone();
        callback(move || order.lock().push(text))
    };
    let (busy, other) = (Arc::new(Lane::new()), Arc::new(Lane::new()));
    submit(&executor, &busy, vec![callback(move || started.recv().unwrap()), note("busy 1")]);
    submit(&executor, &busy, vec![note("busy 2")]);
    submit(&executor, &busy, vec![note("busy 3")]);
    submit(&executor, &other, vec![note("other")]);
    start.send(()).unwrap();
    assert_eq!(close(&executor, LONG), all_done());
    assert_eq!(*order.lock(), ["busy 1", "other", "busy 2", "busy 3"]);
}

#[test]
fn a_slot_is_freed_as_its_callback_begins() {
    let executor = threads(1);
    let (begun, begins) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let goes_on = Arc::new(Mutex::new(goes_on));
    let step = || {
        let (begun, goes_on) = (begun.clone(), goes_on.clone());
        callback(move || {
            begun.send(()).unwrap();
            goes_on.lock().recv().unwrap();
        })
    };
    submit(&executor, &Arc::new(Lane::new()), vec![step(), step(), step()]);
    for left in (0..3).rev() {
        begins.recv().unwrap();
        assert_eq!(executor.slots().used(), left);
        assert_eq!(executor.outstanding(), left + 1, "the running one is not finished");
        go_on.send(()).unwrap();
    }
    assert_eq!(close(&executor, LONG), all_done());
}

#[test]
fn a_panic_is_counted_and_the_next_callback_runs() {
    let executor = threads(1);
    let drops = Arc::new(AtomicUsize::new(0));
    let payload = |panics| Payload { drops: drops.clone(), panics };
    let (ran, runs) = mpsc::channel();
    let in_drop = payload(true);
    let kept = payload(false);
    let callbacks = vec![
        callback(move || {
            let _kept = kept;
            panic!("in a callback")
        }),
        callback(move || drop(in_drop)),
        callback(move || std::panic::panic_any(17)),
        callback(move || ran.send(()).unwrap()),
    ];
    submit(&executor, &Arc::new(Lane::new()), callbacks);
    runs.recv().unwrap();
    assert_eq!(close(&executor, LONG), all_done());
    assert_eq!((executor.panicked(), executor.dropped()), (3, 0));
    assert_eq!(drops.load(Ordering::SeqCst), 2);
    assert_eq!(executor.slots().used(), 0);
}

#[test]
fn a_flush_waits_for_callbacks_and_counts_them() {
    let executor = threads(1);
    let clock = Clock::system();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let (begun, begins) = mpsc::channel();
    let flush = FlushWait::begin();
    let blocked = callback(move || {
        begun.send(()).unwrap();
        goes_on.recv().unwrap();
    });
    submit_for(&executor, &Arc::new(Lane::new()), vec![callback(|| ()), blocked], &flush);
    begins.recv().unwrap();
    let early = flush.wait(&clock, clock.now());
    assert!(matches!(early, Err(Error::FlushTimeout { records: 0, callbacks: 1 })), "{early:?}");
    go_on.send(()).unwrap();
    assert!(flush.wait(&clock, clock.now() + LONG).is_ok());
    let nothing = FlushWait::begin();
    submit_for(&executor, &Arc::new(Lane::new()), Vec::new(), &nothing);
    assert!(nothing.is_over(), "a batch without callbacks holds no flush up");
    close(&executor, LONG);
}

#[test]
fn a_stuck_callback_does_not_hold_close_up() {
    let executor = threads(2);
    let (begun, begins) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (dropped, drops) = mpsc::channel::<ThreadId>();
    let stuck = callback(move || {
        begun.send(thread::current().id()).unwrap();
        released.recv().unwrap();
    });
    struct TellsItsThread(mpsc::Sender<ThreadId>);
    impl Drop for TellsItsThread {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).unwrap();
        }
    }
    let behind = || {
        let payload = TellsItsThread(dropped.clone());
        callback(move || {
            panic!("it must not run: {}", payload.0.send(thread::current().id()).is_ok())
        })
    };
    let lane = Arc::new(Lane::new());
    submit(&executor, &lane, vec![stuck, behind()]);
    submit(&executor, &lane, vec![behind()]);
    let stuck_thread = begins.recv().unwrap();
    let left = close(&executor, Duration::from_millis(20));
    assert_eq!(left, CallbacksLeft { callbacks: 3, threads_stuck: 1 });
    assert_eq!(executor.close(LONG), left, "a later close finds the same");
    // Once it comes back, the thread that was stuck drops what is left; no other thread does.
    drop((lane, executor));
    assert!(drops.try_recv().is_err());
    release.send(()).unwrap();
    assert_eq!(drops.recv().unwrap(), stuck_thread);
    assert_eq!(drops.recv().unwrap(), stuck_thread);
}

/// The thread that is stuck counts for both, and none of them waits longer than the more hurried.
#[test]
fn closes_at_the_same_time_end_with_the_first_that_gives_up() {
    for round in 0..100 {
        let executor = threads(1);
        let (begun, begins) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let stuck = callback(move || {
            begun.send(()).unwrap();
            released.recv().unwrap();
        });
        let behind = callback(|| panic!("it must not run"));
        submit(&executor, &Arc::new(Lane::new()), vec![stuck, behind]);
        begins.recv().unwrap();
        executor.expect_no_more();
        let [patient, hurried] = thread::scope(|scope| {
            let patient = scope.spawn(|| racing::in_time(|| executor.close(racing::LIMIT)));
            racing::meet(round, || executor.is_being_closed());
            let hurried = executor.close(NO_TIME);
            [patient.join().unwrap(), hurried]
        });
        assert_eq!(hurried, CallbacksLeft { callbacks: 2, threads_stuck: 1 });
        assert_eq!(patient, hurried);
        release.send(()).unwrap();
    }
}

#[test]
fn close_at_once_ends_idle_threads() {
    for kind in [ExecutorKind::Threads(4), ExecutorKind::Inline] {
        let executor = executor(kind);
        assert_eq!(close(&executor, NO_TIME), all_done());
        assert_eq!(close(&executor, NO_TIME), all_done(), "it may be repeated");
    }
    let (executor, tasks) = to_channel();
    assert_eq!(close(&executor, NO_TIME), all_done());
    assert!(tasks.recv().is_err(), "the user's executor is dropped with its thread");
}

#[test]
fn close_runs_what_was_submitted_before() {
    for round in 0..200 {
        let executor = threads(1 + round % 3);
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            let ran = ran.clone();
            let count = callback(move || {
                ran.fetch_add(1, Ordering::SeqCst);
            });
            submit(&executor, &Arc::new(Lane::new()), vec![count]);
        }
        assert_eq!(close(&executor, LONG), all_done());
        assert_eq!(ran.load(Ordering::SeqCst), 10);
    }
}

#[test]
fn threads_end_by_themselves_after_begin_close() {
    let executor = threads(2);
    let (alive, ended) = mpsc::channel::<()>();
    // The sender half lives in the threads until they end.
    thread_local! { static ALIVE: RefCell<Option<mpsc::Sender<()>>> = RefCell::default(); }
    let meet = Arc::new(Barrier::new(2));
    for _ in 0..2 {
        let (meet, alive) = (meet.clone(), alive.clone());
        let enter = callback(move || {
            ALIVE.set(Some(alive));
            meet.wait();
        });
        submit(&executor, &Arc::new(Lane::new()), vec![enter]);
    }
    drop(alive);
    executor.expect_no_more();
    assert!(ended.recv().is_err());
}

#[test]
fn a_batch_that_comes_too_late_is_dropped_on_a_callback_thread_and_counted() {
    struct Tells(mpsc::Sender<Option<String>>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send(thread::current().name().map(str::to_owned)).unwrap();
            panic!("in a payload's drop");
        }
    }
    let executor = threads(1);
    // The sender is so late that the close has given it up.
    assert_eq!(executor.close(Duration::from_millis(5)), all_done());
    let (told, dropped_on) = mpsc::channel();
    let payload = Tells(told);
    let (flush, clock) = (FlushWait::begin(), Clock::system());
    submit_for(&executor, &Arc::new(Lane::new()), vec![callback(move || drop(payload))], &flush);
    assert_eq!(dropped_on.recv().unwrap().as_deref(), Some("kp-test-callback-0"));
    flush.wait(&clock, clock.now() + LONG).unwrap();
    assert_eq!(close(&executor, LONG).callbacks, 1, "it was dropped");
    assert_eq!((executor.dropped(), executor.slots().used()), (1, 0));
}

/// Who watches a callback hears of the record's fate as it is dropped, and the callback nothing.
#[test]
fn a_callback_that_is_dropped_has_its_watcher_told_of_the_fate() {
    let (executor, tasks) = to_channel();
    let (told, fates) = mpsc::channel();
    let watcher: UserCallback = Box::new(move |fate| told.send(fate.unwrap().offset()).unwrap());
    let callback = Some(callback(|| panic!("it must not run")));
    let watched = Callback::Watched(Box::new(Watched { watcher, callback }));
    submit(&executor, &Arc::new(Lane::new()), vec![watched]);
    drop(tasks.recv().unwrap());
    assert_eq!(fates.try_recv(), Ok(Some(100)));
    assert_eq!((executor.panicked(), executor.dropped()), (0, 1));
}

#[test]
fn a_users_pool_gets_one_task_of_a_lane_at_a_time() {
    let (executor, tasks) = to_channel();
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |number: u32| {
        let order = order.clone();
        callback(move || order.lock().push(number))
    };
    let (a, b) = (Arc::new(Lane::new()), Arc::new(Lane::new()));
    submit(&executor, &a, vec![note(1), note(2)]);
    submit(&executor, &a, vec![note(3)]);
    submit(&executor, &b, vec![note(9)]);
    let (first, second) = (tasks.recv().unwrap(), tasks.recv().unwrap());
    assert_eq!((first.callbacks(), second.callbacks()), (2, 1));
    second.run();
    assert_eq!(*order.lock(), [9], "the second task was of the other lane");
    first.run();
    tasks.recv().unwrap().run();
    assert_eq!(*order.lock(), [9, 1, 2, 3]);
    assert_eq!(close(&executor, LONG), all_done());
}

#[test]
fn a_task_that_the_pool_drops_frees_its_slots_and_lets_the_lane_go_on() {
    let (executor, tasks) = to_channel();
    let drops = Arc::new(AtomicUsize::new(0));
    let (ran, runs) = mpsc::channel();
    let payload = Payload { drops: drops.clone(), panics: false };
    let lane = Arc::new(Lane::new());
    let flush = FlushWait::begin();
    let lost = vec![callback(move || drop(payload)), callback(|| ())];
    submit_for(&executor, &lane, lost, &flush);
    submit(&executor, &lane, vec![callback(move || ran.send(()).unwrap())]);
    assert_eq!(executor.slots().used(), 3);
    drop(tasks.recv().unwrap());
    assert!(flush.is_over());
    assert_eq!((executor.dropped(), executor.slots().used()), (2, 1));
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    tasks.recv().unwrap().run();
    runs.recv().unwrap();
    assert_eq!(close(&executor, LONG), CallbacksLeft { callbacks: 2, threads_stuck: 0 });
}

#[test]
fn a_users_pool_that_panics_or_holds_tasks_back_does_no_harm() {
    struct Panics;
    impl Executor for Panics {
        fn execute(&self, _task: CallbackTask) {
            panic!("in execute")
        }
    }
    let panicking = executor(ExecutorKind::Custom(Arc::new(Panics)));
    let flush = FlushWait::begin();
    submit_for(&panicking, &Arc::new(Lane::new()), vec![callback(|| ())], &flush);
    let clock = Clock::system();
    assert!(flush.wait(&clock, clock.now() + LONG).is_ok());
    assert_eq!(close(&panicking, LONG), CallbacksLeft { callbacks: 1, threads_stuck: 0 });
    assert_eq!((panicking.panicked(), panicking.dropped()), (1, 1));

    let (holding, tasks) = to_channel();
    let (ran, runs) = mpsc::channel();
    submit(&holding, &Arc::new(Lane::new()), vec![callback(move || ran.send(()).unwrap())]);
    let task = tasks.recv().unwrap();
    let left = close(&holding, Duration::from_millis(5));
    assert_eq!(left, CallbacksLeft { callbacks: 1, threads_stuck: 0 });
    task.run();
    assert!(runs.recv().is_err(), "after the close has given up, it is dropped");
    assert_eq!((holding.dropped(), holding.slots().used()), (1, 0));
}

#[test]
fn an_inline_executor_runs_callbacks_on_the_senders_thread() {
    let executor = executor(ExecutorKind::Inline);
    let undecided = Delivery::new(open_batch(), RecordFacts::new(0, 0, None, None));
    let ran = Arc::new(Mutex::new(None));
    let inside = {
        let ran = ran.clone();
        callback(move || {
            *ran.lock() = Some((thread::current().id(), in_callback(), undecided.wait()));
        })
    };
    submit(&executor, &Arc::new(Lane::new()), vec![inside]);
    let (thread, inside, waited) = ran.lock().take().unwrap();
    assert_eq!(thread, thread::current().id());
    assert!(inside && !in_callback());
    assert!(matches!(waited, Err(Error::InCallback { call: "wait" })));
}

#[test]
fn a_callback_knows_where_it_is_and_may_wait_for_other_records() {
    let (channel, tasks) = to_channel();
    let pooled = thread::spawn(move || tasks.into_iter().for_each(CallbackTask::run));
    for executor in [threads(1), channel] {
        let other = open_batch();
        let delivery = Delivery::new(other.clone(), RecordFacts::new(0, 0, None, None));
        let (told, results) = mpsc::channel();
        let inside = callback(move || {
            let flush = refuse_in_callback("flush").unwrap_err();
            told.send((in_callback(), flush.to_string(), None)).unwrap();
            told.send((in_callback(), String::new(), Some(delivery.wait()))).unwrap();
        });
        submit(&executor, &Arc::new(Lane::new()), vec![inside]);
        let (inside, flush, _) = results.recv().unwrap();
        assert!(inside);
        assert!(flush.contains("flush"), "{flush}");
        other.complete(Outcome::Delivered { base_offset: 3, log_append_time: None });
        let (_, _, waited) = results.recv().unwrap();
        assert_eq!(waited.unwrap().unwrap().offset(), Some(3));
        assert_eq!(close(&executor, LONG), all_done());
    }
    pooled.join().unwrap();
    assert!(!in_callback() && refuse_in_callback("flush").is_ok());
}

#[test]
fn a_callback_may_submit_more_work_without_waiting() {
    let executor = Arc::new(threads(1));
    let lane = Arc::new(Lane::new());
    let (ran, runs) = mpsc::channel();
    let again = {
        let (executor, lane) = (executor.clone(), lane.clone());
        callback(move || submit(&executor, &lane, vec![callback(move || ran.send(()).unwrap())]))
    };
    submit(&executor, &lane, vec![again]);
    runs.recv().unwrap();
    assert_eq!(close(&executor, LONG), all_done());
}

/// CFG-23: a build that fails after its first threads were started drops them, and they end.
#[test]
fn an_executor_that_is_dropped_unused_leaves_no_thread() {
    let (executor, tasks) = to_channel();
    drop(executor);
    // The user's pool is the thread's own by now, and goes with it.
    let gone = tasks.recv_timeout(Duration::from_secs(20));
    assert_eq!(gone.map(|_| ()), Err(mpsc::RecvTimeoutError::Disconnected));
}
