//! The replica: takes its partitions, follows the tail, and drains.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor as _, Addr};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use shared::domain::registry::{Change, Changed};
use shared::ids::{PartitionId, ReplicaId, Sequence};
use shared::nats::tail::{Tail, TailBatch};
use shared::subjects;
use tokio::sync::mpsc;

use super::log::PartitionLog;
use super::partition::{PartitionActor, RegistryMoved, TailStretch};
use super::projector::{Projector, Target};
use super::shared_state::Replica;
use crate::core::partition::Stretch;
use crate::io::events;
use crate::io::takeover::{Takeover, TakeoverError, take_over};

/// Partitions that are taken at the same time; each costs a few round trips.
const TAKEOVERS_AT_ONCE: usize = 8;
const TAKEOVER_RETRY: Duration = Duration::from_millis(500);
/// Attempts that are under way at SIGTERM may end within this.
const DRAIN_ATTEMPTS: Duration = Duration::from_secs(20);
/// And then their outcomes may be committed within this.
const DRAIN_COMMITS: Duration = Duration::from_secs(4);
/// How often partitions are looked at that are sent nothing.
const LOOK_AT_PARTITIONS: Duration = Duration::from_secs(1);
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// A replica at work.
pub(crate) struct Node {
    replica: Rc<Replica>,
    partitions: BTreeMap<PartitionId, Owned>,
    projector: tokio::task::JoinHandle<()>,
    tail: Tail,
}

struct Owned {
    address: Addr<PartitionActor>,
    log: Rc<PartitionLog>,
    /// How far the partition was handed its events. Between here and the tail lies nothing of
    /// it, else it had been handed that.
    handed: Sequence,
}

/// Why a replica ends on its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error("a partition could not be taken: {0}")]
    Takeover(#[from] TakeoverError),
    #[error("EVENTS holds what this release cannot read: {0}")]
    Unreadable(String),
    #[error("partition {0} ended by a fault")]
    PartitionEnded(PartitionId),
    #[error("the projector of account events ended by a fault")]
    ProjectorEnded,
    /// Endpoints may have taken what is not journaled: those deliveries are repeated.
    #[error("attempts or outcomes were abandoned at the deadline")]
    Abandoned,
}

impl Node {
    /// Takes all partitions and starts their actors. Waits for JetStream as long as it takes.
    pub(crate) async fn start(replica: Rc<Replica>, id: ReplicaId) -> Result<Self, NodeError> {
        // The tail begins here; partitions read what lies before it themselves.
        let known = patiently("EVENTS' end", || replica.nats.events_last()).await;
        let taken: Vec<Result<Takeover, TakeoverError>> =
            stream::iter(replica.nats.partitions.all())
                .map(|partition| take(&replica, partition, id))
                .buffer_unordered(TAKEOVERS_AT_ONCE)
                .collect()
                .await;
        // The registry as it was after the last epoch entry, at least (rule 6).
        patiently("the registry", || replica.view.catch_up()).await;
        let mut partitions = BTreeMap::new();
        let mut targets = BTreeMap::new();
        let mut all_owned = true;
        for takeover in taken {
            let takeover = match takeover {
                Ok(takeover) => takeover,
                // It stops alone, with an alarm; the others are not at fault (rule 7).
                Err(error @ TakeoverError::Stopped(_)) => {
                    tracing::error!(%error, "a partition is not taken");
                    replica.metrics.partitions_stopped.increment(1);
                    all_owned = false;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let partition = takeover.partition;
            let projected = takeover.state.projected;
            let (actor, log) = PartitionActor::new(Rc::clone(&replica), takeover, known);
            targets.insert(partition, Target::new(Rc::clone(&log), projected));
            let address = actor.start();
            partitions.insert(
                partition,
                Owned {
                    address,
                    log,
                    handed: known,
                },
            );
        }
        replica.ready.store(all_owned, Ordering::Release);
        let projector = Projector::new(Rc::clone(&replica), targets);
        let projector = actix_rt::spawn(projector.run());
        let tail = Tail::new(replica.nats.events.clone(), subjects::EVENTS_ALL, known);
        Ok(Self {
            replica,
            partitions,
            projector,
            tail,
        })
    }

    /// Follows EVENTS and the registry until `shutdown`, then drains.
    pub(crate) async fn run(
        mut self,
        mut changes: mpsc::UnboundedReceiver<Change>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), NodeError> {
        let followed = self.follow(&mut changes, shutdown).await;
        // A fault in one place is no reason to repeat what is under way in all others.
        let drained = self.drain().await;
        followed.and(drained)
    }

    async fn follow(
        &mut self,
        changes: &mut mpsc::UnboundedReceiver<Change>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), NodeError> {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut look = tokio::time::interval(LOOK_AT_PARTITIONS);
        loop {
            // All that have come, before the tail is asked: a future of the tail that is dropped
            // while it opens leaves a consumer behind.
            while let Ok(change) = changes.try_recv() {
                self.registry_changed(&change).await?;
            }
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                batch = self.tail.next() => self.spread(batch).await?,
                Some(change) = changes.recv() => self.registry_changed(&change).await?,
                _ended = &mut self.projector => return Err(NodeError::ProjectorEnded),
                _ = look.tick() => self.check_partitions()?,
            }
        }
    }

    /// One that is quiet is sent nothing, which would tell that it has ended.
    fn check_partitions(&self) -> Result<(), NodeError> {
        for (partition, owned) in &self.partitions {
            if !owned.address.connected() && !owned.log.is_deposed() {
                return Err(NodeError::PartitionEnded(*partition));
            }
        }
        Ok(())
    }

    /// Hands each partition its events; waits until they are taken, so that the tail does not
    /// run ahead of the actors.
    async fn spread(&mut self, batch: TailBatch) -> Result<(), NodeError> {
        let through = batch
            .messages
            .last()
            .map_or(batch.after, |last| last.sequence);
        let metrics = &self.replica.metrics;
        metrics.events_read.increment(batch.messages.len() as u64);
        let mut stretches: BTreeMap<PartitionId, Stretch> = BTreeMap::new();
        for message in &batch.messages {
            let decoded = events::decode(metrics, message)
                .map_err(|error| NodeError::Unreadable(error.to_string()))?;
            let Some(partition) = subjects::partition_of_event(&message.subject) else {
                continue;
            };
            let Some(owned) = self.partitions.get_mut(&partition) else {
                continue;
            };
            let stretch = stretches.entry(partition).or_insert_with(|| Stretch {
                after: std::mem::replace(&mut owned.handed, through),
                through,
                events: Vec::new(),
            });
            stretch.events.extend(decoded);
        }
        let sent = stretches.into_iter().filter_map(|(partition, stretch)| {
            let owned = self.partitions.get(&partition)?;
            let sent = owned.address.send(TailStretch(stretch));
            Some(async move { owned.check(partition, sent.await) })
        });
        join_all(sent).await.into_iter().collect()
    }

    async fn registry_changed(&self, change: &Change) -> Result<(), NodeError> {
        let webhooks = match &change.what {
            Changed::Webhook(id) => vec![*id],
            Changed::ProjectDeleted => self.replica.view.read(|state| {
                state
                    .webhooks()
                    .filter(|webhook| webhook.project == change.project)
                    .map(|webhook| webhook.id)
                    .collect()
            }),
            Changed::Account(_) | Changed::Other => return Ok(()),
        };
        let partition = self.replica.nats.partitions.of(change.project);
        if let Some(owned) = self.partitions.get(&partition) {
            let moved = RegistryMoved {
                webhooks,
                sequence: change.sequence,
            };
            owned.check(partition, owned.address.send(moved).await)?;
        }
        Ok(())
    }

    /// Lets attempts end and commits what came of them, so that a clean stop repeats nothing.
    async fn drain(self) -> Result<(), NodeError> {
        self.replica.draining.set(true);
        self.replica.ready.store(false, Ordering::Release);
        let attempts_end = wait_until(DRAIN_ATTEMPTS, || self.replica.slots.attempts() == 0);
        let attempts_ended = attempts_end.await;
        if !attempts_ended {
            tracing::warn!(
                attempts = self.replica.slots.attempts(),
                "attempts were still under way at the deadline and will be repeated"
            );
        }
        let committed = wait_until(DRAIN_COMMITS, || {
            self.partitions.values().all(|owned| owned.log.is_empty())
        });
        if committed.await && attempts_ended {
            Ok(())
        } else {
            Err(NodeError::Abandoned)
        }
    }
}

impl Owned {
    /// A partition that was deposed has said so itself; one that ended otherwise is a fault.
    fn check(
        &self,
        partition: PartitionId,
        sent: Result<(), actix::MailboxError>,
    ) -> Result<(), NodeError> {
        match sent {
            Err(_) if !self.log.is_deposed() => Err(NodeError::PartitionEnded(partition)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

async fn take(
    replica: &Replica,
    partition: PartitionId,
    id: ReplicaId,
) -> Result<Takeover, TakeoverError> {
    loop {
        match take_over(&replica.nats, partition, id, replica.clock.now()).await {
            Err(TakeoverError::Unavailable(error)) => {
                tracing::warn!(partition = partition.0, %error, "the partition is not taken yet");
                tokio::time::sleep(TAKEOVER_RETRY).await;
            }
            taken => return taken,
        }
    }
}

async fn patiently<T, F, W>(what: &str, mut ask: F) -> T
where
    F: FnMut() -> W,
    W: Future<Output = Result<T, shared::nats::Unavailable>>,
{
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                tracing::warn!(%error, "waiting for {what}");
                tokio::time::sleep(TAKEOVER_RETRY).await;
            }
        }
    }
}

/// Looks until `holds`, for `within` at most; whether it held.
async fn wait_until(within: Duration, holds: impl Fn() -> bool) -> bool {
    let look = async {
        while !holds() {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    };
    tokio::time::timeout(within, look).await.is_ok()
}
