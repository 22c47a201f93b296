//! What a subscriber can see of the past is what the receiver saw: overview and attempts, before
//! and after a restart whose owner begins from a snapshot.

use std::collections::{BTreeMap, HashSet};

use reqwest::Method;
use serde_json::{Value, json};
use shared::ids::{PartitionId, ProjectId};
use shared::partition::PartitionCount;
use shared::subjects;
use support::api::Client;
use support::eventually::eventually;
use support::receiver::{Answer, Delivery};
use support::stored::Stored;

use crate::stage::{HOOK, IN_A_WHILE, SOON, Stage, event, post_all, repeatable_event};

/// More than make a snapshot.
const EVENTS: usize = 1_200;
const BATCH: usize = 200;

async fn get(client: &Client, path: &str) -> Value {
    let reply = client.call(Method::GET, path, None).await.unwrap();
    reply.expect(200).unwrap()
}

async fn status_of(client: &Client, path: &str) -> u16 {
    client.call(Method::GET, path, None).await.unwrap().status
}

fn count(value: &Value, pointer: &str) -> usize {
    let count = value.pointer(pointer).and_then(Value::as_u64).unwrap();
    usize::try_from(count).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

/// All pages of `query`, each of `limit` items at most.
async fn attempts(client: &Client, webhook: &str, query: &str, limit: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/webhooks/{webhook}/attempts?limit={limit}{query}{cursor}");
        let page = get(client, &path).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit, "{page}");
        all.extend(items.iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

/// How often each event was answered with each status.
fn tally<'a>(seen: impl Iterator<Item = (&'a str, u64)>) -> BTreeMap<(String, u64), usize> {
    let mut tally = BTreeMap::new();
    for (id, status) in seen {
        *tally.entry((id.to_owned(), status)).or_default() += 1;
    }
    tally
}

fn tally_of_receiver(deliveries: &[Delivery]) -> BTreeMap<(String, u64), usize> {
    tally(deliveries.iter().map(|delivery| {
        let answered = delivery.answered.unwrap();
        (delivery.id(), u64::from(answered.status))
    }))
}

fn tally_of_attempts(attempts: &[Value]) -> BTreeMap<(String, u64), usize> {
    let seen = attempts.iter();
    tally(seen.map(|attempt| {
        (
            text(attempt, "event_id"),
            attempt["status"].as_u64().unwrap(),
        )
    }))
}

async fn settled_overview(client: &Client, webhook: &str) -> Value {
    let path = format!("/v1/webhooks/{webhook}/overview");
    eventually("nothing pending", IN_A_WHILE, async || {
        let overview = get(client, &path).await;
        let done = count(&overview, "/ledger/accepted") == EVENTS && overview["pending"] == 0;
        done.then_some(overview.clone())
            .ok_or_else(|| overview["ledger"].to_string())
    })
    .await
    .unwrap()
}

/// Three events fail once, one fails for good, and the others are taken at once.
async fn deliver(stage: &Stage) -> String {
    stage.receiver.answer(
        |arrival| match (arrival.number, arrival.record_id.as_str()) {
            (1, "flaky") => Answer::status(503).with_body("come again"),
            (_, "bad") => Answer::status(500).with_body("never"),
            _ => Answer::status(204),
        },
    );
    let webhook = stage
        .webhook(
            &stage.tenant,
            HOOK,
            json!(["*"]),
            json!({ "retry_schedule_ms": [150, 150] }),
        )
        .await;
    let events: Vec<_> = (0..EVENTS)
        .map(|number| match number {
            100 | 200 | 300 => event("flaky", number),
            400 => event("bad", number),
            number if number % 3 == 0 => json!({
                "event": "hris_employees.created", "record_id": format!("employee-{}", number % 20),
            }),
            number => event(&format!("record-{}", number % 20), number),
        })
        .collect();
    for batch in events.chunks(BATCH) {
        post_all(&stage.tenant.client, batch).await;
    }
    webhook
}

fn check_overview(overview: &Value, deliveries: &[Delivery]) {
    let succeeded = deliveries
        .iter()
        .filter(|delivery| delivery.succeeded())
        .count();
    let failed = deliveries.len() - succeeded;
    assert_eq!((succeeded, failed), (EVENTS - 1, 6));
    for (pointer, expected) in [
        ("/delivered", succeeded),
        ("/failed_attempts", failed),
        ("/exhausted", 1),
        ("/skipped", 0),
        ("/pending", 0),
        ("/ledger/accepted", EVENTS),
        ("/ledger/delivered", succeeded),
        ("/ledger/exhausted", 1),
        ("/ledger/skipped", 0),
        ("/ledger/pending", 0),
        ("/ledger/gap", 0),
    ] {
        assert_eq!(
            count(overview, pointer),
            expected,
            "{pointer} in {overview}"
        );
    }
    assert_eq!(overview["ledger"]["recounted"], true, "{overview}");
    let sum = |list: &str, field: &str| -> usize {
        let rows = overview[list].as_array().unwrap();
        rows.iter().map(|row| count(row, field)).sum()
    };
    for list in ["by_event", "buckets"] {
        assert_eq!(sum(list, "/delivered"), succeeded, "{list}");
        assert_eq!(sum(list, "/failed_attempts"), failed, "{list}");
    }
    let of_type = |name: &str| {
        deliveries
            .iter()
            .filter(|one| one.succeeded() && one.event() == name)
            .count()
    };
    for row in overview["by_event"].as_array().unwrap() {
        assert_eq!(
            count(row, "/delivered"),
            of_type(text(row, "event")),
            "{row}"
        );
    }
    assert_eq!(overview["by_event"].as_array().unwrap().len(), 2);
}

async fn check_attempts(client: &Client, webhook: &str, deliveries: &[Delivery]) {
    let all = attempts(client, webhook, "", 100).await;
    assert_eq!(tally_of_attempts(&all), tally_of_receiver(deliveries));
    for delivery in deliveries {
        let told = all
            .iter()
            .find(|told| text(told, "event_id") == delivery.id())
            .unwrap();
        assert_eq!(text(told, "record_id"), delivery.record_id());
        assert_eq!(text(told, "event"), delivery.event());
    }
    for (query, expected) in [
        ("&outcome=delivered", EVENTS - 1),
        ("&outcome=failed", 5),
        ("&outcome=exhausted", 1),
        (
            "&event_type=hris_employees.created",
            all.iter()
                .filter(|told| told["event"] == "hris_employees.created")
                .count(),
        ),
        ("&record_id=flaky", 6),
        ("&record_id=flaky&outcome=failed", 3),
        ("&record_id=nobody", 0),
        ("&to=2020-01-01T00:00:00Z", 0),
        ("&from=2090-01-01T00:00:00Z", 0),
        (
            "&from=2020-01-01T00:00:00Z&to=2090-01-01T00:00:00Z",
            all.len(),
        ),
    ] {
        let seen = attempts(client, webhook, query, 64).await;
        assert_eq!(seen.len(), expected, "{query}");
        assert!(seen.iter().all(|one| all.contains(one)), "{query}");
    }
    let bad = attempts(client, webhook, "&record_id=bad", 1).await;
    let told: Vec<_> = bad
        .iter()
        .map(|one| (one["attempt"].as_u64().unwrap(), text(one, "outcome")))
        .collect();
    assert_eq!(told, [(3, "exhausted"), (2, "failed"), (1, "failed")]);
    for (index, one) in bad.iter().enumerate() {
        assert_eq!(
            (text(one, "error"), text(one, "answer")),
            ("status", "never"),
            "{one}"
        );
        assert_eq!(one["next_attempt_at"].is_string(), index > 0, "{one}");
    }
    assert_eq!(bad[0]["reason"], "schedule");
}

async fn check_isolation(stage: &Stage, webhook: &str) {
    let other = stage.cluster.tenant("Other").await.unwrap();
    let own = stage
        .webhook(&other, "/other", json!(["*"]), json!({}))
        .await;
    let client = &stage.tenant.client;
    let page = get(client, &format!("/v1/webhooks/{webhook}/attempts?limit=1")).await;
    let cursor = text(&page, "next");
    for path in ["overview", "attempts"] {
        let theirs = format!("/v1/webhooks/{webhook}/{path}");
        assert_eq!(status_of(&other.client, &theirs).await, 404, "{path}");
    }
    let foreign = format!("/v1/webhooks/{own}/attempts?cursor={cursor}");
    assert_eq!(status_of(&other.client, &foreign).await, 400);
    let empty = get(&other.client, &format!("/v1/webhooks/{own}/attempts")).await;
    assert_eq!(empty, json!({ "items": [], "next": null }));
}

#[tokio::test]
async fn overview_and_attempts_tell_what_the_receiver_saw_and_totals_outlive_the_journal() {
    let mut stage = Stage::without_webhook().await;
    let webhook = deliver(&stage).await;
    let before = settled_overview(&stage.tenant.client, &webhook).await;
    let deliveries = stage.receiver.deliveries();
    check_overview(&before, &deliveries);
    check_attempts(&stage.tenant.client, &webhook, &deliveries).await;
    check_isolation(&stage, &webhook).await;

    let stored = Stored::connect(&stage.cluster.nats.url()).await.unwrap();
    let project: ProjectId = stage.tenant.project.parse().unwrap();
    let partition: PartitionId = PartitionCount::DEFAULT.of(project);
    let through = eventually("a snapshot", SOON, async || {
        let kept = stored
            .snapshots(partition)
            .await
            .map_err(|error| error.to_string())?;
        let newest = kept.first().map(|newest| newest.journal.0);
        newest.ok_or_else(|| "none yet".to_owned())
    })
    .await
    .unwrap();
    stage.cluster.dispatcher.kill();
    let journal = subjects::journal(partition);
    let purged = stored
        .purge(subjects::JOURNAL, &journal, through + 1)
        .await
        .unwrap();
    assert!(purged > 0, "there was nothing before the snapshot");
    stage.cluster.dispatcher.restart().await.unwrap();

    let after = settled_overview(&stage.tenant.client, &webhook).await;
    check_overview(&after, &deliveries);
    // What JOURNAL has forgotten is not listed, and nothing else is missing.
    let rest = attempts(&stage.tenant.client, &webhook, "", 100).await;
    let told = tally_of_receiver(&deliveries);
    assert!(rest.len() < deliveries.len(), "{} are left", rest.len());
    assert!(
        tally_of_attempts(&rest)
            .iter()
            .all(|(one, count)| told.get(one) >= Some(count))
    );
    assert_eq!(
        stage.receiver.count(),
        deliveries.len(),
        "something was sent again"
    );
    stage.cluster.stop().await.unwrap();
}

/// One webhook takes the event at the second attempt, one never does, one is disabled, one wants
/// other events.
#[tokio::test]
async fn an_event_tells_of_its_deliveries_and_attempts_and_is_listed_newest_first() {
    let stage = Stage::without_webhook().await;
    // An arrival's number counts the other paths too, whose attempts may be there first.
    let mut at_flaky = HashSet::new();
    stage.receiver.answer(move |arrival| {
        let is_first = arrival.path == "/flaky" && at_flaky.insert(arrival.id.clone());
        Answer::status(if arrival.path == "/bad" || is_first {
            500
        } else {
            204
        })
    });
    let client = &stage.tenant.client;
    let policy = json!({ "retry_schedule_ms": [150] });
    let mut webhooks = Vec::new();
    for (path, events) in [
        ("/flaky", json!(["*"])),
        ("/bad", json!(["crm_contacts.*"])),
        ("/off", json!(["*"])),
        ("/others", json!(["ats_jobs.*"])),
    ] {
        let webhook = stage
            .webhook(&stage.tenant, path, events, policy.clone())
            .await;
        webhooks.push((path, webhook));
    }
    let id_of = |path: &str| {
        webhooks
            .iter()
            .find(|(known, _)| *known == path)
            .unwrap()
            .1
            .clone()
    };
    let disabled = client.disable_webhook(&id_of("/off")).await.unwrap();
    assert_eq!(disabled.expect(200).unwrap()["applied"], true);

    // One whose id tells no time, and one whose id does; more failures would open a breaker.
    let ids = [
        stage.post(repeatable_event("one", 0)).await,
        stage.post(event("one", 1)).await,
    ];
    for (place, id) in ids.iter().enumerate() {
        let sent_at = eventually("its deliveries have ended", SOON, async || {
            let told = get(client, &format!("/v1/events/{id}")).await;
            let status = |path: &str| {
                let deliveries = told["deliveries"].as_array().unwrap();
                let own = deliveries
                    .iter()
                    .find(|one| text(one, "webhook_id") == id_of(path));
                own.map_or("none".to_owned(), |one| text(one, "status").to_owned())
            };
            let seen = ["/flaky", "/bad", "/off", "/others"].map(status);
            if seen != ["delivered", "exhausted", "skipped", "none"] {
                return Err(told.to_string());
            }
            let attempts = told["attempts"].as_array().unwrap();
            let outcomes = |path: &str| -> Vec<_> {
                let own = attempts
                    .iter()
                    .filter(|one| text(one, "webhook_id") == id_of(path));
                own.map(|one| text(one, "outcome").to_owned()).collect()
            };
            assert_eq!(outcomes("/flaky"), ["failed", "delivered"]);
            assert_eq!(outcomes("/bad"), ["failed", "exhausted"]);
            assert_eq!(
                (attempts.len(), &told["attempts_complete"]),
                (4, &json!(true))
            );
            assert_eq!(told["body"]["event_data"]["number"], place);
            Ok(text(&told, "published_at").to_owned())
        })
        .await
        .unwrap();
        let hinted = get(client, &format!("/v1/events/{id}?at={sent_at}")).await;
        assert_eq!(text(&hinted, "id"), id);
    }
    let newest_first: Vec<_> = ids.iter().rev().cloned().collect();
    let mut listed = Vec::new();
    let mut query = "?limit=1&event_type=crm_contacts.updated".to_owned();
    loop {
        let page = get(client, &format!("/v1/events{query}")).await;
        let items = page["items"].as_array().unwrap();
        listed.extend(items.iter().map(|one| text(one, "id").to_owned()));
        match page["next"].as_str() {
            Some(next) => query = format!("?limit=1&event_type=crm_contacts.updated&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(listed, newest_first);
    let other = stage.cluster.tenant("Other").await.unwrap();
    let path = format!("/v1/events/{}", ids[0]);
    assert_eq!(status_of(&other.client, &path).await, 404);
    let theirs = get(&other.client, "/v1/events").await;
    assert_eq!(theirs, json!({ "items": [], "next": null }));
    stage.cluster.stop().await.unwrap();
}
