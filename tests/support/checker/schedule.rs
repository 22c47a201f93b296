//! **Schedule**: attempts are numbered without gaps, none comes before its time, and what is
//! exhausted was tried as often as promised.

use shared::domain::journal::ExhaustReason;
use shared::ids::WebhookId;
use shared::time::Timestamp;

use super::findings::{Findings, Invariant};
use super::journal::{Attempt, Outcome};
use super::world::{CLOCK_MS, Delivery, LAG_MS, Logged, World};

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    for ((webhook, sequence), delivery) in &world.deliveries {
        numbers(*webhook, *sequence, delivery, findings);
        for (logged, attempt) in delivery.attempts() {
            match attempt.outcome {
                Outcome::Failed { retry_at } => {
                    findings.figures.failed_attempts += 1;
                    too_early(world, logged, attempt, retry_at, findings);
                }
                Outcome::Exhausted {
                    reason: ExhaustReason::Schedule,
                } => exhausted(world, attempt, findings),
                Outcome::Exhausted {
                    reason: ExhaustReason::Expired | ExhaustReason::Deactivated,
                }
                | Outcome::Delivered { .. } => {}
            }
        }
    }
}

fn numbers(webhook: WebhookId, sequence: u64, delivery: &Delivery<'_>, findings: &mut Findings) {
    let mut due: Option<(u32, Timestamp)> = None;
    for (_, attempt) in delivery.attempts() {
        let expected = due.map_or(1, |(number, _)| number + 1);
        let number = attempt.number;
        if number != expected {
            let detail = format!("{webhook} {sequence}: attempt {number}, expected {expected}");
            findings.add(Invariant::Schedule, detail);
        }
        if let Some((_, retry_at)) = due
            && attempt.started_at < retry_at
        {
            let started_at = attempt.started_at;
            let detail = format!(
                "{webhook} {sequence}: attempt {number} at {started_at}, due at {retry_at}"
            );
            findings.add(Invariant::Schedule, detail);
        }
        due = match attempt.outcome {
            Outcome::Failed { retry_at } => Some((number, retry_at)),
            Outcome::Delivered { .. } | Outcome::Exhausted { .. } => None,
        };
    }
}

/// By the receiver's clock, whoever the owner is: the failure was committed.
fn too_early(
    world: &World<'_>,
    logged: Logged<'_>,
    attempt: &Attempt,
    retry_at: Timestamp,
    findings: &mut Findings,
) {
    let committed_at = logged.line.stored_at;
    let arrivals = world.arrivals.get(&(attempt.webhook, attempt.event));
    for arrival in arrivals.into_iter().flatten() {
        let at = world.records.receiver.wall(arrival.at_us);
        let is_after = at.millis_since(committed_at) > LAG_MS;
        let is_before = retry_at.millis_since(at) > CLOCK_MS;
        if is_after && is_before && !world.may_be_late(at) {
            let (webhook, event) = (attempt.webhook, attempt.event);
            let detail = format!("{webhook} got {event} at {at}, due at {retry_at}");
            findings.add(Invariant::Schedule, detail);
        }
    }
}

fn exhausted(world: &World<'_>, attempt: &Attempt, findings: &mut Findings) {
    let webhook = world.webhooks.get(&attempt.webhook);
    let Some(policy) = webhook.and_then(|webhook| webhook.policy()) else {
        return;
    };
    let attempts = policy.retry_schedule_ms.len() + 1;
    if usize::try_from(attempt.number) != Ok(attempts) {
        let (webhook, sequence, number) = (attempt.webhook, attempt.sequence, attempt.number);
        let detail = format!("{webhook} {sequence}: exhausted after {number} of {attempts}");
        findings.add(Invariant::Schedule, detail);
    }
}
