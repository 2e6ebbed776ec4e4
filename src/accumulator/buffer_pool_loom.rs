//! The pool under every interleaving: who gets memory, and that none is lost on any way out.

use super::*;
use crate::sync::atomic::AtomicBool;
use crate::sync::model::{explore, join, spawn};
use crate::time::ManualClock;

/// A pool of two buffers of one byte, both handed out.
fn emptied() -> (Arc<BufferPool>, [Vec<u8>; 2]) {
    let pool = BufferPool::new(2, 1, ShareLimits::none(2));
    let buffers = [(); 2].map(|()| match pool.begin_uncharged(1) {
        Ok(Allocation::Granted(buffer)) => buffer,
        _ => panic!("there is memory"),
    });
    (Arc::new(pool), buffers)
}

fn queued(pool: &BufferPool, size: usize) -> Place {
    match pool.begin_uncharged(size) {
        Ok(Allocation::Queued(place)) => place,
        _ => panic!("there is no memory"),
    }
}

fn assert_whole(pool: &BufferPool) {
    assert_eq!(pool.available(), 2);
    assert!(!pool.has_waiters());
    let state = pool.state.lock();
    assert_eq!((state.gathered, state.reserved.len()), (0, 0));
}

/// For waits that end by a grant or by close.
fn still() -> Clock {
    Clock::Manual(ManualClock::new())
}

#[test]
fn the_longest_waiting_is_served_first_however_memory_comes_back() {
    explore(3, || {
        let (pool, [a, b]) = emptied();
        let (large, small) = (queued(&pool, 2), queued(&pool, 1));
        let large_was_served = Arc::new(AtomicBool::new(false));
        let first = spawn({
            let (pool, served) = (Arc::clone(&pool), Arc::clone(&large_was_served));
            move || {
                let buffer = pool.wait(large, &still(), MonoTime::MAX).unwrap();
                assert_eq!(buffer.capacity(), 2);
                served.store(true, Ordering::SeqCst);
                pool.release_uncharged([buffer]);
            }
        });
        let second = spawn({
            let pool = Arc::clone(&pool);
            move || {
                let buffer = pool.wait(small, &still(), MonoTime::MAX).unwrap();
                assert!(large_was_served.load(Ordering::SeqCst), "overtaken");
                pool.release_uncharged([buffer]);
            }
        });
        pool.release_uncharged([a]);
        pool.release_uncharged([b]);
        join(first);
        join(second);
        assert_whole(&pool);
    });
}

#[test]
fn a_time_out_leaves_what_came_to_the_next_in_the_queue() {
    explore(3, || {
        let (pool, [a, b]) = emptied();
        let (first, second) = (queued(&pool, 2), queued(&pool, 1));
        let manual = ManualClock::new();
        let deadline = MonoTime::ZERO + Duration::from_secs(1);
        let waiter = Arc::clone(&first.0);
        let impatient = spawn({
            let (pool, clock) = (Arc::clone(&pool), Clock::Manual(Arc::clone(&manual)));
            move || match pool.wait(first, &clock, deadline) {
                Ok(buffer) => pool.release_uncharged([buffer]),
                Err(error) => assert_eq!(error, PoolError::Exhausted),
            }
        });
        let patient = spawn({
            let pool = Arc::clone(&pool);
            move || {
                let buffer = pool.wait(second, &still(), MonoTime::MAX).unwrap();
                pool.release_uncharged([buffer]);
            }
        });
        let time = spawn({
            let pool = Arc::clone(&pool);
            move || {
                let _under_the_lock = pool.state.lock();
                manual.advance(Duration::from_secs(1));
                waiter.turn.notify_one();
            }
        });
        pool.release_uncharged([a]);
        join(time);
        // The second one may need what the first one keeps until its time is over.
        pool.release_uncharged([b]);
        join(impatient);
        join(patient);
        assert_whole(&pool);
    });
}

#[test]
fn close_ends_every_wait_and_loses_no_memory() {
    explore(3, || {
        let (pool, [a, b]) = emptied();
        let places = [queued(&pool, 1), queued(&pool, 2)];
        let waiters = places.map(|place| {
            let pool = Arc::clone(&pool);
            spawn(move || match pool.wait(place, &still(), MonoTime::MAX) {
                Ok(buffer) => pool.release_uncharged([buffer]),
                Err(error) => assert_eq!(error, PoolError::Closed),
            })
        });
        let closer = spawn({
            let pool = Arc::clone(&pool);
            move || pool.close()
        });
        pool.release_uncharged([a, b]);
        join(closer);
        waiters.into_iter().for_each(join);
        assert!(matches!(pool.begin_uncharged(1), Err(PoolError::Closed)));
        assert_whole(&pool);
    });
}

#[test]
fn a_call_that_never_waits_takes_nothing_from_one_that_does() {
    explore(3, || {
        let (pool, [a, b]) = emptied();
        let place = queued(&pool, 2);
        let waiter = spawn({
            let pool = Arc::clone(&pool);
            move || {
                let buffer = pool.wait(place, &still(), MonoTime::MAX).unwrap();
                pool.release_uncharged([buffer]);
            }
        });
        let hasty = spawn({
            let pool = Arc::clone(&pool);
            move || {
                pool.try_allocate(1).into_iter().for_each(|buffer| pool.release_uncharged([buffer]))
            }
        });
        pool.release_uncharged([a]);
        pool.release_uncharged([b]);
        join(hasty);
        join(waiter);
        assert_whole(&pool);
    });
}
