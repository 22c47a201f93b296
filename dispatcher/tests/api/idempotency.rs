//! Creations that are repeated with the same `Idempotency-Key`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::nats_server::NatsServer;
use crate::support::{ADMIN, Answer, Api, Owners};

async fn create(api: &Api, by: &str, path: &str, key: &str, body: &Value) -> Answer {
    let call = api.call(Method::POST, path).by(by).json(body);
    call.header("idempotency-key", key).send().await
}

async fn first_webhook(api: &Api, key: &str) -> String {
    let webhooks = api.get(key, "/v1/webhooks?limit=1").await.expect(200);
    webhooks.text("/items/0/id")
}

fn bodies() -> [(&'static str, Value, Value); 3] {
    [
        (
            "/v1/projects",
            json!({ "name": "Acme" }),
            json!({ "name": "Other" }),
        ),
        (
            "/v1/accounts",
            json!({ "provider": "greenhouse", "origin_owner_id": "1" }),
            json!({ "provider": "greenhouse", "origin_owner_id": "2" }),
        ),
        (
            "/v1/webhooks",
            json!({ "url": "http://127.0.0.1:9/", "events": ["*"] }),
            json!({ "url": "http://127.0.0.1:9/", "events": ["account.*"] }),
        ),
    ]
}

#[actix_web::test]
async fn a_repeated_creation_makes_one_thing_on_whatever_replica() {
    let nats = NatsServer::start().await;
    let allowed: &[&str] = &["127.0.0.0/8"];
    let one = Api::with(&nats, allowed, Owners::Present).await;
    let two = Api::with(&nats, allowed, Owners::Present).await;
    let (ours, theirs) = (one.project("ours").await, one.project("theirs").await);
    for (path, body, other) in bodies() {
        let by = if path == "/v1/projects" {
            ADMIN
        } else {
            ours.key.as_str()
        };
        let made = create(&one, by, path, "k-1", &body).await.expect(201);
        let again = create(&two, by, path, "k-1", &body).await.expect(201);
        assert_eq!(again.body, made.body, "{path}");
        let mismatch = create(&two, by, path, "k-1", &other).await.expect(422);
        assert_eq!(mismatch.body["code"], "idempotency_mismatch");
        let another = create(&one, by, path, "k-2", &body).await.expect(201);
        assert_ne!(another.text("/id"), made.text("/id"));
        create(&one, by, path, "", &body).await.expect(400);
        if by != ADMIN {
            // Somebody else's key, though it reads the same.
            let foreign = create(&one, &theirs.key, path, "k-1", &other).await;
            assert_ne!(foreign.expect(201).text("/id"), made.text("/id"));
        }
        // At the same time, and on two replicas.
        let at_once = (0..8).map(|call| {
            let api = if call % 2 == 0 { &one } else { &two };
            create(api, by, path, "k-3", &body)
        });
        let ids: Vec<_> = futures_util::future::join_all(at_once)
            .await
            .into_iter()
            .map(|answer| answer.expect(201).text("/id"))
            .collect();
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    }
    let path = format!(
        "/v1/webhooks/{}/signing_secrets",
        first_webhook(&one, &ours.key).await
    );
    let nothing = Value::Null;
    let made = create(&one, &ours.key, &path, "k-1", &nothing)
        .await
        .expect(201);
    let again = create(&two, &ours.key, &path, "k-1", &nothing)
        .await
        .expect(201);
    assert_eq!(again.body, made.body);
    assert_eq!(one.all_pages(&ours.key, &path, 100).await.len(), 2);
    let keys = format!("/v1/projects/{}/api_keys", ours.id);
    let body = json!({ "name": "second" });
    create(&one, ADMIN, &keys, "k-1", &body).await.expect(201);
    // The key itself is nowhere to be read again.
    create(&two, ADMIN, &keys, "k-1", &body).await.expect(409);
    assert_eq!(one.all_pages(ADMIN, &keys, 100).await.len(), 2);
    let accounts = one.all_pages(&ours.key, "/v1/accounts", 100).await;
    assert_eq!(accounts.len(), 3);
    let webhooks = one.all_pages(&ours.key, "/v1/webhooks", 100).await;
    assert_eq!(webhooks.len(), 3);
}
