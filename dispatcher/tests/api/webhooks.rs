//! Webhooks of the `stackone` dialect.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::journal::{DeactivateReason, EntryPlace, OwnerDecision};
use shared::domain::registry::{Command, DecidedAt};
use shared::ids::{Epoch, Sequence};
use shared::nats::append::NewMessage;
use shared::time::{Clock as _, SystemClock};

use crate::nats_server::NatsServer;
use crate::support::{Answer, Api, Owners};

const LOOPBACK: &[&str] = &["127.0.0.0/8"];

async fn create(api: &Api, key: &str) -> Answer {
    let body = json!({
        "url": "http://127.0.0.1:9/hook?token=url-token",
        "events": [
            "hris_employees.*",
            "account.created",
            {"event": "ats_candidates.*", "providers": ["greenhouse"], "sources": ["native"]},
        ],
        "description": "all of it",
        "headers": {"Authorization": "Bearer header-token"},
        "policy": {"max_in_flight": 4},
        "verification_required": false,
    });
    api.post(key, "/v1/webhooks", body).await.expect(201)
}

#[actix_web::test]
async fn a_webhook_lives_and_dies() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let key = api.project("Acme").await.key;
    let created = create(&api, &key).await;
    let (id, secret) = (
        created.text("/id"),
        created.text("/signing_secrets/0/secret"),
    );
    let path = format!("/v1/webhooks/{id}");
    assert!(id.starts_with("wh_") && secret.starts_with("whsec_"));
    assert!(created.text("/signing_secrets/0/id").starts_with("sec_"));
    assert_eq!(created.header("location"), path);
    for (name, value) in [
        ("url", json!("http://127.0.0.1:9/hook?token=url-token")),
        ("dialect", json!("stackone")),
        ("status", json!("enabled")),
        ("status_reason", Value::Null),
        ("description", json!("all of it")),
        ("headers", json!({"authorization": "***"})),
        ("verification_required", json!(false)),
        ("applied", json!(true)),
    ] {
        assert_eq!(created.body[name], value, "{name}");
    }
    assert_eq!(created.body["events"][2]["sources"], json!(["native"]));
    assert_eq!(created.body["signing_secrets"][0]["active"], true);
    assert_eq!(created.body["policy"]["max_in_flight"], 4);
    assert_eq!(created.body["policy"]["timeout_ms"], 10_000);

    let mut read = api.get(&key, &path).await.expect(200);
    assert_eq!(read.header("etag"), created.header("etag"));
    read.body["applied"] = json!(true);
    assert_eq!(read.body, created.body);

    let patch = json!({
        "url": "http://127.0.0.1:9/other",
        "events": ["*"],
        "description": "strict in plain",
        "headers": {"authorization": "***", "x-env": "test"},
        "policy": {"ordering": "strict"},
    });
    let patched = api.patch(&key, &path, patch).await.expect(200);
    assert_eq!(patched.body["url"], "http://127.0.0.1:9/other");
    assert_eq!(patched.body["events"], json!(["*"]));
    assert_eq!(patched.body["description"], "strict in plain");
    assert_eq!(patched.body["policy"]["ordering"], "strict");
    assert_eq!(patched.body["policy"]["max_in_flight"], 4);
    assert_eq!(
        patched.body["signing_secrets"],
        created.body["signing_secrets"]
    );
    assert_eq!(patched.body["created_at"], created.body["created_at"]);
    assert_eq!(patched.body["applied"], true);
    let again = json!({
        "url": "http://127.0.0.1:9/other",
        "events": ["*"],
        "headers": {"x-env": "test"},
        "policy": {"ordering": "strict"},
    });
    let same = api.patch(&key, &path, again).await.expect(200);
    assert_eq!(same.header("etag"), patched.header("etag"));
    let headers = api.view().read(|state| {
        let webhook = state.webhook(id.parse().unwrap()).unwrap();
        webhook.endpoint.headers.clone()
    });
    let stored = [("authorization", "Bearer header-token"), ("x-env", "test")];
    assert_eq!(
        headers,
        stored.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    let hidden = [secret.as_str(), "url-token", "header-token", "/other"];
    nats.expect_not_stored(&hidden, "strict in plain").await;

    api.delete(&key, &path).await.expect(204);
    api.get(&key, &path).await.expect(404);
    api.patch(&key, &path, json!({"description": "x"}))
        .await
        .expect(404);
    api.delete(&key, &path).await.expect(404);
    assert_eq!(
        api.get(&key, "/v1/webhooks").await.body,
        json!({"items": [], "next": null})
    );
}

#[actix_web::test]
async fn a_new_webhook_takes_what_is_published_after_it() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let project = api.project("Acme").await;
    for number in 0..3 {
        let message = NewMessage {
            subject: format!("events.0.{}.account.created", project.id),
            payload: Default::default(),
            message_id: number.to_string(),
            expected: None,
            never_expires: false,
        };
        api.nats().append(message).await.unwrap();
    }
    let id = create(&api, &project.key).await.text("/id");
    let from = api
        .view()
        .read(|state| state.webhook(id.parse().unwrap()).unwrap().from);
    assert_eq!((from.generation, from.sequence), (1, Sequence(4)));
}

#[actix_web::test]
async fn lists_hold_every_webhook_once_and_no_secret() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let key = api.project("Acme").await.key;
    let mut created = Vec::new();
    for _ in 0..5 {
        created.push(create(&api, &key).await);
    }
    let listed = api.all_pages(&key, "/v1/webhooks", 2).await;
    let ids: Vec<_> = listed.iter().map(|item| &item["id"]).collect();
    assert_eq!(
        ids,
        created
            .iter()
            .map(|one| &one.body["id"])
            .collect::<Vec<_>>()
    );
    assert_eq!(listed[0]["url"], "http://127.0.0.1:9/hook?***");
    assert_eq!(listed[0]["signing_secrets"][0]["active"], true);
    let shown = serde_json::to_string(&listed).unwrap();
    for secret in ["whsec_", "url-token", "header-token"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[actix_web::test]
async fn what_is_no_webhook_is_told_so() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let key = api.project("Acme").await.key;
    let repeated = json!({"event": "*", "providers": vec!["bamboohr"; 100]});
    let large = json!({
        "event": "hris_employees.*",
        "providers": ["bamboohr"],
        "sources": ["native", "synthetic", "account"],
    });
    let cases = [
        (
            json!({"url": "http://127.0.0.1", "events": vec![repeated; 180]}),
            vec!["/events/0/providers/1"],
        ),
        (
            json!({"url": "http://127.0.0.1", "events": vec![large; 200]}),
            vec!["/events"],
        ),
        (
            json!({"url": "http://127.0.0.1", "events": ["*"], "policy": {"rate_limit_per_second": 0}}),
            vec!["/policy/rate_limit_per_second"],
        ),
        (json!({}), vec!["/url", "/events"]),
        (
            json!({"url": "http://127.0.0.1", "events": ["dogs.*"]}),
            vec!["/events/0"],
        ),
        (
            json!({"url": "http://127.0.0.1", "events": [{"event": "*", "providers": ["nobody"]}]}),
            vec!["/events/0/providers/0"],
        ),
        (
            json!({"url": "http://127.0.0.1", "events": ["*"], "verification_required": "yes"}),
            vec!["/verification_required"],
        ),
        (
            json!({"url": "http://127.0.0.1", "events": ["*"], "headers": {"webhook-id": "x"}}),
            vec!["/headers/webhook-id"],
        ),
        (
            json!({"url": "http://127.0.0.1", "events": ["*"], "policy": {"timeout_ms": 1}}),
            vec!["/policy/timeout_ms"],
        ),
        (
            json!({"url": "http://127.0.0.1", "events": ["*"], "dialect": "hr-on"}),
            vec!["/dialect"],
        ),
    ];
    for (body, pointers) in cases {
        api.post(&key, "/v1/webhooks", body)
            .await
            .expect_invalid(&pointers);
    }
    let path = format!("/v1/webhooks/{}", create(&api, &key).await.text("/id"));
    let patch = json!({"policy": {"max_in_flight": 0}, "status": "disabled"});
    api.patch(&key, &path, patch)
        .await
        .expect_invalid(&["/status"]);
    let patch = json!({"policy": {"max_in_flight": 0}});
    api.patch(&key, &path, patch)
        .await
        .expect_invalid(&["/policy/max_in_flight"]);
}

#[actix_web::test]
async fn two_editors_cannot_overwrite_each_other() {
    let nats = NatsServer::start().await;
    // The second editor works through another replica.
    let api = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let replica = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let key = api.project("Acme").await.key;
    let created = create(&api, &key).await;
    let path = format!("/v1/webhooks/{}", created.text("/id"));
    let read = created.header("etag");
    let edit = |api: &Api, text: &str, tag: &str| {
        let call = api
            .call(Method::PATCH, &path)
            .by(&key)
            .header("if-match", tag);
        call.json(&json!({ "description": text })).send()
    };
    replica.get(&key, &path).await.expect(200);
    let first = edit(&api, "first", read).await.expect(200);
    edit(&replica, "second", read).await.expect(412);
    let delete = |tag: &str| {
        let call = replica
            .call(Method::DELETE, &path)
            .by(&key)
            .header("if-match", tag);
        call.send()
    };
    delete(read).await.expect(412);
    assert_eq!(api.get(&key, &path).await.body["description"], "first");
    delete(first.header("etag")).await.expect(204);
}

#[actix_web::test]
async fn edits_of_different_fields_at_once_all_hold() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let replica = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let key = api.project("Acme").await.key;
    let path = format!("/v1/webhooks/{}", create(&api, &key).await.text("/id"));
    replica.get(&key, &path).await.expect(200);
    for round in 0..10 {
        let text = format!("round {round}");
        let (one, two) = tokio::join!(
            api.patch(&key, &path, json!({ "description": text })),
            replica.patch(
                &key,
                &path,
                json!({"policy": {"max_in_flight": 10 + round}})
            ),
        );
        one.expect(200);
        two.expect(200);
        let after = replica
            .patch(&key, &path, json!({"events": ["*"]}))
            .await
            .expect(200);
        assert_eq!(after.body["description"], text);
        assert_eq!(after.body["policy"]["max_in_flight"], 10 + round);
    }
}

#[actix_web::test]
async fn without_an_owner_the_change_holds_and_says_so() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Absent).await;
    let key = api.project("Acme").await.key;
    let created = create(&api, &key).await;
    assert_eq!(created.body["applied"], false);
    let path = format!("/v1/webhooks/{}", created.text("/id"));
    assert_eq!(
        api.get(&key, &path).await.expect(200).body.get("applied"),
        None
    );
    let patched = api
        .patch(&key, &path, json!({"description": "x"}))
        .await
        .expect(200);
    assert_eq!(patched.body["applied"], false);
    let deleted = tokio::time::timeout(Duration::from_secs(20), api.delete(&key, &path)).await;
    deleted.unwrap().expect(204);
}

#[actix_web::test]
async fn a_webhook_is_disabled_and_enabled_by_any_replica() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let replica = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let key = api.project("Acme").await.key;
    let id = create(&api, &key).await.text("/id");
    let path = format!("/v1/webhooks/{id}");
    let ask = async |api: &Api, verb: &str| {
        let call = api.call(Method::POST, &format!("{path}/{verb}")).by(&key);
        call.send().await
    };
    for (verb, status) in [
        ("enable", "enabled"),
        ("disable", "disabled"),
        ("enable", "enabled"),
    ] {
        // The other one may not have heard of it yet, and must not take it for done.
        let first = ask(&api, verb).await.expect(200);
        let again = ask(&replica, verb).await.expect(200);
        for answer in [&first, &again] {
            assert_eq!(answer.body["id"], id.as_str());
            assert_eq!(answer.body["status"], status);
            assert_eq!(answer.body["status_reason"], Value::Null);
            assert_eq!(answer.body["applied"], true);
        }
        assert_eq!(first.header("etag"), again.header("etag"));
        let read = api.get(&key, &path).await.expect(200);
        assert_eq!(read.body["status"], status);
    }
    // An edit leaves the status alone.
    ask(&api, "disable").await.expect(200);
    let patched = api.patch(&key, &path, json!({"description": "x"})).await;
    assert_eq!(patched.expect(200).body["status"], "disabled");

    let stranger = api.project("Globex").await.key;
    for verb in ["enable", "disable"] {
        let call = api
            .call(Method::POST, &format!("{path}/{verb}"))
            .by(&stranger);
        call.send().await.expect(404);
        let call = api.call(Method::POST, &format!("{path}/{verb}")).by(&key);
        let stale = call.header("if-match", "\"1\"").send().await;
        stale.expect(412);
    }
    api.delete(&key, &path).await.expect(204);
    ask(&api, "enable").await.expect(404);
}

#[actix_web::test]
async fn enabling_lifts_what_an_owner_decided() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let replica = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let key = api.project("Acme").await.key;
    let id = create(&api, &key).await.text("/id");
    let path = format!("/v1/webhooks/{id}");
    let webhook = {
        let id = id.parse().unwrap();
        api.view()
            .read(|state| state.webhook(id).unwrap().as_ref().clone())
    };
    let record = |pack: u64| Command::RecordDecision {
        project: webhook.project,
        id: webhook.id,
        decision: OwnerDecision::Deactivated(DeactivateReason::Gone),
        decided: DecidedAt {
            epoch: Epoch(1),
            place: EntryPlace {
                pack: Sequence(pack),
                index: 0,
            },
        },
        seen: webhook.sequence,
    };
    let at = SystemClock::new().now();
    let recorded = api.view().execute(record(3), "owner:0:1", at).await;
    assert!(recorded.unwrap() > webhook.sequence);
    let read = api.get(&key, &path).await.expect(200);
    assert_eq!(read.body["status"], "deactivated");
    assert_eq!(read.body["status_reason"], "gone");

    // The other replica may hold it for enabled still.
    let enable = format!("{path}/enable");
    let call = replica.call(Method::POST, &enable).by(&key);
    let enabled = call.send().await.expect(200);
    assert_eq!(enabled.body["status"], "enabled");
    assert_eq!(enabled.body["status_reason"], Value::Null);
    // And the owner that repeats itself is too late.
    let repeated = api.view().execute(record(3), "owner:0:1", at).await;
    assert_eq!(repeated, Ok(Sequence(0)));
    let read = api.get(&key, &path).await.expect(200);
    assert_eq!(read.body["status"], "enabled");
}

#[actix_web::test]
async fn without_an_owner_a_status_holds_and_says_so() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Absent).await;
    let key = api.project("Acme").await.key;
    let id = create(&api, &key).await.text("/id");
    let call = api.call(Method::POST, &format!("/v1/webhooks/{id}/disable"));
    let disabled = call.by(&key).send().await.expect(200);
    assert_eq!(disabled.body["status"], "disabled");
    assert_eq!(disabled.body["applied"], false);
}
