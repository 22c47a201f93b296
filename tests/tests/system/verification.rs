//! What becomes of deliveries while a webhook waits to be verified again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use support::receiver::{Answer, Delivery};

use crate::stage::{HOOK, SOON, Stage, event};

/// Where the webhook is moved to.
const MOVED: &str = "/moved";
/// Of another webhook, whose retry comes after the one that is watched for.
const WATCH: &str = "/watch";

async fn verify(stage: &Stage, hook: &str) {
    let path = format!("/v1/webhooks/{hook}/verify");
    let answer = stage.tenant.client.call(Method::POST, &path, None).await;
    let verified = answer.unwrap().expect(200).unwrap();
    assert_eq!(verified["status"], "enabled");
    assert_eq!(verified["applied"], true);
}

#[tokio::test]
async fn what_is_pending_waits_for_the_verification_and_what_arrives_does_not() {
    let stage = Stage::without_webhook().await;
    let client = &stage.tenant.client;
    let failing = Arc::new(AtomicBool::new(true));
    let fails = Arc::clone(&failing);
    let mut watched = 0;
    stage.receiver.answer(move |arrival| {
        if arrival.event.is_empty() {
            return Answer::status(200).with_body(&arrival.body);
        }
        let is_watched = arrival.path == WATCH;
        watched += usize::from(is_watched);
        let fails = if is_watched {
            watched == 1
        } else {
            fails.load(Ordering::SeqCst)
        };
        Answer::status(if fails { 500 } else { 204 })
    });
    let webhook = json!({
        "url": stage.receiver.url(HOOK),
        "events": ["crm_contacts.*"],
        "verification_required": true,
        "policy": {"retry_schedule_ms": [500, 60_000]},
    });
    let created = client.create_webhook(&webhook).await.unwrap();
    let created = created.expect(201).unwrap();
    assert_eq!(created["status"], "pending_verification");
    let hook = created["id"].as_str().unwrap();
    let secret = created["signing_secrets"][0]["secret"].as_str().unwrap();
    for path in [HOOK, MOVED] {
        stage.receiver.trust(path, secret);
    }
    verify(&stage, hook).await;
    let schedule = json!({"retry_schedule_ms": [3_000]});
    let events = json!(["crm_contacts.*"]);
    stage.webhook(&stage.tenant, WATCH, events, schedule).await;

    let first = stage.post(event("record-1", 1)).await;
    let has_failed = |all: &[Delivery]| {
        let failed = all.iter().filter(|one| one.id() == first);
        failed.filter(|one| one.answered.is_some()).count() >= 2
    };
    let wait = stage.receiver.wait_for("both failures", SOON, has_failed);
    wait.await.unwrap();
    let moved = json!({"url": stage.receiver.url(MOVED)});
    let moved = client.patch_webhook(hook, &moved).await.unwrap();
    let moved = moved.expect(200).unwrap();
    assert_eq!(moved["status"], "pending_verification");
    assert_eq!(moved["verified_at"], Value::Null);
    let skipped = stage.post(event("record-2", 2)).await;
    // By then its own retry would have come.
    let is_retried = |all: &[Delivery]| {
        let watched = all.iter().filter(|one| one.path == WATCH);
        watched.filter(|one| one.id() == first).count() == 2
    };
    let wait = stage
        .receiver
        .wait_for("the other's retry", SOON, is_retried);
    wait.await.unwrap();
    assert!(stage.receiver.to_path(MOVED).is_empty());

    failing.store(false, Ordering::SeqCst);
    verify(&stage, hook).await;
    let is_there = |all: &[Delivery]| {
        let mut there = all.iter().filter(|one| one.path == MOVED);
        there.any(|one| one.id() == first)
    };
    let wait = stage.receiver.wait_for("what was pending", SOON, is_there);
    wait.await.unwrap();
    let after = stage.post(event("record-2", 3)).await;
    let is_last = |all: &[Delivery]| {
        let mut there = all.iter().filter(|one| one.path == MOVED);
        there.any(|one| one.id() == after)
    };
    let wait = stage.receiver.wait_for("what came after", SOON, is_last);
    wait.await.unwrap();
    let arrived = stage.receiver.to_path(MOVED);
    let ids: Vec<_> = arrived.iter().map(Delivery::id).collect();
    assert!(!ids.contains(&skipped.as_str()), "{ids:?}");
    assert_eq!(ids.len(), 3, "the verification and two events: {ids:?}");
    stage.receiver.all_verified().unwrap();
}
