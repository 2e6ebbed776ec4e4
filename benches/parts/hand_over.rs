//! What stands beside a record's bytes on their way: memory, the choice of a partition, and the
//! hand-over of decided batches to the threads that run callbacks.

use std::hint::black_box;
use std::sync::mpsc::channel;

use divan::Bencher;
use divan::counter::ItemsCount;
use kafka_producer::internal::parts::{Callbacks, Pool};
use kafka_producer::{crc32_partition, fnv1a_partition, murmur2_partition};

const BATCH: usize = 16_384;

/// A buffer of batch.size, taken and given back; after the first it comes from the free list.
#[divan::bench(threads = [1, 2, 8], sample_size = 1_000)]
fn pool_of_batches(bencher: Bencher) {
    let pool = Pool::new(64 * BATCH, BATCH);
    bencher.bench(|| {
        if let Some(memory) = pool.take(BATCH) {
            pool.give_back(black_box(memory));
        }
    });
}

/// A smaller buffer, which is allocated and freed.
#[divan::bench(sample_size = 1_000)]
fn pool_of_other_sizes(bencher: Bencher) {
    let pool = Pool::new(64 * BATCH, BATCH);
    bencher.bench_local(|| pool.give_back(black_box(pool.take(512).unwrap())));
}

type Rule = fn(&[u8], i32) -> i32;

#[divan::bench(args = [("murmur2", 16), ("fnv1a", 16), ("crc32", 16), ("murmur2", 100)])]
fn partitioner(bencher: Bencher, (name, key_len): (&str, usize)) {
    let rule: Rule = match name {
        "murmur2" => murmur2_partition,
        "fnv1a" => fnv1a_partition,
        _ => crc32_partition,
    };
    let key = vec![b'k'; key_len];
    bencher.bench_local(|| rule(black_box(&key), black_box(12)));
}

/// A batch of so many callbacks, from the sender's hand-over until the last one has run on the
/// executor's thread and has told this one.
#[divan::bench(args = [1, 150, 1_000])]
fn hand_over_of_callbacks(bencher: Bencher, count: usize) {
    let callbacks = Callbacks::start(1).unwrap();
    let (done, last) = channel();
    bencher
        .counter(ItemsCount::new(count))
        .with_inputs(|| {
            callbacks.decide((1..=count).map(|number| {
                let done = (number == count).then(|| done.clone());
                move || {
                    if let Some(done) = done {
                        let _ = done.send(());
                    }
                }
            }))
        })
        .bench_local_values(|batch| {
            callbacks.hand_over(batch);
            last.recv().unwrap();
        });
}
