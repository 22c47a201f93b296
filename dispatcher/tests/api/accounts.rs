//! Accounts.

use reqwest::Method;
use serde_json::{Value, json};

use crate::nats_server::NatsServer;
use crate::support::Api;

#[actix_web::test]
async fn an_account_lives_and_dies() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let key = api.project("Acme").await.key;
    let body = json!({
        "provider": "bamboohr",
        "name": "HR",
        "origin_owner_id": "customer-7",
        "origin_owner_name": "Customer",
        "origin_username": "ann",
        "credentials": {"api_key": "bamboo-api-key", "signing_secret": "bamboo-private-key"},
        "settings": {"company": "acme"},
    });
    let created = api.post(&key, "/v1/accounts", body).await.expect(201);
    let id = created.text("/id");
    let path = format!("/v1/accounts/{id}");
    assert_eq!(created.header("location"), path);
    let url = created.text("/ingest/url");
    let ingest_key = url
        .strip_prefix(&format!("https://in.example/v1/native/{id}/"))
        .unwrap();
    assert_eq!(ingest_key.len(), 43);
    assert_eq!(
        created.body["ingest"].get("secret"),
        None,
        "the provider's own is not shown"
    );
    for (name, value) in [
        ("provider", "bamboohr"),
        ("name", "HR"),
        ("origin_owner_id", "customer-7"),
        ("origin_owner_name", "Customer"),
        ("origin_username", "ann"),
    ] {
        assert_eq!(created.body[name], value);
    }
    assert_eq!(created.body["created_at"], created.body["updated_at"]);
    let read = api.get(&key, &path).await.expect(200);
    assert_eq!(read.body, created.body);
    assert_eq!(read.header("etag"), created.header("etag"));

    let patch = json!({"name": null, "origin_owner_id": "customer-8", "credentials": {"x": "y"}});
    let patched = api.patch(&key, &path, patch).await.expect(200);
    assert_eq!(patched.body["name"], Value::Null);
    assert_eq!(patched.body["origin_owner_id"], "customer-8");
    assert_eq!(patched.body["origin_username"], "ann");
    assert_eq!(patched.body["ingest"], created.body["ingest"]);
    assert_ne!(patched.header("etag"), created.header("etag"));
    let same = api.patch(&key, &path, json!({})).await.expect(200);
    assert_eq!(
        same.header("etag"),
        patched.header("etag"),
        "nothing was changed"
    );
    let secrets = api.view().read(|state| {
        let account = state.account(id.parse().unwrap()).unwrap();
        serde_json::to_value(&account.secrets).unwrap()
    });
    assert_eq!(secrets["signing_secret"], "bamboo-private-key");
    assert_eq!(
        secrets["credentials"],
        json!({"api_key": "bamboo-api-key", "x": "y"})
    );
    assert_eq!(secrets["settings"], json!({"company": "acme"}));
    let hidden = ["bamboo-api-key", "bamboo-private-key", ingest_key];
    nats.expect_not_stored(&hidden, "customer-8").await;

    api.delete(&key, &path).await.expect(204);
    api.get(&key, &path).await.expect(404);
    api.patch(&key, &path, json!({"name": "x"}))
        .await
        .expect(404);
    api.delete(&key, &path).await.expect(404);
}

#[actix_web::test]
async fn a_secret_that_we_made_is_shown_until_one_is_given() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let key = api.project("Acme").await.key;
    let body = json!({"provider": "greenhouse", "origin_owner_id": "1"});
    let created = api.post(&key, "/v1/accounts", body).await.expect(201);
    let path = format!("/v1/accounts/{}", created.text("/id"));
    let secret = created.text("/ingest/secret");
    assert_eq!(secret.len(), 43);
    assert_eq!(
        api.get(&key, &path)
            .await
            .expect(200)
            .text("/ingest/secret"),
        secret
    );
    let id = created.text("/id");
    nats.expect_not_stored(&[secret.as_str()], &id).await;

    let given = json!({"credentials": {"signing_secret": "given-one"}});
    let patched = api.patch(&key, &path, given).await.expect(200);
    assert_eq!(patched.body["ingest"].get("secret"), None);
    let cleared = json!({"credentials": {"signing_secret": null}});
    let anew = api
        .patch(&key, &path, cleared)
        .await
        .expect(200)
        .text("/ingest/secret");
    assert_ne!(anew, secret);
}

#[actix_web::test]
async fn lists_hold_every_account_once_and_no_secret() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let key = api.project("Acme").await.key;
    let mut created = Vec::new();
    for number in 0..5 {
        let body = json!({
            "provider": "greenhouse",
            "origin_owner_id": number.to_string(),
            "credentials": {"token": "harvest-token"},
        });
        created.push(api.post(&key, "/v1/accounts", body).await.expect(201));
    }
    let listed = api.all_pages(&key, "/v1/accounts", 2).await;
    let ids: Vec<_> = listed.iter().map(|item| &item["id"]).collect();
    assert_eq!(
        ids,
        created
            .iter()
            .map(|one| &one.body["id"])
            .collect::<Vec<_>>()
    );
    let shown = serde_json::to_string(&listed).unwrap();
    for secret in [
        "harvest-token".to_owned(),
        created[0].text("/ingest/secret"),
    ] {
        assert!(!shown.contains(&secret), "{shown}");
    }
    assert!(
        !shown.contains("/v1/native/"),
        "the url holds the ingest key"
    );
}

#[actix_web::test]
async fn what_is_no_account_is_told_so() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let key = api.project("Acme").await.key;
    let cases = [
        (json!({}), vec!["/provider", "/origin_owner_id"]),
        (
            json!({"provider": "nobody", "origin_owner_id": "1"}),
            vec!["/provider"],
        ),
        (
            json!({"provider": "bamboohr", "origin_owner_id": ""}),
            vec!["/origin_owner_id"],
        ),
        (
            json!({"provider": "bamboohr", "origin_owner_id": "1", "credentials": "x"}),
            vec!["/credentials"],
        ),
        (
            json!({"provider": "bamboohr", "origin_owner_id": "1", "credentials": {"signing_secret": 1}}),
            vec!["/credentials/signing_secret"],
        ),
        (
            json!({"provider": "bamboohr", "origin_owner_id": "1", "credentials": {"signing_secret": "1234567"}}),
            vec!["/credentials/signing_secret"],
        ),
        (
            json!({"provider": "bamboohr", "origin_owner_id": "1", "ingest": {}}),
            vec!["/ingest"],
        ),
    ];
    for (body, pointers) in cases {
        api.post(&key, "/v1/accounts", body)
            .await
            .expect_invalid(&pointers);
    }
    let body = json!({"provider": "bamboohr", "origin_owner_id": "1"});
    let path = api.post(&key, "/v1/accounts", body).await.expect(201);
    let path = format!("/v1/accounts/{}", path.text("/id"));
    let patch = json!({"provider": "greenhouse", "origin_owner_id": null});
    let refused = api.patch(&key, &path, patch).await;
    refused.expect_invalid(&["/origin_owner_id", "/provider"]);
}

#[actix_web::test]
async fn two_editors_of_an_account_cannot_overwrite_each_other() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let key = api.project("Acme").await.key;
    let body = json!({"provider": "bamboohr", "origin_owner_id": "1"});
    let created = api.post(&key, "/v1/accounts", body).await.expect(201);
    let path = format!("/v1/accounts/{}", created.text("/id"));
    let read = created.header("etag");
    let edit = |name: &str, tag: &str| {
        let call = api
            .call(Method::PATCH, &path)
            .by(&key)
            .header("if-match", tag);
        call.json(&json!({ "name": name })).send()
    };
    let first = edit("first", read).await.expect(200);
    edit("second", read).await.expect(412);
    let delete = |tag: &str| {
        let call = api
            .call(Method::DELETE, &path)
            .by(&key)
            .header("if-match", tag);
        call.send()
    };
    delete(read).await.expect(412);
    assert_eq!(api.get(&key, &path).await.body["name"], "first");
    delete(first.header("etag")).await.expect(204);
    delete("*").await.expect(404);
}
