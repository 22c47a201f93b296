//! Costs against what should not matter, and against the size of a body.

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use support::cluster::Tenant;

use super::{Case, drain};
use crate::figures::Round;
use crate::load::Until;
use crate::stage::{Load, Passed, Setup, Stage};

/// Events of each point, at most.
const EVENTS: f64 = 15_000.0;
/// Projects whose webhooks get nothing.
const OTHER_PROJECTS: u32 = 20;
const CREATED_AT_ONCE: usize = 16;

pub(super) async fn run(case: Case, scale: f64, round: &mut Round) -> Result<()> {
    let curve = Curve {
        case: case.as_str(),
        scale,
    };
    match case {
        Case::CurveWebhooks => curve.webhooks(round).await,
        Case::CurveProjects => curve.projects(round).await,
        Case::CurveBacklog => curve.backlog(round).await,
        Case::CurveJournal => curve.journal(round).await,
        Case::CurveKeys => curve.keys(round).await,
        Case::CurveBody => curve.body(round).await,
        Case::Ceilings
        | Case::One
        | Case::Native
        | Case::Ten
        | Case::Projects
        | Case::Drain
        | Case::Noisy
        | Case::Tls1
        | Case::Tls2
        | Case::Always
        | Case::Three
        | Case::Control => Ok(()),
    }
}

struct Curve {
    case: &'static str,
    scale: f64,
}

impl Curve {
    fn load(&self) -> Load {
        Load::most(Until::Requests(self.count(EVENTS)))
    }

    fn count(&self, full: f64) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small"
        )]
        let count = (full * self.scale).round().max(1.0) as u64;
        count
    }

    /// Notes the point at `x`.
    fn point(&self, x: u64, what: &str, passed: &Passed, round: &mut Round) {
        let at = format!("{x} {what}");
        passed.latencies(self.case, &at, round);
        let rate = passed.delivered_per_second;
        round.add(self.case, format!("{at}: delivered"), rate, "deliveries/s");
    }

    /// Webhooks of other projects.
    async fn webhooks(&self, round: &mut Round) -> Result<()> {
        let stage = Stage::start(Setup::default()).await?;
        let admin = stage.fleet.admin()?;
        let mut others = Vec::new();
        for _ in 0..OTHER_PROJECTS {
            others.push(Tenant::create(&admin, "Other").await?);
        }
        let mut there = 0;
        for wanted in [0.0, 1_000.0, 4_000.0] {
            let wanted = if wanted == 0.0 { 0 } else { self.count(wanted) };
            let tenants = others.iter().cycle();
            stream::iter((there..wanted).zip(tenants))
                .map(|(number, tenant)| {
                    let url = stage.receiver.url(&format!("/fast/{}", 1_000 + number));
                    async move {
                        let webhook = json!({ "url": url, "events": ["*"] });
                        tenant.client.create_webhook(&webhook).await?.expect(201)
                    }
                })
                .buffer_unordered(CREATED_AT_ONCE)
                .try_collect::<Vec<_>>()
                .await?;
            there = wanted;
            let passed = stage.pass(self.load()).await?;
            self.point(there, "other webhooks", &passed, round);
        }
        Ok(())
    }

    async fn projects(&self, round: &mut Round) -> Result<()> {
        for projects in [1, 10, 100, 300] {
            let setup = Setup {
                projects,
                ..Setup::default()
            };
            let passed = Stage::start(setup).await?.pass(self.load()).await?;
            self.point(projects, "projects", &passed, round);
        }
        Ok(())
    }

    async fn backlog(&self, round: &mut Round) -> Result<()> {
        for events in [20_000.0, 60_000.0, 180_000.0] {
            let events = events * self.scale;
            let mut stage = Stage::start(Setup::default()).await?;
            let drained = drain::drain(&mut stage, events).await?;
            let mut add = |name: &str, value, unit| {
                round.add(
                    self.case,
                    format!("{events:.0} events: {name}"),
                    value,
                    unit,
                );
            };
            add("CPU of dispatcher", drained.dispatcher, "s/1,000");
            add("delivered", drained.per_second, "deliveries/s");
            let faults = drained
                .faults
                .map(|fault| format!("{}: {fault}", self.case));
            round.faults.extend(faults);
        }
        Ok(())
    }

    async fn journal(&self, round: &mut Round) -> Result<()> {
        let stage = Stage::start(Setup::default()).await?;
        let between = Load {
            batch: 100,
            ..Load::most(Until::Requests(self.count(600.0)))
        };
        let mut there = 0;
        for _ in 0..4 {
            let passed = stage.pass(self.load()).await?;
            self.point(there, "outcomes before", &passed, round);
            stage.pass(between).await?;
            there += self.count(600.0) * 100 + self.count(EVENTS);
        }
        Ok(())
    }

    async fn keys(&self, round: &mut Round) -> Result<()> {
        for keys in [64, 1_024, 16_384, 262_144] {
            let load = Load {
                keys,
                ..self.load()
            };
            let passed = Stage::start(Setup::default()).await?.pass(load).await?;
            self.point(keys, "keys", &passed, round);
        }
        Ok(())
    }

    async fn body(&self, round: &mut Round) -> Result<()> {
        let stage = Stage::start(Setup::default()).await?;
        for kilobytes in [1_u32, 4, 16, 64] {
            let load = Load {
                event_bytes: usize::try_from(kilobytes)? << 10,
                ..Load::most(Until::Requests(
                    self.count(EVENTS / f64::from(kilobytes).sqrt()),
                ))
            };
            let passed = stage.pass(load).await?;
            self.point(u64::from(kilobytes), "KB", &passed, round);
        }
        Ok(())
    }
}
