//! The owner of one partition: classifies its events, applies what the registry decided, and
//! keeps its webhooks' actors: those that owe something are awake, the others are state alone.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorContext as _, ActorFutureExt as _, Addr, AsyncContext as _, Context};
use actix::{Handler, ResponseFuture, WrapFuture as _};
use shared::domain::journal::{JournalEntry, SkipReason, UnsentEnd};
use shared::domain::state::WebhookState;
use shared::domain::webhook::{Status, Webhook};
use shared::ids::{PartitionId, Sequence, WebhookId};
use shared::subjects;
use shared::time::Timestamp;

use super::announcer::Announcer;
use super::children::Children;
use super::expiring::Expiring;
use super::journal::{JournalActor, Progress};
use super::log::PartitionLog;
use super::shared_state::Replica;
use super::snapshots::Snapshots;
use super::webhook::{Halt, Offered, Start, Update, WebhookActor};
use crate::core::commits::Commits;
use crate::core::delivery::{Beginning, Deliveries, Rules, ends_pending};
use crate::core::lanes::Bounds;
use crate::core::partition::{Offers, Partition, Stretch};
use crate::io::events::{self, ReadError};
use crate::io::takeover::Takeover;

/// Stretches that the node may have on their way here.
const MAILBOX: usize = 64;
/// How often webhooks that missed a message are told again.
const TICK: Duration = Duration::from_millis(200);
const SCAN_RETRY: Duration = Duration::from_millis(500);
/// Positions that classification may get ahead of what JOURNAL says of it, when there is nothing
/// else to say: a new owner reads them again.
const CLASSIFIED_AHEAD_MAX: u64 = 10_000;

pub(crate) struct PartitionActor {
    pub(super) id: PartitionId,
    pub(super) replica: Rc<Replica>,
    pub(super) core: Partition,
    pub(super) log: Rc<PartitionLog>,
    fence: Sequence,
    pub(super) children: Children,
    /// Missed an offer or an update because their mailbox was full.
    lagging: BTreeSet<WebhookId>,
    /// Created a moment ago; what came before is being counted.
    pub(super) counting: HashSet<WebhookId>,
    /// The stream is known to reach this; what lies between is read when the tail left a gap.
    known: Sequence,
    scanning: bool,
    pub(super) expiring: Expiring,
    pub(super) hold_ends_until: Timestamp,
    /// Ordinals in the log and the registry sequences that hold once those are stored.
    applying: VecDeque<(u64, Sequence)>,
    journal: Option<Addr<JournalActor>>,
    pub(super) snapshots: Snapshots,
    announcer: Option<Announcer>,
}

/// A part of the tail that concerns this partition.
#[derive(Clone, Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct TailStretch(pub Stretch);

/// The registry says something new about these webhooks.
#[derive(Clone, Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct RegistryMoved {
    pub webhooks: Vec<WebhookId>,
    pub sequence: Sequence,
}

impl PartitionActor {
    /// A partition that was just taken. `known` is how far the tail begins; events up to there
    /// are read here. The registry must be folded through what it had after the epoch entry.
    pub(crate) fn new(
        replica: Rc<Replica>,
        takeover: Takeover,
        known: Sequence,
    ) -> (Self, Rc<PartitionLog>) {
        let Takeover {
            partition: id,
            epoch,
            fence,
            state,
            events_origin,
            hold_ends_until,
            proven,
            folded,
        } = takeover;
        // A partition that nobody ever owned begins where the tail does.
        let classified = state
            .classified
            .map_or(known, |position| position.sequence)
            .max(events_origin);
        let generation = replica.nats.generation;
        let mut core = Partition::new(generation, classified, state.checkpoint);
        for webhook in webhooks_of(&replica, id) {
            if let Some(told) = state.webhooks.get(&webhook.id) {
                core.restore(&webhook, &told.applied);
            }
        }
        let clock = Arc::clone(&replica.clock);
        let commits = Commits::new(epoch, core.classified(), state);
        let log = PartitionLog::new(id, commits, clock, replica.lease.clone(), proven);
        let snapshots = Snapshots::new(folded, replica.clock.elapsed());
        let actor = Self {
            id,
            replica,
            core,
            log: Rc::clone(&log),
            fence,
            children: Children::default(),
            lagging: BTreeSet::new(),
            counting: HashSet::new(),
            known: known.max(classified),
            scanning: false,
            expiring: Expiring::default(),
            hold_ends_until,
            applying: VecDeque::new(),
            journal: None,
            snapshots,
            announcer: None,
        };
        (actor, log)
    }

    /// Applies what was decided while nobody owned the partition, and only then starts the
    /// webhooks that owe something: a deleted one must not send once more.
    fn start_webhooks(&mut self, ctx: &mut Context<Self>) {
        let applied = self.replica.view.read(|state| state.applied());
        for webhook in webhooks_of(&self.replica, self.id) {
            // First of all: it is not to be woken by what is applied before that is counted.
            let uncounted = self.log.look(|commits| {
                let told = commits.state().webhooks.get(&webhook.id);
                told.and_then(|told| told.uncounted)
            });
            if let Some((from, through)) = uncounted {
                self.count_back(&webhook, from, through, ctx);
            }
            self.configure(&webhook, ctx);
            // A predecessor may have died between the deletion and the end of its ledger.
            let is_open = || self.log.look(|log| log.pushed_state(webhook.id).is_some());
            if webhook.deleted && is_open() {
                self.delete(&webhook, UnsentEnd::Skipped(SkipReason::Deleted));
                continue;
            }
            self.owe_what_may_not_wait(webhook.id);
            self.wake(&webhook, None, ctx);
        }
        self.applying.push_back((self.log.pushed(), applied));
    }

    /// A predecessor may have journaled a status without the ends that it asks for.
    pub(super) fn owe_what_may_not_wait(&self, webhook: WebhookId) {
        let status = self.core.history(webhook).and_then(|held| held.status());
        if let Some(end) = status.and_then(ends_pending)
            && self.log.look(|commits| commits.pending(webhook)) > 0
        {
            self.log.owe_end(webhook, end);
        }
    }

    /// Starts the webhook's actor if it owes something or has a replay at work, and has none.
    /// `idle_through`: nothing that it owes lies at or below.
    pub(super) fn wake(
        &mut self,
        webhook: &Arc<Webhook>,
        idle_through: Option<Sequence>,
        ctx: &mut Context<Self>,
    ) {
        let id = webhook.id;
        let is_replaying = self.log.look(|commits| {
            let told = commits.state().webhooks.get(&id);
            told.is_some_and(|told| told.replays.is_active())
        });
        let idle = self.idle_through(id);
        if idle.is_none() || is_replaying {
            self.begin(webhook, idle_through.or(idle), ctx);
        }
    }

    /// Starts the webhook's actor if it has none and may have one.
    pub(super) fn begin(
        &mut self,
        webhook: &Arc<Webhook>,
        idle_through: Option<Sequence>,
        ctx: &mut Context<Self>,
    ) {
        let id = webhook.id;
        let now = self.log.now();
        if self.counting.contains(&id) || !self.children.may_start(id, now, self.log.stored()) {
            return;
        }
        let Some(rules) = self.rules(webhook) else {
            return;
        };
        match rules.status {
            Status::Enabled | Status::PendingVerification => {}
            // What is pending is ended without an actor, or waits for somebody to look.
            Status::Disabled | Status::Deactivated | Status::Quarantined => return,
        }
        let Some(history) = self.core.history(id).cloned() else {
            return;
        };
        let start = history.start().unwrap_or_default().previous();
        let state = self
            .log
            .look(|commits| commits.pushed_state(id))
            .unwrap_or_else(|| WebhookState {
                resolved: start,
                ..WebhookState::default()
            });
        let core = Deliveries::new(Beginning {
            webhook: id,
            generation: self.replica.nats.generation,
            rules,
            state,
            idle_through,
            hold_ends_until: self.hold_ends_until,
            bounds: Bounds::default(),
        });
        let (replica, log) = (Rc::clone(&self.replica), Rc::clone(&self.log));
        let (webhook, owner) = (Arc::clone(webhook), ctx.address());
        self.children.start(id, |incarnation, under_way| {
            WebhookActor::new(Start {
                replica,
                log,
                webhook,
                history,
                core,
                incarnation,
                under_way,
                rested: owner.clone().recipient(),
                ended: owner.recipient(),
            })
            .start()
        });
        // It may stand before what has been classified; the next tick tells it.
        self.lagging.insert(id);
    }

    fn rules(&self, webhook: &Webhook) -> Option<Rules> {
        let history = self.core.history(webhook.id)?;
        Some(Rules {
            policy: webhook.definition.policy.clone(),
            dialect: webhook.definition.dialect,
            status: history.status()?,
            lifts: false,
        })
    }

    /// Applies what the registry says of a webhook, and sees to it that its actor knows.
    fn configure(&mut self, webhook: &Arc<Webhook>, ctx: &mut Context<Self>) {
        self.hear_decisions();
        let configured = self.core.configure(webhook);
        for entry in configured.entries {
            let back = match &entry {
                JournalEntry::ConfigApplied {
                    from,
                    back_through: Some(through),
                    ..
                } => Some((from.sequence, *through)),
                _ => None,
            };
            self.log.push(entry);
            if let Some((from, through)) = back {
                self.count_back(webhook, from, through, ctx);
            }
        }
        match configured.ends {
            Some(end @ UnsentEnd::Skipped(SkipReason::Deleted)) => self.delete(webhook, end),
            Some(end) => {
                self.log.owe_end(webhook.id, end);
                self.update(webhook);
            }
            None => {
                self.wake(webhook, None, ctx);
                self.update(webhook);
            }
        }
    }

    /// What is under way ends by itself and says nothing more: the ledger is closed.
    fn delete(&mut self, webhook: &Arc<Webhook>, end: UnsentEnd) {
        let id = webhook.id;
        self.log.push(JournalEntry::PendingEnded {
            webhook: id,
            through: Sequence(0),
            end,
            count: 0,
            kept: Vec::new(),
        });
        self.lagging.remove(&id);
        self.counting.remove(&id);
        self.children.let_go(id);
        self.core.remove(webhook.project, id);
    }

    /// Tells a webhook its configuration and how far the stream reaches; again later, when its
    /// mailbox is full.
    pub(super) fn update(&mut self, webhook: &Arc<Webhook>) {
        let id = webhook.id;
        let owed = self.log.look(|commits| commits.owed(id));
        // Most sleep most of the time: what they are to know they learn when they wake.
        if owed.is_none() && !self.children.is_awake(id) {
            self.lagging.remove(&id);
            return;
        }
        let (Some(rules), Some(history)) = (self.rules(webhook), self.core.history(id)) else {
            self.lagging.remove(&id);
            return;
        };
        let update = Update {
            webhook: Arc::clone(webhook),
            history: history.clone(),
            rules,
            owed,
            known: self.core.classified().position.sequence,
        };
        let told = match self.children.send(id, update) {
            Some(told) => told && owed.is_none(),
            None if owed.is_some() => self.end_without_actor(id),
            None => true,
        };
        if told {
            self.lagging.remove(&id);
        } else {
            self.lagging.insert(id);
        }
    }

    /// Nothing is under way: all ends. Unless a predecessor's attempt may still arrive.
    fn end_without_actor(&self, webhook: WebhookId) -> bool {
        if self.log.now() < self.hold_ends_until || self.children.is_under_way(webhook) {
            return false;
        }
        if let Some(owed) = self.log.look(|commits| commits.owed(webhook)) {
            self.log.push(JournalEntry::PendingEnded {
                webhook,
                through: owed.through,
                end: owed.end,
                count: 0,
                kept: Vec::new(),
            });
        }
        true
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        self.log.prove();
        self.hear_decisions();
        let owed = self.log.look(Commits::all_owed);
        self.lagging.extend(owed);
        let (now, stored) = (self.log.now(), self.log.stored());
        self.lagging.extend(self.children.due(now, stored));
        for id in self.lagging.clone() {
            let webhook = self.replica.view.read(|state| state.webhook(id).cloned());
            match webhook {
                Some(webhook) => {
                    self.wake(&webhook, None, ctx);
                    self.update(&webhook);
                }
                None => {
                    self.lagging.remove(&id);
                }
            }
        }
        let committer_runs = self.journal.as_ref().is_none_or(Addr::connected);
        if !committer_runs && !self.log.is_deposed() {
            tracing::error!(partition = self.id.0, "the partition's committer has ended");
            // The node sees that the partition ended without having been deposed.
            ctx.stop();
            return;
        }
        if self.is_worth_a_pack() {
            self.log.flush();
        }
        self.consider_snapshot(ctx);
        self.consider_expiry(ctx);
        self.progress(ctx);
    }

    fn is_worth_a_pack(&self) -> bool {
        let classified = self.core.classified().position.sequence;
        self.log.look(|commits| {
            let told = commits.state().classified;
            let told = told.map_or(Sequence(0), |position| position.sequence);
            commits.has_counts() || classified.0.saturating_sub(told.0) > CLASSIFIED_AHEAD_MAX
        })
    }

    /// What actors decided holds for whatever is classified next.
    pub(super) fn hear_decisions(&mut self) {
        for decision in self.log.take_decisions() {
            self.core
                .decided(decision.webhook, decision.from, decision.status);
            self.lagging.insert(decision.webhook);
        }
    }

    fn take(&mut self, stretch: &Stretch, ctx: &mut Context<Self>) {
        self.known = self.known.max(stretch.through);
        self.hear_decisions();
        match self.core.take(stretch) {
            Ok(taken) => {
                let asleep = self.asleep(&taken.offers);
                self.log.count(self.core.classified(), &taken.counted);
                self.offer(taken.offers, &asleep, ctx);
            }
            Err(_) => self.scan(ctx),
        }
    }

    /// Of the webhooks that are offered something, those that owed nothing before.
    fn asleep(&self, offers: &Offers) -> HashSet<WebhookId> {
        let ids = offers.keys().filter(|id| !self.children.is_awake(**id));
        let owed_nothing = ids.filter(|id| self.log.look(|commits| commits.pending(**id)) == 0);
        owed_nothing.copied().collect()
    }

    fn offer(&mut self, offers: Offers, asleep: &HashSet<WebhookId>, ctx: &mut Context<Self>) {
        for (id, (offer, events)) in offers {
            if !self.children.is_awake(id) {
                let webhook = self.replica.view.read(|state| state.webhook(id).cloned());
                if let Some(webhook) = webhook {
                    let idle_through = asleep.contains(&id).then_some(offer.after);
                    self.wake(&webhook, idle_through, ctx);
                }
            }
            let registry_sequence = self.core.history(id).and_then(|history| history.latest());
            let offered = Offered {
                offer,
                events,
                registry_sequence,
            };
            if self.children.send(id, offered) == Some(false) {
                self.replica.metrics.mailbox_full.increment(1);
                self.lagging.insert(id);
            }
        }
    }

    /// Reads what lies between what is classified and what the stream is known to reach.
    fn scan(&mut self, ctx: &mut Context<Self>) {
        let classified = self.core.classified().position.sequence;
        if self.scanning || classified >= self.known {
            return;
        }
        self.scanning = true;
        let read = read_stretch(
            Rc::clone(&self.replica),
            subjects::events_of_partition(self.id),
            classified,
            self.known,
        );
        let done = read.into_actor(self).map(|stretch, actor, ctx| {
            actor.scanning = false;
            match stretch {
                Ok(stretch) => actor.take(&stretch, ctx),
                Err(error) => {
                    actor.log.note(&error);
                    tracing::warn!(
                        partition = actor.id.0,
                        %error,
                        "the partition's events were not read"
                    );
                }
            }
            actor.scan(ctx);
        });
        ctx.spawn(done);
    }

    fn progress(&mut self, ctx: &mut Context<Self>) {
        if self.log.is_deposed() {
            tracing::warn!(
                partition = self.id.0,
                "another replica owns the partition; it is stopped here"
            );
            self.replica.metrics.partitions_stopped.increment(1);
            ctx.stop();
            return;
        }
        if let Some(announcer) = &self.announcer {
            announcer.tell(self.log.take_told());
        }
        let stored = self.log.stored();
        while let Some((ordinal, sequence)) = self.applying.front().copied() {
            if ordinal > stored {
                break;
            }
            self.applying.pop_front();
            self.replica.applied.mark(self.id, sequence);
        }
    }
}

pub(super) async fn read_stretch(
    replica: Rc<Replica>,
    filter: String,
    after: Sequence,
    known: Sequence,
) -> Result<Stretch, ReadError> {
    let read = events::stretch(&replica.nats, &replica.metrics, &filter, after, known).await;
    if read.is_err() {
        tokio::time::sleep(SCAN_RETRY).await;
    }
    read
}

/// The webhooks whose projects lie in the partition, deleted ones included.
fn webhooks_of(replica: &Replica, partition: PartitionId) -> Vec<Arc<Webhook>> {
    let partitions = replica.nats.partitions;
    replica.view.read(|state| {
        state
            .webhooks()
            .filter(|webhook| partitions.of(webhook.project) == partition)
            .cloned()
            .collect()
    })
}

impl Actor for PartitionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.replica.metrics.partitions_owned.increment(1.0);
        let journal = JournalActor::new(
            Rc::clone(&self.replica),
            Rc::clone(&self.log),
            self.fence,
            ctx.address().recipient(),
        )
        .start();
        self.log.set_committer(journal.clone().recipient());
        self.journal = Some(journal);
        let (replica, log) = (Rc::clone(&self.replica), Rc::clone(&self.log));
        self.announcer = Some(Announcer::start(replica, log));
        self.start_webhooks(ctx);
        self.scan(ctx);
        ctx.run_interval(TICK, Self::tick);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.replica.metrics.partitions_owned.decrement(1.0);
        self.children.abandon();
    }
}

impl Handler<Halt> for PartitionActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Halt, ctx: &mut Self::Context) -> Self::Result {
        let halted = self.children.halt_all();
        ctx.stop();
        Box::pin(halted)
    }
}

impl Handler<TailStretch> for PartitionActor {
    type Result = ();

    fn handle(&mut self, TailStretch(stretch): TailStretch, ctx: &mut Self::Context) {
        self.take(&stretch, ctx);
    }
}

impl Handler<RegistryMoved> for PartitionActor {
    type Result = ();

    fn handle(&mut self, moved: RegistryMoved, ctx: &mut Self::Context) {
        for id in moved.webhooks {
            let webhook = self.replica.view.read(|state| state.webhook(id).cloned());
            if let Some(webhook) = webhook {
                self.configure(&webhook, ctx);
            }
        }
        self.applying.push_back((self.log.pushed(), moved.sequence));
        self.progress(ctx);
    }
}

impl Handler<Progress> for PartitionActor {
    type Result = ();

    fn handle(&mut self, _: Progress, ctx: &mut Self::Context) {
        self.progress(ctx);
    }
}
