//! What most tests start from: a cluster, a receiver, a project with a webhook.

use std::time::Duration;

use serde_json::{Value, json};
use support::api::{Client, text};
use support::cluster::{Cluster, Tenant};
use support::ledger::Ledger;
use support::receiver::Receiver;

/// For anything that should come in a moment, on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// For thousands of things.
pub(crate) const IN_A_WHILE: Duration = Duration::from_secs(90);

pub(crate) const HOOK: &str = "/hook";

/// The cluster goes before the receiver, so that it never meets a closed port.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    pub(crate) receiver: Receiver,
    pub(crate) tenant: Tenant,
}

impl Stage {
    /// With one webhook that takes everything.
    pub(crate) async fn start() -> Self {
        Self::with_policy(json!({})).await
    }

    pub(crate) async fn with_policy(policy: Value) -> Self {
        let stage = Self::without_webhook().await;
        stage
            .webhook(&stage.tenant, HOOK, json!(["*"]), policy)
            .await;
        stage
    }

    pub(crate) async fn without_webhook() -> Self {
        let cluster = Cluster::start().await.unwrap();
        Self {
            receiver: Receiver::start().unwrap(),
            tenant: cluster.tenant("System test").await.unwrap(),
            cluster,
        }
    }

    /// A webhook to a path of the receiver, which learns its secret. Returns its id.
    pub(crate) async fn webhook(
        &self,
        tenant: &Tenant,
        path: &str,
        events: Value,
        policy: Value,
    ) -> String {
        let webhook = json!({ "url": self.receiver.url(path), "events": events, "policy": policy });
        let created = tenant
            .client
            .create_webhook(&webhook)
            .await
            .unwrap()
            .expect(201)
            .unwrap();
        self.receiver
            .trust(path, &text(&created, "/signing_secrets/0/secret").unwrap());
        text(&created, "/id").unwrap()
    }

    /// Posts one first-party event and returns its id.
    pub(crate) async fn post(&self, event: Value) -> String {
        post_all(&self.tenant.client, &[event]).await.remove(0)
    }

    /// Waits until everything accepted is delivered, and checks that it adds up: none missing,
    /// each record in order, every signature right.
    pub(crate) async fn settled(&self, ledger: &Ledger) {
        self.receiver
            .wait_for(
                "delivery of everything accepted",
                IN_A_WHILE,
                |deliveries| {
                    deliveries.len() >= ledger.len() && ledger.missing(deliveries).is_empty()
                },
            )
            .await
            .unwrap();
        let disorder = ledger.order_violations(&self.receiver.deliveries());
        assert!(disorder.is_empty(), "{disorder:#?}");
        self.receiver.all_verified().unwrap();
    }
}

pub(crate) fn event(record: &str, number: usize) -> Value {
    json!({ "event": "crm_contacts.updated", "record_id": record, "data": { "number": number } })
}

/// The same with an idempotency key of its own, so that it can be sent again when its fate is
/// unknown.
pub(crate) fn repeatable_event(record: &str, number: usize) -> Value {
    let mut event = event(record, number);
    event["idempotency_key"] = format!("number {number}").into();
    event
}

/// Ids in the order of the events, all of which must be accepted.
pub(crate) async fn post_all(client: &Client, events: &[Value]) -> Vec<String> {
    let accepted = client
        .post_events(&events.into())
        .await
        .unwrap()
        .expect(202)
        .unwrap();
    let items = accepted["items"].as_array().unwrap();
    assert_eq!(items.len(), events.len(), "{accepted}");
    items
        .iter()
        .map(|item| text(item, "/id").unwrap())
        .collect()
}

/// The record of an event made by [`event`].
pub(crate) fn record_of(event: &Value) -> &str {
    event["record_id"].as_str().unwrap()
}
