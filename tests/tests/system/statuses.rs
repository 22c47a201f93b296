//! What becomes of deliveries when a webhook is deactivated, disabled, enabled or asked to wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use shared::codec;
use shared::domain::journal::{
    DeactivateReason, ExhaustReason, JournalEntry, Pack, SkipReason, UnsentEnd,
};
use shared::ids::Position;
use shared::partition::PartitionCount;
use shared::subjects;
use support::eventually::eventually;
use support::receiver::{Answer, Delivery};
use support::stored::Stored;

use crate::stage::{HOOK, SOON, Stage, event, post_all};

/// From the answer that deactivates a webhook to the API's word of it.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
/// Another webhook of the project.
const WATCH: &str = "/watch";

/// What JOURNAL says of webhooks.
struct Journal(Stored);

impl Journal {
    async fn of(stage: &Stage) -> Self {
        Self(Stored::connect(&stage.cluster.nats.url()).await.unwrap())
    }

    async fn entries(&self, webhook: &str) -> Vec<JournalEntry> {
        let packs = self.0.packs().await.unwrap();
        let entries = packs.into_iter().flat_map(|pack| pack.entries);
        entries.filter(|entry| is_about(entry, webhook)).collect()
    }

    /// Waits until so many were skipped on arrival, for this reason.
    async fn skipped(&self, webhook: &str, reason: SkipReason, count: u64) {
        eventually("events skipped on arrival", SOON, async || {
            let packs = self.0.packs().await.unwrap();
            let counted = packs.iter().flat_map(|pack| &pack.counted);
            let skipped: u64 = counted
                .filter(|counted| {
                    counted.webhook.to_string() == webhook && counted.skipped == Some(reason)
                })
                .map(|counted| counted.count)
                .sum();
            if skipped == count {
                Ok(())
            } else {
                Err(format!("{skipped} skipped"))
            }
        })
        .await
        .unwrap();
    }

    /// Waits until all that was pending has ended so, and gives how many that were.
    async fn pending_ended(&self, webhook: &str, end: UnsentEnd) -> u64 {
        eventually("the end of what was pending", SOON, async || {
            let entries = self.entries(webhook).await;
            let ended = entries.iter().find_map(|entry| match entry {
                JournalEntry::PendingEnded { end: of, count, .. } if *of == end => Some(*count),
                _ => None,
            });
            ended.ok_or_else(|| format!("{entries:#?}"))
        })
        .await
        .unwrap()
    }
}

fn is_about(entry: &JournalEntry, webhook: &str) -> bool {
    let id = entry.webhook();
    id.is_some_and(|id| id.to_string() == webhook)
}

async fn status_becomes(stage: &Stage, webhook: &str, status: &str, within: Duration) -> Value {
    eventually(&format!("{webhook} {status}"), within, async || {
        let shown = stage.tenant.client.get_webhook(webhook).await.unwrap();
        let shown = shown.expect(200).unwrap();
        if shown["status"] == status {
            Ok(shown)
        } else {
            Err(shown.to_string())
        }
    })
    .await
    .unwrap()
}

/// The `webhook.*` events that the other webhook was told, in order, once there are so many.
async fn told(stage: &Stage, count: usize) -> Vec<Delivery> {
    let arrived = |all: &[Delivery]| all.iter().filter(|one| one.path == WATCH).count() >= count;
    let wait = stage.receiver.wait_for("webhook.* events", SOON, arrived);
    wait.await.unwrap();
    stage.receiver.to_path(WATCH)
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(Delivery::id).collect()
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_sent_nothing_until_it_is_enabled() {
    let stage = Stage::without_webhook().await;
    let (client, journal) = (&stage.tenant.client, Journal::of(&stage).await);
    let gone = Arc::new(AtomicBool::new(true));
    let is_gone = Arc::clone(&gone);
    stage.receiver.answer(move |arrival| {
        if arrival.path == HOOK && is_gone.load(Ordering::SeqCst) {
            // By then the others are pending.
            return Answer::status(410).after(Duration::from_millis(500));
        }
        Answer::status(204)
    });
    let policy = json!({ "max_in_flight": 1 });
    // It would take what it is told of itself, too.
    let hook = stage
        .webhook(&stage.tenant, HOOK, json!(["*"]), policy)
        .await;
    let events = json!(["webhook.*"]);
    stage.webhook(&stage.tenant, WATCH, events, json!({})).await;
    let batch: Vec<_> = (0..5)
        .map(|number| event(&format!("record-{number}"), number))
        .collect();
    let posted = post_all(client, &batch).await;
    let answered = |all: &[Delivery]| all.iter().any(|one| one.answered.is_some());
    let wait = stage.receiver.wait_for("the answer 410", SOON, answered);
    wait.await.unwrap();
    let shown = status_becomes(&stage, &hook, "deactivated", SHOWN_WITHIN).await;
    assert_eq!(shown["status_reason"], "gone");

    let end = UnsentEnd::Exhausted(ExhaustReason::Deactivated);
    assert_eq!(journal.pending_ended(&hook, end).await, 5);
    let decisions: Vec<_> = journal
        .entries(&hook)
        .await
        .into_iter()
        .filter_map(|entry| match entry {
            JournalEntry::Deactivated { reason, .. } => Some(reason),
            _ => None,
        })
        .collect();
    assert_eq!(decisions, [DeactivateReason::Gone]);

    let told = told(&stage, 1).await;
    assert_eq!(told[0].event(), "webhook.deactivated");
    assert_eq!(told[0].record_id(), hook);
    assert_eq!(told[0].json["event_data"]["id"], hook.as_str());
    assert_eq!(told[0].json["event_data"]["status"], "deactivated");
    assert_eq!(told[0].json["event_data"]["reason"], "gone");

    stage.post(event("record-0", 5)).await;
    journal.skipped(&hook, SkipReason::Deactivated, 1).await;

    gone.store(false, Ordering::SeqCst);
    let enabled = client.enable_webhook(&hook).await.unwrap();
    let enabled = enabled.expect(200).unwrap();
    assert_eq!(enabled["status"], "enabled");
    assert_eq!(enabled["status_reason"], Value::Null);
    assert_eq!(enabled["applied"], true);
    let after = stage.post(event("record-0", 6)).await;
    stage.receiver.wait_for_id(&after, SOON).await.unwrap();
    let arrived = stage.receiver.to_path(HOOK);
    assert_eq!(ids(&arrived), [posted[0].as_str(), after.as_str()]);
    stage.receiver.all_verified().unwrap();
}

#[tokio::test]
async fn a_webhook_stays_deactivated_after_a_crash_and_its_edits() {
    let mut stage = Stage::without_webhook().await;
    stage.receiver.answer(|_| Answer::status(410));
    let hook = stage
        .webhook(&stage.tenant, HOOK, json!(["crm_contacts.*"]), json!({}))
        .await;
    stage.post(event("record", 1)).await;
    status_becomes(&stage, &hook, "deactivated", SOON).await;
    let edit = json!({ "description": "edited" });
    let edited = stage.tenant.client.patch_webhook(&hook, &edit).await;
    let edited = edited.unwrap().expect(200).unwrap();
    assert_eq!(edited["status"], "deactivated");
    assert_eq!(edited["status_reason"], "gone");
    stage.cluster.dispatcher.kill();
    stage.receiver.answer(|_| Answer::status(204));
    stage.cluster.dispatcher.restart().await.unwrap();
    let journal = Journal::of(&stage).await;
    stage.post(event("record", 2)).await;
    journal.skipped(&hook, SkipReason::Deactivated, 1).await;
    let enabled = stage.tenant.client.enable_webhook(&hook).await.unwrap();
    assert_eq!(enabled.expect(200).unwrap()["status"], "enabled");
    let after = stage.post(event("record", 3)).await;
    stage.receiver.wait_for_id(&after, SOON).await.unwrap();
    assert_eq!(stage.receiver.count(), 2);
}

#[tokio::test]
async fn what_an_owner_decided_and_did_not_tell_is_told_by_the_next() {
    let mut stage = Stage::without_webhook().await;
    let events = json!(["crm_contacts.*"]);
    let hook = stage.webhook(&stage.tenant, HOOK, events, json!({})).await;
    let events = json!(["webhook.*"]);
    stage.webhook(&stage.tenant, WATCH, events, json!({})).await;
    let stopped = stage.cluster.dispatcher.terminate().await.unwrap();
    assert!(stopped.success());
    // As if it had ended between its journal entry and the append to the registry.
    let journal = Journal::of(&stage).await;
    let packs = journal.0.packs().await.unwrap();
    let of_hook = |pack: &&Pack| pack.entries.iter().any(|entry| is_about(entry, &hook));
    let last = packs.iter().rfind(of_hook).unwrap();
    let entry = JournalEntry::Deactivated {
        webhook: hook.parse().unwrap(),
        reason: DeactivateReason::FailingTooLong,
        at: last.at,
        from: Position {
            generation: last.classified.generation,
            sequence: last.classified.sequence.next(),
        },
    };
    let epoch_packs = packs.iter().filter(|pack| pack.epoch == last.epoch);
    let decided = Pack {
        number: epoch_packs.map(|pack| pack.number).max().unwrap() + 1,
        counted: Vec::new(),
        entries: vec![entry],
        ..last.clone()
    };
    let project = stage.tenant.project.parse().unwrap();
    let partition = PartitionCount::DEFAULT.of(project);
    let client = async_nats::connect(stage.cluster.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let payload = codec::encode_pack(&decided);
    let append = jetstream.publish(subjects::journal(partition), payload.into());
    append.await.unwrap().await.unwrap();

    stage.cluster.dispatcher.restart().await.unwrap();
    let shown = status_becomes(&stage, &hook, "deactivated", SOON).await;
    assert_eq!(shown["status_reason"], "failing_too_long");
    let told = told(&stage, 1).await;
    assert_eq!(told[0].event(), "webhook.deactivated");
    assert_eq!(told[0].record_id(), hook);
    stage.post(event("record", 1)).await;
    journal.skipped(&hook, SkipReason::Deactivated, 1).await;
}

#[tokio::test]
async fn a_disabled_webhook_is_sent_neither_what_waits_nor_what_arrives() {
    let policy = json!({ "retry_schedule_ms": [600_000] });
    let stage = Stage::without_webhook().await;
    let (client, journal) = (&stage.tenant.client, Journal::of(&stage).await);
    let hook = stage
        .webhook(&stage.tenant, HOOK, json!(["*"]), policy)
        .await;
    stage
        .receiver
        .answer(|arrival| match arrival.record_id.as_str() {
            "failing" => Answer::status(500),
            _ => Answer::status(204),
        });
    let first = stage.post(event("failing", 1)).await;
    eventually("the failure journaled", SOON, async || {
        let journaled = journal.0.has_failed_attempt(&first).await.unwrap();
        journaled.then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await
    .unwrap();
    let disabled = client.disable_webhook(&hook).await.unwrap();
    let disabled = disabled.expect(200).unwrap();
    assert_eq!(disabled["status"], "disabled");
    assert_eq!(disabled["applied"], true);
    let end = UnsentEnd::Skipped(SkipReason::Disabled);
    assert_eq!(journal.pending_ended(&hook, end).await, 1);
    stage.post(event("other", 2)).await;
    journal.skipped(&hook, SkipReason::Disabled, 1).await;
    client
        .enable_webhook(&hook)
        .await
        .unwrap()
        .expect(200)
        .unwrap();
    let after = stage.post(event("other", 3)).await;
    stage.receiver.wait_for_id(&after, SOON).await.unwrap();
    let arrived = stage.receiver.to_path(HOOK);
    assert_eq!(ids(&arrived), [first.as_str(), after.as_str()]);
}

#[tokio::test]
async fn so_many_failures_in_a_row_deactivate_a_webhook() {
    let stage = Stage::without_webhook().await;
    stage
        .receiver
        .answer(|arrival| match arrival.path.as_str() {
            HOOK => Answer::status(500),
            _ => Answer::status(204),
        });
    let policy = json!({
        "deactivate_after_consecutive_failures": 3,
        "retry_schedule_ms": vec![100; 10],
    });
    let events = json!(["crm_contacts.*"]);
    let hook = stage.webhook(&stage.tenant, HOOK, events, policy).await;
    let events = json!(["webhook.deactivated"]);
    stage.webhook(&stage.tenant, WATCH, events, json!({})).await;
    stage.post(event("record", 1)).await;
    let shown = status_becomes(&stage, &hook, "deactivated", SOON).await;
    assert_eq!(shown["status_reason"], "consecutive_failures");
    let told = told(&stage, 1).await;
    assert_eq!(told[0].record_id(), hook);
    let data = &told[0].json["event_data"];
    assert_eq!(data["reason"], "consecutive_failures");
    assert_eq!(data["consecutive_failures"], 3);
    assert_eq!(stage.receiver.to_path(HOOK).len(), 3);
}

#[tokio::test]
async fn others_are_told_when_an_endpoint_fails_and_recovers() {
    const FAILURES: usize = 6;
    let stage = Stage::without_webhook().await;
    let asked = AtomicUsize::new(0);
    stage.receiver.answer(move |arrival| {
        if arrival.path == HOOK && asked.fetch_add(1, Ordering::SeqCst) < FAILURES {
            return Answer::status(503);
        }
        Answer::status(204)
    });
    let policy = json!({ "retry_schedule_ms": vec![100; 20] });
    let hook = stage
        .webhook(&stage.tenant, HOOK, json!(["*"]), policy)
        .await;
    let events = json!(["webhook.*"]);
    stage.webhook(&stage.tenant, WATCH, events, json!({})).await;
    let id = stage.post(event("record", 1)).await;
    stage.receiver.wait_for_id(&id, SOON).await.unwrap();
    let told = told(&stage, 2).await;
    let events: Vec<_> = told.iter().map(Delivery::event).collect();
    assert_eq!(events, ["webhook.failing", "webhook.recovered"]);
    assert!(told.iter().all(|one| one.record_id() == hook));
    assert_eq!(told[0].json["event_data"]["status"], "enabled");
    assert_eq!(told[0].json["event_data"]["consecutive_failures"], 5);
    // It was not told of itself.
    assert_eq!(stage.receiver.to_path(HOOK).len(), FAILURES + 1);
    stage.receiver.all_verified().unwrap();
}

#[tokio::test]
async fn an_endpoint_that_asks_for_time_is_left_alone_for_so_long() {
    const ASKED: Duration = Duration::from_secs(2);
    let stage = Stage::with_policy(json!({ "retry_schedule_ms": vec![100; 5] })).await;
    stage.receiver.answer(
        |arrival| match (arrival.number, arrival.record_id.as_str()) {
            (1, "busy") => Answer::status(429).with_header("retry-after", "2"),
            _ => Answer::status(204),
        },
    );
    let journal = Journal::of(&stage).await;
    let first = stage.post(event("busy", 1)).await;
    eventually("the failure journaled", SOON, async || {
        let journaled = journal.0.has_failed_attempt(&first).await.unwrap();
        journaled.then_some(()).ok_or_else(|| "not yet".to_owned())
    })
    .await
    .unwrap();
    // Another record, which has nothing to wait for but the endpoint.
    let other = stage.post(event("other", 2)).await;
    stage.receiver.wait_for_id(&other, SOON).await.unwrap();
    stage.receiver.wait_for_id(&first, SOON).await.unwrap();
    let all = stage.receiver.deliveries();
    assert_eq!(all.len(), 3);
    let asked_at = all[0].answered.unwrap().at;
    for later in &all[1..] {
        let waited = later.at.saturating_sub(asked_at);
        assert!(waited >= ASKED, "{} after {waited:?}", later.id());
    }
}
