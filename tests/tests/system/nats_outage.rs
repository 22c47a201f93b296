//! nats-server dies without warning, and comes back with its store.

use serde_json::{Value, json};
use support::api::{Client, Reply, text};
use support::eventually::eventually;
use support::ledger::Ledger;
use support::providers;

use crate::stage::{IN_A_WHILE, Stage, post_all, record_of, repeatable_event};

const BATCHES: usize = 20;
const BATCH: usize = 50;
const RECORDS: usize = 25;

fn batch(number: usize) -> Vec<Value> {
    let numbers = number * BATCH..(number + 1) * BATCH;
    numbers
        .map(|n| repeatable_event(&format!("record-{}", n % RECORDS), n))
        .collect()
}

/// Notes what was accepted, and says whether that is all of the batch.
fn note(accepted: &mut Ledger, batch: &[Value], reply: &Reply) -> bool {
    let items = reply.json["items"].as_array().cloned().unwrap_or_default();
    let ids: Vec<_> = items.iter().map(|item| text(item, "/id").ok()).collect();
    for (event, id) in batch.iter().zip(&ids) {
        if let Some(id) = id {
            accepted.accepted(record_of(event), id);
        }
    }
    reply.status == 202 && ids.len() == batch.len() && ids.iter().all(Option::is_some)
}

/// Sends the batch again, with the same idempotency keys, until all of it is accepted.
async fn post_until_accepted(client: &Client, batch: &[Value], accepted: &mut Ledger) {
    eventually("ingest accepting events again", IN_A_WHILE, async || {
        let reply = client.post_events(&batch.into()).await.unwrap();
        assert!(matches!(reply.status, 202 | 503), "{reply}");
        if note(accepted, batch, &reply) {
            return Ok(());
        }
        Err(reply.to_string())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_ingest_accepted_survives_an_outage_of_nats() {
    let mut stage = Stage::start().await;
    let client = stage.tenant.client.clone();
    let account = json!({
        "provider": "bamboohr",
        "origin_owner_id": "customer-1",
        "credentials": { "signing_secret": "a key of some length" },
    });
    let account = client
        .create_account(&account)
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    let mut accepted = Ledger::default();
    for number in 0..BATCHES / 2 {
        let batch = batch(number);
        for (event, id) in batch.iter().zip(post_all(&client, &batch).await) {
            accepted.accepted(record_of(event), &id);
        }
    }
    // One batch is under way while the server dies: its fate may be either.
    let in_the_middle = batch(BATCHES / 2);
    let events = Value::from(in_the_middle.as_slice());
    let (reply, ()) = tokio::join!(client.post_events(&events), async {
        stage.cluster.nats.kill();
    });
    let reply = reply.unwrap();
    assert!(matches!(reply.status, 202 | 503), "{reply}");
    note(&mut accepted, &in_the_middle, &reply);

    // While it is away nothing is promised. What is sent now is what was sent last, for its fate
    // is as unknown, and a later event of the same record may not overtake it.
    let body = providers::bamboohr_employee_updated("1", "Tefi", "2026-02-02T08:00:00+0000");
    let callback = providers::bamboohr("a key of some length", body, "1770019203");
    let url = text(&account, "/ingest/url").unwrap();
    for reply in [
        client.post_events(&events).await.unwrap(),
        client.callback(&url, &callback).await.unwrap(),
    ] {
        assert_eq!(reply.status, 503, "{reply}");
        let retry_after = reply
            .header("retry-after")
            .and_then(|value| value.parse::<u32>().ok());
        assert!(
            retry_after.is_some_and(|seconds| seconds > 0),
            "{:?}",
            reply.headers
        );
    }

    stage.cluster.nats.restart().await.unwrap();
    for number in BATCHES / 2..BATCHES {
        post_until_accepted(&client, &batch(number), &mut accepted).await;
    }
    assert_eq!(accepted.len(), BATCHES * BATCH);
    stage.settled(&accepted).await;
    // The provider tries again as well, and is served.
    eventually("the callback accepted", IN_A_WHILE, async || {
        let reply = client.callback(&url, &callback).await.unwrap();
        if reply.status == 200 {
            Ok(())
        } else {
            Err(reply.to_string())
        }
    })
    .await
    .unwrap();
    let arrived = |all: &[support::receiver::Delivery]| {
        all.iter()
            .any(|delivery| delivery.event() == "hris_employees.updated")
    };
    stage
        .receiver
        .wait_for("the callback's event", IN_A_WHILE, arrived)
        .await
        .unwrap();
}
