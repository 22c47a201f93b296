//! Several replicas on a model of the server, over random schedules of crashes, pauses, cuts and
//! outages: no two may send for a partition at once, and when the faults end each partition has
//! one owner.
//!
//! The model refuses what the server refuses: an epoch entry that does not follow the last one,
//! and packs of a former epoch. Its keys expire by its own clock. The shell that is modelled here
//! obeys rules 5 and 6: after its epoch entry it looks whether the predecessor is still gone, and
//! after a lapse of its lease it sends only once an append of the new term is stored.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test's helpers may fail loudly"
)]

mod model;

use proptest::prelude::*;
use shared::ids::PartitionId;
use shared::partition::owner_of;

use crate::model::{Fault, PARTITIONS, World};

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let place = 0..6_usize;
    let pause = prop_oneof![200..1_500_u64, 2_000..4_000_u64, 8_000..12_000_u64];
    let fault = prop_oneof![
        2 => Just(Fault::Start),
        2 => place.clone().prop_map(Fault::Kill),
        1 => place.clone().prop_map(Fault::Leave),
        4 => (place.clone(), pause.clone()).prop_map(|(place, ms)| Fault::Pause(place, ms)),
        2 => (place.clone(), pause.clone()).prop_map(|(place, ms)| Fault::Cut(place, ms)),
        2 => (place, pause.clone()).prop_map(|(place, ms)| Fault::Withdraw(place, ms)),
        1 => pause.prop_map(Fault::Outage),
        8 => (50..5_000_u64).prop_map(Fault::Quiet),
    ];
    proptest::collection::vec(fault, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn one_replica_at_most_sends_for_a_partition_and_in_the_end_one_does(
        seed in any::<u64>(),
        replicas in 1..4_usize,
        faults in faults(),
    ) {
        let mut world = World::new(seed, replicas);
        for fault in faults {
            world.fault(fault);
        }
        world.check_recovery();
    }
}

#[test]
fn a_replica_that_joins_takes_its_share_once_and_moves_nothing_else() {
    for seed in 1..50 {
        let mut world = World::new(seed, 2);
        world.run(10_000);
        world.takes.clear();
        world.start();
        world.run(10_000);
        let mut moved: Vec<PartitionId> = Vec::new();
        for (place, partition) in &world.takes {
            assert_eq!(*place, 2, "{partition} moved between the others");
            moved.push(*partition);
        }
        moved.sort_unstable();
        moved.dedup();
        world.check_recovery();
        let newcomer = world.replicas[2].id;
        let share = world
            .replicas
            .iter()
            .map(|replica| replica.id)
            .collect::<Vec<_>>();
        let expected: Vec<PartitionId> = world
            .journal
            .keys()
            .copied()
            .filter(|partition| owner_of(*partition, &share) == Some(newcomer))
            .collect();
        assert_eq!(moved, expected, "seed {seed}");
    }
}

#[test]
fn one_that_comes_and_goes_at_once_moves_nothing() {
    for seed in 1..50 {
        let mut world = World::new(seed, 2);
        world.run(10_000);
        world.takes.clear();
        for _ in 0..5 {
            world.start();
            world.run(1_000);
            world.replicas.last_mut().unwrap().is_alive = false;
            world.run(4_000);
        }
        assert_eq!(world.takes, [], "seed {seed}");
    }
}

#[test]
fn a_killed_replicas_partitions_are_sent_for_within_five_seconds() {
    for seed in 1..50 {
        let mut world = World::new(seed, 3);
        world.run(10_000);
        let dead = world.replicas[0].id;
        let held: Vec<PartitionId> = (0..PARTITIONS)
            .map(PartitionId)
            .filter(|partition| world.senders(*partition).contains(&dead))
            .collect();
        world.fault(Fault::Kill(0));
        // A tenth of the model's takeovers fail once.
        world.run(7_000);
        for partition in held {
            assert_eq!(
                world.senders(partition).len(),
                1,
                "seed {seed}: {partition}"
            );
        }
    }
}

/// The moment at which a predecessor comes back decides; all are tried.
#[test]
fn one_that_wakes_while_others_take_over_does_not_send_beside_them() {
    for pause in (2_000..4_500).step_by(50) {
        for seed in 1..20 {
            let mut world = World::new(seed * 7_919, 2);
            world.run(9_000);
            world.fault(Fault::Pause(0, pause));
            world.run(pause + 3_000);
        }
    }
}
