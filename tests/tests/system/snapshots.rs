//! A new owner begins from a partition's snapshot: what the journal has forgotten before it is
//! not needed, and without a snapshot it is missed.

use shared::ids::{PartitionId, ProjectId};
use shared::partition::PartitionCount;
use shared::subjects;
use support::eventually::eventually;
use support::ledger::{self, Ledger};
use support::stored::Stored;

use crate::stage::{SOON, Stage, event, post_all, record_of};

const EVENTS: usize = 1_200;
const BATCH: usize = 200;

async fn post(stage: &Stage, numbers: std::ops::Range<usize>, accepted: &mut Ledger) {
    let events: Vec<_> = numbers
        .map(|number| event(&format!("record-{}", number % 20), number))
        .collect();
    for batch in events.chunks(BATCH) {
        let ids = post_all(&stage.tenant.client, batch).await;
        for (event, id) in batch.iter().zip(&ids) {
            accepted.accepted(record_of(event), id);
        }
    }
}

fn partition(stage: &Stage) -> PartitionId {
    let project: ProjectId = stage.tenant.project.parse().unwrap();
    PartitionCount::DEFAULT.of(project)
}

/// The position in JOURNAL of the newest snapshot of the stage's partition.
async fn snapshot(stage: &Stage, stored: &Stored) -> u64 {
    let partition = partition(stage);
    eventually("a snapshot", SOON, async || {
        let kept = stored
            .snapshots(partition)
            .await
            .map_err(|error| error.to_string())?;
        kept.first()
            .map(|newest| newest.journal.0)
            .ok_or_else(|| "none yet".to_owned())
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_restart_needs_no_pack_from_before_the_snapshot() {
    let mut stage = Stage::start().await;
    let mut accepted = Ledger::default();
    post(&stage, 0..EVENTS, &mut accepted).await;
    stage.settled(&accepted).await;
    let stored = Stored::connect(&stage.cluster.nats.url()).await.unwrap();
    let through = snapshot(&stage, &stored).await;
    stage.cluster.dispatcher.kill();
    let journal = subjects::journal(partition(&stage));
    let purged = stored
        .purge(subjects::JOURNAL, &journal, through + 1)
        .await
        .unwrap();
    assert!(purged > 0, "there was nothing before the snapshot");
    stage.cluster.dispatcher.restart().await.unwrap();
    post(&stage, EVENTS..EVENTS + 100, &mut accepted).await;
    stage.settled(&accepted).await;
    // What a kill may repeat is what was not committed, which was nothing.
    assert_eq!(
        ledger::repeats_after_success(&stage.receiver.deliveries()),
        0
    );
}

#[tokio::test]
async fn a_log_that_lacks_packs_without_a_snapshot_stops_its_partition_alone() {
    let mut stage = Stage::start().await;
    let mut accepted = Ledger::default();
    post(&stage, 0..EVENTS, &mut accepted).await;
    stage.settled(&accepted).await;
    let stored = Stored::connect(&stage.cluster.nats.url()).await.unwrap();
    let through = snapshot(&stage, &stored).await;
    // Cleanly, so that a pack comes after the snapshot: a log without any says nothing.
    stage.cluster.dispatcher.terminate().await.unwrap();
    let journal = subjects::journal(partition(&stage));
    stored
        .purge(subjects::JOURNAL, &journal, through + 1)
        .await
        .unwrap();
    let everything = u64::MAX >> 1;
    stored
        .purge(subjects::SNAPSHOTS, subjects::SNAPSHOTS_ALL, everything)
        .await
        .unwrap();
    // It starts, and says that it is not ready: one partition waits for somebody to look.
    stage.cluster.dispatcher.start().unwrap();
    let log = stage.cluster.dispatcher.log().to_owned();
    let stopped = "there is no snapshot";
    eventually("the partition is stopped", SOON, async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains(stopped)
            .then_some(())
            .ok_or("not yet".to_owned())
    })
    .await
    .unwrap();
    let before = stage.receiver.count();
    let other = stage.cluster.tenant("Other").await.unwrap();
    stage
        .webhook(
            &other,
            "/other",
            serde_json::json!(["*"]),
            serde_json::json!({}),
        )
        .await;
    post_all(&other.client, &[event("x", 1)]).await;
    stage
        .receiver
        .wait_for("the other project's event", SOON, |all| all.len() > before)
        .await
        .unwrap();
    post(&stage, EVENTS..EVENTS + 1, &mut accepted).await;
    let ready = stage.cluster.dispatcher.metrics().await.unwrap();
    assert!(
        ready.contains("carillon_dispatcher_partitions_stopped_total 1"),
        "{ready}"
    );
    assert_eq!(
        stage.receiver.count(),
        before + 1,
        "the stopped partition sent"
    );
}
