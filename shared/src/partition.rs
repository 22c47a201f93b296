//! Which partition a project belongs to: a stable hash, the same in every replica and release.

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{AccountId, LaneHash, PartitionId, ProjectId};

/// How many partitions the streams are divided into. Written into the stream's metadata at the
/// first start and read from there ever after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionCount(u16);

impl PartitionCount {
    pub const DEFAULT: Self = Self(64);
    const MAX: u16 = 4_096;

    /// `None` unless 1 ≤ `count` ≤ 4,096.
    pub const fn new(count: u16) -> Option<Self> {
        if count >= 1 && count <= Self::MAX {
            Some(Self(count))
        } else {
            None
        }
    }

    pub const fn get(self) -> u16 {
        self.0
    }

    pub fn all(self) -> impl Iterator<Item = PartitionId> {
        (0..self.0).map(PartitionId)
    }

    /// The partition of a project: `xxh3_64(id bytes) mod count`.
    pub fn of(self, project: ProjectId) -> PartitionId {
        let slot = xxh3_64(&project.to_bytes()) % u64::from(self.0);
        // The remainder is below a u16.
        PartitionId(u16::try_from(slot).unwrap_or(0))
    }
}

/// The lane of an ordering key: account, resource and record id. Account-less events of a
/// project share the account of all zeroes, which no UUIDv7 can be.
pub fn lane_hash(account: Option<AccountId>, resource: &str, record_id: &str) -> LaneHash {
    let mut key = Vec::with_capacity(24 + resource.len() + record_id.len());
    key.extend_from_slice(&account.map_or([0; 16], AccountId::to_bytes));
    key.extend_from_slice(&(resource.len() as u64).to_le_bytes());
    key.extend_from_slice(resource.as_bytes());
    key.extend_from_slice(record_id.as_bytes());
    LaneHash(xxh3_64(&key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_never_move() {
        let count = PartitionCount::DEFAULT;
        let vectors = [([0_u8; 16], 40), ([1; 16], 14), ([0xff; 16], 19)];
        let seen = vectors.map(|(bytes, _)| count.of(ProjectId::from_bytes(bytes)).0);
        assert_eq!(seen, vectors.map(|(_, partition)| partition));
    }

    #[test]
    fn lanes_never_move_and_keep_their_parts_apart() {
        let account = AccountId::from_bytes([9; 16]);
        let hash = |account, resource, record| lane_hash(account, resource, record).0;
        assert_eq!(
            hash(Some(account), "hris_employees", "42"),
            0xb42d_97f7_2f3f_4349
        );
        assert_ne!(hash(None, "ab", "c"), hash(None, "a", "bc"));
        assert_ne!(hash(None, "a", "b"), hash(Some(account), "a", "b"));
    }

    #[test]
    fn counts_have_a_range() {
        assert!(PartitionCount::new(0).is_none());
        assert!(PartitionCount::new(4_097).is_none());
        assert_eq!(PartitionCount::new(64), Some(PartitionCount::DEFAULT));
    }
}
