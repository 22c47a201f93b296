//! The replays of one webhook, told once more: what each may try, must try, and has tried.

use std::collections::{BTreeMap, BTreeSet};

use shared::domain::journal::{ExhaustReason, UnsentEnd};
use shared::domain::replay::{ReplayOutcome, ReplaySelection, ReplayStep};
use shared::domain::state::Replays;
use shared::ids::{EventId, ReplayId, WebhookId};
use shared::limits::DEACTIVATIONS_KEPT_MAX;
use shared::time::Timestamp;

use crate::streams::Registry;
use crate::world::World;

/// How a delivery came to be exhausted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Exhausted {
    Alone(Timestamp),
    /// With all others, the so many-th time.
    Together(usize),
}

#[derive(Debug)]
pub(crate) struct Told {
    /// What had ended by the time at which it began.
    must: BTreeSet<u64>,
    /// That, and what was skipped at once.
    may: BTreeSet<u64>,
    matched: Option<u64>,
    tried: BTreeMap<u64, ReplayOutcome>,
    cancelled: u64,
    /// Matched, and dropped by EVENTS before they were tried.
    left: u64,
    has_ended: bool,
}

impl Told {
    /// What must be tried, unless EVENTS drops it before.
    fn missing<'a>(&'a self, world: &'a World) -> impl Iterator<Item = u64> + 'a {
        let first = world.events.first();
        let there = self.must.range(first..);
        there
            .copied()
            .filter(|sequence| !self.tried.contains_key(sequence))
    }
}

impl super::Told {
    /// What becomes of what ends together, for who looks for exhausted deliveries.
    pub(super) fn end_together(&mut self, end: UnsentEnd) -> Option<Exhausted> {
        if end != UnsentEnd::Exhausted(ExhaustReason::Deactivated) {
            return None;
        }
        self.deactivations.push(self.deactivated_at);
        Some(Exhausted::Together(self.deactivations.len() - 1))
    }

    pub(crate) fn replays_at_work(&self, registry: &Registry) -> usize {
        let at_work = self.replays.values().filter(|replay| !replay.has_ended);
        if self.is_enabled(registry) {
            at_work.count()
        } else {
            0
        }
    }

    pub(super) fn replay(
        &mut self,
        id: WebhookId,
        replay: ReplayId,
        step: &ReplayStep,
        epoch: u64,
        world: &World,
    ) {
        if let ReplayStep::Begun {
            selection, through, ..
        } = step
        {
            // Asked for again by who did not know.
            if self.replays.contains_key(&replay) {
                return;
            }
            let told = self.begin(selection, through.sequence.0, world);
            self.replays.insert(replay, told);
            return;
        }
        // One that nobody began, or that was cancelled meanwhile, says nothing.
        let Some(told) = self.replays.get_mut(&replay).filter(|told| !told.has_ended) else {
            return;
        };
        match step {
            ReplayStep::Begun { .. } => {}
            ReplayStep::Counted { matched } => {
                // What is gone already nobody counts.
                let there = told.must.range(world.events.first()..);
                let bounds = there.count() as u64..=told.may.len() as u64;
                assert!(
                    bounds.contains(matched),
                    "{replay} matches {matched} of {bounds:?}"
                );
                assert_eq!(told.matched, None, "{replay} is counted twice");
                told.matched = Some(*matched);
            }
            ReplayStep::Attempted(attempt) => {
                let sequence = attempt.sequence.0;
                assert!(
                    told.matched.is_some(),
                    "{replay} goes on before it is counted"
                );
                assert!(told.may.contains(&sequence), "{replay} touches {sequence}");
                let before = told.tried.insert(sequence, attempt.outcome);
                assert!(before.is_none(), "{replay} tries {sequence} twice");
                assert!(told.tried.len() as u64 <= told.matched.unwrap_or(0));
                if attempt.outcome == ReplayOutcome::Gone {
                    let first = world.events.first();
                    assert!(sequence < first, "{replay} calls {sequence} gone");
                    return;
                }
                let posts = world.posts.iter().filter(|post| {
                    post.webhook == id
                        && post.epoch == epoch
                        && post.sequence == sequence
                        && post.replay.is_some_and(|turn| turn.replay == replay)
                });
                let is_success = matches!(attempt.outcome, ReplayOutcome::Sent { .. });
                let ends: Vec<_> = posts.filter_map(|post| post.ended).collect();
                assert!(
                    ends.iter().any(|(_, success)| *success == is_success),
                    "{replay} tells of {attempt:?}, and there was {ends:?}"
                );
            }
            ReplayStep::ProbeFailed { .. } => {
                assert!(
                    self.breaker_is_open || self.was_lifted,
                    "{replay} probes while closed"
                );
            }
            ReplayStep::Cancelled { .. } => {
                told.cancelled = told.matched.unwrap_or(0) - told.tried.len() as u64;
                told.has_ended = true;
            }
            ReplayStep::Ended { .. } => {
                let missing: Vec<u64> = told.missing(world).collect();
                assert!(missing.is_empty(), "{replay} left something out: {told:?}");
                told.left = told.matched.expect("it is counted") - told.tried.len() as u64;
                let untried = told
                    .may
                    .range(..world.events.first())
                    .filter(|sequence| !told.tried.contains_key(sequence));
                assert!(told.left <= untried.count() as u64, "of {replay}: {told:?}");
                told.has_ended = true;
            }
        }
    }

    fn begin(&self, selection: &ReplaySelection, through: u64, world: &World) -> Told {
        let is_chosen = |sequence: u64, event: EventId| match selection {
            ReplaySelection::Events(ids) => ids.contains(&event),
            ReplaySelection::Published { from, to } => {
                let published_at = world.events.get(sequence).unwrap().published_at;
                *from <= published_at && published_at < *to
            }
            ReplaySelection::ExhaustedSince(_) => false,
        };
        let is_exhausted = |exhausted: Option<Exhausted>| match (selection, exhausted) {
            (ReplaySelection::ExhaustedSince(since), Some(Exhausted::Alone(at))) => at >= *since,
            (ReplaySelection::ExhaustedSince(since), Some(Exhausted::Together(index))) => {
                index + DEACTIVATIONS_KEPT_MAX >= self.deactivations.len()
                    && self.deactivations[index] >= *since
            }
            (ReplaySelection::ExhaustedSince(_), None)
            | (ReplaySelection::Events(_) | ReplaySelection::Published { .. }, _) => false,
        };
        let ended = self.deliveries.range(..=through);
        let must: BTreeSet<u64> = ended
            .filter(|(_, delivery)| delivery.end.is_some())
            .filter(|(sequence, delivery)| {
                is_chosen(**sequence, delivery.event) || is_exhausted(delivery.exhausted)
            })
            .map(|(sequence, _)| *sequence)
            .collect();
        let skipped = self.skipped_at_once.range(..=through);
        let skipped = skipped.filter(|(sequence, event)| is_chosen(**sequence, **event));
        let may = skipped
            .map(|(sequence, _)| *sequence)
            .chain(must.iter().copied());
        Told {
            may: may.collect(),
            must,
            matched: None,
            tried: BTreeMap::new(),
            cancelled: 0,
            left: 0,
            has_ended: false,
        }
    }

    /// The fold's ledgers add up, and to the same.
    pub(crate) fn compare_replays(&self, folded: &Replays) {
        let known: BTreeSet<ReplayId> = folded.known.keys().copied().collect();
        assert_eq!(
            known,
            self.replays.keys().copied().collect(),
            "replays of the fold"
        );
        for (id, told) in &self.replays {
            let ledger = folded.known[id].ledger;
            let count = |is_it: fn(&ReplayOutcome) -> bool| {
                told.tried.values().filter(|outcome| is_it(outcome)).count() as u64
            };
            let expected = (
                told.matched.unwrap_or(0),
                count(|outcome| matches!(outcome, ReplayOutcome::Sent { .. })),
                count(|outcome| matches!(outcome, ReplayOutcome::Failed { .. })),
                count(|outcome| matches!(outcome, ReplayOutcome::Gone)) + told.left,
                told.cancelled,
            );
            let (matched, sent, failed, gone, cancelled) = expected;
            let pending = ledger.pending();
            assert_eq!(
                (
                    ledger.matched,
                    ledger.sent,
                    ledger.failed,
                    ledger.gone,
                    ledger.cancelled
                ),
                expected,
                "ledger of {id}"
            );
            assert_eq!(
                matched,
                sent + failed + gone + cancelled + pending,
                "{id} adds up"
            );
            let is_active = folded.active.iter().any(|active| active.id == *id);
            assert_eq!(is_active, !told.has_ended, "whether {id} has ended");
        }
    }
}
