//! The pool under every interleaving: who gets memory, and that none is lost on any way out.

use super::*;
use crate::sync::atomic::AtomicBool;
use crate::sync::model::{explore, join, spawn};
use crate::time::ManualClock;

/// A pool of two buffers of one byte, both handed out.
fn emptied() -> (Arc<BufferPool>, [Vec<u8>; 2]) {
    let pool = BufferPool::new(2, 1, ShareLimits::none());
    let buffers = [(); 2].map(|()| match pool.begin_uncharged(1) {
        Ok(Allocation::Granted(buffer)) => buffer,
        _ => panic!("there is memory"),
    });
    (Arc::new(pool), buffers)
}

fn queued(pool: &BufferPool, size: usize) -> Place {
    pool.queue_up(vec![Want { id: None, size }]).expect("it is open")
}

fn assert_whole(pool: &BufferPool) {
    assert_eq!(pool.available(), 2);
    assert!(!pool.has_waiters());
    let state = pool.state.lock();
    assert_eq!((state.waiters.len(), state.granted.len(), state.shares.held()), (0, 0, 0));
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
                let (_, buffer) = pool.wait(large, &still(), MonoTime::MAX).unwrap();
                assert_eq!(buffer.capacity(), 2);
                served.store(true, Ordering::SeqCst);
                pool.release_uncharged([buffer]);
            }
        });
        let second = spawn({
            let pool = Arc::clone(&pool);
            move || {
                let (_, buffer) = pool.wait(small, &still(), MonoTime::MAX).unwrap();
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

/// Of two that wait the first one runs out of time, while memory comes back.
fn time_passes_for_the_first(comes_back: impl Fn(&BufferPool, Vec<u8>)) -> Arc<BufferPool> {
    let (pool, [a, b]) = emptied();
    let (first, second) = (queued(&pool, 2), queued(&pool, 1));
    let manual = ManualClock::new();
    let deadline = MonoTime::ZERO + Duration::from_secs(1);
    let waiter = Arc::clone(&first.0);
    let impatient = spawn({
        let (pool, clock) = (Arc::clone(&pool), Clock::Manual(Arc::clone(&manual)));
        move || match pool.wait(first, &clock, deadline) {
            Ok((_, buffer)) => pool.release_uncharged([buffer]),
            Err(error) => assert_eq!(error, PoolError::Exhausted(None)),
        }
    });
    let patient = spawn({
        let pool = Arc::clone(&pool);
        move || {
            let (_, buffer) = pool.wait(second, &still(), MonoTime::MAX).unwrap();
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
    comes_back(&pool, b);
    join(impatient);
    join(patient);
    pool
}

#[test]
fn a_time_out_leaves_what_came_to_the_next_in_the_queue() {
    // What comes back late is either's, or nobody's.
    explore(3, || {
        assert_whole(&time_passes_for_the_first(|pool, late| pool.release_uncharged([late])));
    });
}

#[test]
fn a_time_out_lets_the_next_one_have_what_there_is() {
    // All the memory there will ever be is enough for the second one.
    explore(3, || {
        let pool = time_passes_for_the_first(|_, _| ());
        assert_eq!((pool.available(), pool.has_waiters()), (1, false));
    });
}

#[test]
fn close_ends_every_wait_and_loses_no_memory() {
    explore(3, || {
        let (pool, [a, b]) = emptied();
        // One of them may come too late to wait at all.
        let waiters = [Some(queued(&pool, 1)), None].map(|place| {
            let pool = Arc::clone(&pool);
            let want = Want { id: None, size: 2 };
            spawn(move || {
                let place = place.map_or_else(|| pool.queue_up(vec![want]), Ok);
                match place.and_then(|place| pool.wait(place, &still(), MonoTime::MAX)) {
                    Ok((_, buffer)) => pool.release_uncharged([buffer]),
                    Err(error) => assert_eq!(error, PoolError::Closed),
                }
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
        let was_served = Arc::new(AtomicBool::new(false));
        let waiter = spawn({
            let (pool, served) = (Arc::clone(&pool), Arc::clone(&was_served));
            move || {
                let (_, buffer) = pool.wait(place, &still(), MonoTime::MAX).unwrap();
                served.store(true, Ordering::SeqCst);
                pool.release_uncharged([buffer]);
            }
        });
        let hasty = spawn({
            let pool = Arc::clone(&pool);
            move || {
                if let Ok(Allocation::Granted(buffer)) = pool.begin_uncharged(1) {
                    assert!(was_served.load(Ordering::SeqCst), "overtaken");
                    pool.release_uncharged([buffer]);
                }
            }
        });
        pool.release_uncharged([a]);
        pool.release_uncharged([b]);
        join(hasty);
        join(waiter);
        assert_whole(&pool);
    });
}

const P: [PartitionId; 2] = [PartitionId(0), PartitionId(1)];

/// A pool of three bytes, of which a partition may hold one. Each of two holds one, and the third
/// byte is free.
fn shared() -> (Arc<BufferPool>, [Vec<u8>; 2]) {
    let in_use_for = Duration::from_secs(3600);
    let shares = ShareLimits { partition: 1, broker: usize::MAX, in_use_for };
    let pool = BufferPool::new(3, 1, shares);
    let buffers = P.map(|id| match pool.begin(id, 1, MonoTime::ZERO) {
        Ok(Allocation::Granted(buffer)) => buffer,
        _ => panic!("there is memory"),
    });
    (Arc::new(pool), buffers)
}

/// A place for a byte of any of these.
fn waits_for(pool: &BufferPool, ids: &[PartitionId]) -> Place {
    let wants = ids.iter().map(|id| Want { id: Some(*id), size: 1 });
    pool.queue_up(wants.collect()).expect("it is open")
}

fn assert_shared_is_whole(pool: &BufferPool) {
    assert_eq!(pool.available(), 3);
    assert!(!pool.has_waiters());
    let state = pool.state.lock();
    assert_eq!((state.waiters.len(), state.granted.len(), state.shares.held()), (0, 0, 0));
}

#[test]
fn who_is_passed_over_is_served_as_its_share_comes_back() {
    explore(3, || {
        let (pool, [a, b]) = shared();
        // One after the other: the share holds one of them.
        let waiters = [(); 2].map(|()| {
            let place = waits_for(&pool, &P[..1]);
            let pool = Arc::clone(&pool);
            spawn(move || {
                let (_, buffer) = pool.wait(place, &still(), MonoTime::MAX).unwrap();
                pool.release(P[0], buffer);
            })
        });
        let other = spawn({
            let pool = Arc::clone(&pool);
            move || pool.release(P[1], b)
        });
        pool.release(P[0], a);
        join(other);
        waiters.into_iter().for_each(join);
        assert_shared_is_whole(&pool);
    });
}

#[test]
fn who_gives_up_the_wait_for_a_share_leaves_it_to_the_next() {
    explore(3, || {
        let (pool, [a, b]) = shared();
        let [first, second] = [(); 2].map(|()| waits_for(&pool, &P[..1]));
        let impatient = spawn({
            let pool = Arc::clone(&pool);
            // Its time is over from the beginning.
            move || match pool.wait(first, &still(), MonoTime::ZERO) {
                Ok((_, buffer)) => pool.release(P[0], buffer),
                Err(error) => assert!(matches!(error, PoolError::Exhausted(_))),
            }
        });
        let patient = spawn({
            let pool = Arc::clone(&pool);
            move || {
                let (_, buffer) = pool.wait(second, &still(), MonoTime::MAX).unwrap();
                pool.release(P[0], buffer);
            }
        });
        pool.release(P[0], a);
        pool.release(P[1], b);
        join(impatient);
        join(patient);
        assert_shared_is_whole(&pool);
    });
}

#[test]
fn close_ends_the_wait_for_a_share() {
    explore(3, || {
        let (pool, [a, b]) = shared();
        let waiters = P.map(|id| {
            let place = waits_for(&pool, &[id]);
            let pool = Arc::clone(&pool);
            spawn(move || match pool.wait(place, &still(), MonoTime::MAX) {
                Ok((_, buffer)) => pool.release(id, buffer),
                Err(error) => assert_eq!(error, PoolError::Closed),
            })
        });
        let closer = spawn({
            let pool = Arc::clone(&pool);
            move || pool.close()
        });
        pool.release(P[0], a);
        join(closer);
        waiters.into_iter().for_each(join);
        pool.release(P[1], b);
        assert_shared_is_whole(&pool);
    });
}

#[test]
fn a_partition_that_moves_leaves_its_brokers_share_to_who_waits_for_it() {
    explore(3, || {
        let in_use_for = Duration::from_secs(3600);
        let shares = ShareLimits { partition: usize::MAX, broker: 1, in_use_for };
        let pool = Arc::new(BufferPool::new(3, 1, shares));
        let (ids, nodes) = ([0, 1, 2].map(PartitionId), [7, 8].map(|id| Some(NodeId(id))));
        // The first two are one broker's.
        for (id, node) in ids.into_iter().zip([0, 0, 1]) {
            pool.set_leader(id, nodes[node]);
        }
        let [moves, stays] = [ids[0], ids[2]].map(|id| match pool.begin(id, 1, MonoTime::ZERO) {
            Ok(Allocation::Granted(buffer)) => (id, buffer),
            _ => panic!("there is memory"),
        });
        let waiters = [(); 2].map(|()| {
            let pool = Arc::clone(&pool);
            spawn(move || {
                let place = waits_for(&pool, &ids[1..2]);
                let (_, buffer) = pool.wait(place, &still(), MonoTime::MAX).unwrap();
                pool.release(ids[1], buffer);
            })
        });
        let other = spawn({
            let pool = Arc::clone(&pool);
            move || pool.release(stays.0, stays.1)
        });
        pool.set_leader(moves.0, nodes[1]);
        waiters.into_iter().for_each(join);
        join(other);
        pool.release(moves.0, moves.1);
        assert_shared_is_whole(&pool);
    });
}

#[test]
fn who_waits_for_any_of_two_shares_gets_the_first_that_comes_back() {
    explore(3, || {
        let (pool, [a, b]) = shared();
        let either = waits_for(&pool, &P);
        let only = waits_for(&pool, &P[..1]);
        let first = spawn({
            let pool = Arc::clone(&pool);
            move || {
                let (place, buffer) = pool.wait(either, &still(), MonoTime::MAX).unwrap();
                pool.release(P[place], buffer);
            }
        });
        let second = spawn({
            let pool = Arc::clone(&pool);
            move || {
                let (_, buffer) = pool.wait(only, &still(), MonoTime::MAX).unwrap();
                pool.release(P[0], buffer);
            }
        });
        let other = spawn({
            let pool = Arc::clone(&pool);
            move || pool.release(P[1], b)
        });
        pool.release(P[0], a);
        [first, second, other].into_iter().for_each(join);
        assert_shared_is_whole(&pool);
    });
}
