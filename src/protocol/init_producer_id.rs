//! InitProducerId (key 22), versions 0 to 5: a producer id and epoch for an idempotent producer.

use std::sync::Arc;

use super::wire::{Decoded, Reader, Writer};
use super::{ApiKey, ErrorCode};

/// Asks for a producer id, or for a new epoch of the one given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitProducerIdRequest {
    /// The transactional id; none if the producer is only idempotent.
    pub transactional_id: Option<Arc<str>>,
    /// Milliseconds until an idle transaction is aborted; of use only with a transactional id.
    pub transaction_timeout_ms: i32,
    /// The id whose epoch is to be raised, or -1 (version 3 and later, KIP-360).
    pub producer_id: i64,
    /// The epoch that the producer has, or -1 (version 3 and later).
    pub producer_epoch: i16,
}

impl InitProducerIdRequest {
    /// Appends the request's body.
    pub fn encode(&self, version: i16, out: &mut Vec<u8>) {
        let mut w = Writer::new(out, ApiKey::InitProducerId.is_flexible(version));
        w.nullable_string(self.transactional_id.as_deref());
        w.i32(self.transaction_timeout_ms);
        if version >= 3 {
            w.i64(self.producer_id);
            w.i16(self.producer_epoch);
        }
        w.no_tagged_fields();
    }

    /// Reads the request's body.
    pub fn decode(r: &mut Reader<'_>, version: i16) -> Decoded<Self> {
        r.set_flexible(ApiKey::InitProducerId.is_flexible(version));
        let transactional_id = r.nullable_text()?;
        let transaction_timeout_ms = r.i32()?;
        let (producer_id, producer_epoch) =
            if version >= 3 { (r.i64()?, r.i16()?) } else { (-1, -1) };
        r.skip_tagged_fields()?;
        Ok(Self { transactional_id, transaction_timeout_ms, producer_id, producer_epoch })
    }
}

/// The producer id and epoch, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitProducerIdResponse {
    /// Milliseconds for which the client is to leave the broker alone.
    pub throttle_time_ms: i32,
    /// What went wrong, or `NONE`.
    pub error_code: ErrorCode,
    /// The producer's id.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
}

impl InitProducerIdResponse {
    /// Appends the response's body.
    pub fn encode(&self, version: i16, out: &mut Vec<u8>) {
        let mut w = Writer::new(out, ApiKey::InitProducerId.is_flexible(version));
        w.i32(self.throttle_time_ms);
        w.i16(self.error_code.0);
        w.i64(self.producer_id);
        w.i16(self.producer_epoch);
        w.no_tagged_fields();
    }

    /// Reads the response's body.
    pub fn decode(r: &mut Reader<'_>, version: i16) -> Decoded<Self> {
        r.set_flexible(ApiKey::InitProducerId.is_flexible(version));
        let response = Self {
            throttle_time_ms: r.i32()?,
            error_code: ErrorCode(r.i16()?),
            producer_id: r.i64()?,
            producer_epoch: r.i16()?,
        };
        r.skip_tagged_fields()?;
        Ok(response)
    }
}
