//! The dispatcher dies without warning in the middle of its work.

use std::time::Duration;

use support::ledger::{self, Ledger};
use support::receiver::Answer;

use crate::stage::{IN_A_WHILE, Stage, event, post_all, record_of};

const EVENTS: usize = 2_000;
const RECORDS: usize = 100;
/// Events of one record that come one after the other, so that its lane is always in use.
const IN_A_ROW: usize = 5;
const BATCH: usize = 100;
/// Long enough that two attempts of a lane would overlap.
const PAUSE: Duration = Duration::from_millis(5);
/// Longer than it takes to kill the dispatcher, and shorter than its patience.
const HOLD: Duration = Duration::from_secs(8);
/// Requests that are left unanswered by a kill; fewer than may be in flight.
const HELD: usize = 10;

/// Posts the events numbered so, in batches.
async fn post(stage: &Stage, numbers: std::ops::Range<usize>, accepted: &mut Ledger) {
    let events: Vec<_> = numbers
        .map(|number| event(&format!("record-{}", number / IN_A_ROW % RECORDS), number))
        .collect();
    for batch in events.chunks(BATCH) {
        let ids = post_all(&stage.tenant.client, batch).await;
        for (event, id) in batch.iter().zip(&ids) {
            accepted.accepted(record_of(event), id);
        }
    }
}

/// From now on the last few of `count` requests stay unanswered, and any that come after them: so
/// a dispatcher that is killed then dies with attempts under way and events to come.
fn hold_from(stage: &Stage, count: usize) {
    let mut arrived = stage.receiver.count();
    stage.receiver.answer(move |_| {
        arrived += 1;
        Answer::status(204).after(if arrived > count - HELD { HOLD } else { PAUSE })
    });
}

async fn kill_dispatcher_at(stage: &mut Stage, count: usize) {
    let what = format!("{count} requests");
    stage
        .receiver
        .wait_for(&what, IN_A_WHILE, |all| all.len() >= count)
        .await
        .unwrap();
    stage.cluster.dispatcher.kill();
}

#[tokio::test]
async fn nothing_is_lost_or_disordered_when_the_dispatcher_is_killed_twice() {
    const FIRST_KILL: usize = EVENTS / 8;
    const SECOND_KILL: usize = EVENTS / 2 + EVENTS / 8;
    let mut stage = Stage::start().await;
    let mut accepted = Ledger::default();
    hold_from(&stage, FIRST_KILL);
    post(&stage, 0..EVENTS / 2, &mut accepted).await;
    kill_dispatcher_at(&mut stage, FIRST_KILL).await;
    // Ingest needs no dispatcher.
    post(&stage, EVENTS / 2..EVENTS, &mut accepted).await;
    hold_from(&stage, SECOND_KILL);
    stage.cluster.dispatcher.restart().await.unwrap();
    kill_dispatcher_at(&mut stage, SECOND_KILL).await;
    stage.receiver.answer(|_| Answer::status(204).after(PAUSE));
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
