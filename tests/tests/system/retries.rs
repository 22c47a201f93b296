//! Failed deliveries are repeated: the same bytes, their own record's events waiting behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use support::eventually::eventually;
use support::ledger::Ledger;
use support::receiver::{Answer, Delivery};
use support::stored::Stored;

use crate::stage::{SOON, Stage, event, post_all, record_of};

/// What of a chosen wait is left by the lowest jitter.
const JITTER_LOWEST: f64 = 0.8;

fn index_of(deliveries: &[Delivery], wanted: impl Fn(&Delivery) -> bool) -> usize {
    deliveries.iter().position(wanted).unwrap()
}

#[tokio::test]
async fn a_failed_delivery_is_repeated_with_the_same_bytes() {
    const RECORDS: usize = 5;
    let stage = Stage::with_policy(json!({ "retry_schedule_ms": [200, 200] })).await;
    // All that is not a 2xx is a failure, redirects included.
    stage.receiver.answer(
        |arrival| match (arrival.number, arrival.record_id.as_str()) {
            (1, "record-0") => Answer::drop_connection(),
            (1, "record-1") => Answer::status(302).with_header("location", "/elsewhere"),
            (1, "record-2") => Answer::status(404).with_body("no such thing"),
            (1, _) => Answer::status(500).with_body("try again"),
            _ => Answer::status(204),
        },
    );
    let events: Vec<_> = (0..20)
        .map(|number| event(&format!("record-{}", number % RECORDS), number))
        .collect();
    let mut accepted = Ledger::default();
    for (event, id) in events
        .iter()
        .zip(post_all(&stage.tenant.client, &events).await)
    {
        accepted.accepted(record_of(event), &id);
    }
    stage.settled(&accepted).await;
    let deliveries = stage.receiver.deliveries();
    assert_eq!(deliveries.len(), 2 * events.len());
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.path == crate::stage::HOOK)
    );
    let mut of_id: HashMap<&str, Vec<&Delivery>> = HashMap::new();
    let mut last_of_record: HashMap<&str, &Delivery> = HashMap::new();
    for delivery in &deliveries {
        of_id.entry(delivery.id()).or_default().push(delivery);
        let before = last_of_record.insert(delivery.record_id(), delivery);
        // Nothing of a record goes out between an event's attempts.
        if let Some(before) = before.filter(|before| !before.succeeded()) {
            assert_eq!(before.id(), delivery.id(), "{}", delivery.record_id());
        }
    }
    for (id, attempts) in of_id {
        let [first, second] = attempts[..] else {
            panic!("{id}: {} attempts", attempts.len());
        };
        assert_eq!(first.body, second.body, "{id}");
        assert!(second.succeeded() && !first.succeeded(), "{id}");
        let waited = second.at.saturating_sub(first.at).as_secs_f64();
        assert!(
            waited >= 0.2 * JITTER_LOWEST,
            "{id}: repeated after {waited} s"
        );
    }
}

#[tokio::test]
async fn a_failing_event_holds_back_its_own_record_alone() {
    // Enough attempts that the other record's event has time to arrive.
    let stage = Stage::with_policy(json!({ "retry_schedule_ms": vec![300; 20] })).await;
    let other_arrived = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&other_arrived);
    stage.receiver.answer(move |arrival| {
        seen.fetch_or(arrival.record_id == "other", Ordering::SeqCst);
        if arrival.record_id == "failing" && !seen.load(Ordering::SeqCst) {
            return Answer::status(500);
        }
        Answer::status(204)
    });
    // Were the other record to wait for the failing one, neither would ever be answered well.
    let first = stage.post(event("failing", 1)).await;
    stage
        .receiver
        .wait_for("a failed attempt", SOON, |all| {
            all.iter().any(|delivery| delivery.id() == first)
        })
        .await
        .unwrap();
    let second = stage.post(event("failing", 2)).await;
    let other = stage.post(event("other", 3)).await;
    stage.receiver.wait_for_id(&second, SOON).await.unwrap();
    let all = stage.receiver.deliveries();
    let first_done = index_of(&all, |delivery| {
        delivery.id() == first && delivery.succeeded()
    });
    let second_seen = index_of(&all, |delivery| delivery.id() == second);
    assert!(first_done < second_seen);
    assert_eq!(stage.receiver.of_id(&other).len(), 1);
    assert!(stage.receiver.of_id(&first).len() > 1);
    stage.receiver.all_verified().unwrap();
}

#[tokio::test]
async fn a_record_that_waits_for_a_retry_still_waits_after_a_crash() {
    const WAIT_MS: u32 = 5_000;
    let mut stage = Stage::with_policy(json!({ "retry_schedule_ms": [WAIT_MS] })).await;
    let mut failed = false;
    stage.receiver.answer(move |_| {
        let status = if failed { 204 } else { 500 };
        failed = true;
        Answer::status(status)
    });
    let stored = Stored::connect(&stage.cluster.nats.url()).await.unwrap();
    let first = stage.post(event("failing", 1)).await;
    eventually("the failure journaled", SOON, async || {
        let journaled = stored.has_failed_attempt(&first).await.unwrap();
        journaled.then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await
    .unwrap();
    stage.cluster.dispatcher.kill();
    // What is behind the parked event comes while nobody is there.
    let second = stage.post(event("failing", 2)).await;
    let other = stage.post(event("other", 3)).await;
    stage.cluster.dispatcher.restart().await.unwrap();
    stage.receiver.wait_for_id(&other, SOON).await.unwrap();
    stage.receiver.wait_for_id(&second, SOON).await.unwrap();
    let attempts = stage.receiver.of_id(&first);
    assert_eq!(
        attempts.len(),
        2,
        "the failed attempt counts after the crash"
    );
    assert_eq!(attempts[0].body, attempts[1].body);
    let waited = attempts[1].at.saturating_sub(attempts[0].at).as_secs_f64();
    assert!(
        waited * 1_000.0 >= f64::from(WAIT_MS) * JITTER_LOWEST,
        "after {waited} s"
    );
    let all = stage.receiver.deliveries();
    let first_done = index_of(&all, |delivery| {
        delivery.id() == first && delivery.succeeded()
    });
    assert!(first_done < index_of(&all, |delivery| delivery.id() == second));
    stage.receiver.all_verified().unwrap();
}
