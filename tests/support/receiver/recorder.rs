//! An endpoint for hundreds of thousands of requests: of each it keeps some numbers instead of the
//! request, and it verifies nothing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use shared::ids::EventId;
use shared::time::{Clock as _, SystemClock, Timestamp};
use tokio::sync::oneshot;

use super::http::{self, Endpoint, Request};
use super::{Answer, Arrival, Rule};

/// One request as it arrived, and what was answered. Times are microseconds since the recorder
/// was started, on a clock that never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Index in [`Record::paths`].
    pub path: usize,
    /// `webhook-id`; `None` if it is no event's.
    pub event: Option<EventId>,
    /// [`body_hash`] of the body.
    pub body: u64,
    pub at_us: u64,
    /// `None` until then, and for ever if the connection was dropped instead.
    pub answered: Option<AnsweredAt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredAt {
    pub status: u16,
    /// Just before it was written.
    pub at_us: u64,
    /// The connection took the whole answer.
    pub completed: bool,
}

impl Recorded {
    pub fn succeeded(&self) -> bool {
        self.answered
            .is_some_and(|answered| (200..300).contains(&answered.status))
    }
}

/// Everything that has arrived, in the order in which the requests were complete.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Wall time of the times' zero.
    pub started_at: Timestamp,
    pub paths: Vec<String>,
    pub requests: Vec<Recorded>,
}

/// The first 8 bytes of a SHA-256, for telling bodies apart.
pub fn body_hash(body: &[u8]) -> u64 {
    let digest: [u8; 32] = Sha256::digest(body).into();
    let (first, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first)
}

/// What a rule may look at besides path and id.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Shown<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    record_id: Cow<'a, str>,
}

struct State {
    clock: SystemClock,
    record: Record,
    paths: HashMap<String, usize>,
    arrivals: HashMap<(usize, Option<EventId>), Count>,
    successes: usize,
    rule: Rule,
}

/// Requests of one event to one path.
#[derive(Default)]
struct Count {
    arrived: usize,
    succeeded: bool,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoint, on a thread of its own; it stops when it is dropped.
pub struct Recorder {
    url: String,
    shared: Shared,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Answers everything with 204 at once.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for the recorder")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let clock = SystemClock::new();
        let shared = Shared(Arc::new(Mutex::new(State {
            record: Record {
                started_at: clock
                    .now()
                    .plus_millis(-i64::try_from(clock.elapsed().as_millis())?),
                ..Record::default()
            },
            clock,
            paths: HashMap::new(),
            arrivals: HashMap::new(),
            successes: 0,
            rule: Box::new(|_| Answer::status(204)),
        })));
        let (stop, stopped) = oneshot::channel();
        let endpoint = shared.clone();
        let thread = std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || http::serve(listener, endpoint, stopped))?;
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

    /// From now on requests are answered as `rule` says. It is asked once a request, in order.
    pub fn answer(&self, rule: impl FnMut(&Arrival) -> Answer + Send + 'static) {
        self.shared.lock().rule = Box::new(rule);
    }

    /// Microseconds since it was started, as [`Recorded::at_us`] has them.
    pub fn elapsed_us(&self) -> u64 {
        self.shared.lock().elapsed_us()
    }

    /// How many requests have arrived, repeats included.
    pub fn count(&self) -> usize {
        self.shared.lock().record.requests.len()
    }

    /// How many different pairs of path and event were answered with success.
    pub fn distinct_successes(&self) -> usize {
        self.shared.lock().successes
    }

    /// Everything so far.
    pub fn record(&self) -> Record {
        self.shared.lock().record.clone()
    }
}

impl Drop for Recorder {
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

impl State {
    fn elapsed_us(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn path(&mut self, path: &str) -> usize {
        if let Some(index) = self.paths.get(path) {
            return *index;
        }
        let index = self.record.paths.len();
        self.record.paths.push(path.to_owned());
        self.paths.insert(path.to_owned(), index);
        index
    }
}

impl Endpoint for Shared {
    fn arrived(&self, request: Request) -> (usize, Answer) {
        let body = body_hash(&request.body);
        let id = request.headers.get("webhook-id").cloned();
        let id = id.unwrap_or_default();
        let shown: Shown<'_> = serde_json::from_slice(&request.body).unwrap_or_default();
        let mut state = self.lock();
        let at_us = state.elapsed_us();
        let (path, event) = (state.path(&request.path), id.parse().ok());
        let count = state.arrivals.entry((path, event)).or_default();
        count.arrived += 1;
        let arrival = Arrival {
            path: request.path,
            id,
            event: shown.event.into_owned(),
            record_id: shown.record_id.into_owned(),
            number: count.arrived,
            body: String::new(),
        };
        let answer = (state.rule)(&arrival);
        state.record.requests.push(Recorded {
            path,
            event,
            body,
            at_us,
            answered: None,
        });
        (state.record.requests.len() - 1, answer)
    }

    fn answered(&self, index: usize, status: u16) {
        let mut guard = self.lock();
        let at_us = guard.elapsed_us();
        let state = &mut *guard;
        let Some(request) = state.record.requests.get_mut(index) else {
            return;
        };
        request.answered = Some(AnsweredAt {
            status,
            at_us,
            completed: false,
        });
        if request.succeeded()
            && let Some(count) = state.arrivals.get_mut(&(request.path, request.event))
            && !std::mem::replace(&mut count.succeeded, true)
        {
            state.successes += 1;
        }
    }

    fn written(&self, index: usize) {
        let mut state = self.lock();
        let request = state.record.requests.get_mut(index);
        if let Some(answered) = request.and_then(|request| request.answered.as_mut()) {
            answered.completed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;

    fn id(number: u8) -> EventId {
        EventId::from_bytes([number; 16])
    }

    #[tokio::test]
    async fn numbers_of_each_request_are_kept_and_rules_are_asked() {
        let recorder = Recorder::start().unwrap();
        recorder.answer(
            |arrival| match (arrival.number, arrival.record_id.as_str()) {
                (1, "fails-once") => Answer::status(500),
                (_, "never") => Answer::drop_connection(),
                _ => Answer::status(200).with_body("ok"),
            },
        );
        let http = api::http().unwrap();
        let post = async |path: &str, event: EventId, record: &str| {
            let request = http
                .post(recorder.url(path))
                .header("webhook-id", event.to_string())
                .body(format!(r#"{{"event":"a.b","record_id":"{record}"}}"#));
            request
                .send()
                .await
                .ok()
                .map(|answer| answer.status().as_u16())
        };
        assert_eq!(post("/1", id(1), "fails-once").await, Some(500));
        assert_eq!(post("/1", id(1), "fails-once").await, Some(200));
        assert_eq!(post("/2", id(1), "never").await, None);
        assert_eq!(post("/2", id(2), "other").await, Some(200));
        assert_eq!((recorder.count(), recorder.distinct_successes()), (4, 2));
        let record = recorder.record();
        assert_eq!(record.paths, ["/1", "/2"]);
        let kept: Vec<_> = record
            .requests
            .iter()
            .map(|request| {
                let status = request.answered.map(|answered| answered.status);
                (request.path, request.event, status)
            })
            .collect();
        assert_eq!(
            kept,
            [
                (0, Some(id(1)), Some(500)),
                (0, Some(id(1)), Some(200)),
                (1, Some(id(1)), None),
                (1, Some(id(2)), Some(200)),
            ]
        );
        assert_eq!(record.requests[0].body, record.requests[1].body);
        assert_ne!(record.requests[0].body, record.requests[3].body);
        let times: Vec<_> = record
            .requests
            .iter()
            .map(|request| request.at_us)
            .collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}
