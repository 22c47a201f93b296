//! **Schedule**: attempts are numbered without gaps, none comes before its time, and what is
//! exhausted was tried as often as promised.

use shared::domain::journal::ExhaustReason;
use shared::domain::webhook::Status;
use shared::ids::WebhookId;
use shared::time::Timestamp;

use super::findings::{Findings, Invariant};
use super::journal::{Attempt, Outcome};
use super::world::{CLOCK_MS, Delivery, LAG_MS, Logged, World};

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    for ((webhook, sequence), delivery) in &world.deliveries {
        numbers(world, *webhook, *sequence, delivery, findings);
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
                    reason: ExhaustReason::Deactivated,
                } => deactivated(world, logged, attempt, findings),
                Outcome::Exhausted {
                    reason: ExhaustReason::Expired,
                }
                | Outcome::Delivered { .. }
                | Outcome::ProbeFailed => {}
            }
        }
    }
}

fn numbers(
    world: &World<'_>,
    webhook: WebhookId,
    sequence: u64,
    delivery: &Delivery<'_>,
    findings: &mut Findings,
) {
    let state = world.webhooks.get(&webhook);
    let is_probe = |at| state.is_some_and(|webhook| webhook.was_open(at));
    let mut due: Option<(u32, Timestamp)> = None;
    for (_, attempt) in delivery.attempts() {
        let made = due.map_or(0, |(number, _)| number);
        let is_failed_probe = attempt.outcome == Outcome::ProbeFailed;
        let expected = if is_failed_probe { made } else { made + 1 };
        let number = attempt.number;
        if number != expected {
            let detail = format!("{webhook} {sequence}: attempt {number}, expected {expected}");
            findings.add(Invariant::Schedule, detail);
        }
        if let Some((_, retry_at)) = due
            && attempt.started_at < retry_at
            && !is_probe(attempt.started_at)
        {
            let started_at = attempt.started_at;
            let detail = format!(
                "{webhook} {sequence}: attempt {number} at {started_at}, due at {retry_at}"
            );
            findings.add(Invariant::Schedule, detail);
        }
        due = match attempt.outcome {
            Outcome::Failed { retry_at } => Some((number, retry_at)),
            Outcome::ProbeFailed => due,
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
    let webhook = world.webhooks.get(&attempt.webhook);
    // A probe takes a delivery that is not due, and arrives a little later than it was begun.
    let is_probe = |at: Timestamp| {
        let begun = [at, at.plus_millis(-LAG_MS)];
        webhook.is_some_and(|webhook| begun.iter().any(|at| webhook.was_open(*at)))
    };
    let arrivals = world.arrivals.get(&(attempt.webhook, attempt.event));
    for arrival in arrivals.into_iter().flatten() {
        let at = world.records.receiver.wall(arrival.at_us);
        let is_after = at.millis_since(committed_at) > LAG_MS;
        let is_before = retry_at.millis_since(at) > CLOCK_MS;
        if is_after && is_before && !world.may_be_late(at) && !is_probe(at) {
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
    let made = usize::try_from(attempt.number).unwrap_or(usize::MAX);
    // After the loss of an owner nothing is given up for a while (rule 9), and tried once more.
    let epochs = webhook.and_then(|webhook| world.partitions.get(&webhook.partition?));
    let mut epochs = epochs
        .iter()
        .flat_map(|partition| partition.epochs.iter().skip(1));
    let is_more = made > attempts && epochs.any(|epoch| !epoch.was_released);
    if made != attempts && !is_more {
        let (webhook, sequence, number) = (attempt.webhook, attempt.sequence, attempt.number);
        let detail = format!("{webhook} {sequence}: exhausted after {number} of {attempts}");
        findings.add(Invariant::Schedule, detail);
    }
}

/// The webhook was deactivated by then.
fn deactivated(world: &World<'_>, logged: Logged<'_>, attempt: &Attempt, findings: &mut Findings) {
    let webhook = world.webhooks.get(&attempt.webhook);
    let configs = webhook.map_or(&[][..], |webhook| &webhook.configs);
    let mut until_now = configs
        .iter()
        .filter(|config| config.place <= logged.line.sequence);
    if !until_now.any(|config| config.status() == Some(Status::Deactivated)) {
        let (webhook, sequence) = (attempt.webhook, attempt.sequence);
        let detail = format!("{webhook} {sequence}: given up, and was not deactivated");
        findings.add(Invariant::Schedule, detail);
    }
}
