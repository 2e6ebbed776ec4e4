//! Which batches go out, when, and in which order.

use super::*;

fn lingering(s: &mut Setup) {
    s.batch_size = 1000;
    s.sender.linger = 50 * MS;
}

/// SND-01.
#[test]
fn a_record_goes_to_its_leader_and_its_offset_comes_back() {
    let mut s = Scenario::new(|s| s.leaders = vec![(1, 0), (2, 0)]);
    let delivery = s.append(1, "a");
    let sent = s.sent_one();
    assert_eq!((sent.node, sent.acks, sent.batch().partition), (2, -1, 1));
    assert_eq!((sent.batch().producer_id, sent.told()), (70, told(0, 0, "a")));
    assert!(is_open(&delivery) && !s.memory_is_whole());
    s.answer(&sent, OK, 42);
    assert_eq!(offset(&delivery), Some(42));
    assert!(s.memory_is_whole());
    assert_eq!(s.sent().len(), 0);
}

/// WIRE-01.
#[test]
fn a_request_carries_one_batch_of_each_partition() {
    let mut s = Scenario::begun(|s| s.leaders = vec![(1, 0); 3]);
    for (partition, value) in [(0, "a"), (0, "b"), (1, "c"), (2, "d"), (0, "e")] {
        s.append(partition, value);
    }
    let sent = s.sent();
    let partitions: Vec<_> = sent.iter().map(Sent::partitions).collect();
    assert_eq!(partitions, [vec![0, 1, 2], vec![0], vec![0]]);
    assert_eq!((sent[1].told(), sent[2].told()), (told(0, 2, "b"), told(0, 3, "e")));
}

/// RA-01, RA-03.
#[test]
fn a_full_request_ends_before_the_next_batch_and_the_next_request_begins_there() {
    let mut s = Scenario::new(|s| {
        s.leaders = vec![(1, 0); 3];
        s.max_in_flight = 1;
        // Two of the batches are more than a request holds; one is, too, and goes all the same.
        s.sender.max_request_size = 60;
    });
    for partition in [0, 1, 2] {
        s.append(partition, "first");
        s.append(partition, "second");
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        let sent = s.sent_one();
        order.push((sent.batch().partition, sent.batch().values[0].clone()));
        s.answer(&sent, OK, 0);
    }
    let expected = ["first", "second"].map(|v| [0, 1, 2].map(|p| (p, v.to_owned()))).concat();
    assert_eq!(order, expected);
}

/// RA-01, RA-03.
#[test]
fn a_request_takes_batches_as_long_as_they_fit_and_the_next_one_begins_behind_them() {
    let mut s = Scenario::new(|s| {
        s.leaders = vec![(1, 0); 3];
        (s.sender.idempotent, s.max_in_flight) = (false, 1);
        // Each batch has 61 bytes of header and a record of 13.
        s.sender.max_request_size = 150;
    });
    for _ in 0..2 {
        for partition in [0, 1, 2] {
            s.append(partition, "value");
        }
    }
    let mut requests = Vec::new();
    for _ in 0..3 {
        let sent = s.sent().remove(0);
        requests.push(sent.partitions());
        s.answer(&sent, OK, 0);
    }
    assert_eq!(requests, [vec![0, 1], vec![0, 2], vec![1, 2]]);
}

/// RA-02, RA-25.
#[test]
fn a_partition_that_waits_for_its_answer_is_passed_over() {
    let mut s = Scenario::new(|s| {
        s.leaders = vec![(1, 0); 2];
        s.sender.one_in_flight = true;
        s.sender.idempotent = false;
    });
    s.append(0, "a");
    let first = s.sent_one();
    s.append(0, "b");
    s.append(1, "x");
    assert_eq!(s.sent_one().batch().values, ["x"]);
    s.answer(&first, OK, 0);
    assert_eq!(s.sent_one().batch().values, ["b"]);
}

/// RA-08, RA-10.
#[test]
fn a_batch_lingers_and_the_sender_sleeps_until_the_first_one_is_due() {
    let mut s = Scenario::new(|s| {
        lingering(s);
        s.leaders = vec![(1, 0); 2];
    });
    s.append(0, "a");
    s.advance(20 * MS);
    s.append(1, "b");
    assert_eq!(s.settle(), Some(30 * MS));
    s.advance(29 * MS);
    s.append(0, "c");
    assert_eq!(s.settle(), Some(MS));
    assert_eq!(s.sent().len(), 0);
    s.advance(MS);
    assert_eq!(s.sent_one().told(), told(0, 0, "a c"));
    assert_eq!(s.sleep(), 20 * MS);
    assert_eq!(s.sent_one().batch().values, ["b"]);
}

/// RA-04.
#[test]
fn a_full_batch_does_not_linger_and_the_one_behind_it_does() {
    let mut s = Scenario::begun(lingering);
    let value = "v".repeat(300);
    for _ in 0..3 {
        s.append(0, &value);
    }
    assert_eq!(s.sent().len(), 0, "there is room left");
    s.append(0, &value);
    let sent = s.sent_one();
    assert_eq!(sent.batch().values, [value.as_str(); 3]);
    assert_eq!(s.settle(), Some(50 * MS));
    s.advance(50 * MS);
    assert_eq!(s.sent_one().told(), told(0, 4, &value));
}

/// RA-06.
#[test]
fn a_record_larger_than_a_batch_has_one_to_itself_and_goes_at_once() {
    let mut s = Scenario::begun(lingering);
    let (small, large) = ("small", "v".repeat(5000));
    s.append(0, small);
    let delivery = s.append(0, &large);
    assert_eq!(s.told(), [told(0, 1, small), told(0, 2, &large)]);
    assert!(is_open(&delivery));
}

/// SND-06.
#[test]
fn with_one_request_in_flight_the_next_batch_waits_also_for_another_leader() {
    let mut s = Scenario::new(|s| {
        s.sender.one_in_flight = true;
        s.sender.idempotent = false;
    });
    s.append(0, "a");
    let second = s.append(0, "b");
    let first = s.sent_one();
    s.leaders = vec![(2, 1)];
    s.accumulator.inbox.push(Event::MetadataWanted);
    s.sender.metadata.request_update();
    s.advance(SECOND);
    assert_eq!(s.sent().len(), 0, "two of a partition in flight");
    assert_eq!(s.sender.index.partition(crate::accumulator::inbox::PartitionId(0)).leader_epoch, 1);
    s.answer(&first, OK, 0);
    let next = s.sent_one();
    assert_eq!((next.node, next.batch().values[0].as_str()), (2, "b"));
    s.answer(&next, OK, 1);
    assert_eq!(offset(&second), Some(1));
}

/// REC-02.
#[test]
fn without_idempotence_batches_carry_no_producer_id() {
    let mut s = Scenario::new(|s| s.sender.idempotent = false);
    s.append(0, "a");
    let sent = s.sent_one();
    assert_eq!((sent.batch().producer_id, sent.told()), (-1, told(-1, -1, "a")));
    assert_eq!(s.id_requests, 0);
}

#[test]
fn unacknowledged_records_are_done_when_written_and_have_no_offset() {
    let mut s = Scenario::new(|s| {
        s.sender.idempotent = false;
        s.sender.acks = 0;
    });
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    assert_eq!(sent.acks, 0);
    s.client.0.borrow_mut().end(sent.tag, Ok(ResponseBody::None), true);
    s.settle();
    assert_eq!(offset(&delivery), None);
    assert!(s.memory_is_whole());
}

#[test]
fn topics_go_by_id_where_the_broker_wants_that() {
    let mut s = Scenario::new(|s| s.produce_version = 13);
    let delivery = s.append(0, "a");
    let sent = s.sent_one();
    let id = crate::protocol::TopicKey::Id(Uuid([9; 16]));
    assert_eq!((sent.version, &sent.batch().topic), (13, &id));
    s.answer(&sent, OK, 5);
    assert_eq!(offset(&delivery), Some(5));
}

/// NC-13: by brokers that leave it to the client.
#[test]
fn a_throttled_broker_is_left_alone() {
    let mut s = Scenario::new(|_| {});
    s.append(0, "a");
    let sent = s.sent_one();
    let topics = vec![crate::protocol::TopicProduceResponse {
        topic: sent.batch().topic.clone(),
        partitions: vec![verdict(OK, 0)],
    }];
    let response = crate::protocol::ProduceResponse {
        topics,
        throttle_time_ms: 250,
        node_endpoints: Vec::new(),
    };
    s.client.0.borrow_mut().respond(&sent, &response);
    s.settle();
    assert_eq!(s.client.0.borrow().throttled, [(crate::types::NodeId(1), 250 * MS)]);

    // Before version 6 the broker has kept the answer back for that time already.
    let mut s = Scenario::new(|s| s.produce_version = 5);
    s.append(0, "a");
    let sent = s.sent_one();
    s.client.0.borrow_mut().respond(&sent, &response);
    s.settle();
    assert_eq!(s.client.0.borrow().throttled, []);
}

/// WIRE-16: the memory that a record was written into is the memory that the network reads from,
/// and it is there again for the next attempt.
#[test]
fn records_are_sent_from_where_they_lie() {
    let mut s = Scenario::begun(|_| {});
    let segment = |s: &Scenario, tag| {
        let wire = s.client.0.borrow();
        let request = wire.under_way.iter().find(|r| r.tag == tag).unwrap();
        assert_eq!(request.frame.segments.len(), 1);
        request.frame.segments[0].as_ptr()
    };
    let value = "v".repeat(300);
    s.append(0, &value);
    let written = {
        let queue = Arc::clone(s.accumulator.topics.find("t").unwrap().queue(0));
        let queue = queue.lock();
        queue.batches.front().unwrap().builder.segments().next().unwrap().as_ptr()
    };
    let sent = s.sent_one();
    assert_eq!(segment(&s, sent.tag), written);
    s.time_out(&sent);
    let (_, again) = s.until_sent();
    assert_eq!(segment(&s, again.tag), written);
}

#[test]
fn a_waiting_thread_ends_its_batchs_linger() {
    let mut s = Scenario::new(|s| {
        lingering(s);
        s.sender.linger = 60 * SECOND;
    });
    let delivery = s.append(0, "a");
    assert_eq!(s.sent().len(), 0);
    let (rung, before) = (Arc::clone(&s.rung), s.rung.load(Ordering::Relaxed));
    let waiter = std::thread::spawn(move || delivery.wait_timeout(60 * SECOND));
    // The clock stands still: only the waiter can make the batch due.
    while rung.load(Ordering::Relaxed) == before {
        std::thread::yield_now();
    }
    let sent = s.sent_one();
    s.answer(&sent, OK, 9);
    assert_eq!(waiter.join().unwrap().unwrap().offset(), Some(9));
}

#[test]
fn a_waiting_thread_ends_the_linger_of_a_batch_behind_another() {
    let mut s = Scenario::new(|s| {
        (s.batch_size, s.sender.linger) = (1024, 60 * SECOND);
    });
    s.append(0, &"x".repeat(960));
    let delivery = s.append(0, "behind");
    let waiter = std::thread::spawn(move || delivery.wait_timeout(60 * SECOND));
    let topic = s.accumulator.topics.find_or_add("t");
    while !topic.queue(0).lock().batches[1].fully_awaited() {
        std::thread::yield_now();
    }
    let first = s.sent_one();
    assert!(s.sent().is_empty());
    // Time stands still: only the answer can make it due.
    s.answer(&first, OK, 0);
    let second = s.sent_one();
    s.answer(&second, OK, 1);
    assert_eq!(waiter.join().unwrap().unwrap().offset(), Some(1));
}
