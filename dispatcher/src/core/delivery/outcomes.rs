//! What the end of an attempt means: an entry, and what follows from it for the lane, the breaker
//! and the webhook.

use shared::domain::journal::{
    AttemptEntry, ExhaustReason, Failure, FailureWeight, JournalEntry, Links, UnsentEnd,
};
use shared::domain::state::Breaker;
use shared::domain::webhook::Status;
use shared::time::Timestamp;

use super::{AttemptOutcome, Context, Deliveries, Effect, Finished};
use crate::core::health::{self, Span};
use crate::core::retry::retry_at;

/// A failed attempt on its way into the journal.
struct Failed {
    attempt: AttemptEntry,
    failure: Failure,
    pause_until: Option<Timestamp>,
    is_probe: bool,
}

impl Deliveries {
    pub(super) fn finish(
        &mut self,
        finished: Finished,
        context: &Context,
        effects: &mut Vec<Effect>,
    ) {
        let Some(&pending) = self.lanes.get(finished.sequence) else {
            return;
        };
        let is_probe = self.probing == Some(finished.sequence);
        if is_probe {
            self.probing = None;
        }
        let attempt = AttemptEntry {
            webhook: self.webhook,
            position: self.position(finished.sequence),
            event: pending.event,
            event_type: pending.event_type,
            lane: pending.lane,
            number: pending.attempts + 1,
            started_at: finished.started_at,
            latency_ms: finished.latency_ms,
            previous: Links::default(),
        };
        match finished.outcome {
            AttemptOutcome::NotStarted => self.lanes.put_back(finished.sequence),
            AttemptOutcome::Delivered { status } => {
                self.takeover_ramp = self.takeover_ramp.and_then(|ramp| {
                    let whole = usize::from(self.rules.policy.max_in_flight);
                    (ramp + 1 < whole).then_some(ramp + 1)
                });
                self.end(finished.sequence);
                self.journal(JournalEntry::Delivered { attempt, status }, effects);
                // Whoever lifted the webhook meanwhile has closed it.
                if is_probe && self.state.health.is_open() {
                    let (webhook, at) = (self.webhook, context.now);
                    self.journal(JournalEntry::BreakerClosed { webhook, at }, effects);
                    self.narrow();
                }
            }
            // A predecessor's attempt may still arrive; until then the lane does not pass it over.
            AttemptOutcome::Gone(_) if context.now < self.hold_ends_until => {
                let attempts = pending.attempts;
                self.lanes
                    .park(finished.sequence, attempts, self.hold_ends_until);
            }
            AttemptOutcome::Gone(end) => {
                self.end(finished.sequence);
                // Nothing was sent: the number is that of the attempts before.
                let attempt = AttemptEntry {
                    number: pending.attempts,
                    ..attempt
                };
                self.journal(JournalEntry::Ended { attempt, end }, effects);
            }
            AttemptOutcome::Failed {
                failure,
                retry_after_ms,
            } => {
                let pause = retry_after_ms.and_then(|wait| i64::try_from(wait).ok());
                let failed = Failed {
                    attempt,
                    failure,
                    pause_until: pause.map(|wait| context.now.plus_millis(wait)),
                    is_probe,
                };
                self.fail(failed, context, effects);
            }
        }
    }

    fn fail(&mut self, failed: Failed, context: &Context, effects: &mut Vec<Effect>) {
        let Failed {
            attempt,
            failure,
            pause_until,
            is_probe,
        } = failed;
        let span = Span {
            started_at: attempt.started_at,
            ended_at: attempt.ended_at(),
        };
        let policy = &self.rules.policy;
        let weight = health::weigh(&self.state.health, policy, span, &failure, pause_until);
        let status = failure.status;
        let kind = failure.kind;
        if is_probe {
            self.fail_probe(attempt, failure, weight, context, effects);
        } else {
            self.fail_attempt(attempt, failure, weight, context, effects);
        }
        if self.rules.status != Status::Enabled {
            return;
        }
        let failure = Failure {
            kind,
            status,
            sealed_answer: Vec::new(),
        };
        let (health, dialect) = (&self.state.health, self.rules.dialect);
        let policy = &self.rules.policy;
        let now = context.now;
        if let Some(reason) = health::deactivates(health, policy, dialect, &failure, now) {
            let entry = JournalEntry::Deactivated {
                webhook: self.webhook,
                reason,
                at: now,
                from: self.position(self.known.next()),
            };
            self.journal(entry, effects);
            self.rules.status = Status::Deactivated;
            // What is pending ends when the journal's writer has said how far: it may have
            // classified events that are still on their way here.
            self.awaits_end = true;
        } else if health::opens(health, dialect) {
            let entry = JournalEntry::BreakerOpened {
                webhook: self.webhook,
                at: now,
                next_probe_at: health::next_probe(policy, 0, now, context.jitter),
            };
            self.journal(entry, effects);
            self.narrow();
        }
    }

    /// A probe is no attempt of the delivery, which stands where it stood (rule 18).
    fn fail_probe(
        &mut self,
        attempt: AttemptEntry,
        failure: Failure,
        weight: FailureWeight,
        context: &Context,
        effects: &mut Vec<Effect>,
    ) {
        let probes = match self.state.health.breaker {
            Breaker::Open { probes, .. } => probes.saturating_add(1),
            Breaker::Closed | Breaker::Ramping { .. } => 0,
        };
        let policy = &self.rules.policy;
        let next = health::next_probe(policy, probes, context.now, context.jitter);
        self.lanes.put_back(attempt.position.sequence);
        let entry = JournalEntry::ProbeFailed {
            attempt: AttemptEntry {
                number: attempt.number.saturating_sub(1),
                ..attempt
            },
            failure,
            next_probe_at: next,
            weight,
        };
        self.journal(entry, effects);
    }

    fn fail_attempt(
        &mut self,
        attempt: AttemptEntry,
        failure: Failure,
        weight: FailureWeight,
        context: &Context,
        effects: &mut Vec<Effect>,
    ) {
        let sequence = attempt.position.sequence;
        let schedule = &self.policy().retry_schedule_ms;
        let scheduled = retry_at(schedule, attempt.number, context.now, context.jitter);
        let held = (context.now < self.hold_ends_until).then_some(self.hold_ends_until);
        let retry_at = match (self.ends_pending(), scheduled.or(held)) {
            // It ends with the others of its webhook, only later.
            (Some(UnsentEnd::Exhausted(reason)), _) => Err(reason),
            (Some(UnsentEnd::Skipped(_)), _) => Ok(context.now),
            (None, Some(retry_at)) => Ok(retry_at.max(weight.pause_until.unwrap_or(retry_at))),
            (None, None) => Err(ExhaustReason::Schedule),
        };
        match retry_at {
            Ok(retry_at) => {
                self.lanes.park(sequence, attempt.number, retry_at);
                let entry = JournalEntry::AttemptFailed {
                    attempt,
                    failure,
                    retry_at,
                    weight,
                };
                self.journal(entry, effects);
                if let Some(end @ UnsentEnd::Skipped(_)) = self.ends_pending() {
                    self.end(sequence);
                    self.journal(JournalEntry::Ended { attempt, end }, effects);
                }
            }
            Err(reason) => {
                self.end(sequence);
                let entry = JournalEntry::Exhausted {
                    attempt,
                    failure,
                    reason,
                    weight,
                };
                self.journal(entry, effects);
            }
        }
    }
}
