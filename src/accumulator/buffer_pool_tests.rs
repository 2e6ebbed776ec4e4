//! The pool: who gets memory, and that none is lost on any way out.

use super::*;

fn pool(total: usize, poolable: usize) -> BufferPool {
    BufferPool::new(total, poolable, ShareLimits::none())
}

fn granted(pool: &BufferPool, size: usize) -> Vec<u8> {
    match pool.begin_uncharged(size).unwrap() {
        Allocation::Granted(buffer) => buffer,
        Allocation::Refused(_) => panic!("refused"),
    }
}

fn is_refused(pool: &BufferPool, size: usize) -> bool {
    matches!(pool.begin_uncharged(size).unwrap(), Allocation::Refused(None))
}

fn queued(pool: &BufferPool, size: usize) -> Place {
    assert!(is_refused(pool, size));
    pool.queue_up(vec![Want { id: None, size }]).unwrap()
}

/// What the thread waits for, if it has come.
fn got(pool: &BufferPool, place: &Place) -> Option<Vec<u8>> {
    pool.poll(place).map(|outcome| outcome.expect("open").1)
}

/// A thread that waits until this moment and no longer.
fn wait_no_longer(pool: &BufferPool, place: Place) -> Result<Vec<u8>, PoolError> {
    let clock = Clock::system();
    pool.wait(place, &clock, clock.now()).map(|(_, memory)| memory)
}

/// A thread that waits for as long as a test may take, and most likely sleeps by now.
fn waiting(
    pool: &Arc<BufferPool>,
    size: usize,
) -> std::thread::JoinHandle<Result<Vec<u8>, PoolError>> {
    let place = queued(pool, size);
    let pool = Arc::clone(pool);
    let (begins, begun) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let clock = Clock::system();
        let deadline = clock.now() + Duration::from_secs(30);
        begins.send(()).unwrap();
        let waited = pool.wait(place, &clock, deadline).map(|(_, memory)| memory);
        assert!(clock.now() < deadline, "it was the deadline that ended the wait");
        waited
    });
    begun.recv().unwrap();
    (0..1000).for_each(|_| std::thread::yield_now());
    waiter
}

/// BP-01, BP-02, BP-03, BP-04.
#[test]
fn buffers_of_batch_size_are_reused_and_others_freed() {
    let pool = pool(64, 16);
    let mut buffer = granted(&pool, 16);
    assert_eq!((buffer.capacity(), pool.available()), (16, 48));
    buffer.extend_from_slice(b"used");
    let address = buffer.as_ptr();
    pool.release_uncharged([buffer]);
    assert_eq!(pool.available(), 64);
    let again = granted(&pool, 16);
    assert_eq!((again.as_ptr(), again.len()), (address, 0));
    let odd = granted(&pool, 10);
    assert_eq!(pool.available(), 38);
    pool.release_uncharged([odd, again]);
    assert_eq!(pool.available(), 64);
    assert_eq!(pool.state.lock().unallocated, 48);
    pool.trim();
    assert_eq!(pool.state.lock().unallocated, 64);
}

#[test]
fn the_free_list_is_dissolved_for_a_larger_buffer() {
    let pool = pool(64, 16);
    let four: Vec<_> = (0..4).map(|_| granted(&pool, 16)).collect();
    pool.release_uncharged(four);
    assert_eq!(granted(&pool, 40).capacity(), 40);
    assert_eq!(pool.available(), 24);
}

/// BP-05.
#[test]
fn more_than_the_pool_is_refused_at_once_and_all_of_it_is_granted() {
    let pool = pool(64, 16);
    assert!(matches!(pool.begin_uncharged(65), Err(PoolError::TooLarge)));
    assert_eq!(granted(&pool, 64).capacity(), 64);
}

/// BP-17.
#[test]
fn memory_goes_to_the_longest_waiting_first_and_piecemeal() {
    let pool = pool(64, 16);
    let (a, b) = (granted(&pool, 16), granted(&pool, 48));
    let large = queued(&pool, 40);
    let small = queued(&pool, 8);
    pool.release_uncharged([a]);
    assert!(pool.poll(&large).is_none());
    assert!(pool.poll(&small).is_none(), "a newcomer overtook");
    pool.release_uncharged([b]);
    assert_eq!(got(&pool, &large).unwrap().capacity(), 40);
    assert_eq!(got(&pool, &small).unwrap().capacity(), 8);
    assert!(!pool.has_waiters());
}

/// BP-09.
#[test]
fn what_came_for_a_waiter_that_gives_up_goes_to_the_next_one() {
    let pool = pool(64, 16);
    let (a, b) = (granted(&pool, 16), granted(&pool, 48));
    let large = queued(&pool, 40);
    let small = queued(&pool, 16);
    pool.release_uncharged([a]);
    assert_eq!(wait_no_longer(&pool, large), Err(PoolError::Exhausted(None)));
    assert_eq!(got(&pool, &small).unwrap().capacity(), 16);
    pool.release_uncharged([b]);
    assert_eq!(pool.available(), 48);
}

#[test]
fn a_grant_that_comes_as_the_waiter_gives_up_is_not_lost() {
    for size in [40, 16] {
        let pool = pool(64, 16);
        let all: Vec<_> = (0..4).map(|_| granted(&pool, 16)).collect();
        let place = queued(&pool, size);
        pool.release_uncharged(all);
        assert_eq!(pool.available(), 64 - size);
        assert_eq!(wait_no_longer(&pool, place).unwrap().capacity(), size);
    }
}

#[test]
fn a_waiter_for_a_whole_buffer_gets_the_one_that_comes_back() {
    let pool = pool(32, 16);
    let (a, b) = (granted(&pool, 16), granted(&pool, 16));
    let places = [queued(&pool, 16), queued(&pool, 8)];
    let address = b.as_ptr();
    pool.release_uncharged([a, b]);
    let [whole, half] = places.map(|place| got(&pool, &place).unwrap());
    assert_eq!((whole.as_ptr(), whole.len(), whole.capacity()), (address, 0, 16));
    assert_eq!((half.capacity(), pool.available()), (8, 8));
    pool.release_uncharged([whole, half]);
    assert_eq!(pool.available(), 32);
}

/// BP-08, BP-09.
#[test]
fn a_wait_ends_at_its_deadline_and_not_before() {
    let pool = pool(64, 16);
    let _most = granted(&pool, 60);
    let clock = Clock::system();
    let begun = clock.now();
    let deadline = begun + Duration::from_millis(20);
    let place = queued(&pool, 5);
    assert!(is_refused(&pool, 4), "a newcomer overtook");
    assert_eq!(pool.wait(place, &clock, deadline), Err(PoolError::Exhausted(None)));
    assert!(clock.now() >= deadline);
    assert!(!pool.has_waiters());
    assert!(is_refused(&pool, 5));
    assert!(!pool.has_waiters());
    assert_eq!(pool.available(), 4);
}

/// BP-06.
#[test]
fn a_wait_for_all_of_the_pool_ends_as_the_last_byte_comes_back() {
    let pool = Arc::new(pool(64, 16));
    let (most, last) = (granted(&pool, 63), granted(&pool, 1));
    let waiter = waiting(&pool, 64);
    pool.release_uncharged([most]);
    assert!(pool.has_waiters());
    pool.release_uncharged([last]);
    assert_eq!(waiter.join().unwrap().unwrap().capacity(), 64);
    assert_eq!(pool.available(), 0);
}

/// BP-14.
#[test]
#[cfg(target_pointer_width = "64")]
fn a_pool_may_be_larger_than_32_bits_can_count() {
    const TWO: usize = 2_000_000_000;
    // What is not touched takes no memory.
    let pool = pool(10 * TWO, TWO);
    let (a, b, c) = (granted(&pool, TWO), granted(&pool, TWO), granted(&pool, TWO + 1));
    assert_eq!(pool.available(), 7 * TWO - 1);
    pool.release_uncharged([a, b]);
    assert_eq!(pool.available(), 9 * TWO - 1);
    assert_eq!(pool.state.lock().unallocated, 7 * TWO - 1);
    pool.release_uncharged([c]);
    assert_eq!(pool.available(), 10 * TWO);
}

/// BP-15, BP-16.
#[test]
fn close_wakes_waiters_and_refuses_newcomers_but_takes_memory_back() {
    let pool = Arc::new(pool(64, 16));
    let all = granted(&pool, 60);
    let waiters = [8, 16, 60].map(|size| waiting(&pool, size));
    pool.close();
    for waiter in waiters {
        assert_eq!(waiter.join().unwrap(), Err(PoolError::Closed));
    }
    assert!(!pool.has_waiters());
    assert!(matches!(pool.begin_uncharged(1), Err(PoolError::Closed)));
    pool.release_uncharged([all]);
    assert_eq!(pool.available(), 64);
}

/// BP-13.
#[test]
fn memory_is_whole_again_after_ten_threads_mixed_sizes() {
    let pool = Arc::new(pool(1000, 100));
    let clock = Clock::system();
    let deadline = clock.now() + Duration::from_secs(60);
    std::thread::scope(|scope| {
        for t in 0..10 {
            let (pool, clock) = (&pool, &clock);
            scope.spawn(move || {
                for i in 0..2000 {
                    let size = if i % 2 == 0 { 100 } else { 1 + (t * 131 + i * 17) % 400 };
                    let buffer = match pool.begin_uncharged(size).unwrap() {
                        Allocation::Granted(buffer) => buffer,
                        Allocation::Refused(_) => {
                            let place = pool.queue_up(vec![Want { id: None, size }]).unwrap();
                            pool.wait(place, clock, deadline).unwrap().1
                        }
                    };
                    assert_eq!(buffer.capacity(), size);
                    pool.release_uncharged([buffer]);
                }
            });
        }
    });
    assert_eq!(pool.available(), 1000);
    assert!(!pool.has_waiters());
}
