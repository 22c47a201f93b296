//! Verification of `stackone` webhooks, and tests of them.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::endpoint::{Endpoint, Manner};
use crate::nats_server::NatsServer;
use crate::support::{Answer, Api, Owners};

const LOOPBACK: &[&str] = &["127.0.0.0/8"];

struct Scene {
    _nats: NatsServer,
    api: Api,
    endpoint: Endpoint,
    key: String,
    /// Its path.
    webhook: String,
}

async fn scene(verification_required: bool) -> Scene {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let endpoint = Endpoint::start();
    let key = api.project("Acme").await.key;
    let body = json!({
        "url": endpoint.url,
        "events": ["*"],
        "headers": {"x-env": "test"},
        "verification_required": verification_required,
        "policy": {"timeout_ms": 1_000},
    });
    let created = api.post(&key, "/v1/webhooks", body).await.expect(201);
    Scene {
        webhook: format!("/v1/webhooks/{}", created.text("/id")),
        _nats: nats,
        api,
        endpoint,
        key,
    }
}

impl Scene {
    async fn verify(&self) -> Answer {
        let path = format!("{}/verify", self.webhook);
        self.api
            .call(Method::POST, &path)
            .by(&self.key)
            .send()
            .await
    }

    async fn status(&self) -> String {
        let shown = self.api.get(&self.key, &self.webhook).await;
        shown.expect(200).text("/status")
    }

    async fn patch(&self, patch: Value) -> String {
        let patched = self.api.patch(&self.key, &self.webhook, patch).await;
        patched.expect(200).text("/status")
    }

    async fn test(&self, account: &str, body: &Value) -> Answer {
        let path = format!("{}/events", self.webhook);
        let call = self.api.call(Method::POST, &path).by(&self.key);
        call.header("x-account-id", account).json(body).send().await
    }

    async fn account(&self) -> String {
        let account = json!({"provider": "bamboohr", "origin_owner_id": "customer-1"});
        let account = self.api.post(&self.key, "/v1/accounts", account).await;
        account.expect(201).text("/id")
    }
}

#[actix_web::test]
async fn an_endpoint_is_verified_by_echoing_what_it_is_sent() {
    let scene = scene(true).await;
    assert_eq!(scene.status().await, "pending_verification");
    for manner in [
        Manner::Says(200, String::new()),
        Manner::Says(200, "a".repeat(64)),
        Manner::Echoes(201),
        Manner::Echoes(500),
        Manner::EchoesMore,
    ] {
        scene.endpoint.answers(manner.clone());
        let refused = scene.verify().await.expect(409);
        assert_eq!(refused.text("/code"), "not_verified", "{manner:?}");
        assert_eq!(scene.status().await, "pending_verification");
    }
    let enable = format!("{}/enable", scene.webhook);
    let enabled = scene.api.call(Method::POST, &enable).by(&scene.key);
    enabled.send().await.expect(409);

    scene.endpoint.answers(Manner::Echoes(200));
    let verified = scene.verify().await.expect(200);
    assert_eq!(verified.text("/status"), "enabled");
    assert_eq!(verified.body["applied"], true);
    assert!(verified.body["verified_at"].is_string());
    let seen = scene.endpoint.seen();
    let mut challenges: Vec<_> = seen.iter().map(|one| one.body.clone()).collect();
    assert!(
        challenges
            .iter()
            .all(|body| body.len() == 64 && body.is_ascii())
    );
    challenges.sort();
    challenges.dedup();
    assert_eq!(challenges.len(), seen.len(), "each is another one");
    let last = &seen.last().unwrap().headers;
    assert_eq!(last["content-type"], "text/plain");
    assert_eq!(last["x-env"], "test");
    assert!(last.contains_key("webhook-signature") && last.contains_key("x-stackone-signature"));

    // Another word about it is no other endpoint.
    assert_eq!(scene.patch(json!({"description": "x"})).await, "enabled");
    let moved = json!({"url": format!("{}?moved", scene.endpoint.url)});
    assert_eq!(scene.patch(moved).await, "pending_verification");
    scene.verify().await.expect(200);
    assert_eq!(scene.status().await, "enabled");
}

#[actix_web::test]
async fn an_endpoint_that_changes_while_it_is_verified_is_not() {
    let scene = scene(true).await;
    let wait = Duration::from_secs(2);
    scene.endpoint.answers(Manner::EchoesAfter(wait));
    let change = async {
        crate::support::eventually(|| (!scene.endpoint.seen().is_empty()).then_some(())).await;
        let again = scene.verify().await;
        assert_eq!(again.expect(409).text("/code"), "conflict", "one at a time");
        scene
            .patch(json!({"url": format!("{}?moved", scene.endpoint.url)}))
            .await
    };
    let (verified, _) = tokio::join!(scene.verify(), change);
    assert_eq!(verified.expect(409).text("/code"), "conflict");
    assert_eq!(scene.status().await, "pending_verification");
}

#[actix_web::test]
async fn verifications_are_limited() {
    let scene = scene(true).await;
    scene.endpoint.answers(Manner::Says(200, String::new()));
    for _ in 0..20 {
        scene.verify().await.expect(409);
    }
    let refused = scene.verify().await.expect(429);
    assert_eq!(refused.text("/code"), "too_many");
    assert_eq!(refused.header("retry-after"), "60");
    assert_eq!(scene.endpoint.seen().len(), 20);
}

#[actix_web::test]
async fn tests_are_answered_one_by_one_with_what_the_endpoint_made_of_them() {
    let scene = scene(false).await;
    let account = scene.account().await;
    let body = json!([
        {"event": "hris_employees.created", "record_id": "employee-1"},
        {"event": "EmployeeUpdated", "record_id": "employee-2"},
        {"event": "dogs.barked", "record_id": "rex"},
    ]);
    let answer = scene.test(&account, &body).await.expect(207);
    let items = answer.body.as_array().unwrap();
    let statuses: Vec<_> = items.iter().map(|item| &item["status"]).collect();
    assert_eq!(statuses, [200, 200, 422]);
    for (item, asked) in items.iter().zip(body.as_array().unwrap()) {
        assert_eq!(item["event"], asked["event"]);
        assert_eq!(item["record_id"], asked["record_id"]);
    }
    let mut seen = scene.endpoint.seen();
    assert_eq!(seen.len(), 2);
    seen.sort_by_key(|one| one.body.len());
    let sent: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(sent["account_id"], account.as_str());
    assert_eq!(sent["provider"], "bamboohr");
    assert_eq!(sent["origin_owner_id"], "customer-1");
    assert_eq!(sent["id"], seen[0].headers["webhook-id"].as_str());
    assert_eq!(seen[0].headers["x-env"], "test");
    assert!(seen[0].headers.contains_key("x-stackone-signature"));

    scene
        .endpoint
        .answers(Manner::Says(503, "out of paper".to_owned()));
    let one = json!([{"event": "hris_employees.created", "record_id": "employee-1"}]);
    let failed = scene.test(&account, &one).await.expect(207);
    assert_eq!(failed.body[0]["status"], 502);
    assert!(failed.text("/0/message").contains("503"));
    assert!(failed.text("/0/message").contains("out of paper"));
    scene
        .endpoint
        .answers(Manner::EchoesAfter(Duration::from_secs(3)));
    let late = scene.test(&account, &one).await.expect(207);
    assert_eq!(late.body[0]["status"], 502);
    assert!(late.text("/0/message").contains("timeout"));

    let before = scene.endpoint.seen().len();
    let disable = format!("{}/disable", scene.webhook);
    let disabled = scene.api.call(Method::POST, &disable).by(&scene.key);
    disabled.send().await.expect(200);
    let refused = scene.test(&account, &one).await.expect(207);
    assert_eq!(refused.body[0]["status"], 409);
    assert_eq!(scene.endpoint.seen().len(), before);
}

#[actix_web::test]
async fn a_test_names_an_account_and_what_to_send() {
    let scene = scene(false).await;
    let account = scene.account().await;
    let one = json!([{"event": "hris_employees.created", "record_id": "1"}]);
    let path = format!("{}/events", scene.webhook);
    scene
        .api
        .post(&scene.key, &path, one.clone())
        .await
        .expect(400);
    let foreign = "acc_00000000000000000000000000000001";
    scene.test(foreign, &one).await.expect(404);
    scene.test("me", &one).await.expect(404);
    let invalid: [(Value, &[&str]); 4] = [
        (json!([]), &[""]),
        (json!([{"event": "hris_employees.created"}]), &["/0"]),
        (
            json!([{"event": "x", "record_id": "1"}, {"event": "x", "record_id": ""}]),
            &["/1/record_id"],
        ),
        (
            json!([{"event": "x", "record_id": "1", "data": 1}]),
            &["/0"],
        ),
    ];
    for (body, pointers) in invalid {
        scene.test(&account, &body).await.expect_invalid(pointers);
    }
    scene.test(&account, &json!({})).await.expect(400);
    let stranger = scene.api.project("Other").await.key;
    for call in ["verify", "events"] {
        let path = format!("{}/{call}", scene.webhook);
        scene
            .api
            .post(&stranger, &path, one.clone())
            .await
            .expect(404);
    }
    assert_eq!(scene.endpoint.seen().len(), 0);
}

#[actix_web::test]
async fn another_version_than_the_one_that_is_named_is_not_verified() {
    let scene = scene(true).await;
    scene.endpoint.answers(Manner::Echoes(200));
    let shown = scene.api.get(&scene.key, &scene.webhook).await.expect(200);
    let old = shown.header("etag").to_owned();
    scene.patch(json!({"description": "x"})).await;
    let path = format!("{}/verify", scene.webhook);
    let verify = async |tag: &str| {
        let call = scene.api.call(Method::POST, &path).by(&scene.key);
        call.header("if-match", tag).send().await
    };
    verify(&old).await.expect(412);
    assert!(scene.endpoint.seen().is_empty());
    let shown = scene.api.get(&scene.key, &scene.webhook).await.expect(200);
    let verified = verify(shown.header("etag")).await.expect(200);
    assert_eq!(verified.text("/status"), "enabled");
}
