//! Whether an endpoint is taken to be well: consecutive failures, breaker, pause.
//!
//! Whatever takes a policy, a clock or chance was decided when the entry was made and stands in
//! it; folding only counts.

use crate::domain::journal::{AttemptEntry, FailureWeight};
use crate::ids::Sequence;
use crate::time::Timestamp;

/// The health of one webhook's endpoint, as its journal tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// HR-ON's `failed`.
    pub consecutive_failures: u32,
    /// When the last failure that counts had ended.
    pub last_failure_at: Option<Timestamp>,
    /// When the first failure since the last success had ended.
    pub failing_since: Option<Timestamp>,
    /// Failures since then that are spread over the time of deactivation.
    pub spread_failures: u32,
    /// The last of these.
    pub last_spread_at: Option<Timestamp>,
    /// The endpoint asked to be left alone until then.
    pub paused_until: Option<Timestamp>,
    pub breaker: Breaker,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breaker {
    #[default]
    Closed,
    /// Closed again after the endpoint was down; `successes` since then bound how many attempts
    /// may be under way.
    Ramping { successes: u32 },
    /// Probed only.
    Open {
        /// Failed probes so far.
        probes: u32,
        next_probe_at: Timestamp,
        /// The delivery that was probed last; the next probe is of the next lane.
        last_probed: Sequence,
    },
}

impl Health {
    pub fn is_open(&self) -> bool {
        matches!(self.breaker, Breaker::Open { .. })
    }

    /// An attempt was answered with success. While the breaker is open, only the end of a probe
    /// says anything, and that is an entry of its own.
    pub(super) fn succeeded(&mut self) {
        match self.breaker {
            Breaker::Open { .. } => {}
            Breaker::Closed => self.forget_failures(),
            Breaker::Ramping { successes } => {
                self.forget_failures();
                self.breaker = match successes.saturating_add(1) {
                    // As many as may ever be under way.
                    enough if enough >= RAMP_ENDS_AFTER => Breaker::Closed,
                    successes => Breaker::Ramping { successes },
                };
            }
        }
    }

    pub(super) fn failed(&mut self, attempt: &AttemptEntry, weight: FailureWeight) {
        let ended_at = attempt.ended_at();
        self.paused_until = self.paused_until.max(weight.pause_until);
        if weight.is_spread {
            self.spread_failures = self.spread_failures.saturating_add(1);
            self.last_spread_at = Some(ended_at);
        }
        if weight.counts {
            self.consecutive_failures = self.consecutive_failures.saturating_add(1);
            self.last_failure_at = Some(ended_at);
        }
        self.failing_since = self.failing_since.or(Some(ended_at));
        if let Breaker::Ramping { successes } = self.breaker {
            self.breaker = Breaker::Ramping {
                successes: successes / 2,
            };
        }
    }

    pub(super) fn probe_failed(
        &mut self,
        attempt: &AttemptEntry,
        next: Timestamp,
        weight: FailureWeight,
    ) {
        self.failed(attempt, weight);
        if let Breaker::Open { probes, .. } = self.breaker {
            self.breaker = Breaker::Open {
                probes: probes.saturating_add(1),
                next_probe_at: next,
                last_probed: attempt.position.sequence,
            };
        }
    }

    /// A probe that was no delivery's failed: nothing counts, and the next one waits.
    pub(super) fn probed_in_vain(&mut self, next: Timestamp, pause_until: Option<Timestamp>) {
        self.paused_until = self.paused_until.max(pause_until);
        if let Breaker::Open {
            probes,
            last_probed,
            ..
        } = self.breaker
        {
            self.breaker = Breaker::Open {
                probes: probes.saturating_add(1),
                next_probe_at: next,
                last_probed,
            };
        }
    }

    pub(super) fn opened(&mut self, next_probe_at: Timestamp) {
        self.breaker = Breaker::Open {
            probes: 0,
            next_probe_at,
            last_probed: Sequence(0),
        };
    }

    pub(super) fn closed(&mut self) {
        self.forget_failures();
        self.breaker = Breaker::Ramping { successes: 0 };
    }

    fn forget_failures(&mut self) {
        self.consecutive_failures = 0;
        self.last_failure_at = None;
        self.failing_since = None;
        self.spread_failures = 0;
        self.last_spread_at = None;
    }
}

/// Attempts under way may never be more than 256 (policy).
const RAMP_ENDS_AFTER: u32 = 256;
