//! What became of a webhook's deliveries, by the minute and by the hour and by type of event: what
//! an overview shows, which no delivery depends on.
//!
//! Totals are apart from [`super::WebhookState`], which actors copy, and only of webhooks with
//! traffic: an idle one costs nothing. They are a fold like all else: time is that of the entries,
//! and what is too old is forgotten by the journaled `now`. What ends together has no type, since
//! the entry that ends it names none.
//!
//! A row takes 20 bytes. Thirty days of traffic in three types in each minute take 54 KiB as rows,
//! 75 KiB with the room that vectors keep for growth, and 28 KiB in a snapshot.

use std::collections::{BTreeMap, HashMap};

use crate::domain::journal::JournalEntry;
use crate::ids::{EventTypeHash, WebhookId};
use crate::time::Timestamp;

use super::Ledger;

pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
/// How far back totals by the minute reach; up to an hour more is kept.
pub const MINUTES_KEPT_MS: i64 = 3 * HOUR_MS;
/// How far back totals by the hour reach.
pub const HOURS_KEPT_MS: i64 = 30 * DAY_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Types of one webhook that are told apart, more than the catalog has; what is of others counts
/// without a type.
const TYPES_MAX: usize = 100;
/// Rows of one partition, 80 MB. Above, the oldest days are forgotten before their time: totals may
/// not make a state larger than a snapshot may be.
const ROWS_MAX: usize = 4_000_000;

/// The totals of a partition's webhooks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub webhooks: HashMap<WebhookId, WebhookTotals>,
}

/// The totals of one webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookTotals {
    /// `None`: of what ended together.
    pub types: BTreeMap<Option<EventTypeHash>, TypeTotals>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeTotals {
    /// Rows of a minute, ascending.
    pub minutes: Vec<Row>,
    /// Rows of an hour, ascending.
    pub hours: Vec<Row>,
}

/// What happened in a span of time; spans in which nothing did have no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Minutes or hours since the Unix epoch.
    pub slot: u32,
    pub tally: Tally,
}

/// Each count stops at its type's maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub delivered: u32,
    /// Requests that failed: probes, and the last attempts of what is exhausted, are among them.
    pub failed_attempts: u32,
    pub exhausted: u32,
    pub skipped: u32,
}

impl Tally {
    /// What an entry came to, by what it moved in the ledger.
    pub(super) fn of(entry: &JournalEntry, before: &Ledger, after: &Ledger) -> Self {
        let moved = |before: u64, after: u64| saturated(after.saturating_sub(before));
        Self {
            delivered: moved(before.delivered, after.delivered),
            failed_attempts: u32::from(is_failure(entry)),
            exhausted: moved(before.exhausted_in_all(), after.exhausted_in_all()),
            skipped: moved(before.skipped_in_all(), after.skipped_in_all()),
        }
    }

    pub(super) fn skipped(count: u64) -> Self {
        Self {
            skipped: saturated(count),
            ..Self::default()
        }
    }

    fn add(&mut self, other: Self) {
        let Self {
            delivered,
            failed_attempts,
            exhausted,
            skipped,
        } = other;
        self.delivered = self.delivered.saturating_add(delivered);
        self.failed_attempts = self.failed_attempts.saturating_add(failed_attempts);
        self.exhausted = self.exhausted.saturating_add(exhausted);
        self.skipped = self.skipped.saturating_add(skipped);
    }
}

impl Totals {
    /// Counts what happened at `at`, of which the journal tells at `now`.
    pub(super) fn add(
        &mut self,
        webhook: WebhookId,
        event_type: Option<EventTypeHash>,
        (at, now): (Timestamp, Timestamp),
        tally: Tally,
    ) {
        // The usual entry of a webhook that only accepts or settles says nothing here.
        if tally == Tally::default() {
            return;
        }
        // An attempt can end a little after the `now` of its pack, by a clock that was set back.
        let at = at.min(now);
        let totals = self
            .webhooks
            .entry(webhook)
            .or_default()
            .of_type(event_type);
        if now.millis_since(at) < MINUTES_KEPT_MS {
            add(&mut totals.minutes, slot(at, MINUTE_MS), tally);
        }
        if now.millis_since(at) < HOURS_KEPT_MS {
            add(&mut totals.hours, slot(at, HOUR_MS), tally);
        }
    }

    pub(super) fn remove(&mut self, webhook: WebhookId) {
        self.webhooks.remove(&webhook);
    }

    /// The journaled `now` went from `before` to `now`. Once an hour what is too old is forgotten.
    pub(super) fn pass(&mut self, before: Timestamp, now: Timestamp) {
        if slot(before, HOUR_MS) != slot(now, HOUR_MS) {
            self.forget(now, ROWS_MAX);
        }
    }

    fn forget(&mut self, now: Timestamp, rows_max: usize) {
        let mut kept_ms = HOURS_KEPT_MS;
        while self.forget_before(now, kept_ms) > rows_max && kept_ms > DAY_MS {
            kept_ms -= DAY_MS;
        }
    }

    /// How many rows are left.
    fn forget_before(&mut self, now: Timestamp, hours_kept_ms: i64) -> usize {
        let first_minute = slot(now.plus_millis(-MINUTES_KEPT_MS), MINUTE_MS);
        let first_hour = slot(now.plus_millis(-hours_kept_ms), HOUR_MS);
        let mut rows = 0_usize;
        self.webhooks.retain(|_, webhook| {
            webhook.types.retain(|_, totals| {
                forget(&mut totals.minutes, first_minute);
                forget(&mut totals.hours, first_hour);
                rows = rows.saturating_add(totals.minutes.len() + totals.hours.len());
                !totals.hours.is_empty()
            });
            !webhook.types.is_empty()
        });
        rows
    }
}

impl WebhookTotals {
    fn of_type(&mut self, event_type: Option<EventTypeHash>) -> &mut TypeTotals {
        let is_room = self.types.len() < TYPES_MAX || self.types.contains_key(&event_type);
        let event_type = event_type.filter(|_| is_room);
        self.types.entry(event_type).or_default()
    }
}

/// Entries come almost in the order of time, so that the row is mostly the last.
fn add(rows: &mut Vec<Row>, slot: u32, tally: Tally) {
    let at = rows.iter().rposition(|row| row.slot <= slot);
    match at.and_then(|at| rows.get_mut(at)) {
        Some(row) if row.slot == slot => row.tally.add(tally),
        Some(_) | None => rows.insert(at.map_or(0, |at| at + 1), Row { slot, tally }),
    }
}

fn forget(rows: &mut Vec<Row>, first: u32) {
    let gone = rows.partition_point(|row| row.slot < first);
    rows.drain(..gone);
}

/// Times before the epoch share its first slot.
fn slot(at: Timestamp, span_ms: i64) -> u32 {
    u32::try_from(at.as_millis().div_euclid(span_ms).max(0)).unwrap_or(u32::MAX)
}

fn saturated(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn is_failure(entry: &JournalEntry) -> bool {
    match entry {
        JournalEntry::AttemptFailed { .. }
        | JournalEntry::Exhausted { .. }
        | JournalEntry::ProbeFailed { .. } => true,
        JournalEntry::ConfigApplied { .. }
        | JournalEntry::CountedBack { .. }
        | JournalEntry::Delivered { .. }
        | JournalEntry::Ended { .. }
        | JournalEntry::PendingEnded { .. }
        | JournalEntry::BreakerOpened { .. }
        | JournalEntry::BreakerClosed { .. }
        | JournalEntry::Deactivated { .. }
        | JournalEntry::Quarantined { .. }
        | JournalEntry::Settled { .. }
        | JournalEntry::AccountsProjected { .. }
        | JournalEntry::Released
        | JournalEntry::Replay { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::state::PartitionState;

    const WEBHOOK: WebhookId = WebhookId::from_bytes([4; 16]);
    const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);
    const ONE: Tally = Tally {
        delivered: 1,
        failed_attempts: 0,
        exhausted: 0,
        skipped: 0,
    };

    fn event_type(number: u32) -> Option<EventTypeHash> {
        Some(EventTypeHash(number))
    }

    fn of_type(totals: &Totals, event_type: Option<EventTypeHash>) -> &TypeTotals {
        totals
            .webhooks
            .get(&WEBHOOK)
            .unwrap()
            .types
            .get(&event_type)
            .unwrap()
    }

    fn slots(rows: &[Row]) -> Vec<(u32, u32)> {
        rows.iter()
            .map(|row| (row.slot, row.tally.delivered))
            .collect()
    }

    #[test]
    fn rows_are_found_whatever_the_order_of_entries() {
        let minute = slot(NOW, MINUTE_MS);
        let mut totals = Totals::default();
        for minutes_ago in [2, 0, 0, 1, 2, 5, 0] {
            let at = NOW.plus_millis(-minutes_ago * MINUTE_MS);
            totals.add(WEBHOOK, event_type(1), (at, NOW), ONE);
        }
        // One that says that it ended later than its pack was made.
        totals.add(WEBHOOK, event_type(1), (NOW.plus_millis(HOUR_MS), NOW), ONE);
        let rows = [
            (minute - 5, 1),
            (minute - 2, 2),
            (minute - 1, 1),
            (minute, 4),
        ];
        assert_eq!(slots(&of_type(&totals, event_type(1)).minutes), rows);
        let hours = slots(&of_type(&totals, event_type(1)).hours);
        let hours: u32 = hours.iter().map(|(_, count)| count).sum();
        assert_eq!(hours, 8);
    }

    #[test]
    fn what_is_too_old_is_neither_counted_nor_kept_and_an_idle_webhook_goes_altogether() {
        let mut totals = Totals::default();
        let count = |totals: &mut Totals, ago_ms: i64| {
            totals.add(WEBHOOK, event_type(1), (NOW.plus_millis(-ago_ms), NOW), ONE);
        };
        count(&mut totals, HOURS_KEPT_MS);
        assert!(of_type(&totals, event_type(1)).hours.is_empty());
        count(&mut totals, HOURS_KEPT_MS - 1);
        count(&mut totals, MINUTES_KEPT_MS);
        assert!(of_type(&totals, event_type(1)).minutes.is_empty());
        count(&mut totals, MINUTES_KEPT_MS - 1);
        count(&mut totals, 0);
        let told = of_type(&totals, event_type(1)).clone();
        assert_eq!((told.minutes.len(), told.hours.len()), (2, 3));
        // Nothing is looked at within an hour.
        let hour_ends = NOW.plus_millis(HOUR_MS - 1 - NOW.as_millis().rem_euclid(HOUR_MS));
        totals.pass(NOW, hour_ends);
        assert_eq!(of_type(&totals, event_type(1)), &told);
        let next = hour_ends.plus_millis(1);
        totals.pass(hour_ends, next);
        let first_minute = slot(next, MINUTE_MS) - 180;
        let kept = of_type(&totals, event_type(1));
        assert!(kept.minutes.iter().all(|row| row.slot >= first_minute));
        assert_eq!((kept.minutes.len(), kept.hours.len()), (1, 2));
        totals.pass(next, next.plus_millis(2 * HOURS_KEPT_MS));
        assert_eq!(totals, Totals::default());
    }

    #[test]
    fn types_beyond_the_bound_are_not_told_apart() {
        let mut totals = Totals::default();
        let types = u32::try_from(TYPES_MAX).unwrap();
        for number in 0..types + 5 {
            totals.add(WEBHOOK, event_type(number), (NOW, NOW), ONE);
            totals.add(WEBHOOK, event_type(0), (NOW, NOW), ONE);
        }
        assert_eq!(
            totals.webhooks.get(&WEBHOOK).unwrap().types.len(),
            TYPES_MAX + 1
        );
        assert_eq!(of_type(&totals, None).hours[0].tally.delivered, 5);
        assert_eq!(
            of_type(&totals, event_type(0)).hours[0].tally.delivered,
            types + 6
        );
    }

    /// What the module says of its size.
    #[test]
    fn a_month_of_traffic_in_three_types_stays_within_its_size() {
        let mut totals = Totals::default();
        let mut now = NOW;
        for _ in 0..35 * 24 * 60 {
            for number in 0..3 {
                totals.add(WEBHOOK, event_type(number), (now, now), ONE);
            }
            let before = now;
            now = before.plus_millis(MINUTE_MS);
            totals.pass(before, now);
        }
        let (mut used, mut taken) = (0, 0);
        for of_type in totals
            .webhooks
            .values()
            .flat_map(|webhook| webhook.types.values())
        {
            for rows in [&of_type.minutes, &of_type.hours] {
                used += rows.len() * size_of::<Row>();
                taken += rows.capacity() * size_of::<Row>();
            }
        }
        assert!(used <= 54 << 10, "{used}");
        assert!(taken <= 75 << 10, "{taken}");
        let state = PartitionState {
            totals,
            ..PartitionState::default()
        };
        let encoded = crate::codec::encode_state(&state).len();
        assert!(encoded <= 28 << 10, "{encoded}");
    }

    #[test]
    fn a_partition_with_too_many_rows_forgets_the_oldest_days() {
        let mut totals = Totals::default();
        for day in 0..30 {
            let at = NOW.plus_millis(-day * DAY_MS);
            totals.add(WEBHOOK, event_type(1), (at, NOW), ONE);
        }
        // A minute of today, and ten days.
        totals.forget(NOW, 11);
        let kept = of_type(&totals, event_type(1));
        assert_eq!((kept.minutes.len(), kept.hours.len()), (1, 10));
        let newest = kept.hours.last().unwrap().slot;
        assert_eq!(newest, slot(NOW, HOUR_MS));
    }
}
