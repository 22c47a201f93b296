//! **Classified once**, **Single end** and **Ledger** at every prefix of JOURNAL: what is pending
//! of each webhook after each pack, from the checker's own classification, against what the
//! entries say of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use shared::domain::journal::{ExhaustReason, LanesSettled, SkipReason, UnsentEnd};
use shared::domain::webhook::Status;
use shared::ids::{LaneHash, PartitionId, WebhookId};

use super::findings::{Findings, Invariant};
use super::journal::{Attempt, End, Fact, Outcome, PackFacts};
use super::records::JournalLine;
use super::world::{Owed, Partition, Webhook, World, first_occurrences};

/// The account of one webhook at a prefix.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) delivered: u64,
    pub(super) exhausted: u64,
    pub(super) skipped: u64,
    /// Ends of what was not pending.
    pub(super) beyond: u64,
    pub(super) ended: HashMap<u64, End>,
    /// Of what the webhook is owed, so many are classified.
    classified: usize,
    pub(super) pending: BTreeMap<u64, LaneHash>,
    /// Creation reached back, and that is not counted yet.
    uncounted: Option<(u64, u64)>,
    /// The webhook is deleted: what ends now says nothing.
    is_closed: bool,
    /// Owed, and not counted when it was closed.
    pub(super) forgone: u64,
    /// How far everything has ended, but for `failing` and what lies in a lane of `behind`.
    resolved: Option<u64>,
    failing: BTreeMap<u64, LaneHash>,
    behind: BTreeMap<LaneHash, u64>,
}

/// Counts by webhook and reason for skipping.
type Counts = BTreeMap<(WebhookId, Option<SkipReason>), u64>;

/// Walks every partition's log, and returns the accounts at its end.
pub(super) fn check(world: &World<'_>, findings: &mut Findings) -> HashMap<WebhookId, Book> {
    let mut books: HashMap<WebhookId, Book> = HashMap::new();
    for (id, webhook) in &world.webhooks {
        let book = books.entry(*id).or_default();
        book.uncounted = webhook.back;
    }
    for (id, partition) in &world.partitions {
        walk(world, *id, partition, &mut books, findings);
    }
    for (id, book) in &books {
        if let Some((from, through)) = book.uncounted.filter(|_| !book.is_closed) {
            let detail = format!("{id}: events {from} through {through} were never counted");
            findings.add(Invariant::Ledger, detail);
        }
    }
    books
}

fn walk(
    world: &World<'_>,
    id: PartitionId,
    partition: &Partition<'_>,
    books: &mut HashMap<WebhookId, Book>,
    findings: &mut Findings,
) {
    let own: Vec<_> = world
        .webhooks
        .iter()
        .filter(|(_, webhook)| webhook.partition == Some(id))
        .collect();
    let mut classified = 0;
    let mut configured: BTreeMap<WebhookId, u64> = BTreeMap::new();
    let mut told = Counts::new();
    for (line, pack) in first_occurrences(partition) {
        if pack.number == 1 {
            // The owner that had begun them is gone.
            told.clear();
        }
        for (webhook, skipped, count) in &pack.counted {
            *told.entry((*webhook, *skipped)).or_default() += count;
        }
        if pack.counts_continue {
            continue;
        }
        for fact in &pack.facts {
            applied_in_time(fact, classified, &mut configured, findings);
        }
        classified = classified.max(pack.classified);
        let mut counts = Counts::new();
        for (webhook, state) in &own {
            let book = books.entry(**webhook).or_default();
            book.classify(**webhook, state, classified, &mut counts);
        }
        counted(line, pack, &std::mem::take(&mut told), &counts, findings);
        let at = line.sequence;
        for fact in &pack.facts {
            if let Some(webhook) = fact.webhook()
                && let Some(state) = world.webhooks.get(&webhook)
            {
                let book = books.entry(webhook).or_default();
                book.take(at, webhook, state, fact, findings);
            }
        }
    }
}

/// Only creation reaches back to what is classified.
fn applied_in_time(
    fact: &Fact,
    classified: u64,
    configured: &mut BTreeMap<WebhookId, u64>,
    findings: &mut Findings,
) {
    match fact {
        Fact::ConfigApplied {
            webhook,
            registry_sequence,
            from,
            ..
        } => {
            let before = configured.get(webhook).copied();
            if before.is_some_and(|before| *registry_sequence > before) && *from <= classified {
                let detail = format!(
                    "{webhook} applies {registry_sequence} from {from}, classified through {classified}"
                );
                findings.add(Invariant::ClassifiedOnce, detail);
            }
            let latest = configured.entry(*webhook).or_default();
            *latest = (*latest).max(*registry_sequence);
        }
        Fact::Decided { webhook, from, .. } => {
            if *from <= classified {
                let detail = format!(
                    "{webhook} is decided upon from {from}, classified through {classified}"
                );
                findings.add(Invariant::ClassifiedOnce, detail);
            }
        }
        Fact::CountedBack { .. }
        | Fact::Attempted(_)
        | Fact::Ended { .. }
        | Fact::PendingEnded { .. }
        | Fact::BreakerOpened { .. }
        | Fact::BreakerClosed { .. }
        | Fact::Settled { .. }
        | Fact::Released
        | Fact::NotJudged => {}
    }
}

/// What the pack says that classifying added is what it added.
fn counted(
    line: &JournalLine,
    pack: &PackFacts,
    told: &Counts,
    own: &Counts,
    findings: &mut Findings,
) {
    let keys: BTreeSet<_> = told.keys().chain(own.keys()).collect();
    for key @ (webhook, skipped) in keys {
        let (told, own) = (told.get(key).unwrap_or(&0), own.get(key).unwrap_or(&0));
        if told != own {
            let (at, through) = (line.sequence, pack.classified);
            let class = skipped.map_or("accepted".to_owned(), |reason| format!("{reason:?}"));
            let detail =
                format!("{at}, through {through}, counts {told} {class} for {webhook}, not {own}");
            findings.add(Invariant::Ledger, detail);
        }
    }
}

impl Book {
    pub(super) fn ended(&self) -> u64 {
        self.delivered + self.exhausted + self.skipped
    }

    /// Takes in what is classified now, as far as it is not counted by an entry of its own.
    fn classify(
        &mut self,
        id: WebhookId,
        webhook: &Webhook<'_>,
        through: u64,
        counts: &mut Counts,
    ) {
        let rest = webhook.owed.get(self.classified..).unwrap_or_default();
        for owed in rest.iter().take_while(|owed| owed.sequence <= through) {
            self.classified += 1;
            if !is_within(webhook.back, owed) {
                *counts.entry((id, owed.skipped)).or_default() += 1;
                self.count(owed);
            }
        }
    }

    fn count(&mut self, owed: &Owed) {
        match owed.skipped {
            None => {
                self.pending.insert(owed.sequence, owed.lane);
            }
            Some(reason) => {
                let end = End::Unsent(UnsentEnd::Skipped(reason));
                self.ended.insert(owed.sequence, end);
                self.skipped += 1;
            }
        }
    }

    fn take(
        &mut self,
        at: u64,
        id: WebhookId,
        webhook: &Webhook<'_>,
        fact: &Fact,
        findings: &mut Findings,
    ) {
        if self.is_closed {
            return;
        }
        match fact {
            Fact::ConfigApplied { from, .. } => {
                // Only the first says where the webhook begins.
                self.resolved.get_or_insert(from.saturating_sub(1));
            }
            Fact::CountedBack {
                accepted, skipped, ..
            } => self.count_back(at, id, webhook, (*accepted, skipped), findings),
            Fact::Attempted(attempt) => self.attempted(at, id, attempt, findings),
            Fact::Ended { sequence, end, .. } => {
                may_end(at, id, webhook, *end, findings);
                self.end(at, id, *sequence, End::Unsent(*end), findings);
            }
            Fact::PendingEnded {
                through,
                end,
                count,
                kept,
                ..
            } => {
                may_end(at, id, webhook, *end, findings);
                let own = self.end_pending(at, id, *through, *end, kept, findings);
                if own != *count {
                    let detail =
                        format!("{at} ends {count} of {id} through {through}, of {own} pending");
                    findings.add(Invariant::Ledger, detail);
                }
                if *end == UnsentEnd::Skipped(SkipReason::Deleted) {
                    self.close(webhook);
                }
            }
            Fact::Settled {
                resolved, lanes, ..
            } => self.settle(at, id, *resolved, lanes, findings),
            Fact::BreakerOpened { .. }
            | Fact::BreakerClosed { .. }
            | Fact::Decided { .. }
            | Fact::Released
            | Fact::NotJudged => {}
        }
    }

    fn count_back(
        &mut self,
        at: u64,
        id: WebhookId,
        webhook: &Webhook<'_>,
        (accepted, skipped): (u64, &[(SkipReason, u64)]),
        findings: &mut Findings,
    ) {
        let Some(back) = self.uncounted.take() else {
            let detail = format!("{at} counts back for {id}, which has nothing to count");
            findings.add(Invariant::Ledger, detail);
            return;
        };
        let mut own: BTreeMap<Option<SkipReason>, u64> = BTreeMap::new();
        for owed in webhook.owed.iter().filter(|o| is_within(Some(back), o)) {
            *own.entry(owed.skipped).or_default() += 1;
            self.count(owed);
        }
        let told = skipped
            .iter()
            .map(|(reason, count)| (Some(*reason), *count));
        let told = told
            .chain([(None, accepted)])
            .filter(|(_, count)| *count > 0);
        let told: BTreeMap<_, _> = told.collect();
        if told != own {
            let detail = format!("{at} counts back {told:?} for {id}, not {own:?}");
            findings.add(Invariant::Ledger, detail);
        }
    }

    fn attempted(&mut self, at: u64, id: WebhookId, attempt: &Attempt, findings: &mut Findings) {
        let sequence = attempt.sequence;
        match attempt.outcome {
            Outcome::Delivered { .. } => self.end(at, id, sequence, End::Delivered, findings),
            Outcome::Exhausted { reason } => {
                let end = End::Unsent(UnsentEnd::Exhausted(reason));
                self.end(at, id, sequence, end, findings);
            }
            Outcome::Failed { .. } | Outcome::ProbeFailed => {
                let lane = self.pending.get(&sequence).copied();
                match (lane, attempt.outcome) {
                    (Some(lane), Outcome::Failed { .. }) => {
                        self.failing.insert(sequence, lane);
                    }
                    (Some(_), _) => {}
                    (None, _) => {
                        let detail = format!("{id} {sequence} fails at {at}, and is not pending");
                        findings.add(Invariant::SingleEnd, detail);
                    }
                }
            }
        }
    }

    fn end(&mut self, at: u64, id: WebhookId, sequence: u64, end: End, findings: &mut Findings) {
        self.failing.remove(&sequence);
        if self.pending.remove(&sequence).is_some() {
            self.ended.insert(sequence, end);
            match end {
                End::Delivered => self.delivered += 1,
                End::Unsent(UnsentEnd::Exhausted(_)) => self.exhausted += 1,
                End::Unsent(UnsentEnd::Skipped(_)) => self.skipped += 1,
            }
        } else if let Some(before) = self.ended.get(&sequence) {
            let detail = format!("{id} {sequence} ends again at {at}, after {before:?}");
            findings.add(Invariant::SingleEnd, detail);
        } else {
            self.beyond += 1;
            let detail = format!("{id} {sequence} ends at {at}, and was never pending");
            findings.add(Invariant::Ledger, detail);
        }
    }

    /// Returns how many ended.
    fn end_pending(
        &mut self,
        at: u64,
        id: WebhookId,
        through: u64,
        end: UnsentEnd,
        kept: &[u64],
        findings: &mut Findings,
    ) -> u64 {
        for sequence in kept {
            match self.pending.get(sequence) {
                Some(lane) if *sequence <= through => {
                    self.failing.insert(*sequence, *lane);
                }
                Some(_) | None => {
                    let detail = format!("{at} keeps {sequence} of {id}, which is not pending");
                    findings.add(Invariant::Ledger, detail);
                }
            }
        }
        let of = self
            .pending
            .range(..=through)
            .map(|(sequence, _)| *sequence);
        let ended: Vec<u64> = of.filter(|sequence| !kept.contains(sequence)).collect();
        for sequence in &ended {
            self.end(at, id, *sequence, End::Unsent(end), findings);
        }
        let resolved = self.resolved.unwrap_or_default().max(through);
        self.resolved = Some(resolved);
        self.behind.retain(|_, from| {
            *from = (*from).max(through.saturating_add(1));
            *from <= resolved
        });
        u64::try_from(ended.len()).unwrap_or(u64::MAX)
    }

    fn close(&mut self, webhook: &Webhook<'_>) {
        self.is_closed = true;
        if let Some(back) = self.uncounted {
            let forgone = webhook.owed.iter().filter(|o| is_within(Some(back), o));
            self.forgone = u64::try_from(forgone.count()).unwrap_or(u64::MAX);
        }
    }

    /// Whoever starts from the entry finds everything that is pending: it is named as failing, or
    /// lies in a lane from where that is read again.
    fn settle(
        &mut self,
        at: u64,
        id: WebhookId,
        resolved: u64,
        lanes: &LanesSettled,
        findings: &mut Findings,
    ) {
        let before = self.resolved.unwrap_or_default();
        if resolved < before {
            let detail = format!("{at} settles {id} through {resolved}, after {before}");
            findings.add(Invariant::Monotone, detail);
        } else {
            // Behind what fails, its lane waits.
            let failing = self.failing.range(before.saturating_add(1)..);
            for (sequence, lane) in failing.take_while(|(sequence, _)| **sequence <= resolved) {
                self.behind
                    .entry(*lane)
                    .or_insert(sequence.saturating_add(1));
            }
            self.resolved = Some(resolved);
        }
        match lanes {
            LanesSettled::All => self.behind.clear(),
            LanesSettled::Some(lanes) => {
                for (lane, from) in lanes {
                    match (from, self.behind.get_mut(lane)) {
                        (Some(from), Some(known)) => *known = from.0.max(*known),
                        (Some(_), None) => {}
                        (None, _) => {
                            self.behind.remove(lane);
                        }
                    }
                }
            }
        }
        let is_found = |(sequence, lane): &(&u64, &LaneHash)| {
            self.failing.contains_key(sequence)
                || self.behind.get(lane).is_some_and(|from| from <= sequence)
        };
        let mut pending = self.pending.range(..=resolved);
        if let Some((sequence, _)) = pending.find(|pending| !is_found(pending)) {
            let detail = format!("{at} settles {id} through {resolved}, but {sequence} is pending");
            findings.add(Invariant::NothingVanishes, detail);
        }
    }
}

fn is_within(range: Option<(u64, u64)>, owed: &Owed) -> bool {
    range.is_some_and(|(from, through)| (from..=through).contains(&owed.sequence))
}

/// What ends without success names a reason that the webhook's status has given by then.
fn may_end(at: u64, id: WebhookId, webhook: &Webhook<'_>, end: UnsentEnd, findings: &mut Findings) {
    let gives = |status: Option<Status>| match end {
        UnsentEnd::Exhausted(ExhaustReason::Deactivated)
        | UnsentEnd::Skipped(SkipReason::Deactivated) => status == Some(Status::Deactivated),
        UnsentEnd::Skipped(SkipReason::Disabled) => status == Some(Status::Disabled),
        UnsentEnd::Skipped(SkipReason::Unverified) => status == Some(Status::PendingVerification),
        UnsentEnd::Skipped(SkipReason::Deleted) => status.is_none(),
        // Only a last attempt uses up the schedule.
        UnsentEnd::Exhausted(ExhaustReason::Schedule) => false,
        UnsentEnd::Exhausted(ExhaustReason::Expired)
        | UnsentEnd::Skipped(SkipReason::Erased | SkipReason::Undecodable) => true,
    };
    let until_now = webhook.configs.iter().filter(|config| config.place <= at);
    if !until_now.map(|config| config.status()).any(gives) {
        let detail = format!("{at} ends deliveries of {id} with {end:?}, without a reason");
        findings.add(Invariant::Schedule, detail);
    }
}
