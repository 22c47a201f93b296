//! Replays: what was exhausted or delivered is sent once more, because somebody asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use support::api::{Reply, text};
use support::eventually::eventually;
use support::receiver::{Answer, Delivery};

use crate::stage::{HOOK, SOON, Stage, event, post_all};

const HEADER: &str = "carillon-replay";

/// A stage whose receiver fails everything until it is told to be well.
struct Failing {
    stage: Stage,
    webhook: String,
    is_well: Arc<AtomicBool>,
}

impl Failing {
    async fn start(policy: Value) -> Self {
        let stage = Stage::without_webhook().await;
        let webhook = stage
            .webhook(&stage.tenant, HOOK, json!(["*"]), policy)
            .await;
        let is_well = Arc::new(AtomicBool::new(false));
        let well = Arc::clone(&is_well);
        stage.receiver.answer(move |_| {
            Answer::status(if well.load(Ordering::SeqCst) {
                204
            } else {
                500
            })
        });
        Self {
            stage,
            webhook,
            is_well,
        }
    }

    /// Posts an event for each record, and waits until each has arrived, and failed.
    async fn exhaust(&self, records: usize) -> Vec<String> {
        let events: Vec<_> = (0..records)
            .map(|number| event(&format!("record-{number}"), number))
            .collect();
        let ids = post_all(&self.stage.tenant.client, &events).await;
        let receiver = &self.stage.receiver;
        receiver
            .wait_for("a failed attempt of each", SOON, |all| {
                ids.iter()
                    .all(|id| all.iter().any(|delivery| delivery.id() == id))
            })
            .await
            .unwrap();
        ids
    }

    async fn call(&self, method: Method, rest: &str, body: Option<&Value>) -> Reply {
        let path = format!("/v1/webhooks/{}/replays{rest}", self.webhook);
        let client = &self.stage.tenant.client;
        client.call(method, &path, body).await.unwrap()
    }

    async fn create(&self, body: &Value) -> Reply {
        self.call(Method::POST, "", Some(body)).await
    }

    async fn get(&self, replay: &str) -> Value {
        let reply = self.call(Method::GET, &format!("/{replay}"), None).await;
        let replay = reply.expect(200).unwrap();
        adds_up(&replay);
        replay
    }

    /// The replay, once `holds` of it.
    async fn until(&self, replay: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually("the replay to come so far", SOON, async || {
            let shown = self.get(replay).await;
            if holds(&shown) {
                Ok(shown)
            } else {
                Err(shown.to_string())
            }
        })
        .await
        .unwrap()
    }

    fn replayed(&self) -> Vec<Delivery> {
        let mut all = self.stage.receiver.deliveries();
        all.retain(|delivery| delivery.headers.contains_key(HEADER));
        all
    }
}

fn number(replay: &Value, name: &str) -> u64 {
    replay[name].as_u64().unwrap()
}

fn adds_up(replay: &Value) {
    let parts = ["sent", "failed", "gone", "cancelled", "pending"];
    let sum: u64 = parts.iter().map(|part| number(replay, part)).sum();
    assert_eq!(number(replay, "matched"), sum, "{replay}");
}

fn is_completed(replay: &Value) -> bool {
    replay["status"] == "completed"
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

#[tokio::test]
async fn exhausted_deliveries_are_sent_once_more_on_request() {
    // Four, so that the breaker stays closed.
    let failing = Failing::start(json!({ "retry_schedule_ms": [] })).await;
    let ids = failing.exhaust(4).await;
    let since = json!({ "exhausted_since": "2020-01-01T00:00:00Z", "dry_run": true });
    eventually("all exhausted", SOON, async || {
        let matched = failing.create(&since).await.expect(200).unwrap();
        if matched == json!({ "matched": 4 }) {
            Ok(())
        } else {
            Err(matched.to_string())
        }
    })
    .await
    .unwrap();
    assert!(failing.replayed().is_empty());

    failing.is_well.store(true, Ordering::SeqCst);
    let id = "rpl_00000000000000000000000000000001";
    let body = json!({ "id": id, "exhausted_since": "2020-01-01T00:00:00Z" });
    let created = failing.create(&body).await.expect(202).unwrap();
    assert_eq!(
        (text(&created, "/id").unwrap(), number(&created, "matched")),
        (id.into(), 4)
    );
    let done = failing.until(id, is_completed).await;
    assert_eq!(number(&done, "sent"), 4, "{done}");

    let replayed = failing.replayed();
    let arrived = replayed.iter().map(|delivery| delivery.id().to_owned());
    assert_eq!(sorted(arrived.collect()), sorted(ids.clone()));
    for delivery in &replayed {
        assert_eq!(delivery.headers[HEADER], id);
        let first = &failing.stage.receiver.of_id(delivery.id())[0];
        assert_eq!(first.body, delivery.body);
        assert!(!first.headers.contains_key(HEADER));
    }
    failing.stage.receiver.all_verified().unwrap();

    // The same again is answered with what there is; another under its id is refused.
    let again = failing.create(&body).await.expect(202).unwrap();
    assert_eq!(again, failing.get(id).await);
    let other = json!({ "id": id, "event_ids": [ids[0]] });
    failing.create(&other).await.expect(409).unwrap();

    // By name, and by time; both take what was delivered since for ended, too.
    let named = json!({ "event_ids": [ids[0], ids[2]] });
    let named = failing.create(&named).await.id(202).unwrap();
    assert_eq!(
        number(&failing.until(&named, is_completed).await, "sent"),
        2
    );
    let published = json!({ "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z" });
    let published = failing.create(&published).await.id(202).unwrap();
    assert_eq!(
        number(&failing.until(&published, is_completed).await, "sent"),
        4
    );
    let all = failing
        .call(Method::GET, "", None)
        .await
        .expect(200)
        .unwrap();
    assert_eq!(all["items"].as_array().unwrap().len(), 3, "{all}");

    for refused in [
        json!({}),
        json!({ "event_ids": [] }),
        json!({ "event_ids": ["evt_1"] }),
        json!({ "from": "2020-01-01T00:00:00Z" }),
        json!({ "exhausted_since": "2020-01-01T00:00:00Z", "event_ids": [ids[0]] }),
    ] {
        failing.create(&refused).await.expect(422).unwrap();
    }
    let unknown = "/rpl_00000000000000000000000000000009";
    failing
        .call(Method::GET, unknown, None)
        .await
        .expect(404)
        .unwrap();
}

#[tokio::test]
async fn a_replay_outlives_its_owner_and_ends_when_it_is_cancelled() {
    const RECORDS: usize = 4;
    let policy = json!({ "retry_schedule_ms": [], "rate_limit_per_second": 2 });
    let mut failing = Failing::start(policy).await;
    let ids = failing.exhaust(RECORDS).await;
    failing.is_well.store(true, Ordering::SeqCst);
    // One a second: half of the rate.
    let body = json!({ "event_ids": ids });
    let replay = eventually("all exhausted", SOON, async || {
        let dry = json!({ "event_ids": ids, "dry_run": true });
        let matched = failing.create(&dry).await.expect(200).unwrap();
        if matched != json!({ "matched": RECORDS }) {
            return Err(matched.to_string());
        }
        Ok(failing.create(&body).await.id(202).unwrap())
    })
    .await
    .unwrap();
    let begun = failing
        .until(&replay, |replay| number(replay, "sent") >= 1)
        .await;
    assert_eq!(begun["status"], "running", "{begun}");
    failing.stage.cluster.dispatcher.restart().await.unwrap();
    let done = failing.until(&replay, is_completed).await;
    assert_eq!(number(&done, "sent"), RECORDS as u64, "{done}");
    // A clean stop repeats nothing.
    assert_eq!(failing.replayed().len(), RECORDS);

    let slow = failing.create(&body).await.id(202).unwrap();
    let cancelled = failing
        .call(Method::POST, &format!("/{slow}/cancel"), None)
        .await;
    let cancelled = cancelled.expect(202).unwrap();
    adds_up(&cancelled);
    assert_eq!(cancelled["status"], "cancelled");
    assert!(number(&cancelled, "pending") == 0, "{cancelled}");
    // What comes later shows that nothing more comes of it.
    let last = failing.create(&json!({ "event_ids": [ids[0]] })).await;
    let last = last.id(202).unwrap();
    failing.until(&last, is_completed).await;
    assert_eq!(failing.get(&slow).await, cancelled);
    failing.stage.receiver.all_verified().unwrap();
}

#[tokio::test]
async fn nobody_sees_or_moves_a_replay_of_another_project() {
    let failing = Failing::start(json!({"retry_schedule_ms": []})).await;
    failing.exhaust(1).await;
    let all = json!({"exhausted_since": "2020-01-01T00:00:00.000Z"});
    let created = failing.create(&all).await.expect(202).unwrap();
    let id = text(&created, "/id").unwrap();
    let cluster = &failing.stage.cluster;
    let stranger = cluster.tenant("Another").await.unwrap().client;
    let path = format!("/v1/webhooks/{}/replays", failing.webhook);
    let dry = json!({"exhausted_since": "2020-01-01T00:00:00.000Z", "dry_run": true});
    let of_that = json!({"id": id, "exhausted_since": "2020-01-01T00:00:00.000Z"});
    let before = failing.until(&id, is_completed).await;
    for (method, rest, body) in [
        (Method::POST, String::new(), Some(&all)),
        (Method::POST, String::new(), Some(&dry)),
        (Method::POST, String::new(), Some(&of_that)),
        (Method::GET, String::new(), None),
        (Method::GET, format!("/{id}"), None),
        (Method::POST, format!("/{id}/cancel"), None),
    ] {
        let path = format!("{path}{rest}");
        let refused = stranger.call(method, &path, body).await.unwrap();
        refused.expect(404).unwrap();
    }
    assert_eq!(failing.get(&id).await, before);
    let listed = failing.call(Method::GET, "", None).await;
    let listed = listed.expect(200).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    // Its own webhook does not lead to it either.
    let webhook = json!({"url": failing.stage.receiver.url("/theirs"), "events": ["*"]});
    let theirs = stranger.create_webhook(&webhook).await.unwrap();
    let theirs = theirs.id(201).unwrap();
    for (method, rest) in [(Method::GET, ""), (Method::POST, "/cancel")] {
        let path = format!("/v1/webhooks/{theirs}/replays/{id}{rest}");
        let refused = stranger.call(method, &path, None).await.unwrap();
        refused.expect(404).unwrap();
    }
}
