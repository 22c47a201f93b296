//! When a failed delivery is tried again.

use shared::time::Timestamp;

/// The wait after failed attempt number `attempt` (from 1), ±20 % by `jitter`; `None` after the
/// last one. Chosen once, when the attempt fails, and recorded: a changed schedule moves nothing
/// that was already chosen.
pub fn retry_at(
    schedule_ms: &[u64],
    attempt: u32,
    failed_at: Timestamp,
    jitter: u64,
) -> Option<Timestamp> {
    let index = usize::try_from(attempt.checked_sub(1)?).ok()?;
    let wait_ms = *schedule_ms.get(index)?;
    Some(failed_at.plus_millis(jittered(wait_ms, jitter)))
}

/// A wait ±20 %.
pub(super) fn jittered(wait_ms: u64, jitter: u64) -> i64 {
    // In thousandths from 800 to 1,200; a wait is at most 7 days, so this cannot overflow.
    let factor = 800 + jitter % 401;
    i64::try_from(wait_ms.saturating_mul(factor) / 1_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_the_schedule_within_a_fifth() {
        let at = Timestamp::from_millis(1_000_000);
        let schedule = [5_000, 30_000];
        let wait = |attempt, jitter| {
            retry_at(&schedule, attempt, at, jitter).map(|retry| retry.millis_since(at))
        };
        assert_eq!(wait(1, 0), Some(4_000));
        assert_eq!(wait(1, 200), Some(5_000));
        assert_eq!(wait(1, 400), Some(6_000));
        assert_eq!(wait(2, 400), Some(36_000));
        assert_eq!(wait(3, 0), None);
        assert_eq!(retry_at(&[], 1, at, 0), None);
    }
}
