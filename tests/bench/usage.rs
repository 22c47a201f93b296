//! What a process has used, as Linux tells it.

use anyhow::{Context as _, Result, bail};

/// `/proc` counts CPU time in ticks of this many a second, whatever the kernel's own.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds since its start, all threads, user and system.
pub(crate) fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))
        .with_context(|| format!("process {process} is gone"))?;
    cpu_of(&stat).with_context(|| format!("/proc/{process}/stat: {stat}"))
}

fn cpu_of(stat: &str) -> Option<f64> {
    // `pid (name) state …`; the name may hold anything. utime and stime are the 14th and 15th field.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut ticks = rest.split(' ').skip(11).map(str::parse::<f64>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

/// Resident memory in megabytes.
pub(crate) fn resident_mb(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("process {process} is gone"))?;
    for line in status.lines() {
        if let Some(kilobytes) = line.strip_prefix("VmRSS:") {
            let kilobytes = kilobytes.trim().trim_end_matches(" kB").parse::<f64>()?;
            return Ok(kilobytes / 1_024.0);
        }
    }
    bail!("/proc/{process}/status has no VmRSS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_user_and_system_together() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_of(stat), Some(2.0));
        assert_eq!(cpu_of("7 (a"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let own = std::process::id();
        assert!(resident_mb(own).unwrap() > 0.1);
        assert!(cpu_seconds(own).unwrap() >= 0.0);
        assert!(cpu_seconds(u32::MAX).is_err());
    }
}
