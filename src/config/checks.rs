//! Settings compared with each other, and values that follow from others.
//!
//! The rules are those of Java's `ProducerConfig` and `KafkaProducer`: what the user set
//! explicitly and contradicts itself is an error, what was left to its default gives way.

use log::{info, warn};

use super::settings::Settings;
use super::value::Value;
use crate::error::Error;

/// With more requests in flight, the broker might forget a batch's sequence before its retry
/// comes: it remembers five for each producer and partition.
const MAX_IN_FLIGHT_IDEMPOTENT: i64 = 5;

/// Checks everything and puts the resolved values in place.
pub(super) fn resolve(settings: &mut Settings) -> Result<(), Error> {
    if settings.text("acks") == Some("-1") {
        settings.respell("acks", Value::Text("all".to_owned()));
    }
    check_client_id(settings)?;
    resolve_idempotence(settings)?;
    resolve_delivery_timeout(settings)?;
    resolve_reconnect_backoff(settings);
    for (first, most) in [
        ("reconnect.backoff.ms", "reconnect.backoff.max.ms"),
        ("retry.backoff.ms", "retry.backoff.max.ms"),
        ("socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.max.ms"),
    ] {
        cap(settings, first, most);
    }
    Ok(())
}

/// The header of every request carries it, with a length of 16 bits.
fn check_client_id(settings: &Settings) -> Result<(), Error> {
    const MOST: usize = i16::MAX as usize;
    let bytes = settings.text("client.id").map_or(0, str::len);
    if bytes <= MOST {
        return Ok(());
    }
    let text = format!("client.id: it has {bytes} bytes, and requests have room for {MOST}");
    Err(Error::Config(text.into()))
}

/// Idempotence is on unless something else that the user set rules it out (KIP-679).
fn resolve_idempotence(settings: &mut Settings) -> Result<(), Error> {
    if !settings.flag("enable.idempotence") {
        return Ok(());
    }
    let in_flight = settings.number("max.in.flight.requests.per.connection");
    let conflict = if settings.text("acks") != Some("all") {
        "acks must be all"
    } else if settings.number("retries") == 0 {
        "retries must be above 0"
    } else if in_flight > MAX_IN_FLIGHT_IDEMPOTENT {
        "max.in.flight.requests.per.connection must be at most 5"
    } else {
        return Ok(());
    };
    if settings.is_given("enable.idempotence") {
        let text = format!("enable.idempotence=true: {conflict} for idempotence");
        return Err(Error::Config(text.into()));
    }
    info!("idempotence is off: {conflict} for it");
    settings.resolve("enable.idempotence", Value::Bool(false));
    Ok(())
}

/// A batch must have the time to linger and to be tried once.
fn resolve_delivery_timeout(settings: &mut Settings) -> Result<(), Error> {
    let delivery = settings.number("delivery.timeout.ms");
    let (linger, request) = (settings.number("linger.ms"), settings.number("request.timeout.ms"));
    let least = linger.saturating_add(request).min(i32::MAX.into());
    if delivery >= least {
        return Ok(());
    }
    if settings.is_given("delivery.timeout.ms") {
        let text = format!(
            "delivery.timeout.ms: {delivery} is less than linger.ms + request.timeout.ms \
             ({linger} + {request})"
        );
        return Err(Error::Config(text.into()));
    }
    warn!(
        "delivery.timeout.ms is raised to {least}, so that it is not less than linger.ms + \
         request.timeout.ms"
    );
    settings.resolve("delivery.timeout.ms", Value::Number(least));
    Ok(())
}

/// Whoever sets the first backoff alone wants it at each attempt, as before KIP-144.
fn resolve_reconnect_backoff(settings: &mut Settings) {
    if settings.is_given("reconnect.backoff.ms") && !settings.is_given("reconnect.backoff.max.ms") {
        let first = settings.number("reconnect.backoff.ms");
        settings.resolve("reconnect.backoff.max.ms", Value::Number(first));
    }
}

/// A first value above the most: the most is used at each attempt.
fn cap(settings: &mut Settings, first: &'static str, most: &'static str) {
    let bound = settings.number(most);
    if settings.number(first) > bound {
        warn!("{first} is more than {most}: {bound} is used for both");
        settings.resolve(first, Value::Number(bound));
    }
}
