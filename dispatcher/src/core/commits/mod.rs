//! What the partition's committer packs next. One pack is under way at a time, the next one
//! gathers meanwhile; pack n + 1 is made only once n is known stored (`protocol.md`, rule 8).

use std::collections::{BTreeMap, HashMap, VecDeque};

use shared::domain::journal::{
    Checkpoint, Counted, EntryPlace, ExhaustReason, JournalEntry, Links, Pack, SkipReason,
    UnsentEnd,
};
use shared::domain::registry::DecidedAt;
use shared::domain::state::{PartitionState, WebhookState};
use shared::domain::webhook::Status;
use shared::ids::{Epoch, Position, Sequence, WebhookId};
use shared::limits::{PACK_BYTES_MAX, UNJOURNALED_AGE_MS_MAX, UNJOURNALED_MAX};
use shared::time::Timestamp;

use super::pack_size::{COUNTED_BYTES, entry_bytes};

mod expiry;
mod owed;

use expiry::Expiring;
pub use expiry::{EXPIRED, Expiry};
pub use owed::Owed;

/// Counts of one pack.
const COUNTS_MAX: usize = PACK_BYTES_MAX / 2 / COUNTED_BYTES;
/// Entries of one pack; their index is a u16.
const PACK_ENTRIES_MAX: usize = 4_000;

/// An entry that is not stored has no place yet; whoever starts from it asks for none.
const UNPLACED: EntryPlace = EntryPlace {
    pack: Sequence(0),
    index: 0,
};

/// How far the partition is classified, as a pack says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    pub position: Position,
    /// The last event that was seen.
    pub checkpoint: Option<Checkpoint>,
}

/// Events counted, by webhook and why they are skipped, if they are.
type Counts = BTreeMap<(WebhookId, Option<SkipReason>), u64>;

/// An entry by which what follows is classified. A pack without it says nothing of what follows:
/// were the entry lost, a new owner would classify that otherwise.
#[derive(Debug)]
struct Turn {
    /// Of the entry.
    ordinal: u64,
    /// When it was pushed.
    classified: Classified,
    /// From the turn before to this one.
    counted: Counts,
}

/// Entries on their way into JOURNAL, and the state that those have which arrived.
#[derive(Debug)]
pub struct Commits {
    epoch: Epoch,
    /// Number of the pack that is made next.
    next_number: u64,
    classified: Classified,
    /// What was counted since the last pack, or since the last of `turns`.
    counted: Counts,
    /// Entries on their way that change how events are classified, in order.
    turns: VecDeque<Turn>,
    waiting: VecDeque<(Timestamp, JournalEntry)>,
    under_way: Option<Pack>,
    under_way_since: Option<Timestamp>,
    /// A pack is to be made even without entries.
    flush: bool,
    /// Of entries in the pack under way.
    links: HashMap<WebhookId, Links>,
    /// Deliveries pending by everything that was counted and pushed; none of zero.
    pending: HashMap<WebhookId, u64>,
    /// Ends of all that is pending which the configuration asks for and nobody pushed yet.
    owed: HashMap<WebhookId, Owed>,
    /// What EVENTS is about to drop by age, while it is counted and until its end is pushed.
    expiring: HashMap<WebhookId, Expiring>,
    /// How far that end was pushed for those who have more pending.
    expired: HashMap<WebhookId, Sequence>,
    decisions: Vec<Decision>,
    told: Vec<Told>,
    /// What the packs that are known stored fold to.
    state: PartitionState,
    pushed: u64,
    stored: u64,
}

/// What an owner decided about a webhook, as it was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub webhook: WebhookId,
    pub from: Sequence,
    pub status: Status,
}

/// A stored entry that others are to be told of: by an event, in the registry, or by both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub webhook: WebhookId,
    /// By whom, and where it lies in JOURNAL.
    pub at: DecidedAt,
    pub entry: JournalEntry,
    pub occurred_at: Timestamp,
    /// When its pack was stored.
    pub consecutive_failures: u32,
}

impl Told {
    /// `None` for entries that nobody else is told of.
    pub fn of(entry: &JournalEntry, at: DecidedAt, state: &PartitionState) -> Option<Self> {
        let (webhook, occurred_at) = match entry {
            JournalEntry::BreakerOpened { webhook, at, .. }
            | JournalEntry::BreakerClosed { webhook, at }
            | JournalEntry::Deactivated { webhook, at, .. }
            | JournalEntry::Quarantined { webhook, at, .. } => (*webhook, *at),
            JournalEntry::ConfigApplied { .. }
            | JournalEntry::CountedBack { .. }
            | JournalEntry::Delivered { .. }
            | JournalEntry::AttemptFailed { .. }
            | JournalEntry::Exhausted { .. }
            | JournalEntry::Ended { .. }
            | JournalEntry::PendingEnded { .. }
            | JournalEntry::ProbeFailed { .. }
            | JournalEntry::Settled { .. }
            | JournalEntry::AccountsProjected { .. }
            | JournalEntry::Released
            | JournalEntry::Replay { .. } => return None,
        };
        let known = state.webhooks.get(&webhook);
        Some(Self {
            webhook,
            at,
            entry: entry.clone(),
            occurred_at,
            consecutive_failures: known.map_or(0, |known| known.health.consecutive_failures),
        })
    }
}

impl Commits {
    /// For a new owner, with the state that it folded.
    pub fn new(epoch: Epoch, classified: Classified, state: PartitionState) -> Self {
        let pending = state
            .webhooks
            .iter()
            .map(|(id, webhook)| (*id, webhook.ledger.pending()))
            .filter(|(_, pending)| *pending > 0)
            .collect();
        Self {
            epoch,
            next_number: 1,
            classified,
            counted: BTreeMap::new(),
            turns: VecDeque::new(),
            waiting: VecDeque::new(),
            under_way: None,
            under_way_since: None,
            flush: false,
            links: HashMap::new(),
            pending,
            owed: HashMap::new(),
            expiring: HashMap::new(),
            expired: HashMap::new(),
            decisions: Vec::new(),
            told: Vec::new(),
            state,
            pushed: 0,
            stored: 0,
        }
    }

    /// What the stored packs fold to.
    pub fn state(&self) -> &PartitionState {
        &self.state
    }

    /// A webhook's part of the state, with everything that was pushed about it: what an actor that
    /// starts now must know, stored or not. Its ledger is that of what is stored.
    pub fn pushed_state(&self, webhook: WebhookId) -> Option<WebhookState> {
        let mut state = self.state.webhooks.get(&webhook).cloned();
        let under_way = self.under_way.iter().flat_map(|pack| &pack.entries);
        let waiting = self.waiting.iter().map(|(_, entry)| entry);
        for entry in under_way.chain(waiting) {
            if entry.webhook() != Some(webhook) {
                continue;
            }
            if entry.closes_ledger() {
                state = None;
            } else if matches!(entry, JournalEntry::ConfigApplied { .. }) {
                state.get_or_insert_default().apply(UNPLACED, entry);
            } else if let Some(state) = &mut state {
                state.apply(UNPLACED, entry);
            }
        }
        state
    }

    /// Deliveries pending by everything that was counted and pushed.
    pub fn pending(&self, webhook: WebhookId) -> u64 {
        self.pending.get(&webhook).copied().unwrap_or(0)
    }

    /// Classification has got so far, and counted this.
    pub fn count(&mut self, classified: Classified, counted: &[Counted]) {
        self.classified = classified;
        for counted in counted {
            let key = (counted.webhook, counted.skipped);
            *self.counted.entry(key).or_default() += counted.count;
            if counted.skipped.is_none() {
                *self.pending.entry(counted.webhook).or_default() += counted.count;
                if let Some(owed) = self.owed.get_mut(&counted.webhook) {
                    owed.accepted_since += counted.count;
                }
            }
        }
    }

    /// Decisions that were pushed since the last call: they hold for what is classified next.
    pub fn take_decisions(&mut self) -> Vec<Decision> {
        std::mem::take(&mut self.decisions)
    }

    /// Entries that others are told of and that were stored since the last call.
    pub fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// Adds an entry and gives its ordinal, which [`Self::stored`] reaches once it is committed.
    pub fn push(&mut self, now: Timestamp, mut entry: JournalEntry) -> u64 {
        if self.complete(&mut entry) {
            self.settle_pending(&entry);
            self.pushed += 1;
            if turns(&entry) {
                self.turns.push_back(Turn {
                    ordinal: self.pushed,
                    classified: self.classified,
                    counted: std::mem::take(&mut self.counted),
                });
            }
            self.waiting.push_back((now, entry));
        }
        self.pushed
    }

    /// Fills in what only the writer knows; `false` when there is nothing to say.
    fn complete(&mut self, entry: &mut JournalEntry) -> bool {
        let classified = self.classified.position;
        match entry {
            JournalEntry::Deactivated { webhook, from, .. } => {
                from.sequence = classified.sequence.next();
                let (webhook, from) = (*webhook, from.sequence);
                let status = Status::Deactivated;
                self.decisions.push(Decision {
                    webhook,
                    from,
                    status,
                });
                let end = UnsentEnd::Exhausted(ExhaustReason::Deactivated);
                self.owed.remove(&webhook);
                self.owe_end(webhook, end);
                true
            }
            JournalEntry::Quarantined { webhook, from, .. } => {
                from.sequence = classified.sequence.next();
                self.decisions.push(Decision {
                    webhook: *webhook,
                    from: from.sequence,
                    status: Status::Quarantined,
                });
                true
            }
            JournalEntry::PendingEnded {
                webhook,
                through,
                end: UnsentEnd::Exhausted(ExhaustReason::Expired),
                count,
                kept,
            } => {
                let Some(counted) = self.take_expired(*webhook, *through) else {
                    return false;
                };
                let kept = u64::try_from(kept.len()).unwrap_or(u64::MAX);
                *count = counted.saturating_sub(kept);
                // Of none too: whoever pushed it need not read what lies there.
                true
            }
            JournalEntry::PendingEnded {
                webhook,
                through,
                end,
                count,
                kept,
            } => {
                let pending = self.pending.get(webhook).copied().unwrap_or(0);
                // What is left of it is among those that end here.
                self.expiring.remove(webhook);
                if *end == UnsentEnd::Skipped(SkipReason::Deleted) {
                    self.owed.remove(webhook);
                    *through = classified.sequence;
                    *count = pending;
                    return true;
                }
                let Some(owed) = self.owed.remove(webhook) else {
                    return false;
                };
                *through = owed.through;
                *end = owed.end;
                let kept = u64::try_from(kept.len()).unwrap_or(u64::MAX);
                *count = pending
                    .saturating_sub(owed.accepted_since)
                    .saturating_sub(kept);
                // Of none too: whoever pushed it takes all through there for ended, and so says
                // how far a replay reaches.
                *count > 0 || kept > 0 || self.resolves(*webhook, *through)
            }
            JournalEntry::ConfigApplied { .. }
            | JournalEntry::CountedBack { .. }
            | JournalEntry::Delivered { .. }
            | JournalEntry::AttemptFailed { .. }
            | JournalEntry::Exhausted { .. }
            | JournalEntry::Ended { .. }
            | JournalEntry::ProbeFailed { .. }
            | JournalEntry::BreakerOpened { .. }
            | JournalEntry::BreakerClosed { .. }
            | JournalEntry::Settled { .. }
            | JournalEntry::AccountsProjected { .. }
            | JournalEntry::Released
            | JournalEntry::Replay { .. } => true,
        }
    }

    /// Whether an end of all through there moves how far everything is known to have ended.
    fn resolves(&self, webhook: WebhookId, through: Sequence) -> bool {
        // What is not counted yet is still to be pending.
        self.pushed_state(webhook)
            .is_some_and(|state| state.uncounted.is_none() && state.resolved < through)
    }

    fn settle_pending(&mut self, entry: &JournalEntry) {
        if let JournalEntry::CountedBack {
            webhook, accepted, ..
        } = entry
        {
            *self.pending.entry(*webhook).or_default() += accepted;
            self.expired.remove(webhook);
        }
        if let (Some(expiring), Some(ended)) = (
            entry.webhook().and_then(|id| self.expiring.get_mut(&id)),
            entry.ended(),
        ) {
            expiring.ended(ended);
        }
        let ends = entry.ends();
        if let Some(webhook) = entry.webhook().filter(|_| ends > 0)
            && let Some(pending) = self.pending.get_mut(&webhook)
        {
            debug_assert!(*pending >= ends, "more ended than pending: {entry:?}");
            *pending = pending.saturating_sub(ends);
            if *pending == 0 {
                self.pending.remove(&webhook);
                self.expired.remove(&webhook);
            }
        }
    }

    /// Ordinal of the last entry that was added.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Ordinal of the last entry that is known stored.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    pub fn is_empty(&self) -> bool {
        self.pushed == self.stored
    }

    /// A pack is made even if only counts have moved, or nothing at all.
    pub fn flush(&mut self) {
        self.flush = true;
    }

    /// Whether counts wait for a pack.
    pub fn has_counts(&self) -> bool {
        !self.counted.is_empty() || self.turns.iter().any(|turn| !turn.counted.is_empty())
    }

    /// Whether attempts may start (rule 19): few enough entries, none too old.
    pub fn gate_is_open(&self, now: Timestamp) -> bool {
        let under_way = self.under_way.as_ref().map_or(0, |pack| pack.entries.len());
        let unjournaled = self.waiting.len() + under_way;
        let oldest = self
            .under_way_since
            .or_else(|| self.waiting.front().map(|(since, _)| *since));
        unjournaled < UNJOURNALED_MAX
            && oldest.is_none_or(|since| now.millis_since(since) <= UNJOURNALED_AGE_MS_MAX)
    }

    /// The next pack; `None` while one is under way or nothing waits.
    pub fn next_pack(&mut self, now: Timestamp) -> Option<&Pack> {
        if self.under_way.is_some() || (self.waiting.is_empty() && !self.flush) {
            return None;
        }
        self.under_way_since = self.waiting.front().map(|(since, _)| *since);
        if let Some(begun) = self.begin_counts(now) {
            return Some(self.under_way.insert(begun));
        }
        self.flush = false;
        // All counts that there may be go with the first entries.
        let turning: usize = self.turns.iter().map(|turn| turn.counted.len()).sum();
        let mut bytes = turning
            .saturating_add(self.counted.len())
            .saturating_mul(COUNTED_BYTES);
        let mut entries: Vec<JournalEntry> = Vec::new();
        while let Some((_, entry)) = self.waiting.front() {
            bytes += entry_bytes(entry);
            let full = bytes > PACK_BYTES_MAX || entries.len() >= PACK_ENTRIES_MAX;
            if full && !entries.is_empty() {
                break;
            }
            let Some((_, mut entry)) = self.waiting.pop_front() else {
                break;
            };
            self.link(&mut entry, entries.len());
            entries.push(entry);
        }
        let (classified, counts) = self.counted_by_pack();
        Some(self.under_way.insert(Pack {
            epoch: self.epoch,
            number: self.next_number,
            at: now,
            classified: classified.position,
            checkpoint: classified.checkpoint,
            counted: listed(counts),
            counts_continue: false,
            entries,
        }))
    }

    /// A pack of counts alone, if there are too many to go with entries: those before the first
    /// turn, which the next pack completes.
    fn begin_counts(&mut self, now: Timestamp) -> Option<Pack> {
        let first = match self.turns.front_mut() {
            Some(turn) => &mut turn.counted,
            None => &mut self.counted,
        };
        if first.len() <= COUNTS_MAX {
            return None;
        }
        let begun: Counts = std::iter::from_fn(|| first.pop_first())
            .take(COUNTS_MAX)
            .collect();
        // What is missing is owed even if no entry waits.
        self.flush = true;
        Some(Pack {
            epoch: self.epoch,
            number: self.next_number,
            at: now,
            classified: self.classified.position,
            checkpoint: self.classified.checkpoint,
            counted: listed(begun),
            counts_continue: true,
            entries: Vec::new(),
        })
    }

    /// What a pack says of which everything but `waiting` is taken: all that was classified before
    /// the first turn that waits, or before more counts than go into a pack.
    fn counted_by_pack(&mut self) -> (Classified, Counts) {
        let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        let packed = self.pushed.saturating_sub(waiting);
        let mut counts = Counts::new();
        let mut add = |counted: &mut Counts| {
            for (key, count) in std::mem::take(counted) {
                *counts.entry(key).or_default() += count;
            }
        };
        let mut reached = None;
        while let Some(turn) = self.turns.front_mut() {
            if let Some(reached) = reached.filter(|_| turn.counted.len() > COUNTS_MAX) {
                self.flush = true;
                return (reached, counts);
            }
            add(&mut turn.counted);
            if turn.ordinal > packed {
                return (turn.classified, counts);
            }
            reached = Some(turn.classified);
            self.turns.pop_front();
        }
        if let Some(reached) = reached.filter(|_| self.counted.len() > COUNTS_MAX) {
            self.flush = true;
            return (reached, counts);
        }
        add(&mut self.counted);
        (self.classified, counts)
    }

    /// The pack under way is stored at `at`.
    pub fn pack_stored(&mut self, at: Sequence) {
        let Some(pack) = self.under_way.take() else {
            return;
        };
        self.next_number += 1;
        self.stored += u64::try_from(pack.entries.len()).unwrap_or(0);
        self.under_way_since = None;
        // Links into this pack now stand in the state.
        self.links.clear();
        let folded = self.state.apply(at, &pack);
        debug_assert!(folded.is_ok(), "our own packs have no gap");
        for (index, entry) in (0..).zip(&pack.entries) {
            let place = EntryPlace { pack: at, index };
            let epoch = self.epoch;
            let told = Told::of(entry, DecidedAt { epoch, place }, &self.state);
            self.told.extend(told);
        }
    }

    /// Links the entry, the pack's at `index`, to its webhook's previous ones.
    fn link(&mut self, entry: &mut JournalEntry, index: usize) {
        let here = EntryPlace {
            pack: Sequence(0),
            index: u16::try_from(index).unwrap_or(u16::MAX),
        };
        if let Some((attempt, failed)) = entry.attempt_mut() {
            let links = self.links.entry(attempt.webhook).or_insert_with(|| {
                let told = self.state.webhooks.get(&attempt.webhook);
                told.map(|webhook| webhook.links).unwrap_or_default()
            });
            attempt.previous = *links;
            links.entry = Some(here);
            if failed {
                links.failure = Some(here);
            }
        }
    }
}

fn listed(counts: Counts) -> Vec<Counted> {
    let counted = |((webhook, skipped), count)| Counted {
        webhook,
        skipped,
        count,
    };
    counts.into_iter().map(counted).collect()
}

/// Whether events are classified otherwise from the entry on.
fn turns(entry: &JournalEntry) -> bool {
    match entry {
        JournalEntry::ConfigApplied { .. }
        | JournalEntry::Deactivated { .. }
        | JournalEntry::Quarantined { .. } => true,
        JournalEntry::PendingEnded { .. } => entry.closes_ledger(),
        JournalEntry::CountedBack { .. }
        | JournalEntry::Delivered { .. }
        | JournalEntry::AttemptFailed { .. }
        | JournalEntry::Exhausted { .. }
        | JournalEntry::Ended { .. }
        | JournalEntry::ProbeFailed { .. }
        | JournalEntry::BreakerOpened { .. }
        | JournalEntry::BreakerClosed { .. }
        | JournalEntry::Settled { .. }
        | JournalEntry::AccountsProjected { .. }
        | JournalEntry::Released
        | JournalEntry::Replay { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::domain::delivery::FailureKind;
    use shared::domain::journal::{AttemptEntry, Failure, FailureWeight};
    use shared::ids::{EventId, EventTypeHash, LaneHash};

    const CLASSIFIED: Classified = Classified {
        position: Position {
            generation: 1,
            sequence: Sequence(9),
        },
        checkpoint: None,
    };
    const AT: Timestamp = Timestamp::from_millis(1_000);

    fn commits() -> Commits {
        let mut state = PartitionState::default();
        for webhook in [1, 2, 3] {
            let mut known = WebhookState::default();
            known.ledger.accepted = 1_000_000;
            state
                .webhooks
                .insert(WebhookId::from_bytes([webhook; 16]), known);
        }
        Commits::new(Epoch(3), CLASSIFIED, state)
    }

    fn failed(webhook: u8, answer_bytes: usize) -> JournalEntry {
        JournalEntry::AttemptFailed {
            attempt: AttemptEntry {
                webhook: WebhookId::from_bytes([webhook; 16]),
                position: CLASSIFIED.position,
                event: EventId::from_bytes([1; 16]),
                event_type: EventTypeHash(1),
                lane: LaneHash(1),
                number: 1,
                started_at: AT,
                latency_ms: 1,
                previous: Links::default(),
            },
            failure: Failure {
                kind: FailureKind::Status,
                status: Some(500),
                sealed_answer: vec![0; answer_bytes],
            },
            retry_at: AT,
            weight: FailureWeight::default(),
        }
    }

    fn delivered(webhook: u8) -> JournalEntry {
        let JournalEntry::AttemptFailed { attempt, .. } = failed(webhook, 0) else {
            unreachable!()
        };
        JournalEntry::Delivered {
            attempt,
            status: 200,
        }
    }

    fn links(entry: &JournalEntry) -> Links {
        let mut entry = entry.clone();
        entry
            .attempt_mut()
            .map(|(attempt, _)| attempt.previous)
            .unwrap()
    }

    #[test]
    fn one_pack_is_under_way_and_the_next_gathers() {
        let mut commits = commits();
        assert!(commits.next_pack(AT).is_none());
        commits.push(AT, delivered(1));
        let first = commits.next_pack(AT).cloned().unwrap();
        assert_eq!((first.epoch, first.number), (Epoch(3), 1));
        commits.push(AT, delivered(2));
        commits.push(AT, delivered(3));
        assert!(commits.next_pack(AT).is_none());
        commits.pack_stored(Sequence(70));
        assert_eq!(commits.stored(), 1);
        let second = commits.next_pack(AT).cloned().unwrap();
        assert_eq!((second.number, second.entries.len()), (2, 2));
        commits.pack_stored(Sequence(71));
        assert!(commits.is_empty());
    }

    #[test]
    fn entries_link_back_within_a_pack_and_across_packs() {
        let place = |pack, index| {
            Some(EntryPlace {
                pack: Sequence(pack),
                index,
            })
        };
        let mut commits = commits();
        for entry in [failed(1, 0), delivered(2), delivered(1)] {
            commits.push(AT, entry);
        }
        let first = commits.next_pack(AT).cloned().unwrap();
        assert_eq!(links(&first.entries[0]), Links::default());
        assert_eq!(links(&first.entries[1]), Links::default());
        let (entry, failure) = (place(0, 0), place(0, 0));
        assert_eq!(links(&first.entries[2]), Links { entry, failure });
        commits.pack_stored(Sequence(70));
        commits.push(AT, delivered(1));
        let second = commits.next_pack(AT).cloned().unwrap();
        let (entry, failure) = (place(70, 2), place(70, 0));
        assert_eq!(links(&second.entries[0]), Links { entry, failure });
    }

    #[test]
    fn a_pack_is_bounded_in_bytes_and_loses_nothing() {
        let mut commits = commits();
        for _ in 0..600 {
            commits.push(AT, failed(1, 1_024));
        }
        let mut entries = 0;
        while let Some(pack) = commits.next_pack(AT).cloned() {
            assert!(shared::codec::encode_pack(&pack).len() <= PACK_BYTES_MAX);
            entries += pack.entries.len();
            commits.pack_stored(Sequence(1));
        }
        assert_eq!(entries, 600);
    }

    #[test]
    fn counts_of_many_webhooks_hold_together_or_not_at_all() {
        let mut commits = commits();
        let webhooks = 2 * COUNTS_MAX + 1;
        let id = |number: usize| WebhookId::from_bytes((1_000 + number as u128).to_be_bytes());
        let counted: Vec<Counted> = (0..webhooks)
            .map(|number| Counted {
                webhook: id(number),
                skipped: None,
                count: 1,
            })
            .collect();
        let later = Classified {
            position: Position {
                sequence: Sequence(10),
                ..CLASSIFIED.position
            },
            checkpoint: None,
        };
        commits.count(later, &counted);
        commits.push(AT, delivered(1));
        let mut packs = Vec::new();
        while let Some(pack) = commits.next_pack(AT).cloned() {
            assert!(shared::codec::encode_pack(&pack).len() <= PACK_BYTES_MAX);
            packs.push(pack);
            commits.pack_stored(Sequence(70 + packs.len() as u64));
            let is_last = packs.len() == 3;
            let state = commits.state();
            assert_eq!(state.webhooks.contains_key(&id(webhooks - 1)), is_last);
            let classified = state.classified.map(|position| position.sequence);
            assert_eq!(classified, is_last.then_some(Sequence(10)));
        }
        let entries: Vec<usize> = packs.iter().map(|pack| pack.entries.len()).collect();
        assert_eq!(entries, [0, 0, 1]);
        assert_eq!(commits.pending(id(0)), 1);
        // An owner that dies between them leaves nothing: the next one counts all anew.
        let mut state = PartitionState::default();
        state.apply(Sequence(1), &packs[0]).unwrap();
        let next = Pack {
            epoch: Epoch(4),
            number: 1,
            ..packs[2].clone()
        };
        state.apply(Sequence(2), &next).unwrap();
        assert_eq!(state.webhooks.len(), packs[2].counted.len());
    }

    #[test]
    fn a_pack_says_nothing_of_what_follows_a_configuration_that_it_has_no_room_for() {
        let at = |sequence| Classified {
            position: Position {
                generation: 1,
                sequence: Sequence(sequence),
            },
            checkpoint: None,
        };
        let webhook = WebhookId::from_bytes([1; 16]);
        let counted = |count| Counted {
            webhook,
            skipped: None,
            count,
        };
        let mut commits = commits();
        commits.count(at(20), &[counted(5)]);
        for _ in 0..3 {
            commits.push(AT, failed(1, 100 << 10));
        }
        commits.push(
            AT,
            JournalEntry::ConfigApplied {
                webhook,
                registry_sequence: Sequence(7),
                from: at(21).position,
                back_through: None,
                lifts: false,
            },
        );
        commits.count(at(30), &[counted(4)]);
        let mut packs = Vec::new();
        while let Some(pack) = commits.next_pack(AT).cloned() {
            packs.push((pack.entries.len(), pack.classified.sequence.0, pack.counted));
            commits.pack_stored(Sequence(1));
        }
        let expected = [(2, 20, vec![counted(5)]), (2, 30, vec![counted(4)])];
        assert_eq!(packs, expected);
    }

    #[test]
    fn the_gate_closes_by_count_and_by_age_and_opens_again() {
        let mut commits = commits();
        let late = AT.plus_millis(UNJOURNALED_AGE_MS_MAX + 1);
        assert!(commits.gate_is_open(late));
        commits.push(AT, delivered(1));
        assert!(commits.gate_is_open(AT));
        assert!(!commits.gate_is_open(late));
        commits.next_pack(AT).cloned().unwrap();
        assert!(!commits.gate_is_open(late), "under way counts too");
        commits.pack_stored(Sequence(1));
        for _ in 0..UNJOURNALED_MAX {
            assert!(commits.gate_is_open(AT));
            commits.push(AT, delivered(1));
        }
        assert!(!commits.gate_is_open(AT));
    }
}
