//! How deliveries end without an attempt of their own, and how the journal is told how far all
//! have ended.

use shared::domain::journal::{AttemptEntry, JournalEntry, Kept, LanesSettled, Links, UnsentEnd};
use shared::ids::Sequence;

use super::{Context, Deliveries, Effect, UNPLACED};
use crate::core::commits::EXPIRED;
use crate::core::lanes::Pending;
use crate::core::settling::settled;

impl Deliveries {
    /// What is pending at or below `through` ends, with all the rest or since its time is up.
    pub(super) fn end_as_owed(
        &mut self,
        through: Sequence,
        end: UnsentEnd,
        effects: &mut Vec<Effect>,
    ) {
        if end == EXPIRED {
            // Told twice, it would end what was under way the first time and has failed since.
            if through <= self.expired_through {
                return;
            }
            self.expired_through = through;
        } else {
            self.awaits_end = false;
        }
        self.end_pending(through, end, effects);
    }

    /// All that is pending ends, except what is under way. The journal's writer, who alone knows
    /// them, fills in how far that reaches at least and how many they are.
    fn end_pending(&mut self, through: Sequence, end: UnsentEnd, effects: &mut Vec<Effect>) {
        let kept: Vec<Kept> = self
            .lanes
            .under_way()
            .filter(|(sequence, _)| *sequence <= through)
            .map(|(sequence, pending)| Kept {
                sequence,
                event: pending.event,
                event_type: pending.event_type,
                lane: pending.lane,
                attempts: pending.attempts,
            })
            .collect();
        let entry = JournalEntry::PendingEnded {
            webhook: self.webhook,
            through,
            end,
            count: 0,
            kept,
        };
        self.lanes.forget_through(through, self.read);
        self.read = self.read.max(through);
        self.journal(entry, effects);
    }

    /// Says from time to time how far everything has ended, so that a new owner need not read it.
    pub(super) fn settle(&mut self, effects: &mut Vec<Effect>) {
        if self.ends_since_settled < self.lanes.bounds().settle_after {
            return;
        }
        self.ends_since_settled = 0;
        let moved = std::mem::take(&mut self.moved);
        let entry = settled(self.webhook, &self.state, &self.lanes, self.read, &moved);
        if let Some(entry) = entry {
            self.journal(entry, effects);
        }
    }

    /// Nothing is pending: what the journal tells of single deliveries is not needed any more.
    pub(super) fn settled_wholly(&mut self) -> Option<JournalEntry> {
        if self.state.ended.is_empty() && self.state.behind.is_empty() {
            return None;
        }
        let entry = JournalEntry::Settled {
            webhook: self.webhook,
            resolved: self.read,
            lanes: LanesSettled::All,
        };
        self.state.apply(UNPLACED, &entry);
        self.ends_since_settled = 0;
        self.moved.clear();
        Some(entry)
    }

    /// Ends what is still there although the webhook's status lets nothing wait: what was under
    /// way when the others ended, under an owner that is gone.
    pub(super) fn sweep(&mut self, context: &Context, effects: &mut Vec<Effect>) {
        let Some(end) = self.ends_pending() else {
            return;
        };
        if self.awaits_end || context.now < self.hold_ends_until {
            return;
        }
        let left: Vec<(Sequence, Pending)> = self
            .lanes
            .iter()
            .filter(|(sequence, _)| !self.lanes.is_under_way(*sequence))
            .map(|(sequence, pending)| (sequence, *pending))
            .collect();
        for (sequence, pending) in left {
            let attempt = AttemptEntry {
                webhook: self.webhook,
                position: self.position(sequence),
                event: pending.event,
                event_type: pending.event_type,
                lane: pending.lane,
                number: pending.attempts,
                started_at: context.now,
                latency_ms: 0,
                previous: Links::default(),
            };
            self.end(sequence);
            self.journal(JournalEntry::Ended { attempt, end }, effects);
        }
    }
}
