//! When a partition's state is stored, and the storing of it (`protocol.md`, rule 25).
//!
//! What is stored is the fold of packs that are known stored, nothing that is on its way.

use std::rc::Rc;
use std::time::Duration;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use shared::codec;
use shared::domain::snapshot::SnapshotLabel;
use shared::nats::snapshots::{self, Written};

use super::log::PartitionLog;
use super::partition::PartitionActor;
use super::shared_state::Replica;

/// Even a partition in which nothing happens: JOURNAL forgets by age.
const IDLE: Duration = Duration::from_secs(12 * 60 * 60);
/// After one that could not be stored.
const RETRY: Duration = Duration::from_secs(30);

/// What is known of a partition's snapshots.
#[derive(Debug)]
pub(crate) struct Snapshots {
    /// Entries that are not in a snapshot, at the time when the log began to count.
    folded: u64,
    /// The log's count of stored entries when the last one was taken.
    stored: u64,
    /// The clock's `elapsed` from which on one is due whatever has happened.
    due_at: Duration,
    /// None before then.
    not_before: Duration,
    under_way: bool,
    /// An empty pack was asked for, so that the snapshot lies near JOURNAL's end.
    flushed: bool,
}

impl Snapshots {
    /// `folded`: entries that the owner had to fold after the last snapshot.
    pub(crate) fn new(folded: u64, elapsed: Duration) -> Self {
        Self {
            folded,
            stored: 0,
            due_at: elapsed.saturating_add(IDLE),
            not_before: elapsed,
            under_way: false,
            flushed: false,
        }
    }

    fn is_due(&self, stored: u64, every: u64, elapsed: Duration) -> bool {
        let entries = self
            .folded
            .saturating_add(stored.saturating_sub(self.stored));
        !self.under_way
            && elapsed >= self.not_before
            && (entries >= every || elapsed >= self.due_at)
    }
}

impl PartitionActor {
    /// Stores a snapshot if one is due.
    pub(super) fn consider_snapshot(&mut self, ctx: &mut Context<Self>) {
        let elapsed = self.replica.clock.elapsed();
        let (stored, every) = (self.log.stored(), self.replica.snapshot_entries);
        if !self.snapshots.is_due(stored, every, elapsed) {
            return;
        }
        if !self.snapshots.flushed && elapsed >= self.snapshots.due_at {
            self.snapshots.flushed = true;
            self.log.flush();
            return;
        }
        self.snapshots.under_way = true;
        let (replica, log) = (Rc::clone(&self.replica), Rc::clone(&self.log));
        let done = store(replica, log).into_actor(self).map(|taken, actor, _| {
            let elapsed = actor.replica.clock.elapsed();
            actor.snapshots = match taken {
                Some(stored) => Snapshots {
                    stored,
                    ..Snapshots::new(0, elapsed)
                },
                None => Snapshots {
                    under_way: false,
                    not_before: elapsed.saturating_add(RETRY),
                    ..std::mem::replace(&mut actor.snapshots, Snapshots::new(0, elapsed))
                },
            };
        });
        ctx.spawn(done);
    }
}

/// Gives the log's count of stored entries that the snapshot holds; `None` if it is not stored.
async fn store(replica: Rc<Replica>, log: Rc<PartitionLog>) -> Option<u64> {
    // Closed never: the replica holds it.
    let _turn = replica.snapshot_turn.acquire().await;
    let started = replica.clock.elapsed();
    let (label, stored, bytes) = log.look(|commits| {
        let state = commits.state();
        let classified = state.classified?;
        let label = SnapshotLabel {
            partition: log.partition,
            generation: classified.generation,
            epoch: state.last?.0,
            journal: state.journal,
            classified: classified.sequence,
        };
        Some((label, commits.stored(), codec::encode_state(state)))
    })?;
    let size = bytes.len();
    match snapshots::write(&replica.nats, label, bytes.into()).await {
        Ok(Written::Stored | Written::Superseded) => {
            let took = replica.clock.elapsed().saturating_sub(started);
            replica.metrics.snapshot_seconds.record(took.as_secs_f64());
            replica.metrics.snapshots.increment(1);
            tracing::debug!(partition = %log.partition, bytes = size, "a snapshot is stored");
            Some(stored)
        }
        Err(error) => {
            replica.metrics.snapshots_failed.increment(1);
            tracing::error!(partition = %log.partition, %error, "a snapshot is not stored");
            None
        }
    }
}
