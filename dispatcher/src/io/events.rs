//! Events read again: one for an attempt, a stretch for a webhook or a partition that is behind.
//! And events of our own, published.

use std::sync::Arc;
use std::time::Duration;

use shared::codec::{self, DecodeError};
use shared::domain::event::Event;
use shared::domain::journal::{ExhaustReason, SkipReason, UnsentEnd};
use shared::ids::{PartitionId, Sequence};
use shared::nats::append::{AppendError, NewMessage};
use shared::nats::read::{Lookup, StoredMessage, message_at, read_range};
use shared::nats::{Nats, Unavailable};
use shared::subjects;

use crate::core::partition::Stretch;
use crate::metrics::DispatcherMetrics;

/// Bounds of one read of a backlog.
pub(crate) const STRETCH_EVENTS_MAX: usize = 2_000;
pub(crate) const STRETCH_BYTES_MAX: usize = 8 << 20;

/// Between two tries to publish.
const PUBLISH_RETRY: Duration = Duration::from_millis(500);

/// Why events were not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A later release wrote it, and a later release must send it: the partition is given up, for
    /// nothing may be skipped (rule 26).
    #[error("EVENTS {0} has version {1}, which this release does not read")]
    Later(Sequence, u8),
}

/// Whoever only answers a question need not tell them apart.
impl From<ReadError> for Unavailable {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(error) => error,
            later @ ReadError::Later(..) => Self(later.to_string()),
        }
    }
}

/// An event, or why there is none to send.
#[derive(Debug)]
pub(crate) enum Fetched {
    Event(Arc<Event>),
    Gone(UnsentEnd),
}

/// The event at `sequence`.
pub(crate) async fn fetch(nats: &Nats, sequence: Sequence) -> Result<Fetched, ReadError> {
    let message = match message_at(&nats.events, sequence).await? {
        Lookup::Found(message) => message,
        Lookup::Expired => {
            return Ok(Fetched::Gone(UnsentEnd::Exhausted(ExhaustReason::Expired)));
        }
        Lookup::Erased => return Ok(Fetched::Gone(UnsentEnd::Skipped(SkipReason::Erased))),
    };
    match codec::decode_event(&message.payload) {
        Ok(event) => Ok(Fetched::Event(Arc::new(event))),
        Err(DecodeError::UnknownVersion(version)) => Err(ReadError::Later(sequence, version)),
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
) -> Result<Stretch, ReadError> {
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
) -> Result<Option<(Sequence, Arc<Event>)>, ReadError> {
    match codec::decode_event(&message.payload) {
        Ok(event) => Ok(Some((message.sequence, Arc::new(event)))),
        Err(DecodeError::UnknownVersion(version)) => {
            Err(ReadError::Later(message.sequence, version))
        }
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

/// Until it is stored: whoever listens for what the platform says must hear of each. Published
/// again within the stream's dedup window, it changes nothing.
pub(crate) async fn publish(nats: &Nats, partition: PartitionId, event: &Event) {
    let message = NewMessage {
        subject: subjects::event(partition, event.project, &event.event_type),
        payload: codec::encode_event(event),
        message_id: event.id.to_string(),
        expected: None,
        never_expires: false,
    };
    loop {
        match nats.append(message.clone()).await {
            Ok(_) => return,
            Err(AppendError::TooLarge) => {
                tracing::error!(event.id = %event.id, "an event of ours is larger than the server takes");
                return;
            }
            Err(error @ (AppendError::Busy | AppendError::Conflict | AppendError::Unknown(_))) => {
                tracing::warn!(event.id = %event.id, %error, "an event of ours waits");
                tokio::time::sleep(PUBLISH_RETRY).await;
            }
        }
    }
}
