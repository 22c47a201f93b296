//! One record that always fails, with far more behind it than a webhook holds in memory, beside
//! others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use support::ledger::Ledger;
use support::receiver::Answer;

use crate::stage::{IN_A_WHILE, Stage, event, post_all, record_of};

/// More than the window of 4,096.
const HOT_EVENTS: usize = 6_000;
const OTHER_EVENTS: usize = 1_000;
const OTHER_RECORDS: usize = 100;
const HOT: &str = "hot";

#[tokio::test]
async fn a_record_that_fails_for_long_holds_up_itself_alone_however_much_lies_behind_it() {
    let retries = vec![300; 20];
    let stage = Stage::with_policy(json!({ "retry_schedule_ms": retries })).await;
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    stage.receiver.answer(move |arrival| {
        let fails = arrival.record_id == HOT && !mended.load(Ordering::SeqCst);
        Answer::status(if fails { 500 } else { 204 })
    });
    let hot = (0..HOT_EVENTS).map(|number| event(HOT, number));
    // The others come last, behind all of it.
    let others = (0..OTHER_EVENTS).map(|number| {
        let record = format!("record-{}", number % OTHER_RECORDS);
        event(&record, number)
    });
    let events: Vec<_> = hot.chain(others).collect();
    let mut accepted = Ledger::default();
    for batch in events.chunks(1_000) {
        let ids = post_all(&stage.tenant.client, batch).await;
        for (event, id) in batch.iter().zip(ids) {
            accepted.accepted(record_of(event), &id);
        }
    }
    stage
        .receiver
        .wait_for("the others", IN_A_WHILE, |all| {
            let delivered = all.iter().filter(|delivery| delivery.succeeded());
            delivered.count() >= OTHER_EVENTS
        })
        .await
        .unwrap();
    let hot_arrivals = stage.receiver.of_record(HOT);
    assert!(!hot_arrivals.is_empty());
    let head = hot_arrivals[0].id();
    assert!(
        hot_arrivals.iter().all(|arrival| arrival.id() == head),
        "nothing of the record passed its first event"
    );
    is_mended.store(true, Ordering::SeqCst);
    stage.settled(&accepted).await;
    assert_eq!(stage.receiver.distinct_successes(), events.len());
    stage.cluster.stop().await.unwrap();
}
