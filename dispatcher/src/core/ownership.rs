//! Which partitions this replica takes, keeps and gives away (`protocol.md`, rules 5, 6 and 8).
//!
//! What it is told may be late or out of date. It decides nothing that has to be true at the
//! moment it happens: a partition is taken by an append that holds only while the epoch entry
//! that the decision was made on is still the last one, and whoever loses one is told by the log.
//! So two replicas that see the living differently may both try, and only one succeeds.
//!
//! Each partition belongs to the living replica that rendezvous hashing names. A holder that
//! lives gives a partition away by itself; nobody takes it from it.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::domain::membership::Standing;
use shared::ids::{Epoch, PartitionId, ReplicaId, Sequence};
use shared::partition::{PartitionCount, owner_of};

/// For how long a replica must have been seen before it is given what others hold: one that comes
/// and goes must not make partitions come and go. Longer than a dead replica's key remains.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// After a takeover that failed, and after a partition was lost: the log is likely to tell more.
const REST: Duration = Duration::from_millis(500);
/// After a fault, which is likely to come again.
const FAULT_REST: Duration = Duration::from_secs(10);
/// How often the log is asked whether a holder that lives has released.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The last epoch entry of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    pub epoch: Epoch,
    pub owner: ReplicaId,
    /// Where it lies in JOURNAL.
    pub sequence: Sequence,
}

/// Why a partition may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// Nobody ever held it.
    None,
    /// Its holder gave it up in good order.
    Released,
    /// Its holder is dead by rule 5.
    Dead(ReplicaId),
    /// The last epoch entry is this replica's own, and it does not run the partition (rule 8).
    Own,
}

/// A partition to be taken over. It holds only while the partition's last epoch entry is that of
/// `after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub partition: PartitionId,
    pub after: Option<Holding>,
    pub predecessor: Predecessor,
}

/// Why a takeover came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeFailure {
    /// Somebody else was first, or JetStream was away: may be tried again.
    Passing,
    /// The logs do not fit together: an operator must look (rule 7).
    Stopped,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Who lives, and among them who takes partitions.
    Members {
        standing: Standing,
        living: Vec<Living>,
    },
    /// JOURNAL tells of an epoch entry, each once and in order for a partition.
    EpochRead {
        partition: PartitionId,
        holding: Holding,
    },
    /// All epoch entries that there were at the start have been read.
    EpochsRead,
    /// The holder of this epoch has released the partition.
    Released {
        partition: PartitionId,
        epoch: Epoch,
    },
    /// A takeover is complete but for starting the partition.
    Taken {
        partition: PartitionId,
        holding: Holding,
    },
    TakeFailed {
        partition: PartitionId,
        failure: TakeFailure,
    },
    /// The log refused a pack: somebody else owns the partition.
    Deposed {
        partition: PartitionId,
        epoch: Epoch,
    },
    /// The partition ended by a fault.
    Failed {
        partition: PartitionId,
        epoch: Epoch,
    },
    /// A later release wrote what this one cannot read: the partition is not for it (rule 26).
    Unreadable {
        partition: PartitionId,
        epoch: Epoch,
    },
    TimePassed,
    /// The replica gives all away and takes no more.
    Leave,
}

/// One of the living.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Living {
    pub replica: ReplicaId,
    /// It gives its partitions away, and is given none.
    pub leaving: bool,
}

/// What the shell is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Take it over, and report [`Input::Taken`] or [`Input::TakeFailed`].
    Take(Claim),
    /// Run what was taken.
    Start(PartitionId),
    /// Let what is under way end, release, and report [`Input::Released`] or [`Input::Deposed`].
    Release(PartitionId),
    /// Drop it at once; nothing more of it may be sent or appended.
    Stop(PartitionId),
    /// Find out whether the holder of this epoch has released, and report
    /// [`Input::Released`] if so.
    Look(PartitionId, Epoch),
}

/// What this replica does with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Taking,
    Owned(Epoch),
    Releasing(Epoch),
    /// By rule 7, until somebody else takes it.
    Stopped,
}

/// What is known of a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    held: Option<Holding>,
    /// The last epoch whose holder is known to have released.
    released: Option<Epoch>,
    phase: Option<Phase>,
    /// Given up, until somebody else has had it: this replica cannot read all of it.
    unreadable: bool,
    /// Nothing is tried before.
    rests_until: Duration,
    /// The holder before this replica's own epoch entry, as long as no takeover is complete: that
    /// it is dead is looked at again after the entry.
    suspect: Option<ReplicaId>,
}

/// The state of this replica's ownership. Times are those of `Clock::uptime`.
#[derive(Debug)]
pub struct Ownership {
    me: ReplicaId,
    standing: Standing,
    /// It tells the others that it takes nothing: they count without it, and so does it.
    withdrawn: bool,
    living: BTreeMap<ReplicaId, Seen>,
    places: BTreeMap<PartitionId, Place>,
    epochs_read: bool,
    leaving: bool,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    since: Duration,
    leaving: bool,
}

impl Ownership {
    pub fn new(me: ReplicaId, partitions: PartitionCount) -> Self {
        Self {
            me,
            standing: Standing::Lapsed,
            withdrawn: false,
            living: BTreeMap::new(),
            places: partitions
                .all()
                .map(|partition| (partition, Place::default()))
                .collect(),
            epochs_read: false,
            leaving: false,
        }
    }

    /// Takes note of what happened and says what is to be done.
    pub fn step(&mut self, now: Duration, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Members { standing, living } => {
                self.note_members(now, standing, &living);
                self.decide_all(now, &mut effects);
            }
            Input::EpochsRead => {
                self.epochs_read = true;
                self.decide_all(now, &mut effects);
            }
            Input::TimePassed => self.decide_all(now, &mut effects),
            Input::Leave => {
                self.leaving = true;
                self.decide_all(now, &mut effects);
            }
            Input::EpochRead { partition, holding } => {
                let is_own = holding.owner == self.me;
                self.note(partition, |place| {
                    place.epoch_read(now, holding, is_own, partition, &mut effects);
                });
                self.decide(now, partition, &mut effects);
            }
            Input::Released { partition, epoch } => {
                self.note(partition, |place| place.released(epoch));
                self.decide(now, partition, &mut effects);
            }
            Input::Taken { partition, holding } => {
                self.note(partition, |place| {
                    place.taken(now, holding, partition, &mut effects);
                });
                self.decide(now, partition, &mut effects);
            }
            Input::TakeFailed { partition, failure } => {
                self.note(partition, |place| place.take_failed(now, failure));
            }
            Input::Deposed { partition, epoch } => self.note(partition, |place| {
                place.lost(now.saturating_add(REST), epoch, partition, &mut effects);
            }),
            Input::Unreadable { partition, epoch } => {
                self.note(partition, |place| {
                    place.unreadable |= place.phase == Some(Phase::Owned(epoch));
                });
                self.decide(now, partition, &mut effects);
            }
            Input::Failed { partition, epoch } => self.note(partition, |place| {
                place.lost(
                    now.saturating_add(FAULT_REST),
                    epoch,
                    partition,
                    &mut effects,
                );
            }),
        }
        effects
    }

    /// Whether everything that belongs to this replica is run by it.
    pub fn is_complete(&self) -> bool {
        let candidates = self.candidates(|_| true);
        self.epochs_read
            && !self.withdrawn
            && self.standing != Standing::Lapsed
            && self.places.iter().all(|(partition, place)| {
                matches!(place.phase, Some(Phase::Owned(_)))
                    || owner_of(*partition, &candidates) != Some(self.me)
            })
    }

    /// Whether nothing is run or being taken.
    pub fn is_empty(&self) -> bool {
        self.places
            .values()
            .all(|place| matches!(place.phase, None | Some(Phase::Stopped)))
    }

    fn note(&mut self, partition: PartitionId, note: impl FnOnce(&mut Place)) {
        if let Some(place) = self.places.get_mut(&partition) {
            note(place);
        }
    }

    fn note_members(&mut self, now: Duration, standing: Standing, living: &[Living]) {
        self.standing = standing;
        let is_own = |living: &&Living| living.replica == self.me;
        self.withdrawn = living.iter().find(is_own).is_some_and(|own| own.leaving);
        let before = std::mem::take(&mut self.living);
        let seen = |living: &Living| {
            let since = before.get(&living.replica).map_or(now, |seen| seen.since);
            let leaving = living.leaving;
            (living.replica, Seen { since, leaving })
        };
        self.living = living.iter().map(seen).collect();
    }

    fn decide_all(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let partitions: Vec<PartitionId> = self.places.keys().copied().collect();
        for partition in partitions {
            self.decide(now, partition, effects);
        }
    }

    fn decide(&mut self, now: Duration, partition: PartitionId, effects: &mut Vec<Effect>) {
        let Some(place) = self.places.get(&partition).copied() else {
            return;
        };
        let decided = match place.phase {
            Some(Phase::Taking | Phase::Releasing(_) | Phase::Stopped) => None,
            Some(Phase::Owned(epoch)) => self
                .gives_away(now, partition, &place)
                .then_some((Effect::Release(partition), Some(Phase::Releasing(epoch)))),
            None => self.takes(now, partition, &place),
        };
        let Some((effect, phase)) = decided else {
            return;
        };
        effects.push(effect);
        self.note(partition, |place| {
            place.phase = phase;
            match effect {
                Effect::Look(..) => place.rests_until = now.saturating_add(LOOK_EVERY),
                Effect::Take(claim) => {
                    if let Predecessor::Dead(holder) = claim.predecessor {
                        place.suspect = Some(holder);
                    }
                }
                Effect::Start(_) | Effect::Release(_) | Effect::Stop(_) => {}
            }
        });
    }

    fn gives_away(&self, now: Duration, partition: PartitionId, place: &Place) -> bool {
        if self.leaving || place.unreadable {
            return true;
        }
        let settled = |seen: &Seen| seen.since.saturating_add(SETTLED_AFTER) <= now;
        let owner = owner_of(partition, &self.candidates(settled));
        self.standing != Standing::Lapsed && owner.is_some_and(|owner| owner != self.me)
    }

    fn takes(
        &self,
        now: Duration,
        partition: PartitionId,
        place: &Place,
    ) -> Option<(Effect, Option<Phase>)> {
        if !self.epochs_read
            || self.leaving
            || place.unreadable
            || self.standing == Standing::Lapsed
            || now < place.rests_until
        {
            return None;
        }
        let is_mine = owner_of(partition, &self.candidates(|_| true)) == Some(self.me);
        let is_released = |held: &Holding| place.released == Some(held.epoch);
        let predecessor = match place.held {
            None => Predecessor::None,
            Some(held) if is_released(&held) => Predecessor::Released,
            Some(held) if held.owner == self.me => {
                place.suspect.map_or(Predecessor::Own, Predecessor::Dead)
            }
            Some(held) if self.living.contains_key(&held.owner) => {
                let look = Effect::Look(partition, held.epoch);
                return is_mine.then_some((look, None));
            }
            Some(held) if self.standing == Standing::Certain => Predecessor::Dead(held.owner),
            Some(_) => return None,
        };
        // What it holds by name alone nobody else can take while it lives.
        let is_own = place.held.is_some_and(|held| held.owner == self.me);
        if !is_mine && (!is_own || predecessor == Predecessor::Released) {
            return None;
        }
        let claim = Claim {
            partition,
            after: place.held,
            predecessor,
        };
        Some((Effect::Take(claim), Some(Phase::Taking)))
    }

    /// Who may own partitions, this replica always, unless it leaves or has withdrawn. A replica
    /// that has withdrawn keeps what nobody else could have.
    fn candidates(&self, counts: impl Fn(&Seen) -> bool) -> Vec<ReplicaId> {
        let peers = self
            .living
            .iter()
            .filter(|(id, seen)| **id != self.me && !seen.leaving && counts(seen));
        let me = (!self.leaving && !self.withdrawn).then_some(self.me);
        peers.map(|(id, _)| *id).chain(me).collect()
    }
}

impl Place {
    fn epoch_read(
        &mut self,
        now: Duration,
        holding: Holding,
        is_own: bool,
        partition: PartitionId,
        effects: &mut Vec<Effect>,
    ) {
        if self.held.is_some_and(|held| held.epoch >= holding.epoch) {
            return;
        }
        self.held = Some(holding);
        self.unreadable &= is_own;
        match self.phase {
            Some(Phase::Owned(_) | Phase::Releasing(_)) => {
                effects.push(Effect::Stop(partition));
                self.rest(now);
            }
            Some(Phase::Stopped) if !is_own => self.phase = None,
            // The takeover itself finds out whether this is its own entry.
            Some(Phase::Taking | Phase::Stopped) | None => {}
        }
    }

    fn released(&mut self, epoch: Epoch) {
        self.released = self.released.max(Some(epoch));
        if self.phase == Some(Phase::Releasing(epoch)) {
            self.phase = None;
            self.rests_until = Duration::ZERO;
        }
    }

    fn taken(
        &mut self,
        now: Duration,
        holding: Holding,
        partition: PartitionId,
        effects: &mut Vec<Effect>,
    ) {
        if self.phase != Some(Phase::Taking) {
            return;
        }
        if self.held.is_some_and(|held| held.epoch > holding.epoch) {
            self.rest(now);
            return;
        }
        self.held = Some(holding);
        self.suspect = None;
        self.phase = Some(Phase::Owned(holding.epoch));
        effects.push(Effect::Start(partition));
    }

    fn take_failed(&mut self, now: Duration, failure: TakeFailure) {
        match failure {
            TakeFailure::Passing => self.rest(now),
            TakeFailure::Stopped => self.phase = Some(Phase::Stopped),
        }
    }

    fn lost(
        &mut self,
        rests_until: Duration,
        epoch: Epoch,
        partition: PartitionId,
        effects: &mut Vec<Effect>,
    ) {
        let is_run =
            self.phase == Some(Phase::Owned(epoch)) || self.phase == Some(Phase::Releasing(epoch));
        if is_run {
            effects.push(Effect::Stop(partition));
            self.phase = None;
            self.rests_until = rests_until;
        }
    }

    /// It is not run here any more, and may be taken again in a while.
    fn rest(&mut self, now: Duration) {
        self.phase = None;
        self.rests_until = now.saturating_add(REST);
    }
}
