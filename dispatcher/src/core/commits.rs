//! What the partition's committer packs next. One pack is under way at a time, the next one
//! gathers meanwhile; pack n + 1 is made only once n is known stored (`protocol.md`, rule 8).

use std::collections::{HashMap, VecDeque};

use shared::domain::journal::{AttemptEntry, Checkpoint, EntryPlace, JournalEntry, Links, Pack};
use shared::ids::{Epoch, Position, Sequence, WebhookId};
use shared::limits::{PACK_BYTES_MAX, UNJOURNALED_AGE_MS_MAX, UNJOURNALED_MAX};
use shared::time::Timestamp;

/// A generous estimate of an entry without its answer.
const ENTRY_BYTES: usize = 128;
/// Entries of one pack; their index is a u16.
const PACK_ENTRIES_MAX: usize = 4_000;

/// How far the partition is classified, as a pack says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    pub position: Position,
    /// The last event that was seen.
    pub checkpoint: Option<Checkpoint>,
}

/// Entries on their way into JOURNAL.
#[derive(Debug)]
pub struct Commits {
    epoch: Epoch,
    /// Number of the pack that is made next.
    next_number: u64,
    waiting: VecDeque<(Timestamp, JournalEntry)>,
    /// Entries of the pack under way.
    under_way: Vec<JournalEntry>,
    under_way_since: Option<Timestamp>,
    links: HashMap<WebhookId, Links>,
    pushed: u64,
    stored: u64,
}

impl Commits {
    /// For a new owner, with the links that the fold found.
    pub fn new(epoch: Epoch, links: HashMap<WebhookId, Links>) -> Self {
        Self {
            epoch,
            next_number: 1,
            waiting: VecDeque::new(),
            under_way: Vec::new(),
            under_way_since: None,
            links,
            pushed: 0,
            stored: 0,
        }
    }

    /// Adds an entry and gives its ordinal, which [`Self::stored`] reaches once it is committed.
    pub fn push(&mut self, now: Timestamp, entry: JournalEntry) -> u64 {
        self.waiting.push_back((now, entry));
        self.pushed += 1;
        self.pushed
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

    /// Whether attempts may start (rule 19): few enough entries, none too old.
    pub fn gate_is_open(&self, now: Timestamp) -> bool {
        let unjournaled = self.waiting.len() + self.under_way.len();
        let oldest = self
            .under_way_since
            .or_else(|| self.waiting.front().map(|(since, _)| *since));
        unjournaled < UNJOURNALED_MAX
            && oldest.is_none_or(|since| now.millis_since(since) <= UNJOURNALED_AGE_MS_MAX)
    }

    /// The next pack; `None` while one is under way or nothing waits.
    pub fn next_pack(&mut self, now: Timestamp, classified: Classified) -> Option<Pack> {
        if !self.under_way.is_empty() {
            return None;
        }
        self.under_way_since = self.waiting.front().map(|(since, _)| *since);
        let mut bytes = 0;
        while let Some((_, entry)) = self.waiting.front() {
            bytes += ENTRY_BYTES + answer_bytes(entry);
            let full = bytes > PACK_BYTES_MAX || self.under_way.len() >= PACK_ENTRIES_MAX;
            if full && !self.under_way.is_empty() {
                break;
            }
            let Some((_, mut entry)) = self.waiting.pop_front() else {
                break;
            };
            self.link(&mut entry);
            self.under_way.push(entry);
        }
        if self.under_way.is_empty() {
            return None;
        }
        Some(Pack {
            epoch: self.epoch,
            number: self.next_number,
            at: now,
            classified: classified.position,
            checkpoint: classified.checkpoint,
            entries: self.under_way.clone(),
        })
    }

    /// The pack under way is stored at `at`.
    pub fn pack_stored(&mut self, at: Sequence) {
        self.next_number += 1;
        self.stored += self.under_way.len() as u64;
        self.under_way_since = None;
        // Links into this pack now have a place.
        for webhook in self.under_way.drain(..).filter_map(|entry| entry.webhook()) {
            let Some(links) = self.links.get_mut(&webhook) else {
                continue;
            };
            for place in [&mut links.entry, &mut links.failure].into_iter().flatten() {
                if place.pack == Sequence(0) {
                    place.pack = at;
                }
            }
        }
    }

    pub fn forget(&mut self, webhook: WebhookId) {
        self.links.remove(&webhook);
    }

    /// Links the entry to its webhook's previous ones; it will be the last of the pack.
    fn link(&mut self, entry: &mut JournalEntry) {
        let here = EntryPlace {
            pack: Sequence(0),
            index: u16::try_from(self.under_way.len()).unwrap_or(u16::MAX),
        };
        let mut link = |attempt: &mut AttemptEntry, failed: bool| {
            let links = self.links.entry(attempt.webhook).or_default();
            attempt.previous = *links;
            links.entry = Some(here);
            if failed {
                links.failure = Some(here);
            }
        };
        match entry {
            JournalEntry::Delivered { attempt, .. } | JournalEntry::Ended { attempt, .. } => {
                link(attempt, false);
            }
            JournalEntry::AttemptFailed { attempt, .. }
            | JournalEntry::Exhausted { attempt, .. } => link(attempt, true),
            JournalEntry::ConfigApplied { .. } | JournalEntry::AccountsProjected { .. } => {}
        }
    }
}

fn answer_bytes(entry: &JournalEntry) -> usize {
    match entry {
        JournalEntry::AttemptFailed { failure, .. } | JournalEntry::Exhausted { failure, .. } => {
            failure.sealed_answer.len()
        }
        JournalEntry::Delivered { .. }
        | JournalEntry::ConfigApplied { .. }
        | JournalEntry::Ended { .. }
        | JournalEntry::AccountsProjected { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::domain::delivery::FailureKind;
    use shared::domain::journal::Failure;
    use shared::ids::{EventId, LaneHash};

    const CLASSIFIED: Classified = Classified {
        position: Position {
            generation: 1,
            sequence: Sequence(9),
        },
        checkpoint: None,
    };
    const AT: Timestamp = Timestamp::from_millis(1_000);

    fn commits() -> Commits {
        Commits::new(Epoch(3), HashMap::new())
    }

    fn failed(webhook: u8, answer_bytes: usize) -> JournalEntry {
        JournalEntry::AttemptFailed {
            attempt: AttemptEntry {
                webhook: WebhookId::from_bytes([webhook; 16]),
                position: CLASSIFIED.position,
                event: EventId::from_bytes([1; 16]),
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
        match entry {
            JournalEntry::AttemptFailed { attempt, .. }
            | JournalEntry::Delivered { attempt, .. }
            | JournalEntry::Exhausted { attempt, .. } => attempt.previous,
            JournalEntry::ConfigApplied { .. }
            | JournalEntry::Ended { .. }
            | JournalEntry::AccountsProjected { .. } => Links::default(),
        }
    }

    #[test]
    fn one_pack_is_under_way_and_the_next_gathers() {
        let mut commits = commits();
        assert_eq!(commits.next_pack(AT, CLASSIFIED), None);
        commits.push(AT, delivered(1));
        let first = commits.next_pack(AT, CLASSIFIED).unwrap();
        assert_eq!((first.epoch, first.number), (Epoch(3), 1));
        commits.push(AT, delivered(2));
        commits.push(AT, delivered(3));
        assert_eq!(commits.next_pack(AT, CLASSIFIED), None);
        commits.pack_stored(Sequence(70));
        assert_eq!(commits.stored(), 1);
        let second = commits.next_pack(AT, CLASSIFIED).unwrap();
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
        let first = commits.next_pack(AT, CLASSIFIED).unwrap();
        assert_eq!(links(&first.entries[0]), Links::default());
        assert_eq!(links(&first.entries[1]), Links::default());
        let (entry, failure) = (place(0, 0), place(0, 0));
        assert_eq!(links(&first.entries[2]), Links { entry, failure });
        commits.pack_stored(Sequence(70));
        commits.push(AT, delivered(1));
        let second = commits.next_pack(AT, CLASSIFIED).unwrap();
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
        while let Some(pack) = commits.next_pack(AT, CLASSIFIED) {
            assert!(shared::codec::encode_pack(&pack).len() <= PACK_BYTES_MAX);
            entries += pack.entries.len();
            commits.pack_stored(Sequence(1));
        }
        assert_eq!(entries, 600);
    }

    #[test]
    fn the_gate_closes_by_count_and_by_age_and_opens_again() {
        let mut commits = commits();
        let late = AT.plus_millis(UNJOURNALED_AGE_MS_MAX + 1);
        assert!(commits.gate_is_open(late));
        commits.push(AT, delivered(1));
        assert!(commits.gate_is_open(AT));
        assert!(!commits.gate_is_open(late));
        commits.next_pack(AT, CLASSIFIED).unwrap();
        assert!(!commits.gate_is_open(late), "under way counts too");
        commits.pack_stored(Sequence(1));
        for _ in 0..UNJOURNALED_MAX {
            assert!(commits.gate_is_open(AT));
            commits.push(AT, delivered(1));
        }
        assert!(!commits.gate_is_open(AT));
    }
}
