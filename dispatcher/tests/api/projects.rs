//! Projects and API keys.

use serde_json::{Value, json};

use crate::nats_server::NatsServer;
use crate::support::{ADMIN, Api, eventually_ok};

#[actix_web::test]
async fn a_project_lives_and_dies() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let created = api
        .post(ADMIN, "/v1/projects", json!({"name": "Acme"}))
        .await
        .expect(201);
    let path = format!("/v1/projects/{}", created.text("/id"));
    assert!(path.starts_with("/v1/projects/prj_"));
    assert_eq!(created.header("location"), path);
    assert_eq!(created.header("cache-control"), "no-store");
    assert_eq!(created.body["name"], "Acme");
    assert_eq!(api.get(ADMIN, &path).await.expect(200).body, created.body);

    let other = api.project("Other").await;
    let listed = api.all_pages(ADMIN, "/v1/projects", 1).await;
    assert_eq!(listed.len(), 2);
    assert_eq!(listed[0], created.body);
    assert_eq!(listed[1]["id"], other.id);

    api.delete(ADMIN, &path).await.expect(204);
    api.get(ADMIN, &path).await.expect(404);
    api.delete(ADMIN, &path).await.expect(404);
    let keys = format!("{path}/api_keys");
    api.post(ADMIN, &keys, json!({"name": "late"}))
        .await
        .expect(404);
    assert_eq!(api.all_pages(ADMIN, "/v1/projects", 100).await.len(), 1);
}

#[actix_web::test]
async fn with_a_project_all_that_is_its_own_goes() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let project = api.project("Acme").await;
    api.get(&project.key, "/v1/webhooks").await.expect(200);
    api.delete(ADMIN, &format!("/v1/projects/{}", project.id))
        .await
        .expect(204);
    for path in ["/v1/webhooks", "/v1/accounts"] {
        api.get(&project.key, path).await.expect(401);
    }
}

#[actix_web::test]
async fn keys_are_shown_once_and_work_until_they_are_revoked() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let project = api.project("Acme").await;
    let keys = format!("/v1/projects/{}/api_keys", project.id);
    let second = api
        .post(ADMIN, &keys, json!({"name": "second"}))
        .await
        .expect(201);
    let key = second.text("/key");
    assert!(key.starts_with("ck_") && key.len() == 46, "{key}");
    assert!(second.text("/id").starts_with("key_"));

    let listed = api.all_pages(ADMIN, &keys, 1).await;
    let ids: Vec<_> = listed.iter().map(|item| item["id"].clone()).collect();
    assert_eq!(ids, [json!(project.key_id), second.body["id"].clone()]);
    let shown = serde_json::to_string(&listed).unwrap();
    assert!(!shown.contains("ck_"), "{shown}");

    let path = format!("{keys}/{}", second.text("/id"));
    api.get(&key, "/v1/webhooks").await.expect(200);
    api.delete(ADMIN, &path).await.expect(204);
    api.get(&key, "/v1/webhooks").await.expect(401);
    api.get(&project.key, "/v1/webhooks").await.expect(200);
    api.delete(ADMIN, &path).await.expect(404);
    let keys = [key.as_str(), project.key.as_str()];
    nats.expect_not_stored(&keys, &second.text("/id")).await;
}

#[actix_web::test]
async fn what_is_no_project_or_key_is_told_so() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let project = api.project("Acme").await;
    let keys = format!("/v1/projects/{}/api_keys", project.id);
    for path in ["/v1/projects", keys.as_str()] {
        api.post(ADMIN, path, json!({}))
            .await
            .expect_invalid(&["/name"]);
        api.post(ADMIN, path, json!({"name": "", "x": 1}))
            .await
            .expect_invalid(&["/name", "/x"]);
        api.post(ADMIN, path, json!({"name": "a".repeat(513)}))
            .await
            .expect_invalid(&["/name"]);
        api.get(ADMIN, &format!("{path}?limit=101"))
            .await
            .expect(400);
        api.get(ADMIN, &format!("{path}?cursor=x"))
            .await
            .expect(400);
    }
}

#[actix_web::test]
async fn a_key_tells_when_it_was_used_last() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let project = api.project("Acme").await;
    let path = format!("/v1/projects/{}/api_keys", project.id);
    let unused = api.get(ADMIN, &path).await.expect(200);
    assert_eq!(unused.body["items"][0]["last_used_at"], Value::Null);
    api.get(&project.key, "/v1/accounts").await.expect(200);
    eventually_ok(async || {
        let keys = api.get(ADMIN, &path).await.expect(200);
        let used = &keys.body["items"][0];
        used["last_used_at"].as_str() >= used["created_at"].as_str()
    })
    .await;
}
