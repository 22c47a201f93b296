//! The replica: takes, runs and gives away partitions as [`Ownership`] says, hands them their
//! stretches of the one tail, and in the end gives all away.
//!
//! It decides nothing about ownership. What takes long runs beside it and reports, so that a
//! takeover that waits holds up nothing else.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::{Actor as _, Addr};
use futures_util::future::join_all;
use shared::codec;
use shared::domain::membership::Roster;
use shared::domain::registry::{Change, Changed};
use shared::ids::{Epoch, PartitionId, Sequence};
use shared::nats::read::StoredMessage;
use shared::nats::tail::{Tail, TailBatch};
use shared::subjects;
use shared::time::Timestamp;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::handover::{self, Report};
use super::horizon;
use super::log::PartitionLog;
use super::partition::{PartitionActor, RegistryMoved, TailStretch};
use super::projector::{Projector, ProjectorCommand, Target};
use super::questions;
use super::replays;
use super::shared_state::Replica;
use super::webhook::Halt;
use crate::core::ownership::{Effect, Holding, Input, Living, Ownership, TakeFailure};
use crate::core::partition::Stretch;
use crate::io::events;
use crate::io::takeover::{Takeover, read_epochs};

/// Partitions that are taken at the same time; each costs a few round trips.
const TAKEOVERS_AT_ONCE: usize = 16;
const RETRY: Duration = Duration::from_millis(500);
/// Partitions may be given away within this after SIGTERM; then the replica's key goes.
const LEAVE_WITHIN: Duration = Duration::from_secs(24);
/// How often what nobody tells of is looked at: time, the lease, partitions that have ended.
const TICK: Duration = Duration::from_millis(100);
/// Batches of a tail that may wait for the node.
const BATCHES_WAITING: usize = 2;

/// A replica at work.
pub(crate) struct Node {
    replica: Rc<Replica>,
    ownership: Ownership,
    roster: watch::Receiver<Roster>,
    /// The lease's term at the last look.
    term: u64,
    partitions: BTreeMap<PartitionId, Owned>,
    /// Taken, and to be started or dropped by the next step.
    taken: BTreeMap<PartitionId, Takeover>,
    /// Of partitions that were stopped here: their last attempts may still be under way.
    stopped: BTreeMap<PartitionId, Rc<PartitionLog>>,
    horizon: JoinHandle<()>,
    projector: JoinHandle<()>,
    projected: mpsc::UnboundedSender<ProjectorCommand>,
    events: Followed,
    /// How far EVENTS was handed on.
    known: Sequence,
    epochs: Followed,
    takeovers: Arc<Semaphore>,
    reporter: mpsc::UnboundedSender<Report>,
    reports: mpsc::UnboundedReceiver<Report>,
}

/// A partition that runs here.
struct Owned {
    address: Addr<PartitionActor>,
    log: Rc<PartitionLog>,
    epoch: Epoch,
    /// How far the partition was handed its events. Between here and the tail lies nothing of
    /// it, else it had been handed that.
    handed: Sequence,
    /// It is being given away: it is handed nothing more.
    is_leaving: bool,
    answers: JoinHandle<()>,
}

/// A tail that is read beside the node: its opening must not be cut short by what else happens.
struct Followed {
    batches: mpsc::Receiver<TailBatch>,
    reader: JoinHandle<()>,
}

/// Why a replica ends on its own.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error("{0} is not followed any more")]
    Unfollowed(&'static str),
    #[error("the projector of account events ended by a fault")]
    ProjectorEnded,
    /// Endpoints may have taken what is not journaled: those deliveries are repeated.
    #[error("attempts or outcomes were abandoned at the deadline")]
    Abandoned,
}

impl Node {
    /// Finds out who owns what. Waits for JetStream as long as it takes.
    pub(crate) async fn start(replica: Rc<Replica>) -> Self {
        // The tail begins here; partitions read what lies before it themselves.
        let known = patiently("EVENTS' end", || replica.nats.events_last()).await;
        let (entries, last) = patiently("epochs", || read_epochs(&replica.nats)).await;
        let (projected, commands) = mpsc::unbounded_channel();
        let projector = Projector::new(Rc::clone(&replica), commands);
        let (reporter, reports) = mpsc::unbounded_channel();
        let events = Tail::new(replica.nats.events.clone(), subjects::EVENTS_ALL, known);
        let epochs = Tail::new(replica.nats.journal.clone(), subjects::JOURNAL_EPOCHS, last);
        let mut node = Self {
            ownership: Ownership::new(replica.membership.me(), replica.nats.partitions),
            roster: replica.membership.roster(),
            term: 0,
            partitions: BTreeMap::new(),
            taken: BTreeMap::new(),
            stopped: BTreeMap::new(),
            horizon: actix_rt::spawn(horizon::follow(Rc::clone(&replica))),
            projector: actix_rt::spawn(projector.run()),
            projected,
            events: Followed::new(events),
            known,
            epochs: Followed::new(epochs),
            takeovers: Arc::new(Semaphore::new(TAKEOVERS_AT_ONCE)),
            reporter,
            reports,
            replica,
        };
        node.epochs_read(&entries);
        node.step(Input::EpochsRead);
        node
    }

    /// Owns its share until `shutdown`, then gives it away.
    pub(crate) async fn run(
        mut self,
        mut changes: mpsc::UnboundedReceiver<Change>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), NodeError> {
        let followed = self.follow(&mut changes, shutdown).await;
        // A fault in one place is no reason to repeat what is under way in all others.
        let left = self.leave().await;
        followed.and(left)
    }

    async fn follow(
        &mut self,
        changes: &mut mpsc::UnboundedReceiver<Change>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), NodeError> {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                batch = self.events.batches.recv() => {
                    self.spread(batch.ok_or(NodeError::Unfollowed("EVENTS"))?).await;
                }
                batch = self.epochs.batches.recv() => {
                    self.epochs_read(&batch.ok_or(NodeError::Unfollowed("JOURNAL"))?.messages);
                }
                Some(change) = changes.recv() => self.registry_changed(&change).await,
                Some(report) = self.reports.recv() => self.reported(report),
                _ = self.roster.changed() => self.look(),
                _ended = &mut self.projector => return Err(NodeError::ProjectorEnded),
                _ = tick.tick() => self.look(),
            }
        }
    }

    /// Gives everything away, so that a clean stop repeats nothing and its successors wait for
    /// nobody.
    async fn leave(mut self) -> Result<(), NodeError> {
        self.replica.draining.set(true);
        self.replica.ready.store(false, Ordering::Release);
        self.replica.membership.begin_leaving();
        self.step(Input::Leave);
        let given_away = async {
            let mut tick = tokio::time::interval(TICK);
            while !self.ownership.is_empty() {
                tokio::select! {
                    Some(report) = self.reports.recv() => self.reported(report),
                    Some(batch) = self.epochs.batches.recv() => {
                        self.epochs_read(&batch.messages);
                    }
                    _ = tick.tick() => self.look(),
                }
            }
        };
        let result = tokio::time::timeout(LEAVE_WITHIN, given_away).await;
        self.horizon.abort();
        self.replica.membership.leave().await;
        if result.is_err() || self.stopped.values().any(|log| log.attempts() > 0) {
            tracing::warn!(
                attempts = self.replica.slots.attempts(),
                "what is under way at the deadline will be repeated"
            );
            return Err(NodeError::Abandoned);
        }
        Ok(())
    }

    fn step(&mut self, input: Input) {
        let uptime = self.replica.clock.uptime();
        for effect in self.ownership.step(uptime, input) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        let (replica, reporter) = (Rc::clone(&self.replica), self.reporter.clone());
        match effect {
            Effect::Take(claim) => {
                let turns = Arc::clone(&self.takeovers);
                let before = self.stopped.remove(&claim.partition);
                actix_rt::spawn(handover::take(replica, claim, before, turns, reporter));
            }
            Effect::Start(partition) => self.start_partition(partition),
            Effect::Release(partition) => {
                let Some(owned) = self.partitions.get_mut(&partition) else {
                    return;
                };
                owned.is_leaving = true;
                let (address, log) = (owned.address.clone(), Rc::clone(&owned.log));
                actix_rt::spawn(handover::release(address, log, owned.epoch, reporter));
                self.project(ProjectorCommand::End(partition));
            }
            Effect::Stop(partition) => self.stop_partition(partition),
            Effect::Look(partition, epoch) => {
                actix_rt::spawn(handover::look(replica, partition, epoch, reporter));
            }
        }
    }

    fn start_partition(&mut self, partition: PartitionId) {
        let Some(takeover) = self.taken.remove(&partition) else {
            return;
        };
        let (epoch, cursor) = (takeover.epoch, takeover.state.projected);
        let replica = Rc::clone(&self.replica);
        let (actor, log) = PartitionActor::new(Rc::clone(&replica), takeover, self.known);
        self.project(ProjectorCommand::Begin(Target::new(
            Rc::clone(&log),
            cursor,
        )));
        let address = actor.start();
        let answering = replays::Owned {
            address: address.clone(),
            log: Rc::clone(&log),
        };
        let answers = actix_rt::spawn(questions::answer_all(replica, answering));
        let owned = Owned {
            address,
            log,
            epoch,
            handed: self.known,
            is_leaving: false,
            answers,
        };
        self.partitions.insert(partition, owned);
    }

    /// At once; what it had under way says nothing more.
    fn stop_partition(&mut self, partition: PartitionId) {
        let Some(owned) = self.partitions.remove(&partition) else {
            return;
        };
        owned.log.depose();
        owned.answers.abort();
        self.project(ProjectorCommand::End(partition));
        #[expect(clippy::disallowed_methods, reason = "an exit notice; one a partition")]
        owned.address.do_send(Halt);
        self.stopped.insert(partition, owned.log);
    }

    fn project(&self, command: ProjectorCommand) {
        // Without a projector the node is about to end.
        let _ended = self.projected.send(command).is_err();
    }

    fn reported(&mut self, report: Report) {
        match report {
            Report::Taken(takeover) => {
                let partition = takeover.partition;
                let holding = Holding {
                    epoch: takeover.epoch,
                    owner: self.replica.membership.me(),
                    sequence: takeover.fence,
                };
                self.taken.insert(partition, *takeover);
                self.step(Input::Taken { partition, holding });
                // Unless it was started, somebody else has it by now.
                self.taken.remove(&partition);
            }
            Report::TakeFailed(partition, failure) => {
                if failure == TakeFailure::Stopped {
                    self.replica.metrics.partitions_stopped.increment(1);
                }
                self.step(Input::TakeFailed { partition, failure });
            }
            Report::Released { partition, epoch } => {
                let is_own = |owned: &Owned| owned.epoch == epoch && owned.is_leaving;
                if self.partitions.get(&partition).is_some_and(is_own)
                    && let Some(owned) = self.partitions.remove(&partition)
                {
                    owned.answers.abort();
                    tracing::info!(%partition, "the partition is released");
                }
                self.step(Input::Released { partition, epoch });
            }
            Report::Deposed { partition, epoch } => {
                self.step(Input::Deposed { partition, epoch });
            }
        }
    }

    /// At what changes with time alone.
    fn look(&mut self) {
        let (uptime, wall) = (self.replica.clock.uptime(), self.replica.clock.now());
        let (standing, living, term) = {
            let roster = self.roster.borrow_and_update();
            compare_clocks(&self.replica, &roster, wall, uptime);
            let living = roster
                .living()
                .map(|(replica, member)| Living {
                    replica,
                    leaving: member.leaving,
                })
                .collect();
            (roster.standing(uptime), living, roster.lease().term)
        };
        if term != self.term {
            if self.term > 0 {
                tracing::warn!("the lease had lapsed");
                self.replica.metrics.lease_lapses.increment(1);
            }
            self.term = term;
            self.partitions.values().for_each(|owned| owned.log.prove());
        }
        self.step(Input::Members { standing, living });
        let ended: Vec<(PartitionId, Epoch, bool)> = self
            .partitions
            .iter()
            .filter(|(_, owned)| owned.has_ended())
            .map(|(partition, owned)| (*partition, owned.epoch, owned.log.is_deposed()))
            .collect();
        for (partition, epoch, is_deposed) in ended {
            if is_deposed {
                self.step(Input::Deposed { partition, epoch });
            } else {
                tracing::error!(%partition, "the partition ended by a fault; it is taken again");
                self.step(Input::Failed { partition, epoch });
            }
        }
        self.give_up_unreadable();
        self.stopped.retain(|_, log| log.attempts() > 0);
        let is_ready = self.ownership.is_complete() && !self.replica.draining.get();
        if self.replica.ready.swap(is_ready, Ordering::AcqRel) != is_ready {
            let (replica, partitions) = (self.replica.membership.me(), self.partitions.len());
            if is_ready {
                tracing::info!(%replica, partitions, "dispatcher is ready");
            } else {
                tracing::info!(%replica, partitions, "dispatcher is not ready");
            }
        }
    }

    /// Rule 26: what a later release wrote is never skipped; the others go on.
    fn give_up_unreadable(&mut self) {
        let unreadable: Vec<(PartitionId, Epoch)> = self
            .partitions
            .iter()
            .filter(|(_, owned)| !owned.is_leaving && owned.log.is_unreadable())
            .map(|(partition, owned)| (*partition, owned.epoch))
            .collect();
        for (partition, epoch) in unreadable {
            self.replica.metrics.partitions_unreadable.increment(1);
            self.step(Input::Unreadable { partition, epoch });
        }
    }

    fn epochs_read(&mut self, messages: &[StoredMessage]) {
        for message in messages {
            let Some(partition) = subjects::partition_of_epoch(&message.subject) else {
                continue;
            };
            match codec::decode_epoch(&message.payload) {
                Ok(entry) => {
                    let holding = Holding {
                        epoch: entry.epoch,
                        owner: entry.owner,
                        sequence: message.sequence,
                    };
                    self.step(Input::EpochRead { partition, holding });
                }
                // Written by a later release, to which the partition is left (rule 26).
                Err(error) => {
                    tracing::error!(%partition, %error, "an epoch entry is not readable");
                    let failure = TakeFailure::Stopped;
                    self.step(Input::TakeFailed { partition, failure });
                }
            }
        }
    }

    /// Hands each partition its events; waits until they are taken, so that the tail does not
    /// run ahead of the actors.
    async fn spread(&mut self, batch: TailBatch) {
        let through = batch
            .messages
            .last()
            .map_or(batch.after, |last| last.sequence);
        let metrics = &self.replica.metrics;
        metrics.events_read.increment(batch.messages.len() as u64);
        let mut stretches: BTreeMap<PartitionId, Stretch> = BTreeMap::new();
        for message in &batch.messages {
            let Some(partition) = subjects::partition_of_event(&message.subject) else {
                continue;
            };
            let owned = self.partitions.get_mut(&partition);
            let Some(owned) = owned.filter(|owned| !owned.is_leaving) else {
                continue;
            };
            let decoded = match events::decode(metrics, message) {
                Ok(decoded) => decoded,
                Err(error) => {
                    owned.log.note(&error);
                    None
                }
            };
            let stretch = stretches.entry(partition).or_insert_with(|| Stretch {
                after: std::mem::replace(&mut owned.handed, through),
                through,
                events: Vec::new(),
            });
            stretch.events.extend(decoded);
        }
        self.known = self.known.max(through);
        let sent = stretches.into_iter().filter_map(|(partition, stretch)| {
            let owned = self.partitions.get(&partition)?;
            // What it has not taken is left to whoever can read it.
            if owned.log.is_unreadable() {
                return None;
            }
            Some(owned.address.send(TailStretch(stretch)))
        });
        // One that has ended is seen at the next look, and read again by whoever takes it.
        let _ended = join_all(sent).await;
    }

    async fn registry_changed(&mut self, change: &Change) {
        let webhooks = match &change.what {
            Changed::Webhook(id) => vec![*id],
            Changed::ProjectDeleted => self.replica.view.read(|state| {
                state
                    .webhooks()
                    .filter(|webhook| webhook.project == change.project)
                    .map(|webhook| webhook.id)
                    .collect()
            }),
            Changed::Account(_) | Changed::Other => return,
        };
        let partition = self.replica.nats.partitions.of(change.project);
        let owned = self.partitions.get(&partition);
        if let Some(owned) = owned.filter(|owned| !owned.is_leaving) {
            let moved = RegistryMoved {
                webhooks,
                sequence: change.sequence,
            };
            let _ended = owned.address.send(moved).await.is_err();
        }
    }
}

impl Owned {
    /// While it is given away its actor ends first, and its log tells of the rest.
    fn has_ended(&self) -> bool {
        self.log.is_deposed() || (!self.is_leaving && !self.address.connected())
    }
}

impl Followed {
    fn new(mut tail: Tail) -> Self {
        let (sender, batches) = mpsc::channel(BATCHES_WAITING);
        let reader =
            actix_rt::spawn(async move { while sender.send(tail.next().await).await.is_ok() {} });
        Self { batches, reader }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Rule 22: a replica whose clock is off is not ready. Its key tells the others, and itself,
/// that it takes no partition.
fn compare_clocks(replica: &Replica, roster: &Roster, wall: Timestamp, uptime: Duration) {
    let Some(offset_ms) = roster.clock_offset_ms(wall, uptime) else {
        return;
    };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds, for a gauge")]
    let seconds = offset_ms as f64 / 1_000.0;
    replica.metrics.clock_offset_seconds.set(seconds);
    let is_off = !roster.is_on_time(wall, uptime);
    if replica.clock_is_off.swap(is_off, Ordering::AcqRel) == is_off {
        return;
    }
    if is_off {
        tracing::error!(offset_ms, "the wall clock is off JetStream's");
    } else {
        tracing::info!(offset_ms, "the wall clock is right again");
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
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
