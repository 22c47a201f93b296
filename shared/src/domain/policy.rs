//! How a webhook is delivered to: order, limits, retries, deactivation; validated ranges.

use serde::{Deserialize, Serialize};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Waits between attempts: 5 s, 30 s, 2 m, 10 m, 30 m, 1 h, 2 h, 5 h, 10 h, 24 h, 24 h.
const DEFAULT_RETRY_SCHEDULE_MS: [u64; 11] = [
    5 * SECOND,
    30 * SECOND,
    2 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    24 * HOUR,
    24 * HOUR,
];
const RETRY_STEPS_MAX: usize = 20;
/// Of all waits of a schedule together, in milliseconds.
pub const RETRY_SPAN_MS_MAX: u64 = 7 * DAY;

/// What order means for a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// One lane for each ordering key.
    PerRecord,
    /// One lane for all.
    Strict,
    /// No lanes.
    None,
}

/// The policy object of the API; missing fields take their defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    pub ordering: Ordering,
    /// Attempts under way at once, 1 to 256.
    pub max_in_flight: u16,
    /// For connection and response head together, 1,000 to 30,000.
    pub timeout_ms: u32,
    /// Attempts a second; none means no limit.
    pub rate_limit_per_second: Option<u32>,
    /// Waits between attempts; up to 20, 7 days in all. Empty means one attempt.
    pub retry_schedule_ms: Vec<u64>,
    pub deactivate_after_consecutive_failures: Option<u32>,
    /// Milliseconds of nothing but failure; none means never.
    pub deactivate_after_failing_ms: Option<u64>,
}

/// A field of the policy is out of range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct InvalidPolicy {
    pub field: &'static str,
    pub detail: String,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ordering: Ordering::PerRecord,
            max_in_flight: 32,
            timeout_ms: 10_000,
            rate_limit_per_second: None,
            retry_schedule_ms: DEFAULT_RETRY_SCHEDULE_MS.to_vec(),
            deactivate_after_consecutive_failures: None,
            deactivate_after_failing_ms: Some(5 * DAY),
        }
    }
}

impl Policy {
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        let check = |holds: bool, field: &'static str, detail: String| {
            if holds {
                Ok(())
            } else {
                Err(InvalidPolicy { field, detail })
            }
        };
        check(
            (1..=256).contains(&self.max_in_flight),
            "max_in_flight",
            "must be from 1 to 256".into(),
        )?;
        check(
            (1_000..=30_000).contains(&self.timeout_ms),
            "timeout_ms",
            "must be from 1,000 to 30,000".into(),
        )?;
        check(
            self.rate_limit_per_second
                .is_none_or(|rate| (1..=100_000).contains(&rate)),
            "rate_limit_per_second",
            "must be from 1 to 100,000".into(),
        )?;
        let span = self.retry_schedule_ms.iter().try_fold(0_u64, |sum, &step| {
            sum.checked_add(step).filter(|_| step > 0)
        });
        check(
            self.retry_schedule_ms.len() <= RETRY_STEPS_MAX
                && span.is_some_and(|span| span <= RETRY_SPAN_MS_MAX),
            "retry_schedule_ms",
            format!("must hold at most {RETRY_STEPS_MAX} waits above 0, of 7 days in all"),
        )?;
        check(
            self.deactivate_after_consecutive_failures != Some(0),
            "deactivate_after_consecutive_failures",
            "must be 1 or more".into(),
        )?;
        check(
            self.deactivate_after_failing_ms != Some(0),
            "deactivate_after_failing_ms",
            "must be 1 or more".into(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_fill_what_is_missing() {
        Policy::default().validate().unwrap();
        assert_eq!(
            serde_json::from_str::<Policy>("{}").unwrap(),
            Policy::default()
        );
        assert!(serde_json::from_str::<Policy>(r#"{"retries":3}"#).is_err());
    }

    #[test]
    fn ranges_are_checked_field_by_field() {
        let cases = [
            (r#"{"max_in_flight":0}"#, Some("max_in_flight")),
            (r#"{"max_in_flight":256}"#, None),
            (r#"{"max_in_flight":257}"#, Some("max_in_flight")),
            (r#"{"timeout_ms":999}"#, Some("timeout_ms")),
            (r#"{"timeout_ms":30001}"#, Some("timeout_ms")),
            (
                r#"{"rate_limit_per_second":0}"#,
                Some("rate_limit_per_second"),
            ),
            (r#"{"retry_schedule_ms":[]}"#, None),
            (r#"{"retry_schedule_ms":[0]}"#, Some("retry_schedule_ms")),
            (r#"{"retry_schedule_ms":[604800000]}"#, None),
            (
                r#"{"retry_schedule_ms":[604800000,1]}"#,
                Some("retry_schedule_ms"),
            ),
            (
                r#"{"retry_schedule_ms":[18446744073709551615,18446744073709551615]}"#,
                Some("retry_schedule_ms"),
            ),
        ];
        for (json, field) in cases {
            let policy: Policy = serde_json::from_str(json).unwrap();
            assert_eq!(
                policy.validate().err().map(|error| error.field),
                field,
                "{json}"
            );
        }
    }
}
