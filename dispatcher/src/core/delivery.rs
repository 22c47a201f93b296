//! The deliveries of one webhook: what comes in, what is attempted, what is journaled.
//!
//! Two marks move through the stream. `classified` is how far events are counted; `read` is how
//! far they are taken into the lanes. A webhook that keeps up has both at the same place. One
//! that cannot remembers positions only, stops at its window's bound, and reads on from the
//! stream when there is room (`protocol.md`, rule 14).

use std::collections::{BTreeMap, HashSet};

use shared::domain::journal::{
    AttemptEntry, ExhaustReason, Failure, JournalEntry, Links, SkipReason, UnsentEnd,
};
use shared::domain::policy::Policy;
use shared::ids::{EventId, LaneHash, Position, Sequence, WebhookId};
use shared::time::Timestamp;

use super::lanes::{Admitted, Bounds, Lanes, Pending};
use super::ledger::Ledger;
use super::retry::retry_at;

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
    Configured(Policy),
    /// The webhook is deleted: what is pending is not sent.
    Deleted,
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
    Failed(Failure),
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
    /// Attempts that may start now, besides the webhook's own limit.
    pub allowance: usize,
}

/// A failed delivery as JOURNAL tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    pub event: EventId,
    pub lane: LaneHash,
    pub attempts: u32,
    pub retry_at: Timestamp,
}

/// What JOURNAL tells of a webhook's deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Ended, by position.
    pub ended: HashSet<Sequence>,
    /// Tried and not ended.
    pub failing: BTreeMap<Sequence, Failing>,
    /// Counts of `ended`; their events count as accepted too.
    pub ledger: Ledger,
}

/// The state of one webhook.
#[derive(Clone, Debug)]
pub struct Deliveries {
    webhook: WebhookId,
    generation: u32,
    policy: Policy,
    /// A policy with another ordering, held back until nothing is in flight (rule 13).
    next_policy: Option<Policy>,
    lanes: Lanes,
    ledger: Ledger,
    classified: Sequence,
    read: Sequence,
    /// The stream is known to reach this.
    known: Sequence,
    reading: bool,
    woken_at: Option<Timestamp>,
    /// Ended above `read`, as JOURNAL told or since; empties as `read` passes.
    ended: HashSet<Sequence>,
    deleted: bool,
}

impl Deliveries {
    /// A webhook that classifies what comes after `after`, with what JOURNAL tells of it.
    pub fn new(
        webhook: WebhookId,
        generation: u32,
        policy: Policy,
        after: Sequence,
        past: Past,
        bounds: Bounds,
    ) -> Self {
        let mut lanes = Lanes::new(policy.ordering, bounds);
        let mut ledger = past.ledger;
        let failing: Vec<Sequence> = past.failing.keys().copied().collect();
        for (sequence, failing) in past.failing {
            // An attempt proves that it was accepted.
            ledger.accepted += 1;
            let pending = Pending {
                event: failing.event,
                lane: failing.lane,
                attempts: failing.attempts,
                retry_at: Some(failing.retry_at),
            };
            lanes.restore(sequence, pending);
        }
        let mut ended = past.ended;
        // Nobody knows under which orderings the log came about: whatever it tells of may have been
        // tried before an earlier delivery of its lane.
        let told = ended.iter().chain(&failing).max();
        lanes.keep_through(told.copied().unwrap_or_default());
        // Older ones are never met again.
        ended.retain(|sequence| *sequence > after);
        Self {
            webhook,
            generation,
            policy,
            next_policy: None,
            lanes,
            ledger,
            classified: after,
            read: after,
            known: after,
            reading: false,
            woken_at: None,
            ended,
            deleted: false,
        }
    }

    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    pub fn in_flight(&self) -> usize {
        self.lanes.in_flight()
    }

    /// Whether the delivery is pending here, so that its body may be of use.
    pub fn holds(&self, sequence: Sequence) -> bool {
        self.lanes.contains(sequence)
    }

    /// Whether everything that is known of is counted and taken.
    pub fn is_caught_up(&self) -> bool {
        self.read >= self.known
    }

    /// Whether a step with more allowance would start an attempt.
    pub fn wants_more(&self, now: Timestamp) -> bool {
        !self.deleted
            && self.next_policy.is_none()
            && self.in_flight() < usize::from(self.policy.max_in_flight)
            && self.lanes.has_ready(now)
    }

    /// Takes one input; effects are appended in the order in which they are to be carried out.
    pub fn step(&mut self, input: Input, context: &Context, effects: &mut Vec<Effect>) {
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
            Input::Configured(policy) => self.next_policy = Some(policy),
            Input::Deleted => self.delete(),
        }
        if self.deleted {
            return;
        }
        self.adopt_policy();
        self.start_attempts(context, effects);
        self.read_on(effects);
        self.wake(context, effects);
    }

    fn take_offer(&mut self, offer: &Offer) {
        if self.deleted {
            return;
        }
        self.known = self.known.max(offer.through);
        self.count(offer);
        self.take(offer);
    }

    /// Counts what lies above `classified`, unless the offer leaves a gap to it.
    fn count(&mut self, offer: &Offer) {
        if offer.after > self.classified || offer.through <= self.classified {
            return;
        }
        let above = self.classified;
        for owed in offer.matches.iter().filter(|owed| owed.sequence > above) {
            // What JOURNAL has told of is counted already.
            if self.ended.contains(&owed.sequence) || self.lanes.contains(owed.sequence) {
                continue;
            }
            self.ledger.accepted += 1;
            self.ledger.skipped += u64::from(owed.skipped.is_some());
        }
        self.classified = offer.through;
    }

    /// Takes what lies above `read` into the lanes, up to the window's bound.
    fn take(&mut self, offer: &Offer) {
        if offer.after > self.read || offer.through <= self.read {
            return;
        }
        let above = self.read;
        for owed in offer.matches.iter().filter(|owed| owed.sequence > above) {
            if owed.skipped.is_some() || self.lanes.contains(owed.sequence) {
                continue;
            }
            if self.ended.contains(&owed.sequence) {
                // A lane that reads it again must still know that it has ended.
                if !self.lanes.reads_again(owed.sequence, owed.lane) {
                    self.ended.remove(&owed.sequence);
                }
                continue;
            }
            if self.lanes.admit(owed.sequence, untried(owed)) == Admitted::NoRoom {
                self.read = owed.sequence.previous();
                return;
            }
        }
        self.read = offer.through;
    }

    /// Gives lanes what they had forgotten.
    fn take_again(&mut self, offer: &Offer) {
        self.reading = false;
        if self.deleted {
            return;
        }
        let ended = &self.ended;
        let pending = offer
            .matches
            .iter()
            .filter(|owed| owed.skipped.is_none() && !ended.contains(&owed.sequence))
            .map(|owed| (owed.sequence, untried(owed)));
        self.lanes
            .finish_reading_again(Some((pending, offer.through)));
        // Ends that the lane has passed need not be known any more; it may have stopped before.
        for owed in &offer.matches {
            if !self.lanes.reads_again(owed.sequence, owed.lane) {
                self.ended.remove(&owed.sequence);
            }
        }
    }

    fn finish(&mut self, finished: Finished, context: &Context, effects: &mut Vec<Effect>) {
        let Some(&pending) = self.lanes.get(finished.sequence) else {
            // Deleted meanwhile: the ledger is closed.
            return;
        };
        let number = pending.attempts + 1;
        let attempt = AttemptEntry {
            webhook: self.webhook,
            position: self.position(finished.sequence),
            event: pending.event,
            lane: pending.lane,
            number,
            started_at: finished.started_at,
            latency_ms: finished.latency_ms,
            previous: Links::default(),
        };
        let entry = match finished.outcome {
            AttemptOutcome::NotStarted => {
                let retry = pending.retry_at.unwrap_or(context.now);
                self.lanes.park(finished.sequence, pending.attempts, retry);
                return;
            }
            AttemptOutcome::Delivered { status } => {
                self.end(finished.sequence);
                self.ledger.delivered += 1;
                JournalEntry::Delivered { attempt, status }
            }
            AttemptOutcome::Gone(end) => {
                self.end(finished.sequence);
                match end {
                    UnsentEnd::Skipped(_) => self.ledger.skipped += 1,
                    UnsentEnd::Exhausted(_) => self.ledger.exhausted += 1,
                }
                // Nothing was sent: the number is that of the attempts before.
                let attempt = AttemptEntry {
                    number: pending.attempts,
                    ..attempt
                };
                JournalEntry::Ended { attempt, end }
            }
            AttemptOutcome::Failed(failure) => {
                let schedule = &self.policy.retry_schedule_ms;
                match retry_at(schedule, number, context.now, context.jitter) {
                    Some(retry_at) => {
                        self.lanes.park(finished.sequence, number, retry_at);
                        JournalEntry::AttemptFailed {
                            attempt,
                            failure,
                            retry_at,
                        }
                    }
                    None => {
                        self.end(finished.sequence);
                        self.ledger.exhausted += 1;
                        JournalEntry::Exhausted {
                            attempt,
                            failure,
                            reason: ExhaustReason::Schedule,
                        }
                    }
                }
            }
        };
        effects.push(Effect::Journal(entry));
    }

    /// A delivery ends. One that is known from JOURNAL alone is still to be met in the stream, as
    /// is one that its lane reads again.
    fn end(&mut self, sequence: Sequence) {
        let Some(pending) = self.lanes.remove(sequence) else {
            return;
        };
        if sequence > self.read || self.lanes.reads_again(sequence, pending.lane) {
            self.ended.insert(sequence);
        }
    }

    /// An ordering changes only while nothing is in flight; the rest of a policy at once.
    fn adopt_policy(&mut self) {
        let Some(next) = &self.next_policy else {
            return;
        };
        if next.ordering != self.lanes.ordering() {
            if self.in_flight() > 0 {
                return;
            }
            self.lanes.keep_through(self.read);
            self.lanes.reorder(next.ordering);
        }
        if let Some(next) = self.next_policy.take() {
            self.policy = next;
        }
    }

    fn start_attempts(&mut self, context: &Context, effects: &mut Vec<Effect>) {
        let mut allowance = context.allowance;
        while allowance > 0 && self.wants_more(context.now) {
            let Some((sequence, pending)) = self.lanes.start_next(context.now) else {
                return;
            };
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
        let due = self.lanes.next_due().filter(|due| *due > context.now);
        if due != self.woken_at {
            self.woken_at = due;
            effects.extend(due.map(Effect::WakeAt));
        }
    }

    fn delete(&mut self) {
        self.deleted = true;
        self.ledger.skipped += self.ledger.pending();
        self.lanes = Lanes::new(self.policy.ordering, Bounds::default());
        self.ended = HashSet::new();
    }

    fn position(&self, sequence: Sequence) -> Position {
        Position {
            generation: self.generation,
            sequence,
        }
    }
}

fn untried(owed: &Match) -> Pending {
    Pending {
        event: owed.event,
        lane: owed.lane,
        attempts: 0,
        retry_at: None,
    }
}
