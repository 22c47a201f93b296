//! What is pending ends before EVENTS drops it, on a stream that drops after seconds.

use std::net::TcpListener;
use std::time::Duration;

use dispatcher::Ports;
use serde_json::json;
use shared::domain::journal::{ExhaustReason, JournalEntry, UnsentEnd};
use shared::domain::state::PartitionState;
use shared::ids::{Sequence, WebhookId};

use crate::logs::{Logs, connect};
use crate::nats_server::NatsServer;
use crate::process::Dispatcher;
use crate::support::{ADMIN, eventually_ok};

const AGE_MAX: Duration = Duration::from_secs(25);
const EVENTS: u64 = 40;

/// Accepted, pending and expired.
fn counts(state: &PartitionState, webhook: WebhookId) -> (u64, u64, u64) {
    let Some(told) = state.webhooks.get(&webhook) else {
        return (0, 0, 0);
    };
    let place = ExhaustReason::ALL
        .iter()
        .position(|reason| *reason == ExhaustReason::Expired)
        .unwrap();
    let ledger = &told.ledger;
    (ledger.accepted, ledger.pending(), ledger.exhausted[place])
}

#[actix_web::test]
async fn what_is_pending_ends_as_expired_before_it_is_dropped() {
    let server = NatsServer::start().await;
    let nats = connect(&server).await;
    let mut config = nats.events.get_info().await.unwrap().config;
    config.max_age = AGE_MAX;
    config.duplicate_window = AGE_MAX / 2;
    nats.context.update_stream(config).await.unwrap();
    let dispatcher = Dispatcher::start(server.url.clone(), Ports::system());
    eventually_ok(async || dispatcher.ops("/readyz").await.0 == 200).await;
    let made = dispatcher
        .post(ADMIN, "/v1/projects", json!({"name": "x"}))
        .await;
    let project = made.expect(201).text("/id");
    let keys = format!("/v1/projects/{project}/api_keys");
    let key = dispatcher.post(ADMIN, &keys, json!({"name": "x"})).await;
    let key = key.expect(201).text("/key");
    // Bound, and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let body = json!({"url": url, "events": ["*"], "policy": {"timeout_ms": 1_000}});
    let made = dispatcher
        .post(&key, "/v1/webhooks", body)
        .await
        .expect(201);
    let webhook: WebhookId = made.text("/id").parse().unwrap();
    let logs = Logs::of(&server, &project).await;
    for number in 1..=EVENTS {
        logs.publish(u128::from(number), "x").await;
    }
    eventually_ok(async || counts(&logs.fold().await.0, webhook).0 == EVENTS).await;
    eventually_ok(async || {
        // Looked at first: what it says was there before what the journal is asked for now.
        let (first, _) = logs.events().await;
        let (state, _) = logs.fold().await;
        let (accepted, pending, expired) = counts(&state, webhook);
        assert_eq!(accepted, pending + expired);
        assert!(
            pending == 0 || first == Sequence(1),
            "{pending} of {accepted} are dropped"
        );
        pending == 0
    })
    .await;
    let (_, entries) = logs.fold().await;
    let ended = entries.iter().filter_map(|entry| match entry {
        JournalEntry::PendingEnded { end, count, .. } => Some((*end, *count)),
        _ => None,
    });
    let expired = UnsentEnd::Exhausted(ExhaustReason::Expired);
    let together: u64 = ended
        .filter(|(end, _)| *end == expired)
        .map(|(_, count)| count)
        .sum();
    assert!(
        together >= EVENTS - 1,
        "one may have been under way, not {together}"
    );
    dispatcher.stop.send(()).unwrap();
    Dispatcher::ended(dispatcher.ended).await;
}
