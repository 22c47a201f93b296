//! What is measured with much of everything, on real processes. A scenario says what it found, and
//! which targets were missed. What runs besides on the machine is measured with it: the load of
//! before is part of the report.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use shared::ids::WebhookId;
use shared::time::{Clock as _, SystemClock};
use support::api;
use support::cluster::{Cluster, Tenant};
use support::eventually::eventually;
use support::receiver::recorder::Recorder;

use self::measured::Measured;
use crate::arguments::Arguments;

mod backlog;
mod hot_lane;
mod idle;
mod latency;
mod measured;
mod memory;
mod noisy;
mod order;
mod publisher;
mod registry;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    HotLane,
    Noisy,
    Backlog,
    Idle,
}

impl Scenario {
    pub(crate) const ALL: [Self; 4] = [Self::HotLane, Self::Noisy, Self::Backlog, Self::Idle];

    const fn as_str(self) -> &'static str {
        match self {
            Self::HotLane => "hot-lane",
            Self::Noisy => "noisy",
            Self::Backlog => "backlog",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

pub(crate) async fn run(scenario: Scenario, arguments: &Arguments) -> Result<Measured> {
    let clock = SystemClock::new();
    let mut measured = Measured::new(scenario.as_str(), arguments.scale)?;
    match scenario {
        Scenario::HotLane => hot_lane::run(arguments, &mut measured).await?,
        Scenario::Noisy => noisy::run(arguments, &mut measured).await?,
        Scenario::Backlog => backlog::run(arguments, &mut measured).await?,
        Scenario::Idle => idle::run(arguments, &mut measured).await?,
    }
    measured.seconds = clock.elapsed().as_secs_f64();
    Ok(measured)
}

/// A webhook of the tenant that takes everything, at a path of the recorder.
async fn webhook(
    tenant: &Tenant,
    recorder: &Recorder,
    path: &str,
    policy: &Value,
) -> Result<WebhookId> {
    let webhook = json!({ "url": recorder.url(path), "events": ["*"], "policy": policy });
    let created = tenant.client.create_webhook(&webhook).await?.expect(201)?;
    Ok(api::text(&created, "/id")?.parse()?)
}

/// Waits until so many different pairs of path and event were answered with success.
async fn delivered(recorder: &Recorder, count: usize, within: Duration) -> Result<()> {
    eventually("deliveries", within, async || {
        let taken = recorder.distinct_successes();
        (taken >= count)
            .then_some(())
            .ok_or_else(|| format!("{taken} of {count}"))
    })
    .await
}

/// The dispatcher's process id.
fn dispatcher(cluster: &Cluster) -> Result<u32> {
    let process = cluster.dispatcher.process_id();
    process.ok_or_else(|| anyhow::anyhow!("the dispatcher does not run"))
}

/// A counter or gauge of the dispatcher, summed over its labels.
async fn metric(cluster: &Cluster, name: &str) -> Result<f64> {
    let text = cluster.dispatcher.metrics().await?;
    let of_name = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_whole = rest.starts_with(' ') || rest.starts_with('{');
        is_whole.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    Ok(of_name.sum())
}

/// A count as a figure.
fn number(count: usize) -> f64 {
    // Exact below 2^32, which is far above anything counted here.
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
