//! First-party events of many projects, sent as a patient client sends them: what is not known to
//! be stored is sent again, with the same idempotency keys, by way of the next ingest.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::future;
use serde_json::{Value, json};
use shared::ids::ProjectId;
use tokio::time::{Instant, sleep, sleep_until};

use super::Target;
use crate::api;
use crate::checker::ClientAnswer;

/// Between two tries of what was refused.
const AGAIN: Duration = Duration::from_millis(100);
/// An ingest that says nothing for so long is given up; it may be paused.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of each project.
    pub events: usize,
    /// Ordering keys of each project.
    pub keys: usize,
    /// Events of one request.
    pub batch: usize,
    /// From request to request of one project, if they are answered that fast.
    pub pace: Duration,
}

/// How far it is, and whether it shall go on.
#[derive(Debug, Default)]
pub struct Progress {
    answers: RefCell<Vec<ClientAnswer>>,
    refused: Cell<usize>,
    stopped: Cell<bool>,
}

impl Progress {
    /// Events that were answered with success.
    pub fn accepted(&self) -> usize {
        self.answers.borrow().len()
    }

    /// Requests that were not answered, or not with success for all they held.
    pub fn refused(&self) -> usize {
        self.refused.get()
    }

    /// What is under way is still brought to its end.
    pub fn stop(&self) {
        self.stopped.set(true);
    }

    pub fn answers(self) -> Vec<ClientAnswer> {
        self.answers.into_inner()
    }
}

pub struct Load {
    http: reqwest::Client,
    targets: Vec<(ProjectId, String)>,
    ingests: Vec<String>,
    plan: Plan,
}

/// An event that is not known to be stored.
struct Unsent {
    idempotency_key: String,
    record_id: String,
    body: Value,
}

impl Load {
    pub(super) fn new(targets: &[Target], ingests: &[String], plan: Plan) -> Result<Self> {
        let of = |target: &Target| (target.project, target.tenant.key.clone());
        Ok(Self {
            http: api::http()?,
            targets: targets.iter().map(of).collect(),
            ingests: ingests.to_vec(),
            plan,
        })
    }

    /// Sends all of it, or until it is stopped. An answer that no fault explains is an error.
    pub async fn send(&self, progress: &Progress) -> Result<()> {
        let all = self.targets.iter().enumerate();
        let sent = all.map(|(number, target)| self.project(number, target, progress));
        future::try_join_all(sent).await?;
        Ok(())
    }

    async fn project(
        &self,
        number: usize,
        (project, key): &(ProjectId, String),
        progress: &Progress,
    ) -> Result<()> {
        let mut due = Instant::now();
        let mut ingest = number;
        let all: Vec<usize> = (0..self.plan.events).collect();
        for numbers in all.chunks(self.plan.batch.max(1)) {
            sleep_until(due).await;
            if progress.stopped.get() {
                return Ok(());
            }
            due = Instant::now().max(due + self.plan.pace);
            let mut unsent: Vec<_> = numbers.iter().map(|number| self.event(*number)).collect();
            while !unsent.is_empty() {
                let before = unsent.len();
                unsent = self.post(ingest, key, unsent, *project, progress).await?;
                if !unsent.is_empty() {
                    progress.refused.set(progress.refused.get() + 1);
                    ingest += 1;
                }
                if unsent.len() == before {
                    sleep(AGAIN).await;
                }
            }
        }
        Ok(())
    }

    fn event(&self, number: usize) -> Unsent {
        let record_id = format!("record-{}", number % self.plan.keys.max(1));
        let idempotency_key = format!("event {number}");
        Unsent {
            body: json!({
                "event": "crm_contacts.updated",
                "record_id": record_id,
                "idempotency_key": idempotency_key,
                "data": { "number": number },
            }),
            idempotency_key,
            record_id,
        }
    }

    /// Returns what is still not known to be stored.
    async fn post(
        &self,
        ingest: usize,
        key: &str,
        unsent: Vec<Unsent>,
        project: ProjectId,
        progress: &Progress,
    ) -> Result<Vec<Unsent>> {
        let base = self.ingests.get(ingest % self.ingests.len().max(1));
        let url = format!("{}/v1/events", base.map_or("", String::as_str));
        let bodies: Vec<_> = unsent.iter().map(|event| &event.body).collect();
        let request = self.http.post(url).bearer_auth(key).json(&bodies);
        let Ok(answer) = request.timeout(ANSWER_WITHIN).send().await else {
            return Ok(unsent);
        };
        let status = answer.status().as_u16();
        if !matches!(status, 202 | 503) {
            bail!("ingest answered {status}: {}", answer.text().await?);
        }
        let Ok(answer) = answer.json::<Value>().await else {
            return Ok(unsent);
        };
        let none = Vec::new();
        let items = answer.get("items").and_then(Value::as_array);
        let mut items = items.unwrap_or(&none).iter();
        let mut left = Vec::new();
        for event in unsent {
            let id = items.next().and_then(|item| item.get("id")?.as_str());
            match id {
                Some(id) => progress.answers.borrow_mut().push(ClientAnswer {
                    project,
                    idempotency_key: event.idempotency_key,
                    record_id: event.record_id,
                    id: id.parse()?,
                }),
                None => left.push(event),
            }
        }
        Ok(left)
    }
}
