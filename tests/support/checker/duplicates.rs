//! **Duplicates**: what was answered with success in time comes again only when its owner lost the
//! partition before that outcome was committed.

use std::collections::HashMap;

use shared::ids::{EventId, PartitionId, WebhookId};
use shared::time::Timestamp;

use super::findings::{Findings, Invariant};
use super::journal::{Fact, Outcome};
use super::records::FaultKind;
use super::world::{CLOCK_MS, LAG_MS, World};
use crate::receiver::recorder::Recorded;

/// Outcomes that an owner may hold uncommitted (rule 19).
const UNCOMMITTED_MAX: usize = 1_000;

/// Why a duplicate is none of the owner's fault.
enum Excuse {
    /// The partition's change of owner, by its sequence in JOURNAL.
    Loss(PartitionId, u64),
    Late,
    /// The owner itself saw no answer in time.
    Unseen,
}

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    let mut of_losses: HashMap<(PartitionId, u64), usize> = HashMap::new();
    for ((webhook, event), arrivals) in &world.arrivals {
        let mut latest: Option<&Recorded> = None;
        for repeat in arrivals {
            let before = latest;
            if repeat.succeeded() {
                latest = Some(repeat);
            }
            let Some(success) = before else {
                continue;
            };
            findings.figures.duplicates += 1;
            match excuse(world, *webhook, *event, success, repeat) {
                Some(Excuse::Loss(partition, sequence)) => {
                    *of_losses.entry((partition, sequence)).or_default() += 1;
                }
                Some(Excuse::Late) => findings.figures.late_duplicates += 1,
                Some(Excuse::Unseen) => {}
                None => {
                    let record = &world.records.receiver;
                    let (one, two) = (record.wall(success.end_us()), record.wall(repeat.at_us));
                    let detail = format!(
                        "{webhook} answered {event} with success at {one} and got it again at {two}, without a loss of the partition between"
                    );
                    findings.add(Invariant::Duplicates, detail);
                }
            }
        }
    }
    bounded(world, &of_losses, findings);
}

fn excuse(
    world: &World<'_>,
    webhook: WebhookId,
    event: EventId,
    success: &Recorded,
    repeat: &Recorded,
) -> Option<Excuse> {
    let record = &world.records.receiver;
    let (answered_at, came_at) = (record.wall(success.end_us()), record.wall(repeat.at_us));
    let partition = world.webhooks.get(&webhook)?.partition?;
    let delivery = world
        .sequence_of(event)
        .and_then(|sequence| world.deliveries.get(&(webhook, sequence)));
    let end = delivery.and_then(|delivery| delivery.first_end());
    let committed = end.map(|logged| logged.line.sequence);
    // What was committed by the very owner that had the answer was not lost with its partition.
    let is_committed = end.is_some_and(|logged| match logged.fact {
        Fact::Attempted(attempt) => world.is_arrival_of(attempt, success),
        Fact::ConfigApplied { .. }
        | Fact::CountedBack { .. }
        | Fact::Ended { .. }
        | Fact::PendingEnded { .. }
        | Fact::BreakerOpened { .. }
        | Fact::BreakerClosed { .. }
        | Fact::Decided { .. }
        | Fact::Settled { .. }
        | Fact::Released
        | Fact::NotJudged => false,
    });
    let epochs = &world.partitions.get(&partition)?.epochs;
    // Before the first owner there is none that could have lost anything.
    let mut losses = epochs.iter().skip(1).filter(|_| !is_committed);
    let loss = losses.find(|epoch| {
        let is_after = epoch.stored_at.millis_since(answered_at) >= -LAG_MS;
        let is_before = epoch.stored_at.millis_since(came_at) <= CLOCK_MS;
        let is_uncommitted = committed.is_none_or(|committed| epoch.sequence < committed);
        is_after && is_before && is_uncommitted && !epoch.was_released
    });
    if let Some(loss) = loss {
        return Some(Excuse::Loss(partition, loss.sequence));
    }
    // The later owner may have been quicker than the one that was paused.
    if world.may_be_late(came_at) || world.may_be_late(answered_at) {
        return Some(Excuse::Late);
    }
    let unseen = delivery?.attempts().any(|(_, attempt)| {
        let ended_at = attempt.ended_at();
        let is_it = attempt.started_at.millis_since(record.wall(success.at_us)) <= CLOCK_MS
            && ended_at.millis_since(answered_at) >= -LAG_MS;
        matches!(
            attempt.outcome,
            Outcome::Failed { .. } | Outcome::ProbeFailed
        ) && is_it
            && was_paused(world, attempt.started_at, ended_at)
    });
    unseen.then_some(Excuse::Unseen)
}

fn was_paused(world: &World<'_>, from: Timestamp, to: Timestamp) -> bool {
    world.records.faults.iter().any(|fault| {
        fault.kind == FaultKind::DispatcherPaused
            && fault.at <= to
            && fault.until.is_none_or(|until| until >= from)
    })
}

/// One loss costs no more than what may be uncommitted or under way.
fn bounded(
    world: &World<'_>,
    of_losses: &HashMap<(PartitionId, u64), usize>,
    findings: &mut Findings,
) {
    for ((partition, sequence), count) in of_losses {
        let in_flight = world
            .webhooks
            .values()
            .filter(|webhook| webhook.partition == Some(*partition))
            .filter_map(|webhook| webhook.policy())
            .map(|policy| usize::from(policy.max_in_flight))
            .sum::<usize>();
        let max = UNCOMMITTED_MAX + in_flight;
        if *count > max {
            let detail =
                format!("{partition:?}: {count} duplicates by its loss at {sequence}, over {max}");
            findings.add(Invariant::Duplicates, detail);
        }
        let most = &mut findings.figures.duplicates_of_one_loss_max;
        *most = (*most).max(*count);
    }
}
