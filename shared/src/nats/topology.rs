//! Declares the three logs, the buckets of living replicas, of idempotency keys and of the use of
//! API keys, and the store of snapshots,
//! idempotently, whichever service starts first.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use async_nats::jetstream::{self, ErrorCode};

use super::{Nats, Unavailable, context};
use crate::domain::policy::RETRY_SPAN_MS_MAX;
use crate::partition::PartitionCount;
use crate::subjects;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// EVENTS' retention; JOURNAL's exceeds it by the longest span of retries (rule 21).
const EVENTS_AGE: Duration = DAY.saturating_mul(7);
const JOURNAL_AGE: Duration = DAY.saturating_mul(14);
/// How long a delivery may be retried at most, jitter aside: what is older has expired.
const RETRIES_SPAN_MAX: Duration = Duration::from_millis(RETRY_SPAN_MS_MAX);
const DEDUP_WINDOW: Duration = Duration::from_secs(10 * 60);
/// The server's default of 1,000 would be reached by catch-up reads of many webhooks.
const CONSUMERS_MAX: i32 = 10_000;
/// How long the server keeps the note that a replica's key has gone; whoever looks later finds
/// no key.
const MEMBER_MARKER_TTL: Duration = Duration::from_secs(60);
const PARTITIONS_KEY: &str = "carillon.partitions";
const GENERATION_KEY: &str = "carillon.generation";

/// What the streams are declared with when they do not exist yet.
#[derive(Clone, Copy, Debug)]
pub struct TopologySettings {
    /// Stream replicas, 1, 3 or 5.
    pub replicas: usize,
    /// Of a new EVENTS stream; an existing one says its own.
    pub partitions: PartitionCount,
}

/// Why the streams cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TopologyError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// What is owed could be forgotten before it has ended (rule 21).
    #[error("stream {stream} may forget what is owed: {detail}")]
    Forgets {
        stream: &'static str,
        detail: String,
    },
    #[error("stream {stream} is not one of ours: {detail}")]
    Foreign {
        stream: &'static str,
        detail: String,
    },
}

/// Creates what is missing and reads the partition count and generation from EVENTS.
pub async fn ensure(
    client: &async_nats::Client,
    settings: &TopologySettings,
) -> Result<Nats, TopologyError> {
    // Boxed: each request is a future of kilobytes, and every caller would hold them all.
    Box::pin(ensure_all(client, settings)).await
}

async fn ensure_all(
    client: &async_nats::Client,
    settings: &TopologySettings,
) -> Result<Nats, TopologyError> {
    let context = context(client);
    let events = ensure_stream(&context, subjects::EVENTS, events(settings)).await?;
    let registry = ensure_stream(&context, subjects::REGISTRY, registry(settings)).await?;
    let journal = ensure_stream(&context, subjects::JOURNAL, journal(settings)).await?;
    let members = ensure_stream(&context, subjects::MEMBERS, members(settings)).await?;
    let idempotency = ensure_stream(&context, subjects::IDEMPOTENCY, idempotency(settings)).await?;
    let key_usage = ensure_stream(&context, subjects::KEY_USAGE, key_usage(settings)).await?;
    let snapshots = ensure_stream(&context, subjects::SNAPSHOTS, snapshots(settings)).await?;
    check_retention(&events.cached_info().config, &journal.cached_info().config)?;
    let metadata = &events.cached_info().config.metadata;
    let partitions = number(metadata, PARTITIONS_KEY)
        .and_then(|count| u16::try_from(count).ok().and_then(PartitionCount::new));
    let (Some(partitions), Some(generation)) = (partitions, number(metadata, GENERATION_KEY))
    else {
        return Err(TopologyError::Foreign {
            stream: subjects::EVENTS,
            detail: format!("its metadata lacks {PARTITIONS_KEY} or {GENERATION_KEY}"),
        });
    };
    Ok(Nats {
        client: client.clone(),
        events: without_info(&context, &events).await?,
        registry: without_info(&context, &registry).await?,
        journal: without_info(&context, &journal).await?,
        members: without_info(&context, &members).await?,
        idempotency: without_info(&context, &idempotency).await?,
        key_usage: without_info(&context, &key_usage).await?,
        snapshots: without_info(&context, &snapshots).await?,
        context,
        partitions,
        generation,
    })
}

/// Whether the streams, which an operator may have changed, keep what is owed for long enough.
fn check_retention(events: &Config, journal: &Config) -> Result<(), TopologyError> {
    for (stream, config) in [(subjects::EVENTS, events), (subjects::JOURNAL, journal)] {
        if config.max_bytes > 0 && config.discard == DiscardPolicy::Old {
            return Err(TopologyError::Forgets {
                stream,
                detail: "it is bounded by bytes and discards old messages; \
                         let it discard new ones instead"
                    .into(),
            });
        }
    }
    let is_short = match (events.max_age, journal.max_age) {
        (_, Duration::ZERO) => false,
        (Duration::ZERO, _) => true,
        (events, journal) => journal < events.saturating_add(RETRIES_SPAN_MAX),
    };
    if !is_short {
        return Ok(());
    }
    Err(TopologyError::Forgets {
        stream: subjects::JOURNAL,
        detail: format!(
            "its max_age of {:?} is shorter than EVENTS' of {:?} and the {RETRIES_SPAN_MAX:?} \
             that a delivery may be retried, together; 0 keeps all",
            journal.max_age, events.max_age
        ),
    })
}

fn number(metadata: &HashMap<String, String>, key: &str) -> Option<u32> {
    metadata.get(key)?.parse().ok()
}

async fn without_info(
    context: &jetstream::Context,
    stream: &Stream,
) -> Result<Stream<()>, Unavailable> {
    context
        .get_stream_no_info(&stream.cached_info().config.name)
        .await
        .map_err(Unavailable::new)
}

async fn ensure_stream(
    context: &jetstream::Context,
    name: &'static str,
    config: Config,
) -> Result<Stream, TopologyError> {
    match context.get_stream(name).await {
        Ok(stream) => return Ok(stream),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(detail)
                if detail.error_code() == ErrorCode::STREAM_NOT_FOUND => {}
            _ => return Err(Unavailable::new(error).into()),
        },
    }
    match context.create_stream(config).await {
        Ok(stream) => Ok(stream),
        Err(error) => match error.kind() {
            // Another replica made it meanwhile, with its own partition count.
            CreateStreamErrorKind::JetStream(detail)
                if detail.error_code() == ErrorCode::STREAM_NAME_EXIST =>
            {
                context
                    .get_stream(name)
                    .await
                    .map_err(|error| Unavailable::new(error).into())
            }
            _ => Err(Unavailable::new(error).into()),
        },
    }
}

fn base(name: &str, subject: &str, settings: &TopologySettings) -> Config {
    Config {
        name: name.into(),
        subjects: vec![subject.into()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        // A full stream refuses; discarding old messages would lose what was promised.
        discard: DiscardPolicy::New,
        max_consumers: CONSUMERS_MAX,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        ..Config::default()
    }
}

fn events(settings: &TopologySettings) -> Config {
    Config {
        max_age: EVENTS_AGE,
        duplicate_window: DEDUP_WINDOW,
        allow_direct: true,
        allow_atomic_publish: true,
        metadata: HashMap::from([
            (PARTITIONS_KEY.into(), settings.partitions.get().to_string()),
            (GENERATION_KEY.into(), "1".into()),
        ]),
        ..base(subjects::EVENTS, subjects::EVENTS_ALL, settings)
    }
}

fn registry(settings: &TopologySettings) -> Config {
    base(subjects::REGISTRY, subjects::REGISTRY_ALL, settings)
}

fn journal(settings: &TopologySettings) -> Config {
    Config {
        max_age: JOURNAL_AGE,
        allow_direct: true,
        // The epoch entry outlives `max_age` by a TTL of never.
        allow_message_ttl: true,
        ..base(subjects::JOURNAL, subjects::JOURNAL_ALL, settings)
    }
}

/// A key-value bucket with one message a key, as clients declare one. On file, so that sequences
/// never go back.
fn members(settings: &TopologySettings) -> Config {
    Config {
        max_messages_per_subject: 1,
        allow_direct: true,
        allow_rollup: true,
        deny_delete: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(MEMBER_MARKER_TTL),
        ..base(subjects::MEMBERS, subjects::MEMBERS_ALL, settings)
    }
}

/// A key is forgotten after a day.
fn idempotency(settings: &TopologySettings) -> Config {
    Config {
        max_messages_per_subject: 1,
        max_age: DAY,
        allow_direct: true,
        ..base(subjects::IDEMPOTENCY, subjects::IDEMPOTENCY_ALL, settings)
    }
}

/// A year later nobody asks any more.
fn key_usage(settings: &TopologySettings) -> Config {
    Config {
        max_messages_per_subject: 1,
        max_age: DAY.saturating_mul(366),
        allow_direct: true,
        // Of an older note nothing is lost.
        discard: DiscardPolicy::Old,
        ..base(subjects::KEY_USAGE, subjects::KEY_USAGE_ALL, settings)
    }
}

/// Without an age limit: a partition that is idle for long must find its last snapshot. What is no
/// longer needed, its writers purge.
fn snapshots(settings: &TopologySettings) -> Config {
    Config {
        allow_direct: true,
        ..base(subjects::SNAPSHOTS, subjects::SNAPSHOTS_ALL, settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_that_could_forget_what_is_owed_is_refused() {
        let settings = TopologySettings {
            replicas: 1,
            partitions: PartitionCount::new(1).unwrap(),
        };
        let check = |events_age: Duration, journal_age: Duration, max_bytes, discard| {
            let events = Config {
                max_age: events_age,
                max_bytes,
                discard,
                ..events(&settings)
            };
            let journal = Config {
                max_age: journal_age,
                ..journal(&settings)
            };
            check_retention(&events, &journal)
        };
        let (new, old) = (DiscardPolicy::New, DiscardPolicy::Old);
        let second = Duration::from_secs(1);
        for (events_age, journal_age, max_bytes, discard, forgetful) in [
            (EVENTS_AGE, JOURNAL_AGE, -1, new, None),
            (EVENTS_AGE, JOURNAL_AGE, -1, old, None),
            (EVENTS_AGE, JOURNAL_AGE, 1, new, None),
            (EVENTS_AGE, JOURNAL_AGE, 1, old, Some(subjects::EVENTS)),
            (second, JOURNAL_AGE, -1, new, None),
            (EVENTS_AGE, Duration::ZERO, -1, new, None),
            (
                EVENTS_AGE + second,
                JOURNAL_AGE,
                -1,
                new,
                Some(subjects::JOURNAL),
            ),
            (
                EVENTS_AGE,
                JOURNAL_AGE - second,
                -1,
                new,
                Some(subjects::JOURNAL),
            ),
            (
                Duration::ZERO,
                JOURNAL_AGE,
                -1,
                new,
                Some(subjects::JOURNAL),
            ),
        ] {
            let refused = match check(events_age, journal_age, max_bytes, discard) {
                Ok(()) => None,
                Err(TopologyError::Forgets { stream, .. }) => Some(stream),
                Err(error) => panic!("{error}"),
            };
            assert_eq!(refused, forgetful, "{events_age:?} {journal_age:?}");
        }
    }
}
