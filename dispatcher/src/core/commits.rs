//! What the partition's committer packs next. One pack is under way at a time, the next one
//! gathers meanwhile; pack n + 1 is made only once n is known stored (`protocol.md`, rule 8).

use std::collections::{HashMap, VecDeque};

use shared::domain::journal::{AttemptEntry, EntryPlace, JournalEntry, Links, Pack};
use shared::ids::{Epoch, EventId, Position, Sequence, WebhookId};
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
    pub event: Option<EventId>,
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
            classified_event: classified.event,
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
            JournalEntry::Delivered { attempt, .. } => link(attempt, false),
            JournalEntry::AttemptFailed { attempt, .. }
            | JournalEntry::Exhausted { attempt, .. } => link(attempt, true),
            JournalEntry::ConfigApplied { .. }
            | JournalEntry::Ended { .. }
            | JournalEntry::AccountsProjected { .. } => {}
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
