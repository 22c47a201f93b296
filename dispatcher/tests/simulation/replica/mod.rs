//! A dispatcher process: its place among the living, how it takes a partition, what it has seen
//! of the streams. It stands in for the actors: what they decide is decided by the same core.

mod takeover;

use shared::codec;
use shared::domain::journal::JournalEntry;
use shared::domain::state::PartitionState;
use shared::ids::{ReplicaId, Sequence, WebhookId};
use shared::time::Timestamp;

use dispatcher::core::delivery::{AttemptOutcome, ReplayInput};

use crate::child::ChildWake;
use crate::owner::{Ended, Owner};
use crate::settings::Plant;
use crate::streams::{Append, Appended, Refused, Subject};
use crate::world::{World, within};

/// Of a membership's key, and of the lease that it gives.
const TTL_MS: i64 = 3_000;
const RENEW_MS: i64 = 1_000;
/// From the sending of a renewal to its storing, at most.
const RENEWAL_TAKES_MS: i64 = 40;
/// A membership's length and the longest timeout of an attempt (rule 9).
const PREDECESSOR_MS: i64 = 33_000;
const APPEND_TIMEOUT_MS: i64 = 2_000;
const MINUTE: i64 = 60_000;

/// What a process is woken by.
#[derive(Clone, Debug)]
pub(crate) enum Wake {
    Ownership,
    Release,
    Tail,
    Registry,
    AppendAnswered(u64, Result<Appended, Refused>),
    AppendTimedOut(u64),
    Take(Step),
    PostEnded(usize, AttemptOutcome),
    Owner(u64, OwnerWake),
    Replay(WebhookId, ReplayInput),
}

/// For the owner of an epoch; another is not concerned.
#[derive(Clone, Debug)]
pub(crate) enum OwnerWake {
    Tick,
    Pump,
    Append,
    Scan(Sequence),
    Count(crate::owner::Counting),
    LookAtAges,
    CountExpiring(shared::ids::WebhookId),
    Snapshot,
    Child(shared::ids::WebhookId, u64, ChildWake),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    ReadEpoch,
    Announce,
    /// Until then at most.
    Outlive(i64),
    Fold,
    CheckEvents,
    CatchUp,
}

/// A takeover under way.
#[derive(Debug)]
struct Taking {
    /// The last epoch entry that the decision was made on.
    after: u64,
    epoch: u64,
    append: Option<Append>,
    token: Option<u64>,
    fence: u64,
    state: PartitionState,
    is_released: bool,
    /// Who was dead by the decision.
    predecessor: Option<ReplicaId>,
    began_at: Timestamp,
    /// True time of the append that is known stored.
    announced_at: i64,
    known: u64,
}

/// What is the process' own, whatever it owns.
pub(crate) struct Host {
    pub(crate) index: usize,
    pub(crate) replica: ReplicaId,
    started_at: i64,
    died_at: Option<i64>,
    phase: i64,
    pauses: Vec<(i64, i64)>,
    cuts: Vec<(i64, i64)>,
    clock_ahead_ms: i64,
    pub(crate) registry_seen: u64,
    /// EVENTS are handed on through here.
    tail: u64,
    tokens: u64,
}

pub(crate) struct Process {
    host: Host,
    taking: Option<Taking>,
    owner: Option<Owner>,
    stopped: bool,
}

impl Host {
    pub(crate) fn wall(&self, world: &World) -> Timestamp {
        Timestamp::from_millis(world.now + self.clock_ahead_ms)
    }

    pub(crate) fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    /// When the membership was last renewed, at or before `at`.
    fn renewed_at(&self, world: &World, at: i64) -> Option<i64> {
        let at = self.died_at.map_or(at, |died| died.min(at));
        let behind = (at - self.phase).rem_euclid(RENEW_MS);
        let last = at - behind;
        (0..5)
            .map(|back| last - back * RENEW_MS)
            .find(|renewal| *renewal >= self.started_at && self.could_renew(world, *renewal))
    }

    fn could_renew(&self, world: &World, at: i64) -> bool {
        !within(&world.membership_outages, at)
            && !within(&self.pauses, at)
            && !within(&self.cuts, at)
    }

    /// Whether it may send.
    pub(crate) fn has_lease(&self, world: &World) -> bool {
        let renewed = self.renewed_at(world, world.now);
        renewed.is_some_and(|renewed| world.now < renewed + TTL_MS)
    }

    /// Whether others see it: an outage takes all keys with it, until they are renewed.
    fn has_key(&self, world: &World) -> bool {
        let outages = world.membership_outages.iter();
        let ends = outages.map(|(_, until)| *until);
        let vanished_at = ends.filter(|until| *until <= world.now).max();
        self.renewed_at(world, world.now).is_some_and(|renewed| {
            Some(renewed) >= vanished_at && world.now < renewed + RENEWAL_TAKES_MS + TTL_MS
        })
    }

    /// Whether a peer's absence counts for it: it has itself renewed without a gap (rule 5).
    fn is_certain(&self, world: &World) -> bool {
        let newest = (world.now - self.phase).rem_euclid(RENEW_MS);
        let newest = world.now - newest;
        newest - TTL_MS >= self.started_at
            && (0..=TTL_MS / RENEW_MS).all(|back| self.could_renew(world, newest - back * RENEW_MS))
    }

    /// Whether its lease may have lapsed since; rather too often than not.
    pub(crate) fn may_have_lapsed(&self, world: &World, since: i64) -> bool {
        let times = [&self.pauses, &self.cuts, &world.membership_outages];
        times.into_iter().flatten().any(|(from, until)| {
            until - from >= TTL_MS - RENEW_MS - 100 && *from <= world.now && *until > since - TTL_MS
        })
    }

    /// Sends an append; its answer comes under the token, or a timeout does.
    pub(crate) fn append(&mut self, append: &Append, world: &mut World) -> u64 {
        let token = self.token();
        let reply = Some((self.index, token));
        let (lost, late) = (world.settings.append_lost, world.settings.append_late);
        let arrives =
            |append: &Append, reply| crate::world::Happening::Arrives(append.clone(), reply);
        if world.misfortune(late) {
            // Stored after its author has given up on it, or was deposed.
            let in_ms = world.chance.within(100, 40_000);
            world.at(in_ms, arrives(append, None));
        } else if !world.misfortune(lost) {
            let in_ms = world.chance.within(1, 8);
            world.at(in_ms, arrives(append, reply));
        }
        world.wake(self.index, APPEND_TIMEOUT_MS, Wake::AppendTimedOut(token));
        token
    }
}

impl Process {
    pub(crate) fn start(index: usize, world: &mut World) -> Self {
        let host = Host {
            index,
            replica: ReplicaId::from_bytes([u8::try_from(index + 1).unwrap(); 16]),
            started_at: world.now,
            died_at: None,
            phase: world.chance.within(0, RENEW_MS - 1),
            pauses: Vec::new(),
            cuts: Vec::new(),
            clock_ahead_ms: world.chance.within(-500, 500),
            registry_seen: 0,
            tail: world.events.last(),
            tokens: 0,
        };
        world.note(|| format!("process {index} starts"));
        for after in [0, 1_000, 4_200, 8_000] {
            let jitter = world.chance.within(0, 900);
            world.wake(index, after + jitter, Wake::Ownership);
        }
        Self {
            host,
            taking: None,
            owner: None,
            stopped: false,
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.host.died_at.is_none() && !self.stopped
    }

    pub(crate) fn kill(&mut self, now: i64) {
        self.host.died_at = Some(now);
        self.taking = None;
        self.owner = None;
    }

    pub(crate) fn pause(&mut self, from: i64, until: i64) {
        self.host.pauses.push((from, until));
    }

    pub(crate) fn cut(&mut self, from: i64, until: i64) {
        self.host.cuts.push((from, until));
    }

    pub(crate) fn set_clock(&mut self, ahead_ms: i64) {
        self.host.clock_ahead_ms = ahead_ms;
    }

    pub(crate) fn end_faults(&mut self, now: i64) {
        for time in self.host.pauses.iter_mut().chain(&mut self.host.cuts) {
            time.1 = time.1.min(now);
        }
    }

    pub(crate) fn paused_until(&self, now: i64) -> Option<i64> {
        let pauses = self.host.pauses.iter();
        let until = pauses.filter(|(from, until)| (*from..*until).contains(&now));
        until.map(|(_, until)| *until).max()
    }

    pub(crate) fn owns(&self) -> bool {
        self.is_alive() && self.owner.is_some()
    }

    pub(crate) fn has_come_to_rest(&self, world: &World) -> bool {
        let is_at_rest = |owner: &Owner| owner.has_come_to_rest(world);
        !self.is_alive() || (self.taking.is_none() && self.owner.as_ref().is_none_or(is_at_rest))
    }

    pub(crate) fn describe(&self) -> Option<String> {
        self.owner
            .as_ref()
            .map(|owner| format!("{}: {}", self.host.index, owner.describe()))
    }

    fn is_well(&self, world: &World) -> bool {
        self.owns() && self.host.has_lease(world) && self.paused_until(world.now).is_none()
    }

    pub(crate) fn handle(&mut self, wake: Wake, world: &mut World) {
        match wake {
            Wake::Ownership => self.look(world),
            Wake::Release => {
                if let Some(owner) = &mut self.owner {
                    owner.release(&mut self.host, world);
                }
            }
            Wake::Tail => self.follow(world),
            Wake::Registry => self.project(world),
            Wake::AppendAnswered(token, outcome) => self.answered(token, Some(outcome), world),
            Wake::AppendTimedOut(token) => self.answered(token, None, world),
            Wake::Take(step) => self.take(step, world),
            Wake::PostEnded(post, outcome) => self.post_ended(post, outcome, world),
            Wake::Replay(webhook, input) => {
                if let Some(owner) = &mut self.owner {
                    owner.replay_asked(webhook, input, &mut self.host, world);
                }
            }
            Wake::Owner(epoch, wake) => {
                if let Some(owner) = self.owner.as_mut().filter(|owner| owner.epoch == epoch) {
                    owner.handle(wake, &mut self.host, world);
                }
            }
        }
        self.reap(world);
    }

    /// An owner that was deposed or has released is gone.
    fn reap(&mut self, world: &mut World) {
        let Some(ended) = self.owner.as_ref().and_then(Owner::ended) else {
            return;
        };
        let index = self.host.index;
        world.note(|| format!("process {index} owns no more: {ended:?}"));
        self.owner = None;
        match ended {
            Ended::Deposed | Ended::Released => {
                world.wake(index, 1_000, Wake::Ownership);
            }
        }
    }

    /// Whether the partition is to be taken, and by whom nobody can say: two may try.
    fn look(&mut self, world: &mut World) {
        if let Some(owner) = &mut self.owner {
            // The epoch entries are followed: another's is the end of one's own.
            let last = world.journal.last_of(Subject::Epoch);
            if last.is_some_and(|last| last.sequence > owner.fence) {
                owner.depose();
            }
            return;
        }
        if self.taking.is_some() {
            return;
        }
        let is_well = world.processes().any(|process| process.is_well(world));
        let again = if is_well {
            10 * MINUTE
        } else {
            world.chance.within(300, 2_000)
        };
        world.wake(self.host.index, again, Wake::Ownership);
        // Nobody sees who lives while membership is away.
        let sees = !within(&world.membership_outages, world.now);
        if world.logs_are_away() || !sees || !self.host.has_lease(world) {
            return;
        }
        let last = world.journal.last_of(Subject::Epoch);
        let (after, holder) = match last {
            Some(last) => {
                let entry = codec::decode_epoch(&last.bytes).unwrap();
                (last.sequence, Some(entry.owner))
            }
            None => (0, None),
        };
        let is_released = released(world, after);
        let is_own = holder == Some(self.host.replica);
        let is_seen = holder.is_some_and(|holder| is_seen(holder, world));
        let is_dead = !is_seen && !is_own && self.host.is_certain(world);
        if holder.is_none() || is_released || is_own || is_dead {
            let began_at = self.host.wall(world);
            self.taking = Some(Taking {
                after,
                epoch: 0,
                append: None,
                token: None,
                fence: 0,
                state: PartitionState::default(),
                is_released: is_released || holder.is_none(),
                predecessor: holder.filter(|_| is_dead),
                began_at,
                announced_at: world.now,
                known: 0,
            });
            let first = if world.settings.plants(Plant::FoldStoppedBeforeEpoch) {
                Step::Fold
            } else {
                Step::ReadEpoch
            };
            self.go_on(first, world);
        }
    }

    fn answered(
        &mut self,
        token: u64,
        outcome: Option<Result<Appended, Refused>>,
        world: &mut World,
    ) {
        if let Some(owner) = &mut self.owner {
            owner.answered(token, outcome, &mut self.host, world);
        }
        let Some(taking) = self
            .taking
            .as_mut()
            .filter(|taking| taking.token == Some(token))
        else {
            return;
        };
        taking.token = None;
        match outcome {
            Some(Ok(appended)) => taking.fence = appended.sequence,
            Some(Err(Refused::Conflict)) => {
                // After a lost acknowledgement the conflict may be with our own entry.
                let id = taking.append.as_ref().map(|append| append.id.clone());
                match world.journal.last_of(Subject::Epoch) {
                    Some(last) if Some(&last.id) == id.as_ref() => taking.fence = last.sequence,
                    Some(_) | None => {
                        self.taking = None;
                        world.wake(self.host.index, 500, Wake::Ownership);
                        return;
                    }
                }
            }
            Some(Err(Refused::Busy)) | None => {
                world.wake(self.host.index, 50, Wake::Take(Step::Announce));
                return;
            }
        }
        let next = if world.settings.plants(Plant::FoldStoppedBeforeEpoch) {
            Step::CheckEvents
        } else {
            Step::Outlive(world.now + TTL_MS)
        };
        self.go_on(next, world);
    }

    fn follow(&mut self, world: &mut World) {
        let last = world.events.last();
        let after = self.host.tail;
        if after >= last {
            return;
        }
        let fails = world.settings.tail_fails;
        let through = if world.misfortune(fails) {
            // The rest comes later.
            world.wake(self.host.index, 700, Wake::Tail);
            after + 1 + world.chance.below(last - after)
        } else {
            last
        };
        self.host.tail = through;
        let Some(owner) = &mut self.owner else {
            return;
        };
        if world.misfortune(fails / 2) {
            // Lost on its way; what comes next leaves a gap.
            if through == last {
                world.wake(
                    self.host.index,
                    1_000,
                    Wake::Owner(owner.epoch, OwnerWake::Scan(Sequence(last))),
                );
            }
            return;
        }
        let again = if world.misfortune(fails / 2) {
            world.chance.below(3).min(after)
        } else {
            0
        };
        let stretch = world.events.stretch(
            (Sequence(after - again), Sequence(through)),
            None,
            usize::MAX,
        );
        owner.take(&stretch, &mut self.host, world);
    }

    fn project(&mut self, world: &mut World) {
        let (seen, last) = (self.host.registry_seen, world.registry.last());
        if seen >= last {
            return;
        }
        let late = world.settings.projection_late;
        let through = if world.misfortune(late) {
            world.wake(self.host.index, 900, Wake::Registry);
            seen + 1
        } else {
            last
        };
        self.host.registry_seen = through;
        for sequence in seen + 1..=through {
            let webhook = world.registry.get(sequence).unwrap().webhook;
            if let Some(owner) = &mut self.owner {
                owner.registry_moved(webhook, &mut self.host, world);
            }
        }
    }

    fn post_ended(&mut self, post: usize, outcome: AttemptOutcome, world: &mut World) {
        if world.posts[post].ended.is_some() {
            return;
        }
        let is_success = matches!(outcome, AttemptOutcome::Delivered { .. });
        world.posts[post].ended = Some((world.now, is_success));
        if let Some(owner) = &mut self.owner {
            owner.post_ended(post, outcome, &mut self.host, world);
        }
    }
}

/// Whether others see the replica's key.
fn is_seen(replica: ReplicaId, world: &World) -> bool {
    let mut processes = world.processes();
    processes.any(|process| process.host.replica == replica && process.host.has_key(world))
}

/// Whether the owner since the epoch entry at `fence` has released the partition.
fn released(world: &World, fence: u64) -> bool {
    let last = world.journal.last_of(Subject::Packs);
    let pack = last
        .filter(|last| last.sequence > fence)
        .and_then(|last| last.pack.as_ref());
    pack.is_some_and(|pack| pack.entries.contains(&JournalEntry::Released))
}
