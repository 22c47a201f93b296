//! Reads the three logs, whole, as the checker wants them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::{self, Message};
use futures_util::StreamExt as _;
use shared::codec;
use shared::domain::registry::Aggregate;
use shared::ids::{PartitionId, WebhookId};
use shared::subjects;
use shared::time::Timestamp;

use super::journal::PackFacts;
use super::records::{EventLine, JournalContent, JournalLine, RegistryLine};
use crate::eventually::eventually;
use crate::receiver::recorder::body_hash;

/// Elections included.
const READ_WITHIN: Duration = Duration::from_secs(60);
const STALLED: Duration = Duration::from_secs(5);
const BATCH: usize = 500;

/// The logs of a run.
#[derive(Debug)]
pub struct Logs {
    pub events: Vec<EventLine>,
    pub registry: Vec<RegistryLine>,
    pub journal: Vec<JournalLine>,
}

/// Everything up to what the streams' leaders have when it is asked for.
pub async fn logs(context: &jetstream::Context) -> Result<Logs> {
    Ok(Logs {
        events: read(context, subjects::EVENTS, event).await?,
        registry: read(context, subjects::REGISTRY, registry)
            .await?
            .into_iter()
            .flatten()
            .collect(),
        journal: read(context, subjects::JOURNAL, journal).await?,
    })
}

async fn read<T>(
    context: &jetstream::Context,
    stream: &str,
    decode: impl Fn(u64, Timestamp, &Message) -> Result<T>,
) -> Result<Vec<T>> {
    let what = format!("reading {stream}");
    eventually(&what, READ_WITHIN, async || {
        let messages = attempt(context, stream, &decode).await;
        messages.map_err(|error| format!("{error:#}"))
    })
    .await
}

async fn attempt<T>(
    context: &jetstream::Context,
    name: &str,
    decode: impl Fn(u64, Timestamp, &Message) -> Result<T>,
) -> Result<Vec<T>> {
    let stream = context.get_stream(name).await?;
    let last = stream.cached_info().state.last_sequence;
    let mut read = Vec::new();
    if last == 0 {
        return Ok(read);
    }
    let config = pull::Config {
        ack_policy: AckPolicy::None,
        memory_storage: true,
        num_replicas: 1,
        deliver_policy: DeliverPolicy::All,
        inactive_threshold: STALLED,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let batches = consumer.stream().max_messages_per_batch(BATCH);
    let mut messages = batches.messages().await?;
    loop {
        let message = tokio::time::timeout(STALLED, messages.next()).await;
        let message = message.context("the read stalled")?.context("it ended")??;
        let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
        let (sequence, delivered) = (info.stream_sequence, info.consumer_sequence);
        read_whole(read.len(), delivered)?;
        let stored_ms = info.published.unix_timestamp_nanos() / 1_000_000;
        let stored_at = Timestamp::from_millis(i64::try_from(stored_ms)?);
        let decoded = decode(sequence, stored_at, &message);
        read.push(decoded.with_context(|| format!("{name} {sequence}"))?);
        if sequence >= last {
            return Ok(read);
        }
    }
}

/// Without acknowledgements, what got lost on the way is not sent again.
fn read_whole(before: usize, delivered: u64) -> Result<()> {
    ensure!(
        u64::try_from(before + 1)? == delivered,
        "a message was lost on the way"
    );
    Ok(())
}

fn event(sequence: u64, stored_at: Timestamp, message: &Message) -> Result<EventLine> {
    let event = codec::decode_event(&message.payload)?;
    Ok(EventLine {
        sequence,
        stored_at,
        partition: subjects::partition_of_event(&message.subject).context("its subject")?,
        body: body_hash(&event.body),
        event,
    })
}

/// Only what is about webhooks.
fn registry(sequence: u64, _: Timestamp, message: &Message) -> Result<Option<RegistryLine>> {
    let record = codec::decode_record(&message.payload)?;
    let (project, aggregate, id) =
        subjects::parse_registry(&message.subject).context("its subject")?;
    if aggregate != Aggregate::Webhook {
        return Ok(None);
    }
    let webhook: WebhookId = id.parse()?;
    Ok(Some(RegistryLine {
        sequence,
        project,
        webhook,
        record,
    }))
}

fn journal(sequence: u64, stored_at: Timestamp, message: &Message) -> Result<JournalLine> {
    let mut tokens = message.subject.split('.').skip(1);
    let partition = tokens.next().context("its subject")?.parse()?;
    let content = match tokens.next() {
        Some("epoch") => JournalContent::Epoch(codec::decode_epoch(&message.payload)?),
        Some(other) => anyhow::bail!("a subject that ends in {other}"),
        None => JournalContent::Pack(PackFacts::of(&codec::decode_pack(&message.payload)?)),
    };
    Ok(JournalLine {
        sequence,
        stored_at,
        partition: PartitionId(partition),
        content,
    })
}
