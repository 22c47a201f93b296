//! What a stream drops by age, and when (`protocol.md`, rule 21). Ages go by the server's clock.

use std::time::Duration;

use async_nats::datetime::from_nanos;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::stream::Stream;

use super::Unavailable;
use super::read::{last_matching, next, open_from, timestamp};
use crate::ids::Sequence;
use crate::time::Timestamp;

/// What a stream still has, by its leader's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retained {
    /// `None`: nothing is dropped by age.
    pub age_max: Option<Duration>,
    /// Of the oldest message; means nothing in an empty stream.
    pub oldest_at: Timestamp,
    pub last: Sequence,
    pub is_empty: bool,
}

pub async fn retained(stream: &Stream<()>) -> Result<Retained, Unavailable> {
    let info = stream.get_info().await.map_err(Unavailable::new)?;
    Ok(Retained {
        age_max: Some(info.config.max_age).filter(|age| !age.is_zero()),
        oldest_at: timestamp(info.state.first_timestamp),
        last: Sequence(info.state.last_sequence),
        is_empty: info.state.messages == 0,
    })
}

/// The last sequence at or below which everything was older than `at` when `retained` was asked
/// for.
pub async fn last_before(
    stream: &Stream<()>,
    filter: &str,
    retained: &Retained,
    at: Timestamp,
) -> Result<Sequence, Unavailable> {
    if retained.is_empty {
        return Ok(retained.last);
    }
    if retained.oldest_at >= at {
        return Ok(Sequence(0));
    }
    // Not by the stream's own word, which may be about a message that was overwritten.
    let youngest = last_matching(stream, filter).await?;
    if youngest.is_none_or(|youngest| youngest.stored_at < at) {
        return Ok(retained.last);
    }
    let nanos = i128::from(at.as_millis()).saturating_mul(1_000_000);
    let start_time = from_nanos(nanos).map_err(Unavailable::new)?;
    let policy = DeliverPolicy::ByStartTime { start_time };
    let mut messages = open_from(stream, filter, policy).await?;
    Ok(next(&mut messages).await?.sequence.previous())
}
