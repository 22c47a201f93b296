//! Projects, keys and webhooks over the management API, and who may see what.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use support::api::text;
use support::eventually::eventually;

use crate::stage::{HOOK, Stage, event};

/// What the design promises for a revoked key.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

fn ids(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| text(item, "/id").unwrap())
        .collect()
}

#[tokio::test]
async fn webhooks_can_be_made_read_listed_changed_and_deleted() {
    let stage = Stage::without_webhook().await;
    let client = &stage.tenant.client;
    let webhook = json!({
        "url": stage.receiver.url(HOOK),
        "events": ["hris_employees.*", { "event": "ats_candidates.*", "sources": ["native"] }],
        "description": "The first",
        "headers": { "x-static": "1" },
        "policy": { "timeout_ms": 5_000 },
    });
    let created = client
        .create_webhook(&webhook)
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    let id = text(&created, "/id").unwrap();
    assert!(id.starts_with("wh_"), "{created}");
    for (field, expected) in [
        ("dialect", json!("stackone")),
        ("status", json!("enabled")),
        ("events", webhook["events"].clone()),
        ("url", webhook["url"].clone()),
    ] {
        assert_eq!(created[field], expected, "{field}: {created}");
    }
    assert_eq!(created["policy"]["timeout_ms"], 5_000, "{created}");
    assert_eq!(created["policy"]["max_in_flight"], 32, "{created}");
    let secret = &created["signing_secrets"][0];
    assert!(
        secret["secret"].as_str().unwrap().starts_with("whsec_"),
        "{created}"
    );
    assert_eq!(secret["active"], true, "{created}");
    let read = client.get_webhook(&id).await.unwrap().expect(200).unwrap();
    assert_eq!(read["id"], created["id"]);
    assert_eq!(read["events"], created["events"]);

    let other = json!({ "url": stage.receiver.url("/other"), "events": ["*"] });
    let other = client
        .create_webhook(&other)
        .await
        .unwrap()
        .id(201)
        .unwrap();
    let first = client
        .list_webhooks("?limit=1")
        .await
        .unwrap()
        .expect(200)
        .unwrap();
    let next = text(&first, "/next").unwrap();
    let second = client
        .list_webhooks(&format!("?limit=1&cursor={next}"))
        .await
        .unwrap();
    let mut listed = [ids(&first), ids(&second.expect(200).unwrap())].concat();
    listed.sort();
    let mut expected = vec![id.clone(), other.clone()];
    expected.sort();
    assert_eq!(listed, expected);

    let change = json!({ "description": "Changed", "events": ["*"] });
    client
        .patch_webhook(&id, &change)
        .await
        .unwrap()
        .expect(200)
        .unwrap();
    let read = client.get_webhook(&id).await.unwrap().expect(200).unwrap();
    assert_eq!(
        (&read["description"], &read["events"]),
        (&json!("Changed"), &json!(["*"]))
    );
    client.delete_webhook(&id).await.unwrap().success().unwrap();
    assert_eq!(client.get_webhook(&id).await.unwrap().status, 404);
    let left = client.list_webhooks("").await.unwrap().expect(200).unwrap();
    assert_eq!(ids(&left), [other]);
}

#[tokio::test]
async fn what_cannot_be_understood_or_is_invalid_is_refused() {
    let stage = Stage::without_webhook().await;
    let client = &stage.tenant.client;
    let url = stage.receiver.url(HOOK);
    for (webhook, pointer) in [
        (json!({ "url": url, "events": [] }), "/events"),
        (
            json!({ "url": url, "events": ["hris_employees.hired"] }),
            "/events",
        ),
        (json!({ "url": "nowhere", "events": ["*"] }), "/url"),
        (
            json!({ "url": url, "events": ["*"], "policy": { "max_in_flight": 0 } }),
            "/policy",
        ),
        (
            json!({ "url": url, "events": ["*"], "headers": { "webhook-id": "mine" } }),
            "/headers",
        ),
    ] {
        let reply = client.create_webhook(&webhook).await.unwrap();
        assert_eq!(reply.status, 422, "{webhook}: {reply}");
        let named = reply.json["errors"][0]["pointer"]
            .as_str()
            .unwrap_or_default();
        assert!(named.starts_with(pointer), "{webhook}: {reply}");
    }
    // A body of the wrong shape may count as not understood or as invalid.
    for webhook in [
        json!("no object"),
        json!({ "url": url }),
        json!({ "events": ["*"] }),
    ] {
        let reply = client.create_webhook(&webhook).await.unwrap();
        assert!(matches!(reply.status, 400 | 422), "{webhook}: {reply}");
        assert!(reply.json["code"].is_string(), "{webhook}: {reply}");
    }
    let listed = client.list_webhooks("").await.unwrap().expect(200).unwrap();
    assert!(ids(&listed).is_empty(), "{listed}");
}

#[tokio::test]
async fn one_projects_things_do_not_exist_for_another() {
    let stage = Stage::without_webhook().await;
    let (ours, other) = (
        &stage.tenant.client,
        stage.cluster.tenant("Other").await.unwrap().client,
    );
    let webhook = stage
        .webhook(&stage.tenant, HOOK, json!(["*"]), json!({}))
        .await;
    let account = json!({ "provider": "greenhouse", "origin_owner_id": "customer-1" });
    let account = ours
        .create_account(&account)
        .await
        .unwrap()
        .id(201)
        .unwrap();
    for reply in [
        other.get_webhook(&webhook).await.unwrap(),
        other
            .patch_webhook(&webhook, &json!({ "description": "mine" }))
            .await
            .unwrap(),
        other.delete_webhook(&webhook).await.unwrap(),
        other.get_account(&account).await.unwrap(),
        other
            .patch_account(&account, &json!({ "name": "mine" }))
            .await
            .unwrap(),
        other.delete_account(&account).await.unwrap(),
    ] {
        assert_eq!(reply.status, 404, "{reply}");
        assert_eq!(reply.json["code"], "not_found", "{reply}");
    }
    for list in [
        other.list_webhooks("").await.unwrap(),
        other.list_accounts().await.unwrap(),
    ] {
        assert!(ids(&list.expect(200).unwrap()).is_empty());
    }
    // They are all still there for their own.
    ours.get_webhook(&webhook)
        .await
        .unwrap()
        .expect(200)
        .unwrap();
    ours.get_account(&account)
        .await
        .unwrap()
        .expect(200)
        .unwrap();
    // An event of one's own cannot name another's account.
    let mut foreign = event("record-1", 1);
    foreign["account_id"] = account.into();
    let reply = other.post_events(&foreign).await.unwrap();
    assert_eq!(reply.status, 422, "{reply}");
}

#[tokio::test]
async fn only_valid_credentials_are_let_in() {
    let stage = Stage::without_webhook().await;
    let client = &stage.tenant.client;
    for wrong in ["wrong", &format!("{}x", stage.tenant.key)] {
        let stranger = client.with_token(wrong);
        for reply in [
            stranger.list_webhooks("").await.unwrap(),
            stranger.create_project("Mine").await.unwrap(),
            stranger.post_events(&event("record-1", 1)).await.unwrap(),
        ] {
            assert_eq!(reply.status, 401, "{reply}");
            assert_eq!(reply.json["code"], "unauthorized", "{reply}");
        }
    }
    // A project's key does not manage projects.
    let reply = client.create_project("Mine").await.unwrap();
    assert!(matches!(reply.status, 401 | 403), "{reply}");
    let projects = stage
        .cluster
        .admin()
        .unwrap()
        .call(Method::GET, "/v1/projects", None)
        .await;
    assert_eq!(
        ids(&projects.unwrap().expect(200).unwrap()),
        [stage.tenant.project]
    );
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_five_seconds() {
    let stage = Stage::without_webhook().await;
    let (client, admin) = (&stage.tenant.client, stage.cluster.admin().unwrap());
    client
        .post_events(&event("record-1", 1))
        .await
        .unwrap()
        .expect(202)
        .unwrap();
    let revoked = admin
        .revoke_api_key(&stage.tenant.project, &stage.tenant.key_id)
        .await
        .unwrap();
    revoked.success().unwrap();
    eventually(
        "the key refused by both services",
        REVOKED_WITHIN,
        async || {
            let ingest = client.post_events(&event("record-1", 2)).await.unwrap();
            let dispatcher = client.list_webhooks("").await.unwrap();
            match (ingest.status, dispatcher.status) {
                (401, 401) => Ok(()),
                _ => Err(format!("{ingest}; {dispatcher}")),
            }
        },
    )
    .await
    .unwrap();
}
