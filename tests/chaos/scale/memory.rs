//! What a process holds in memory, by the kernel's word.

use std::time::Duration;

use anyhow::{Context as _, Result};

const SAMPLE_EVERY: Duration = Duration::from_millis(200);

/// Resident memory in MB (10^6 bytes).
pub(super) fn resident_mb(process: u32) -> Result<f64> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    let kib: f64 = kib.with_context(|| format!("VmRSS in {path}"))?.parse()?;
    Ok(kib * 1_024.0 / 1e6)
}

/// Does `work`, and tells the most that the process held meanwhile, in MB.
pub(super) async fn watched<T>(
    process: u32,
    work: impl Future<Output = Result<T>>,
) -> Result<(T, f64)> {
    let mut work = std::pin::pin!(work);
    let mut samples = tokio::time::interval(SAMPLE_EVERY);
    let mut most: f64 = 0.0;
    loop {
        tokio::select! {
            done = &mut work => return Ok((done?, most.max(resident_mb(process)?))),
            _ = samples.tick() => most = most.max(resident_mb(process)?),
        }
    }
}
