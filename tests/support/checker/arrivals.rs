//! **Delivered is true**, **Isolation** and **Quiet**: the log and the receiver tell of the same
//! deliveries, and nobody got what was not meant for them.

use shared::domain::webhook::Status;
use shared::ids::WebhookId;

use super::findings::{Findings, Invariant};
use super::journal::{Attempt, Outcome};
use super::world::{CLOCK_MS, LAG_MS, Webhook, World};
use crate::receiver::recorder::Recorded;

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    for delivery in world.deliveries.values() {
        for (_, attempt) in delivery.attempts() {
            if let Outcome::Delivered { status } = attempt.outcome {
                delivered(world, attempt, status, findings);
            }
        }
    }
    isolated(world, findings);
    for (id, webhook) in &world.webhooks {
        quiet(world, *id, webhook, findings);
    }
}

/// Some arrival of the attempt's time was answered with that status, in time.
fn delivered(world: &World<'_>, attempt: &Attempt, status: u16, findings: &mut Findings) {
    let webhook = world.webhooks.get(&attempt.webhook);
    let policy = webhook.and_then(|webhook| webhook.policy());
    let timeout_ms = policy.map_or(10_000, |policy| i64::from(policy.timeout_ms));
    let (record, began) = (&world.records.receiver, attempt.started_at);
    let took_ms = attempt.latency_ms;
    let is_it = |arrival: &&&Recorded| {
        let answered = arrival.answered.is_some_and(|answered| {
            let waited = record.wall(answered.at_us).millis_since(began);
            answered.status == status && waited <= timeout_ms + CLOCK_MS
        });
        answered && arrival.succeeded() && world.is_arrival_of(attempt, arrival)
    };
    let arrivals = world.arrivals.get(&(attempt.webhook, attempt.event));
    if arrivals.into_iter().flatten().find(is_it).is_none() {
        let (webhook, event) = (attempt.webhook, attempt.event);
        let detail = format!(
            "{webhook}: {event} is delivered with {status} at {began} in {took_ms} ms, by the log alone"
        );
        findings.add(Invariant::DeliveredIsTrue, detail);
    }
}

/// The event is of the webhook's project, and its bytes are those of EVENTS.
fn isolated(world: &World<'_>, findings: &mut Findings) {
    for ((id, event), arrivals) in &world.arrivals {
        let lines = world.by_id.get(event).map_or(&[][..], Vec::as_slice);
        let webhook = world.webhooks.get(id);
        let is_own = |project| webhook.is_some_and(|webhook| webhook.project == project);
        if !lines.iter().any(|line| is_own(line.event.project)) {
            let detail = format!("{id} got {event}, which is none of its project");
            findings.add(Invariant::Isolation, detail);
            continue;
        }
        let is_stored = |arrival: &&&Recorded| lines.iter().any(|line| line.body == arrival.body);
        if !arrivals.iter().all(|arrival| is_stored(&arrival)) {
            let detail = format!("{id} got {event} with other bytes than EVENTS has");
            findings.add(Invariant::DeliveredIsTrue, detail);
        }
    }
}

/// No attempt while a configuration holds under which none is made.
fn quiet(world: &World<'_>, id: WebhookId, webhook: &Webhook<'_>, findings: &mut Findings) {
    let ends = webhook.configs.iter().skip(1).map(Some).chain([None]);
    for (config, next) in webhook.configs.iter().zip(ends) {
        let sends = match config.definition.map(|definition| definition.status) {
            Some(Status::Enabled) => true,
            Some(
                Status::PendingVerification
                | Status::Disabled
                | Status::Deactivated
                | Status::Quarantined,
            )
            | None => false,
        };
        if sends {
            continue;
        }
        let of_webhook = world.arrivals.iter().filter(|((of, _), _)| *of == id);
        for ((_, event), arrivals) in of_webhook {
            for arrival in arrivals {
                let at = world.records.receiver.wall(arrival.at_us);
                let is_before_next = next.is_none_or(|next| at < next.applied_at);
                // What was under way ends by its own outcome, and is noted a little later.
                let is_after = at.millis_since(config.stored_at) > LAG_MS;
                if is_after && is_before_next && !world.may_be_late(at) {
                    let since = config.stored_at;
                    let detail = format!("{id} got {event} at {at}, quiet since {since}");
                    findings.add(Invariant::Quiet, detail);
                }
            }
        }
    }
}
