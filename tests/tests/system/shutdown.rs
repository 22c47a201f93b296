//! A clean stop finishes what it has begun and repeats nothing.

use std::time::Duration;

use support::ledger::Ledger;
use support::receiver::Answer;

use crate::stage::{IN_A_WHILE, Stage, event, post_all, record_of};

const EVENTS: usize = 600;
const RECORDS: usize = 60;

#[tokio::test]
async fn a_stop_drains_and_makes_no_duplicates() {
    let mut stage = Stage::start().await;
    stage
        .receiver
        .answer(|_| Answer::status(204).after(Duration::from_millis(50)));
    let mut accepted = Ledger::default();
    let events: Vec<_> = (0..EVENTS)
        .map(|number| event(&format!("record-{}", number % RECORDS), number))
        .collect();
    for (event, id) in events
        .iter()
        .zip(post_all(&stage.tenant.client, &events).await)
    {
        accepted.accepted(record_of(event), &id);
    }
    for part in [1, 2] {
        let some = part * EVENTS / 6;
        stage
            .receiver
            .wait_for("some", IN_A_WHILE, |all| all.len() >= some)
            .await
            .unwrap();
        let status = stage.cluster.dispatcher.terminate().await.unwrap();
        assert!(status.success(), "the dispatcher ended with {status}");
        // Whatever had arrived was answered before it went.
        assert!(
            stage
                .receiver
                .deliveries()
                .iter()
                .all(|delivery| delivery.succeeded())
        );
        stage.cluster.dispatcher.restart().await.unwrap();
    }
    stage.settled(&accepted).await;
    assert_eq!(stage.receiver.count(), EVENTS, "each arrived exactly once");
    stage.cluster.stop().await.unwrap();
}

#[tokio::test]
async fn ingest_stops_cleanly_and_comes_back() {
    let mut stage = Stage::start().await;
    let before = stage.post(event("record", 1)).await;
    let status = stage.cluster.ingest.terminate().await.unwrap();
    assert!(status.success(), "ingest ended with {status}");
    stage.cluster.ingest.restart().await.unwrap();
    let after = stage.post(event("record", 2)).await;
    for id in [before, after] {
        stage.receiver.wait_for_id(&id, IN_A_WHILE).await.unwrap();
    }
    assert_eq!(stage.receiver.count(), 2);
}
