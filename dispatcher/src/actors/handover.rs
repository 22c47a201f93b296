//! What taking a partition and giving it away consist of, beside the node: each ends with a
//! report to it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use shared::ids::{Epoch, PartitionId};
use tokio::sync::{Semaphore, mpsc};

use super::log::PartitionLog;
use super::partition::PartitionActor;
use super::shared_state::Replica;
use super::webhook::Halt;
use crate::core::ownership::{Claim, TakeFailure};
use crate::io::takeover::{Takeover, TakeoverError, has_released, take_over};

/// How often it is looked whether something has ended that does not say so.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What came of it.
#[derive(Debug)]
pub(crate) enum Report {
    Taken(Box<Takeover>),
    TakeFailed(PartitionId, TakeFailure),
    Released {
        partition: PartitionId,
        epoch: Epoch,
    },
    Deposed {
        partition: PartitionId,
        epoch: Epoch,
    },
}

/// Takes a partition over. `before` is its log from when it last ran here: a lane must not have
/// an attempt while one of then is under way.
pub(crate) async fn take(
    replica: Rc<Replica>,
    claim: Claim,
    before: Option<Rc<PartitionLog>>,
    turns: Arc<Semaphore>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let started = replica.clock.elapsed();
    if let Some(before) = before {
        until(|| before.attempts() == 0).await;
    }
    // Closed never: the node holds it.
    let _turn = turns.acquire().await;
    let partition = claim.partition;
    let taken = if replica.draining.get() {
        Err(TakeoverError::Lost)
    } else {
        take_over(&replica, &claim).await
    };
    let report = match taken {
        Ok(takeover) => {
            replica.metrics.takeover(claim.predecessor);
            let took = replica.clock.elapsed().saturating_sub(started);
            replica.metrics.takeover_seconds.record(took.as_secs_f64());
            tracing::info!(
                %partition,
                epoch = takeover.epoch.0,
                predecessor = ?claim.predecessor,
                "the partition is taken"
            );
            Report::Taken(Box::new(takeover))
        }
        Err(error @ TakeoverError::Stopped(_)) => {
            // It stops alone; the others are not at fault (rule 7).
            tracing::error!(%partition, %error, "the partition is not taken");
            Report::TakeFailed(partition, TakeFailure::Stopped)
        }
        Err(
            error @ (TakeoverError::Lost | TakeoverError::Lapsed | TakeoverError::Unavailable(_)),
        ) => {
            tracing::info!(%partition, %error, "the partition is not taken yet");
            Report::TakeFailed(partition, TakeFailure::Passing)
        }
    };
    tell(&reports, report);
}

/// Lets what is under way end, says so in JOURNAL, and ends the partition's actors. Takes as long
/// as the longest attempt.
pub(crate) async fn release(
    address: Addr<PartitionActor>,
    log: Rc<PartitionLog>,
    epoch: Epoch,
    reports: mpsc::UnboundedSender<Report>,
) {
    let partition = log.partition;
    log.close();
    until(|| log.attempts() == 0 || log.is_deposed()).await;
    // Outcomes of the last attempts may still lie in mailboxes; the actors handle them first.
    let _ended = address.send(Halt).await.is_err();
    until(|| log.is_empty() || log.is_deposed()).await;
    let ordinal = log.release();
    until(|| log.stored() >= ordinal || log.is_deposed()).await;
    log.dismiss_committer();
    let report = if log.is_deposed() {
        Report::Deposed { partition, epoch }
    } else {
        Report::Released { partition, epoch }
    };
    tell(&reports, report);
}

/// Looks whether the holder of `epoch` has released, and reports it if so.
pub(crate) async fn look(
    replica: Rc<Replica>,
    partition: PartitionId,
    epoch: Epoch,
    reports: mpsc::UnboundedSender<Report>,
) {
    match has_released(&replica.nats, partition, epoch).await {
        Ok(true) => tell(&reports, Report::Released { partition, epoch }),
        // The node asks again.
        Ok(false) => {}
        Err(error) => tracing::debug!(%partition, %error, "nobody knows who owns the partition"),
    }
}

fn tell(reports: &mpsc::UnboundedSender<Report>, report: Report) {
    // Without a node the process is about to end.
    let _ended = reports.send(report).is_err();
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
