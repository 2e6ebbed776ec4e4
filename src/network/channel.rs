//! One connection: its state, the frames queued on it, and whether its socket may have more to
//! give or take.
//!
//! The [`super::selector`] owns channels and calls them on the sender thread. Readiness arrives as
//! edges; a channel keeps it as levels, until a read or write said `WouldBlock`.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

use super::frame::{FrameReader, MAX_FRAME_SIZE, OutFrame, WriteCursor};
use super::selector::{DisconnectCause, ReturnedFrame};
use super::transport::Transport;
use super::{ConnectionId, Net};
use crate::claims;
use crate::metrics::Traffic;
#[cfg(all(test, not(loom)))]
use crate::planted::{Defect, is_planted};
use crate::time::MonoTime;

/// Slices handed to one write: with 16 KiB batches about a megabyte.
const MAX_SLICES: usize = 128;

/// Reads of one channel in a turn, so that one busy broker can't hold up the others.
const MAX_READS: usize = 16;

/// How far a connection has come. Each state leads to the next; only the last two alternate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelState {
    /// The socket is connecting.
    Connecting,
    /// The transport's handshake is under way (TLS); at once over for plaintext.
    Securing,
    /// The client proves who it is (SASL); at once over without.
    Authenticating,
    /// Bytes flow; the client asks which API versions the broker speaks.
    Negotiating,
    /// Any request may be sent.
    Ready,
    /// The client proves anew who it is (KIP-368); queued frames wait.
    #[cfg_attr(not(test), allow(dead_code, reason = "SASL will need it"))]
    Reauthenticating,
}

impl ChannelState {
    fn may_become(self, next: Self) -> bool {
        use ChannelState::{
            Authenticating, Connecting, Negotiating, Ready, Reauthenticating, Securing,
        };
        matches!(
            (self, next),
            (Connecting, Securing)
                | (Securing, Authenticating)
                | (Authenticating, Negotiating)
                | (Negotiating, Ready)
                | (Ready, Reauthenticating)
                | (Reauthenticating, Ready)
        )
    }
}

#[derive(Debug)]
struct Outgoing {
    tag: u64,
    frame: OutFrame,
    cursor: WriteCursor,
}

#[cfg(all(test, not(loom)))]
thread_local! {
    /// The last connection's reader, where a defect has the next one go on with it.
    static LEFT_OVER: std::cell::Cell<Option<FrameReader>> = const { std::cell::Cell::new(None) };
}

fn new_reader() -> FrameReader {
    #[cfg(all(test, not(loom)))]
    if let Some(reader) = is_planted(Defect::BytesLeftOver).then(|| LEFT_OVER.take()).flatten() {
        return reader;
    }
    FrameReader::new(MAX_FRAME_SIZE)
}

/// One connection of the selector.
#[derive(Debug)]
pub(super) struct KafkaChannel {
    id: ConnectionId,
    state: ChannelState,
    transport: Transport,
    /// Frames not wholly written, oldest first; only the first may be partly written.
    outgoing: VecDeque<Outgoing>,
    reader: FrameReader,
    /// A read might not say `WouldBlock`.
    readable: bool,
    /// A write might not say `WouldBlock`.
    writable: bool,
    /// Reads wait until it is lifted.
    muted: bool,
    /// When it was opened or last had something to do; for the idle limit.
    pub(super) last_active: MonoTime,
    /// What it has carried since it was last asked.
    traffic: Traffic,
}

impl KafkaChannel {
    pub(super) fn new(id: ConnectionId, transport: Transport, now: MonoTime) -> Self {
        Self {
            id,
            state: ChannelState::Connecting,
            transport,
            outgoing: VecDeque::new(),
            reader: new_reader(),
            readable: false,
            writable: false,
            muted: false,
            last_active: now,
            traffic: Traffic::default(),
        }
    }

    pub(super) fn state(&self) -> ChannelState {
        self.state
    }

    /// The one writer of the state.
    pub(super) fn transition_to(&mut self, next: ChannelState) {
        debug_assert!(self.state.may_become(next), "{:?} -> {next:?}", self.state);
        self.state = next;
    }

    /// Notes an edge.
    pub(super) fn on_edge(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    #[cfg(test)]
    pub(super) fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
    }

    pub(super) fn enqueue(&mut self, tag: u64, frame: OutFrame) {
        let cursor = WriteCursor::at_start(&frame);
        self.outgoing.push_back(Outgoing { tag, frame, cursor });
    }

    /// Whether a turn could achieve something without a further edge.
    pub(super) fn wants_turn(&self) -> bool {
        match self.state {
            ChannelState::Connecting | ChannelState::Securing | ChannelState::Authenticating => {
                self.readable || self.writable
            }
            _ => (self.readable && !self.muted) || self.can_write(),
        }
    }

    fn can_write(&self) -> bool {
        let open = matches!(self.state, ChannelState::Negotiating | ChannelState::Ready);
        open && self.writable && !self.outgoing.is_empty()
    }

    /// Goes on with the steps before the first request; true when the last of them is done.
    pub(super) fn establish<N: Net>(&mut self, net: &mut N) -> Result<bool, DisconnectCause> {
        if self.state == ChannelState::Connecting {
            if !net.finish_connect(self.id).map_err(DisconnectCause::ConnectFailed)? {
                (self.readable, self.writable) = (false, false);
                return Ok(false);
            }
            self.transition_to(ChannelState::Securing);
        }
        if self.state == ChannelState::Securing {
            if !self.transport.handshake(net, self.id).map_err(DisconnectCause::Failed)? {
                (self.readable, self.writable) = (false, false);
                return Ok(false);
            }
            self.transition_to(ChannelState::Authenticating);
        }
        self.transition_to(ChannelState::Negotiating);
        Ok(true)
    }

    /// Writes queued frames until there is none or the socket is full; hands the completed ones
    /// to `complete`.
    pub(super) fn write<N: Net>(
        &mut self,
        net: &mut N,
        mut complete: impl FnMut(u64, OutFrame),
    ) -> io::Result<()> {
        while self.can_write() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut used = 0;
            for out in &self.outgoing {
                used += out.cursor.fill(&out.frame, &mut slices[used..]);
                if used == MAX_SLICES {
                    break;
                }
            }
            match self.transport.write_vectored(net, self.id, &slices[..used]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.on_written(written, &mut complete),
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn on_written(&mut self, mut bytes: usize, complete: &mut impl FnMut(u64, OutFrame)) {
        self.traffic.sent += bytes as u64;
        self.traffic.operations += 1;
        while bytes > 0 {
            let Some(mut out) = self.outgoing.pop_front() else {
                debug_assert!(false, "{bytes} bytes written beyond the last frame");
                return;
            };
            bytes = out.cursor.advance(&out.frame, bytes);
            if out.cursor.is_done(&out.frame) {
                self.traffic.on_request(out.cursor.written() as u64);
                complete(out.tag, out.frame);
            } else {
                self.outgoing.push_front(out);
            }
        }
    }

    /// Reads until there is nothing more, or for one turn; hands each whole frame to `complete`.
    pub(super) fn read<N: Net>(
        &mut self,
        net: &mut N,
        scratch: &mut [u8],
        mut complete: impl FnMut(Vec<u8>),
    ) -> Result<(), DisconnectCause> {
        for _ in 0..MAX_READS {
            if !self.readable || self.muted {
                break;
            }
            match self.transport.read(net, self.id, scratch) {
                Ok(0) => {
                    return Err(DisconnectCause::Closed { mid_frame: self.reader.is_mid_frame() });
                }
                Ok(n) => {
                    self.traffic.received += n as u64;
                    self.traffic.operations += 1;
                    let responses = &mut self.traffic.responses;
                    let complete = |body| {
                        *responses += 1;
                        complete(body);
                    };
                    let fed = self.reader.feed(&scratch[..n], complete);
                    fed.map_err(DisconnectCause::BadFrame)?;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(e) => return Err(DisconnectCause::Failed(e)),
            }
        }
        Ok(())
    }

    /// No byte of a frame is written before all of the one ahead of it, what is written in full is
    /// not kept, and nothing is carried before the connection stands.
    pub(super) fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        let is_new = matches!(
            self.state,
            ChannelState::Connecting | ChannelState::Securing | ChannelState::Authenticating
        );
        let is_silent = self.outgoing.is_empty() && self.traffic == Traffic::default();
        assert!(is_silent || !is_new, "used before it stands: {self:?}");
        let begun = self.outgoing.iter().skip(1).any(|out| out.cursor.has_started());
        assert!(!begun, "frames are mixed: {self:?}");
        let done = self.outgoing.front().is_some_and(|out| out.cursor.is_done(&out.frame));
        assert!(!done, "a frame that was written is kept: {self:?}");
    }

    /// What it has carried since this was last asked.
    pub(super) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// The frames that were not wholly written, oldest first.
    pub(super) fn into_unsent(self) -> Vec<ReturnedFrame> {
        #[cfg(all(test, not(loom)))]
        if is_planted(Defect::BytesLeftOver) && self.reader.is_mid_frame() {
            LEFT_OVER.set(Some(self.reader));
        }
        let unsent = |out: Outgoing| ReturnedFrame {
            tag: out.tag,
            started: out.cursor.has_started(),
            frame: out.frame,
        };
        self.outgoing.into_iter().map(unsent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::ChannelState::*;

    #[test]
    fn states_follow_each_other_without_shortcuts() {
        let all = [Connecting, Securing, Authenticating, Negotiating, Ready, Reauthenticating];
        for (i, from) in all.into_iter().enumerate() {
            for (j, to) in all.into_iter().enumerate() {
                let legal = j == i + 1 || (from, to) == (Reauthenticating, Ready);
                assert_eq!(from.may_become(to), legal, "{from:?} -> {to:?}");
            }
        }
    }
}
