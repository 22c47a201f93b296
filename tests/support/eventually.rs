//! The only way to wait: ask again until it holds, within a bound.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

const PAUSE: Duration = Duration::from_millis(10);

/// Asks until `probe` gives a value; what it says meanwhile is why it does not hold yet. Past
/// the bound the last such reason is the error.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(reason) if Instant::now() >= deadline => {
                bail!("{what}: not within {} s: {reason}", within.as_secs_f32())
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}
