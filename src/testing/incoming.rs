//! The bytes that a client sends on a connection, cut into requests. Called by the connection's
//! thread, and by whoever feeds a broker without a socket.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

/// Kafka's `socket.request.max.bytes`.
const MAX_REQUEST: usize = 100 * 1024 * 1024;

/// How many bytes are read at once, unless a frame is known to be larger.
const READ_AHEAD: usize = 64 * 1024;

/// What was read of a connection.
pub(super) struct Incoming {
    /// Bytes read and not yet used are at `start..end`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; READ_AHEAD], start: 0, end: 0 }
    }

    /// Reads until a whole frame is there; where it is, without its length, or `None` at the
    /// stream's end.
    ///
    /// # Errors
    /// The stream's, and a length that no request has.
    pub(super) fn next(&mut self, stream: &mut impl Read) -> io::Result<Option<Range<usize>>> {
        let mut needed = 4;
        loop {
            if self.end - self.start >= needed {
                if needed > 4 {
                    return Ok(Some(self.take(needed)));
                }
                needed = 4 + self.frame_length()?;
                continue;
            }
            self.make_room(needed);
            // Not far beyond a large frame, or the start of the next one would have to be moved.
            let until = self.buffer.len().min(self.start + needed.max(READ_AHEAD));
            match stream.read(&mut self.buffer[self.end..until]) {
                Ok(0) => return Ok(None),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The bytes of a frame; until the next call of [`next`](Self::next).
    pub(super) fn frame(&self, frame: Range<usize>) -> &[u8] {
        &self.buffer[frame]
    }

    /// Reads on to the stream's end, for nothing.
    ///
    /// # Errors
    /// The stream's.
    pub(super) fn ignore_rest(&mut self, stream: &mut impl Read) -> io::Result<()> {
        while stream.read(&mut self.buffer)? > 0 {}
        Ok(())
    }

    fn take(&mut self, size: usize) -> Range<usize> {
        let frame = self.start + 4..self.start + size;
        self.start = frame.end;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        frame
    }

    /// Room to read into, on the way to a frame of so many bytes: as much again as has come, since
    /// its length may be a lie.
    fn make_room(&mut self, needed: usize) {
        if self.start > 0 && self.buffer.len() - self.start < needed {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.end, 0);
        }
    }

    /// The length at the start of the unused bytes: at least 1, so that a frame is more than it.
    fn frame_length(&self) -> io::Result<usize> {
        let mut length = [0; 4];
        length.copy_from_slice(&self.buffer[self.start..self.start + 4]);
        match usize::try_from(i32::from_be_bytes(length)) {
            Ok(length @ 1..=MAX_REQUEST) => Ok(length),
            _ => Err(ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads at most so many bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let most = buf.len().min(self.1);
            self.0.read(&mut buf[..most])
        }
    }

    fn frames(bytes: &[u8], piece: usize) -> io::Result<Vec<Vec<u8>>> {
        let (mut incoming, mut stream, mut frames) =
            (Incoming::new(), Pieces(bytes, piece), Vec::new());
        while let Some(frame) = incoming.next(&mut stream)? {
            frames.push(incoming.frame(frame).to_vec());
        }
        Ok(frames)
    }

    #[test]
    fn frames_are_whole_however_they_arrive() {
        let sizes = [1, 70_000, 5, 300_000, 65_532, 65_536, 3];
        let expected: Vec<_> = (0..).zip(sizes).map(|(fill, size)| vec![fill; size]).collect();
        let mut bytes = Vec::new();
        for frame in &expected {
            bytes.extend((frame.len() as u32).to_be_bytes());
            bytes.extend(frame);
        }
        bytes.extend([0, 0, 0, 9, 1]); // one that is cut short
        for piece in [7, 4_096, usize::MAX] {
            assert_eq!(frames(&bytes, piece).unwrap(), expected);
        }
    }

    #[test]
    fn a_length_that_no_request_has_is_an_error() {
        for length in [0, -1, MAX_REQUEST as i32 + 1] {
            let error = frames(&length.to_be_bytes(), 4).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{length}");
        }
    }

    #[test]
    fn a_length_that_is_a_lie_takes_no_memory() {
        let mut bytes = (MAX_REQUEST as u32).to_be_bytes().to_vec();
        bytes.extend([0; 100]);
        let mut incoming = Incoming::new();
        assert!(incoming.next(&mut &*bytes).unwrap().is_none());
        assert_eq!(incoming.buffer.len(), READ_AHEAD);
    }
}
