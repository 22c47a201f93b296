//! Events read again: one for an attempt, a stretch for a webhook or a partition that is behind.

use std::sync::Arc;

use shared::codec::{self, DecodeError};
use shared::domain::event::Event;
use shared::domain::journal::{ExhaustReason, SkipReason, UnsentEnd};
use shared::ids::Sequence;
use shared::nats::read::{Lookup, StoredMessage, message_at, read_range};
use shared::nats::{Nats, Unavailable};

use crate::core::partition::Stretch;
use crate::metrics::DispatcherMetrics;

/// Bounds of one read of a backlog.
pub(crate) const STRETCH_EVENTS_MAX: usize = 2_000;
pub(crate) const STRETCH_BYTES_MAX: usize = 8 << 20;

/// An event, or why there is none to send.
#[derive(Debug)]
pub(crate) enum Fetched {
    Event(Arc<Event>),
    Gone(UnsentEnd),
}

/// The event at `sequence`.
pub(crate) async fn fetch(nats: &Nats, sequence: Sequence) -> Result<Fetched, Unavailable> {
    let message = match message_at(&nats.events, sequence).await? {
        Lookup::Found(message) => message,
        Lookup::Expired => {
            return Ok(Fetched::Gone(UnsentEnd::Exhausted(ExhaustReason::Expired)));
        }
        Lookup::Erased => return Ok(Fetched::Gone(UnsentEnd::Skipped(SkipReason::Erased))),
    };
    match codec::decode_event(&message.payload) {
        Ok(event) => Ok(Fetched::Event(Arc::new(event))),
        // A later release wrote it, and a later release must send it.
        Err(error @ DecodeError::UnknownVersion(_)) => Err(Unavailable(error.to_string())),
        Err(DecodeError::Malformed(_)) => {
            Ok(Fetched::Gone(UnsentEnd::Skipped(SkipReason::Undecodable)))
        }
    }
}

/// A stretch of what `filter` names, from `after` through `known` at most.
pub(crate) async fn stretch(
    nats: &Nats,
    metrics: &DispatcherMetrics,
    filter: &str,
    after: Sequence,
    known: Sequence,
) -> Result<Stretch, Unavailable> {
    let limits = (STRETCH_EVENTS_MAX, STRETCH_BYTES_MAX);
    let read = read_range(&nats.events, filter, after, known, limits).await?;
    let mut events = Vec::with_capacity(read.messages.len());
    for message in read.messages {
        // What lies beyond is offered by the tail, under the configuration that holds there.
        if message.sequence <= known {
            events.extend(decode(metrics, &message)?);
        }
    }
    Ok(Stretch {
        after,
        through: read.through.min(known).max(after),
        events,
    })
}

/// `None` for bytes of a known version that are not readable: counted, and never sent.
pub(crate) fn decode(
    metrics: &DispatcherMetrics,
    message: &StoredMessage,
) -> Result<Option<(Sequence, Arc<Event>)>, Unavailable> {
    match codec::decode_event(&message.payload) {
        Ok(event) => Ok(Some((message.sequence, Arc::new(event)))),
        Err(error @ DecodeError::UnknownVersion(_)) => Err(Unavailable(error.to_string())),
        Err(DecodeError::Malformed(detail)) => {
            metrics.events_undecodable.increment(1);
            tracing::error!(
                sequence = message.sequence.0,
                error = %detail,
                "event in EVENTS is not readable"
            );
            Ok(None)
        }
    }
}
