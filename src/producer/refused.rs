//! What a call that did not accept everything gives back.

use std::fmt;

use super::interface::BoxedCallback;
use super::record::ProducerRecord;
use crate::completion::{Callback, Delivery};
use crate::error::Error;

/// A record that `try_send` did not accept, and why.
pub struct Refused<'a>(Box<(ProducerRecord<'a>, Error)>);

impl<'a> Refused<'a> {
    pub(crate) fn new(record: ProducerRecord<'a>, error: Error) -> Self {
        Self(Box::new((record, error)))
    }

    /// Why.
    pub fn error(&self) -> &Error {
        &self.0.1
    }

    /// The record.
    pub fn record(&self) -> &ProducerRecord<'a> {
        &self.0.0
    }

    /// The record, to be sent again, and why it was refused.
    pub fn into_parts(self) -> (ProducerRecord<'a>, Error) {
        *self.0
    }
}

impl From<Refused<'_>> for Error {
    fn from(refused: Refused<'_>) -> Self {
        refused.0.1
    }
}

impl fmt::Debug for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Refused").field(self.error()).finish()
    }
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl std::error::Error for Refused<'_> {}

/// A record that `try_send_with` did not accept, its callback, and why.
pub struct RefusedWith<'a> {
    refused: Refused<'a>,
    callback: BoxedCallback,
}

impl<'a> RefusedWith<'a> {
    /// `callback` is what the send has left of it: all.
    pub(crate) fn new(
        record: ProducerRecord<'a>,
        callback: Option<Callback>,
        error: Error,
    ) -> Self {
        let callback = match callback {
            Some(Callback::User(callback)) => callback,
            _ => {
                debug_assert!(false, "a refused record's callback is not what it was");
                let nothing: BoxedCallback = Box::new(|_| ());
                nothing
            }
        };
        Self { refused: Refused::new(record, error), callback }
    }

    /// Why.
    pub fn error(&self) -> &Error {
        self.refused.error()
    }

    /// The record.
    pub fn record(&self) -> &ProducerRecord<'a> {
        self.refused.record()
    }

    /// The record and its callback, to be sent again, and why they were refused.
    pub fn into_parts(self) -> (ProducerRecord<'a>, BoxedCallback, Error) {
        let (record, error) = self.refused.into_parts();
        (record, self.callback, error)
    }
}

impl From<RefusedWith<'_>> for Error {
    fn from(refused: RefusedWith<'_>) -> Self {
        refused.refused.into()
    }
}

impl fmt::Debug for RefusedWith<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RefusedWith").field(self.error()).finish()
    }
}

impl fmt::Display for RefusedWith<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl std::error::Error for RefusedWith<'_> {}

/// What became of a `send_all` that did not accept every record.
#[derive(Debug)]
pub struct Partial {
    /// The handles of the records that were accepted, in order: the first ones of the slice.
    pub accepted: Vec<Delivery>,
    /// Why the next one was not.
    pub error: Error,
}

impl From<Partial> for Error {
    fn from(partial: Partial) -> Self {
        partial.error
    }
}

impl fmt::Display for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {} records: {}", self.accepted.len(), self.error)
    }
}

impl std::error::Error for Partial {}
