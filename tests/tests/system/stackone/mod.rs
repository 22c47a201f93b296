//! The life of a webhook as StackOne's guide tells it, step by step, with two dispatchers. What is
//! written through one is read back there at once, and through the other within a second.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use support::api::{self, Client, Reply, text};
use support::cluster::Tenant;
use support::eventually::eventually;
use support::receiver::{Answer, Delivery, Verdict};

use crate::pair::{Pair, Written};
use crate::stage::{SOON, post_all};

mod selection;

const WEBHOOKS: &str = "/v1/webhooks";
/// The simple alternative to signatures: a token in the URL.
const PATH: &str = "/webhook?token=unique_secret_token";
const MOVED: &str = "/moved?token=unique_secret_token";
const BAMBOOHR_KEY: &str = "a key that BambooHR has made";
/// Of the guide's table, and what both dialects add.
const EVENT_TYPES: usize = 60 + 6;
/// What the endpoint answers to what it refuses.
const NO_ROOM: &str = "no room";

/// An account and what its provider was told.
struct Linked {
    id: String,
    url: String,
}

struct Walk {
    pair: Pair,
    /// The endpoint takes what it refused before.
    is_well: Arc<AtomicBool>,
    bamboohr: Linked,
    greenhouse: Linked,
    greenhouse_key: String,
}

/// The webhook that is walked with.
struct Hook {
    id: String,
    path: String,
    secrets: String,
    secret: Value,
}

impl Walk {
    /// The prerequisites: a project, an API key, linked accounts, and an endpoint.
    async fn start() -> Self {
        let mut pair = Pair::start().await;
        pair.tenant = open_project(&pair).await;
        let is_well = Arc::new(AtomicBool::new(false));
        let well = Arc::clone(&is_well);
        pair.receiver.answer(move |arrival| {
            let fails = match arrival.record_id.as_str() {
                "late" => arrival.number <= 2,
                "refused" => !well.load(Ordering::SeqCst),
                _ => false,
            };
            if fails {
                Answer::status(500).with_body(NO_ROOM)
            } else {
                Answer::status(204)
            }
        });
        let (bamboohr, _) = link(
            &pair,
            json!({
                "provider": "bamboohr",
                "origin_owner_id": "customer-1",
                "origin_owner_name": "Acme",
                "credentials": {"signing_secret": BAMBOOHR_KEY},
            }),
        )
        .await;
        let account = json!({"provider": "greenhouse", "origin_owner_id": "customer-2"});
        let (greenhouse, created) = link(&pair, account).await;
        Self {
            pair,
            is_well,
            bamboohr,
            greenhouse,
            greenhouse_key: text(&created, "/ingest/secret").unwrap(),
        }
    }

    async fn write(&self, method: Method, path: &str, body: Option<&Value>) -> Written {
        let client = &self.pair.tenant.client;
        self.pair.write(client, method, path, body, &[]).await
    }

    /// The new webhook, seen through both, its secret told to the receiver.
    async fn add(&self, body: &Value, at: &str) -> Value {
        let written = self.write(Method::POST, WEBHOOKS, Some(body)).await;
        let reply = written.reply.clone();
        let created = reply.expect(201).unwrap();
        let secret = text(&created, "/signing_secrets/0/secret").unwrap();
        self.pair.receiver.trust(at, &secret);
        let path = format!("{WEBHOOKS}/{}", text(&created, "/id").unwrap());
        let etag = written.reply.header("etag").map(str::to_owned);
        let is_there = |reply: &Reply| {
            reply.status == 200
                && reply.json["signing_secrets"] == created["signing_secrets"]
                && reply.header("etag").map(str::to_owned) == etag
        };
        written.is_seen(&path, is_there).await;
        created
    }

    async fn arrives(&self, what: &str, wanted: impl Fn(&Delivery) -> bool) -> Delivery {
        let is_there = |all: &[Delivery]| all.iter().any(|one| wanted(one) && one.succeeded());
        let wait = self.pair.receiver.wait_for(what, SOON, is_there);
        wait.await.unwrap();
        let mut all = self.pair.receiver.deliveries().into_iter();
        all.find(|one| wanted(one) && one.succeeded()).unwrap()
    }

    /// The event's id.
    async fn post(&self, event: Value) -> String {
        post_all(&self.pair.tenant.client, &[event]).await.remove(0)
    }

    /// Waits until the event is dealt with so, by each webhook that it is owed to.
    async fn dealt_with(&self, event: &str, expected: &[(&str, &str)]) -> Value {
        let expected: BTreeSet<_> = expected.iter().copied().collect();
        let path = format!("/v1/events/{event}");
        eventually(&path, SOON, async || {
            let client = &self.pair.tenant.client;
            let reply = client.call(Method::GET, &path, None).await.unwrap();
            let told = reply.expect(200).map_err(|error| error.to_string())?;
            let deliveries = told["deliveries"].as_array().unwrap().iter();
            let word = |one: &'_ Value, name: &str| one[name].as_str().unwrap().to_owned();
            let dealt: Vec<_> = deliveries
                .map(|one| (word(one, "webhook_id"), word(one, "status")))
                .collect();
            let dealt: BTreeSet<_> = dealt
                .iter()
                .map(|(webhook, status)| (webhook.as_str(), status.as_str()))
                .collect();
            (dealt == expected)
                .then_some(told.clone())
                .ok_or_else(|| told.to_string())
        })
        .await
        .unwrap()
    }
}

async fn open_project(pair: &Pair) -> Tenant {
    let admin = pair.admin();
    let body = json!({"name": "Walk"});
    let written = pair
        .write(&admin, Method::POST, "/v1/projects", Some(&body), &[])
        .await;
    let project = written.reply.clone().id(201).unwrap();
    let path = format!("/v1/projects/{project}");
    written
        .is_seen(&path, |reply| reply.json["name"] == "Walk")
        .await;
    let keys = format!("{path}/api_keys");
    let body = json!({"name": "subscriber"});
    let written = pair
        .write(&admin, Method::POST, &keys, Some(&body), &[])
        .await;
    let created = written.reply.clone().expect(201).unwrap();
    let (key_id, key) = (
        text(&created, "/id").unwrap(),
        text(&created, "/key").unwrap(),
    );
    let is_listed = |reply: &Reply| {
        let item = &reply.json["items"][0];
        item["id"] == key_id.as_str() && item.get("key").is_none()
    };
    written.is_seen(&keys, is_listed).await;
    Tenant {
        client: admin.with_token(&key),
        project,
        key_id,
        key,
    }
}

async fn link(pair: &Pair, account: Value) -> (Linked, Value) {
    let client = &pair.tenant.client;
    let written = pair
        .write(client, Method::POST, "/v1/accounts", Some(&account), &[])
        .await;
    let created = written.reply.clone().expect(201).unwrap();
    let id = text(&created, "/id").unwrap();
    let is_there = |reply: &Reply| reply.json["ingest"] == created["ingest"];
    written
        .is_seen(&format!("/v1/accounts/{id}"), is_there)
        .await;
    let url = text(&created, "/ingest/url").unwrap();
    (Linked { id, url }, created)
}

#[tokio::test]
async fn the_guide_is_walked_from_the_first_key_to_the_deletion() {
    let walk = Walk::start().await;
    what_can_be_subscribed_to_is_told(&walk).await;
    let hook = a_webhook_is_added(&walk).await;
    selection::events_come_as_they_were_selected(&walk, &hook).await;
    tests_are_triggered(&walk, &hook).await;
    url_and_events_are_changed_by_one_editor_at_a_time(&walk, &hook).await;
    the_secret_is_rotated(&walk, &hook).await;
    disabled_it_is_sent_nothing(&walk, &hook).await;
    failures_are_retried_told_and_replayed(&walk, &hook).await;
    deleted_it_is_gone(&walk, &hook).await;
    walk.pair.receiver.all_verified().unwrap();
    the_project_is_gone_with_all(&walk).await;
}

async fn what_can_be_subscribed_to_is_told(walk: &Walk) {
    let counted = |shown: &Value| shown["items"].as_array().map(Vec::len) == Some(EVENT_TYPES);
    walk.pair.shown("/v1/event_types", counted).await;
    let shown = walk.pair.shown("/v1/connectors", |_| true).await;
    let connectors = shown["items"].as_array().unwrap();
    for (provider, event) in [
        ("bamboohr", "hris_employees.updated"),
        ("greenhouse", "ats_candidates.updated"),
    ] {
        let known = connectors.iter().find(|one| one["provider"] == provider);
        let events = known.unwrap()["events"].as_array().unwrap();
        assert!(events.contains(&event.into()), "{provider}");
    }
}

async fn a_webhook_is_added(walk: &Walk) -> Hook {
    let body = json!({
        "url": walk.pair.receiver.url(PATH),
        "events": ["crm_contacts.updated"],
        "description": "The walk",
        "headers": {"x-from": "carillon"},
        "policy": {"retry_schedule_ms": [100, 100]},
    });
    let created = walk.add(&body, PATH).await;
    for (field, expected) in [
        ("status", &json!("enabled")),
        ("dialect", &json!("stackone")),
        ("url", &body["url"]),
        ("events", &body["events"]),
    ] {
        assert_eq!(created[field], *expected, "{field}: {created}");
    }
    let secret = &created["signing_secrets"][0];
    assert_eq!(secret["active"], true);
    let id = text(&created, "/id").unwrap();
    let path = format!("{WEBHOOKS}/{id}");
    // The listing is no place for tokens.
    let listed = walk.pair.shown(WEBHOOKS, |shown| {
        let item = &shown["items"][0];
        item["id"] == id.as_str() && item["signing_secrets"][0].get("secret").is_none()
    });
    let url = text(&listed.await, "/items/0/url").unwrap();
    assert!(!url.contains("unique_secret_token"), "{url}");
    Hook {
        secrets: format!("{path}/signing_secrets"),
        secret: secret.clone(),
        path,
        id,
    }
}

/// As the guide's command does it: the key as Basic user name, without a password.
async fn tests_are_triggered(walk: &Walk, hook: &Hook) {
    let path = format!("{}/events", hook.path);
    let tests = json!([
        {"event": "hris_employees.created", "record_id": "test"},
        {"event": "hris_employees.created", "record_id": "refused"},
        {"event": "hris_employees.hired", "record_id": "test"},
    ]);
    let basic = api::http().unwrap();
    for replica in walk.pair.urls() {
        let request = basic
            .post(format!("{replica}{path}"))
            .basic_auth(&walk.pair.tenant.key, Some(""))
            .header("x-account-id", &walk.bamboohr.id)
            .json(&tests);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 207);
        let items: Vec<Value> = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        let told: Vec<_> = items.iter().map(|item| item["status"].as_u64()).collect();
        assert_eq!(told, [Some(200), Some(502), Some(422)], "{items:?}");
        for (item, test) in items.iter().zip(tests.as_array().unwrap()) {
            assert_eq!(
                (&item["event"], &item["record_id"]),
                (&test["event"], &test["record_id"])
            );
        }
        assert!(
            items[1]["message"].as_str().unwrap().contains(NO_ROOM),
            "{items:?}"
        );
    }
    let arrived = walk.pair.receiver.of_record("test");
    assert_eq!(arrived.len(), 2);
    for one in arrived {
        assert_eq!(
            (one.path.as_str(), one.headers["x-from"].as_str()),
            (PATH, "carillon")
        );
        assert_eq!(one.text("provider"), "bamboohr");
    }
}

async fn url_and_events_are_changed_by_one_editor_at_a_time(walk: &Walk, hook: &Hook) {
    let client = &walk.pair.tenant.client;
    let read = client.call(Method::GET, &hook.path, None).await.unwrap();
    let etag = read.header("etag").unwrap().to_owned();
    let url = walk.pair.receiver.url(MOVED);
    let change = json!({"url": url, "events": ["crm_contacts.*"]});
    let tags = [("if-match", etag.as_str())];
    let first = walk
        .pair
        .write(client, Method::PATCH, &hook.path, Some(&change), &tags)
        .await;
    let changed = first.reply.clone().expect(200).unwrap();
    assert_eq!(
        (&changed["url"], &changed["applied"]),
        (&json!(url), &json!(true))
    );
    let new = first.reply.header("etag").map(str::to_owned);
    let is_changed = |reply: &Reply| {
        reply.json["events"] == json!(["crm_contacts.*"])
            && reply.header("etag").map(str::to_owned) == new
    };
    first.is_seen(&hook.path, is_changed).await;
    let other = json!({"description": "Another editor's"});
    let second = walk
        .pair
        .write(client, Method::PATCH, &hook.path, Some(&other), &tags)
        .await;
    second.reply.clone().expect(412).unwrap();
    second
        .is_seen(&hook.path, |reply| reply.json["description"] == "The walk")
        .await;
    let secret = text(&hook.secret, "/secret").unwrap();
    walk.pair.receiver.trust(MOVED, &secret);
    let id = walk
        .post(json!({"event": "crm_contacts.created", "record_id": "moved"}))
        .await;
    let arrived = walk.arrives("what is sent to the new URL", |one| one.id() == id);
    assert_eq!(arrived.await.path, MOVED);
}

async fn the_secret_is_rotated(walk: &Walk, hook: &Hook) {
    let (old, secrets) = (text(&hook.secret, "/id").unwrap(), &hook.secrets);
    let active = |reply: &Reply| -> Vec<(String, bool)> {
        let items = reply.json["items"].as_array().unwrap().iter();
        items
            .map(|item| (text(item, "/id").unwrap(), item["active"] == true))
            .collect()
    };
    let written = walk.write(Method::POST, secrets, None).await;
    let added = written.reply.clone().expect(201).unwrap();
    assert_eq!(added["active"], false);
    let new = text(&added, "/id").unwrap();
    let both = [(old.clone(), true), (new.clone(), false)];
    written
        .is_seen(secrets, |reply| active(reply) == both)
        .await;
    // From here on the receiver verifies with both, and requests are still signed with the old one.
    let new_secret = text(&added, "/secret").unwrap();
    walk.pair.receiver.trust(MOVED, &new_secret);

    let activate = format!("{secrets}/{new}/activate");
    let written = walk.write(Method::POST, &activate, None).await;
    let activated = written.reply.clone().expect(200).unwrap();
    assert_eq!(
        (&activated["active"], &activated["applied"]),
        (&json!(true), &json!(true))
    );
    let both = [(old.clone(), false), (new.clone(), true)];
    written
        .is_seen(secrets, |reply| active(reply) == both)
        .await;
    let path = format!("{secrets}/{new}");
    walk.pair.call(Method::DELETE, &path, None, 409).await;
    let path = format!("{secrets}/{old}");
    let written = walk.write(Method::DELETE, &path, None).await;
    written.reply.clone().expect(204).unwrap();
    let alone = [(new.clone(), true)];
    written
        .is_seen(secrets, |reply| active(reply) == alone)
        .await;
    let path = format!("{path}/activate");
    walk.pair.call(Method::POST, &path, None, 404).await;

    let id = walk
        .post(json!({"event": "crm_contacts.updated", "record_id": "rotated"}))
        .await;
    let arrived = walk.arrives("what is signed anew", |one| one.id() == id);
    assert!(verifies(&new_secret, &arrived.await));
}

/// By this secret alone.
fn verifies(secret: &str, delivery: &Delivery) -> bool {
    let secrets = [secret.to_owned()];
    Verdict::of(&secrets, &delivery.headers, &delivery.body).verified()
}

async fn disabled_it_is_sent_nothing(walk: &Walk, hook: &Hook) {
    for (word, status) in [("disable", "disabled"), ("enable", "enabled")] {
        let path = format!("{}/{word}", hook.path);
        let written = walk.write(Method::POST, &path, None).await;
        let changed = written.reply.clone().expect(200).unwrap();
        assert_eq!(
            (&changed["status"], &changed["applied"]),
            (&json!(status), &json!(true))
        );
        let holds = |reply: &Reply| reply.json["status"] == status;
        written.is_seen(&hook.path, holds).await;
        let event = json!({"event": "crm_contacts.updated", "record_id": status});
        let id = walk.post(event).await;
        let end = if status == "enabled" {
            "delivered"
        } else {
            "skipped"
        };
        let told = walk.dealt_with(&id, &[(&hook.id, end)]).await;
        let reason = told["deliveries"][0]["reason"].as_str();
        assert_eq!(reason, (end == "skipped").then_some("disabled"), "{told}");
    }
    assert!(walk.pair.receiver.of_record("disabled").is_empty());
}

async fn failures_are_retried_told_and_replayed(walk: &Walk, hook: &Hook) {
    let event = |record: &str| json!({"event": "crm_contacts.updated", "record_id": record});
    let late = walk.post(event("late")).await;
    walk.dealt_with(&late, &[(&hook.id, "delivered")]).await;
    assert_eq!(walk.pair.receiver.of_id(&late).len(), 3);
    let refused = walk.post(event("refused")).await;
    let told = walk.dealt_with(&refused, &[(&hook.id, "exhausted")]).await;
    let outcomes: Vec<_> = told["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["failed", "failed", "exhausted"]);
    the_tabs_tell_of_it(walk, hook).await;
    what_was_exhausted_is_replayed(walk, hook, &refused).await;
    the_audit_tells_who(walk, hook).await;
}

async fn the_tabs_tell_of_it(walk: &Walk, hook: &Hook) {
    // Sent to the webhook since it was made, tests aside: moved, rotated, enabled, late.
    let overview = json!({"accepted": 6, "delivered": 4, "pending": 0, "exhausted": 1,
        "skipped": 1, "gap": 0});
    let adds_up = |shown: &Value| {
        let ledger = &shown["ledger"];
        let fields = overview.as_object().unwrap();
        fields.iter().all(|(name, count)| ledger[name] == *count)
            && (shown["delivered"] == 4 && shown["failed_attempts"] == 5)
    };
    let path = format!("{}/overview", hook.path);
    walk.pair.shown(&path, adds_up).await;
    let path = format!("{}/attempts?record_id=refused", hook.path);
    let attempts = |shown: &Value| {
        let items = shown["items"].as_array().unwrap();
        let fields = |item: &Value| (item["outcome"].clone(), item["status"].clone());
        let told: Vec<_> = items.iter().map(fields).collect();
        let words = ["exhausted", "failed", "failed"];
        told == words.map(|word| (json!(word), json!(500)))
            && items.iter().all(|item| item["answer"] == NO_ROOM)
    };
    walk.pair.shown(&path, attempts).await;
    let path = "/v1/events?event_type=crm_contacts.updated&limit=2";
    let newest = walk.pair.shown(path, |_| true).await;
    let records = ["refused", "late"].map(|record| json!(record));
    let listed = newest["items"].as_array().unwrap().iter();
    assert!(
        listed.map(|item| &item["record_id"]).eq(&records),
        "{newest}"
    );
}

async fn what_was_exhausted_is_replayed(walk: &Walk, hook: &Hook, refused: &str) {
    let replays = format!("{}/replays", hook.path);
    let dry = json!({"exhausted_since": "2020-01-01T00:00:00Z", "dry_run": true});
    let matched = walk.pair.call(Method::POST, &replays, Some(&dry), 200);
    assert_eq!(matched.await, json!({"matched": 1}));
    walk.is_well.store(true, Ordering::SeqCst);
    let body = json!({"exhausted_since": "2020-01-01T00:00:00Z"});
    let created = walk.pair.call(Method::POST, &replays, Some(&body), 202);
    let replay = text(&created.await, "/id").unwrap();
    let again = walk
        .arrives("the replay", |one| {
            one.headers.get("carillon-replay") == Some(&replay)
        })
        .await;
    assert_eq!(again.id(), refused);
    let done = |shown: &Value| shown["status"] == "completed" && shown["sent"] == 1;
    walk.pair.shown(&format!("{replays}/{replay}"), done).await;
}

async fn the_audit_tells_who(walk: &Walk, hook: &Hook) {
    let audit = walk.pair.shown("/v1/audit?limit=100", |_| true).await;
    let changes = audit["items"].as_array().unwrap().iter();
    let of_hook = changes.filter(|one| one["target"]["id"] == hook.id.as_str());
    let told: Vec<_> = of_hook
        .map(|one| (one["action"].as_str().unwrap(), one["by"].as_str().unwrap()))
        .collect();
    let actions = [
        "webhook.status_set",
        "webhook.status_set",
        "signing_secret.deleted",
        "webhook.updated",
        "webhook.updated",
        "webhook.created",
    ];
    let key = walk.pair.tenant.key_id.as_str();
    assert_eq!(told, actions.map(|action| (action, key)), "newest first");
}

async fn deleted_it_is_gone(walk: &Walk, hook: &Hook) {
    let client = &walk.pair.tenant.client;
    let stale = [("if-match", "\"1\"")];
    let refused = walk
        .pair
        .write(client, Method::DELETE, &hook.path, None, &stale)
        .await;
    refused.reply.clone().expect(412).unwrap();
    let written = walk.write(Method::DELETE, &hook.path, None).await;
    written.reply.clone().expect(204).unwrap();
    for rest in ["", "/signing_secrets", "/overview", "/attempts", "/replays"] {
        written.is_gone(&format!("{}{rest}", hook.path)).await;
    }
    let is_empty = |reply: &Reply| reply.json == json!({"items": [], "next": null});
    written.is_seen(WEBHOOKS, is_empty).await;
    let enable = format!("{}/enable", hook.path);
    walk.pair.call(Method::POST, &enable, None, 404).await;
    let id = walk
        .post(json!({"event": "crm_contacts.updated", "record_id": "deleted"}))
        .await;
    // Another webhook's delivery comes after what this one is not sent.
    let body = json!({"url": walk.pair.receiver.url("/last"), "events": ["*"]});
    walk.add(&body, "/last").await;
    let last = walk
        .post(json!({"event": "crm_contacts.updated", "record_id": "last"}))
        .await;
    walk.arrives("the last", |one| one.id() == last).await;
    assert!(walk.pair.receiver.of_id(&id).is_empty());
}

async fn the_project_is_gone_with_all(walk: &Walk) {
    let admin = walk.pair.admin();
    let path = format!("/v1/projects/{}", walk.pair.tenant.project);
    let written = walk
        .pair
        .write(&admin, Method::DELETE, &path, None, &[])
        .await;
    written.reply.clone().expect(204).unwrap();
    written.is_gone(&path).await;
    for url in walk.pair.urls() {
        let key: Client = walk.pair.tenant.client.round_robin(vec![url]);
        let reply = key.call(Method::GET, WEBHOOKS, None).await.unwrap();
        assert_eq!(reply.status, 401, "{reply}");
    }
}
