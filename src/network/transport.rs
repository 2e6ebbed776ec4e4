//! What a connection's bytes pass through between the frames and the socket: nothing, or TLS.
//!
//! The sender thread calls it, through the channel. A transport may keep bytes of its own, so
//! "written" means taken over, and readiness is judged by its `WouldBlock`, not by the socket's.

use std::io::{self, IoSlice};

use super::{ConnectionId, Net};

/// The security layer of one connection.
#[derive(Debug)]
pub(crate) enum Transport {
    /// The socket's bytes as they are.
    Plaintext,
}

impl Transport {
    /// Goes on with the handshake; true once it is complete.
    pub(super) fn handshake<N: Net>(
        &mut self,
        _net: &mut N,
        _id: ConnectionId,
    ) -> io::Result<bool> {
        match self {
            Self::Plaintext => Ok(true),
        }
    }

    pub(super) fn read<N: Net>(
        &mut self,
        net: &mut N,
        id: ConnectionId,
        buf: &mut [u8],
    ) -> io::Result<usize> {
        match self {
            Self::Plaintext => net.read(id, buf),
        }
    }

    pub(super) fn write_vectored<N: Net>(
        &mut self,
        net: &mut N,
        id: ConnectionId,
        bufs: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        match self {
            Self::Plaintext => net.write_vectored(id, bufs),
        }
    }
}
