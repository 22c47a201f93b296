//! Accounts are events themselves.

use serde_json::json;
use support::api::text;
use support::providers;

use crate::stage::{HOOK, SOON, Stage};

#[tokio::test]
async fn an_accounts_life_is_told_to_webhooks() {
    let stage = Stage::without_webhook().await;
    let client = &stage.tenant.client;
    stage
        .webhook(&stage.tenant, HOOK, json!(["account.*"]), json!({}))
        .await;
    let account = json!({
        "provider": "bamboohr",
        "name": "Before",
        "origin_owner_id": "customer-1",
        "origin_owner_name": "Acme",
        "credentials": { "signing_secret": "a key of some length" },
    });
    let created = client
        .create_account(&account)
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    let id = text(&created, "/id").unwrap();
    let change = json!({ "name": "After", "origin_owner_name": "Acme & Daughters" });
    client
        .patch_account(&id, &change)
        .await
        .unwrap()
        .expect(200)
        .unwrap();
    client.delete_account(&id).await.unwrap().success().unwrap();
    let deleted = |all: &[support::receiver::Delivery]| {
        all.iter()
            .any(|delivery| delivery.event() == "account.deleted" && delivery.succeeded())
    };
    stage
        .receiver
        .wait_for("account.deleted", SOON, deleted)
        .await
        .unwrap();
    let told = stage.receiver.deliveries();
    let events: Vec<_> = told.iter().map(|delivery| delivery.event()).collect();
    assert_eq!(
        events,
        ["account.created", "account.updated", "account.deleted"]
    );
    for delivery in &told {
        for (field, expected) in [
            ("project_id", stage.tenant.project.as_str()),
            ("record_type", "account"),
            ("record_id", &id),
            ("account_id", &id),
            ("provider", "bamboohr"),
            ("origin_owner_id", "customer-1"),
        ] {
            assert_eq!(delivery.text(field), expected, "{field}: {}", delivery.json);
        }
        assert_eq!(delivery.text("id"), delivery.id());
    }
    assert_eq!(told[0].text("origin_owner_name"), "Acme");
    assert_eq!(told[1].text("origin_owner_name"), "Acme & Daughters");
    stage.receiver.all_verified().unwrap();
}

#[tokio::test]
async fn a_deleted_accounts_callbacks_are_not_found() {
    let stage = Stage::without_webhook().await;
    let client = &stage.tenant.client;
    let account = json!({
        "provider": "bamboohr",
        "origin_owner_id": "customer-1",
        "credentials": { "signing_secret": "a key of some length" },
    });
    let created = client
        .create_account(&account)
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    let url = text(&created, "/ingest/url").unwrap();
    let body = providers::bamboohr_employee_updated("1", "Tefi", "2026-02-02T08:00:00+0000");
    let callback = providers::bamboohr("a key of some length", body, "1770019203");
    client
        .callback(&url, &callback)
        .await
        .unwrap()
        .expect(200)
        .unwrap();
    client
        .delete_account(&text(&created, "/id").unwrap())
        .await
        .unwrap()
        .success()
        .unwrap();
    support::eventually::eventually("the callback refused", SOON, async || {
        let reply = client.callback(&url, &callback).await.unwrap();
        if reply.status == 404 {
            Ok(())
        } else {
            Err(reply.to_string())
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn credentials_are_never_shown_again() {
    const KEY: &str = "a-key-that-only-its-provider-knows";
    let stage = Stage::without_webhook().await;
    let client = &stage.tenant.client;
    let account = json!({
        "provider": "bamboohr",
        "origin_owner_id": "customer-1",
        "credentials": { "signing_secret": KEY },
    });
    let created = client.create_account(&account).await.unwrap();
    assert!(!created.text.contains(KEY), "{created}");
    let id = created.id(201).unwrap();
    for reply in [
        client.get_account(&id).await.unwrap(),
        client.list_accounts().await.unwrap(),
        client
            .patch_account(&id, &json!({ "name": "New" }))
            .await
            .unwrap(),
    ] {
        assert!(
            reply.text.contains(&id) && !reply.text.contains(KEY),
            "{reply}"
        );
    }
}
