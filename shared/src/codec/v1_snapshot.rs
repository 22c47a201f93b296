//! Version 1 of snapshot manifests. Never edited once released.

use serde::{Deserialize, Serialize};

use crate::domain::snapshot as domain;
use crate::ids::{Epoch, PartitionId, Sequence};

#[derive(Serialize, Deserialize)]
pub(super) struct Manifest {
    newest: Snapshot,
    previous: Option<Snapshot>,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    partition: u16,
    generation: u32,
    epoch: u64,
    journal: u64,
    classified: u64,
    write: u64,
    size_bytes: u64,
    checksum: u64,
    chunks: Vec<u64>,
}

impl From<&domain::SnapshotManifest> for Manifest {
    fn from(manifest: &domain::SnapshotManifest) -> Self {
        Self {
            newest: (&manifest.newest).into(),
            previous: manifest.previous.as_ref().map(Into::into),
        }
    }
}

impl From<Manifest> for domain::SnapshotManifest {
    fn from(wire: Manifest) -> Self {
        Self {
            newest: wire.newest.into(),
            previous: wire.previous.map(Into::into),
        }
    }
}

impl From<&domain::KeptSnapshot> for Snapshot {
    fn from(kept: &domain::KeptSnapshot) -> Self {
        Self {
            partition: kept.label.partition.0,
            generation: kept.label.generation,
            epoch: kept.label.epoch.0,
            journal: kept.label.journal.0,
            classified: kept.label.classified.0,
            write: kept.write.0,
            size_bytes: kept.size_bytes,
            checksum: kept.checksum,
            chunks: kept.chunks.iter().map(|sequence| sequence.0).collect(),
        }
    }
}

impl From<Snapshot> for domain::KeptSnapshot {
    fn from(wire: Snapshot) -> Self {
        Self {
            label: domain::SnapshotLabel {
                partition: PartitionId(wire.partition),
                generation: wire.generation,
                epoch: Epoch(wire.epoch),
                journal: Sequence(wire.journal),
                classified: Sequence(wire.classified),
            },
            write: domain::SnapshotWriteId(wire.write),
            size_bytes: wire.size_bytes,
            checksum: wire.checksum,
            chunks: wire.chunks.into_iter().map(Sequence).collect(),
        }
    }
}
