//! Becoming the owner, step by step, in the order of rule 6.

use shared::codec;
use shared::domain::journal::EpochEntry;
use shared::domain::state::PartitionState;
use shared::ids::{Epoch, Sequence};
use shared::time::Timestamp;

use super::{PREDECESSOR_MS, Process, Step, Wake, is_seen};
use crate::checker::Checker;
use crate::owner::{Owner, Taken};
use crate::settings::Plant;
use crate::streams::{Append, Subject};
use crate::world::World;

/// How often a predecessor is looked at that has come back to life.
const LOOK_MS: i64 = 200;

impl Process {
    pub(super) fn go_on(&self, step: Step, world: &mut World) {
        let in_ms = if world.misfortune(100) {
            world.chance.within(0, 4_000)
        } else {
            world.chance.within(0, 10)
        };
        world.wake(self.host.index, in_ms, Wake::Take(step));
    }

    /// One step of a takeover, in the order of rule 6.
    pub(super) fn take(&mut self, step: Step, world: &mut World) {
        let Some(taking) = &mut self.taking else {
            return;
        };
        let fails = world.settings.read_fails;
        if world.logs_are_away() || world.misfortune(fails / 2) {
            world.wake(self.host.index, 500, Wake::Take(step));
            return;
        }
        let mut next = None;
        match step {
            Step::ReadEpoch => {
                let last = world.journal.last_of(Subject::Epoch);
                let (epoch, expected) = last.map_or((0, 0), |last| {
                    (
                        codec::decode_epoch(&last.bytes).unwrap().epoch.0,
                        last.sequence,
                    )
                });
                if expected != taking.after {
                    // The decision was about another holder.
                    self.taking = None;
                    world.wake(self.host.index, 500, Wake::Ownership);
                    return;
                }
                taking.epoch = epoch + 1;
                let entry = EpochEntry {
                    epoch: Epoch(taking.epoch),
                    owner: self.host.replica,
                    at: taking.began_at,
                    generation: 1,
                };
                taking.append = Some(Append {
                    subject: Subject::Epoch,
                    id: format!("epoch-{}-{}", taking.epoch, self.host.replica),
                    bytes: codec::encode_epoch(&entry),
                    expected: Some(expected),
                    may_release: false,
                });
                next = Some(Step::Announce);
            }
            Step::Announce => {
                if let Some(append) = taking.append.clone() {
                    taking.announced_at = world.now;
                    taking.token = Some(self.host.append(&append, world));
                }
            }
            // Who was dead may have come back before the epoch entry, and hears of it soon.
            Step::Outlive(until) => {
                let predecessor = taking.predecessor;
                if world.now < until && predecessor.is_some_and(|holder| is_seen(holder, world)) {
                    world.wake(self.host.index, LOOK_MS, Wake::Take(step));
                    return;
                }
                next = Some(Step::Fold);
            }
            Step::Fold => {
                taking.state = fold(world);
                next = Some(
                    if world.settings.plants(Plant::FoldStoppedBeforeEpoch) && taking.fence == 0 {
                        Step::ReadEpoch
                    } else {
                        Step::CheckEvents
                    },
                );
            }
            Step::CheckEvents => {
                check_events(&taking.state, world);
                next = Some(Step::CatchUp);
            }
            Step::CatchUp => {
                // Through the last sequence that is read after the epoch entry.
                self.host.registry_seen = world.registry.last();
                taking.known = self.host.tail;
                self.own(world);
            }
        }
        if let Some(next) = next {
            self.go_on(next, world);
        }
    }

    pub(super) fn own(&mut self, world: &mut World) {
        let Some(taking) = self.taking.take() else {
            return;
        };
        let hold_ends_until = if taking.is_released || taking.state.last.is_none() {
            Timestamp::default()
        } else {
            let now = taking.began_at.max(taking.state.now);
            now.plus_millis(PREDECESSOR_MS)
        };
        let index = self.host.index;
        world.note(|| format!("process {index} owns the partition, epoch {}", taking.epoch));
        Checker::taken(world, taking.epoch, &taking.state);
        let taken = Taken {
            epoch: taking.epoch,
            fence: taking.fence,
            state: taking.state,
            hold_ends_until,
            known: taking.known,
            announced_at: taking.announced_at,
        };
        let mut owner = Owner::new(taken, &mut self.host, world);
        owner.start(&mut self.host, world);
        self.owner = Some(owner);
        // Epoch entries that came meanwhile are heard of now.
        world.wake(self.host.index, 500, Wake::Ownership);
    }
}

/// The newest snapshot that is whole, and what JOURNAL has after it.
fn fold(world: &mut World) -> PartitionState {
    let back = match world.chance.below(10) {
        0..=5 => 0,
        6 | 7 => 1,
        _ => 2,
    };
    let snapshot = world.snapshots.get(back);
    let mut state = match snapshot {
        Some(snapshot) => codec::decode_state(&snapshot.bytes).unwrap(),
        None => PartitionState::default(),
    };
    for message in world.journal.after(state.journal.0) {
        if let Some(pack) = &message.pack {
            let folded = state.apply(Sequence(message.sequence), pack);
            folded.unwrap_or_else(|missing| panic!("the fold stops: {missing}"));
        }
    }
    state
}

fn check_events(state: &PartitionState, world: &World) {
    let classified = state.classified.map_or(0, |position| position.sequence.0);
    assert!(classified <= world.events.last(), "EVENTS went back");
    if let Some(checkpoint) = state.checkpoint {
        let event = world.events.get(checkpoint.position.sequence.0);
        assert_eq!(
            event.map(|event| event.id),
            Some(checkpoint.event),
            "another event"
        );
    }
}
