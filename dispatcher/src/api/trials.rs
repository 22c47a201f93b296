//! How often a caller's word makes us post to an endpoint: verifications and tests.
//!
//! Endpoints are other people's servers, and whoever has a key names any of them. The bounds are of
//! each replica; with several, so many times as much is possible.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared::ids::WebhookId;
use shared::problem::Problem;
use shared::time::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Calls under way; each holds a connection, for up to the timeout of its webhook.
const CALLS_AT_ONCE: usize = 64;
const WINDOW_MS: i64 = 60_000;
/// Of one webhook in a window.
const VERIFICATIONS_MAX: u32 = 20;
const TESTS_MAX: u32 = 200;
/// Webhooks remembered; above it those are forgotten whose window has passed.
const REMEMBERED_MAX: usize = 10_000;
/// What is told to come back is so in a window at the latest.
pub(super) const RETRY_AFTER_SECONDS: &str = "60";

/// Shared by all calls of a replica.
pub struct Trials {
    calls: Arc<Semaphore>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    windows: HashMap<WebhookId, Window>,
    verifying: HashSet<WebhookId>,
}

#[derive(Clone, Copy, Default)]
struct Window {
    began_at: Timestamp,
    verifications: u32,
    tests: u32,
}

/// The right to verify a webhook, alone, until it is dropped.
pub(crate) struct VerificationTurn<'a> {
    trials: &'a Trials,
    webhook: WebhookId,
    _call: OwnedSemaphorePermit,
}

/// The right to send tests, until it is dropped.
pub(crate) struct TestTurn {
    _call: OwnedSemaphorePermit,
}

impl Default for Trials {
    fn default() -> Self {
        Self {
            calls: Arc::new(Semaphore::new(CALLS_AT_ONCE)),
            counts: Mutex::default(),
        }
    }
}

impl Trials {
    /// 429 above the bound, 409 while another verification of the webhook is under way here.
    pub(crate) fn verification(
        &self,
        webhook: WebhookId,
        now: Timestamp,
    ) -> Result<VerificationTurn<'_>, ApiError> {
        let call = self.call()?;
        let mut counts = self.counts();
        let window = counts.window(webhook, now);
        if window.verifications >= VERIFICATIONS_MAX {
            return Err(too_many("verifications of a webhook in a minute"));
        }
        window.verifications += 1;
        if !counts.verifying.insert(webhook) {
            let detail = "a verification of the webhook is under way";
            return Err(ApiError::Refused(Problem::conflict(detail)));
        }
        Ok(VerificationTurn {
            trials: self,
            webhook,
            _call: call,
        })
    }

    /// For `count` tests at once. 429 above the bound.
    pub(crate) fn tests(
        &self,
        webhook: WebhookId,
        count: usize,
        now: Timestamp,
    ) -> Result<TestTurn, ApiError> {
        let call = self.call()?;
        let mut counts = self.counts();
        let window = counts.window(webhook, now);
        let tests = window
            .tests
            .saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        if tests > TESTS_MAX {
            return Err(too_many("tests of a webhook in a minute"));
        }
        window.tests = tests;
        Ok(TestTurn { _call: call })
    }

    fn call(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let call = Arc::clone(&self.calls).try_acquire_owned();
        call.map_err(|_| too_many("tests and verifications under way"))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Counters are whole after each statement.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn window(&mut self, webhook: WebhookId, now: Timestamp) -> &mut Window {
        let is_past = |window: &Window| now.millis_since(window.began_at) >= WINDOW_MS;
        if self.windows.len() >= REMEMBERED_MAX {
            self.windows.retain(|_, window| !is_past(window));
        }
        let window = self.windows.entry(webhook).or_default();
        if is_past(window) {
            *window = Window {
                began_at: now,
                ..Window::default()
            };
        }
        window
    }
}

impl Drop for VerificationTurn<'_> {
    fn drop(&mut self) {
        self.trials.counts().verifying.remove(&self.webhook);
    }
}

fn too_many(what: &str) -> ApiError {
    ApiError::Refused(Problem::too_many(format!("too many {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: WebhookId = WebhookId::from_bytes([1; 16]);
    const OTHER: WebhookId = WebhookId::from_bytes([2; 16]);

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + ms)
    }

    fn status<T>(result: Result<T, ApiError>) -> u16 {
        match result {
            Ok(_) => 200,
            Err(ApiError::Refused(problem)) => problem.status,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_webhook_is_verified_by_one_at_a_time_and_so_often_in_a_minute() {
        let trials = Trials::default();
        let turn = trials.verification(ONE, at(0)).unwrap();
        assert_eq!(status(trials.verification(ONE, at(1))), 409);
        assert_eq!(status(trials.verification(OTHER, at(1))), 200);
        drop(turn);
        for _ in 2..VERIFICATIONS_MAX {
            assert_eq!(status(trials.verification(ONE, at(2))), 200);
        }
        assert_eq!(status(trials.verification(ONE, at(WINDOW_MS - 1))), 429);
        assert_eq!(status(trials.tests(ONE, 1, at(WINDOW_MS - 1))), 200);
        assert_eq!(status(trials.verification(ONE, at(WINDOW_MS))), 200);
    }

    #[test]
    fn tests_are_counted_one_by_one() {
        let trials = Trials::default();
        let half = usize::try_from(TESTS_MAX).unwrap() / 2;
        for expected in [200, 200, 429] {
            assert_eq!(status(trials.tests(ONE, half, at(0))), expected);
        }
        assert_eq!(status(trials.tests(ONE, half, at(WINDOW_MS))), 200);
    }

    #[test]
    fn calls_under_way_are_bounded_and_end() {
        let trials = Trials::default();
        let webhook = |n: usize| {
            let mut bytes = [0; 16];
            bytes[0] = u8::try_from(n).unwrap();
            WebhookId::from_bytes(bytes)
        };
        let turns: Vec<_> = (0..CALLS_AT_ONCE)
            .map(|n| trials.tests(webhook(n), 1, at(0)).unwrap())
            .collect();
        assert_eq!(status(trials.verification(webhook(200), at(0))), 429);
        drop(turns);
        assert_eq!(status(trials.verification(webhook(200), at(0))), 200);
    }
}
