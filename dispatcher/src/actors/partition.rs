//! The owner of one partition: classifies its events, keeps its webhooks' actors, applies what
//! the registry decided, and says when that holds.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor, ActorContext as _, ActorFutureExt as _, Addr, AsyncContext as _, Context};
use actix::{Handler, WrapFuture as _};
use shared::domain::webhook::Webhook;
use shared::ids::{PartitionId, Sequence, WebhookId};
use shared::limits::JOURNAL_CERTAIN_MS;
use shared::nats::Unavailable;
use shared::subjects;
use shared::time::Timestamp;

use super::journal::{JournalActor, Progress};
use super::log::PartitionLog;
use super::shared_state::Replica;
use super::webhook::{Offered, Update, WebhookActor};
use crate::core::commits::Commits;
use crate::core::delivery::{Deliveries, Past};
use crate::core::fold::WebhookFold;
use crate::core::lanes::Bounds;
use crate::core::partition::{Offers, Partition, Stretch};
use crate::io::events;
use crate::io::takeover::Takeover;

/// Stretches that the node may have on their way here.
const MAILBOX: usize = 64;
/// How often webhooks that missed a message are told again.
const TICK: Duration = Duration::from_millis(200);
const SCAN_RETRY: Duration = Duration::from_millis(500);

pub(crate) struct PartitionActor {
    id: PartitionId,
    replica: Rc<Replica>,
    core: Partition,
    log: Rc<PartitionLog>,
    fence: Sequence,
    webhooks: HashMap<WebhookId, Addr<WebhookActor>>,
    /// Missed an offer or an update because their mailbox was full.
    lagging: BTreeSet<WebhookId>,
    /// The stream is known to reach this; what lies between is read when the tail left a gap.
    known: Sequence,
    scanning: bool,
    /// What JOURNAL tells of webhooks whose actors are not started yet.
    pasts: HashMap<WebhookId, Past>,
    /// Nothing in EVENTS lies at or below.
    events_origin: Sequence,
    /// Ordinals in the log and the registry sequences that hold once those are stored.
    applying: VecDeque<(u64, Sequence)>,
    journal: Option<Addr<JournalActor>>,
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
            mut fold,
            events_origin,
        } = takeover;
        let links = fold
            .webhooks
            .iter()
            .map(|(webhook, fold)| (*webhook, fold.links))
            .collect();
        let mut core = Partition::new(replica.nats.generation, &fold);
        let mut pasts = HashMap::new();
        for webhook in webhooks_of(&replica, id) {
            let told = fold.webhooks.remove(&webhook.id);
            if let Some(fold) = told.or_else(|| forgotten(&webhook, fold.now)) {
                core.restore(&webhook, &fold.configs);
                pasts.insert(webhook.id, fold.past);
            }
        }
        // Without a webhook that looks back, reading begins where the tail does.
        let origin = core.earliest_start().unwrap_or(known).max(events_origin);
        core.start_scan(origin);
        let clock = Arc::clone(&replica.clock);
        let commits = Commits::new(epoch, links);
        let log = PartitionLog::new(id, commits, core.classified(), clock, fold.now);
        let actor = Self {
            id,
            replica,
            core,
            log: Rc::clone(&log),
            fence,
            webhooks: HashMap::new(),
            lagging: BTreeSet::new(),
            known,
            scanning: false,
            pasts,
            events_origin,
            applying: VecDeque::new(),
            journal: None,
        };
        (actor, log)
    }

    /// Says again what holds, applies what was decided while nobody owned the partition, and
    /// only then starts the webhooks: a deleted one must not send once more.
    fn start_webhooks(&mut self) {
        let applied = self.replica.view.read(|state| state.applied());
        for webhook in webhooks_of(&self.replica, self.id) {
            for entry in self.core.restated(webhook.id) {
                self.log.push(entry);
            }
            self.configure(&webhook);
        }
        self.applying.push_back((self.log.pushed(), applied));
        self.pasts.clear();
    }

    fn start_webhook(&mut self, webhook: &Arc<Webhook>) {
        let Some(history) = self.core.history(webhook.id).cloned() else {
            return;
        };
        let Some(start) = history.start() else {
            return;
        };
        let core = Deliveries::new(
            webhook.id,
            self.replica.nats.generation,
            webhook.definition.policy.clone(),
            start.previous().max(self.events_origin),
            self.pasts.remove(&webhook.id).unwrap_or_default(),
            Bounds::default(),
        );
        let actor = WebhookActor::new(
            Rc::clone(&self.replica),
            Rc::clone(&self.log),
            Arc::clone(webhook),
            history,
            core,
        );
        self.webhooks.insert(webhook.id, actor.start());
        // It may lie before what has been scanned; the next tick tells it.
        self.lagging.insert(webhook.id);
    }

    /// Applies what the registry says of a webhook, and sees to it that its actor knows.
    fn configure(&mut self, webhook: &Arc<Webhook>) {
        if let Some(entries) = self.core.configure(webhook) {
            for entry in entries {
                self.log.push(entry);
            }
        }
        if !webhook.deleted && !self.webhooks.contains_key(&webhook.id) {
            self.start_webhook(webhook);
        }
        self.update(webhook);
    }

    /// Tells a webhook its configuration and how far the stream reaches; again later, when its
    /// mailbox is full. A deleted one is let go once it was told.
    fn update(&mut self, webhook: &Arc<Webhook>) {
        let id = webhook.id;
        let told = match (self.webhooks.get(&id), self.core.history(id)) {
            (Some(address), Some(history)) => {
                let update = Update {
                    webhook: Arc::clone(webhook),
                    history: history.clone(),
                    scanned: self.core.scanned(),
                };
                address.try_send(update).is_ok()
            }
            (None, _) | (_, None) => true,
        };
        if !told {
            self.lagging.insert(id);
            return;
        }
        self.lagging.remove(&id);
        if webhook.deleted {
            // Its attempts under way hold the actor until they end.
            self.webhooks.remove(&id);
            self.core.remove(webhook.project, id);
            self.log.forget(id);
        }
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        for id in self.lagging.clone() {
            let webhook = self.replica.view.read(|state| state.webhook(id).cloned());
            match webhook {
                Some(webhook) => self.update(&webhook),
                None => {
                    self.lagging.remove(&id);
                }
            }
        }
        let committer_runs = self.journal.as_ref().is_none_or(Addr::connected);
        if !committer_runs && !self.log.is_deposed() {
            tracing::error!(partition = self.id.0, "the partition's committer has ended");
            // The node sees that the partition ended without having been deposed, and ends too.
            self.replica.ready.store(false, Ordering::Release);
            ctx.stop();
            return;
        }
        self.progress(ctx);
    }

    fn take(&mut self, stretch: &Stretch, ctx: &mut Context<Self>) {
        self.known = self.known.max(stretch.through);
        match self.core.take(stretch) {
            Ok(offers) => {
                self.log.set_classified(self.core.classified());
                self.offer(offers);
            }
            Err(_) => self.scan(ctx),
        }
    }

    fn offer(&mut self, offers: Offers) {
        for (id, (offer, events)) in offers {
            let Some(address) = self.webhooks.get(&id) else {
                continue;
            };
            let registry_sequence = self.core.history(id).and_then(|history| history.latest());
            let offered = Offered {
                offer,
                events,
                registry_sequence,
            };
            if address.try_send(offered).is_err() {
                self.replica.metrics.mailbox_full.increment(1);
                self.lagging.insert(id);
            }
        }
    }

    /// Reads what lies between the scan and what the stream is known to reach.
    fn scan(&mut self, ctx: &mut Context<Self>) {
        if self.scanning || self.core.scanned() >= self.known {
            return;
        }
        self.scanning = true;
        let read = read_stretch(
            Rc::clone(&self.replica),
            subjects::events_of_partition(self.id),
            self.core.scanned(),
            self.known,
        );
        let done = read.into_actor(self).map(|stretch, actor, ctx| {
            actor.scanning = false;
            match stretch {
                Ok(stretch) => actor.take(&stretch, ctx),
                Err(error) => tracing::warn!(
                    partition = actor.id.0,
                    %error,
                    "the partition's events were not read"
                ),
            }
            actor.scan(ctx);
        });
        ctx.spawn(done);
    }

    fn progress(&mut self, ctx: &mut Context<Self>) {
        if self.log.is_deposed() {
            tracing::error!(
                partition = self.id.0,
                "another replica owns the partition; it is stopped here"
            );
            self.replica.metrics.partitions_stopped.increment(1);
            self.replica.ready.store(false, Ordering::Release);
            ctx.stop();
            return;
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

async fn read_stretch(
    replica: Rc<Replica>,
    filter: String,
    after: Sequence,
    known: Sequence,
) -> Result<Stretch, Unavailable> {
    let read = events::stretch(&replica.nats, &replica.metrics, &filter, after, known).await;
    if read.is_err() {
        tokio::time::sleep(SCAN_RETRY).await;
    }
    read
}

/// JOURNAL has forgotten by age what it once told of a webhook that has been as it is for long.
fn forgotten(webhook: &Webhook, now: Timestamp) -> Option<WebhookFold> {
    let latest = webhook.versions.last()?;
    let is_old = now.millis_since(latest.at) >= JOURNAL_CERTAIN_MS;
    is_old.then(WebhookFold::default)
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
        self.start_webhooks();
        self.scan(ctx);
        ctx.run_interval(TICK, Self::tick);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.replica.metrics.partitions_owned.decrement(1.0);
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
                self.configure(&webhook);
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
