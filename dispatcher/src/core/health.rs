//! What a failed attempt means for its webhook: whether it counts, whether the breaker opens,
//! when it is probed, whether it is deactivated. Each answer is given once and journaled.

use shared::domain::journal::{DeactivateReason, Failure, FailureWeight};
use shared::domain::policy::Policy;
use shared::domain::state::{Breaker, Health};
use shared::domain::webhook::Dialect;
use shared::time::Timestamp;

use super::retry::jittered;

/// Consecutive failures after which the endpoint is taken to be down.
const BREAKER_OPENS_AFTER: u32 = 5;
/// The longest wait between two probes.
const PROBE_WAIT_MS_MAX: u64 = 5 * 60 * 1_000;
/// HR-ON's rule, whatever the policy says less.
const HR_ON_CONSECUTIVE_FAILURES: u32 = 10;
/// Failed attempts that deactivation by time needs beside the time (rule 22).
const SPREAD_FAILURES_MIN: u32 = 10;
/// Of the time after which a webhook is deactivated, the part that must lie between two failures
/// that count as spread over it.
const SPREAD_PARTS: u64 = 20;
const GONE: u16 = 410;
const TOO_MANY_REQUESTS: u16 = 429;

/// When an attempt ran, on the partition's clock.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
}

/// What the failure counts for.
pub fn weigh(
    health: &Health,
    policy: &Policy,
    span: Span,
    failure: &Failure,
    pause_until: Option<Timestamp>,
) -> FailureWeight {
    let asked_to_wait = failure.status == Some(TOO_MANY_REQUESTS) && pause_until.is_some();
    // Attempts that were under way together are one failure, and what an open breaker sees is
    // known already (rules 15, 16, 18).
    let counts = !health.is_open()
        && !asked_to_wait
        && health
            .last_failure_at
            .is_none_or(|last| span.started_at >= last);
    let is_spread = policy.deactivate_after_failing_ms.is_some_and(|window| {
        let apart = i64::try_from(window / SPREAD_PARTS).unwrap_or(i64::MAX);
        health
            .last_spread_at
            .is_none_or(|last| span.ended_at.millis_since(last) >= apart)
    });
    FailureWeight {
        counts,
        is_spread,
        pause_until,
    }
}

/// Whether the webhook is to be deactivated, after a failure that `health` has taken in.
pub fn deactivates(
    health: &Health,
    policy: &Policy,
    dialect: Dialect,
    failure: &Failure,
    now: Timestamp,
) -> Option<DeactivateReason> {
    if failure.status == Some(GONE) {
        return Some(DeactivateReason::Gone);
    }
    let consecutive = match (policy.deactivate_after_consecutive_failures, dialect) {
        (Some(limit), Dialect::HrOn) => Some(limit.min(HR_ON_CONSECUTIVE_FAILURES)),
        (None, Dialect::HrOn) => Some(HR_ON_CONSECUTIVE_FAILURES),
        (limit, Dialect::Stackone) => limit,
    };
    if consecutive.is_some_and(|limit| health.consecutive_failures >= limit) {
        return Some(DeactivateReason::ConsecutiveFailures);
    }
    let (Some(window), Some(since)) = (policy.deactivate_after_failing_ms, health.failing_since)
    else {
        return None;
    };
    let window = i64::try_from(window).unwrap_or(i64::MAX);
    let is_long = now.millis_since(since) >= window;
    (is_long && health.spread_failures >= SPREAD_FAILURES_MIN)
        .then_some(DeactivateReason::FailingTooLong)
}

/// Whether the breaker opens, after a failure that `health` has taken in.
pub fn opens(health: &Health, dialect: Dialect) -> bool {
    dialect == Dialect::Stackone
        && !health.is_open()
        && health.consecutive_failures >= BREAKER_OPENS_AFTER
}

/// When the endpoint is probed next, after `probes` probes that failed.
pub fn next_probe(policy: &Policy, probes: u32, now: Timestamp, jitter: u64) -> Timestamp {
    let step = usize::try_from(probes).unwrap_or(usize::MAX);
    let wait_ms = policy
        .retry_schedule_ms
        .get(step)
        .or(policy.retry_schedule_ms.last())
        .map_or(PROBE_WAIT_MS_MAX, |wait| (*wait).min(PROBE_WAIT_MS_MAX));
    // Jittered downwards only: five minutes are a promise.
    now.plus_millis(jittered(wait_ms, jitter).min(i64::try_from(wait_ms).unwrap_or(i64::MAX)))
}

/// Attempts that may be under way, by the breaker alone.
pub fn in_flight_limit(health: &Health) -> usize {
    match health.breaker {
        Breaker::Closed => usize::MAX,
        // Doubles with each round of successes.
        Breaker::Ramping { successes } => usize::try_from(successes)
            .unwrap_or(usize::MAX)
            .saturating_add(1),
        Breaker::Open { .. } => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::domain::delivery::FailureKind;

    const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

    fn failure(status: u16) -> Failure {
        Failure {
            kind: FailureKind::Status,
            status: Some(status),
            sealed_answer: Vec::new(),
        }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn attempts_under_way_together_count_once_and_a_polite_429_not_at_all() {
        let policy = Policy::default();
        let failed_once = Health {
            last_failure_at: Some(at(1_000)),
            ..Health::default()
        };
        let open = Health {
            breaker: Breaker::Open {
                probes: 0,
                next_probe_at: at(0),
                last_probed: shared::ids::Sequence(0),
            },
            ..Health::default()
        };
        for (health, started, status, pause, counts) in [
            (Health::default(), 0, 500, None, true),
            (failed_once, 999, 500, None, false),
            (failed_once, 1_000, 500, None, true),
            (failed_once, 1_000, 429, None, true),
            (failed_once, 1_000, 429, Some(at(9_000)), false),
            (failed_once, 1_000, 503, Some(at(9_000)), true),
            (open, 2_000, 500, None, false),
        ] {
            let span = Span {
                started_at: at(started),
                ended_at: at(started + 10),
            };
            let weight = weigh(&health, &policy, span, &failure(status), pause);
            assert_eq!(weight.counts, counts, "{started} {status}");
            assert_eq!(weight.pause_until, pause);
        }
    }

    #[test]
    fn deactivation_by_time_needs_failures_spread_over_it() {
        let policy = Policy::default();
        let health = |spread_failures, consecutive_failures| Health {
            failing_since: Some(at(0)),
            spread_failures,
            consecutive_failures,
            ..Health::default()
        };
        let five_days = at(5 * DAY_MS);
        for (health, dialect, now, expected) in [
            (
                health(10, 1),
                Dialect::Stackone,
                five_days,
                Some(DeactivateReason::FailingTooLong),
            ),
            (health(9, 99), Dialect::Stackone, five_days, None),
            (health(10, 99), Dialect::Stackone, at(5 * DAY_MS - 1), None),
            (health(1, 9), Dialect::HrOn, at(1), None),
            (
                health(1, 10),
                Dialect::HrOn,
                at(1),
                Some(DeactivateReason::ConsecutiveFailures),
            ),
        ] {
            assert_eq!(
                deactivates(&health, &policy, dialect, &failure(500), now),
                expected
            );
        }
        let gone = deactivates(
            &health(0, 1),
            &policy,
            Dialect::Stackone,
            &failure(410),
            at(1),
        );
        assert_eq!(gone, Some(DeactivateReason::Gone));
    }

    #[test]
    fn probes_are_at_most_five_minutes_apart() {
        let policy = Policy::default();
        for probes in 0..40 {
            for jitter in [0, 200, 400] {
                let next = next_probe(&policy, probes, at(0), jitter).as_millis();
                assert!((4_000..=300_000).contains(&next), "{probes}: {next}");
            }
        }
        let once = Policy {
            retry_schedule_ms: Vec::new(),
            ..Policy::default()
        };
        assert_eq!(next_probe(&once, 0, at(0), 200), at(300_000));
    }
}
