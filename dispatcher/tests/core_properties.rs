//! Properties of the pure core, over random schedules: order in a lane, nothing lost, the ledger
//! balances, and folding the journal gives back the state.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test's helpers may fail loudly"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dispatcher::core::commits::{Classified, Commits};
use dispatcher::core::delivery::{
    AttemptOutcome, Beginning, Context, Deliveries, Effect, Finished, Input, Match, Offer, Rules,
};
use dispatcher::core::lanes::Bounds;
use proptest::prelude::*;
use shared::domain::delivery::FailureKind;
use shared::domain::journal::{Counted, Failure, JournalEntry, Pack};
use shared::domain::policy::{Ordering, Policy};
use shared::domain::state::{Failing, PartitionState, WebhookState};
use shared::domain::webhook::{Dialect, Status};
use shared::ids::{Epoch, EventId, EventTypeHash, LaneHash, Position, Sequence, WebhookId};
use shared::time::Timestamp;

const WEBHOOK: WebhookId = WebhookId::from_bytes([4; 16]);

/// The stream, the endpoint and the clock of one webhook, and what was seen of it.
struct World {
    core: Deliveries,
    commits: Commits,
    policy: Policy,
    /// Then lanes are never given up for the ordering `none`.
    is_order_promised: bool,
    lanes: Vec<LaneHash>,
    /// Sequences are index + 1.
    published: u64,
    tailed: u64,
    now: Timestamp,
    in_flight: BTreeMap<Sequence, u32>,
    read: Option<Read>,
    stored: Vec<Pack>,
    epoch: u64,
    /// Attempt numbers seen at the endpoint, by sequence, in order of arrival.
    attempts: Vec<(Sequence, u32)>,
    retry_at: HashMap<Sequence, Timestamp>,
}

/// What the core has asked to read.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Read {
    is_again: bool,
    after: Sequence,
    to: Sequence,
}

/// Small, so that every one of them is met.
const BOUNDS: Bounds = Bounds {
    window: 6,
    narrow_window: 3,
    lane: 4,
    parked_lane: 1,
    parked_lanes: 4,
    settle_after: 3,
};

#[derive(Clone, Debug)]
enum Move {
    Publish(u8),
    Tail(u8),
    /// The tail's offer does not reach the webhook.
    LoseOffer(u8),
    Finish(u8, bool),
    /// At most so many events of what was asked for, or a failure.
    Read(Option<u8>),
    Wait(u16),
    Commit,
    /// The owner dies; a new one folds what was committed.
    Crash,
    /// The actor is put to sleep if it has nothing to do, and begins again.
    Rest,
    Reorder(u8),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        6 => any::<u8>().prop_map(Move::Publish),
        6 => any::<u8>().prop_map(Move::Tail),
        1 => any::<u8>().prop_map(Move::LoseOffer),
        6 => (any::<u8>(), any::<bool>()).prop_map(|(which, ok)| Move::Finish(which, ok)),
        4 => proptest::option::weighted(0.8, 1_u8..9).prop_map(Move::Read),
        3 => (0_u16..5_000).prop_map(Move::Wait),
        2 => Just(Move::Commit),
        1 => Just(Move::Crash),
        1 => Just(Move::Rest),
        2 => any::<u8>().prop_map(Move::Reorder),
    ]
}

fn policy(ordering: Ordering, max_in_flight: u16) -> Policy {
    Policy {
        ordering,
        max_in_flight,
        retry_schedule_ms: vec![1_000, 2_000],
        ..Policy::default()
    }
}

impl World {
    fn new(policy: Policy) -> Self {
        let mut world = Self {
            core: deliveries(&policy, WebhookState::default(), None),
            commits: Commits::new(Epoch(1), classified(0), PartitionState::default()),
            policy,
            is_order_promised: true,
            lanes: Vec::new(),
            published: 0,
            tailed: 0,
            now: Timestamp::from_millis(1_000_000),
            in_flight: BTreeMap::new(),
            read: None,
            stored: Vec::new(),
            epoch: 1,
            attempts: Vec::new(),
            retry_at: HashMap::new(),
        };
        let created = JournalEntry::ConfigApplied {
            webhook: WEBHOOK,
            registry_sequence: Sequence(1),
            from: classified(1).position,
            back_through: None,
            lifts: true,
        };
        world.commits.push(world.now, created);
        world.commit();
        world
    }

    fn offer(&self, after: Sequence, through: Sequence) -> Offer {
        let matches = (after.0 + 1..=through.0)
            .map(|sequence| Match {
                sequence: Sequence(sequence),
                event: event(sequence),
                event_type: event_type(sequence),
                lane: self.lanes[usize::try_from(sequence - 1).unwrap()],
                skipped: None,
            })
            .collect();
        Offer {
            after,
            through,
            matches,
        }
    }

    fn step(&mut self, input: Input) {
        let context = Context {
            now: self.now,
            jitter: self.now.as_millis().unsigned_abs(),
            allowance: 8,
        };
        let mut effects = Vec::new();
        self.core.step(input, &context, &mut effects);
        for effect in effects {
            match effect {
                Effect::Attempt(attempt) => {
                    assert_eq!(attempt.event, event(attempt.sequence.0));
                    let is_probe = self.core.health().is_open();
                    if let Some(due) = self.retry_at.get(&attempt.sequence) {
                        assert!(is_probe || self.now >= *due, "an attempt before its time");
                    }
                    assert!(
                        !is_probe || self.in_flight.is_empty(),
                        "a probe beside others"
                    );
                    let lane = self.lane(attempt.sequence);
                    assert!(
                        self.policy.ordering == Ordering::None
                            || self.in_flight.keys().all(|other| self.lane(*other) != lane),
                        "two attempts of a lane"
                    );
                    self.in_flight.insert(attempt.sequence, attempt.number);
                    self.attempts.push((attempt.sequence, attempt.number));
                }
                Effect::Journal(entry) => {
                    if let JournalEntry::AttemptFailed {
                        attempt, retry_at, ..
                    } = &entry
                    {
                        self.retry_at.insert(attempt.position.sequence, *retry_at);
                    }
                    self.commits.push(self.now, entry);
                }
                Effect::ReadBacklog { after, known } => self.ask(false, after, known),
                Effect::ReadAgain { after, through } => self.ask(true, after, through),
                Effect::WakeAt(_) => {}
                Effect::Replay(effect) => panic!("nobody asked for a replay: {effect:?}"),
            }
        }
        assert!(self.core.in_flight() <= usize::from(self.policy.max_in_flight));
        assert_eq!(self.core.in_flight(), self.in_flight.len());
    }

    fn lane(&self, sequence: Sequence) -> u64 {
        match self.policy.ordering {
            Ordering::PerRecord => self.lanes[usize::try_from(sequence.0 - 1).unwrap()].0,
            Ordering::Strict => 0,
            Ordering::None => sequence.0,
        }
    }

    fn take(&mut self, step: &Move) {
        match step {
            Move::Publish(lane) => {
                // Half of everything is in one hot lane.
                self.lanes
                    .push(LaneHash(u64::from((lane % 8).saturating_sub(3))));
                self.published += 1;
            }
            Move::Tail(count) => {
                if let Some((after, through)) = self.advance_tail(*count) {
                    let offer = self.offer(after, through);
                    self.step(Input::Offered(offer));
                }
            }
            Move::LoseOffer(count) => {
                self.advance_tail(*count);
            }
            Move::Finish(which, ok) => self.finish(*which, *ok),
            Move::Read(events) => self.read(*events),
            Move::Wait(ms) => {
                self.now = self.now.plus_millis(i64::from(*ms));
                self.step(Input::Tick);
            }
            Move::Commit => self.commit(),
            Move::Crash => self.crash(),
            Move::Rest => self.rest(),
            Move::Reorder(which) => self.reorder(*which),
        }
    }

    fn advance_tail(&mut self, count: u8) -> Option<(Sequence, Sequence)> {
        let through = (self.tailed + u64::from(count % 4) + 1).min(self.published);
        let after = std::mem::replace(&mut self.tailed, through);
        let counted = Counted {
            webhook: WEBHOOK,
            skipped: None,
            count: through - after,
        };
        self.commits.count(classified(through), &[counted]);
        (through > after).then_some((Sequence(after), Sequence(through)))
    }

    fn commit(&mut self) {
        let Some(pack) = self.commits.next_pack(self.now).cloned() else {
            return;
        };
        self.stored.push(pack);
        self.commits.pack_stored(Sequence(self.stored.len() as u64));
    }

    fn finish(&mut self, which: u8, ok: bool) {
        let at = usize::from(which) % self.in_flight.len().max(1);
        let Some((&sequence, _)) = self.in_flight.iter().nth(at) else {
            return;
        };
        self.in_flight.remove(&sequence);
        self.step(Input::Finished(Finished {
            sequence,
            started_at: self.now,
            latency_ms: 1,
            outcome: if ok {
                AttemptOutcome::Delivered { status: 200 }
            } else {
                AttemptOutcome::Failed {
                    failure: Failure {
                        kind: FailureKind::Status,
                        status: Some(500),
                        sealed_answer: Vec::new(),
                    },
                    retry_after_ms: None,
                }
            },
        }));
    }

    fn ask(&mut self, is_again: bool, after: Sequence, to: Sequence) {
        assert!(
            after < to && to.0 <= self.tailed,
            "a read of {after} to {to}"
        );
        let read = Read {
            is_again,
            after,
            to,
        };
        assert_eq!(self.read.replace(read), None, "two reads");
    }

    fn read(&mut self, events: Option<u8>) {
        let Some(read) = self.read.take() else {
            return;
        };
        let input = match events {
            None => Input::ReadFailed,
            Some(events) => {
                let through = Sequence(read.after.0 + u64::from(events)).min(read.to);
                let offer = self.offer(read.after, through);
                if read.is_again {
                    Input::ReadAgain(offer)
                } else {
                    Input::BacklogRead(offer)
                }
            }
        };
        self.step(input);
    }

    /// What was not committed is gone; what was under way may be attempted again.
    fn crash(&mut self) {
        self.in_flight.clear();
        self.read = None;
        self.retry_at.clear();
        let state = fold(&self.stored);
        assert_eq!(&state, self.commits.state(), "folding again differs");
        let webhook = state.webhooks[&WEBHOOK].clone();
        for (sequence, failing) in &webhook.failing {
            self.retry_at.insert(*sequence, failing.retry_at);
        }
        self.tailed = state.classified.unwrap().sequence.0;
        self.epoch += 1;
        let known = classified(self.tailed);
        self.commits = Commits::new(Epoch(self.epoch), known, state);
        self.core = deliveries(&self.policy, webhook, None);
        self.nudge();
    }

    fn rest(&mut self) {
        if !self.core.is_idle() || self.commits.pending(WEBHOOK) > 0 {
            return;
        }
        self.step(Input::Rest);
        while !self.commits.is_empty() || self.commits.has_counts() {
            self.commits.flush();
            self.commit();
        }
        let state = self.commits.state().webhooks[&WEBHOOK].clone();
        assert!(
            state.ended.is_empty() && state.behind.is_empty(),
            "{state:?}"
        );
        assert!(state.failing.is_empty(), "{state:?}");
        let idle_through = Some(Sequence(self.tailed));
        self.core = deliveries(&self.policy, state, idle_through);
        self.nudge();
    }

    fn nudge(&mut self) {
        let nudge = self.offer(Sequence(self.tailed), Sequence(self.tailed));
        self.step(Input::Offered(nudge));
    }

    /// Only at rest does the checker know at once which order holds.
    fn reorder(&mut self, which: u8) {
        if !self.in_flight.is_empty() {
            return;
        }
        let orderings = [Ordering::PerRecord, Ordering::Strict, Ordering::None];
        let choices = if self.is_order_promised { 2 } else { 3 };
        self.policy.ordering = orderings[usize::from(which % choices)];
        self.step(Input::Configured(rules(&self.policy)));
    }

    /// The endpoint takes everything from now on, and everything is read.
    fn settle(&mut self) {
        while let Some((after, through)) = self.advance_tail(3) {
            let rest = self.offer(after, through);
            self.step(Input::Offered(rest));
        }
        self.nudge();
        for _ in 0..10_000 {
            if self.read.is_some() {
                self.read(Some(5));
            } else if !self.in_flight.is_empty() {
                self.finish(0, true);
            } else if self.commits.pending(WEBHOOK) > 0 || !self.core.is_caught_up() {
                self.now = self.now.plus_millis(1_000);
                self.step(Input::Tick);
            } else {
                while !self.commits.is_empty() {
                    self.commit();
                }
                return;
            }
        }
        panic!("does not come to rest: {:?}", self.core);
    }
}

fn deliveries(policy: &Policy, state: WebhookState, idle_through: Option<Sequence>) -> Deliveries {
    Deliveries::new(Beginning {
        webhook: WEBHOOK,
        generation: 1,
        rules: rules(policy),
        state,
        idle_through,
        hold_ends_until: Timestamp::from_millis(0),
        bounds: BOUNDS,
    })
}

fn rules(policy: &Policy) -> Rules {
    Rules {
        policy: policy.clone(),
        dialect: Dialect::Stackone,
        status: Status::Enabled,
        lifts: false,
    }
}

fn classified(sequence: u64) -> Classified {
    Classified {
        position: Position {
            generation: 1,
            sequence: Sequence(sequence),
        },
        checkpoint: None,
    }
}

fn event(sequence: u64) -> EventId {
    EventId::from_bytes(u128::from(sequence).to_be_bytes())
}

fn event_type(sequence: u64) -> EventTypeHash {
    EventTypeHash(u32::try_from(sequence).unwrap())
}

fn fold(packs: &[Pack]) -> PartitionState {
    let mut state = PartitionState::default();
    for (index, pack) in packs.iter().enumerate() {
        let at = Sequence(index as u64 + 1);
        state.apply(at, pack).unwrap();
        // A pack that was stored twice changes nothing.
        state.apply(at, pack).unwrap();
    }
    state
}

/// Sequences that ended, each at most once.
fn ends(packs: &[Pack]) -> BTreeSet<Sequence> {
    let mut ends = BTreeSet::new();
    for mut entry in packs.iter().flat_map(|pack| pack.entries.clone()) {
        if let Some((attempt, _)) = entry.attempt_mut() {
            let sequence = attempt.position.sequence.0;
            assert_eq!(attempt.event_type, event_type(sequence), "{attempt:?}");
        }
        let ended = match entry {
            JournalEntry::Delivered { attempt, .. }
            | JournalEntry::Exhausted { attempt, .. }
            | JournalEntry::Ended { attempt, .. } => attempt.position.sequence,
            _ => continue,
        };
        assert!(ends.insert(ended), "{ended} ended twice");
    }
    ends
}

/// As many as `CARILLON_CASES` says.
fn cases() -> u32 {
    let asked = option_env!("CARILLON_CASES").and_then(|cases| cases.parse().ok());
    asked.unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_event_ends_once_in_the_order_of_its_lane(
        steps in proptest::collection::vec(moves(), 1..260),
        strict in any::<bool>(),
        max_in_flight in 1_u16..6,
    ) {
        let ordering = if strict { Ordering::Strict } else { Ordering::PerRecord };
        let mut world = World::new(policy(ordering, max_in_flight));
        for step in &steps {
            world.take(step);
        }
        world.settle();
        let all: BTreeSet<_> = (1..=world.published).map(Sequence).collect();
        prop_assert_eq!(ends(&world.stored), all);
        let state = fold(&world.stored);
        let webhook = &state.webhooks[&WEBHOOK];
        let ledger = webhook.ledger;
        prop_assert_eq!((ledger.accepted, ledger.pending()), (world.published, 0));
        prop_assert!(webhook.failing.is_empty());
        // First arrivals of a lane are in the order of the stream.
        let mut last: HashMap<u64, Sequence> = HashMap::new();
        let mut seen = BTreeSet::new();
        for (sequence, _) in &world.attempts {
            if seen.insert(*sequence) {
                let lane = world.lanes[usize::try_from(sequence.0 - 1).unwrap()].0;
                let previous = last.insert(lane, *sequence);
                prop_assert!(previous < Some(*sequence), "{previous:?} before {sequence}");
            }
        }
    }

    #[test]
    fn whatever_the_ordering_becomes_everything_ends_once(
        steps in proptest::collection::vec(moves(), 1..260),
        max_in_flight in 1_u16..6,
    ) {
        let mut world = World::new(policy(Ordering::None, max_in_flight));
        world.is_order_promised = false;
        for step in &steps {
            world.take(step);
        }
        world.settle();
        prop_assert_eq!(ends(&world.stored).len() as u64, world.published);
        prop_assert_eq!(world.commits.pending(WEBHOOK), 0);
    }
}

/// Under `none`, 1 to 3 were under way and lost with their owner, and 4, of the same record, had
/// failed, which was journaled. The next owner keeps order by record.
#[test]
fn what_was_tried_out_of_order_is_not_brought_back_when_its_lane_forgets() {
    let failing = Failing {
        event: event(4),
        event_type: event_type(4),
        lane: LaneHash(0),
        attempts: 1,
        retry_at: Timestamp::from_millis(999_000),
    };
    let mut state = WebhookState::default();
    state.failing.insert(Sequence(4), failing);
    let policy = policy(Ordering::PerRecord, 4);
    let mut world = World::new(policy.clone());
    world.core = deliveries(&policy, state, None);
    world.lanes = vec![LaneHash(0); 4];
    world.published = 4;
    world.step(Input::Tick);
    assert!(world.in_flight.contains_key(&Sequence(4)));
    world.take(&Move::Tail(3));
    while world.read.is_some() {
        world.read(Some(8));
    }
    world.finish(0, true);
    assert!(world.in_flight.contains_key(&Sequence(1)));
    world.finish(0, false);
    world.settle();
    assert_eq!(ends(&world.stored).len(), 4);
    assert_eq!(world.commits.pending(WEBHOOK), 0);
}
