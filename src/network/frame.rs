//! Frames: the 4-byte length that Kafka puts before each request and response, and what follows.
//!
//! A frame on its way out borrows nothing and copies nothing: it owns the record batches it
//! carries until its response has come or its connection has ended. Called by the sender thread.

use std::fmt;
use std::io::IoSlice;

use crate::claims;

/// The longest response that is accepted. Real ones are far smaller (the metadata of 100,000
/// partitions takes some 10 MB); a longer length means that the peer doesn't speak Kafka.
pub(crate) const MAX_FRAME_SIZE: usize = 100 * 1024 * 1024;

/// What a response's body is allotted before any of it has arrived.
const FIRST_ALLOCATION: usize = 64 * 1024;

/// The next part of an [`OutFrame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// The bytes of `head` from where the last `Head` piece ended to this offset.
    Head(usize),
    /// The whole segment with this index.
    Segment(usize),
}

/// A request as it goes to a socket, its 4-byte length included: slices of `head` and whole
/// `segments` in the order of `pieces`.
#[derive(Debug, Default)]
pub(crate) struct OutFrame {
    /// All bytes that are not record batches.
    pub(crate) head: Vec<u8>,
    /// The order of the parts; each byte of `head` and each segment occurs once.
    pub(crate) pieces: Vec<Piece>,
    /// Record batches, or parts of them: moved in, given back with the frame.
    pub(crate) segments: Vec<Vec<u8>>,
}

impl OutFrame {
    /// A frame without record batches.
    pub(crate) fn from_head(head: Vec<u8>) -> Self {
        let pieces = vec![Piece::Head(head.len())];
        Self { head, pieces, segments: Vec::new() }
    }

    /// The bytes that the whole frame puts on a socket.
    #[cfg(test)]
    pub(crate) fn total_len(&self) -> usize {
        self.head.len() + self.segments.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether the pieces take each byte of the head and each segment once and in order.
    fn is_consistent(&self) -> bool {
        let (mut head, mut segment) = (0, 0);
        for piece in &self.pieces {
            match *piece {
                Piece::Head(end) if end >= head && end <= self.head.len() => head = end,
                Piece::Segment(index) if index == segment => segment += 1,
                _ => return false,
            }
        }
        head == self.head.len() && segment == self.segments.len()
    }
}

/// How far an [`OutFrame`] has been written; survives short writes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WriteCursor {
    /// The piece that is being written.
    piece: usize,
    /// Bytes of that piece already written.
    offset: usize,
    /// Where that piece begins in the head, if it is of the head: the last `Head` piece's end.
    head_start: usize,
    /// Bytes of the frame already written.
    written: usize,
}

impl WriteCursor {
    /// The beginning of `frame`.
    pub(crate) fn at_start(frame: &OutFrame) -> Self {
        debug_assert!(frame.is_consistent(), "the pieces don't cover the frame: {frame:?}");
        let mut cursor = Self::default();
        cursor.advance(frame, 0);
        cursor
    }

    /// How many bytes were written.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Whether any byte was written.
    pub(crate) fn has_started(&self) -> bool {
        self.written > 0
    }

    /// Whether all bytes were written.
    pub(crate) fn is_done(&self, frame: &OutFrame) -> bool {
        self.piece == frame.pieces.len()
    }

    /// Puts what is left into `slices`, as far as they reach; returns how many it used.
    pub(crate) fn fill<'a>(&self, frame: &'a OutFrame, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut used, mut offset, mut head_start) = (0, self.offset, self.head_start);
        for piece in &frame.pieces[self.piece..] {
            if used == slices.len() {
                break;
            }
            let whole = bytes_of(frame, *piece, head_start);
            if whole.len() > offset {
                slices[used] = IoSlice::new(&whole[offset..]);
                used += 1;
            }
            offset = 0;
            if let Piece::Head(end) = *piece {
                head_start = end;
            }
        }
        used
    }

    /// Notes that up to `bytes` were written, and returns how many of them were beyond this frame.
    pub(crate) fn advance(&mut self, frame: &OutFrame, mut bytes: usize) -> usize {
        while let Some(piece) = frame.pieces.get(self.piece) {
            let left = bytes_of(frame, *piece, self.head_start).len() - self.offset;
            if bytes < left {
                self.offset += bytes;
                self.written += bytes;
                self.invariants(frame);
                return 0;
            }
            bytes -= left;
            self.written += left;
            self.offset = 0;
            self.piece += 1;
            if let Piece::Head(end) = *piece {
                self.head_start = end;
            }
        }
        self.invariants(frame);
        bytes
    }

    /// What was written is all of the pieces before this one, and of this one a part. Looked at
    /// where there are few.
    fn invariants(&self, frame: &OutFrame) {
        if !claims::are_checked() || frame.pieces.len() > 64 {
            return;
        }
        let (mut before, mut head_start) = (0, 0);
        for piece in &frame.pieces[..self.piece] {
            before += bytes_of(frame, *piece, head_start).len();
            if let Piece::Head(end) = *piece {
                head_start = end;
            }
        }
        assert_eq!((before + self.offset, head_start), (self.written, self.head_start), "{self:?}");
        let left = frame.pieces.get(self.piece).map(|p| bytes_of(frame, *p, head_start).len());
        assert!(left.map_or(self.offset == 0, |left| self.offset < left), "{self:?}");
    }
}

fn bytes_of(frame: &OutFrame, piece: Piece, head_start: usize) -> &[u8] {
    match piece {
        Piece::Head(end) => &frame.head[head_start..end],
        Piece::Segment(index) => &frame.segments[index],
    }
}

/// The peer announced a frame that can't be one; the connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The length is negative.
    NegativeLength(i32),
    /// The length is above the bound.
    TooLong { length: usize, max: usize },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match self {
            Self::NegativeLength(length) => {
                write!(f, "a frame of negative length {length}")?;
                length.to_be_bytes()
            }
            Self::TooLong { length, max } => {
                write!(f, "a frame of {length} bytes, above the bound of {max}")?;
                u32::try_from(*length).unwrap_or(u32::MAX).to_be_bytes()
            }
        };
        // What the first bytes mean where they are not a length.
        f.write_str(match bytes {
            [b'H', b'T', b'T', b'P'] => " (it is an HTTP server)",
            [b'S', b'S', b'H', b'-'] => " (it is an SSH server)",
            [0x14..=0x17, 3, ..] => " (it speaks TLS: its listener is not a plaintext one)",
            _ => " (is it a Kafka broker, and does its listener speak the same protocol?)",
        })
    }
}

/// Cuts the bytes that arrive into frames. Holds memory only for a frame that is incomplete.
#[derive(Debug)]
pub(crate) struct FrameReader {
    max: usize,
    length: [u8; 4],
    /// How many bytes of `length` have arrived.
    length_read: usize,
    /// What has arrived of the body; grows with the bytes, not with the announced length.
    body: Vec<u8>,
    /// The body's announced length, once all of `length` has arrived.
    expected: Option<usize>,
}

impl FrameReader {
    pub(crate) fn new(max: usize) -> Self {
        Self { max, length: [0; 4], length_read: 0, body: Vec::new(), expected: None }
    }

    /// Whether a frame has begun and not ended.
    pub(crate) fn is_mid_frame(&self) -> bool {
        self.length_read > 0
    }

    /// Takes bytes in the order of their arrival and hands each completed body (the length left
    /// off) to `complete`.
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut complete: impl FnMut(Vec<u8>),
    ) -> Result<(), FrameError> {
        loop {
            let expected = match self.expected {
                Some(expected) => expected,
                None => {
                    let n = bytes.len().min(4 - self.length_read);
                    self.length[self.length_read..self.length_read + n]
                        .copy_from_slice(&bytes[..n]);
                    self.length_read += n;
                    bytes = &bytes[n..];
                    if self.length_read < 4 {
                        return Ok(());
                    }
                    self.begin_body()?
                }
            };
            let n = bytes.len().min(expected - self.body.len());
            self.body.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.body.len() < expected {
                self.invariants();
                return Ok(());
            }
            self.expected = None;
            self.length_read = 0;
            complete(std::mem::take(&mut self.body));
            self.invariants();
        }
    }

    /// A body is incomplete, follows its whole length, and takes memory for what has arrived.
    fn invariants(&self) {
        if !claims::are_checked() {
            return;
        }
        assert_eq!(self.expected.is_some(), self.length_read == 4, "{}", self.length_read);
        let (arrived, held) = (self.body.len(), self.body.capacity());
        let is_part = self.expected.is_none_or(|length| arrived <= length && length <= self.max);
        assert!(is_part, "{arrived} bytes of {:?}", self.expected);
        assert!(self.expected.is_some() || held == 0, "{held} bytes for no frame");
        assert!(held <= FIRST_ALLOCATION.max(2 * arrived), "{held} bytes for {arrived}");
    }

    fn begin_body(&mut self) -> Result<usize, FrameError> {
        let announced = i32::from_be_bytes(self.length);
        let Ok(length) = usize::try_from(announced) else {
            return Err(FrameError::NegativeLength(announced));
        };
        if length > self.max {
            return Err(FrameError::TooLong { length, max: self.max });
        }
        self.body.reserve_exact(length.min(FIRST_ALLOCATION));
        self.expected = Some(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> OutFrame {
        OutFrame {
            head: b"abcdefgh".to_vec(),
            pieces: vec![
                Piece::Head(3),
                Piece::Segment(0),
                Piece::Segment(1),
                Piece::Head(5),
                Piece::Segment(2),
                Piece::Head(8),
            ],
            segments: vec![b"123".to_vec(), Vec::new(), b"4567".to_vec()],
        }
    }

    /// Writes with at most `step` bytes and `slices` slices a call.
    fn written(frame: &OutFrame, step: usize, slices: usize) -> Vec<u8> {
        let (mut cursor, mut out) = (WriteCursor::at_start(frame), Vec::new());
        while !cursor.is_done(frame) {
            let mut bufs = vec![IoSlice::new(&[]); slices];
            let used = cursor.fill(frame, &mut bufs);
            let all: Vec<u8> = bufs[..used].iter().flat_map(|b| b.iter().copied()).collect();
            let n = all.len().min(step);
            assert!(n > 0, "nothing left to write, and yet not done");
            out.extend_from_slice(&all[..n]);
            assert_eq!(cursor.advance(frame, n), 0);
            assert!(cursor.has_started());
        }
        out
    }

    /// SEL-22.
    #[test]
    fn every_short_write_ends_in_the_same_bytes() {
        let frame = frame();
        assert_eq!(frame.total_len(), 15);
        for step in 1..=16 {
            for slices in 1..=7 {
                assert_eq!(written(&frame, step, slices), b"abc123de4567fgh", "{step} {slices}");
            }
        }
        assert_eq!(written(&OutFrame::from_head(b"xyz".to_vec()), 2, 1), b"xyz");
    }

    #[test]
    fn bytes_beyond_the_frame_are_given_to_the_next() {
        let frame = frame();
        let mut cursor = WriteCursor::at_start(&frame);
        assert!(!cursor.has_started());
        assert_eq!(cursor.advance(&frame, 17), 2);
        assert!(cursor.is_done(&frame));
    }

    fn read_all(max: usize, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>, FrameError> {
        let (mut reader, mut out) = (FrameReader::new(max), Vec::new());
        for part in parts {
            reader.feed(part, |body| out.push(body))?;
        }
        Ok(out)
    }

    /// SEL-23.
    #[test]
    fn frames_are_cut_out_of_any_arrival() {
        let stream = [0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3, 0, 0];
        let expected = vec![vec![7, 8], vec![], vec![1, 2, 3]];
        for step in 1..=stream.len() {
            let parts: Vec<&[u8]> = stream.chunks(step).collect();
            assert_eq!(read_all(100, &parts).unwrap(), expected, "in steps of {step}");
        }
    }

    #[test]
    fn an_incomplete_frame_shows_and_holds_little_memory() {
        let mut reader = FrameReader::new(MAX_FRAME_SIZE);
        assert!(!reader.is_mid_frame());
        reader.feed(&(MAX_FRAME_SIZE as i32).to_be_bytes(), |_| panic!("too early")).unwrap();
        assert!(reader.is_mid_frame());
        assert!(reader.body.capacity() <= FIRST_ALLOCATION, "{}", reader.body.capacity());
        reader.feed(&[0; 100_000], |_| panic!("too early")).unwrap();
        assert!(reader.body.capacity() <= 4 * 100_000, "{}", reader.body.capacity());
    }

    #[test]
    fn impossible_lengths_are_refused() {
        assert_eq!(read_all(10, &[&[255; 4]]), Err(FrameError::NegativeLength(-1)));
        assert_eq!(
            read_all(10, &[&[0, 0, 0, 11]]),
            Err(FrameError::TooLong { length: 11, max: 10 })
        );
        // An HTTP server's "HTTP" read as a length.
        let error = read_all(MAX_FRAME_SIZE, &[b"HTTP/1.1 400"]).unwrap_err();
        assert!(error.to_string().contains("1213486160 bytes"), "{error}");
        assert!(error.to_string().contains("HTTP server"), "{error}");
        assert_eq!(read_all(10, &[&[0, 0, 0, 10], &[1; 10]]).unwrap().len(), 1);
    }
}
