//! **Classified once**, **Single end**, **Ledger** and **Nothing vanishes**: everything owed is
//! counted, once, and ends, once.

use std::collections::{BTreeMap, HashMap, HashSet};

use shared::ids::{PartitionId, WebhookId};

use super::findings::{Findings, Invariant};
use super::journal::{End, Fact, PackFacts};
use super::records::{JournalLine, State, ToldLedger};
use super::world::{Partition, Webhook, World, first_occurrences};

#[derive(Clone, Copy, Default)]
struct Counts {
    delivered: u64,
    exhausted: u64,
    skipped: u64,
    /// Ends of what was never owed.
    beyond: u64,
}

impl Counts {
    fn ended(self) -> u64 {
        self.delivered + self.exhausted + self.skipped
    }

    fn add(&mut self, end: End) {
        match end {
            End::Delivered => self.delivered += 1,
            End::Exhausted => self.exhausted += 1,
            End::Skipped => self.skipped += 1,
        }
    }
}

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    let mut counts: HashMap<WebhookId, Counts> = HashMap::new();
    for (id, partition) in &world.partitions {
        prefixes(world, *id, partition, &mut counts, findings);
    }
    let told: HashMap<_, _> = world
        .records
        .told
        .iter()
        .map(|told| (told.webhook, told))
        .collect();
    for (id, webhook) in &world.webhooks {
        let mut counts = counts.remove(id).unwrap_or_default();
        // What a status keeps from being sent is skipped as it is classified.
        let unsent = u64::try_from(webhook.skipped.len()).unwrap_or(u64::MAX);
        counts.skipped += unsent;
        sums(*id, webhook, counts, told.get(id).copied(), findings);
        vanished(world, *id, webhook, findings);
    }
    findings.figures.order_violations = findings.count(Invariant::LaneOrder);
}

/// Walks a partition's log: at each pack, everything it tells of is owed by what is classified.
fn prefixes(
    world: &World<'_>,
    id: PartitionId,
    partition: &Partition<'_>,
    counts: &mut HashMap<WebhookId, Counts>,
    findings: &mut Findings,
) {
    let mut ended: HashSet<(WebhookId, u64)> = HashSet::new();
    let mut classified = 0;
    let mut configured: BTreeMap<WebhookId, u64> = BTreeMap::new();
    let mut counted: BTreeMap<WebhookId, u64> = BTreeMap::new();
    for (line, pack) in first_occurrences(partition) {
        for fact in &pack.facts {
            if let Fact::ConfigApplied {
                webhook,
                registry_sequence,
                from,
            } = fact
            {
                let first = !configured.contains_key(webhook);
                let latest = configured.entry(*webhook).or_default();
                if !first && registry_sequence > latest && *from <= classified {
                    let detail = format!(
                        "{webhook} applies {registry_sequence} from {from}, but {id:?} was classified through {classified}"
                    );
                    findings.add(Invariant::ClassifiedOnce, detail);
                }
                *latest = (*latest).max(*registry_sequence);
            }
            owed(world, line, pack, fact, findings);
            let Some((webhook, sequence, end)) = fact.end() else {
                continue;
            };
            if !ended.insert((webhook, sequence)) {
                let detail = format!("{webhook} {sequence} ends again at {}", line.sequence);
                findings.add(Invariant::SingleEnd, detail);
                continue;
            }
            let counts = counts.entry(webhook).or_default();
            match world.webhooks.get(&webhook) {
                Some(owner) if owner.is_owed(sequence) => counts.add(end),
                // Counted with what its status kept from being sent.
                Some(owner) if owner.skipped.contains(&sequence) => {}
                Some(_) | None => counts.beyond += 1,
            }
        }
        classified = classified.max(pack.classified);
        for (webhook, more) in &pack.counted {
            let running = counted.entry(*webhook).or_default();
            *running += more;
            let own = owed_through(world, *webhook, classified);
            if *running > own {
                let at = line.sequence;
                let detail = format!("{at} counts {running} for {webhook}, which is owed {own}");
                findings.add(Invariant::Ledger, detail);
            }
        }
    }
    // A creation that reaches back may be counted later, but not never.
    for (webhook, running) in counted {
        let own = owed_through(world, webhook, classified);
        if running < own {
            let detail = format!("{webhook} was counted {running}, and is owed {own}");
            findings.add(Invariant::Ledger, detail);
        }
    }
}

/// An attempt or an end is of something owed, which was classified by then.
fn owed(
    world: &World<'_>,
    line: &JournalLine,
    pack: &PackFacts,
    fact: &Fact,
    findings: &mut Findings,
) {
    let (webhook, sequence, event) = match fact {
        Fact::Attempted(attempt) => (attempt.webhook, attempt.sequence, Some(attempt.event)),
        Fact::Ended {
            webhook, sequence, ..
        } => (*webhook, *sequence, None),
        Fact::ConfigApplied { .. } | Fact::Released => return,
    };
    let at = line.sequence;
    let state = world.webhooks.get(&webhook);
    let is_owed = state.is_some_and(|webhook| webhook.is_owed(sequence));
    let may_end =
        event.is_none() && state.is_some_and(|webhook| webhook.skipped.contains(&sequence));
    if !is_owed && !may_end {
        let detail = format!("{webhook} is not owed {sequence}, of which {at} tells");
        findings.add(Invariant::ClassifiedOnce, detail);
    }
    if sequence > pack.classified {
        let through = pack.classified;
        let detail =
            format!("{at} tells of {webhook} {sequence}, but is classified through {through}");
        findings.add(Invariant::Ledger, detail);
    }
    if event.is_some_and(|event| world.sequence_of(event) != Some(sequence)) {
        let detail = format!("{at} tells of {webhook} {sequence} as {event:?}");
        findings.add(Invariant::ClassifiedOnce, detail);
    }
}

/// What the webhook is owed of the events through that one.
fn owed_through(world: &World<'_>, webhook: WebhookId, classified: u64) -> u64 {
    let Some(webhook) = world.webhooks.get(&webhook) else {
        return 0;
    };
    let accepted = webhook.accepted.partition_point(|one| *one <= classified);
    let skipped = webhook.skipped.iter().filter(|one| **one <= classified);
    u64::try_from(accepted + skipped.count()).unwrap_or(u64::MAX)
}

fn sums(
    id: WebhookId,
    webhook: &Webhook<'_>,
    counts: Counts,
    told: Option<&ToldLedger>,
    findings: &mut Findings,
) {
    let accepted = u64::try_from(webhook.accepted.len() + webhook.skipped.len()).unwrap_or(0);
    // Each end counted here is of something owed, and once, so that this cannot be negative.
    let pending = accepted.saturating_sub(counts.ended());
    let mut gap = counts.beyond;
    if let Some(told) = told {
        let sum = told.delivered + told.pending + told.exhausted + told.skipped;
        let own = [accepted, counts.delivered, counts.exhausted, counts.skipped];
        let said = [told.accepted, told.delivered, told.exhausted, told.skipped];
        gap = gap
            .max(told.accepted.abs_diff(sum))
            .max(told.gap.unsigned_abs());
        if own != said {
            let detail = format!(
                "{id}: the API says accepted, delivered, exhausted, skipped {said:?}, the logs {own:?}"
            );
            findings.add(Invariant::Ledger, detail);
        }
    }
    if gap > 0 {
        findings.add(Invariant::Ledger, format!("{id} has a gap of {gap}"));
    }
    let figures = &mut findings.figures;
    figures.ledger_gap_max = figures.ledger_gap_max.max(gap);
    let add = |total: &mut usize, count: u64| *total += usize::try_from(count).unwrap_or(0);
    add(&mut figures.accepted, accepted);
    add(&mut figures.delivered, counts.delivered);
    add(&mut figures.exhausted, counts.exhausted);
    add(&mut figures.skipped, counts.skipped);
    add(&mut figures.pending, pending);
}

/// What is owed ends, and if it did not end otherwise, the receiver has it.
fn vanished(world: &World<'_>, id: WebhookId, webhook: &Webhook<'_>, findings: &mut Findings) {
    if world.records.state == State::Running || webhook.is_deleted() {
        return;
    }
    let events: HashMap<u64, _> = world
        .records
        .events
        .iter()
        .filter(|line| line.event.project == webhook.project)
        .map(|line| (line.sequence, line.event.id))
        .collect();
    for sequence in &webhook.accepted {
        let delivery = world.deliveries.get(&(id, *sequence));
        let end = delivery
            .and_then(|delivery| delivery.first_end())
            .and_then(|logged| logged.fact.end());
        let event = events.get(sequence);
        let arrivals = event.and_then(|event| world.arrivals.get(&(id, *event)));
        let has_succeeded =
            arrivals.is_some_and(|all| all.iter().any(|arrival| arrival.succeeded()));
        if matches!(end, None | Some((_, _, End::Delivered))) && !has_succeeded {
            findings.figures.lost += 1;
        }
        if end.is_none() {
            let detail =
                format!("{id} {sequence} ({event:?}) has no end; arrived: {has_succeeded}");
            findings.add(Invariant::NothingVanishes, detail);
        }
    }
}
