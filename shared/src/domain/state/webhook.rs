//! What the journal tells of one webhook.
//!
//! Everything accepted at or below `resolved` has ended, except what is in `failing` and what lies
//! in a lane of `behind` from the sequence given there. Above `resolved`, what ended is in `ended`.
//! So a new owner needs to read EVENTS from `resolved` and from those lanes' marks, and no more.

use std::collections::BTreeMap;

use super::health::Health;
use super::ledger::Ledger;
use super::replays::Replays;
use crate::domain::journal::{
    AttemptEntry, EntryPlace, JournalEntry, Kept, LanesSettled, Links, UnsentEnd,
};
use crate::ids::{EventId, EventTypeHash, LaneHash, Position, Sequence};
use crate::limits::APPLIED_KEPT_MAX;
use crate::time::Timestamp;

/// A delivery that the journal knows to be pending: it failed, or it was under way when others
/// of its webhook ended together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    pub event: EventId,
    pub event_type: EventTypeHash,
    pub lane: LaneHash,
    /// Failed attempts so far.
    pub attempts: u32,
    pub retry_at: Timestamp,
}

/// What holds for the classification of events from a position on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    pub from: Position,
    pub rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// What the registry says at this sequence; `lifts`: whatever the owner had decided.
    Registry { sequence: Sequence, lifts: bool },
    /// The owner deactivated it.
    Deactivated,
    /// The owner quarantined it.
    Quarantined,
}

/// One webhook's part of a partition's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookState {
    /// In journal order; what no event that may be read again needs is dropped.
    pub applied: Vec<Applied>,
    pub ledger: Ledger,
    /// Events from the first through the second are not counted yet: creation reached back.
    pub uncounted: Option<(Sequence, Sequence)>,
    pub resolved: Sequence,
    /// Ended above `resolved`, or in a lane that is behind.
    pub ended: BTreeMap<Sequence, LaneHash>,
    pub failing: BTreeMap<Sequence, Failing>,
    /// Lanes in which something at or below `resolved` may be pending, from the sequence given.
    pub behind: BTreeMap<LaneHash, Sequence>,
    pub health: Health,
    /// Where the webhook's next entry links back to.
    pub links: Links,
    /// Where the owner's last decision of its own stands, while it holds (rule 10).
    pub decided: Option<EntryPlace>,
    pub replays: Replays,
}

impl WebhookState {
    /// Registry sequence of what holds now.
    pub fn latest(&self) -> Option<Sequence> {
        self.applied
            .iter()
            .rev()
            .find_map(|applied| match applied.rule {
                Rule::Registry { sequence, .. } => Some(sequence),
                Rule::Deactivated | Rule::Quarantined => None,
            })
    }

    /// Applies an entry that is about this webhook and lies at `place`. An end that the log
    /// already had changes nothing.
    pub fn apply(&mut self, place: EntryPlace, entry: &JournalEntry) {
        match entry {
            JournalEntry::ConfigApplied {
                registry_sequence,
                from,
                back_through,
                lifts,
                ..
            } => self.configured(*registry_sequence, *from, *back_through, *lifts),
            JournalEntry::CountedBack {
                accepted, skipped, ..
            } => {
                if self.uncounted.take().is_some() {
                    self.ledger.count(None, *accepted);
                    for (reason, count) in skipped {
                        self.ledger.count(Some(*reason), *count);
                    }
                }
            }
            JournalEntry::Delivered { attempt, .. } => {
                self.attempted(place);
                if self.end(attempt) {
                    self.ledger.delivered = self.ledger.delivered.saturating_add(1);
                    self.health.succeeded();
                }
            }
            JournalEntry::AttemptFailed {
                attempt,
                retry_at,
                weight,
                ..
            } => {
                self.attempt_failed(place);
                self.health.failed(attempt, *weight);
                let failing = Failing {
                    event: attempt.event,
                    event_type: attempt.event_type,
                    lane: attempt.lane,
                    attempts: attempt.number,
                    retry_at: *retry_at,
                };
                self.failing.insert(attempt.position.sequence, failing);
            }
            JournalEntry::Exhausted {
                attempt,
                reason,
                weight,
                ..
            } => {
                self.attempt_failed(place);
                self.health.failed(attempt, *weight);
                if self.end(attempt) {
                    self.ledger.end(UnsentEnd::Exhausted(*reason), 1);
                }
            }
            JournalEntry::Ended { attempt, end } => {
                self.attempted(place);
                if self.end(attempt) {
                    self.ledger.end(*end, 1);
                }
            }
            JournalEntry::PendingEnded {
                through,
                end,
                count,
                kept,
                ..
            } => self.pending_ended(*through, *end, *count, kept),
            JournalEntry::ProbeFailed {
                attempt,
                next_probe_at,
                weight,
                ..
            } => {
                self.attempt_failed(place);
                self.health.probe_failed(attempt, *next_probe_at, *weight);
            }
            JournalEntry::BreakerOpened { next_probe_at, .. } => self.health.opened(*next_probe_at),
            JournalEntry::BreakerClosed { .. } => self.health.closed(),
            JournalEntry::Deactivated { at, from, .. } => {
                self.replays.deactivated_at = Some(*at);
                self.decide(place, *from, Rule::Deactivated);
            }
            JournalEntry::Quarantined { from, .. } => {
                self.decide(place, *from, Rule::Quarantined);
            }
            JournalEntry::Settled {
                resolved, lanes, ..
            } => self.settle(*resolved, lanes),
            JournalEntry::Replay { replay, step, .. } => self.replay(*replay, step),
            JournalEntry::AccountsProjected { .. } | JournalEntry::Released => {}
        }
    }

    fn configured(
        &mut self,
        sequence: Sequence,
        from: Position,
        back_through: Option<Sequence>,
        lifts: bool,
    ) {
        if self.latest() >= Some(sequence) {
            return;
        }
        if self.applied.is_empty() {
            self.resolved = from.sequence.previous();
            self.uncounted = back_through.map(|through| (from.sequence, through));
        }
        if lifts {
            self.health = Health::default();
            self.decided = None;
        }
        self.forget_applied();
        let rule = Rule::Registry { sequence, lifts };
        self.applied.push(Applied { from, rule });
    }

    fn decide(&mut self, place: EntryPlace, from: Position, rule: Rule) {
        self.decided = Some(place);
        self.forget_applied();
        self.applied.push(Applied { from, rule });
    }

    /// Drops what was superseded below everything that may be read again, but for the last few,
    /// by which a replay knows what the webhook was owed. A decision of the owner stays until an
    /// entry that lifts it has superseded it too.
    fn forget_applied(&mut self) {
        // What creation reached back to is classified once more, to be counted.
        let uncounted = self.uncounted.map(|(first, _)| first);
        let needed = uncounted
            .into_iter()
            .fold(self.first_pending(), Sequence::min);
        let (mut is_superseded, mut is_lifted) = (false, false);
        let mut kept: Vec<Applied> = Vec::with_capacity(self.applied.len() + 1);
        for applied in self.applied.drain(..).rev() {
            let is_reached = applied.from.sequence <= needed;
            match applied.rule {
                Rule::Registry { lifts, .. } => {
                    if !is_superseded || kept.len() < APPLIED_KEPT_MAX {
                        kept.push(applied);
                    }
                    is_superseded |= is_reached;
                    is_lifted |= is_reached && lifts;
                }
                Rule::Deactivated | Rule::Quarantined => {
                    if !is_lifted || kept.len() < APPLIED_KEPT_MAX {
                        kept.push(applied);
                    }
                }
            }
        }
        kept.reverse();
        self.applied = kept;
    }

    fn attempted(&mut self, place: EntryPlace) {
        self.links.entry = Some(place);
    }

    fn attempt_failed(&mut self, place: EntryPlace) {
        self.links.entry = Some(place);
        self.links.failure = Some(place);
    }

    /// Everything that is accepted below has ended.
    pub fn first_pending(&self) -> Sequence {
        let failing = self.failing.keys().next().copied();
        let behind = self.behind.values().min().copied();
        [failing, behind]
            .into_iter()
            .flatten()
            .fold(self.resolved.next(), Sequence::min)
    }

    /// Whether the delivery is known to have ended.
    pub fn has_ended(&self, sequence: Sequence, lane: LaneHash) -> bool {
        if self.failing.contains_key(&sequence) {
            return false;
        }
        if sequence > self.resolved {
            return self.ended.contains_key(&sequence);
        }
        match self.behind.get(&lane) {
            Some(from) if sequence >= *from => self.ended.contains_key(&sequence),
            Some(_) | None => true,
        }
    }

    /// Records an end; `false` when it was known.
    fn end(&mut self, attempt: &AttemptEntry) -> bool {
        let sequence = attempt.position.sequence;
        if self.has_ended(sequence, attempt.lane) {
            return false;
        }
        self.failing.remove(&sequence);
        let is_behind = self
            .behind
            .get(&attempt.lane)
            .is_some_and(|from| sequence >= *from);
        if sequence > self.resolved || is_behind {
            self.ended.insert(sequence, attempt.lane);
        }
        true
    }

    fn pending_ended(&mut self, through: Sequence, end: UnsentEnd, count: u64, kept: &[Kept]) {
        self.remember_deactivation(through, end, kept);
        self.ledger.end(end, count);
        let later = self.failing.split_off(&through.next());
        let mut failing = std::mem::replace(&mut self.failing, later);
        for kept in kept {
            let known = failing.remove(&kept.sequence);
            let pending = known.unwrap_or(Failing {
                event: kept.event,
                event_type: kept.event_type,
                lane: kept.lane,
                attempts: kept.attempts,
                retry_at: Timestamp::default(),
            });
            self.failing.insert(kept.sequence, pending);
        }
        self.ended = self.ended.split_off(&through.next());
        self.resolved = self.resolved.max(through);
        let behind = std::mem::take(&mut self.behind);
        let rest = behind
            .into_iter()
            .map(|(lane, from)| (lane, from.max(through.next())))
            .filter(|(_, from)| *from <= self.resolved);
        self.behind = rest.collect();
    }

    fn settle(&mut self, resolved: Sequence, lanes: &LanesSettled) {
        if resolved > self.resolved {
            // What lies behind a delivery that was kept alone at or below has ended with the rest.
            for (sequence, failing) in self.failing.range(self.resolved.next()..=resolved) {
                self.behind.entry(failing.lane).or_insert(sequence.next());
            }
            self.resolved = resolved;
        }
        match lanes {
            LanesSettled::All => self.behind.clear(),
            LanesSettled::Some(lanes) => {
                for (lane, from) in lanes {
                    match from {
                        Some(from) => {
                            if let Some(known) = self.behind.get_mut(lane) {
                                *known = (*known).max(*from);
                            }
                        }
                        None => {
                            self.behind.remove(lane);
                        }
                    }
                }
            }
        }
        let (resolved, behind) = (self.resolved, &self.behind);
        self.ended.retain(|sequence, lane| {
            *sequence > resolved || behind.get(lane).is_some_and(|from| sequence >= from)
        });
    }
}
