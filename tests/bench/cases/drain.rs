//! What was stored while no dispatcher ran, delivered by one that starts.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use shared::time::SystemClock;

use crate::figures::Round;
use crate::load::Until;
use crate::mark::now_us;
use crate::number;
use crate::stage::{Load, Setup, Stage};
use crate::usage;

const CASE: &str = "drain";
const EVENTS: f64 = 60_000.0;
const BATCH: u32 = 100;
/// Arrived when measuring begins: connections are open then, and the start is over.
const BEGUN: u64 = 2_000;
const WITHIN: Duration = Duration::from_secs(120);

pub(super) async fn run(scale: f64, round: &mut Round) -> Result<()> {
    let mut stage = Stage::start(Setup::default()).await?;
    let drained = drain(&mut stage, EVENTS * scale).await?;
    round.add(CASE, "delivered", drained.per_second, "deliveries/s");
    round.add(CASE, "CPU of dispatcher", drained.dispatcher, "s/1,000");
    round
        .faults
        .extend(drained.faults.map(|fault| format!("{CASE}: {fault}")));
    stage.memory(CASE, round)
}

pub(super) struct Drained {
    pub(super) per_second: f64,
    /// CPU seconds per 1,000 deliveries.
    pub(super) dispatcher: f64,
    pub(super) faults: Option<String>,
}

/// Lets about so many events gather, and measures their delivery.
pub(super) async fn drain(stage: &mut Stage, events: f64) -> Result<Drained> {
    let status = stage.dispatcher()?.terminate().await?;
    ensure!(status.success(), "the dispatcher ended with {status}");
    stage.receiver.reset().await?;
    let requests = (events / f64::from(BATCH)).max(f64::from(BATCH)).round();
    // Counts here are small and whole.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small"
    )]
    let requests = requests as u64;
    let load = Load {
        batch: usize::try_from(BATCH)?,
        follows: false,
        ..Load::most(Until::Requests(requests))
    };
    let done = stage.load(load, None)?.done().await?;
    stage.dispatcher()?.start()?;
    let process = stage.dispatcher()?.process_id().context("it was started")?;
    stage.receiver.wait_for(BEGUN, WITHIN).await?;
    let clock = SystemClock::new();
    let (begun, began_us) = (stage.receiver.report().await?.distinct, now_us(&clock));
    let before = usage::cpu_seconds(process)?;
    stage.receiver.wait_for(done.events, WITHIN).await?;
    let used = usage::cpu_seconds(process)? - before;
    let report = stage.receiver.report().await?;
    let took = Duration::from_micros(report.last_at_us.saturating_sub(began_us));
    let delivered = number(done.events.saturating_sub(begun));
    let is_faulty = report.out_of_order + report.repeated + done.refused_requests > 0;
    Ok(Drained {
        per_second: delivered / took.as_secs_f64(),
        dispatcher: used / delivered * 1_000.0,
        faults: is_faulty.then(|| format!("{report:?}")),
    })
}
