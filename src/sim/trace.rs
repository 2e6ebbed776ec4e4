//! What happened in a run: a digest always, and lines to read when they are asked for.

use crate::time::MonoTime;

/// A kind of event; it goes into the digest.
pub(super) type Tag = &'static str;

pub(super) struct Trace {
    digest: u64,
    /// None unless the run is to be explained.
    lines: Option<Vec<Line>>,
}

/// One event.
#[derive(Clone)]
pub(super) struct Line {
    at: MonoTime,
    /// What it concerns, as `c7` for a connection or `a-0` for a partition.
    pub(super) subject: String,
    pub(super) text: String,
}

impl Trace {
    pub(super) fn new(logs: bool) -> Self {
        Self { digest: 0xcbf2_9ce4_8422_2325, lines: logs.then(Vec::new) }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Notes an event. The numbers go into the digest; `text` is made only for the log.
    pub(super) fn note(
        &mut self,
        at: MonoTime,
        tag: Tag,
        numbers: [u64; 2],
        text: impl FnOnce() -> (String, String),
    ) {
        let tag_bytes = tag.bytes().fold(0, |sum: u64, byte| sum * 31 + u64::from(byte));
        for word in [at.as_nanos(), tag_bytes, numbers[0], numbers[1]] {
            self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        }
        if let Some(lines) = &mut self.lines {
            let (subject, text) = text();
            lines.push(Line { at, subject, text: format!("{tag} {text}") });
        }
    }

    pub(super) fn lines(&self) -> &[Line] {
        self.lines.as_deref().unwrap_or_default()
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>12.3} ms {:>6} {}", self.at.as_nanos() as f64 / 1e6, self.subject, self.text)
    }
}
