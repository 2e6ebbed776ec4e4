//! What must hold on the wire, at every moment: requests in flight, pauses that brokers asked for,
//! sequences that are never used for other data, turns that have a cause.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::faults::Kind;
use super::leaders::{Leaders, News};
use super::ledger::{RecordId, id_of};
use super::net::Conn;
use super::plan::{CallbackKind, Plan, SECOND};
use super::world::State;
use crate::protocol::TopicRef;
use crate::record::RecordBatch;
use crate::testing::model::Request;
use crate::time::MonoTime;

/// Who has which sequence: producer id, epoch, topic, partition, sequence.
type Sequences = BTreeMap<(i64, i16, String, i32, i32), RecordId>;

pub(super) struct Watch {
    sequences: Sequences,
    /// The second that turns are counted in, and how many it has had.
    second: u64,
    turns: u64,
    /// Those of them that time alone called for, and nothing came of.
    in_vain: u64,
    /// And turns of which something came.
    acts: u64,
    pub(super) busiest_second: u64,
    /// Turns in a row that nothing had called for.
    idle_turns: u32,
    pub(super) leaders: Leaders,
}

impl Watch {
    pub(super) fn new(plan: &Plan) -> Self {
        // No run lasts as long as the longest time.
        let may_idle = plan.config.metadata_max_idle < 100 * SECOND;
        Self {
            sequences: Sequences::new(),
            second: 0,
            turns: 0,
            in_vain: 0,
            acts: 0,
            busiest_second: 0,
            idle_turns: 0,
            leaders: Leaders::new(may_idle),
        }
    }
}

/// The frames of a connection, as they pass.
#[derive(Default)]
pub(super) struct Frames {
    up: Cutter,
    down: Cutter,
    /// Pauses that the broker asks for, each in its response, by the response's number.
    pauses: VecDeque<(u64, Duration)>,
    quiet_until: MonoTime,
    /// The last write took all that it was given: nothing waits to be written.
    pub(super) settled: bool,
    /// For each request that the broker has not taken up: how many pieces of news the client had
    /// heard when it began to write it, if that is certain.
    begun_at: VecDeque<Option<u64>>,
    /// Responses that tell of leaders, by number.
    news: VecDeque<(u64, News)>,
    /// When each request that is not answered yet was wholly written.
    unanswered: VecDeque<MonoTime>,
    /// The pauses that the client has read of and some request may have met, which are no time that
    /// an answer may take; and when the last one is over.
    paused: Duration,
    paused_until: MonoTime,
}

/// Counts frames in a stream of bytes.
#[derive(Default)]
struct Cutter {
    length: Vec<u8>,
    /// What is to come of the frame under way.
    left: usize,
    begun: u64,
    ended: u64,
}

impl Cutter {
    fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let n = self.left.min(bytes.len());
                bytes = &bytes[n..];
                self.left -= n;
            } else {
                self.begun += u64::from(self.length.is_empty());
                self.length.push(*first);
                bytes = rest;
                if self.length.len() < 4 {
                    continue;
                }
                let length = self.length.drain(..).fold(0, |n: u32, b| n << 8 | u32::from(b));
                self.left = length as usize;
            }
            self.ended += u64::from(self.left == 0);
        }
    }
}

impl Frames {
    /// The broker sends a response that asks for a pause, behind those sent before.
    pub(super) fn on_pause(&mut self, number: u64, pause: Duration) {
        self.pauses.push_back((number, pause));
    }

    /// The broker sends a response that tells of leaders.
    pub(super) fn on_news(&mut self, number: u64, news: News) {
        self.news.push_back((number, news));
    }

    /// News that the client has read now.
    pub(super) fn take_news(&mut self) -> Option<News> {
        let is_read = self.news.front().is_some_and(|(number, _)| *number <= self.down.ended);
        is_read.then(|| self.news.pop_front()).flatten().map(|(_, news)| news)
    }

    /// The broker takes a request up. Gives what the client knew then, as [`Leaders::heard`].
    pub(super) fn take_request(&mut self) -> Option<u64> {
        self.begun_at.pop_front().flatten()
    }

    /// The client has read these bytes.
    pub(super) fn on_read(&mut self, bytes: &[u8], now: MonoTime) {
        let ended = self.down.ended;
        self.down.feed(bytes);
        let answered = (self.down.ended - ended) as usize;
        self.unanswered.drain(..answered.min(self.unanswered.len()));
        while let Some((number, pause)) = self.pauses.front().copied() {
            if number > self.down.ended {
                break;
            }
            self.pauses.pop_front();
            self.paused += pause;
            self.paused_until = self.paused_until.max(now + pause);
            // Requests that were on their way before may still be written.
            if self.settled {
                self.quiet_until = self.quiet_until.max(now + pause);
            }
        }
    }

    /// The client has written these bytes; `whole` if that is all that it had.
    pub(super) fn on_write(
        &mut self,
        bytes: &[u8],
        whole: bool,
        heard: u64,
        now: MonoTime,
        most_in_flight: Option<usize>,
    ) -> Result<(), String> {
        let (begun, ended) = (self.up.begun, self.up.ended);
        self.up.feed(bytes);
        if self.unanswered.is_empty() && self.paused_until < now {
            self.paused = Duration::ZERO;
        }
        self.unanswered.extend((ended..self.up.ended).map(|_| now));
        // What waited to be written may be older than what was heard since.
        let is_fresh = std::mem::replace(&mut self.settled, whole);
        let begun_now = (begun..self.up.begun).map(|_| is_fresh.then_some(heard));
        self.begun_at.extend(begun_now);
        if self.up.begun > begun && now < self.quiet_until {
            return Err(format!("a request before the pause is over at {:?}", self.quiet_until));
        }
        let in_flight = self.up.begun.saturating_sub(self.down.ended);
        match most_in_flight {
            Some(most) if in_flight > most as u64 => {
                Err(format!("{in_flight} requests are in flight, and {most} are allowed"))
            }
            _ => Ok(()),
        }
    }
}

impl Frames {
    /// The client waits for an answer since this moment, and should have given it up: one takes no
    /// longer than `request`, or `setup` where the connection is not ready for use yet.
    fn overdue(&self, request: Duration, setup: Duration, now: MonoTime) -> Option<MonoTime> {
        // The versions are asked for once or twice.
        let limit = if self.down.ended < 2 { request.max(setup) } else { request };
        let since = *self.unanswered.front()?;
        (now.since(since) > limit + self.paused).then_some(since)
    }
}

impl State {
    /// The sender goes to sleep: nothing is overdue then. Where nobody answers requests to produce
    /// what is owed can't be told.
    pub(super) fn watch_overdue(&mut self) {
        let (plan, now) = (&self.plan, self.now);
        let c = &plan.config;
        if c.acks == 0 || c.callbacks == CallbackKind::Inline {
            return;
        }
        // Set-ups have a fifth of jitter.
        let (request, setup) = (c.request_timeout, c.setup_timeout.1.mul_f64(1.25));
        let overdue = |(id, conn): (usize, &Conn)| {
            let since = conn.frames.overdue(request, setup, now)?;
            let slack = self.effects.slack(since, now);
            conn.frames.overdue(request + slack, setup + slack, now)?;
            Some((id, now.since(since)))
        };
        let first = self.net.held().filter_map(overdue).next();
        if let Some((id, waited)) = first {
            self.fail(|| format!("c{id} stands, and an answer is waited for since {waited:?}"));
        }
    }

    /// A request is about to be carried out: a sequence is used for one record for ever, and
    /// batches go to whom the client should know to lead.
    pub(super) fn watch_request(&mut self, request: &Request<'_>, broker: i32, heard: Option<u64>) {
        let Request::Produce(produce) = request else { return };
        for topic in &produce.topics {
            let name = match topic.topic {
                TopicRef::Name(name) => name.to_owned(),
                TopicRef::Id(id) => {
                    let name = self.cluster.model.name_of(id);
                    name.map_or_else(|| format!("{id:?}"), |name| name.to_string())
                }
            };
            for data in &topic.partitions {
                let place = (name.clone(), data.index);
                let judged =
                    heard.map_or(Ok(()), |at| self.watch.leaders.judge(&place, broker, at));
                judged.unwrap_or_else(|text| self.fail(|| text));
                let Ok((batch, _)) = RecordBatch::split_first(data.records.unwrap_or_default())
                else {
                    continue;
                };
                let header = *batch.header();
                let now = self.now;
                self.trace.note(now, "produce", [header.base_sequence as u64, 0], || {
                    let ids = batch.records().into_iter().flatten().flatten();
                    let ids: Vec<_> = ids.filter_map(|r| r.value.and_then(id_of)).collect();
                    let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
                    let text = format!("of epoch {epoch}, sequence {sequence}: {ids:?}");
                    (format!("{name}-{}", data.index), text)
                });
                if header.producer_id < 0 {
                    continue;
                }
                for (index, record) in (0..).zip(batch.records().into_iter().flatten().flatten()) {
                    let Some(id) = record.value.and_then(id_of) else { continue };
                    let sequence = header.base_sequence.wrapping_add(index) & i32::MAX;
                    let (producer, epoch) = (header.producer_id, header.producer_epoch);
                    let key = (producer, epoch, name.clone(), data.index, sequence);
                    let first = *self.watch.sequences.entry(key).or_insert(id);
                    if first != id {
                        self.fail(|| {
                            format!("sequence {sequence} of {first:?} is used again for {id:?}")
                        });
                    }
                }
            }
        }
    }

    /// The sender goes to sleep again: it had woken up for the time alone, or something came of it.
    /// Now and then nothing does, as when a batch went out before its linger was over, or is to be
    /// tried again where another one is under way.
    pub(super) fn watch_wakeup(&mut self, by_time: bool, acted: bool) {
        self.watch.in_vain += u64::from(by_time && !acted);
        self.watch.acts += u64::from(acted);
        // Names that are not found are looked up after each backoff, which is not seen here.
        let looks_up = self.plan.strikes(Kind::NoNames);
        let (in_vain, acts) = (self.watch.in_vain, self.watch.acts);
        if in_vain > 200 + 4 * acts && !looks_up {
            self.fail(|| format!("the sender wakes up for nothing: {in_vain} times to {acts}"));
        }
    }

    /// The sender takes a turn; `called` if something had happened or was due.
    pub(super) fn watch_turn(&mut self, called: bool) {
        const MOST_IDLE: u32 = 50;
        // Where sockets take next to nothing at once each piece is a turn.
        let most_a_second = if self.net.weather.room < 1_000 { 100_000 } else { 20_000 };
        let second = self.now.as_nanos() / 1_000_000_000;
        if second != self.watch.second {
            (self.watch.second, self.watch.turns) = (second, 0);
            (self.watch.in_vain, self.watch.acts) = (0, 0);
        }
        self.watch.turns += 1;
        self.watch.busiest_second = self.watch.busiest_second.max(self.watch.turns);
        self.watch.idle_turns = if called { 0 } else { self.watch.idle_turns + 1 };
        if self.watch.idle_turns > MOST_IDLE || self.watch.turns > most_a_second {
            let (idle, all) = (self.watch.idle_turns, self.watch.turns);
            self.fail(|| format!("the sender spins: {idle} turns without a cause, {all} a second"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 8] = [0, 0, 0, 4, 1, 2, 3, 4];
    const PAUSE: Duration = Duration::from_millis(100);

    /// A connection on which a request and its response have passed; the response asks for a pause.
    fn paused(settled: bool) -> Frames {
        let mut frames = Frames::default();
        assert_eq!(frames.on_write(&FRAME, true, 0, MonoTime::ZERO, Some(5)), Ok(()));
        frames.settled = settled;
        frames.on_pause(1, PAUSE);
        frames.on_read(&FRAME, MonoTime::ZERO);
        frames
    }

    #[test]
    fn a_request_that_was_on_its_way_before_a_pause_may_go_on() {
        let (mut settled, mut held_up) = (paused(true), paused(false));
        assert!(settled.on_write(&FRAME, true, 0, MonoTime::ZERO, Some(5)).is_err());
        assert_eq!(held_up.on_write(&FRAME, true, 0, MonoTime::ZERO, Some(5)), Ok(()));
        let after = MonoTime::ZERO + PAUSE;
        assert_eq!(settled.on_write(&FRAME, true, 0, after, Some(5)), Ok(()));
    }

    #[test]
    fn requests_in_flight_are_counted_across_cuts() {
        let mut frames = Frames::default();
        for part in FRAME.chunks(3) {
            assert_eq!(frames.on_write(part, true, 0, MonoTime::ZERO, Some(1)), Ok(()));
        }
        assert!(frames.on_write(&FRAME[..1], true, 0, MonoTime::ZERO, Some(1)).is_err());
        frames.on_read(&FRAME[..7], MonoTime::ZERO);
        assert!(frames.on_write(&FRAME[1..], true, 0, MonoTime::ZERO, Some(1)).is_err());
        frames.on_read(&FRAME[7..], MonoTime::ZERO);
        assert_eq!(frames.on_write(&[], true, 0, MonoTime::ZERO, Some(1)), Ok(()));
    }
}
