//! The durable store of snapshots: two for each partition, in a stream of their own.
//!
//! A writer reads the partition's manifest, stores its chunks under a subject that no other write
//! shares, and then one manifest that names them, checked against the manifest that it read. So
//! a snapshot is there as a whole or not at all, and of two writers at once one begins anew.
//!
//! It follows that whoever stored a chunk before a manifest that does not name it can never
//! publish that chunk: its own manifest would be checked against an earlier one. Everything
//! before a manifest that it does not name is therefore garbage, whoever left it, and the writer
//! of that manifest purges it. Nothing after the manifest is touched: that may be the next
//! writer's.
//!
//! The last manifest is never purged, so that no append could start over from sequence 0
//! (`protocol.md`, rule 28).

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use xxhash_rust::xxh3::xxh3_64;

use super::append::{AppendError, Expected, NewMessage};
use super::read::{Lookup, last_matching, message_at};
use super::{Nats, Unavailable};
use crate::codec::{self, DecodeError};
use crate::domain::snapshot::{KeptSnapshot, SnapshotLabel, SnapshotManifest, SnapshotWriteId};
use crate::ids::{PartitionId, Sequence};
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::{random, subjects};

/// Larger ones would save little and delay the appends of others on the same connection.
const CHUNK_BYTES_MAX: usize = 512 << 10;
/// However little a server takes: smaller ones would make the manifest too large instead.
const CHUNK_BYTES_MIN: usize = 4 << 10;
/// Chunks under way at once, in either direction.
const CHUNKS_IN_FLIGHT: usize = 4;
/// Writes of one snapshot whose manifest is overtaken by another writer's.
const WRITE_TRIES: usize = 3;
/// Tries of one append; without an acknowledgement each takes 2 s.
const APPEND_TRIES: usize = 3;
const APPEND_RETRY: Duration = Duration::from_millis(100);

/// What became of a snapshot that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is the newest now.
    Stored,
    /// One that is at least as late is there already.
    Superseded,
}

/// Why a snapshot was not written, or cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SnapshotError {
    /// Try again. Of a write nobody knows whether it holds; repeating it does no harm.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Not the bytes that were written. The other candidate may do.
    #[error("the snapshot is corrupt: {0}")]
    Corrupt(&'static str),
    /// Two later ones have taken its place since it was listed, or somebody erased it. List anew.
    #[error("the snapshot is gone")]
    Gone,
    /// A later release wrote the manifest: the partition must be given up (`protocol.md`, rule 26).
    #[error("the manifest is of a later version: {0}")]
    Later(u8),
    /// Above [`SNAPSHOT_BYTES_MAX`], or the manifest is larger than the server takes.
    #[error("{0} bytes are too large")]
    TooLarge(usize),
}

/// Stores `bytes` as the newest snapshot of the label's partition, unless one is there that is at
/// least as late. The one that was newest stays; what was before that goes.
pub async fn write(
    nats: &Nats,
    label: SnapshotLabel,
    bytes: Bytes,
) -> Result<Written, SnapshotError> {
    if bytes.len() > SNAPSHOT_BYTES_MAX {
        return Err(SnapshotError::TooLarge(bytes.len()));
    }
    let checksum = xxh3_64(&bytes);
    for _ in 0..WRITE_TRIES {
        let held = last_manifest(nats, label.partition).await?;
        let (previous, held_at) = match held {
            Some((manifest, _)) if manifest.newest.label.reaches(&label) => {
                return Ok(Written::Superseded);
            }
            Some((manifest, sequence)) => (Some(manifest.newest), sequence),
            None => (None, Sequence(0)),
        };
        let write = SnapshotWriteId(random::number());
        let newest = KeptSnapshot {
            label,
            write,
            size_bytes: bytes.len() as u64,
            checksum,
            chunks: store_chunks(nats, label.partition, write, &bytes).await?,
        };
        let manifest = SnapshotManifest { newest, previous };
        if let Some(stored_at) = store_manifest(nats, &manifest, held_at).await? {
            if let Err(error) = purge_unnamed(nats, &manifest, stored_at).await {
                // What is left costs space until the next write, and nothing else.
                tracing::warn!(partition = %label.partition, %error, "old snapshots are not purged");
            }
            return Ok(Written::Stored);
        }
    }
    let overtaken = "the manifest was overtaken by other writers";
    Err(Unavailable(overtaken.into()).into())
}

/// The snapshots that are kept of a partition, newest first: two, one or none.
pub async fn read_candidates(
    nats: &Nats,
    partition: PartitionId,
) -> Result<Vec<KeptSnapshot>, SnapshotError> {
    let held = last_manifest(nats, partition).await?;
    Ok(held.map_or_else(Vec::new, |(manifest, _)| {
        let mut kept = vec![manifest.newest];
        kept.extend(manifest.previous);
        kept
    }))
}

/// The bytes as they were written.
pub async fn read(nats: &Nats, kept: &KeptSnapshot) -> Result<Bytes, SnapshotError> {
    let size = usize::try_from(kept.size_bytes)
        .ok()
        .filter(|size| *size <= SNAPSHOT_BYTES_MAX)
        .ok_or(SnapshotError::Corrupt("size out of bounds"))?;
    let subject = subjects::snapshot_chunks(kept.label.partition, kept.write);
    let mut bytes = Vec::with_capacity(size);
    let mut chunks = stream::iter(kept.chunks.clone())
        .map(|sequence| message_at(&nats.snapshots, sequence))
        .buffered(CHUNKS_IN_FLIGHT);
    while let Some(chunk) = chunks.next().await {
        let chunk = match chunk? {
            Lookup::Found(chunk) => chunk,
            Lookup::Expired | Lookup::Erased => return Err(SnapshotError::Gone),
        };
        if chunk.subject != subject {
            return Err(SnapshotError::Corrupt("a chunk of another snapshot"));
        }
        if chunk.payload.len() > size.saturating_sub(bytes.len()) {
            return Err(SnapshotError::Corrupt("too many bytes"));
        }
        bytes.extend_from_slice(&chunk.payload);
    }
    if bytes.len() != size || xxh3_64(&bytes) != kept.checksum {
        return Err(SnapshotError::Corrupt("size or checksum differs"));
    }
    Ok(bytes.into())
}

/// The manifest that holds by the leader's word, and its sequence.
async fn last_manifest(
    nats: &Nats,
    partition: PartitionId,
) -> Result<Option<(SnapshotManifest, Sequence)>, SnapshotError> {
    let subject = subjects::snapshot_manifest(partition);
    let Some(message) = last_matching(&nats.snapshots, &subject).await? else {
        return Ok(None);
    };
    let manifest = match codec::decode_snapshot_manifest(&message.payload) {
        Ok(manifest) => manifest,
        Err(DecodeError::UnknownVersion(version)) => return Err(SnapshotError::Later(version)),
        Err(DecodeError::Malformed(_)) => return Err(SnapshotError::Corrupt("manifest")),
    };
    if manifest
        .kept()
        .any(|kept| kept.label.partition != partition)
    {
        return Err(SnapshotError::Corrupt("manifest of another partition"));
    }
    Ok(Some((manifest, message.sequence)))
}

/// The sequences of the chunks, in the order of the bytes. A repeated one may lie out of order.
async fn store_chunks(
    nats: &Nats,
    partition: PartitionId,
    write: SnapshotWriteId,
    bytes: &Bytes,
) -> Result<Vec<Sequence>, SnapshotError> {
    let chunk_bytes = (nats.max_payload() / 2).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
    let subject = subjects::snapshot_chunks(partition, write);
    let starts = (0..bytes.len()).step_by(chunk_bytes);
    stream::iter(starts)
        .map(|start| {
            let end = start.saturating_add(chunk_bytes).min(bytes.len());
            let chunk = NewMessage {
                subject: subject.clone(),
                // Shares the snapshot's memory.
                payload: bytes.slice(start..end),
                message_id: format!("{write}-{start}"),
                expected: None,
                never_expires: false,
            };
            async move {
                // Without a condition there is no conflict.
                let stored = append(nats, chunk).await?;
                stored.ok_or_else(|| Unavailable("a chunk was refused".into()).into())
            }
        })
        .buffered(CHUNKS_IN_FLIGHT)
        .try_collect()
        .await
}

/// Where the manifest lies, or `None` when another writer's came first.
async fn store_manifest(
    nats: &Nats,
    manifest: &SnapshotManifest,
    held_at: Sequence,
) -> Result<Option<Sequence>, SnapshotError> {
    let partition = manifest.newest.label.partition;
    let subject = subjects::snapshot_manifest(partition);
    let message = NewMessage {
        subject: subject.clone(),
        payload: codec::encode_snapshot_manifest(manifest).into(),
        message_id: format!("{}-manifest", manifest.newest.write),
        expected: Some(Expected {
            subject,
            sequence: held_at,
        }),
        never_expires: false,
    };
    if let Some(stored_at) = append(nats, message).await? {
        return Ok(Some(stored_at));
    }
    // A conflict after a lost acknowledgement does not mean that it was not stored.
    let last = last_manifest(nats, partition).await?;
    Ok(last
        .filter(|(last, _)| last.newest.write == manifest.newest.write)
        .map(|(_, sequence)| sequence))
}

/// The sequence that it has, or `None` when what it expects no longer holds.
async fn append(nats: &Nats, message: NewMessage) -> Result<Option<Sequence>, SnapshotError> {
    let mut unknown = String::new();
    for _ in 0..APPEND_TRIES {
        match nats.append(message.clone()).await {
            Ok(appended) => return Ok(Some(appended.sequence)),
            Err(AppendError::Conflict) => return Ok(None),
            Err(AppendError::TooLarge) => {
                return Err(SnapshotError::TooLarge(message.payload.len()));
            }
            Err(error @ (AppendError::Busy | AppendError::Unknown(_))) => {
                unknown = error.to_string();
            }
        }
        tokio::time::sleep(APPEND_RETRY).await;
    }
    Err(Unavailable(unknown).into())
}

/// Removes what lies before the manifest at `stored_at` and is not named by it: the snapshot that
/// was the older of two, and what interrupted writes and earlier purges left.
async fn purge_unnamed(
    nats: &Nats,
    manifest: &SnapshotManifest,
    stored_at: Sequence,
) -> Result<(), Unavailable> {
    let partition = manifest.newest.label.partition;
    let named: Vec<String> = manifest
        .kept()
        .map(|kept| subjects::snapshot_chunks(partition, kept.write))
        .collect();
    let all = subjects::snapshot_chunks_of_partition(partition);
    let mut stored = nats
        .snapshots
        .info_with_subjects(all)
        .await
        .map_err(Unavailable::new)?;
    let mut unnamed = vec![subjects::snapshot_manifest(partition)];
    while let Some((subject, _)) = stored.try_next().await.map_err(Unavailable::new)? {
        if !named.contains(&subject) {
            unnamed.push(subject);
        }
    }
    for subject in unnamed {
        nats.snapshots
            .purge()
            .filter(subject)
            // The server purges up to this sequence and keeps what is there.
            .sequence(stored_at.0)
            .await
            .map_err(Unavailable::new)?;
    }
    Ok(())
}
