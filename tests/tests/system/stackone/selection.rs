//! Where events are chosen: by type, by resource, by provider, by source; and what they look like.

use reqwest::Method;
use serde_json::json;
use support::api::{Reply, text};
use support::providers;
use support::receiver::Delivery;

use super::{BAMBOOHR_KEY, Hook, WEBHOOKS, Walk};

pub(super) async fn events_come_as_they_were_selected(walk: &Walk, hook: &Hook) {
    let ids = selecting(walk).await;
    let [by_type, by_resource, by_provider, by_source, of_accounts] = &ids;
    let first = std::slice::from_ref(&hook.id);
    pages_hold_all(walk, [first, &ids].concat()).await;
    let delivered = async |event: &str, to: &[&String]| {
        let to: Vec<_> = to.iter().map(|id| (id.as_str(), "delivered")).collect();
        walk.dealt_with(event, &to).await
    };

    let native = employee_changed(walk).await;
    delivered(native.id(), &[by_type, by_resource, by_source]).await;
    let candidate = candidate_changed(walk).await;
    delivered(candidate.id(), &[by_provider, by_source]).await;
    let own = json!({"event": "hris_employees.updated", "record_id": "employee-1",
        "account_id": walk.bamboohr.id, "data": {"name": "Tefi"}});
    let own = walk.post(own).await;
    delivered(&own, &[by_type, by_resource]).await;
    let own = walk.arrives("our own", |one| one.id() == own).await;
    assert_eq!(own.json["event_data"], json!({"name": "Tefi"}));
    assert_eq!(own.json.get("raw_event"), None);
    let created = json!({"event": "hris_employees.created", "record_id": "employee-2"});
    delivered(&walk.post(created).await, &[by_resource]).await;
    let told = account_changed(walk).await;
    delivered(told.id(), &[by_provider, of_accounts]).await;

    for id in ids {
        let path = format!("{WEBHOOKS}/{id}");
        let written = walk.write(Method::DELETE, &path, None).await;
        written.reply.clone().expect(204).unwrap();
        written.is_gone(&path).await;
    }
}

/// Ids of webhooks that select by type, by resource, by provider, by source, and account events.
async fn selecting(walk: &Walk) -> [String; 5] {
    let mut ids = [const { String::new() }; 5];
    let selections = [
        ("/type", json!(["hris_employees.updated"])),
        ("/resource", json!(["hris_employees.*"])),
        (
            "/provider",
            json!([{"event": "*", "providers": ["greenhouse"]}]),
        ),
        ("/source", json!([{"event": "*", "sources": ["native"]}])),
        ("/account", json!(["account.*"])),
    ];
    for (id, (at, events)) in ids.iter_mut().zip(selections) {
        let body = json!({"url": walk.pair.receiver.url(at), "events": events});
        *id = text(&walk.add(&body, at).await, "/id").unwrap();
    }
    ids
}

async fn pages_hold_all(walk: &Walk, created: Vec<String>) {
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("{WEBHOOKS}?limit=2{cursor}");
        let page = walk.pair.call(Method::GET, &path, None, 200).await;
        let items = page["items"].as_array().unwrap();
        assert!((1..=2).contains(&items.len()), "{page}");
        listed.extend(items.iter().map(|item| text(item, "/id").unwrap()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(listed, created, "oldest first");
}

/// A native event, with the provider's payload and what could be mapped of it.
async fn employee_changed(walk: &Walk) -> Delivery {
    let body = providers::bamboohr_employee_updated("4711", "Tefi", "2026-02-02T08:00:00+0000");
    let callback = providers::bamboohr(BAMBOOHR_KEY, body, "1770019203");
    let client = &walk.pair.tenant.client;
    let answer = client.callback(&walk.bamboohr.url, &callback).await;
    answer.unwrap().expect(200).unwrap();
    let arrived = walk
        .arrives("the employee", |one| one.record_id() == "4711")
        .await;
    for (field, expected) in [
        ("id", arrived.id()),
        ("project_id", &walk.pair.tenant.project),
        ("event", "hris_employees.updated"),
        ("event_date", "2026-02-02T08:00:00.000Z"),
        ("record_type", "employees"),
        ("account_id", &walk.bamboohr.id),
        ("provider", "bamboohr"),
        ("origin_owner_id", "customer-1"),
        ("origin_owner_name", "Acme"),
    ] {
        assert_eq!(arrived.text(field), expected, "{field}: {}", arrived.json);
    }
    let raw = &arrived.json["raw_event"];
    assert!(raw.to_string().contains("Bell Founder"), "{raw}");
    assert!(arrived.json["event_data"].is_object(), "{}", arrived.json);
    arrived
}

async fn candidate_changed(walk: &Walk) -> Delivery {
    let body = providers::greenhouse_candidate_updated(17, "Ada");
    let callback = providers::greenhouse(&walk.greenhouse_key, body, "1");
    let client = &walk.pair.tenant.client;
    let answer = client.callback(&walk.greenhouse.url, &callback).await;
    answer.unwrap().expect(200).unwrap();
    walk.arrives("the candidate", |one| {
        one.event() == "ats_candidates.updated"
    })
    .await
}

async fn account_changed(walk: &Walk) -> Delivery {
    let path = format!("/v1/accounts/{}", walk.greenhouse.id);
    let change = json!({"origin_owner_name": "Babbage & Daughters"});
    let written = walk.write(Method::PATCH, &path, Some(&change)).await;
    written.reply.clone().expect(200).unwrap();
    let holds = |reply: &Reply| reply.json["origin_owner_name"] == "Babbage & Daughters";
    written.is_seen(&path, holds).await;
    let told = walk
        .arrives("account.updated", |one| one.event() == "account.updated")
        .await;
    assert_eq!(told.record_id(), walk.greenhouse.id);
    assert_eq!(told.text("record_type"), "account");
    assert_eq!(told.text("origin_owner_name"), "Babbage & Daughters");
    told
}
