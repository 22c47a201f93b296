//! Many first-party events, in requests as large as they may be.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use shared::ids::EventId;
use shared::limits::EVENTS_PER_REQUEST_MAX;
use support::api;
use support::cluster::{Cluster, Tenant};

const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Publishes for one project.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Publisher {
    pub(super) fn new(cluster: &Cluster, tenant: &Tenant) -> Result<Self> {
        Ok(Self {
            http: api::http()?,
            url: format!("{}/v1/events", cluster.ingest.http_url()),
            key: tenant.key.clone(),
        })
    }

    /// One event for each record id, in this order: a request begins when the one before it is
    /// answered. Gives the events' ids in the same order.
    pub(super) async fn publish(
        &self,
        records: impl Iterator<Item = String>,
    ) -> Result<Vec<EventId>> {
        let mut ids = Vec::new();
        let mut records = records.peekable();
        while records.peek().is_some() {
            let events: Vec<Value> = records
                .by_ref()
                .take(EVENTS_PER_REQUEST_MAX)
                .map(|record| {
                    json!({
                        "event": "crm_contacts.updated",
                        "record_id": record,
                        "data": { "of": record },
                    })
                })
                .collect();
            ids.extend(self.post(&events).await?);
        }
        Ok(ids)
    }

    async fn post(&self, events: &[Value]) -> Result<Vec<EventId>> {
        let request = self.http.post(&self.url).bearer_auth(&self.key);
        let request = request.timeout(ANSWER_WITHIN).json(events);
        let answer = request.send().await.context("publishing")?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status == 202, "ingest answered {status}: {text}");
        let answer: Value = serde_json::from_str(&text)?;
        let items = answer.get("items").and_then(Value::as_array);
        let items = items.context("items")?;
        ensure!(items.len() == events.len(), "an answer for each event");
        let ids = items
            .iter()
            .map(|item| Ok(api::text(item, "/id")?.parse()?));
        ids.collect()
    }
}
