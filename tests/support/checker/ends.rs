//! **Classified once**, **Ledger** and **Nothing vanishes**: what JOURNAL tells of was owed, what
//! the API counts is what the logs say, and everything owed ends.

use std::collections::HashMap;

use shared::ids::WebhookId;

use super::findings::{Findings, Invariant};
use super::journal::{End, Fact, PackFacts};
use super::pending::{self, Book};
use super::records::{JournalLine, State, ToldLedger};
use super::world::{Webhook, World, first_occurrences};

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    for partition in world.partitions.values() {
        for (line, pack) in first_occurrences(partition) {
            for fact in &pack.facts {
                owed(world, line, pack, fact, findings);
            }
        }
    }
    let mut books = pending::check(world, findings);
    let told: HashMap<_, _> = world
        .records
        .told
        .iter()
        .map(|told| (told.webhook, told))
        .collect();
    for (id, webhook) in &world.webhooks {
        let book = books.remove(id).unwrap_or_default();
        sums(*id, webhook, &book, told.get(id).copied(), findings);
        vanished(world, *id, webhook, &book, findings);
    }
    findings.figures.order_violations = findings.count(Invariant::LaneOrder);
}

/// An attempt or an end is of something owed, which was classified by then.
fn owed(
    world: &World<'_>,
    line: &JournalLine,
    pack: &PackFacts,
    fact: &Fact,
    findings: &mut Findings,
) {
    let (Some(webhook), Some(sequence)) = (fact.webhook(), fact.sequence()) else {
        return;
    };
    let event = match fact {
        Fact::Attempted(attempt) => Some((attempt.event, attempt.event_type)),
        Fact::ConfigApplied { .. }
        | Fact::CountedBack { .. }
        | Fact::Ended { .. }
        | Fact::PendingEnded { .. }
        | Fact::BreakerOpened { .. }
        | Fact::BreakerClosed { .. }
        | Fact::Decided { .. }
        | Fact::Settled { .. }
        | Fact::Released
        | Fact::NotJudged => None,
    };
    let at = line.sequence;
    let state = world.webhooks.get(&webhook);
    if !state.is_some_and(|webhook| webhook.is_accepted(sequence)) {
        let detail = format!("{webhook} is not owed {sequence}, of which {at} tells");
        findings.add(Invariant::ClassifiedOnce, detail);
    }
    if sequence > pack.classified {
        let through = pack.classified;
        let detail =
            format!("{at} tells of {webhook} {sequence}, but is classified through {through}");
        findings.add(Invariant::Ledger, detail);
    }
    let is_another = |(event, event_type)| {
        world.sequence_of(event) != Some(sequence) || !world.is_of_type(event, event_type)
    };
    if event.is_some_and(is_another) {
        let detail = format!("{at} tells of {webhook} {sequence} as {event:?}");
        findings.add(Invariant::ClassifiedOnce, detail);
    }
}

fn sums(
    id: WebhookId,
    webhook: &Webhook<'_>,
    book: &Book,
    told: Option<&ToldLedger>,
    findings: &mut Findings,
) {
    let owed = u64::try_from(webhook.owed.len()).unwrap_or(0);
    let accepted = owed.saturating_sub(book.forgone);
    // Each end counted here is of something owed, and once, so that this cannot be negative.
    let pending = accepted.saturating_sub(book.ended());
    let mut gap = book.beyond;
    if let Some(told) = told {
        let sum = told.delivered + told.pending + told.exhausted + told.skipped;
        let own = [accepted, book.delivered, book.exhausted, book.skipped];
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
    add(&mut figures.delivered, book.delivered);
    add(&mut figures.exhausted, book.exhausted);
    add(&mut figures.skipped, book.skipped);
    add(&mut figures.pending, pending);
}

/// What is owed ends, and if it did not end otherwise, the receiver has it.
fn vanished(
    world: &World<'_>,
    id: WebhookId,
    webhook: &Webhook<'_>,
    book: &Book,
    findings: &mut Findings,
) {
    if world.records.state == State::Running || webhook.is_deleted() {
        return;
    }
    let owed = webhook.owed.iter().filter(|owed| owed.skipped.is_none());
    for owed in owed {
        let (sequence, event) = (owed.sequence, owed.event);
        let end = book.ended.get(&sequence);
        let arrivals = world.arrivals.get(&(id, event));
        let has_succeeded =
            arrivals.is_some_and(|all| all.iter().any(|arrival| arrival.succeeded()));
        if matches!(end, None | Some(End::Delivered)) && !has_succeeded {
            findings.figures.lost += 1;
        }
        if end.is_none() {
            let detail = format!("{id} {sequence} ({event}) has no end; arrived: {has_succeeded}");
            findings.add(Invariant::NothingVanishes, detail);
        }
    }
}
