//! One endpoint that hangs, one that resets and one that answers 500, beside healthy ones under
//! load: the healthy ones' latency, with and without the three.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, future};
use serde_json::json;
use shared::ids::EventId;
use shared::time::{Clock as _, SystemClock};
use support::cluster::Cluster;
use support::receiver::Answer;
use support::receiver::recorder::Recorder;
use tokio::time::{Instant, sleep_until};

use super::latency::Latencies;
use super::measured::Measured;
use super::publisher::Publisher;
use super::{delivered, number, webhook};
use crate::arguments::Arguments;

const WEBHOOKS: usize = 100;
/// The first ones hang, reset and answer 500.
const BAD: usize = 3;
const RATIO_MAX: f64 = 1.3;
/// Longer than the sender waits.
const HANGS: Duration = Duration::from_secs(11);
/// How often each of the two is measured.
const ROUNDS: usize = 5;
/// Clients that publish as fast as they are answered, to find out what the machine does at most.
const FLOOD: usize = 32;
/// Deliveries that they may get ahead: what waits in a backlog says nothing of the rate.
const FLOOD_AHEAD_MAX: usize = 2_000;
/// Of that, the part that is sent while latency is measured.
const LOAD: f64 = 0.5;
const WITHIN: Duration = Duration::from_secs(120);
/// Keys of each project.
const KEYS: usize = 50;

/// How the webhooks are spread.
#[derive(Clone, Copy)]
struct Layout {
    name: &'static str,
    projects: usize,
    webhooks_each: usize,
}

struct Stage {
    layout: Layout,
    _cluster: Cluster,
    recorder: Recorder,
    publishers: Vec<Publisher>,
    clock: SystemClock,
    /// Events that were published, each for all webhooks of its project.
    published: usize,
    next: usize,
}

/// An event and when its publishing began, in the recorder's time.
type Sent = (EventId, u64);

pub(super) async fn run(arguments: &Arguments, measured: &mut Measured) -> Result<()> {
    let layouts = [
        Layout {
            name: "100 projects",
            projects: WEBHOOKS,
            webhooks_each: 1,
        },
        Layout {
            name: "1 project",
            projects: 1,
            webhooks_each: WEBHOOKS,
        },
    ];
    for layout in layouts {
        one(layout, arguments, measured).await?;
    }
    Ok(())
}

async fn one(layout: Layout, arguments: &Arguments, measured: &mut Measured) -> Result<()> {
    let name = layout.name;
    let seconds = u64::try_from(arguments.scaled(25, 5))?;
    let is_noisy = Arc::new(AtomicBool::new(false));
    let mut stage = Stage::set(layout, &is_noisy).await?;
    let capacity = stage
        .flood(Duration::from_secs(seconds.div_ceil(4)))
        .await?;
    let each = number(layout.webhooks_each);
    let rate = capacity * LOAD;
    measured.figure(format!("{name}: flooded"), capacity * each, "deliveries/s");
    measured.figure(format!("{name}: load"), rate * each, "deliveries/s");
    let mut sent = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (phase, noisy) in [false, true].into_iter().enumerate() {
            is_noisy.store(noisy, Ordering::Relaxed);
            let of_phase = stage.steady(rate, Duration::from_secs(seconds)).await?;
            is_noisy.store(false, Ordering::Relaxed);
            // The next phase begins with nothing left of this one.
            stage.all_delivered().await?;
            // Told one by one, for what else runs on the machine shows in single rounds.
            let of_round = stage.latencies(&of_phase).percentile(99);
            let what = if noisy {
                "with them"
            } else {
                "without the three"
            };
            let label = format!("{name}, {what}: p99 of this round");
            measured.figure(label, of_round.context("latencies")?, "ms");
            if let Some(sent) = sent.get_mut(phase) {
                sent.extend(of_phase);
            }
        }
    }
    let mut of_phase = sent.iter().map(|sent| stage.latencies(sent));
    let mut quiet = of_phase.next().context("without")?;
    let mut noisy = of_phase.next().context("with")?;
    for (what, latencies) in [("without the three", &mut quiet), ("with them", &mut noisy)] {
        let label = format!("{name}, {what}");
        measured.figure(
            format!("{label}: measured"),
            number(latencies.count()),
            "deliveries",
        );
        for percent in [50, 99] {
            let value = latencies.percentile(percent).context("latencies")?;
            measured.figure(format!("{label}: p{percent}"), value, "ms");
        }
    }
    let p99 = |latencies: &mut Latencies| latencies.percentile(99).context("latencies");
    let ratio = p99(&mut noisy)? / p99(&mut quiet)?;
    measured.figure(format!("{name}: p99 with, of p99 without"), ratio, "times");
    measured.target(
        ratio <= RATIO_MAX,
        format!("{name}: p99 within {RATIO_MAX} times"),
    );
    Ok(())
}

impl Stage {
    async fn set(layout: Layout, is_noisy: &Arc<AtomicBool>) -> Result<Self> {
        let cluster = Cluster::builder()
            .setting("CARILLON_SNAPSHOT_ENTRIES", "100000")
            .start()
            .await?;
        let recorder = Recorder::start()?;
        let noisy = Arc::clone(is_noisy);
        recorder.answer(move |arrival| {
            if !noisy.load(Ordering::Relaxed) {
                return Answer::status(204);
            }
            match arrival.path.as_str() {
                "/0" => Answer::status(204).after(HANGS),
                "/1" => Answer::reset_connection(),
                "/2" => Answer::status(500),
                _ => Answer::status(204),
            }
        });
        // So that what a noisy phase leaves is soon gone.
        let policy = json!({ "retry_schedule_ms": vec![2_000; 20] });
        let mut publishers = Vec::new();
        for project in 0..layout.projects {
            let tenant = cluster.tenant(&format!("Project {project}")).await?;
            for place in 0..layout.webhooks_each {
                let path = format!("/{}", project * layout.webhooks_each + place);
                webhook(&tenant, &recorder, &path, &policy).await?;
            }
            publishers.push(Publisher::new(&cluster, &tenant)?);
        }
        Ok(Self {
            layout,
            _cluster: cluster,
            recorder,
            publishers,
            clock: SystemClock::new(),
            published: 0,
            next: 0,
        })
    }

    /// The next event's publishing; project after project.
    fn one(&mut self) -> Result<impl Future<Output = Result<Sent>> + use<>> {
        let number = self.next;
        self.next += 1;
        let projects = self.layout.projects;
        let publisher = self
            .publishers
            .get(number % projects)
            .context("a project")?;
        let publisher = publisher.clone();
        let record = format!("record-{}", number / projects % KEYS);
        let at = self.recorder.elapsed_us();
        Ok(async move {
            let ids = publisher.publish(std::iter::once(record)).await?;
            Ok((ids.first().copied().context("an id")?, at))
        })
    }

    /// Publishes as fast as it goes; gives the rate at which all was delivered, in events.
    async fn flood(&mut self, lasts: Duration) -> Result<f64> {
        let (before, started) = (self.published, self.clock.elapsed());
        while self.clock.elapsed() - started < lasts {
            let at_once = (0..FLOOD).map(|_| self.one()).collect::<Result<Vec<_>>>()?;
            self.published += future::try_join_all(at_once).await?.len();
            let owed = self.published * self.layout.webhooks_each;
            let needed = owed.saturating_sub(FLOOD_AHEAD_MAX);
            delivered(&self.recorder, needed, WITHIN).await?;
        }
        self.all_delivered().await?;
        let took = (self.clock.elapsed() - started).as_secs_f64();
        Ok(number(self.published - before) / took)
    }

    /// Publishes `rate` events a second, however long each takes.
    async fn steady(&mut self, rate: f64, lasts: Duration) -> Result<Vec<Sent>> {
        let period = Duration::from_secs_f64(1.0 / rate.max(0.1));
        let mut under_way = FuturesUnordered::new();
        let mut sent = Vec::new();
        let mut due = Instant::now();
        let end = due + lasts;
        while due < end {
            tokio::select! {
                () = sleep_until(due) => {
                    under_way.push(self.one()?);
                    due += period;
                }
                Some(one) = under_way.next() => sent.push(one?),
            }
        }
        while let Some(one) = under_way.next().await {
            sent.push(one?);
        }
        self.published += sent.len();
        Ok(sent)
    }

    async fn all_delivered(&self) -> Result<()> {
        let owed = self.published * self.layout.webhooks_each;
        delivered(&self.recorder, owed, WITHIN).await
    }

    /// From the publishing of each event to its first arrival at each healthy endpoint.
    fn latencies(&self, sent: &[Sent]) -> Latencies {
        let began: HashMap<EventId, u64> = sent.iter().copied().collect();
        let record = self.recorder.record();
        let is_bad: Vec<bool> = record
            .paths
            .iter()
            .map(|path| (0..BAD).any(|bad| *path == format!("/{bad}")))
            .collect();
        let mut latencies = Latencies::default();
        for request in &record.requests {
            let began = request.event.and_then(|event| began.get(&event));
            let is_healthy = is_bad.get(request.path) == Some(&false);
            if let Some(began) = began.filter(|_| is_healthy) {
                latencies.add_us(*began, request.at_us);
            }
        }
        latencies
    }
}
