//! The shell of an owned partition: what its actor, its committer and its children do, in the
//! same order, with messages that take their time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dispatcher::core::classify::Class;
use dispatcher::core::commits::Commits;
use dispatcher::core::delivery::{AttemptOutcome, Beginning, Deliveries, Rules, ends_pending};
use dispatcher::core::partition::{Partition, Stretch};
use shared::codec;
use shared::domain::journal::{JournalEntry, Pack, SkipReason, UnsentEnd};
use shared::domain::state::{PartitionState, WebhookState};
use shared::domain::webhook::{Status, Webhook};
use shared::ids::{Epoch, Sequence, WebhookId};
use shared::time::Timestamp;

use crate::checker::Checker;
use crate::child::{Child, ChildWake, Message};
use crate::replica::{Host, OwnerWake, Wake};
use crate::settings::Plant;
use crate::streams::{Append, Appended, Refused, Snapshot, Subject};
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
        let classified = state.classified.map_or(known, |position| position.sequence);
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
        for webhook in webhooks(host, world) {
            self.configure(&webhook, host, world);
            let told = self.commits.state().webhooks.get(&webhook.id);
            if let Some((from, through)) = told.and_then(|told| told.uncounted) {
                self.count_back(webhook.id, from, through, host, world);
            }
            self.owe_what_may_not_wait(webhook.id);
            self.wake(&webhook, None, host, world);
        }
        self.scan(self.known, host, world);
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
            OwnerWake::Append => {
                if let Some(committing) = self.committing.first_mut()
                    && committing.token.is_none()
                {
                    committing.token = Some(host.append(&committing.append, world));
                }
            }
            OwnerWake::Scan(known) => self.scanned(known, host, world),
            OwnerWake::Count(counting) => self.counted(counting, host, world),
            OwnerWake::Snapshot => self.snapshot(world),
            OwnerWake::Child(id, incarnation, wake) => {
                let mut child = self.children.remove(&id);
                if let Some(child) = child
                    .as_mut()
                    .filter(|child| child.incarnation == incarnation)
                {
                    child.handle(wake, self, host, world);
                } else if matches!(wake, ChildWake::Send(_) | ChildWake::NotSent(..)) {
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

    fn wake(
        &mut self,
        webhook: &Arc<Webhook>,
        idle_through: Option<Sequence>,
        host: &mut Host,
        world: &mut World,
    ) {
        let id = webhook.id;
        if self.commits.pending(id) == 0
            || self.counting.contains(&id)
            || self.children.contains_key(&id)
        {
            return;
        }
        let (Some(rules), Some(history)) = (self.rules(webhook, world), self.core.history(id))
        else {
            return;
        };
        match rules.status {
            Status::Enabled | Status::PendingVerification => {}
            Status::Disabled | Status::Deactivated | Status::Quarantined => return,
        }
        let history = history.clone();
        let start = history.start().unwrap_or_default().previous();
        let told = self.commits.pushed_state(id);
        let state = told.unwrap_or_else(|| WebhookState {
            resolved: start,
            ..WebhookState::default()
        });
        let core = Deliveries::new(Beginning {
            webhook: id,
            generation: 1,
            rules,
            state,
            idle_through,
            hold_ends_until: self.hold_ends_until,
            bounds: world.settings.bounds,
        });
        self.incarnations += 1;
        let mut child = Child::new(Arc::clone(webhook), history, core, self.incarnations);
        child.start(self, host, world);
        self.children.insert(id, child);
        self.lagging.insert(id);
    }

    fn rules(&self, webhook: &Webhook, world: &World) -> Option<Rules> {
        let history = self.core.history(webhook.id)?;
        let mut policy = webhook.definition.policy.clone();
        if world.settings.plants(Plant::LaneCheckOff) {
            policy.ordering = shared::domain::policy::Ordering::None;
        }
        Some(Rules {
            policy,
            dialect: webhook.definition.dialect,
            status: history.status()?,
            lifts: false,
        })
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

    fn configure(&mut self, webhook: &Arc<Webhook>, host: &mut Host, world: &mut World) {
        self.hear_decisions();
        let configured = self.core.configure(webhook);
        for mut entry in configured.entries {
            let mut back = None;
            if let JournalEntry::ConfigApplied {
                from, back_through, ..
            } = &mut entry
            {
                back = back_through.map(|through| (from.sequence, through));
                if world.settings.plants(Plant::PositionFromApi) && back.is_none() {
                    // Where EVENTS ended when somebody asked.
                    from.sequence = Sequence(world.events.last() + 1);
                }
            }
            self.push(entry, host, world);
            if let Some((from, through)) = back {
                self.count_back(webhook.id, from, through, host, world);
            }
        }
        match configured.ends {
            Some(end @ UnsentEnd::Skipped(SkipReason::Deleted)) => {
                self.delete(webhook, end, host, world);
            }
            Some(end) => {
                self.commits.owe_end(webhook.id, end);
                self.update(webhook, host, world);
            }
            None => {
                self.wake(webhook, None, host, world);
                self.update(webhook, host, world);
            }
        }
    }

    fn delete(&mut self, webhook: &Webhook, end: UnsentEnd, host: &mut Host, world: &mut World) {
        let id = webhook.id;
        let entry = JournalEntry::PendingEnded {
            webhook: id,
            through: Sequence(0),
            end,
            count: 0,
            kept: Vec::new(),
        };
        self.push(entry, host, world);
        self.lagging.remove(&id);
        self.counting.remove(&id);
        self.waiting.remove(&id);
        self.children.remove(&id);
        self.core.remove(webhook.project, id);
    }

    fn update(&mut self, webhook: &Arc<Webhook>, host: &mut Host, world: &mut World) {
        let id = webhook.id;
        let owed = self.commits.owed(id);
        let (Some(rules), Some(history)) = (self.rules(webhook, world), self.core.history(id))
        else {
            self.lagging.remove(&id);
            return;
        };
        let message = Message::Update {
            webhook: Arc::clone(webhook),
            history: history.clone(),
            rules,
            owed,
            known: self.core.classified().position.sequence,
        };
        let told = match self.send(id, message, host, world) {
            Some(told) => told && owed.is_none(),
            None if owed.is_some() => self.end_without_actor(id, host, world),
            None => true,
        };
        if told {
            self.lagging.remove(&id);
        } else {
            self.lagging.insert(id);
        }
    }

    /// Whether the message found room; `None` if the webhook has no actor.
    fn send(
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

    fn end_without_actor(
        &mut self,
        webhook: WebhookId,
        host: &mut Host,
        world: &mut World,
    ) -> bool {
        if self.now(host, world) < self.hold_ends_until {
            return false;
        }
        if let Some(owed) = self.commits.owed(webhook) {
            let entry = JournalEntry::PendingEnded {
                webhook,
                through: owed.through,
                end: owed.end,
                count: 0,
                kept: Vec::new(),
            };
            self.push(entry, host, world);
        }
        true
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

    pub(crate) fn take(&mut self, stretch: &Stretch, host: &mut Host, world: &mut World) {
        if self.is_halted {
            return;
        }
        self.known = self.known.max(stretch.through);
        self.hear_decisions();
        match self.core.take(stretch) {
            Ok(taken) => {
                let asleep: BTreeSet<WebhookId> = taken
                    .offers
                    .keys()
                    .filter(|id| !self.children.contains_key(id) && self.commits.pending(**id) == 0)
                    .copied()
                    .collect();
                self.commits.count(self.core.classified(), &taken.counted);
                for (id, (offer, _events)) in taken.offers {
                    if !self.children.contains_key(&id)
                        && let Some(webhook) =
                            world.registry.webhook(id, host.registry_seen).cloned()
                    {
                        let idle_through = asleep.contains(&id).then_some(offer.after);
                        self.wake(&webhook, idle_through, host, world);
                    }
                    let registry_sequence = self.core.history(id).and_then(|held| held.latest());
                    let message = Message::Offered {
                        offer,
                        registry_sequence,
                    };
                    if self.send(id, message, host, world) == Some(false) {
                        self.lagging.insert(id);
                    }
                }
            }
            Err(_) => self.scan(self.known, host, world),
        }
        self.after(host, world);
    }

    fn scan(&mut self, known: Sequence, host: &mut Host, world: &mut World) {
        self.known = self.known.max(known);
        if self.scanning || self.core.classified().position.sequence >= self.known {
            return;
        }
        self.scanning = true;
        let in_ms = world.chance.within(1, 40);
        let wake = OwnerWake::Scan(self.known);
        world.wake(host.index, in_ms, Wake::Owner(self.epoch, wake));
    }

    fn scanned(&mut self, known: Sequence, host: &mut Host, world: &mut World) {
        self.known = self.known.max(known);
        self.scanning = false;
        let classified = self.core.classified().position.sequence;
        if classified < self.known {
            if let Some(stretch) = read(world, (classified, self.known), None) {
                self.take(&stretch, host, world);
            } else {
                self.scanning = true;
                let wake = OwnerWake::Scan(self.known);
                world.wake(host.index, SCAN_RETRY_MS, Wake::Owner(self.epoch, wake));
                return;
            }
        }
        self.scan(self.known, host, world);
    }

    fn count_back(
        &mut self,
        id: WebhookId,
        from: Sequence,
        through: Sequence,
        host: &mut Host,
        world: &mut World,
    ) {
        if self.core.history(id).is_none() || !self.counting.insert(id) {
            return;
        }
        let counting = Counting {
            webhook: id,
            after: from.previous(),
            through,
            accepted: 0,
            skipped: BTreeMap::new(),
        };
        let in_ms = world.chance.within(1, 2_000);
        world.wake(
            host.index,
            in_ms,
            Wake::Owner(self.epoch, OwnerWake::Count(counting)),
        );
    }

    fn counted(&mut self, mut counting: Counting, host: &mut Host, world: &mut World) {
        let id = counting.webhook;
        let Some(webhook) = world.registry.webhook(id, host.registry_seen).cloned() else {
            return;
        };
        if !self.counting.contains(&id) {
            return;
        }
        let Some(history) = self.core.history(id).cloned() else {
            return;
        };
        if counting.after < counting.through {
            let mut again = 20;
            let asked = (counting.after, counting.through);
            if let Some(stretch) = read(world, asked, Some(webhook.project)) {
                for (sequence, event) in &stretch.events {
                    match history.classify(*sequence, event) {
                        Class::NotWanted => {}
                        Class::Accepted => counting.accepted += 1,
                        Class::Skipped(reason) => {
                            *counting.skipped.entry(reason).or_default() += 1;
                        }
                    }
                }
                counting.after = stretch.through;
            } else {
                again = SCAN_RETRY_MS;
            }
            let wake = OwnerWake::Count(counting);
            world.wake(host.index, again, Wake::Owner(self.epoch, wake));
            return;
        }
        self.counting.remove(&id);
        let entry = JournalEntry::CountedBack {
            webhook: id,
            accepted: counting.accepted,
            skipped: counting.skipped.into_iter().collect(),
        };
        self.push(entry, host, world);
        self.owe_what_may_not_wait(id);
        self.wake(&webhook, None, host, world);
        self.update(&webhook, host, world);
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

    fn pump(&mut self, host: &mut Host, world: &mut World) {
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

    fn append_of(&self, pack: &Pack, world: &World) -> Append {
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

    fn stored(&mut self, index: usize, at: Sequence, host: &mut Host, world: &mut World) {
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

    fn snapshot(&mut self, world: &mut World) {
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

    fn let_go(&mut self, host: &mut Host, world: &mut World) {
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

fn webhooks(host: &Host, world: &World) -> Vec<Arc<Webhook>> {
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
