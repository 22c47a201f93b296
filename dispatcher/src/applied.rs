//! How far the owner of each partition has applied the registry (`protocol.md`, rule 11).
//!
//! An owner applies its partition's entries in registry order, so one number a partition tells
//! of every entry at or below it.

use std::time::Duration;

use futures_util::future::{Either, select};
use shared::ids::{PartitionId, Sequence};
use shared::nats::Nats;
use shared::partition::PartitionCount;
use tokio::sync::watch;

use crate::owner::{ASK_AGAIN, Answer, Question, ask};

/// What this replica has applied as an owner. Written by its partitions, awaited by management
/// calls. What was applied stays applied, whoever owns the partition later.
pub struct Applied {
    /// By partition number.
    partitions: Vec<watch::Sender<Sequence>>,
}

impl Applied {
    pub fn new(partitions: PartitionCount) -> Self {
        Self {
            partitions: partitions
                .all()
                .map(|_| watch::Sender::new(Sequence(0)))
                .collect(),
        }
    }

    /// The partition's `ConfigApplied` entries through `sequence` are committed in JOURNAL.
    /// A lower sequence than an earlier one changes nothing.
    pub fn mark(&self, partition: PartitionId, sequence: Sequence) {
        if let Some(applied) = self.partition(partition) {
            applied.send_if_modified(|reached| {
                let rises = sequence > *reached;
                *reached = sequence.max(*reached);
                rises
            });
        }
    }

    /// Whether the owner, in this replica or another, got through `sequence` within the time
    /// given.
    pub async fn confirm(
        &self,
        nats: &Nats,
        partition: PartitionId,
        sequence: Sequence,
        within: Duration,
    ) -> bool {
        let here = std::pin::pin!(self.wait(partition, sequence, within));
        let asked = tokio::time::timeout(within, asked(nats, partition, sequence, within));
        match select(here, std::pin::pin!(asked)).await {
            Either::Left((true, _)) => true,
            Either::Left((false, asked)) => asked.await.is_ok(),
            Either::Right((Ok(()), _)) => true,
            Either::Right((Err(_), here)) => here.await,
        }
    }

    /// Whether this replica got through `sequence` within the time given.
    pub async fn wait(&self, partition: PartitionId, sequence: Sequence, within: Duration) -> bool {
        let Some(applied) = self.partition(partition) else {
            return false;
        };
        let mut applied = applied.subscribe();
        let reached = applied.wait_for(|reached| *reached >= sequence);
        matches!(tokio::time::timeout(within, reached).await, Ok(Ok(_)))
    }

    fn partition(&self, partition: PartitionId) -> Option<&watch::Sender<Sequence>> {
        self.partitions.get(usize::from(partition.0))
    }
}

/// Asks until the owner says so.
async fn asked(nats: &Nats, partition: PartitionId, sequence: Sequence, within: Duration) {
    let question = Question::Applied {
        through: sequence.0,
    };
    loop {
        match ask(nats, partition, sequence, &question, within).await {
            Ok(Answer::Applied { is_reached: true }) => return,
            Ok(_) => {}
            Err(error) => tracing::debug!(%partition, %error, "the owner is asked again"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const NOW: Duration = Duration::ZERO;

    fn applied() -> Applied {
        Applied::new(PartitionCount::new(2).unwrap())
    }

    #[tokio::test]
    async fn a_wait_ends_when_the_owner_gets_there() {
        let applied = applied();
        let (one, three) = (Sequence(1), Sequence(3));
        let marks = async {
            applied.mark(PartitionId(0), one);
            tokio::task::yield_now().await;
            applied.mark(PartitionId(0), three);
        };
        let (reached, ()) = tokio::join!(applied.wait(PartitionId(0), three, LONG), marks);
        assert!(reached);
        assert!(applied.wait(PartitionId(0), one, NOW).await);
    }

    #[tokio::test]
    async fn partitions_are_apart_and_marks_never_go_back() {
        let applied = applied();
        applied.mark(PartitionId(1), Sequence(5));
        applied.mark(PartitionId(1), Sequence(4));
        assert!(applied.wait(PartitionId(1), Sequence(5), NOW).await);
        assert!(!applied.wait(PartitionId(1), Sequence(6), NOW).await);
        assert!(!applied.wait(PartitionId(0), Sequence(1), NOW).await);
        assert!(!applied.wait(PartitionId(2), Sequence(0), LONG).await);
    }
}
