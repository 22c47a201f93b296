//! Services, server and receiver for a case, and the measuring of what goes through them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use shared::subjects;
use support::api;
use support::cluster::{Service, Tenant};
use support::nats::SyncInterval;
use support::run::{Fleet, Paths, Size};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::children::{Loading, Receiver};
use crate::figures::Round;
use crate::load::request::{Shape, Target};
use crate::load::{self, Ahead, Done, Pace, Until};
use crate::number;
use crate::percentiles::Percentiles;
use crate::receiver::{Speaks, tls};
use crate::usage;

/// Of an event, in bytes, unless it is what is varied.
pub(crate) const EVENT_BYTES: usize = 1_024;
pub(crate) const CONNECTIONS: u64 = 64;
const KEYS: u64 = 1_024;
/// What the load may be ahead of the deliveries.
const AHEAD_DELIVERIES: u64 = 4_000;
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);
/// For the last outcomes to be journaled.
const SETTLED: Duration = Duration::from_millis(200);

/// What a case needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) servers: usize,
    pub(crate) sync: SyncInterval,
    pub(crate) speaks: Speaks,
    pub(crate) projects: u64,
    /// Of each project.
    pub(crate) webhooks: u64,
    pub(crate) shape: Shape,
    pub(crate) publishing: Publishing,
}

/// How ingest stores events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publishing {
    Singles,
    /// In atomic batches.
    Batches,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            servers: 1,
            sync: SyncInterval::Default,
            speaks: Speaks::Plain,
            projects: 1,
            webhooks: 1,
            shape: Shape::FirstParty,
            publishing: Publishing::Singles,
        }
    }
}

/// A load that is put on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) pace: Pace,
    pub(crate) until: Until,
    pub(crate) event_bytes: usize,
    pub(crate) batch: usize,
    pub(crate) keys: u64,
    /// Whether it stays close to the deliveries.
    pub(crate) follows: bool,
}

impl Load {
    /// As fast as it goes.
    pub(crate) fn most(until: Until) -> Self {
        Self {
            pace: Pace::AsAnswered,
            until,
            event_bytes: EVENT_BYTES,
            batch: 1,
            keys: KEYS,
            follows: true,
        }
    }

    pub(crate) fn steady(per_second: f64, seconds: f64) -> Self {
        Self {
            pace: Pace::PerSecond(per_second),
            follows: false,
            ..Self::most(Until::Seconds(seconds))
        }
    }
}

/// All ends when it is dropped.
pub(crate) struct Stage {
    setup: Setup,
    pub(crate) fleet: Fleet,
    pub(crate) receiver: Receiver,
    pub(crate) tenants: Vec<Tenant>,
    targets: Vec<Target>,
    pub(crate) folder: TempDir,
}

/// What of the machine everything took so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub(crate) ingest: f64,
    pub(crate) dispatcher: f64,
    nats: f64,
    receiver: f64,
    events_bytes: f64,
    journal_bytes: f64,
}

/// What went through under a load.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) accepted_per_second: f64,
    pub(crate) delivered_per_second: f64,
    latency: Percentiles,
    /// CPU seconds per 1,000 deliveries.
    pub(crate) ingest: f64,
    pub(crate) dispatcher: f64,
    pub(crate) nats: f64,
    receiver: f64,
    driver: f64,
    event_bytes: f64,
    journal_bytes: f64,
    faults: Vec<String>,
}

impl Stage {
    pub(crate) async fn start(setup: Setup) -> Result<Self> {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let receiver = Receiver::start(setup.speaks, folder.path()).await?;
        let mut fleet = Fleet::start(&Size {
            dispatchers: 1,
            dispatcher: "dispatcher",
            ingests: 1,
            servers: setup.servers,
            sync: setup.sync,
            paths: Paths::Direct,
        })
        .await?;
        if setup.publishing == Publishing::Batches {
            for member in &mut fleet.ingests {
                member.service.set("CARILLON_PUBLISH_BATCHES", "true");
                member.service.restart().await?;
            }
        }
        if setup.speaks != Speaks::Plain {
            let file = folder.path().join("certificate.pem");
            std::fs::write(&file, tls::certificate_pem())?;
            for member in &mut fleet.dispatchers {
                member.service.set("SSL_CERT_FILE", &file.to_string_lossy());
                member.service.restart().await?;
            }
        }
        let mut stage = Self {
            setup,
            fleet,
            receiver,
            tenants: Vec::new(),
            targets: Vec::new(),
            folder,
        };
        for project in 0..setup.projects {
            let webhooks = project * setup.webhooks..(project + 1) * setup.webhooks;
            let paths = webhooks.map(|webhook| format!("/fast/{webhook}"));
            let target = stage.tenant(&paths.collect::<Vec<_>>()).await?;
            stage.targets.push(target);
        }
        // Connections, caches and whatever else is made at first use.
        let warm_up = Until::Requests(1_000.max(setup.projects * 10));
        stage.pass(Load::most(warm_up)).await?;
        Ok(stage)
    }

    /// A further project with webhooks at these paths of the receiver, and where its events go.
    pub(crate) async fn tenant(&mut self, paths: &[String]) -> Result<Target> {
        let tenant = Tenant::create(&self.fleet.admin()?, "Bench").await?;
        for path in paths {
            let webhook = json!({ "url": self.receiver.url(path), "events": ["*"] });
            tenant.client.create_webhook(&webhook).await?.expect(201)?;
        }
        let target = match self.setup.shape {
            Shape::FirstParty | Shape::Delivery => Target {
                path: "/v1/events".into(),
                secret: tenant.key.clone(),
            },
            Shape::Greenhouse => {
                let account = json!({ "provider": "greenhouse", "origin_owner_id": "bench" });
                let created = tenant.client.create_account(&account).await?.expect(201)?;
                let url: reqwest::Url = api::text(&created, "/ingest/url")?.parse()?;
                Target {
                    path: url.path().to_owned(),
                    secret: api::text(&created, "/ingest/secret")?,
                }
            }
        };
        self.tenants.push(tenant);
        Ok(target)
    }

    pub(crate) fn ingest(&self) -> Result<&Service> {
        let member = self.fleet.ingests.first().context("an ingest")?;
        Ok(&member.service)
    }

    pub(crate) fn dispatcher(&mut self) -> Result<&mut Service> {
        let member = self.fleet.dispatchers.first_mut().context("a dispatcher")?;
        Ok(&mut member.service)
    }

    /// Starts a load on the given targets, all of the stage's if none.
    pub(crate) fn load(&self, load: Load, targets: Option<Vec<Target>>) -> Result<Loading> {
        let url = self.ingest()?.http_url();
        let address: SocketAddr = url.trim_start_matches("http://").parse()?;
        let ahead = Ahead {
            control: self.receiver.control(),
            deliveries_max: AHEAD_DELIVERIES,
            webhooks: self.setup.webhooks,
        };
        Loading::start("drive", self.folder.path(), |result| load::Plan {
            address,
            targets: targets.unwrap_or_else(|| self.targets.clone()),
            shape: self.setup.shape,
            event_bytes: load.event_bytes,
            batch: load.batch,
            keys: load.keys,
            connections: CONNECTIONS,
            pace: load.pace,
            until: load.until,
            ahead: load.follows.then_some(ahead),
            result,
        })
    }

    /// Puts a load on it and waits until everything is delivered.
    pub(crate) async fn pass(&self, load: Load) -> Result<Passed> {
        self.receiver.reset().await?;
        let before = self.used().await?;
        let done = self.load(load, None)?.done().await?;
        self.passed(&done, &before).await
    }

    /// What went through since `before`, under a load that is done.
    pub(crate) async fn passed(&self, done: &Done, before: &Used) -> Result<Passed> {
        let owed = done.events * self.setup.webhooks;
        self.receiver.wait_for(owed, DELIVERED_WITHIN).await?;
        sleep(SETTLED).await;
        let after = self.used().await?;
        let report = self.receiver.report().await?;
        ensure!(owed > 0, "no event was taken: {:?}", done.refusal);
        let took_us = report.last_at_us.saturating_sub(done.started_at_us);
        let thousands = number(owed) / 1_000.0;
        let mut faults = Vec::new();
        for (count, what) in [
            (done.refused_requests, "requests refused"),
            (report.repeated, "deliveries repeated"),
            (report.out_of_order, "deliveries out of order"),
            (report.unmarked, "deliveries of something else"),
            (report.distinct.abs_diff(owed), "deliveries too many"),
        ] {
            if count > 0 {
                faults.push(format!("{count} {what}"));
            }
        }
        faults.extend(done.refusal.clone());
        Ok(Passed {
            accepted_per_second: number(done.events) / done.seconds,
            delivered_per_second: number(owed) / Duration::from_micros(took_us).as_secs_f64(),
            latency: report.latency_ms.unwrap_or_default(),
            ingest: (after.ingest - before.ingest) / thousands,
            dispatcher: (after.dispatcher - before.dispatcher) / thousands,
            nats: (after.nats - before.nats) / thousands,
            receiver: (after.receiver - before.receiver) / thousands,
            driver: done.cpu_seconds / thousands,
            event_bytes: (after.events_bytes - before.events_bytes) / number(done.events),
            journal_bytes: (after.journal_bytes - before.journal_bytes) / number(owed),
            faults,
        })
    }

    pub(crate) async fn used(&self) -> Result<Used> {
        let cpu = |service: &Service| {
            let process = service.process_id().context("a service runs")?;
            usage::cpu_seconds(process)
        };
        let dispatcher = self.fleet.dispatchers.first().context("a dispatcher")?;
        let servers = self.fleet.nats.servers().iter();
        let nats = servers.map(|server| usage::cpu_seconds(server.process_id()));
        Ok(Used {
            ingest: cpu(self.ingest()?)?,
            dispatcher: cpu(&dispatcher.service)?,
            nats: nats.sum::<Result<f64>>()?,
            receiver: usage::cpu_seconds(self.receiver.process_id())?,
            events_bytes: self.stored_bytes(subjects::EVENTS).await?,
            journal_bytes: self.stored_bytes(subjects::JOURNAL).await?,
        })
    }

    /// Of a stream, as the server counts it.
    async fn stored_bytes(&self, stream: &str) -> Result<f64> {
        let stream = self.fleet.nats.context().get_stream_no_info(stream).await?;
        Ok(number(stream.get_info().await?.state.bytes))
    }

    /// Notes the resident memory of everything.
    pub(crate) fn memory(&self, case: &'static str, round: &mut Round) -> Result<()> {
        let of =
            |service: &Service| usage::resident_mb(service.process_id().context("a service runs")?);
        let dispatcher = self.fleet.dispatchers.first().context("a dispatcher")?;
        let servers = self.fleet.nats.servers().iter();
        let nats = servers.map(|server| usage::resident_mb(server.process_id()));
        round.add(case, "memory: ingest", of(self.ingest()?)?, "MB");
        round.add(case, "memory: dispatcher", of(&dispatcher.service)?, "MB");
        round.add(case, "memory: nats", nats.sum::<Result<f64>>()?, "MB");
        Ok(())
    }
}

impl Passed {
    /// CPU seconds per 1,000 deliveries of what is ours and its server.
    pub(crate) fn cpu(&self) -> f64 {
        self.ingest + self.dispatcher + self.nats
    }

    /// Notes rates and costs.
    pub(crate) fn throughput(&self, case: &'static str, at: &str, round: &mut Round) {
        let mut add =
            |name: &str, value, unit| round.add(case, format!("{at}: {name}"), value, unit);
        add("accepted", self.accepted_per_second, "events/s");
        add("delivered", self.delivered_per_second, "deliveries/s");
        self.costs(case, at, round);
        let mut add =
            |name: &str, value, unit| round.add(case, format!("{at}: {name}"), value, unit);
        add("EVENTS", self.event_bytes, "bytes/event");
        add("JOURNAL", self.journal_bytes, "bytes/delivery");
    }

    fn costs(&self, case: &'static str, at: &str, round: &mut Round) {
        for (name, value) in [
            ("CPU of all three", self.cpu()),
            ("CPU of ingest", self.ingest),
            ("CPU of dispatcher", self.dispatcher),
            ("CPU of nats", self.nats),
            ("CPU of receiver", self.receiver),
            ("CPU of driver", self.driver),
        ] {
            round.add(case, format!("{at}: {name}"), value, "s/1,000");
        }
        for fault in &self.faults {
            round.faults.push(format!("{case}, {at}: {fault}"));
        }
    }

    /// Notes latencies and costs.
    pub(crate) fn latencies(&self, case: &'static str, at: &str, round: &mut Round) {
        let Percentiles {
            p50,
            p95,
            p99,
            p999,
        } = self.latency;
        for (name, value) in [("p50", p50), ("p95", p95), ("p99", p99), ("p99.9", p999)] {
            round.add(case, format!("{at}: {name}"), value, "ms");
        }
        self.costs(case, at, round);
    }
}
