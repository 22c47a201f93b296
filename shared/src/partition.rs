//! Which partition a project belongs to, and which replica a partition: stable hashes, the same in
//! every replica and release.

use xxhash_rust::xxh3::xxh3_64;

use crate::domain::event::EventType;
use crate::ids::{AccountId, EventTypeHash, LaneHash, PartitionId, ProjectId, ReplicaId};

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

/// What JOURNAL calls an event type: the low half of `xxh3_64(name)`.
pub fn event_type_hash(event_type: &EventType) -> EventTypeHash {
    let [a, b, c, d, ..] = xxh3_64(event_type.as_str().as_bytes()).to_le_bytes();
    EventTypeHash(u32::from_le_bytes([a, b, c, d]))
}

/// The replica that `partition` belongs to when exactly `replicas` live; `None` when none does.
/// The order of the slice does not matter.
///
/// Rendezvous hashing: of the weights `xxh3_64(id bytes, partition as two bytes, low one first)`
/// the highest wins, and of equal ones the higher id. A replica that comes takes partitions from
/// the others and moves none between them; one that goes leaves the others theirs.
pub fn owner_of(partition: PartitionId, replicas: &[ReplicaId]) -> Option<ReplicaId> {
    replicas
        .iter()
        .copied()
        .max_by_key(|replica| (weight(partition, *replica), *replica))
}

fn weight(partition: PartitionId, replica: ReplicaId) -> u64 {
    let mut key = [0; 18];
    let (id, number) = key.split_at_mut(16);
    id.copy_from_slice(&replica.to_bytes());
    number.copy_from_slice(&partition.0.to_le_bytes());
    xxh3_64(&key)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;
    use crate::domain::catalog;

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
    fn event_types_never_change_what_they_are_called() {
        let vectors = [
            ("hris_employees.created", 0xd401_eadd),
            ("account.deleted", 0xe60d_b666),
            ("webhook.failing", 0x76bb_3ae6),
        ];
        let seen = vectors.map(|(name, _)| {
            let hash = event_type_hash(&EventType::parse(name).unwrap());
            (name, hash.0)
        });
        assert_eq!(seen, vectors);
    }

    #[test]
    fn no_two_types_of_the_catalog_are_called_the_same() {
        let hash = |name: String| event_type_hash(&EventType::parse(&name).unwrap());
        let hashes: HashSet<_> = catalog::names().map(hash).collect();
        assert_eq!(hashes.len(), catalog::names().count());
    }

    #[test]
    fn counts_have_a_range() {
        assert!(PartitionCount::new(0).is_none());
        assert!(PartitionCount::new(4_097).is_none());
        assert_eq!(PartitionCount::new(64), Some(PartitionCount::DEFAULT));
    }

    #[test]
    fn owners_never_move() {
        let replicas = [1_u8, 2, 3].map(|byte| ReplicaId::from_bytes([byte; 16]));
        let vectors = [
            (0, 2),
            (1, 2),
            (2, 2),
            (7, 2),
            (63, 2),
            (256, 3),
            (4_095, 1),
        ];
        let seen = vectors.map(|(partition, _)| {
            let owner = owner_of(PartitionId(partition), &replicas).unwrap();
            (partition, owner.to_bytes()[0])
        });
        assert_eq!(seen, vectors);
    }

    fn replicas(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<ReplicaId>> {
        proptest::collection::hash_set(any::<[u8; 16]>(), count)
            .prop_map(|ids| ids.into_iter().map(ReplicaId::from_bytes).collect())
    }

    fn owners(replicas: &[ReplicaId]) -> Vec<Option<ReplicaId>> {
        PartitionCount::DEFAULT
            .all()
            .map(|partition| owner_of(partition, replicas))
            .collect()
    }

    proptest! {
        /// Read backwards, what holds when a replica goes.
        #[test]
        fn a_replica_that_comes_takes_partitions_and_moves_none_between_others(
            mut replicas in replicas(0..=12),
            newcomer in any::<[u8; 16]>().prop_map(ReplicaId::from_bytes),
            at in any::<prop::sample::Index>(),
        ) {
            let before = owners(&replicas);
            replicas.insert(at.index(replicas.len() + 1), newcomer);
            for (before, after) in before.into_iter().zip(owners(&replicas)) {
                prop_assert!(after == before || after == Some(newcomer));
            }
        }

        #[test]
        fn the_order_of_replicas_does_not_matter(
            (replicas, shuffled) in replicas(1..=12)
                .prop_flat_map(|ids| (Just(ids.clone()), Just(ids).prop_shuffle())),
        ) {
            prop_assert_eq!(owners(&replicas), owners(&shuffled));
        }

        /// Each replica's share is binomial with a mean of 4,096 / n; the bound is over six
        /// standard deviations away.
        #[test]
        fn partitions_are_shared_out_evenly(replicas in replicas(2..=8)) {
            let count = PartitionCount::new(PartitionCount::MAX).unwrap();
            let mut shares: HashMap<ReplicaId, usize> = HashMap::new();
            for partition in count.all() {
                *shares.entry(owner_of(partition, &replicas).unwrap()).or_default() += 1;
            }
            let fair = usize::from(PartitionCount::MAX) / replicas.len();
            prop_assert_eq!(shares.len(), replicas.len());
            for share in shares.into_values() {
                prop_assert!(share.abs_diff(fair) < fair * 3 / 10, "{} of {}", share, fair);
            }
        }
    }

    #[test]
    fn nobody_owns_anything_where_nobody_lives() {
        assert_eq!(owner_of(PartitionId(0), &[]), None);
    }
}
