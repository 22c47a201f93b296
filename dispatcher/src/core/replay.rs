//! What a replay selects: a function of what was fixed when it began, of EVENTS and of JOURNAL, so
//! that every reading of the logs finds the same, but for what they have dropped since.

use std::collections::BTreeSet;

use shared::domain::event::Event;
use shared::domain::journal::{AttemptEntry, JournalEntry, UnsentEnd};
use shared::domain::replay::ReplaySelection;
use shared::domain::state::{ActiveReplay, Deactivation, Extent};
use shared::ids::{EventId, LaneHash, Sequence, WebhookId};
use shared::time::Timestamp;

use super::classify::{Class, ConfigHistory};

/// An event to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub sequence: Sequence,
    pub event: EventId,
    pub lane: LaneHash,
}

/// Finds the events of one replay.
#[derive(Clone, Debug)]
pub struct Selector {
    webhook: WebhookId,
    history: ConfigHistory,
    extent: Extent,
    looked_for: LookedFor,
}

#[derive(Clone, Debug)]
enum LookedFor {
    Events(BTreeSet<EventId>),
    Exhausted {
        since: Timestamp,
        deactivations: Vec<Deactivation>,
    },
    Published {
        from: Timestamp,
        to: Timestamp,
    },
}

impl Selector {
    /// `history` must reach back as far as the state that the extent was taken of.
    pub fn new(
        webhook: WebhookId,
        history: ConfigHistory,
        selection: &ReplaySelection,
        extent: Extent,
        deactivations: Vec<Deactivation>,
    ) -> Self {
        let looked_for = match selection {
            ReplaySelection::Events(ids) => LookedFor::Events(ids.iter().copied().collect()),
            ReplaySelection::ExhaustedSince(since) => LookedFor::Exhausted {
                since: *since,
                deactivations,
            },
            ReplaySelection::Published { from, to } => LookedFor::Published {
                from: *from,
                to: *to,
            },
        };
        Self {
            webhook,
            history,
            extent,
            looked_for,
        }
    }

    pub fn of(webhook: WebhookId, history: ConfigHistory, replay: &ActiveReplay) -> Self {
        Self::new(
            webhook,
            history,
            &replay.selection,
            replay.extent.clone(),
            replay.deactivations.clone(),
        )
    }

    /// Nothing beyond is selected.
    pub fn through(&self) -> Sequence {
        self.extent.through
    }

    /// Nothing at or below is selected by [`Self::event`].
    pub fn origin(&self) -> Sequence {
        self.history.start().unwrap_or_default().previous()
    }

    /// Nothing that was published before then is selected by [`Self::event`].
    pub fn published_since(&self) -> Option<Timestamp> {
        match &self.looked_for {
            LookedFor::Published { from, .. } => Some(*from),
            LookedFor::Events(_) | LookedFor::Exhausted { .. } => None,
        }
    }

    /// Nothing that was published then or later is selected by [`Self::event`].
    pub fn published_before(&self) -> Option<Timestamp> {
        match &self.looked_for {
            LookedFor::Published { to, .. } => Some(*to),
            LookedFor::Events(_) | LookedFor::Exhausted { .. } => None,
        }
    }

    /// Whether EVENTS tells of something that is selected.
    pub fn needs_events(&self) -> bool {
        match &self.looked_for {
            LookedFor::Events(ids) => !ids.is_empty(),
            LookedFor::Exhausted { deactivations, .. } => !deactivations.is_empty(),
            LookedFor::Published { from, to } => from < to,
        }
    }

    /// From when on JOURNAL tells of something that is selected, if it does.
    pub fn needs_entries_since(&self) -> Option<Timestamp> {
        match &self.looked_for {
            LookedFor::Exhausted { since, .. } => Some(*since),
            LookedFor::Events(_) | LookedFor::Published { .. } => None,
        }
    }

    /// Whether an event of EVENTS is selected.
    pub fn event(&self, sequence: Sequence, event: &Event) -> Option<Found> {
        let is_owed = match self.history.classify(sequence, event) {
            Class::NotWanted => return None,
            Class::Accepted => true,
            Class::Skipped(_) => false,
        };
        let has_ended = self.extent.has_ended(sequence, event.lane);
        let is_selected = match &self.looked_for {
            LookedFor::Events(ids) => has_ended && ids.contains(&event.id),
            LookedFor::Published { from, to } => {
                has_ended && (*from..*to).contains(&event.published_at)
            }
            LookedFor::Exhausted { deactivations, .. } => {
                let mut together = deactivations.iter();
                is_owed && together.any(|known| known.ended(sequence, event.lane))
            }
        };
        is_selected.then_some(Found {
            sequence,
            event: event.id,
            lane: event.lane,
        })
    }

    /// Whether an entry of JOURNAL tells that its delivery was exhausted, and that is selected.
    /// What ended together is found in EVENTS.
    pub fn entry(&self, entry: &JournalEntry) -> Option<Found> {
        let LookedFor::Exhausted { since, .. } = &self.looked_for else {
            return None;
        };
        let attempt = exhausted(entry).filter(|attempt| attempt.webhook == self.webhook)?;
        let sequence = attempt.position.sequence;
        let is_selected =
            attempt.ended_at() >= *since && self.extent.has_ended(sequence, attempt.lane);
        is_selected.then_some(Found {
            sequence,
            event: attempt.event,
            lane: attempt.lane,
        })
    }
}

fn exhausted(entry: &JournalEntry) -> Option<&AttemptEntry> {
    match entry {
        JournalEntry::Exhausted { attempt, .. }
        | JournalEntry::Ended {
            attempt,
            end: UnsentEnd::Exhausted(_),
        } => Some(attempt),
        JournalEntry::Ended {
            end: UnsentEnd::Skipped(_),
            ..
        }
        | JournalEntry::ConfigApplied { .. }
        | JournalEntry::CountedBack { .. }
        | JournalEntry::Delivered { .. }
        | JournalEntry::AttemptFailed { .. }
        | JournalEntry::PendingEnded { .. }
        | JournalEntry::ProbeFailed { .. }
        | JournalEntry::BreakerOpened { .. }
        | JournalEntry::BreakerClosed { .. }
        | JournalEntry::Deactivated { .. }
        | JournalEntry::Quarantined { .. }
        | JournalEntry::Settled { .. }
        | JournalEntry::AccountsProjected { .. }
        | JournalEntry::Released
        | JournalEntry::Replay { .. } => None,
    }
}
