//! What the journal tells of a webhook's replays: those that have not ended whole, the others as
//! far as somebody may ask.
//!
//! matched = sent + failed + gone + cancelled + pending at every entry: pending is what is left.

use std::collections::{BTreeMap, BTreeSet};

use super::WebhookState;
use crate::domain::journal::{ExhaustReason, Kept, UnsentEnd};
use crate::domain::replay::{ReplayAttempt, ReplayOutcome, ReplaySelection, ReplayStep};
use crate::ids::{LaneHash, ReplayId, Sequence};
use crate::limits::{DEACTIVATIONS_KEPT_MAX, REPLAYS_KEPT_MAX, REPLAYS_KEPT_MS};
use crate::time::Timestamp;

/// All replays of one webhook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replays {
    /// Those that ended are forgotten after a while.
    pub known: BTreeMap<ReplayId, Replay>,
    /// Those that have not ended, oldest first. Only the first is at work.
    pub active: Vec<ActiveReplay>,
    /// When the owner last deactivated the webhook.
    pub deactivated_at: Option<Timestamp>,
    /// What ended together when the webhook was deactivated, the last few times.
    pub deactivations: Vec<Deactivation>,
}

/// What is told of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Of its selection.
    pub fingerprint: u64,
    pub begun_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Whether it is known how many events it matches.
    pub is_counted: bool,
    pub is_cancelled: bool,
    pub ledger: ReplayLedger,
}

/// The account of one replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayLedger {
    pub matched: u64,
    pub sent: u64,
    pub failed: u64,
    pub gone: u64,
    pub cancelled: u64,
}

/// A replay that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveReplay {
    pub id: ReplayId,
    pub selection: ReplaySelection,
    /// What had ended when it began.
    pub extent: Extent,
    /// Those that its selection is about.
    pub deactivations: Vec<Deactivation>,
    /// All that it matches at or below was tried.
    pub settled: Sequence,
    /// Tried above `settled`.
    pub attempted: BTreeSet<Sequence>,
    /// Attempts that failed since the last that did not.
    pub failures_in_row: u32,
    /// Nothing of it is tried before then.
    pub resume_at: Option<Timestamp>,
}

/// Deliveries that ended together: all that were pending when the webhook was deactivated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deactivation {
    pub at: Timestamp,
    /// What had ended before, or was to end by its own outcome.
    pub before: Extent,
}

/// What of a webhook's deliveries at or below `through` had ended at a moment, in the way in which
/// [`WebhookState`] says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    pub through: Sequence,
    pub resolved: Sequence,
    pub ended: BTreeSet<Sequence>,
    pub failing: BTreeSet<Sequence>,
    pub behind: BTreeMap<LaneHash, Sequence>,
}

impl ReplayLedger {
    /// Matched and not ended.
    pub fn pending(&self) -> u64 {
        let ended = [self.sent, self.failed, self.gone, self.cancelled];
        ended
            .into_iter()
            .fold(self.matched, |left, count| left.saturating_sub(count))
    }
}

impl Extent {
    /// What the state knows to have ended at or below `through`.
    pub fn of(state: &WebhookState, through: Sequence) -> Self {
        let ended = state.ended.range(..=through).map(|(sequence, _)| *sequence);
        let failing = state.failing.range(..=through);
        Self {
            through,
            resolved: state.resolved.min(through),
            ended: ended.collect(),
            failing: failing.map(|(sequence, _)| *sequence).collect(),
            behind: state.behind.clone(),
        }
    }

    /// Everything at or below.
    pub fn whole(through: Sequence) -> Self {
        Self {
            through,
            resolved: through,
            ..Self::default()
        }
    }

    /// Whether the delivery at `sequence`, which was classified for the webhook, had ended.
    pub fn has_ended(&self, sequence: Sequence, lane: LaneHash) -> bool {
        if sequence > self.through || self.failing.contains(&sequence) {
            return false;
        }
        let is_told_apart = sequence > self.resolved
            || self.behind.get(&lane).is_some_and(|from| sequence >= *from);
        !is_told_apart || self.ended.contains(&sequence)
    }
}

impl Deactivation {
    /// Whether the delivery at `sequence`, which was accepted, was among those that ended.
    pub fn ended(&self, sequence: Sequence, lane: LaneHash) -> bool {
        sequence <= self.before.through && !self.before.has_ended(sequence, lane)
    }
}

impl Replays {
    pub fn is_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// Those deactivations at `since` or later.
    pub fn deactivations_since(&self, since: Timestamp) -> Vec<Deactivation> {
        let all = self.deactivations.iter();
        all.filter(|known| known.at >= since).cloned().collect()
    }

    /// Forgets what ended long ago, and what is too many.
    fn forget(&mut self, now: Timestamp) {
        self.known.retain(|_, known| {
            known
                .ended_at
                .is_none_or(|at| now.millis_since(at) < REPLAYS_KEPT_MS)
        });
        while self.known.len() >= REPLAYS_KEPT_MAX {
            let ended = self.known.iter();
            let oldest = ended
                .filter_map(|(id, known)| Some((known.ended_at?, *id)))
                .min();
            let Some((_, oldest)) = oldest else {
                return;
            };
            self.known.remove(&oldest);
        }
    }

    /// `false` when it has ended, or was never begun.
    fn attempted(&mut self, id: ReplayId, attempt: &ReplayAttempt) -> bool {
        let active = self.active.iter_mut().find(|active| active.id == id);
        let (Some(active), Some(known)) = (active, self.known.get_mut(&id)) else {
            return false;
        };
        let sequence = attempt.sequence;
        if sequence <= active.settled || !active.attempted.insert(sequence) {
            return false;
        }
        active.settled = active.settled.max(attempt.settled);
        active.attempted = active.attempted.split_off(&active.settled.next());
        let counted = match attempt.outcome {
            ReplayOutcome::Sent { .. } => {
                active.failures_in_row = 0;
                active.resume_at = None;
                &mut known.ledger.sent
            }
            ReplayOutcome::Failed { resume_at, .. } => {
                active.failures_in_row = active.failures_in_row.saturating_add(1);
                active.resume_at = resume_at;
                &mut known.ledger.failed
            }
            ReplayOutcome::Gone => &mut known.ledger.gone,
        };
        *counted = counted.saturating_add(1);
        true
    }

    /// Gives the replay, in whose ledger what is left is to be counted; `None` when it had ended.
    fn end(&mut self, id: ReplayId, at: Timestamp) -> Option<&mut Replay> {
        let index = self.active.iter().position(|active| active.id == id)?;
        self.active.remove(index);
        let known = self.known.get_mut(&id)?;
        known.ended_at = Some(at);
        Some(known)
    }
}

impl WebhookState {
    pub(super) fn replay(&mut self, id: ReplayId, step: &ReplayStep) {
        match step {
            ReplayStep::Begun {
                selection,
                through,
                at,
            } => self.replay_begun(id, selection, through.sequence, *at),
            ReplayStep::Counted { matched } => {
                if let Some(known) = self.replays.known.get_mut(&id)
                    && !known.is_counted
                    && known.ended_at.is_none()
                {
                    known.is_counted = true;
                    known.ledger.matched = *matched;
                }
            }
            ReplayStep::Attempted(attempt) => {
                if self.replays.attempted(id, attempt)
                    && let ReplayOutcome::Failed { pause_until, .. } = attempt.outcome
                {
                    // The endpoint asked for it, whatever it was sent (rule 16).
                    self.health.paused_until = self.health.paused_until.max(pause_until);
                }
            }
            ReplayStep::ProbeFailed {
                next_probe_at,
                pause_until,
            } => self.health.probed_in_vain(*next_probe_at, *pause_until),
            ReplayStep::Cancelled { at } => {
                if let Some(known) = self.replays.end(id, *at) {
                    let pending = known.ledger.pending();
                    known.is_cancelled = true;
                    known.ledger.cancelled = known.ledger.cancelled.saturating_add(pending);
                }
            }
            ReplayStep::Ended { at } => {
                if let Some(known) = self.replays.end(id, *at) {
                    let pending = known.ledger.pending();
                    known.ledger.gone = known.ledger.gone.saturating_add(pending);
                }
            }
        }
    }

    fn replay_begun(
        &mut self,
        id: ReplayId,
        selection: &ReplaySelection,
        through: Sequence,
        at: Timestamp,
    ) {
        if self.replays.known.contains_key(&id) {
            return;
        }
        self.replays.forget(at);
        let deactivations = match selection {
            ReplaySelection::ExhaustedSince(since) => self.replays.deactivations_since(*since),
            ReplaySelection::Events(_) | ReplaySelection::Published { .. } => Vec::new(),
        };
        self.replays.active.push(ActiveReplay {
            id,
            selection: selection.clone(),
            extent: Extent::of(self, through),
            deactivations,
            settled: Sequence(0),
            attempted: BTreeSet::new(),
            failures_in_row: 0,
            resume_at: None,
        });
        let replay = Replay {
            fingerprint: selection.fingerprint(),
            begun_at: at,
            ..Replay::default()
        };
        self.replays.known.insert(id, replay);
    }

    /// All that is pending at or below `through` is about to end together, except what is kept.
    /// Which deliveries those are is known now and never again: the journal does not name them.
    pub(super) fn remember_deactivation(
        &mut self,
        through: Sequence,
        end: UnsentEnd,
        kept: &[Kept],
    ) {
        if end != UnsentEnd::Exhausted(ExhaustReason::Deactivated) {
            return;
        }
        let mut before = Extent::of(self, through);
        for kept in kept {
            before.failing.remove(&kept.sequence);
            before.ended.insert(kept.sequence);
            // What lies in its lane at or below `resolved` is told apart by name as before.
        }
        let at = self.replays.deactivated_at.unwrap_or_default();
        let deactivations = &mut self.replays.deactivations;
        if deactivations.len() >= DEACTIVATIONS_KEPT_MAX {
            deactivations.remove(0);
        }
        deactivations.push(Deactivation { at, before });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::FailureKind;
    use crate::domain::journal::{EntryPlace, JournalEntry};
    use crate::domain::state::webhook::Failing;
    use crate::ids::{EventId, EventTypeHash, Position, WebhookId};

    const AT: Timestamp = Timestamp::from_millis(1_000_000);
    const LANE: LaneHash = LaneHash(1);

    fn id(number: u8) -> ReplayId {
        ReplayId::from_bytes([number; 16])
    }

    fn apply(state: &mut WebhookState, replay: u8, step: ReplayStep) {
        let entry = JournalEntry::Replay {
            webhook: WebhookId::from_bytes([4; 16]),
            replay: id(replay),
            step,
        };
        let place = EntryPlace {
            pack: Sequence(1),
            index: 0,
        };
        let ledger = state.ledger;
        state.apply(place, &entry);
        assert_eq!(state.ledger, ledger, "the main ledger moves");
    }

    fn begin(state: &mut WebhookState, replay: u8, at: Timestamp) {
        let step = ReplayStep::Begun {
            selection: ReplaySelection::ExhaustedSince(AT),
            through: Position {
                generation: 1,
                sequence: Sequence(20),
            },
            at,
        };
        apply(state, replay, step);
    }

    fn attempt(state: &mut WebhookState, sequence: u64, settled: u64, outcome: ReplayOutcome) {
        let attempt = ReplayAttempt {
            sequence: Sequence(sequence),
            event: EventId::from_bytes([3; 16]),
            lane: LANE,
            started_at: AT,
            latency_ms: 1,
            outcome,
            settled: Sequence(settled),
        };
        apply(state, 1, ReplayStep::Attempted(attempt));
        adds_up(state);
    }

    fn adds_up(state: &WebhookState) {
        for known in state.replays.known.values() {
            let ledger = known.ledger;
            let parts = [ledger.sent, ledger.failed, ledger.gone, ledger.cancelled];
            let sum: u64 = parts.into_iter().sum();
            assert_eq!(ledger.matched, sum + ledger.pending());
        }
    }

    fn ledger(state: &WebhookState) -> [u64; 6] {
        let ledger = state.replays.known.get(&id(1)).unwrap().ledger;
        [
            ledger.matched,
            ledger.sent,
            ledger.failed,
            ledger.gone,
            ledger.cancelled,
            ledger.pending(),
        ]
    }

    const SENT: ReplayOutcome = ReplayOutcome::Sent { status: 200 };

    fn failed() -> ReplayOutcome {
        ReplayOutcome::Failed {
            kind: FailureKind::Status,
            status: Some(503),
            pause_until: Some(AT.plus_millis(9)),
            resume_at: None,
        }
    }

    #[test]
    fn each_attempt_counts_once_and_what_is_left_is_gone_in_the_end() {
        let mut state = WebhookState::default();
        begin(&mut state, 1, AT);
        apply(&mut state, 1, ReplayStep::Counted { matched: 6 });
        apply(&mut state, 1, ReplayStep::Counted { matched: 9 });
        attempt(&mut state, 12, 0, SENT);
        attempt(&mut state, 12, 0, SENT);
        attempt(&mut state, 11, 12, failed());
        attempt(&mut state, 11, 12, SENT);
        attempt(&mut state, 15, 12, ReplayOutcome::Gone);
        assert_eq!(ledger(&state), [6, 1, 1, 1, 0, 3]);
        assert_eq!(state.health.paused_until, Some(AT.plus_millis(9)));
        assert_eq!(state.health.consecutive_failures, 0);
        let active = state.replays.active.first().unwrap();
        assert_eq!(active.settled, Sequence(12));
        assert_eq!(active.attempted, [Sequence(15)].into());
        apply(&mut state, 1, ReplayStep::Ended { at: AT });
        assert_eq!(ledger(&state), [6, 1, 1, 4, 0, 0]);
        attempt(&mut state, 16, 12, SENT);
        assert_eq!(ledger(&state), [6, 1, 1, 4, 0, 0]);
    }

    #[test]
    fn what_is_left_is_cancelled_and_says_nothing_more() {
        let mut state = WebhookState::default();
        begin(&mut state, 1, AT);
        apply(&mut state, 1, ReplayStep::Counted { matched: 3 });
        attempt(&mut state, 12, 12, SENT);
        apply(&mut state, 1, ReplayStep::Cancelled { at: AT });
        assert_eq!(ledger(&state), [3, 1, 0, 0, 2, 0]);
        attempt(&mut state, 13, 13, SENT);
        apply(&mut state, 1, ReplayStep::Ended { at: AT });
        begin(&mut state, 1, AT);
        assert_eq!(ledger(&state), [3, 1, 0, 0, 2, 0]);
        assert!(!state.replays.is_active());
    }

    #[test]
    fn those_that_ended_are_forgotten_by_number_and_by_age() {
        let mut state = WebhookState::default();
        let count = u8::try_from(REPLAYS_KEPT_MAX).unwrap() + 5;
        for number in 1..=count {
            let at = AT.plus_millis(number.into());
            begin(&mut state, number, at);
            apply(&mut state, number, ReplayStep::Ended { at });
        }
        assert_eq!(state.replays.known.len(), REPLAYS_KEPT_MAX);
        assert!(!state.replays.known.contains_key(&id(5)));
        assert!(state.replays.known.contains_key(&id(6)));
        begin(&mut state, 200, AT.plus_millis(REPLAYS_KEPT_MS + 1_000));
        assert_eq!(state.replays.known.len(), 1);
    }

    #[test]
    fn an_extent_says_what_had_ended_as_the_state_said_it() {
        let failing = Failing {
            event: EventId::from_bytes([3; 16]),
            lane: LANE,
            event_type: EventTypeHash(7),
            attempts: 1,
            retry_at: AT,
        };
        let state = WebhookState {
            resolved: Sequence(10),
            ended: [(Sequence(9), LaneHash(2)), (Sequence(12), LANE)].into(),
            failing: [(Sequence(5), failing)].into(),
            behind: [(LaneHash(2), Sequence(8))].into(),
            ..WebhookState::default()
        };
        let extent = Extent::of(&state, Sequence(20));
        for sequence in (1..=20).map(Sequence) {
            for lane in [LANE, LaneHash(2)] {
                let expected = state.has_ended(sequence, lane);
                assert_eq!(extent.has_ended(sequence, lane), expected, "{sequence}");
            }
        }
        assert!(!Extent::of(&state, Sequence(11)).has_ended(Sequence(12), LANE));
    }

    #[test]
    fn what_a_deactivation_exhausted_is_told_from_what_had_ended_before() {
        let mut state = WebhookState {
            resolved: Sequence(10),
            ended: [(Sequence(12), LANE)].into(),
            ..WebhookState::default()
        };
        let kept = [Kept {
            sequence: Sequence(14),
            event: EventId::from_bytes([3; 16]),
            lane: LANE,
            event_type: EventTypeHash(7),
            attempts: 0,
        }];
        for (reason, count) in [(ExhaustReason::Expired, 0), (ExhaustReason::Deactivated, 1)] {
            let end = UnsentEnd::Exhausted(reason);
            state.remember_deactivation(Sequence(15), end, &kept);
            assert_eq!(state.replays.deactivations.len(), count);
        }
        let deactivation = state.replays.deactivations.first().unwrap();
        let ended = (1..=20).filter(|sequence| deactivation.ended(Sequence(*sequence), LANE));
        assert_eq!(ended.collect::<Vec<u64>>(), [11, 13, 15]);
    }
}
