//! The requests on one connection that have not ended, in the order in which they were sent.
//!
//! A broker answers in that order, so the oldest one is due for the next response. The client
//! keeps one queue a node, on the sender thread.

use std::collections::VecDeque;
use std::time::Duration;

use super::{ClientEvent, ClientResponse, RequestFailure, ResponseBody};
use crate::claims;
use crate::network::OutFrame;
use crate::planted::{Defect, is_planted};
use crate::protocol::ApiKey;
use crate::time::MonoTime;
use crate::types::NodeId;

/// A request sent and not ended.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) correlation_id: i32,
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) tag: u64,
    pub(super) expects_response: bool,
    pub(super) created_at: MonoTime,
    /// When it has taken too long.
    pub(super) deadline: MonoTime,
    /// Given back by the connection when all of it was written, or none will be any more.
    pub(super) frame: Option<OutFrame>,
    /// Whether any byte is known to have been put on the socket.
    pub(super) sent: bool,
}

impl InFlight {
    /// The event that tells its end.
    pub(super) fn into_event(
        self,
        node: NodeId,
        outcome: Result<ResponseBody, RequestFailure>,
    ) -> ClientEvent {
        debug_assert!(self.frame.is_some(), "the connection still holds the frame of {self:?}");
        ClientEvent::Response(ClientResponse {
            node,
            tag: self.tag,
            api: self.api,
            version: self.version,
            frame: self.frame.unwrap_or_default(),
            outcome,
            sent: self.sent,
            created_at: self.created_at,
        })
    }
}

/// One node's requests, oldest first.
#[derive(Debug, Default)]
pub(super) struct InFlightRequests(VecDeque<InFlight>);

impl InFlightRequests {
    pub(super) fn push(&mut self, request: InFlight) {
        self.0.push_back(request);
        self.invariants();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that the next response is for.
    pub(super) fn oldest(&self) -> Option<&InFlight> {
        self.0.front()
    }

    pub(super) fn pop_oldest(&mut self) -> Option<InFlight> {
        if is_planted(Defect::ResponseOfAnother)
            && self.0.back().is_some_and(|r| r.frame.is_some() && r.api == ApiKey::Produce)
        {
            return self.0.pop_back();
        }
        let oldest = self.0.pop_front();
        self.invariants();
        oldest
    }

    /// The connection gives a frame back; `sent` tells whether any of it was written.
    /// The request itself comes back too if that was all there was to it (acks=0).
    pub(super) fn on_frame_back(
        &mut self,
        correlation_id: i32,
        frame: OutFrame,
        sent: bool,
        complete: bool,
    ) -> Option<InFlight> {
        let i = self.0.iter().position(|r| r.correlation_id == correlation_id)?;
        self.0[i].frame = Some(frame);
        self.0[i].sent = sent;
        self.invariants();
        if complete && !self.0[i].expects_response { self.0.remove(i) } else { None }
    }

    /// When the first of them has taken too long.
    pub(super) fn next_deadline(&self) -> Option<MonoTime> {
        self.0.iter().map(|r| r.deadline).min().filter(|_| !is_planted(Defect::TimeoutIgnored))
    }

    /// The first that has taken too long at `now`.
    pub(super) fn timed_out(&self, now: MonoTime) -> Option<&InFlight> {
        self.0.iter().find(|r| r.deadline <= now)
    }

    /// The broker asked for silence: that time doesn't count against its answers.
    pub(super) fn postpone(&mut self, by: Duration) {
        for request in &mut self.0 {
            request.deadline = request.deadline + by;
        }
        self.invariants();
    }

    /// They stand in the order in which they were sent, their frames come back in that order, and
    /// no two answers could be confused.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        let moments = self.0.iter().map(|request| request.created_at);
        assert!(moments.is_sorted(), "{self:?}");
        let is_here = |request: &InFlight| request.frame.is_some();
        assert!(self.0.iter().map(is_here).is_sorted_by(|a, b| a >= b), "{self:?}");
        assert!(self.0.iter().all(|request| is_here(request) || !request.sent), "{self:?}");
        // Ids ascend, and begin anew at 0 at some place: round in a circle they do so once at most.
        let id = |place: usize| self.0[place].correlation_id;
        let starts_anew = |place: &usize| id((*place + 1) % self.0.len()) <= id(*place);
        let starts = (0..self.0.len()).filter(starts_anew).count();
        assert!(starts <= 1, "a correlation id twice, or out of order: {self:?}");
    }

    /// All of them, oldest first.
    pub(super) fn take(&mut self) -> VecDeque<InFlight> {
        std::mem::take(&mut self.0)
    }
}
