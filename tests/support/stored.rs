//! What lies in the streams, read back message by message with the plain client.

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use shared::codec;
use shared::domain::event::Event;
use shared::domain::journal::{JournalEntry, Pack};
use shared::domain::snapshot::SnapshotLabel;
use shared::ids::PartitionId;
use shared::subjects;

/// An event as it lies in EVENTS.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    pub sequence: u64,
    pub subject: String,
    pub event: Event,
}

/// A connection of its own to the server.
#[derive(Debug)]
pub struct Stored {
    context: jetstream::Context,
}

impl Stored {
    pub async fn connect(url: &str) -> Result<Self> {
        let client = async_nats::connect(url)
            .await
            .with_context(|| format!("connecting to {url}"))?;
        Ok(Self {
            context: jetstream::new(client),
        })
    }

    /// All events, oldest first.
    pub async fn events(&self) -> Result<Vec<StoredEvent>> {
        let messages = self.messages(subjects::EVENTS).await?;
        messages
            .into_iter()
            .map(|message| {
                Ok(StoredEvent {
                    sequence: message.sequence,
                    subject: message.subject.to_string(),
                    event: codec::decode_event(&message.payload)?,
                })
            })
            .collect()
    }

    /// The labels of the snapshots that are kept of a partition, newest first.
    pub async fn snapshots(&self, partition: PartitionId) -> Result<Vec<SnapshotLabel>> {
        let subject = subjects::snapshot_manifest(partition);
        let messages = self.messages(subjects::SNAPSHOTS).await?;
        let Some(manifest) = messages
            .iter()
            .rev()
            .find(|message| message.subject.as_str() == subject)
        else {
            return Ok(Vec::new());
        };
        let manifest = codec::decode_snapshot_manifest(&manifest.payload)?;
        let kept = [Some(manifest.newest), manifest.previous];
        Ok(kept.into_iter().flatten().map(|kept| kept.label).collect())
    }

    /// Erases what a subject of a stream holds below a sequence.
    pub async fn purge(&self, stream: &str, subject: &str, below: u64) -> Result<u64> {
        let stream = self.context.get_stream(stream).await?;
        let purged = stream.purge().filter(subject).sequence(below).await?;
        Ok(purged.purged)
    }

    /// All packs of JOURNAL, oldest first.
    pub async fn packs(&self) -> Result<Vec<Pack>> {
        let messages = self.messages(subjects::JOURNAL).await?;
        messages
            .into_iter()
            .filter(|message| !message.subject.ends_with(".epoch"))
            .map(|message| Ok(codec::decode_pack(&message.payload)?))
            .collect()
    }

    /// Whether a failed attempt of the event is journaled.
    pub async fn has_failed_attempt(&self, event: &str) -> Result<bool> {
        let packs = self.packs().await?;
        Ok(packs.iter().flat_map(|pack| &pack.entries).any(|entry| {
            matches!(entry, JournalEntry::AttemptFailed { attempt, .. } if attempt.event.to_string() == event)
        }))
    }

    async fn messages(&self, stream: &str) -> Result<Vec<jetstream::message::StreamMessage>> {
        let stream: Stream = self.context.get_stream(stream).await?;
        let state = &stream.cached_info().state;
        let mut messages = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            match stream.get_raw_message(sequence).await {
                Ok(message) => messages.push(message),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(messages)
    }
}
