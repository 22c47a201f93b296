//! **Lane order** and **Lane exclusion**: by the receiver's record alone.

use std::collections::{BinaryHeap, HashMap, HashSet};

use shared::domain::policy::{Ordering, Policy};
use shared::ids::{AccountId, EventId, WebhookId};

use super::findings::{Findings, Invariant};
use super::world::{CLOCK_MS, LAG_MS, World};
use crate::receiver::recorder::Recorded;

/// The ordering key; `None` for all in mode `strict`.
type Lane<'a> = Option<(Option<AccountId>, &'a str, &'a str)>;

/// What came last in a lane.
struct Last<'a> {
    sequence: u64,
    event: EventId,
    arrival: &'a Recorded,
}

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    let mut by_webhook: HashMap<WebhookId, Vec<(EventId, &Recorded)>> = HashMap::new();
    for ((webhook, event), arrivals) in &world.arrivals {
        let of_webhook = by_webhook.entry(*webhook).or_default();
        of_webhook.extend(arrivals.iter().map(|arrival| (*event, *arrival)));
    }
    for (id, mut arrivals) in by_webhook {
        let webhook = world.webhooks.get(&id);
        let Some(policy) = webhook.and_then(|webhook| webhook.policy()) else {
            continue;
        };
        arrivals.sort_by_key(|(_, arrival)| arrival.at_us);
        order_and_exclusion(world, id, policy, &arrivals, findings);
        in_flight(world, id, policy, &arrivals, findings);
    }
    findings.figures.order_violations = findings.count(Invariant::LaneOrder);
}

fn order_and_exclusion(
    world: &World<'_>,
    id: WebhookId,
    policy: &Policy,
    arrivals: &[(EventId, &Recorded)],
    findings: &mut Findings,
) {
    let mut highest: HashMap<Lane<'_>, u64> = HashMap::new();
    let mut latest: HashMap<Lane<'_>, Last<'_>> = HashMap::new();
    let mut seen = HashSet::new();
    for (event, arrival) in arrivals {
        let Some(line) = world.by_id.get(event).and_then(|lines| lines.first()) else {
            continue;
        };
        let (sequence, of) = (line.sequence, &line.event);
        let lane = match policy.ordering {
            Ordering::PerRecord => Some((of.account, of.event_type.resource(), &*of.record_id)),
            Ordering::Strict => None,
            Ordering::None => continue,
        };
        if seen.insert(*event) {
            let highest = highest.entry(lane).or_default();
            if sequence < *highest {
                let detail = format!("{id} got {sequence} of {lane:?} after {highest}");
                findings.add(Invariant::LaneOrder, detail);
            }
            *highest = sequence.max(*highest);
        }
        if let Some(last) = latest.get(&lane)
            && arrival.at_us < open_until(last.arrival, policy)
            && !may_be_two_owners(world, id, last.arrival, arrival)
        {
            let (first, second) = (last.sequence, last.event);
            let detail =
                format!("{id}: {sequence} ({event}) came while {first} ({second}) was under way");
            findings.add(Invariant::LaneExclusion, detail);
        }
        let last = Last {
            sequence,
            event: *event,
            arrival,
        };
        latest.insert(lane, last);
    }
}

/// An attempt is over when it is answered, or when its owner gives it up.
fn open_until(arrival: &Recorded, policy: &Policy) -> u64 {
    let timeout_us = u64::from(policy.timeout_ms).saturating_mul(1_000);
    arrival.end_us().min(arrival.at_us + timeout_us)
}

/// Whether the attempts may be of two owners: the partition changed hands, or a process that was
/// paused finished what it had begun.
fn may_be_two_owners(world: &World<'_>, id: WebhookId, one: &Recorded, next: &Recorded) -> bool {
    let record = &world.records.receiver;
    let (from, to) = (record.wall(one.at_us), record.wall(next.at_us));
    world.has_changed(id, from.plus_millis(-LAG_MS), to.plus_millis(CLOCK_MS))
        || world.may_be_late(to)
        || world.may_be_late(from)
}

/// Never more at once than the policy lets.
fn in_flight(
    world: &World<'_>,
    id: WebhookId,
    policy: &Policy,
    arrivals: &[(EventId, &Recorded)],
    findings: &mut Findings,
) {
    let max = usize::from(policy.max_in_flight);
    let mut ends: BinaryHeap<std::cmp::Reverse<u64>> = BinaryHeap::new();
    for (index, (event, arrival)) in arrivals.iter().enumerate() {
        while ends.peek().is_some_and(|end| end.0 <= arrival.at_us) {
            ends.pop();
        }
        ends.push(std::cmp::Reverse(open_until(arrival, policy)));
        if ends.len() <= max {
            continue;
        }
        let oldest = arrivals
            .get(..index)
            .unwrap_or_default()
            .iter()
            .find(|(_, other)| open_until(other, policy) > arrival.at_us);
        let is_excused =
            oldest.is_some_and(|(_, oldest)| may_be_two_owners(world, id, oldest, arrival));
        if !is_excused {
            let open = ends.len();
            let detail = format!("{id}: {open} under way at {event}, of {max} at most");
            findings.add(Invariant::LaneExclusion, detail);
        }
    }
}
