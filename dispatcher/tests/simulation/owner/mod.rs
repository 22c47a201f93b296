//! The shell of an owned partition: what its actor, its committer and its children do, in the
//! same order, with messages that take their time.

mod committing;
mod expiring;
mod reading;
mod webhooks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dispatcher::core::commits::Commits;
use dispatcher::core::delivery::{AttemptOutcome, ends_pending};
use dispatcher::core::partition::{Partition, Stretch};
use shared::domain::journal::{JournalEntry, SkipReason, UnsentEnd};
use shared::domain::state::PartitionState;
use shared::domain::webhook::Webhook;
use shared::ids::{Epoch, Sequence, WebhookId};
use shared::time::Timestamp;

use crate::checker::Checker;
use crate::child::{Child, ChildWake, Message};
use crate::replica::{Host, OwnerWake, Wake};
use crate::settings::Plant;
use crate::streams::Append;
use crate::world::World;

const TICK_MS: i64 = 200;
const SCAN_RETRY_MS: i64 = 500;
const RETRY_MS: i64 = 100;
const BUSY_RETRY_MS: i64 = 20;
/// A release that takes longer is none: the process ends.
const RELEASE_MS: i64 = 25_000;

pub(crate) struct Taken {
    pub(crate) epoch: u64,
    pub(crate) fence: u64,
    pub(crate) state: PartitionState,
    pub(crate) hold_ends_until: Timestamp,
    pub(crate) known: u64,
    pub(crate) announced_at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Deposed,
    Released,
}

/// A pack on its way.
struct Committing {
    append: Append,
    number: u64,
    token: Option<u64>,
    in_doubt: bool,
    made_at: i64,
}

/// What a creation reaches back to, as far as it is counted.
#[derive(Clone, Debug)]
pub(crate) struct Counting {
    webhook: WebhookId,
    after: Sequence,
    through: Sequence,
    accepted: u64,
    skipped: BTreeMap<SkipReason, u64>,
}

pub(crate) struct Owner {
    pub(crate) epoch: u64,
    pub(crate) fence: u64,
    pub(crate) core: Partition,
    pub(crate) commits: Commits,
    pub(crate) children: BTreeMap<WebhookId, Child>,
    incarnations: u64,
    lagging: BTreeSet<WebhookId>,
    counting: BTreeSet<WebhookId>,
    known: Sequence,
    scanning: bool,
    expiring: expiring::Expiring,
    hold_ends_until: Timestamp,
    /// The latest `now`, and true time at it.
    time: (Timestamp, i64),
    committing: Vec<Committing>,
    pump_asked: bool,
    tick_asked: bool,
    pub(crate) waiting: BTreeSet<WebhookId>,
    /// The lease may have lapsed since: a fenced append must succeed first (rule 5).
    must_confirm: bool,
    confirmed_at: i64,
    /// Since when it lets go.
    releasing_since: Option<i64>,
    /// Nothing is decided here any more; what was is committed.
    is_halted: bool,
    has_released: bool,
    ended: Option<Ended>,
    /// Entries that are not stored, for the planted snapshot.
    unstored: Vec<JournalEntry>,
    /// Attempts from their decision to their end.
    pub(crate) under_way: usize,
}

impl Owner {
    pub(crate) fn new(taken: Taken, host: &mut Host, world: &mut World) -> Self {
        let Taken {
            epoch,
            fence,
            state,
            hold_ends_until,
            known,
            announced_at,
        } = taken;
        let known = Sequence(known);
        let classified = state
            .classified
            .map_or(known, |position| position.sequence)
            .max(Sequence(world.events.first() - 1));
        let mut core = Partition::new(1, classified, state.checkpoint);
        for id in world.registry.webhooks() {
            if let (Some(webhook), Some(told)) = (
                world.registry.webhook(id, host.registry_seen),
                state.webhooks.get(&id),
            ) {
                core.restore(webhook, &told.applied);
            }
        }
        let now = state.now.max(host.wall(world));
        let commits = Commits::new(Epoch(epoch), core.classified(), state);
        Self {
            epoch,
            fence,
            core,
            commits,
            children: BTreeMap::new(),
            incarnations: 0,
            lagging: BTreeSet::new(),
            counting: BTreeSet::new(),
            known: known.max(classified),
            scanning: false,
            expiring: expiring::Expiring::default(),
            hold_ends_until,
            time: (now, world.now),
            committing: Vec::new(),
            pump_asked: false,
            tick_asked: false,
            waiting: BTreeSet::new(),
            must_confirm: false,
            confirmed_at: announced_at,
            releasing_since: None,
            is_halted: false,
            has_released: false,
            ended: None,
            unstored: Vec::new(),
            under_way: 0,
        }
    }

    /// Applies what was decided while nobody owned the partition, and only then starts webhooks.
    pub(crate) fn start(&mut self, host: &mut Host, world: &mut World) {
        for webhook in known_webhooks(host, world) {
            let told = self.commits.state().webhooks.get(&webhook.id);
            if let Some((from, through)) = told.and_then(|told| told.uncounted) {
                self.count_back(webhook.id, from, through, host, world);
            }
            self.configure(&webhook, host, world);
            if webhook.deleted && self.commits.pushed_state(webhook.id).is_some() {
                let end = UnsentEnd::Skipped(SkipReason::Deleted);
                self.delete(&webhook, end, host, world);
                continue;
            }
            self.owe_what_may_not_wait(webhook.id);
            self.wake(&webhook, None, host, world);
        }
        self.scan(self.known, host, world);
        self.consider_expiry(host, world);
        self.after(host, world);
    }

    pub(crate) fn depose(&mut self) {
        self.ended = Some(Ended::Deposed);
    }

    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended
    }

    pub(crate) fn has_come_to_rest(&self, world: &World) -> bool {
        self.core.classified().position.sequence.0 >= world.events.last_ours()
            && self.commits.is_empty()
            && !self.commits.has_counts()
            && self.lagging.is_empty()
    }

    pub(crate) fn describe(&self) -> String {
        format!(
            "epoch {}, lagging {:?}, waiting {:?}, counting {:?}, awake {:?}, packs {}, owed {:?}",
            self.epoch,
            self.lagging,
            self.waiting,
            self.counting,
            self.children.keys(),
            self.committing.len(),
            self.commits.all_owed(),
        )
    }

    /// The partition's time: see `PartitionLog::now`.
    pub(crate) fn now(&mut self, host: &Host, world: &World) -> Timestamp {
        let (last, last_at) = self.time;
        let paced = last.plus_millis(world.now - last_at);
        let now = paced.max(host.wall(world));
        self.time = (now, world.now);
        now
    }

    pub(crate) fn handle(&mut self, wake: OwnerWake, host: &mut Host, world: &mut World) {
        let is_committers = matches!(wake, OwnerWake::Tick | OwnerWake::Pump | OwnerWake::Append);
        if self.is_halted && !is_committers {
            return;
        }
        match wake {
            OwnerWake::Tick => {
                self.tick_asked = false;
                self.tick(host, world);
            }
            OwnerWake::Pump => {
                self.pump_asked = false;
                self.pump(host, world);
            }
            OwnerWake::Append => self.repeat(host, world),
            OwnerWake::Scan(known) => self.scanned(known, host, world),
            OwnerWake::Count(counting) => self.counted(counting, host, world),
            OwnerWake::LookAtAges => self.consider_expiry(host, world),
            OwnerWake::CountExpiring(id) => self.count_expiring(id, host, world),
            OwnerWake::Snapshot => self.snapshot(world),
            OwnerWake::Child(id, incarnation, wake) => {
                let mut child = self.children.remove(&id);
                if let Some(child) = child
                    .as_mut()
                    .filter(|child| child.incarnation == incarnation)
                {
                    child.handle(wake, self, host, world);
                } else if matches!(wake, ChildWake::Send(..) | ChildWake::NotSent(..)) {
                    // The actor is gone; its attempt never left.
                    self.under_way = self.under_way.saturating_sub(1);
                }
                if let Some(child) = child {
                    if child.has_rested {
                        self.rested(child, world);
                    } else {
                        self.children.insert(id, child);
                    }
                }
            }
        }
        self.after(host, world);
    }

    /// What an input brought about is seen to.
    pub(crate) fn after(&mut self, host: &mut Host, world: &mut World) {
        let is_free = self.committing.is_empty() || world.settings.plants(Plant::PackSentAhead);
        if is_free && !self.pump_asked && !self.commits.is_empty() {
            self.pump_asked = true;
            let in_ms = world.chance.within(0, 5);
            world.wake(host.index, in_ms, Wake::Owner(self.epoch, OwnerWake::Pump));
        }
        let has_work = !self.lagging.is_empty()
            || !self.commits.all_owed().is_empty()
            || self.commits.has_counts()
            || self.must_confirm
            || !self.waiting.is_empty()
            || self.releasing_since.is_some();
        if has_work && !self.tick_asked {
            self.tick_asked = true;
            world.wake(
                host.index,
                TICK_MS,
                Wake::Owner(self.epoch, OwnerWake::Tick),
            );
        }
    }

    fn owe_what_may_not_wait(&mut self, webhook: WebhookId) {
        let status = self.core.history(webhook).and_then(|held| held.status());
        if let Some(end) = status.and_then(ends_pending)
            && self.commits.pending(webhook) > 0
        {
            self.commits.owe_end(webhook, end);
        }
    }

    pub(crate) fn push(&mut self, mut entry: JournalEntry, host: &Host, world: &mut World) -> u64 {
        if world.settings.plants(Plant::ProbesCountedAsAttempts)
            && let JournalEntry::ProbeFailed {
                attempt,
                failure,
                next_probe_at,
                weight,
            } = entry
        {
            entry = JournalEntry::AttemptFailed {
                attempt: shared::domain::journal::AttemptEntry {
                    number: attempt.number + 1,
                    ..attempt
                },
                failure,
                retry_at: next_probe_at,
                weight,
            };
        }
        world.note(|| format!("pushed {}", brief(&entry)));
        if world.settings.plants(Plant::SnapshotWithUncommitted) {
            self.unstored.push(entry.clone());
        }
        if let JournalEntry::ConfigApplied {
            webhook,
            registry_sequence,
            ..
        } = &entry
        {
            Checker::applies(world, *webhook, *registry_sequence);
        }
        let now = self.now(host, world);
        self.commits.push(now, entry)
    }

    pub(crate) fn registry_moved(&mut self, id: WebhookId, host: &mut Host, world: &mut World) {
        if self.is_halted {
            return;
        }
        if let Some(webhook) = world.registry.webhook(id, host.registry_seen).cloned() {
            self.configure(&webhook, host, world);
        }
        self.after(host, world);
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.is_halted
    }

    /// Whether the message found room; `None` if the webhook has no actor.
    pub(crate) fn send(
        &mut self,
        id: WebhookId,
        message: Message,
        host: &Host,
        world: &mut World,
    ) -> Option<bool> {
        let epoch = self.epoch;
        let child = self.children.get_mut(&id)?;
        let is_taken = child.receive(message, world);
        child.sent += u64::from(is_taken);
        if is_taken {
            let in_ms = world.chance.within(0, 3);
            let wake = OwnerWake::Child(id, child.incarnation, ChildWake::Mailbox);
            world.wake(host.index, in_ms, Wake::Owner(epoch, wake));
        }
        Some(is_taken)
    }

    fn tick(&mut self, host: &mut Host, world: &mut World) {
        if self.is_halted {
            self.let_go(host, world);
            return;
        }
        self.hear_decisions();
        self.lagging.extend(self.commits.all_owed());
        for id in self.lagging.clone() {
            match world.registry.webhook(id, host.registry_seen).cloned() {
                Some(webhook) => {
                    self.wake(&webhook, None, host, world);
                    self.update(&webhook, host, world);
                }
                None => {
                    self.lagging.remove(&id);
                }
            }
        }
        self.look_at_lease(host, world);
        if self.commits.has_counts() || (self.must_confirm && host.has_lease(world)) {
            self.commits.flush();
            self.pump(host, world);
        }
        self.let_go(host, world);
        self.open_gate(host, world);
    }

    fn hear_decisions(&mut self) {
        for decision in self.commits.take_decisions() {
            self.core
                .decided(decision.webhook, decision.from, decision.status);
            self.lagging.insert(decision.webhook);
        }
    }

    fn rested(&mut self, mut child: Child, world: &mut World) {
        child.has_rested = false;
        let id = child.webhook.id;
        let is_settled = self.commits.pending(id) == 0 && self.commits.stored() >= child.pushed;
        if is_settled && child.sent == child.received && !child.has_mail() {
            world.note(|| format!("{id} sleeps"));
            return;
        }
        self.children.insert(id, child);
    }

    pub(crate) fn post_ended(
        &mut self,
        post: usize,
        outcome: AttemptOutcome,
        host: &mut Host,
        world: &mut World,
    ) {
        let (id, incarnation) = (world.posts[post].webhook, world.posts[post].incarnation);
        if world.posts[post].epoch != self.epoch {
            return;
        }
        if let Some(mut child) = self.children.remove(&id) {
            if child.incarnation == incarnation {
                child.finished(post, outcome, self, host, world);
            }
            self.children.insert(id, child);
        }
        self.under_way = self.under_way.saturating_sub(1);
        self.after(host, world);
    }

    /// Whether attempts may start: rule 19, and the lease.
    pub(crate) fn gate_is_open(&mut self, host: &Host, world: &mut World) -> bool {
        self.look_at_lease(host, world);
        let now = self.now(host, world);
        self.releasing_since.is_none()
            && self.ended.is_none()
            && self.commits.gate_is_open(now)
            && (world.settings.plants(Plant::NoLease)
                || (!self.must_confirm && host.has_lease(world)))
    }

    fn look_at_lease(&mut self, host: &Host, world: &World) {
        if !self.must_confirm && host.may_have_lapsed(world, self.confirmed_at) {
            self.must_confirm = true;
        }
    }

    /// Whether what was decided may still be sent.
    pub(crate) fn may_send(&mut self, host: &Host, world: &World) -> bool {
        self.look_at_lease(host, world);
        world.settings.plants(Plant::NoLease) || (!self.must_confirm && host.has_lease(world))
    }

    fn open_gate(&mut self, host: &mut Host, world: &mut World) {
        if self.waiting.is_empty() || !self.gate_is_open(host, world) {
            return;
        }
        for id in std::mem::take(&mut self.waiting) {
            if self.send(id, Message::GateOpened, host, world) == Some(false) {
                self.waiting.insert(id);
            }
        }
    }
}

/// A read of EVENTS, or none when it fails.
pub(crate) fn read(
    world: &mut World,
    (after, known): (Sequence, Sequence),
    project: Option<shared::ids::ProjectId>,
) -> Option<Stretch> {
    let (fails, short) = (world.settings.read_fails, world.settings.read_falls_short);
    if world.logs_are_away() || world.misfortune(fails) {
        return None;
    }
    let most = if world.misfortune(short) {
        1
    } else {
        world.settings.read_events
    };
    Some(world.events.stretch((after, known), project, most))
}

fn known_webhooks(host: &Host, world: &World) -> Vec<Arc<Webhook>> {
    let ids = world.registry.webhooks();
    ids.filter_map(|id| world.registry.webhook(id, host.registry_seen).cloned())
        .collect()
}

/// An entry without what makes it long.
pub(crate) fn brief(entry: &JournalEntry) -> String {
    let mut entry = entry.clone();
    match &mut entry {
        JournalEntry::AttemptFailed { failure, .. }
        | JournalEntry::Exhausted { failure, .. }
        | JournalEntry::ProbeFailed { failure, .. } => failure.sealed_answer.clear(),
        _ => {}
    }
    format!("{entry:?}")
}
