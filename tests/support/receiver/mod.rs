//! A subscriber's endpoint that can be told how to answer, and records all that arrives.
//!
//! Every request is one [`Delivery`], in the order in which the requests were complete. Each is
//! verified twice, as soon as its webhook's secret is known: by the official `standardwebhooks`
//! crate, and by a computation of `x-stackone-signature` of our own.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use shared::time::{Clock as _, SystemClock};
use tokio::sync::oneshot;

use crate::eventually::eventually;

mod answer;
mod http;
pub mod recorder;
mod verdict;

pub use self::answer::{Answer, Arrival};
pub use self::verdict::Verdict;

/// One request as it arrived, and what was answered.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Since the receiver was started.
    pub at: Duration,
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// The body as JSON, null if it is none.
    pub json: Value,
    /// None until then, and for ever if the connection was dropped.
    pub answered: Option<Answered>,
    pub verdict: Verdict,
}

/// What was answered, as of just before it was written.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    pub status: u16,
    /// Since the receiver was started.
    pub at: Duration,
}

impl Delivery {
    /// `webhook-id`, empty if there is none.
    pub fn id(&self) -> &str {
        self.headers.get("webhook-id").map_or("", String::as_str)
    }

    /// In either dialect's words; empty for what is no event.
    pub fn event(&self) -> &str {
        self.first_text(&["event", "eventName"])
    }

    pub fn record_id(&self) -> &str {
        self.first_text(&["record_id", "employeeId", "departmentId", "documentId"])
    }

    fn first_text(&self, fields: &[&str]) -> &str {
        let mut texts = fields.iter().map(|field| self.text(field));
        texts.find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// A field of the body, empty if there is none.
    pub fn text(&self, field: &str) -> &str {
        self.json
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub fn succeeded(&self) -> bool {
        self.answered
            .is_some_and(|answered| (200..300).contains(&answered.status))
    }
}

type Rule = Box<dyn FnMut(&Arrival) -> Answer + Send>;

/// What handler and owner share.
struct State {
    clock: SystemClock,
    deliveries: Vec<Delivery>,
    /// Signing secrets by path.
    secrets: HashMap<String, Vec<String>>,
    arrivals_by_id: HashMap<String, usize>,
    rule: Rule,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoint. It answers from a thread of its own, so that a test that blocks does not make
/// it slow; it stops when it is dropped.
pub struct Receiver {
    url: String,
    shared: Shared,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Answers everything with 204 at once.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for the receiver")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Shared(Arc::new(Mutex::new(State {
            clock: SystemClock::new(),
            deliveries: Vec::new(),
            secrets: HashMap::new(),
            arrivals_by_id: HashMap::new(),
            rule: Box::new(|_| Answer::status(204)),
        })));
        let (stop, stopped) = oneshot::channel();
        let handler = shared.clone();
        let thread = std::thread::Builder::new()
            .name("receiver".into())
            .spawn(move || http::serve(listener, handler, stopped))?;
        Ok(Self {
            url,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The URL of one webhook's endpoint; `path` starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Deliveries to `path` are signed with this secret, those before included.
    pub fn trust(&self, path: &str, secret: &str) {
        let mut state = self.shared.lock();
        let State {
            deliveries,
            secrets,
            ..
        } = &mut *state;
        let secrets = secrets.entry(path.to_owned()).or_default();
        secrets.push(secret.to_owned());
        for delivery in deliveries
            .iter_mut()
            .filter(|delivery| delivery.path == path)
        {
            delivery.verdict = Verdict::of(secrets, &delivery.headers, &delivery.body);
        }
    }

    /// From now on requests are answered as `rule` says. It is asked once a request, in order.
    pub fn answer(&self, rule: impl FnMut(&Arrival) -> Answer + Send + 'static) {
        self.shared.lock().rule = Box::new(rule);
    }

    /// Time since the receiver was started, as [`Delivery::at`] has it.
    pub fn elapsed(&self) -> Duration {
        self.shared.lock().clock.elapsed()
    }

    /// Everything that has arrived.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.lock().deliveries.clone()
    }

    pub fn to_path(&self, path: &str) -> Vec<Delivery> {
        self.matching(|delivery| delivery.path == path)
    }

    pub fn of_record(&self, record: &str) -> Vec<Delivery> {
        self.matching(|delivery| delivery.record_id() == record)
    }

    pub fn of_id(&self, id: &str) -> Vec<Delivery> {
        self.matching(|delivery| delivery.id() == id)
    }

    /// How many requests have arrived, repeats included.
    pub fn count(&self) -> usize {
        self.shared.lock().deliveries.len()
    }

    /// How many different ids were answered with success.
    pub fn distinct_successes(&self) -> usize {
        let state = self.shared.lock();
        let succeeded = state
            .deliveries
            .iter()
            .filter(|delivery| delivery.succeeded());
        succeeded
            .map(Delivery::id)
            .collect::<std::collections::HashSet<_>>()
            .len()
    }

    /// Waits until what has arrived satisfies `holds`; `what` names it in the error.
    pub async fn wait_for(
        &self,
        what: &str,
        within: Duration,
        mut holds: impl FnMut(&[Delivery]) -> bool,
    ) -> Result<()> {
        eventually(what, within, async || {
            let state = self.shared.lock();
            if holds(&state.deliveries) {
                return Ok(());
            }
            let last: Vec<_> = state.deliveries.iter().rev().take(5).map(summary).collect();
            Err(format!(
                "{} requests, the last: {last:#?}",
                state.deliveries.len()
            ))
        })
        .await
    }

    /// Waits until the event has been answered with success.
    pub async fn wait_for_id(&self, id: &str, within: Duration) -> Result<Delivery> {
        let what = format!("delivery of {id}");
        self.wait_for(&what, within, |all| {
            all.iter()
                .any(|delivery| delivery.id() == id && delivery.succeeded())
        })
        .await?;
        let found = self.of_id(id).into_iter().find(Delivery::succeeded);
        found.context("what has arrived stays")
    }

    /// An error unless everything that arrived carries both signatures, and they are right.
    pub fn all_verified(&self) -> Result<()> {
        let state = self.shared.lock();
        for delivery in &state.deliveries {
            if !delivery.verdict.verified() {
                bail!("{}: {:?}", summary(delivery), delivery.verdict);
            }
        }
        Ok(())
    }

    fn matching(&self, wanted: impl Fn(&Delivery) -> bool) -> Vec<Delivery> {
        let state = self.shared.lock();
        state
            .deliveries
            .iter()
            .filter(|delivery| wanted(delivery))
            .cloned()
            .collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It fails only if the thread has ended already.
            stop.send(()).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn summary(delivery: &Delivery) -> String {
    let answered = delivery
        .answered
        .map_or("no answer".to_owned(), |answered| {
            answered.status.to_string()
        });
    format!(
        "{} {} {} to {}: {answered}",
        delivery.event(),
        delivery.record_id(),
        delivery.id(),
        delivery.path
    )
}

impl http::Endpoint for Shared {
    fn arrived(&self, request: http::Request) -> (usize, Answer) {
        let mut state = self.lock();
        let State {
            clock,
            deliveries,
            secrets,
            arrivals_by_id,
            rule,
        } = &mut *state;
        let secrets = secrets.get(&request.path).map_or(&[][..], Vec::as_slice);
        let delivery = Delivery {
            at: clock.elapsed(),
            verdict: Verdict::of(secrets, &request.headers, &request.body),
            json: serde_json::from_slice(&request.body).unwrap_or_default(),
            path: request.path,
            headers: request.headers,
            body: request.body,
            answered: None,
        };
        let number = arrivals_by_id.entry(delivery.id().to_owned()).or_default();
        *number += 1;
        let answer = rule(&Arrival {
            path: delivery.path.clone(),
            id: delivery.id().to_owned(),
            event: delivery.event().to_owned(),
            record_id: delivery.record_id().to_owned(),
            number: *number,
            body: String::from_utf8_lossy(&delivery.body).into_owned(),
        });
        deliveries.push(delivery);
        (deliveries.len() - 1, answer)
    }

    fn answered(&self, index: usize, status: u16) {
        let mut state = self.lock();
        let at = state.clock.elapsed();
        if let Some(delivery) = state.deliveries.get_mut(index) {
            delivery.answered = Some(Answered { status, at });
        }
    }

    fn written(&self, _index: usize) {}
}
