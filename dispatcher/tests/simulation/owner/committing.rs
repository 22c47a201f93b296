//! The committer: one pack under way, until it is known stored; snapshots of what is; the release.

use shared::codec;
use shared::domain::journal::{JournalEntry, Pack};
use shared::ids::Sequence;

use super::{BUSY_RETRY_MS, Committing, Ended, Owner, RELEASE_MS, RETRY_MS};
use crate::checker::Checker;
use crate::replica::{Host, OwnerWake, Wake};
use crate::settings::Plant;
use crate::streams::{Append, Appended, Refused, Snapshot, Subject};
use crate::world::World;

impl Owner {
    pub(super) fn pump(&mut self, host: &mut Host, world: &mut World) {
        let sends_ahead = world.settings.plants(Plant::PackSentAhead);
        if self.ended.is_some() || (!self.committing.is_empty() && !sends_ahead) {
            return;
        }
        let now = self.now(host, world);
        let Some(pack) = self.commits.next_pack(now).cloned() else {
            return;
        };
        let append = self.append_of(&pack, world);
        let token = Some(host.append(&append, world));
        self.committing.push(Committing {
            append,
            number: pack.number,
            token,
            in_doubt: false,
            made_at: world.now,
        });
        if sends_ahead {
            self.commits.pack_stored(Sequence(pack.number));
        }
        let chance = world.settings.snapshots;
        if !sends_ahead && world.chance.per_mille(chance) {
            let in_ms = world.chance.within(0, 30);
            world.wake(
                host.index,
                in_ms,
                Wake::Owner(self.epoch, OwnerWake::Snapshot),
            );
        }
    }

    /// Appends once more what was not answered, unless it lies there already: after the dedup
    /// window it would be stored at a second place.
    pub(super) fn repeat(&mut self, host: &mut Host, world: &mut World) {
        let waits = |committing: &Committing| committing.token.is_none();
        let Some(index) = self.committing.iter().position(waits) else {
            return;
        };
        if self.committing[index].in_doubt {
            if world.logs_are_away() {
                let wake = Wake::Owner(self.epoch, OwnerWake::Append);
                world.wake(host.index, RETRY_MS, wake);
                return;
            }
            let last = world.journal.last_of(Subject::Packs);
            let own = last.filter(|last| last.id == self.committing[index].append.id);
            if let Some(at) = own.map(|own| Sequence(own.sequence)) {
                self.stored(index, at, host, world);
                return;
            }
        }
        let append = self.committing[index].append.clone();
        self.committing[index].token = Some(host.append(&append, world));
    }

    pub(super) fn append_of(&self, pack: &Pack, world: &World) -> Append {
        Append {
            subject: Subject::Packs,
            id: format!("pack-{}-{}", pack.epoch.0, pack.number),
            bytes: codec::encode_pack(pack),
            expected: (!world.settings.plants(Plant::NoFence)).then_some(self.fence),
            may_release: pack.entries.contains(&JournalEntry::Released),
        }
    }

    pub(crate) fn answered(
        &mut self,
        token: u64,
        outcome: Option<Result<Appended, Refused>>,
        host: &mut Host,
        world: &mut World,
    ) {
        let is_it = |committing: &Committing| committing.token == Some(token);
        let Some(index) = self.committing.iter().position(is_it) else {
            return;
        };
        let committing = &mut self.committing[index];
        committing.token = None;
        let again = match outcome {
            Some(Ok(appended)) => {
                self.stored(index, Sequence(appended.sequence), host, world);
                return;
            }
            Some(Err(Refused::Conflict)) => {
                let last = world.journal.last_of(Subject::Packs);
                let last =
                    last.filter(|last| committing.in_doubt && last.id == committing.append.id);
                match last.map(|last| Sequence(last.sequence)) {
                    Some(at) => self.stored(index, at, host, world),
                    None => self.ended = Some(Ended::Deposed),
                }
                return;
            }
            Some(Err(Refused::Busy)) => BUSY_RETRY_MS,
            None => {
                committing.in_doubt = true;
                RETRY_MS
            }
        };
        world.wake(
            host.index,
            again,
            Wake::Owner(self.epoch, OwnerWake::Append),
        );
    }

    pub(super) fn stored(
        &mut self,
        index: usize,
        at: Sequence,
        host: &mut Host,
        world: &mut World,
    ) {
        let stored = self.committing.remove(index);
        if !world.settings.plants(Plant::PackSentAhead) {
            self.commits.pack_stored(at);
            Checker::committed(world, self.epoch, stored.number, self.commits.state());
        }
        self.unstored.clear();
        // Only an append that was made since shows that the partition is still its own.
        if !host.may_have_lapsed(world, stored.made_at) {
            self.must_confirm = false;
            self.confirmed_at = stored.made_at;
        }
        if self.has_released && self.commits.is_empty() {
            self.ended = Some(Ended::Released);
            return;
        }
        self.pump(host, world);
        self.open_gate(host, world);
        self.after(host, world);
    }

    pub(super) fn snapshot(&mut self, world: &mut World) {
        let mut state = self.commits.state().clone();
        if world.settings.plants(Plant::SnapshotWithUncommitted)
            && let Some((epoch, number)) = state.last
        {
            let ahead = Pack {
                epoch,
                number: number + 1,
                at: state.now,
                classified: self.core.classified().position,
                checkpoint: None,
                counted: Vec::new(),
                counts_continue: false,
                entries: self.unstored.clone(),
            };
            let (last, journal) = (state.last, state.journal);
            state.apply(journal, &ahead).unwrap();
            state.last = last;
        }
        world.note(|| format!("snapshot at {}", state.journal));
        world.snapshots.put(Snapshot {
            epoch: self.epoch,
            journal: state.journal.0,
            bytes: codec::encode_state(&state),
        });
    }

    /// Lets what is under way end, and says so as its last word.
    pub(crate) fn release(&mut self, host: &mut Host, world: &mut World) {
        if self.releasing_since.is_none() {
            world.note(|| format!("epoch {} is to be released", self.epoch));
            self.releasing_since = Some(world.now);
        }
        self.after(host, world);
    }

    pub(super) fn let_go(&mut self, host: &mut Host, world: &mut World) {
        let Some(since) = self.releasing_since else {
            return;
        };
        if self.has_released {
            return;
        }
        if !self.is_halted {
            // A release that takes too long is none.
            if world.now - since > RELEASE_MS {
                self.releasing_since = None;
                self.waiting.extend(self.children.keys());
                return;
            }
            self.is_halted = self.under_way == 0;
        }
        if !self.is_halted || !self.commits.is_empty() {
            return;
        }
        self.push(JournalEntry::Released, host, world);
        self.has_released = true;
        self.pump(host, world);
    }
}
