//! For fuzzing: a broker of the test cluster, and a client that says whatever it was given to say.

use std::collections::BTreeMap;
use std::io::{self, Read};

use crate::testing::faults::Plan;

use super::incoming::Incoming;
use super::model::{Broker, Model, Release, Reply, Settings, TopicConfig, parse};

const BROKER: i32 = 1;
const TOPIC: &str = "orders";

/// What a broker has made of a client's bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    /// Requests that it understood.
    pub requests: usize,
    /// Those that it answered.
    pub answered: usize,
    /// Records that it appended to topic `orders`.
    pub appended: i64,
}

/// Says `bytes` to a broker, which carries out what it understands of them. The first byte tells
/// the size of the pieces that arrive (its low seven bits), and whether the broker is of an old
/// release. Where a broker would close the connection, another one begins.
#[allow(clippy::missing_panics_doc)] // that is what fuzzing looks for
pub fn feed_broker(bytes: &[u8]) -> Heard {
    let (first, rest) = bytes.split_first().map_or((1, bytes), |(n, rest)| (*n, rest));
    let release = if first & 0x80 == 0 { Release::V4_3 } else { Release::V0_11 };
    let broker = Broker::new(release, "broker", 9092);
    // A topic is more memory than its name is worth.
    let settings = Settings { auto_create: false, ..Settings::default() };
    let mut model = Model::new(settings, BTreeMap::from([(BROKER, broker)]));
    model.create_topic(TOPIC, TopicConfig::new(2));
    let mut client = Client { says: rest, piece: usize::from(first & 0x7f).max(1) };
    let (mut heard, mut now_ms) = (Heard::default(), 1_700_000_000_000);
    let mut incoming = Incoming::new();
    // An error is the connection's end, like any other end; the next one says what is left.
    while let Ok(Some(frame)) = incoming.next(&mut client) {
        let frame = incoming.frame(frame);
        now_ms += 1;
        let Some(parsed) = parse(&model, BROKER, frame) else { continue };
        heard.requests += 1;
        let mut plan = Plan::default();
        model.throttle(BROKER, &parsed, frame.len(), now_ms, &mut plan);
        drop(parsed.target(&model, BROKER));
        if let Reply::Frame(response) = model.answer(BROKER, &parsed, now_ms, &plan) {
            heard.answered += 1;
            let length = (response.len() as u32 - 4).to_be_bytes();
            assert_eq!(response[..4], length, "a frame tells its length");
            assert_eq!(response[4..8], frame[4..8], "an answer has its request's id");
        }
    }
    let partitions = [0, 1].into_iter().filter_map(|index| model.partition(TOPIC, index));
    heard.appended = partitions.map(|p| p.log.end_offset - p.log.start_offset).sum();
    heard
}

/// What it says, and how much of that at a time.
struct Client<'a> {
    says: &'a [u8],
    piece: usize,
}

impl Read for Client<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = buf.len().min(self.piece);
        self.says.read(&mut buf[..most])
    }
}
