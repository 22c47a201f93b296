//! Providers' callbacks and idempotency keys at ingest.

use serde_json::{Value, json};
use support::api::text;
use support::cluster::Tenant;
use support::providers::{self, Callback};

use crate::stage::{HOOK, SOON, Stage, post_all};

const KEY: &str = "bamboohr-private-key";
const EMPLOYEE: &str = "4711";

/// A BambooHR account's ingest URL.
async fn bamboohr_url(tenant: &Tenant) -> String {
    let account = json!({
        "provider": "bamboohr",
        "origin_owner_id": "customer-1",
        "credentials": { "signing_secret": KEY },
    });
    let created = tenant
        .client
        .create_account(&account)
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    text(&created, "/ingest/url").unwrap()
}

/// A Greenhouse account's ingest URL and the secret that it signs with.
async fn greenhouse(tenant: &Tenant) -> (String, String) {
    let account = json!({ "provider": "greenhouse", "origin_owner_id": "customer-1" });
    let created = tenant
        .client
        .create_account(&account)
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    (
        text(&created, "/ingest/url").unwrap(),
        text(&created, "/ingest/secret").unwrap(),
    )
}

/// A change of the employee at a second of its own, which is what tells changes apart.
fn employee_change(second: u32) -> Callback {
    let at = format!("2026-02-02T08:00:{second:02}+0000");
    let body = providers::bamboohr_employee_updated(EMPLOYEE, "Tefi", &at);
    providers::bamboohr(KEY, body, "1770019203")
}

fn with_byte_changed(callback: &Callback) -> Callback {
    let mut changed = callback.clone();
    let place = changed
        .body
        .iter()
        .position(|byte| byte.is_ascii_digit())
        .unwrap();
    changed.body[place] = if changed.body[place] == b'1' {
        b'2'
    } else {
        b'1'
    };
    changed
}

fn with_header(callback: &Callback, name: &str, value: &str) -> Callback {
    let mut changed = callback.clone();
    for header in changed
        .headers
        .iter_mut()
        .filter(|(other, _)| *other == name)
    {
        header.1 = value.to_owned();
    }
    changed
}

fn without_header(callback: &Callback, name: &str) -> Callback {
    let mut changed = callback.clone();
    changed.headers.retain(|(other, _)| *other != name);
    changed
}

#[tokio::test]
async fn a_callback_that_is_not_as_signed_is_refused() {
    let stage = Stage::start().await;
    let client = &stage.tenant.client;
    let bamboohr_url = bamboohr_url(&stage.tenant).await;
    let (greenhouse_url, secret) = greenhouse(&stage.tenant).await;
    let bamboohr = employee_change(1);
    let candidate = providers::greenhouse_candidate_updated(7, "Ada");
    let greenhouse = providers::greenhouse(&secret, candidate.clone(), "delivery-1");
    let wrongly_keyed = providers::greenhouse("another secret", candidate, "delivery-1");
    let cases = [
        (
            "byte of the body",
            &bamboohr_url,
            with_byte_changed(&bamboohr),
        ),
        (
            "signed header",
            &bamboohr_url,
            with_header(&bamboohr, "X-BambooHR-Timestamp", "1770019204"),
        ),
        (
            "no signature",
            &bamboohr_url,
            without_header(&bamboohr, "X-BambooHR-Signature"),
        ),
        (
            "byte of the body",
            &greenhouse_url,
            with_byte_changed(&greenhouse),
        ),
        ("another key", &greenhouse_url, wrongly_keyed),
        ("another provider's", &greenhouse_url, bamboohr.clone()),
    ];
    for (what, url, callback) in cases {
        let reply = client.callback(url, &callback).await.unwrap();
        assert_eq!(reply.status, 401, "{what}: {reply}");
        assert_eq!(reply.json["code"], "bad_signature", "{what}: {reply}");
    }
    // Unchanged they are taken, and nothing of the refused ones arrives before them.
    for (url, callback, record) in [
        (&bamboohr_url, &bamboohr, EMPLOYEE),
        (&greenhouse_url, &greenhouse, "7"),
    ] {
        client
            .callback(url, callback)
            .await
            .unwrap()
            .expect(200)
            .unwrap();
        let arrived = |all: &[support::receiver::Delivery]| {
            all.iter()
                .any(|delivery| delivery.record_id() == record && delivery.succeeded())
        };
        stage
            .receiver
            .wait_for(record, SOON, arrived)
            .await
            .unwrap();
        assert_eq!(stage.receiver.of_record(record).len(), 1);
    }
    stage.receiver.all_verified().unwrap();
}

#[tokio::test]
async fn an_unknown_account_and_a_wrong_key_are_not_found_alike() {
    let stage = Stage::without_webhook().await;
    let client = &stage.tenant.client;
    let url = bamboohr_url(&stage.tenant).await;
    let (before_key, key) = url.rsplit_once('/').unwrap();
    let (before_account, account) = before_key.rsplit_once('/').unwrap();
    let (others_url, _) = greenhouse(&stage.tenant).await;
    let (_, others_key) = others_url.rsplit_once('/').unwrap();
    let flipped = |text: &str| {
        let last = if text.ends_with('a') { 'b' } else { 'a' };
        format!("{}{last}", text.strip_suffix(|_: char| true).unwrap())
    };
    let callback = employee_change(1);
    let mut answers = Vec::new();
    for (what, url) in [
        (
            "unknown account",
            format!("{before_account}/{}/{key}", flipped(account)),
        ),
        ("no account", format!("{before_account}/nobody/{key}")),
        (
            "wrong key",
            format!("{before_account}/{account}/{}", flipped(key)),
        ),
        ("short key", format!("{before_account}/{account}/x")),
        (
            "another account's key",
            format!("{before_account}/{account}/{others_key}"),
        ),
    ] {
        let reply = client.callback(&url, &callback).await.unwrap();
        assert_eq!(reply.status, 404, "{what}: {reply}");
        answers.push(reply.json);
    }
    assert_eq!(answers[0]["code"], "not_found");
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:#?}"
    );
    client
        .callback(&url, &callback)
        .await
        .unwrap()
        .expect(200)
        .unwrap();
}

#[tokio::test]
async fn the_same_callback_twice_is_delivered_once() {
    let stage = Stage::start().await;
    let client = &stage.tenant.client;
    let url = bamboohr_url(&stage.tenant).await;
    // The third is of the same record, so it arrives after whatever the first two lead to.
    for callback in [employee_change(1), employee_change(1), employee_change(2)] {
        client
            .callback(&url, &callback)
            .await
            .unwrap()
            .expect(200)
            .unwrap();
    }
    let last = |all: &[support::receiver::Delivery]| {
        all.iter().any(|delivery| {
            delivery
                .text("event_date")
                .starts_with("2026-02-02T08:00:02")
                && delivery.succeeded()
        })
    };
    stage
        .receiver
        .wait_for("the later change", SOON, last)
        .await
        .unwrap();
    let dates: Vec<_> = stage
        .receiver
        .of_record(EMPLOYEE)
        .iter()
        .map(|delivery| delivery.text("event_date").to_owned())
        .collect();
    assert_eq!(
        dates,
        ["2026-02-02T08:00:01.000Z", "2026-02-02T08:00:02.000Z"]
    );
}

fn keyed(idempotency_key: &str) -> Value {
    json!({
        "event": "crm_contacts.updated",
        "record_id": "contact-1",
        "idempotency_key": idempotency_key,
    })
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_its_project() {
    const OTHER_HOOK: &str = "/other";
    let stage = Stage::start().await;
    let other = stage.cluster.tenant("Another project").await.unwrap();
    stage
        .webhook(&other, OTHER_HOOK, json!(["*"]), json!({}))
        .await;
    let first = stage.post(keyed("same")).await;
    let others = post_all(&other.client, &[keyed("same")]).await.remove(0);
    assert_ne!(first, others);
    assert_eq!(
        stage.post(keyed("same")).await,
        first,
        "a repeated key returns the first id"
    );
    let in_one_request = post_all(
        &stage.tenant.client,
        &[keyed("same"), keyed("a"), keyed("a")],
    )
    .await;
    assert_eq!(in_one_request[0], first);
    assert_eq!(in_one_request[1], in_one_request[2]);
    let last = stage.post(keyed("last")).await;
    stage.receiver.wait_for_id(&last, SOON).await.unwrap();
    stage.receiver.wait_for_id(&others, SOON).await.unwrap();
    let ids = |path| -> Vec<String> {
        let deliveries = stage.receiver.to_path(path);
        deliveries
            .iter()
            .map(|delivery| delivery.id().to_owned())
            .collect()
    };
    assert_eq!(ids(HOOK), [first, in_one_request[1].clone(), last]);
    assert_eq!(ids(OTHER_HOOK), [others]);
    stage.receiver.all_verified().unwrap();
}
