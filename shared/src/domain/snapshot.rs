//! What is durably kept of a partition's folded state (`protocol.md`, rule 25).
//!
//! The state itself is opaque here. A manifest for each partition names the two snapshots that
//! are kept, the chunks that each consists of, and how to tell whether they are whole.

use std::fmt;

use crate::ids::{Epoch, PartitionId, Sequence};

/// What a snapshot is the fold of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLabel {
    pub partition: PartitionId,
    /// Of both positions.
    pub generation: u32,
    /// Of the owner that took it.
    pub epoch: Epoch,
    /// JOURNAL is folded through here.
    pub journal: Sequence,
    /// EVENTS is classified through here.
    pub classified: Sequence,
}

impl SnapshotLabel {
    /// Whether this one is at least as late as `other`, of the same partition: by generation, then
    /// epoch, then JOURNAL position. How far EVENTS is classified follows from the latter.
    pub fn reaches(&self, other: &Self) -> bool {
        let rank = |label: &Self| (label.generation, label.epoch, label.journal);
        rank(self) >= rank(other)
    }
}

/// Tells a write from any other, of the same label too. Random.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SnapshotWriteId(pub u64);

impl fmt::Display for SnapshotWriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SnapshotWriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A snapshot in the store, and where its parts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSnapshot {
    pub label: SnapshotLabel,
    pub write: SnapshotWriteId,
    /// Of all chunks together.
    pub size_bytes: u64,
    /// `xxh3_64` of all chunks together.
    pub checksum: u64,
    /// In the order of the bytes.
    pub chunks: Vec<Sequence>,
}

/// The one message that makes chunks a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotManifest {
    pub newest: KeptSnapshot,
    /// What was newest before.
    pub previous: Option<KeptSnapshot>,
}

impl SnapshotManifest {
    /// Newest first.
    pub fn kept(&self) -> impl Iterator<Item = &KeptSnapshot> {
        std::iter::once(&self.newest).chain(&self.previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_label_is_told_by_generation_then_epoch_then_journal() {
        let label = |(generation, epoch, journal, classified)| SnapshotLabel {
            partition: PartitionId(0),
            generation,
            epoch: Epoch(epoch),
            journal: Sequence(journal),
            classified: Sequence(classified),
        };
        let ascending = [(1, 1, 5, 9), (1, 1, 6, 9), (1, 2, 3, 8), (2, 1, 1, 1)].map(label);
        for (index, one) in ascending.iter().enumerate() {
            for (other_index, other) in ascending.iter().enumerate() {
                assert_eq!(
                    one.reaches(other),
                    index >= other_index,
                    "{one:?} {other:?}"
                );
            }
        }
        assert!(label((1, 1, 5, 1)).reaches(&label((1, 1, 5, 2))));
    }
}
