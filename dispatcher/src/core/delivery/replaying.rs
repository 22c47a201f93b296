//! Replays of one webhook, one after another: what is counted, read and tried (`protocol.md`,
//! rule 24).
//!
//! A replay has a turn when nothing of the main ledger could start instead. It holds its lane for
//! as long as an attempt is under way, and that is all that the main ledger sees of it: a failed
//! one is not repeated and holds nothing up. Too many that fail in a row make the chain wait, since
//! each of them would otherwise be used up on an endpoint that is down.
//!
//! While the breaker is open nothing of a replay is tried. But where nothing is pending there is
//! nothing to probe with either, as after all was exhausted, which is when replays are asked for:
//! then a replay's event is the probe, at a probe's time, and one that fails is not used up.

use std::collections::BTreeMap;

use shared::domain::journal::{JournalEntry, LanesSettled};
use shared::domain::replay::{ReplayAttempt, ReplayOutcome, ReplaySelection, ReplayStep};
use shared::domain::state::{ActiveReplay, Breaker, Replay};
use shared::domain::webhook::Status;
use shared::ids::{EventId, ReplayId, Sequence};
use shared::limits::{REPLAY_WINDOW_MAX, REPLAYS_ACTIVE_MAX};
use shared::time::Timestamp;

use super::{AttemptOutcome, Context, Deliveries, Effect};
use crate::core::health;
use crate::core::replay::Found;
use crate::core::settling::settled;

/// Failures in a row after which the chain waits before each further attempt.
const WAITS_AFTER: u32 = 5;
/// Events that are looked at for one whose lane is free.
const LOOK_AHEAD: usize = 64;

/// What happens to a webhook's replays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayInput {
    /// Somebody asks for one. Nothing comes of it when the id is known, when there are too many,
    /// or when the webhook is not enabled.
    Begin {
        replay: ReplayId,
        selection: ReplaySelection,
    },
    Cancel(ReplayId),
    /// What [`ReplayEffect::Count`] asked for.
    Counted {
        replay: ReplayId,
        matched: u64,
    },
    /// What [`ReplayEffect::Read`] asked for: all in (after, through], ascending.
    Read {
        replay: ReplayId,
        found: Vec<Found>,
        through: Sequence,
    },
    /// What was asked for could not be read; it is asked for again.
    ReadFailed(ReplayId),
    Finished(Replayed),
}

/// An attempt of a replay has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub turn: ReplayTurn,
    pub started_at: Timestamp,
    pub latency_ms: u32,
    pub outcome: AttemptOutcome,
}

/// What the shell is to do for a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayEffect {
    Attempt(ReplayTurn),
    /// Count all that it matches, once everything journaled so far is stored.
    Count(ReplayId),
    /// Read what it matches after `after`, as far as one read goes.
    Read {
        replay: ReplayId,
        after: Sequence,
    },
}

/// An event that is a replay's to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplayTurn {
    pub replay: ReplayId,
    pub sequence: Sequence,
    pub event: EventId,
}

/// What is at hand of the replay that is at work.
#[derive(Clone, Debug, Default)]
pub(super) struct Replaying {
    replay: Option<ReplayId>,
    /// Found and not tried.
    window: BTreeMap<Sequence, Found>,
    /// How far its range is taken into the window.
    read: Sequence,
    /// Whose count or read is under way.
    asked: Option<ReplayId>,
    /// Of any replay: one that was cancelled still holds its lane.
    in_flight: BTreeMap<ReplayTurn, Found>,
    /// Under way while the breaker is open.
    probing: Option<ReplayTurn>,
    /// What was probed with last: the next probe is another event.
    probed: Sequence,
}

impl Deliveries {
    /// The replay that is at work or will be next, as the journal tells it.
    pub fn replay(&self) -> Option<&ActiveReplay> {
        self.state.replays.active.first()
    }

    pub(super) fn take_replay_input(
        &mut self,
        input: ReplayInput,
        context: &Context,
        effects: &mut Vec<Effect>,
    ) {
        match input {
            ReplayInput::Begin { replay, selection } => {
                self.begin_replay(replay, selection, context, effects);
            }
            ReplayInput::Cancel(replay) => {
                let mut active = self.state.replays.active.iter();
                if active.any(|active| active.id == replay) {
                    let step = ReplayStep::Cancelled { at: context.now };
                    self.replay_goes_on(replay, step, effects);
                }
            }
            ReplayInput::Counted { replay, matched } => {
                self.answered(replay);
                if self
                    .known_replay(replay)
                    .is_some_and(|known| !known.is_counted)
                {
                    self.replay_goes_on(replay, ReplayStep::Counted { matched }, effects);
                }
            }
            ReplayInput::Read {
                replay,
                found,
                through,
            } => {
                self.answered(replay);
                if self.replaying.replay == Some(replay) {
                    self.take_found(found, through);
                }
            }
            ReplayInput::ReadFailed(replay) => self.answered(replay),
            ReplayInput::Finished(replayed) => self.finish_replayed(replayed, context, effects),
        }
    }

    fn begin_replay(
        &mut self,
        replay: ReplayId,
        selection: ReplaySelection,
        context: &Context,
        effects: &mut Vec<Effect>,
    ) {
        let replays = &self.state.replays;
        if replays.known.contains_key(&replay)
            || replays.active.len() >= REPLAYS_ACTIVE_MAX
            || self.rules.status != Status::Enabled
        {
            return;
        }
        self.settle_at_once(effects);
        let step = ReplayStep::Begun {
            selection,
            through: self.position(self.read),
            at: context.now,
        };
        self.replay_goes_on(replay, step, effects);
    }

    /// The journal says as much of what has ended as it can: the replay knows by it what it may
    /// touch.
    fn settle_at_once(&mut self, effects: &mut Vec<Effect>) {
        self.ends_since_settled = 0;
        let moved = std::mem::take(&mut self.moved);
        let entry = if self.lanes.is_empty() {
            let has_more = !self.state.ended.is_empty() || !self.state.behind.is_empty();
            let is_news = has_more || self.read > self.state.resolved;
            is_news.then_some(JournalEntry::Settled {
                webhook: self.webhook,
                resolved: self.read,
                lanes: LanesSettled::All,
            })
        } else {
            settled(self.webhook, &self.state, &self.lanes, self.read, &moved)
        };
        if let Some(entry) = entry {
            self.journal(entry, effects);
        }
    }

    fn answered(&mut self, replay: ReplayId) {
        if self.replaying.asked == Some(replay) {
            self.replaying.asked = None;
        }
    }

    fn known_replay(&self, replay: ReplayId) -> Option<&Replay> {
        let active = self.state.replays.active.iter();
        let known = active.into_iter().find(|active| active.id == replay)?;
        self.state.replays.known.get(&known.id)
    }

    fn take_found(&mut self, found: Vec<Found>, through: Sequence) {
        let Some(active) = self.state.replays.active.first() else {
            return;
        };
        for found in found {
            let is_new = found.sequence > self.replaying.read
                && found.sequence > active.settled
                && !active.attempted.contains(&found.sequence);
            if is_new {
                self.replaying.window.insert(found.sequence, found);
            }
        }
        self.replaying.read = self.replaying.read.max(through);
    }

    fn finish_replayed(
        &mut self,
        replayed: Replayed,
        context: &Context,
        effects: &mut Vec<Effect>,
    ) {
        let turn = replayed.turn;
        let Some(found) = self.replaying.in_flight.remove(&turn) else {
            return;
        };
        self.lanes.let_go(found.sequence, found.lane);
        let is_probe = self.replaying.probing == Some(turn) && self.state.health.is_open();
        self.replaying.probing = self.replaying.probing.filter(|probing| *probing != turn);
        // Cancelled meanwhile: it counts as that.
        if self.replaying.replay != Some(turn.replay) {
            return;
        }
        let Some(active) = self.replay().filter(|active| active.id == turn.replay) else {
            return;
        };
        let outcome = match replayed.outcome {
            AttemptOutcome::NotStarted => {
                self.replaying.window.insert(found.sequence, found);
                return;
            }
            AttemptOutcome::Delivered { status } => ReplayOutcome::Sent { status },
            AttemptOutcome::Gone(_) => ReplayOutcome::Gone,
            AttemptOutcome::Failed { retry_after_ms, .. } if is_probe => {
                self.replaying.window.insert(found.sequence, found);
                self.fail_replayed_probe(turn.replay, retry_after_ms, context, effects);
                return;
            }
            AttemptOutcome::Failed {
                failure,
                retry_after_ms,
            } => {
                let in_row = active.failures_in_row.saturating_add(1);
                let policy = &self.rules.policy;
                let resume_at = in_row
                    .checked_sub(WAITS_AFTER)
                    .map(|waits| health::next_probe(policy, waits, context.now, context.jitter));
                ReplayOutcome::Failed {
                    kind: failure.kind,
                    status: failure.status,
                    pause_until: pause_until(retry_after_ms, context),
                    resume_at,
                }
            }
        };
        let attempt = ReplayAttempt {
            sequence: found.sequence,
            event: found.event,
            lane: found.lane,
            started_at: replayed.started_at,
            latency_ms: replayed.latency_ms,
            outcome,
            settled: self.tried_through(turn.replay),
        };
        self.replay_goes_on(turn.replay, ReplayStep::Attempted(attempt), effects);
        if is_probe && matches!(outcome, ReplayOutcome::Sent { .. }) {
            let (webhook, at) = (self.webhook, context.now);
            self.journal(JournalEntry::BreakerClosed { webhook, at }, effects);
            self.narrow();
        }
    }

    /// Like every probe it is no attempt.
    fn fail_replayed_probe(
        &mut self,
        replay: ReplayId,
        retry_after_ms: Option<u64>,
        context: &Context,
        effects: &mut Vec<Effect>,
    ) {
        let probes = match self.state.health.breaker {
            Breaker::Open { probes, .. } => probes.saturating_add(1),
            Breaker::Closed | Breaker::Ramping { .. } => 0,
        };
        let policy = &self.rules.policy;
        let step = ReplayStep::ProbeFailed {
            next_probe_at: health::next_probe(policy, probes, context.now, context.jitter),
            pause_until: pause_until(retry_after_ms, context),
        };
        self.replay_goes_on(replay, step, effects);
    }

    /// All that the replay matches at or below has been tried.
    fn tried_through(&self, replay: ReplayId) -> Sequence {
        let in_flight = self.replaying.in_flight.keys();
        let under_way = in_flight
            .filter(|turn| turn.replay == replay)
            .map(|turn| turn.sequence)
            .min();
        let waiting = self.replaying.window.keys().next().copied();
        let lowest = [under_way, waiting].into_iter().flatten().min();
        lowest.map_or(self.replaying.read, |lowest| {
            lowest.previous().min(self.replaying.read)
        })
    }

    /// Sees to the chain after every input: ends what is through, and asks for what comes next.
    pub(super) fn go_on_replaying(&mut self, context: &Context, effects: &mut Vec<Effect>) {
        while let Some(active) = self.state.replays.active.first() {
            let (id, through) = (active.id, active.extent.through);
            if self.replaying.replay != Some(id) {
                self.replaying.replay = Some(id);
                self.replaying.window.clear();
                self.replaying.read = active.settled;
            }
            let Some(known) = self.known_replay(id) else {
                return;
            };
            let is_asked = self.replaying.asked.is_some();
            if !known.is_counted {
                if !is_asked {
                    self.replaying.asked = Some(id);
                    effects.push(Effect::Replay(ReplayEffect::Count(id)));
                }
                return;
            }
            let is_read = self.replaying.read >= through;
            let is_under_way = self
                .replaying
                .in_flight
                .keys()
                .any(|turn| turn.replay == id);
            let is_tried = is_read && self.replaying.window.is_empty();
            if !is_under_way && (is_tried || known.ledger.pending() == 0) {
                let step = ReplayStep::Ended { at: context.now };
                self.replay_goes_on(id, step, effects);
                continue;
            }
            if !is_asked && !is_read && self.replaying.window.len() <= REPLAY_WINDOW_MAX / 4 {
                self.replaying.asked = Some(id);
                let after = self.replaying.read;
                effects.push(Effect::Replay(ReplayEffect::Read { replay: id, after }));
            }
            self.start_replays(context, effects);
            return;
        }
        self.replaying.replay = None;
        self.replaying.window = BTreeMap::new();
    }

    /// With what the main ledger leaves over.
    fn start_replays(&mut self, context: &Context, effects: &mut Vec<Effect>) {
        let started = effects.iter().filter(|effect| is_attempt(effect)).count();
        let mut allowance = context.allowance.saturating_sub(started);
        while allowance > 0
            && let Some((replay, found)) = self.next_replayed(context.now)
        {
            if let Some(limit) = self.rules.policy.rate_limit_per_second {
                // What arrives within the second has the other half.
                if !self.rate.allows(limit.div_ceil(2), context.now) {
                    return;
                }
                self.rate.started_again(context.now);
            }
            if !self.lanes.hold(found.sequence, found.lane) {
                return;
            }
            self.replaying.window.remove(&found.sequence);
            let turn = ReplayTurn {
                replay,
                sequence: found.sequence,
                event: found.event,
            };
            self.replaying.in_flight.insert(turn, found);
            if self.state.health.is_open() {
                self.replaying.probing = Some(turn);
                self.replaying.probed = found.sequence;
            }
            allowance -= 1;
            effects.push(Effect::Replay(ReplayEffect::Attempt(turn)));
        }
    }

    /// What the replay at work would try now, but for the rate.
    fn next_replayed(&self, now: Timestamp) -> Option<(ReplayId, Found)> {
        if self.deleted || self.next_rules.is_some() || !self.sends(now) {
            return None;
        }
        if self.replaying.window.is_empty() {
            return None;
        }
        let active = self.replay()?;
        if let Breaker::Open { next_probe_at, .. } = self.state.health.breaker {
            let may_probe = self.probes_by_replay() && now >= next_probe_at;
            let window = &self.replaying.window;
            let mut later = window.range(self.replaying.probed.next()..);
            let next = later.next().or_else(|| window.first_key_value());
            return next
                .filter(|_| may_probe && self.in_flight() == 0)
                .map(|(_, found)| (active.id, *found));
        }
        if active.resume_at.is_some_and(|resume_at| now < resume_at) {
            return None;
        }
        let known = self.known_replay(active.id)?;
        let own = self.replaying.in_flight.len();
        let is_careful = active.failures_in_row >= WAITS_AFTER;
        // At least half of the places stay free for what arrives.
        let places = if is_careful {
            1
        } else {
            self.attempts_limit().div_ceil(2)
        };
        let left = usize::try_from(known.ledger.pending()).unwrap_or(usize::MAX);
        if own >= places.min(left) || self.in_flight() >= self.attempts_limit() {
            return None;
        }
        let mut window = self.replaying.window.values().take(LOOK_AHEAD);
        let found = window.find(|found| self.lanes.is_free(found.sequence, found.lane))?;
        Some((active.id, *found))
    }

    /// Whether there is nothing else to find out with that the endpoint is back.
    fn probes_by_replay(&self) -> bool {
        self.lanes.is_empty() && self.is_caught_up()
    }

    /// Whether a step with more allowance would start an attempt of a replay.
    pub(super) fn wants_replay(&self, now: Timestamp) -> bool {
        self.next_replayed(now).is_some()
    }

    /// When there may be something of a replay to start that does not follow from another input.
    pub(super) fn replay_due(&self, now: Timestamp) -> Option<Timestamp> {
        let active = self.replay()?;
        if self.rules.status != Status::Enabled || self.replaying.window.is_empty() {
            return None;
        }
        let own = match self.state.health.breaker {
            Breaker::Open { next_probe_at, .. } if self.probes_by_replay() => Some(next_probe_at),
            Breaker::Open { .. } => return None,
            Breaker::Closed | Breaker::Ramping { .. } => active.resume_at,
        };
        let waits = own.max(self.state.health.paused_until);
        let waits = waits.filter(|until| *until > now);
        let is_limited = self.rules.policy.rate_limit_per_second.is_some();
        waits.or_else(|| (is_limited && self.wants_replay(now)).then(|| self.rate.look_again_at()))
    }

    fn replay_goes_on(&mut self, replay: ReplayId, step: ReplayStep, effects: &mut Vec<Effect>) {
        let entry = JournalEntry::Replay {
            webhook: self.webhook,
            replay,
            step,
        };
        self.journal(entry, effects);
    }
}

fn pause_until(retry_after_ms: Option<u64>, context: &Context) -> Option<Timestamp> {
    let wait = i64::try_from(retry_after_ms?).ok()?;
    Some(context.now.plus_millis(wait))
}

fn is_attempt(effect: &Effect) -> bool {
    match effect {
        Effect::Attempt(_) | Effect::Replay(ReplayEffect::Attempt(_)) => true,
        Effect::Journal(_)
        | Effect::ReadBacklog { .. }
        | Effect::ReadAgain { .. }
        | Effect::WakeAt(_)
        | Effect::Replay(ReplayEffect::Count(_) | ReplayEffect::Read { .. }) => false,
    }
}
