//! The dispatcher dies without warning in the middle of its work.

use std::time::Duration;

use support::ledger::{self, Ledger};
use support::receiver::Answer;

use crate::stage::{IN_A_WHILE, Stage, event, post_all, record_of};

const EVENTS: usize = 2_000;
const RECORDS: usize = 100;
const BATCH: usize = 100;

/// Posts the events numbered so, in batches.
async fn post(stage: &Stage, numbers: std::ops::Range<usize>, accepted: &mut Ledger) {
    let events: Vec<_> = numbers
        .map(|number| event(&format!("record-{}", number % RECORDS), number))
        .collect();
    for batch in events.chunks(BATCH) {
        let ids = post_all(&stage.tenant.client, batch).await;
        for (event, id) in batch.iter().zip(&ids) {
            accepted.accepted(record_of(event), id);
        }
    }
}

async fn until_arrived(stage: &Stage, count: usize) {
    let what = format!("{count} deliveries");
    stage
        .receiver
        .wait_for(&what, IN_A_WHILE, |all| all.len() >= count)
        .await
        .unwrap();
}

#[tokio::test]
async fn nothing_is_lost_or_disordered_when_the_dispatcher_is_killed_twice() {
    let mut stage = Stage::start().await;
    // Slow enough that the kills hit the middle.
    stage
        .receiver
        .answer(|_| Answer::status(204).after(Duration::from_millis(20)));
    let mut accepted = Ledger::default();
    post(&stage, 0..EVENTS / 2, &mut accepted).await;
    until_arrived(&stage, EVENTS / 8).await;
    stage.cluster.dispatcher.kill();
    // Ingest needs no dispatcher.
    post(&stage, EVENTS / 2..EVENTS, &mut accepted).await;
    stage.cluster.dispatcher.restart().await.unwrap();
    until_arrived(&stage, EVENTS / 2 + EVENTS / 8).await;
    stage.cluster.dispatcher.kill();
    stage.cluster.dispatcher.restart().await.unwrap();
    assert_eq!(accepted.len(), EVENTS);
    stage.settled(&accepted).await;
    let deliveries = stage.receiver.deliveries();
    let repeats = ledger::repeats_after_success(&deliveries);
    #[expect(
        clippy::print_stdout,
        reason = "a figure for whoever reads the test's output"
    )]
    {
        println!(
            "{} requests for {EVENTS} events; {repeats} repeats after success",
            deliveries.len()
        );
    }
}
