//! The deliveries of one webhook: what comes in, what is attempted, what is journaled.
//!
//! `state` is what the journal will tell, each entry applied as it is made; `lanes` is what of the
//! pending is at hand. `read` is how far the stream is taken into the lanes: a webhook that cannot
//! keep up remembers positions only, stops at its window's bound, and reads on from the stream
//! when there is room (`protocol.md`, rule 14).

use std::collections::BTreeSet;

use shared::domain::journal::{
    EntryPlace, ExhaustReason, Failure, JournalEntry, SkipReason, UnsentEnd,
};
use shared::domain::policy::Policy;
use shared::domain::state::{Breaker, Health, WebhookState};
use shared::domain::webhook::{Dialect, Status};
use shared::ids::{EventId, EventTypeHash, LaneHash, Position, Sequence, WebhookId};
use shared::time::Timestamp;

use super::health;
use super::lanes::{Admitted, Bounds, Lanes, Pending};
use super::rate::RateLimit;

mod ending;
mod outcomes;
mod replaying;

pub use replaying::{ReplayEffect, ReplayInput, ReplayTurn, Replayed};

/// All matches in (after, through], classified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub after: Sequence,
    pub through: Sequence,
    pub matches: Vec<Match>,
}

/// An event that the webhook is owed, or would be if its status let it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    pub sequence: Sequence,
    pub event: EventId,
    pub event_type: EventTypeHash,
    pub lane: LaneHash,
    pub skipped: Option<SkipReason>,
}

/// What happens to a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Offered(Offer),
    /// What [`Effect::ReadBacklog`] asked for.
    BacklogRead(Offer),
    /// What [`Effect::ReadAgain`] asked for.
    ReadAgain(Offer),
    /// What was to be read could not be; it is asked for again by the next input.
    ReadFailed,
    Finished(Finished),
    /// Time has passed, or more may be attempted than before.
    Tick,
    Configured(Rules),
    /// What is pending at or below ends: the configuration says so, or EVENTS is about to drop it.
    EndPending(Sequence, UnsentEnd),
    /// The webhook may be put to sleep: nothing has happened for a while.
    Rest,
    /// The webhook is deleted: what is pending is not sent.
    Deleted,
    Replay(ReplayInput),
}

/// How the webhook is to be treated from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub policy: Policy,
    pub dialect: Dialect,
    /// An owner's own decision included.
    pub status: Status,
    /// Whoever brought this about lifted what an owner decided: health begins anew.
    pub lifts: bool,
}

/// An attempt has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    pub sequence: Sequence,
    pub started_at: Timestamp,
    pub latency_ms: u32,
    pub outcome: AttemptOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    Delivered {
        status: u16,
    },
    Failed {
        failure: Failure,
        /// What the endpoint asked for, from the end of the attempt on.
        retry_after_ms: Option<u64>,
    },
    /// Nothing was sent, since the stream no longer has the event (rule 20) or its bytes are not
    /// readable (rule 26).
    Gone(UnsentEnd),
    /// Nothing was sent, and nothing was decided: the attempt is made anew.
    NotStarted,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Attempt(Attempt),
    Journal(JournalEntry),
    /// Read what matches after `after`, and offer it as [`Input::BacklogRead`]. The stream is
    /// known to reach `known`.
    ReadBacklog {
        after: Sequence,
        known: Sequence,
    },
    /// Read again what matches in (after, through], as far as one read goes, and offer it as
    /// [`Input::ReadAgain`].
    ReadAgain {
        after: Sequence,
        through: Sequence,
    },
    /// Send [`Input::Tick`] at this time; replaces what was asked for before.
    WakeAt(Timestamp),
    Replay(ReplayEffect),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub sequence: Sequence,
    pub event: EventId,
    /// From 1.
    pub number: u32,
}

/// What a step may draw on besides its input.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Monotone within the partition.
    pub now: Timestamp,
    /// Uniformly random.
    pub jitter: u64,
    /// Attempts that may start now, besides the webhook's own limits.
    pub allowance: usize,
}

/// What a webhook's deliveries begin with.
#[derive(Clone, Debug)]
pub struct Beginning {
    pub webhook: WebhookId,
    /// Of positions in EVENTS.
    pub generation: u32,
    pub rules: Rules,
    /// As the journal tells it, everything that was pushed included.
    pub state: WebhookState,
    /// Nothing is pending at or below, if the ledger says that nothing is pending at all.
    pub idle_through: Option<Sequence>,
    /// A predecessor's last attempt may still arrive until then (rule 9).
    pub hold_ends_until: Timestamp,
    pub bounds: Bounds,
}

/// The state of one webhook.
#[derive(Clone, Debug)]
pub struct Deliveries {
    webhook: WebhookId,
    generation: u32,
    rules: Rules,
    /// Rules with another ordering, held back until nothing is in flight (rule 13).
    next_rules: Option<Rules>,
    state: WebhookState,
    lanes: Lanes,
    read: Sequence,
    /// The stream is known to reach this.
    known: Sequence,
    reading: bool,
    woken_at: Option<Timestamp>,
    /// Under way while the breaker is open.
    probing: Option<Sequence>,
    rate: RateLimit,
    hold_ends_until: Timestamp,
    ends_since_settled: usize,
    /// Lanes that are behind and in which something ended since they were settled last.
    moved: BTreeSet<LaneHash>,
    /// To be journaled before anything else.
    opening: Option<JournalEntry>,
    /// Successes since the partition was taken over with failures in it: what is overdue starts
    /// like after an outage (rule 6).
    takeover_ramp: Option<usize>,
    /// Deactivated here, and not told yet how far what was pending ends.
    awaits_end: bool,
    /// What was pending at or below has ended as expired.
    expired_through: Sequence,
    deleted: bool,
    replaying: replaying::Replaying,
}

/// An entry is applied before it has a place; nothing here asks for one.
const UNPLACED: EntryPlace = EntryPlace {
    pack: Sequence(0),
    index: 0,
};

impl Deliveries {
    pub fn new(beginning: Beginning) -> Self {
        let Beginning {
            webhook,
            generation,
            rules,
            state,
            idle_through,
            hold_ends_until,
            bounds,
        } = beginning;
        let mut lanes = Lanes::new(rules.policy.ordering, bounds);
        for (sequence, failing) in &state.failing {
            let pending = Pending {
                event: failing.event,
                event_type: failing.event_type,
                lane: failing.lane,
                attempts: failing.attempts,
                retry_at: Some(failing.retry_at),
            };
            lanes.restore(*sequence, pending);
        }
        let read = idle_through.unwrap_or_default().max(state.resolved);
        for (lane, from) in state.behind.iter().filter(|(_, from)| **from <= read) {
            lanes.restore_unremembered(*lane, *from);
        }
        // Nobody knows under which orderings the log came about: whatever it tells of may have been
        // tried before an earlier delivery of its lane.
        let told = state.ended.keys().chain(state.failing.keys()).max();
        lanes.keep_through(told.copied().unwrap_or_default());
        let mut deliveries = Self {
            webhook,
            generation,
            rules,
            next_rules: None,
            state,
            lanes,
            read,
            known: read,
            reading: false,
            woken_at: None,
            probing: None,
            rate: RateLimit::default(),
            hold_ends_until,
            ends_since_settled: 0,
            moved: BTreeSet::new(),
            opening: None,
            takeover_ramp: None,
            awaits_end: false,
            expired_through: Sequence(0),
            deleted: false,
            replaying: replaying::Replaying::default(),
        };
        deliveries.takeover_ramp = (!deliveries.lanes.is_empty()).then_some(0);
        if idle_through.is_some() {
            deliveries.opening = deliveries.settled_wholly();
        }
        deliveries.narrow();
        deliveries
    }

    pub fn health(&self) -> &Health {
        &self.state.health
    }

    pub fn status(&self) -> Status {
        self.rules.status
    }

    pub fn policy(&self) -> &Policy {
        &self.rules.policy
    }

    pub fn in_flight(&self) -> usize {
        self.lanes.in_flight()
    }

    /// Deliveries at hand: what the webhook costs in memory, beside a fixed part.
    pub fn remembered(&self) -> usize {
        self.lanes.len() + self.state.ended.len() + self.state.behind.len()
    }

    /// Whether the delivery is pending here, so that its body may be of use.
    pub fn holds(&self, sequence: Sequence) -> bool {
        self.lanes.contains(sequence)
    }

    /// Whether everything that is known of is taken.
    pub fn is_caught_up(&self) -> bool {
        self.read >= self.known
    }

    /// Whether there is nothing to do but wait for events.
    pub fn is_idle(&self) -> bool {
        self.is_caught_up()
            && !self.reading
            && self.next_rules.is_none()
            && self.lanes.is_empty()
            && !self.state.replays.is_active()
    }

    /// Whether a step with more allowance would start an attempt.
    pub fn wants_more(&self, now: Timestamp) -> bool {
        self.wants_delivery(now) || self.wants_replay(now)
    }

    fn wants_delivery(&self, now: Timestamp) -> bool {
        if self.deleted || self.next_rules.is_some() || !self.sends(now) {
            return false;
        }
        match self.state.health.breaker {
            Breaker::Open { next_probe_at, .. } => {
                now >= next_probe_at && self.in_flight() == 0 && !self.lanes.is_empty()
            }
            Breaker::Closed | Breaker::Ramping { .. } => {
                self.in_flight() < self.attempts_limit() && self.lanes.has_ready(now)
            }
        }
    }

    /// Attempts that may be under way.
    fn attempts_limit(&self) -> usize {
        usize::from(self.rules.policy.max_in_flight)
            .min(health::in_flight_limit(&self.state.health))
            .min(self.takeover_ramp.map_or(usize::MAX, |ramp| ramp + 1))
    }

    /// Takes one input; effects are appended in the order in which they are to be carried out.
    pub fn step(&mut self, input: Input, context: &Context, effects: &mut Vec<Effect>) {
        if self.deleted {
            return;
        }
        effects.extend(self.opening.take().map(Effect::Journal));
        match input {
            Input::Offered(offer) => self.take_offer(&offer),
            Input::BacklogRead(offer) => {
                self.reading = false;
                self.take_offer(&offer);
            }
            Input::ReadAgain(offer) => self.take_again(&offer),
            Input::ReadFailed => {
                self.reading = false;
                self.lanes
                    .finish_reading_again(None::<(std::iter::Empty<_>, _)>);
            }
            Input::Finished(finished) => self.finish(finished, context, effects),
            // A timer that fired early, by a clock that was set back, is asked for anew.
            Input::Tick => self.woken_at = None,
            Input::Configured(rules) => {
                // At once, whatever the barrier holds back: nothing more may start.
                self.rules.status = rules.status;
                self.next_rules = Some(rules);
            }
            Input::Rest => {
                if self.is_idle() {
                    effects.extend(self.settled_wholly().map(Effect::Journal));
                }
            }
            Input::EndPending(through, end) => {
                self.end_as_owed(through, end, effects);
            }
            Input::Deleted => {
                self.deleted = true;
                self.lanes = Lanes::new(self.rules.policy.ordering, Bounds::default());
                self.state = WebhookState::default();
                return;
            }
            Input::Replay(input) => self.take_replay_input(input, context, effects),
        }
        self.adopt_rules(context, effects);
        self.sweep(context, effects);
        self.start_attempts(context, effects);
        self.go_on_replaying(context, effects);
        self.settle(effects);
        self.read_on(effects);
        self.wake(context, effects);
    }

    fn take_offer(&mut self, offer: &Offer) {
        self.known = self.known.max(offer.through);
        if offer.after > self.read || offer.through <= self.read {
            return;
        }
        let above = self.read;
        for owed in offer.matches.iter().filter(|owed| owed.sequence > above) {
            let is_taken = owed.skipped.is_some()
                || self.lanes.contains(owed.sequence)
                || self.state.has_ended(owed.sequence, owed.lane);
            if !is_taken && self.lanes.admit(owed.sequence, untried(owed)) == Admitted::NoRoom {
                self.read = owed.sequence.previous();
                return;
            }
        }
        self.read = offer.through;
    }

    /// Gives lanes what they had forgotten.
    fn take_again(&mut self, offer: &Offer) {
        self.reading = false;
        let state = &self.state;
        let pending = offer
            .matches
            .iter()
            .filter(|owed| owed.skipped.is_none() && !state.has_ended(owed.sequence, owed.lane))
            .map(|owed| (owed.sequence, untried(owed)));
        self.lanes
            .finish_reading_again(Some((pending, offer.through)));
    }

    /// What becomes of pending deliveries in the webhook's status, if they do not wait.
    fn ends_pending(&self) -> Option<UnsentEnd> {
        ends_pending(self.rules.status)
    }

    /// A delivery ends: its lane goes on.
    fn end(&mut self, sequence: Sequence) {
        if let Some(pending) = self.lanes.remove(sequence) {
            self.ends_since_settled += 1;
            if self.state.behind.contains_key(&pending.lane) {
                self.moved.insert(pending.lane);
            }
        }
    }

    fn journal(&mut self, entry: JournalEntry, effects: &mut Vec<Effect>) {
        self.state.apply(UNPLACED, &entry);
        effects.push(Effect::Journal(entry));
    }

    /// A change of ordering is a barrier: attempts in flight end first, then everything goes by
    /// sequence under the new one.
    fn adopt_rules(&mut self, context: &Context, effects: &mut Vec<Effect>) {
        let Some(next) = &self.next_rules else {
            return;
        };
        if next.policy.ordering != self.lanes.ordering() {
            if self.lanes.in_flight() > 0 {
                return;
            }
            self.lanes.keep_through(self.read);
            self.lanes.reorder(next.policy.ordering);
        }
        if let Some(next) = self.next_rules.take() {
            // Another status by now: what is left of this one has ended.
            self.awaits_end &= next.status == Status::Deactivated;
            // The journal began its health anew where it was lifted; the breaker may have opened
            // since, before this was known here.
            if next.lifts && self.state.health.is_open() {
                let (webhook, at) = (self.webhook, context.now);
                self.journal(JournalEntry::BreakerClosed { webhook, at }, effects);
            } else if next.lifts {
                self.state.health = Health::default();
            }
            self.rules = next;
            self.narrow();
        }
    }

    /// What cannot be sent now is not worth remembering: it is read again when its time comes.
    fn narrow(&mut self) {
        let is_narrow = self.state.health.is_open() || self.rules.status != Status::Enabled;
        if let Some(cut) = self.lanes.narrow(is_narrow) {
            self.read = self.read.min(cut.previous());
        }
    }

    fn sends(&self, now: Timestamp) -> bool {
        self.rules.status == Status::Enabled
            && self
                .state
                .health
                .paused_until
                .is_none_or(|until| until <= now)
    }

    fn start_attempts(&mut self, context: &Context, effects: &mut Vec<Effect>) {
        let mut allowance = context.allowance;
        while allowance > 0 && self.wants_delivery(context.now) {
            let limit = self.rules.policy.rate_limit_per_second;
            if limit.is_some_and(|limit| !self.rate.allows(limit, context.now)) {
                return;
            }
            let started = match self.state.health.breaker {
                Breaker::Open { last_probed, .. } => {
                    let probed = self.lanes.start_after(last_probed);
                    self.probing = probed.map(|(sequence, _)| sequence);
                    probed
                }
                Breaker::Closed | Breaker::Ramping { .. } => {
                    let prefers_new = limit.is_some() && self.rate.prefers_new();
                    self.lanes.start_next(context.now, prefers_new)
                }
            };
            let Some((sequence, pending)) = started else {
                return;
            };
            if limit.is_some() {
                self.rate.started(context.now, pending.attempts > 0);
            }
            allowance -= 1;
            effects.push(Effect::Attempt(Attempt {
                sequence,
                event: pending.event,
                number: pending.attempts + 1,
            }));
        }
    }

    /// Asks for what lanes will need soon, else for what was never read, when there is room: reads
    /// of a few events each would cost a consumer each. One read at a time.
    fn read_on(&mut self, effects: &mut Vec<Effect>) {
        if self.reading {
            return;
        }
        let through = self.read;
        if let Some(after) = self.lanes.begin_reading_again(through) {
            self.reading = true;
            effects.push(Effect::ReadAgain { after, through });
        } else if !self.is_caught_up() && self.lanes.has_room_to_read() {
            self.reading = true;
            effects.push(Effect::ReadBacklog {
                after: self.read,
                known: self.known,
            });
        }
    }

    fn wake(&mut self, context: &Context, effects: &mut Vec<Effect>) {
        let dues = [self.due(context.now), self.replay_due(context.now)];
        let dues = dues.into_iter().flatten();
        let due = dues.filter(|due| *due > context.now).min();
        if due != self.woken_at {
            self.woken_at = due;
            effects.extend(due.map(Effect::WakeAt));
        }
    }

    /// When there may be something to start that does not follow from another input.
    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        if self.lanes.is_empty() {
            return None;
        }
        if self.rules.status != Status::Enabled {
            return self.ends_pending().map(|_| self.hold_ends_until);
        }
        let paused = self.state.health.paused_until.filter(|until| *until > now);
        if paused.is_some() {
            return paused;
        }
        match self.state.health.breaker {
            // A probe that is due can have been held back by the rate alone.
            Breaker::Open { next_probe_at, .. }
                if self.rules.policy.rate_limit_per_second.is_some()
                    && next_probe_at <= now
                    && self.in_flight() == 0 =>
            {
                Some(self.rate.look_again_at())
            }
            Breaker::Open { next_probe_at, .. } => Some(next_probe_at),
            // Only the rate can have held it back: the other limits move with an input.
            Breaker::Closed | Breaker::Ramping { .. }
                if self.rules.policy.rate_limit_per_second.is_some()
                    && self.lanes.has_ready(now) =>
            {
                Some(self.rate.look_again_at())
            }
            Breaker::Closed | Breaker::Ramping { .. } => self.lanes.next_due(),
        }
    }

    fn position(&self, sequence: Sequence) -> Position {
        Position {
            generation: self.generation,
            sequence,
        }
    }
}

/// What becomes of pending deliveries in a status, if they do not wait.
pub fn ends_pending(status: Status) -> Option<UnsentEnd> {
    match status {
        Status::Enabled | Status::PendingVerification | Status::Quarantined => None,
        Status::Disabled => Some(UnsentEnd::Skipped(SkipReason::Disabled)),
        Status::Deactivated => Some(UnsentEnd::Exhausted(ExhaustReason::Deactivated)),
    }
}

fn untried(owed: &Match) -> Pending {
    Pending {
        event: owed.event,
        event_type: owed.event_type,
        lane: owed.lane,
        attempts: 0,
        retry_at: None,
    }
}
