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
use shared::nats::Unavailable;
use shared::subjects;

use super::journal::{JournalActor, Progress};
use super::log::PartitionLog;
use super::shared_state::Replica;
use super::webhook::{Offered, Update, WebhookActor};
use crate::core::commits::Commits;
use crate::core::delivery::{Deliveries, Past};
use crate::core::fold::PartitionFold;
use crate::core::partition::{Configured, Offers, Partition, Stretch};
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
        let owned = webhooks_of(&replica, id);
        for webhook in &owned {
            if let Some(fold) = fold.webhooks.get(&webhook.id) {
                core.restore(webhook, &fold.configs);
            }
        }
        // Without a webhook that looks back, reading begins where the tail does.
        let origin = core.earliest_start().unwrap_or(known).max(events_origin);
        core.start_scan(origin);
        let now = fold.now.max(replica.clock.now());
        let commits = Commits::new(epoch, links);
        let log = PartitionLog::new(id, commits, core.classified(), now);
        let mut actor = Self {
            id,
            replica,
            core,
            log: Rc::clone(&log),
            fence,
            webhooks: HashMap::new(),
            lagging: BTreeSet::new(),
            known,
            scanning: false,
            applying: VecDeque::new(),
            journal: None,
        };
        for webhook in &owned {
            actor.restore_webhook(webhook, &mut fold);
        }
        (actor, log)
    }

    /// Starts the actor of a webhook that JOURNAL knows.
    fn restore_webhook(&mut self, webhook: &Arc<Webhook>, fold: &mut PartitionFold) {
        let Some(history) = self.core.history(webhook.id) else {
            return;
        };
        let (Some(start), false) = (history.start(), history.is_deleted()) else {
            return;
        };
        let past = fold
            .webhooks
            .get_mut(&webhook.id)
            .map(|fold| std::mem::take(&mut fold.past))
            .unwrap_or_default();
        let after = start.previous().max(self.core.scanned());
        self.start_webhook(webhook, after, past);
    }

    fn start_webhook(&mut self, webhook: &Arc<Webhook>, after: Sequence, past: Past) {
        let history = self.core.history(webhook.id).cloned().unwrap_or_default();
        let core = Deliveries::new(
            webhook.id,
            self.replica.nats.generation,
            webhook.definition.policy.clone(),
            after,
            past,
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

    /// Applies what the registry says of a webhook, if that is news.
    fn configure(&mut self, webhook: &Arc<Webhook>) {
        let Some(configured) = self.core.configure(webhook) else {
            return;
        };
        let Configured {
            entries,
            starts_after,
            deleted,
        } = configured;
        let now = self.log.now(self.replica.clock.now());
        for entry in entries {
            let ordinal = self.log.push(now, entry);
            self.applying.push_back((ordinal, webhook.sequence));
        }
        if let Some(after) = starts_after {
            self.start_webhook(webhook, after, Past::default());
        }
        self.update(webhook.id);
        if deleted {
            self.core.remove(webhook.project, webhook.id);
            self.log.forget(webhook.id);
        }
    }

    /// Tells a webhook its configuration and how far the stream reaches; again later, when its
    /// mailbox is full. A deleted one is told once more and let go.
    fn update(&mut self, id: WebhookId) {
        let Some(address) = self.webhooks.get(&id) else {
            self.lagging.remove(&id);
            return;
        };
        let webhook = self.replica.view.read(|state| state.webhook(id).cloned());
        let (Some(webhook), Some(history)) = (webhook, self.core.history(id).cloned()) else {
            self.lagging.remove(&id);
            return;
        };
        let deleted = history.is_deleted();
        let update = Update {
            webhook,
            history,
            scanned: self.core.scanned(),
        };
        match address.try_send(update) {
            Ok(()) => {
                self.lagging.remove(&id);
                if deleted {
                    // Its attempts under way hold it until they end.
                    self.webhooks.remove(&id);
                }
            }
            Err(_) => {
                self.lagging.insert(id);
            }
        }
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
        // What was decided while nobody owned the partition.
        for webhook in webhooks_of(&self.replica, self.id) {
            self.configure(&webhook);
        }
        self.scan(ctx);
        ctx.run_interval(TICK, |actor, ctx| {
            for id in actor.lagging.clone() {
                actor.update(id);
            }
            actor.progress(ctx);
        });
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
        self.progress(ctx);
    }
}

impl Handler<Progress> for PartitionActor {
    type Result = ();

    fn handle(&mut self, _: Progress, ctx: &mut Self::Context) {
        self.progress(ctx);
    }
}
