//! Bounded reads of a stream: up to a sequence that is known to be there.
//!
//! An end of stream proves nothing, for a lagging replica or a dropped connection ends one too.
//! Only reaching a sequence that the leader named proves that all before it was read.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::datetime::DateTime;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{LastRawMessageErrorKind, RawMessageErrorKind, Stream};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::Unavailable;
use crate::ids::Sequence;
use crate::time::Timestamp;

/// Without a message for this long, a read is given up and begun anew by its caller.
const STALLED: Duration = Duration::from_secs(5);
const HEARTBEAT: Duration = Duration::from_secs(1);
const EXPIRES: Duration = Duration::from_secs(4);
/// Consumers that were left behind go away after this.
const CONSUMER_LINGER: Duration = Duration::from_secs(10);
/// Both bound what lies in the client's buffers; messages may be small or a megabyte each.
const BATCH_MESSAGES: usize = 500;
const BATCH_BYTES: usize = 16 << 20;

/// Sequences of the first window of a read backwards, and of its widest.
const WINDOW_WIDTH: u64 = 256;
const WINDOW_WIDTH_MAX: u64 = 64 << 10;
/// Windows of one read backwards.
const WINDOWS_MAX: usize = 12;

/// A message read back.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    pub sequence: Sequence,
    pub subject: String,
    pub payload: Bytes,
    pub message_id: Option<String>,
    /// By the server's clock.
    pub stored_at: Timestamp,
}

/// What a bounded read gave: every message that matches in (after, through].
#[derive(Clone, Debug)]
pub struct RangeRead {
    pub messages: Vec<StoredMessage>,
    pub through: Sequence,
}

/// The last message on the subjects that `filter` names, by the leader's word.
pub async fn last_matching(
    stream: &Stream<()>,
    filter: &str,
) -> Result<Option<StoredMessage>, Unavailable> {
    match stream.get_last_raw_message_by_subject(filter).await {
        Ok(message) => Ok(Some(StoredMessage {
            sequence: Sequence(message.sequence),
            subject: message.subject.to_string(),
            message_id: message_id(&message.headers),
            stored_at: timestamp(message.time),
            payload: message.payload,
        })),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(Unavailable::new(error)),
    }
}

/// Reads what matches `filter` after `after`: at most `max_messages` messages and about
/// `max_bytes` bytes, or all that there are. `known` is a sequence that the stream is known to
/// have reached; when nothing more matches, the read goes through it.
pub async fn read_range(
    stream: &Stream<()>,
    filter: &str,
    after: Sequence,
    known: Sequence,
    (max_messages, max_bytes): (usize, usize),
) -> Result<RangeRead, Unavailable> {
    let last = last_matching(stream, filter).await?;
    let mut read = RangeRead {
        messages: Vec::new(),
        through: known.max(after),
    };
    let Some(last) = last.map(|last| last.sequence).filter(|last| *last > after) else {
        return Ok(read);
    };
    let mut messages = open(stream, filter, after).await?;
    let mut bytes = 0;
    loop {
        let message = next(&mut messages).await?;
        let sequence = message.sequence;
        bytes += message.payload.len();
        read.messages.push(message);
        if sequence >= last {
            read.through = known.max(sequence);
            return Ok(read);
        }
        if read.messages.len() >= max_messages || bytes >= max_bytes {
            read.through = sequence;
            return Ok(read);
        }
    }
}

/// What was read from the end of a stream backwards, newest first.
#[derive(Clone, Debug)]
pub struct NewestRead<T> {
    pub found: Vec<(Sequence, T)>,
    /// Where the next read begins, if there may be more: everything that matches at or above is in
    /// `found`.
    pub before: Option<Sequence>,
}

/// The last `max` messages below `before` that match `filter` and of which `keep` makes something.
/// JetStream reads forwards only, so that windows are read, the last one first, each four times as
/// wide as the one after it. A read looks at [`WINDOWS_MAX`] of them at most: where little matches,
/// it ends with fewer than `max`, and tells where to go on.
pub async fn read_newest<T>(
    stream: &Stream<()>,
    filter: &str,
    before: Option<Sequence>,
    max: usize,
    mut keep: impl FnMut(StoredMessage) -> Option<T>,
) -> Result<NewestRead<T>, Unavailable> {
    let (mut found, mut end) = (VecDeque::new(), Sequence(0));
    if let Some(last) = last_matching(stream, filter).await? {
        let (first, _) = super::bounds(stream).await?;
        let through = last.sequence;
        end = before.map_or(through.next(), |before| before.min(through.next()));
        let mut width = WINDOW_WIDTH;
        for _ in 0..WINDOWS_MAX {
            if end <= first || found.len() >= max {
                break;
            }
            let start = Sequence(end.0.saturating_sub(width)).max(first);
            let mut of_window = VecDeque::new();
            let mut messages = open(stream, filter, start.previous()).await?;
            loop {
                let message = next(&mut messages).await?;
                let sequence = message.sequence;
                if sequence < end
                    && let Some(kept) = keep(message)
                {
                    of_window.push_back((sequence, kept));
                    if of_window.len() + found.len() > max {
                        of_window.pop_front();
                    }
                }
                // Whether there is a later one is known: the read must not wait for it.
                if sequence.next() >= end || sequence >= through {
                    break;
                }
            }
            for kept in of_window.into_iter().rev() {
                found.push_back(kept);
            }
            (end, width) = (start, width.saturating_mul(4).min(WINDOW_WIDTH_MAX));
        }
        if found.len() >= max {
            end = found.back().map_or(end, |(sequence, _)| *sequence);
        }
        if end <= first {
            end = Sequence(0);
        }
    }
    Ok(NewestRead {
        found: found.into(),
        before: (end > Sequence(0)).then_some(end),
    })
}

/// Reads everything that matches `filter` after `after`, message by message, through the last
/// one that the leader had when the read began.
pub async fn read_all(
    stream: &Stream<()>,
    filter: &str,
    after: Sequence,
    mut each: impl FnMut(StoredMessage),
) -> Result<(), Unavailable> {
    let last = last_matching(stream, filter).await?;
    let Some(last) = last.map(|last| last.sequence).filter(|last| *last > after) else {
        return Ok(());
    };
    let mut messages = open(stream, filter, after).await?;
    loop {
        let message = next(&mut messages).await?;
        let sequence = message.sequence;
        each(message);
        if sequence >= last {
            return Ok(());
        }
    }
}

/// Reads what matches `filter` in (after, through], which the stream is known to have reached: all,
/// or at most so many messages and about so many bytes, and then through an earlier sequence.
pub async fn read_between(
    stream: &Stream<()>,
    filter: &str,
    (after, through): (Sequence, Sequence),
    (max_messages, max_bytes): (usize, usize),
) -> Result<RangeRead, Unavailable> {
    let mut read = RangeRead {
        messages: Vec::new(),
        through,
    };
    let last = last_matching(stream, filter).await?;
    let Some(last) = last.map(|last| last.sequence.min(through)) else {
        return Ok(read);
    };
    if last <= after {
        return Ok(read);
    }
    let mut messages = open(stream, filter, after).await?;
    let mut bytes = 0;
    loop {
        let message = next(&mut messages).await?;
        let sequence = message.sequence;
        // The last one may lie beyond, and none at the end itself.
        if sequence > through {
            return Ok(read);
        }
        bytes += message.payload.len();
        read.messages.push(message);
        if sequence >= last {
            return Ok(read);
        }
        if read.messages.len() >= max_messages || bytes >= max_bytes {
            read.through = sequence;
            return Ok(read);
        }
    }
}

/// Where the first message lies that matches and was stored at `at` or later, by the server's
/// clock.
pub async fn first_since(
    stream: &Stream<()>,
    filter: &str,
    at: Timestamp,
) -> Result<Option<Sequence>, Unavailable> {
    // Nothing was stored before 1970, and the server refuses a start before that.
    let nanos = i128::from(at.as_millis().max(0)).saturating_mul(1_000_000);
    let start_time = async_nats::datetime::from_nanos(nanos).map_err(Unavailable::new)?;
    match stream.get_last_raw_message_by_subject(filter).await {
        Ok(last) if last.time >= start_time => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => return Err(Unavailable::new(error)),
    }
    // There is one, if only the last.
    let start = DeliverPolicy::ByStartTime { start_time };
    let mut messages = open_from(stream, filter, start).await?;
    Ok(Some(next(&mut messages).await?.sequence))
}

/// Messages of an unacknowledged, in-memory consumer. The consumer's own numbering must have no
/// gap: without acknowledgements, what got lost on the way is not sent again.
pub(super) struct Messages {
    stream: pull::Stream,
    delivered: u64,
}

/// Starts from the message after `after`.
pub(super) async fn open(
    stream: &Stream<()>,
    filter: &str,
    after: Sequence,
) -> Result<Messages, Unavailable> {
    let from = DeliverPolicy::ByStartSequence {
        start_sequence: after.next().0,
    };
    open_from(stream, filter, from).await
}

pub(super) async fn open_from(
    stream: &Stream<()>,
    filter: &str,
    deliver_policy: DeliverPolicy,
) -> Result<Messages, Unavailable> {
    let consumer = stream
        .create_consumer(pull::Config {
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: CONSUMER_LINGER,
            deliver_policy,
            filter_subject: filter.to_owned(),
            ..pull::Config::default()
        })
        .await
        .map_err(Unavailable::new)?;
    let stream = consumer
        .stream()
        .max_messages_per_batch(BATCH_MESSAGES)
        .max_bytes_per_batch(BATCH_BYTES)
        .heartbeat(HEARTBEAT)
        .expires(EXPIRES)
        .messages()
        .await
        .map_err(Unavailable::new)?;
    Ok(Messages {
        stream,
        delivered: 0,
    })
}

impl Messages {
    /// The next message, however long it takes. An error ends the consumer's use.
    pub(super) async fn next(&mut self) -> Result<StoredMessage, Unavailable> {
        match self.stream.next().await {
            Some(Ok(message)) => self.stored(message),
            Some(Err(error)) => Err(Unavailable::new(error)),
            None => Err(Unavailable("the read ended early".into())),
        }
    }

    fn stored(
        &mut self,
        message: async_nats::jetstream::Message,
    ) -> Result<StoredMessage, Unavailable> {
        let info = message.info().map_err(Unavailable::new)?;
        let sequence = Sequence(info.stream_sequence);
        let stored_at = timestamp(info.published);
        self.delivered += 1;
        if info.consumer_sequence != self.delivered {
            return Err(Unavailable("a message was lost on the way".into()));
        }
        let message = message.message;
        Ok(StoredMessage {
            sequence,
            subject: message.subject.into_string(),
            message_id: message.headers.as_ref().and_then(message_id),
            stored_at,
            payload: message.payload,
        })
    }
}

pub(super) async fn next(messages: &mut Messages) -> Result<StoredMessage, Unavailable> {
    tokio::time::timeout(STALLED, messages.next())
        .await
        .unwrap_or_else(|_| Err(Unavailable("the read stalled".into())))
}

fn message_id(headers: &async_nats::HeaderMap) -> Option<String> {
    headers
        .get(async_nats::header::NATS_MESSAGE_ID)
        .map(|value| value.as_str().to_owned())
}

/// What a stream has at one sequence.
#[derive(Clone, Debug)]
pub enum Lookup {
    Found(StoredMessage),
    /// Below the first message that the stream still has.
    Expired,
    /// Between first and last, and not there: purged.
    Erased,
}

/// The message at `sequence`, which the stream is known to have reached. A replica that lags may
/// miss it, so that only the leader's word makes it gone (`protocol.md`, rule 20).
pub async fn message_at(stream: &Stream<()>, sequence: Sequence) -> Result<Lookup, Unavailable> {
    if let Ok(message) = stream.direct_get(sequence.0).await {
        return Ok(Lookup::Found(found(message)));
    }
    match stream.get_raw_message(sequence.0).await {
        Ok(message) => Ok(Lookup::Found(found(message))),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
            let state = stream.get_info().await.map_err(Unavailable::new)?.state;
            if sequence.0 < state.first_sequence {
                Ok(Lookup::Expired)
            } else if sequence.0 < state.last_sequence {
                Ok(Lookup::Erased)
            } else if sequence.0 == state.last_sequence {
                last_message(stream, sequence).await
            } else {
                Err(Unavailable("the stream has not reached the message".into()))
            }
        }
        Err(error) => Err(Unavailable::new(error)),
    }
}

/// The last message may have been stored since it was asked for; asked again, the leader has it
/// unless it is gone.
async fn last_message(stream: &Stream<()>, sequence: Sequence) -> Result<Lookup, Unavailable> {
    match stream.get_raw_message(sequence.0).await {
        Ok(message) => Ok(Lookup::Found(found(message))),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(Lookup::Erased),
        Err(error) => Err(Unavailable::new(error)),
    }
}

fn found(message: async_nats::jetstream::message::StreamMessage) -> StoredMessage {
    StoredMessage {
        sequence: Sequence(message.sequence),
        subject: message.subject.into_string(),
        message_id: message_id(&message.headers),
        stored_at: timestamp(message.time),
        payload: message.payload,
    }
}

pub(super) fn timestamp(time: DateTime) -> Timestamp {
    let ms = time.unix_timestamp_nanos().div_euclid(1_000_000);
    Timestamp::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}
