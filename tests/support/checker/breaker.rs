//! **Breaker**: while it is open, no more than one attempt is under way besides those from before,
//! and no failure counts. By what the owners journaled: what they did not come to say is judged by
//! the other invariants.

use std::collections::HashMap;

use shared::ids::WebhookId;

use super::findings::{Findings, Invariant};
use super::journal::{Attempt, Outcome};
use super::world::{CLOCK_MS, World};

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    let mut began_open: HashMap<WebhookId, Vec<&Attempt>> = HashMap::new();
    for ((id, sequence), delivery) in &world.deliveries {
        let Some(webhook) = world.webhooks.get(id) else {
            continue;
        };
        for (_, attempt) in delivery.attempts() {
            let is_open = webhook.was_open(attempt.started_at);
            if is_open {
                began_open.entry(*id).or_default().push(attempt);
            }
            let is_probe = attempt.outcome == Outcome::ProbeFailed;
            if is_probe && (!is_open || attempt.counts) {
                let at = attempt.started_at;
                let counts = attempt.counts;
                let detail =
                    format!("{id} {sequence} is probed at {at}, open: {is_open}, counts: {counts}");
                findings.add(Invariant::Breaker, detail);
            }
        }
    }
    for (id, attempts) in began_open {
        one_at_a_time(world, id, attempts, findings);
    }
}

fn one_at_a_time(
    world: &World<'_>,
    id: WebhookId,
    mut attempts: Vec<&Attempt>,
    findings: &mut Findings,
) {
    let Some(webhook) = world.webhooks.get(&id) else {
        return;
    };
    attempts.sort_by_key(|attempt| attempt.started_at);
    for pair in attempts.windows(2) {
        let [one, next] = pair else {
            continue;
        };
        // Where the times touch, the one may be from before it opened or after it closed.
        let is_inside = |attempt: &Attempt| {
            let at = attempt.started_at;
            webhook.was_open(at.plus_millis(-2 * CLOCK_MS))
                && webhook.was_open(at.plus_millis(2 * CLOCK_MS))
        };
        let overlap_ms = one.ended_at().millis_since(next.started_at);
        if overlap_ms > 0
            && is_inside(one)
            && is_inside(next)
            && !world.has_changed(id, one.started_at, next.started_at)
        {
            let (first, second, at) = (one.sequence, next.sequence, next.started_at);
            let detail = format!("{id}: {second} is probed at {at} while {first} is");
            findings.add(Invariant::Breaker, detail);
        }
    }
}
