//! The ceiling for what posts with reqwest: a loop that does nothing else, in a process of its own.
//! Everything that the dispatcher does besides shows as a difference from it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::future;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use shared::time::{Clock as _, SystemClock};
use std::cell::Cell;
use std::time::Duration;
use support::api;

use super::Done;
use crate::mark::{Mark, now_us};
use crate::usage;

/// As long as those of a delivery.
pub(crate) const HEADERS: [(&str, &str); 6] = [
    ("accept-encoding", "identity"),
    ("user-agent", "Carillon/0.1.0"),
    ("webhook-id", "evt_0199aa11bb22cc33dd44ee55ff667788"),
    ("webhook-timestamp", "1750158000"),
    (
        "webhook-signature",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
    (
        "x-stackone-signature",
        "gOyKic480iEzoQZsrstNBP6nRnZXyFFNcX7ELDilyUw",
    ),
];

/// What the child is told by its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) receiver: SocketAddr,
    pub(crate) body_bytes: usize,
    pub(crate) in_flight: u64,
    pub(crate) seconds: f64,
    /// Where [`Done`] goes.
    pub(crate) result: PathBuf,
}

/// Posts until the time is up, and writes what was done.
pub(crate) async fn post(plan: &Plan) -> Result<()> {
    let clock = SystemClock::new();
    let http = api::http()?;
    let url = format!("http://{}/fast/0", plan.receiver);
    let url = reqwest::Url::parse(&url)?;
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        headers.insert(name, HeaderValue::from_static(value));
    }
    let started_at_us = now_us(&clock);
    let until = clock.elapsed() + Duration::from_secs_f64(plan.seconds);
    let (events, refused) = (Cell::new(0), Cell::new(0));
    let lane = async |key: u64| {
        let mut number = 0;
        while clock.elapsed() < until {
            number += 1;
            let mark = Mark {
                at_us: now_us(&clock),
                key,
                number,
            };
            let mut request = reqwest::Request::new(reqwest::Method::POST, url.clone());
            *request.headers_mut() = headers.clone();
            *request.body_mut() = Some(body(&mark, plan.body_bytes).into());
            let answer = http.execute(request).await.context("posting")?;
            let counted = if answer.status().is_success() {
                &events
            } else {
                &refused
            };
            counted.set(counted.get() + 1);
            // To its end, so that the connection can be used again.
            answer.bytes().await?;
        }
        anyhow::Ok(())
    };
    future::try_join_all((0..plan.in_flight).map(lane)).await?;
    let took_us = now_us(&clock).saturating_sub(started_at_us);
    ensure!(events.get() > 0, "nothing was answered");
    let done = Done {
        events: events.get(),
        refused_requests: refused.get(),
        refusal: None,
        started_at_us,
        seconds: Duration::from_micros(took_us).as_secs_f64(),
        answered_ms: None,
        cpu_seconds: usage::cpu_seconds(std::process::id())?,
    };
    std::fs::write(&plan.result, serde_json::to_vec(&done)?).context("writing the result")
}

fn body(mark: &Mark, bytes: usize) -> Bytes {
    let mut body = mark.text().into_bytes();
    body.resize(bytes.max(body.len()), b'x');
    Bytes::from(body)
}
