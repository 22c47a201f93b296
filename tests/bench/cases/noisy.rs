//! A little for a fast endpoint, alone and beside much for another project's slow one.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::figures::Round;
use crate::stage::{Load, Setup, Stage};

const CASE: &str = "noisy";
const FAST_PER_SECOND: f64 = 50.0;
const SLOW_PER_SECOND: f64 = 350.0;
const SLOW_PATH: &str = "/slow/2000";
const SECONDS: f64 = 8.0;
/// Until the slow endpoint holds all that it will ever hold.
const BEFORE_SECONDS: f64 = 3.0;

pub(super) async fn run(scale: f64, round: &mut Round) -> Result<()> {
    let mut stage = Stage::start(Setup::default()).await?;
    let slow = stage.tenant(&[SLOW_PATH.to_owned()]).await?;
    let seconds = SECONDS * scale;
    let alone = stage.pass(Load::steady(FAST_PER_SECOND, seconds)).await?;
    alone.latencies(CASE, "alone", round);
    let all_the_while = BEFORE_SECONDS + seconds + 1.0;
    let noise = stage.load(
        Load::steady(SLOW_PER_SECOND, all_the_while),
        Some(vec![slow]),
    )?;
    sleep(Duration::from_secs_f64(BEFORE_SECONDS)).await;
    let beside = stage.pass(Load::steady(FAST_PER_SECOND, seconds)).await?;
    beside.latencies(CASE, "beside", round);
    noise.done().await?;
    stage.memory(CASE, round)
}
