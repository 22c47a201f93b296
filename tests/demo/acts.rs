//! What comes in: a callback of each provider, and an event of the customer's own.

use anyhow::{Context as _, Result};
use serde_json::json;
use shared::time::{Clock as _, SystemClock, Timestamp};
use support::providers::{self, Callback};

use crate::scene::Scene;

pub(crate) const EMPLOYEE: &str = "4711";
pub(crate) const CONTACT: &str = "contact-77";
pub(crate) const CANDIDATE: u64 = 60_304_594;

/// One request to ingest, and the event that must come of it.
pub(crate) struct Act {
    pub(crate) title: &'static str,
    /// Who sends it, in two words.
    pub(crate) source: &'static str,
    pub(crate) url: String,
    pub(crate) callback: Callback,
    pub(crate) event: &'static str,
    pub(crate) record_id: String,
}

impl Act {
    /// Sends it and says which status came back, which must be a success.
    pub(crate) async fn send(&self, scene: &Scene) -> Result<u16> {
        let reply = scene
            .tenant
            .client
            .callback(&self.url, &self.callback)
            .await?;
        let status = reply.status;
        reply.success().context("ingest refused what came in")?;
        Ok(status)
    }
}

pub(crate) fn all(scene: &Scene) -> Vec<Act> {
    let now = SystemClock::new().now();
    let bamboohr = &scene.bamboohr;
    let greenhouse = &scene.greenhouse;
    vec![
        Act {
            title: "BambooHR calls back: an employee has changed",
            source: "BambooHR",
            url: bamboohr.ingest_url.clone(),
            callback: providers::bamboohr(
                &bamboohr.signing_secret,
                providers::bamboohr_employee_updated(EMPLOYEE, "Quasimodo", &bamboohr_time(now)),
                &now.as_seconds().to_string(),
            ),
            event: "hris_employees.updated",
            record_id: EMPLOYEE.to_owned(),
        },
        Act {
            title: "The customer's own system posts an event",
            source: "first party",
            url: format!("{}/v1/events", scene.cluster.ingest.http_url()),
            callback: first_party(&scene.tenant.key, now),
            event: "crm_contacts.updated",
            record_id: CONTACT.to_owned(),
        },
        Act {
            title: "Greenhouse calls back: a candidate has changed",
            source: "Greenhouse",
            url: greenhouse.ingest_url.clone(),
            callback: providers::greenhouse(
                &greenhouse.signing_secret,
                providers::greenhouse_candidate_updated(CANDIDATE, "Ada"),
                "8f0c1d2e-0000-4000-8000-00000000004d",
            ),
            event: "ats_candidates.updated",
            record_id: CANDIDATE.to_string(),
        },
    ]
}

fn first_party(api_key: &str, now: Timestamp) -> Callback {
    let body = json!({
        "event": "crm_contacts.updated",
        "record_id": CONTACT,
        "occurred_at": now,
        "idempotency_key": "demo-1",
        "data": { "name": "Esmeralda", "city": "Paris" },
    });
    Callback {
        headers: vec![
            ("Content-Type", "application/json".into()),
            ("Authorization", format!("Bearer {api_key}")),
        ],
        body: body.to_string().into_bytes(),
    }
}

/// BambooHR writes `2026-02-02T08:00:00+0000`.
fn bamboohr_time(time: Timestamp) -> String {
    let text = time.to_string();
    let seconds = text
        .split_once('.')
        .map_or(text.as_str(), |(seconds, _)| seconds);
    format!("{seconds}+0000")
}
