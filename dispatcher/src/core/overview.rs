//! What an owner tells of one webhook: totals of a span of time, its account, and how many of its
//! deliveries are pending, counted once more.

use serde::{Deserialize, Serialize};
use shared::domain::event::Event;
use shared::domain::state::totals::{HOUR_MS, MINUTE_MS, MINUTES_KEPT_MS, Row, TypeTotals};
use shared::domain::state::{Ledger, PartitionState, Tally, WebhookState};
use shared::ids::{EventTypeHash, Sequence, WebhookId};
use shared::time::Timestamp;

use super::classify::{Class, ConfigHistory};

/// Deliveries named one by one in a state that is copied to be recounted.
const NAMED_MAX: usize = 10_000;

/// A span of time, in buckets of one length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Where the first bucket begins.
    pub from: Timestamp,
    /// The last bucket begins before.
    pub to: Timestamp,
    pub grain: Grain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grain {
    Minute,
    Hour,
}

impl Grain {
    pub const fn millis(self) -> i64 {
        match self {
            Self::Minute => MINUTE_MS,
            Self::Hour => HOUR_MS,
        }
    }

    fn rows(self, totals: &TypeTotals) -> &[Row] {
        match self {
            Self::Minute => &totals.minutes,
            Self::Hour => &totals.hours,
        }
    }
}

impl Span {
    /// By the minute where totals are kept so for the whole span and it is no longer than they are,
    /// else by the hour; it begins with a whole bucket.
    pub fn new(from: Timestamp, to: Timestamp, now: Timestamp) -> Self {
        let is_kept = now.millis_since(from) <= MINUTES_KEPT_MS;
        let grain = if is_kept && to.millis_since(from) <= MINUTES_KEPT_MS {
            Grain::Minute
        } else {
            Grain::Hour
        };
        let into_bucket = from.as_millis().rem_euclid(grain.millis());
        Self {
            from: from.plus_millis(-into_bucket),
            to,
            grain,
        }
    }

    /// When each bucket begins, ascending.
    pub fn buckets(self) -> impl Iterator<Item = Timestamp> {
        let next = move |at: &Timestamp| Some(at.plus_millis(self.grain.millis()));
        std::iter::successors(Some(self.from), next).take_while(move |at| *at < self.to)
    }

    fn start_of(self, row: &Row) -> Timestamp {
        Timestamp::from_millis(i64::from(row.slot).saturating_mul(self.grain.millis()))
    }
}

/// What happened, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    pub delivered: u64,
    /// Requests that failed, probes included.
    pub failed_attempts: u64,
    pub exhausted: u64,
    pub skipped: u64,
}

impl Sums {
    pub fn add(&mut self, other: Self) {
        self.delivered = self.delivered.saturating_add(other.delivered);
        self.failed_attempts = self.failed_attempts.saturating_add(other.failed_attempts);
        self.exhausted = self.exhausted.saturating_add(other.exhausted);
        self.skipped = self.skipped.saturating_add(other.skipped);
    }
}

impl From<Tally> for Sums {
    fn from(tally: Tally) -> Self {
        Self {
            delivered: tally.delivered.into(),
            failed_attempts: tally.failed_attempts.into(),
            exhausted: tally.exhausted.into(),
            skipped: tally.skipped.into(),
        }
    }
}

/// The account since the webhook's creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub accepted: u64,
    pub delivered: u64,
    pub exhausted: u64,
    pub skipped: u64,
    /// Counted once more from EVENTS, where that was possible; else what the ledger leaves.
    pub pending: u64,
    pub is_recounted: bool,
}

impl Account {
    fn of(ledger: &Ledger) -> Self {
        Self {
            accepted: ledger.accepted,
            delivered: ledger.delivered,
            exhausted: ledger.exhausted_in_all(),
            skipped: ledger.skipped_in_all(),
            pending: ledger.pending(),
            is_recounted: false,
        }
    }

    /// What was accepted and is in none of the others: 0, unless a count is wrong.
    pub fn gap(&self) -> i64 {
        let told = [self.delivered, self.pending, self.exhausted, self.skipped];
        let told = told.into_iter().fold(0, u64::saturating_add);
        let gap = i128::from(self.accepted) - i128::from(told);
        // Counts that are that far apart are wrong by any measure.
        i64::try_from(gap).unwrap_or(i64::MAX)
    }
}

/// What the owner tells of a webhook. One that it knows nothing of has no traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    pub account: Account,
    pub consecutive_failures: u32,
    /// Of the span, by the type's hash; `None` for what ended together.
    pub by_type: Vec<(Option<u32>, Sums)>,
    /// Buckets of the span in which something happened, ascending.
    pub buckets: Vec<(Timestamp, Sums)>,
}

impl Overview {
    pub fn of(state: &PartitionState, webhook: WebhookId, span: Span) -> Self {
        let mut overview = Self::default();
        if let Some(told) = state.webhooks.get(&webhook) {
            overview.account = Account::of(&told.ledger);
            overview.consecutive_failures = told.health.consecutive_failures;
        }
        let mut buckets = std::collections::BTreeMap::<Timestamp, Sums>::new();
        let totals = state.totals.webhooks.get(&webhook);
        for (event_type, totals) in totals.iter().flat_map(|totals| &totals.types) {
            let mut of_type = Sums::default();
            for row in span.grain.rows(totals) {
                let at = span.start_of(row);
                if span.from <= at && at < span.to {
                    of_type.add(row.tally.into());
                    buckets.entry(at).or_default().add(row.tally.into());
                }
            }
            if of_type != Sums::default() {
                let hash = event_type.map(|EventTypeHash(hash)| hash);
                overview.by_type.push((hash, of_type));
            }
        }
        overview.buckets = buckets.into_iter().collect();
        overview
    }

    pub fn recounted(&mut self, pending: u64) {
        self.account.pending = pending;
        self.account.is_recounted = true;
    }
}

/// Counts a webhook's pending deliveries anew: each event that EVENTS has and the configurations
/// accept, unless the journal says that it has ended. The ledger has no part in it.
#[derive(Clone, Debug)]
pub struct Recount {
    told: WebhookState,
    history: ConfigHistory,
    after: Sequence,
    through: Sequence,
    pending: u64,
}

impl Recount {
    /// Of what the state tells, as far as its partition is classified. `None` where it cannot be
    /// made: creation reached back to what is not counted yet, or too much is pending to be copied.
    pub fn new(told: &WebhookState, history: ConfigHistory, through: Sequence) -> Option<Self> {
        let named = told.failing.len() + told.ended.len() + told.behind.len();
        if told.uncounted.is_some() || named > NAMED_MAX {
            return None;
        }
        let behind = told.behind.values().copied();
        let first = behind.fold(told.resolved.next(), Sequence::min);
        // What failed below was read and accepted then; nothing else there is pending.
        let failing = told.failing.range(..first).count();
        Some(Self {
            told: told.clone(),
            history,
            after: first.previous(),
            through,
            pending: u64::try_from(failing).unwrap_or(u64::MAX),
        })
    }

    /// The project's events after the first and through the second are to be taken, once each.
    pub fn range(&self) -> (Sequence, Sequence) {
        (self.after, self.through)
    }

    pub fn take(&mut self, sequence: Sequence, event: &Event) {
        let is_accepted = self.history.classify(sequence, event) == Class::Accepted;
        if is_accepted && !self.told.has_ended(sequence, event.lane) {
            self.pending = self.pending.saturating_add(1);
        }
    }

    pub fn pending(&self) -> u64 {
        self.pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::domain::state::totals::{HOURS_KEPT_MS, WebhookTotals};

    const WEBHOOK: WebhookId = WebhookId::from_bytes([4; 16]);
    /// Within an hour and within a minute.
    const NOW: Timestamp = Timestamp::from_millis(486_155 * HOUR_MS + 30 * MINUTE_MS + 1_234);

    fn row(slot: i64, delivered: u32) -> Row {
        Row {
            slot: u32::try_from(slot).unwrap(),
            tally: Tally {
                delivered,
                failed_attempts: 1,
                ..Tally::default()
            },
        }
    }

    fn state() -> PartitionState {
        let minute = NOW.as_millis() / MINUTE_MS;
        let hour = NOW.as_millis() / HOUR_MS;
        let named = TypeTotals {
            minutes: vec![row(minute - 179, 1), row(minute, 2)],
            hours: vec![row(hour - 719, 4), row(hour - 3, 1), row(hour, 2)],
        };
        let unnamed = TypeTotals {
            minutes: vec![row(minute, 8)],
            hours: vec![row(hour, 8)],
        };
        let types = [(Some(EventTypeHash(7)), named), (None, unnamed)].into();
        let mut state = PartitionState::default();
        state
            .totals
            .webhooks
            .insert(WEBHOOK, WebhookTotals { types });
        state
    }

    #[test]
    fn spans_are_by_the_minute_as_long_as_those_are_kept() {
        let hours_ago = |hours: i64| NOW.plus_millis(-hours * HOUR_MS);
        for (from, to, grain, buckets) in [
            (hours_ago(3), NOW, Grain::Minute, 181),
            (hours_ago(1), NOW, Grain::Minute, 61),
            (hours_ago(0), NOW.plus_millis(1), Grain::Minute, 1),
            (hours_ago(4), hours_ago(2), Grain::Hour, 3),
            (
                hours_ago(1),
                NOW.plus_millis(HOURS_KEPT_MS),
                Grain::Hour,
                722,
            ),
            (hours_ago(720), NOW, Grain::Hour, 721),
        ] {
            let span = Span::new(from, to, NOW);
            assert_eq!(span.grain, grain, "{from} to {to}");
            assert_eq!(span.buckets().count(), buckets, "{from} to {to}");
            assert!(span.from <= from && from.millis_since(span.from) < grain.millis());
            assert!(
                span.buckets()
                    .all(|at| at.as_millis() % grain.millis() == 0)
            );
        }
    }

    #[test]
    fn an_overview_has_what_lies_in_its_span_by_type_and_by_bucket() {
        let state = state();
        for (back_ms, named, buckets) in [
            (0, 2, vec![10]),
            (3 * HOUR_MS - MINUTE_MS, 3, vec![1, 10]),
            (3 * HOUR_MS + 1, 3, vec![1, 10]),
            (30 * 24 * HOUR_MS, 7, vec![4, 1, 10]),
        ] {
            let span = Span::new(NOW.plus_millis(-back_ms), NOW.plus_millis(1), NOW);
            let overview = Overview::of(&state, WEBHOOK, span);
            let by_type: Vec<_> = overview
                .by_type
                .iter()
                .map(|(hash, sums)| (*hash, sums.delivered))
                .collect();
            assert_eq!(by_type, [(None, 8), (Some(7), named)], "{span:?}");
            let told: Vec<_> = overview
                .buckets
                .iter()
                .map(|(_, sums)| sums.delivered)
                .collect();
            assert_eq!(told, buckets, "{span:?}");
            assert!(
                overview
                    .buckets
                    .iter()
                    .all(|(at, _)| span.buckets().any(|bucket| bucket == *at))
            );
        }
        // The end of a span is not in it.
        let span = Span::new(NOW.plus_millis(-HOUR_MS), NOW.plus_millis(-2_000), NOW);
        assert_eq!(Overview::of(&state, WEBHOOK, span).by_type, []);
        let other = WebhookId::from_bytes([5; 16]);
        assert_eq!(Overview::of(&state, other, span), Overview::default());
    }
}
