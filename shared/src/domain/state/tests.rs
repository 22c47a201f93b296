//! The fold against what its comments promise: examples first, then a reference model that knows
//! every pending delivery.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::domain::delivery::FailureKind;
use crate::domain::journal::{
    AttemptEntry, Counted, DeactivateReason, ExhaustReason, Failure, FailureWeight, Kept,
    LanesSettled, Links, SkipReason, UnsentEnd,
};
use crate::ids::{EventId, EventTypeHash, LaneHash};
use crate::limits::APPLIED_KEPT_MAX;

const WEBHOOK: WebhookId = WebhookId::from_bytes([4; 16]);
const EVENT: EventId = EventId::from_bytes([3; 16]);
const EVENT_TYPE: EventTypeHash = EventTypeHash(2);
const LANE: LaneHash = LaneHash(1);

fn position(sequence: Sequence) -> Position {
    Position {
        generation: 1,
        sequence,
    }
}

fn attempt(sequence: Sequence, lane: LaneHash, number: u32) -> AttemptEntry {
    AttemptEntry {
        webhook: WEBHOOK,
        position: position(sequence),
        event: EVENT,
        event_type: EVENT_TYPE,
        lane,
        number,
        started_at: Timestamp::default(),
        latency_ms: 1,
        previous: Links::default(),
    }
}

fn delivered(sequence: u64) -> JournalEntry {
    JournalEntry::Delivered {
        attempt: attempt(Sequence(sequence), LANE, 1),
        status: 200,
    }
}

fn failed(sequence: Sequence, lane: LaneHash, number: u32) -> JournalEntry {
    JournalEntry::AttemptFailed {
        attempt: attempt(sequence, lane, number),
        failure: Failure {
            kind: FailureKind::Reset,
            status: None,
            sealed_answer: vec![],
        },
        retry_at: Timestamp::default(),
        weight: FailureWeight::default(),
    }
}

fn configured(registry_sequence: u64, from: u64, lifts: bool) -> JournalEntry {
    JournalEntry::ConfigApplied {
        webhook: WEBHOOK,
        registry_sequence: Sequence(registry_sequence),
        from: position(Sequence(from)),
        back_through: None,
        lifts,
    }
}

fn deactivated(from: u64) -> JournalEntry {
    JournalEntry::Deactivated {
        webhook: WEBHOOK,
        reason: DeactivateReason::Gone,
        at: Timestamp::default(),
        from: position(Sequence(from)),
    }
}

fn pack(epoch: u64, number: u64, accepted: u64, entries: Vec<JournalEntry>) -> Pack {
    let counted = Counted {
        webhook: WEBHOOK,
        skipped: None,
        count: accepted,
    };
    Pack {
        epoch: Epoch(epoch),
        number,
        at: Timestamp::default(),
        classified: position(Sequence(100)),
        checkpoint: None,
        counts_continue: false,
        counted: (accepted > 0).then_some(counted).into_iter().collect(),
        entries,
    }
}

fn webhook(state: &PartitionState) -> &WebhookState {
    state.webhooks.get(&WEBHOOK).unwrap()
}

#[test]
fn a_pack_that_was_seen_changes_nothing_and_a_missing_one_is_an_error() {
    let mut state = PartitionState::default();
    let first = pack(2, 7, 5, vec![configured(1, 10, false), delivered(12)]);
    let second = pack(2, 8, 0, vec![delivered(13), JournalEntry::Released]);
    state.apply(Sequence(70), &first).unwrap();
    state.apply(Sequence(71), &second).unwrap();
    assert!(state.released);
    let folded = state.clone();
    let earlier = pack(1, 99, 3, vec![delivered(14)]);
    for (at, seen) in [(72, &first), (73, &second), (74, &earlier)] {
        state.apply(Sequence(at), seen).unwrap();
        assert_eq!(state, folded);
    }
    for (epoch, number, missing) in [(2, 10, 9), (3, 2, 1)] {
        let refused = state.apply(Sequence(75), &pack(epoch, number, 1, vec![]));
        let expected = MissingPack {
            epoch: Epoch(epoch),
            number: missing,
        };
        assert_eq!(refused, Err(expected));
        assert_eq!(state, folded);
    }
    state.apply(Sequence(75), &pack(3, 1, 0, vec![])).unwrap();
    assert!(!state.released);
}

#[test]
fn an_end_is_counted_once() {
    let mut state = PartitionState::default();
    let entries = vec![configured(1, 10, false), delivered(12), delivered(12)];
    state.apply(Sequence(1), &pack(1, 1, 3, entries)).unwrap();
    assert_eq!(webhook(&state).ledger.delivered, 1);
    assert_eq!(webhook(&state).ledger.pending(), 2);
    let end = JournalEntry::Ended {
        attempt: attempt(Sequence(12), LANE, 1),
        end: UnsentEnd::Skipped(SkipReason::Erased),
    };
    state.apply(Sequence(2), &pack(1, 2, 0, vec![end])).unwrap();
    assert_eq!(webhook(&state).ledger.skipped_in_all(), 0);
}

#[test]
fn a_deleted_webhook_is_gone_and_what_was_under_way_does_not_bring_it_back() {
    let mut state = PartitionState::default();
    let ended = JournalEntry::PendingEnded {
        webhook: WEBHOOK,
        through: Sequence(20),
        end: UnsentEnd::Skipped(SkipReason::Deleted),
        count: 3,
        kept: vec![],
    };
    let entries = vec![configured(1, 10, false), ended, delivered(12)];
    state.apply(Sequence(1), &pack(1, 1, 3, entries)).unwrap();
    assert!(state.webhooks.is_empty());
}

#[test]
fn what_creation_reached_back_to_is_counted_once_and_stays_classifiable_until_then() {
    let mut state = PartitionState::default();
    let created = JournalEntry::ConfigApplied {
        webhook: WEBHOOK,
        registry_sequence: Sequence(1),
        from: position(Sequence(10)),
        back_through: Some(Sequence(15)),
        lifts: false,
    };
    let settled = JournalEntry::Settled {
        webhook: WEBHOOK,
        resolved: Sequence(40),
        lanes: LanesSettled::All,
    };
    let counted_back = JournalEntry::CountedBack {
        webhook: WEBHOOK,
        accepted: 4,
        skipped: vec![(SkipReason::Unverified, 2)],
    };
    let kept = u64::try_from(APPLIED_KEPT_MAX).unwrap();
    let changes = (2..kept + 10).map(|number| configured(number, 20 + number, false));
    let mut entries = vec![created, settled];
    entries.extend(changes);
    state.apply(Sequence(1), &pack(1, 1, 0, entries)).unwrap();
    assert_eq!(webhook(&state).applied.len(), APPLIED_KEPT_MAX + 9);
    let last = configured(kept + 10, 50 + kept, false);
    let entries = vec![counted_back.clone(), counted_back, last];
    state.apply(Sequence(2), &pack(1, 2, 0, entries)).unwrap();
    assert_eq!(webhook(&state).applied.len(), APPLIED_KEPT_MAX + 1);
    assert_eq!(webhook(&state).ledger.accepted, 6);
    assert_eq!(webhook(&state).ledger.pending(), 4);
}

/// What holds for an event at `sequence`: the registry's word, and whether the owner's own holds.
fn classified(applied: &[Applied], sequence: Sequence) -> (Option<Sequence>, bool) {
    let reached = applied
        .iter()
        .filter(|entry| entry.from.sequence <= sequence);
    reached.fold((None, false), |(registry, decided), entry| {
        match entry.rule {
            Rule::Registry { sequence, lifts } => (Some(sequence), decided && !lifts),
            Rule::Deactivated | Rule::Quarantined => (registry, true),
        }
    })
}

/// A step of a webhook's life; numbers choose among what is possible then.
#[derive(Clone, Debug)]
enum Step {
    Accept { lane: u64, gap: u64 },
    End { choice: usize, kind: u8 },
    EndAgain { choice: usize },
    Fail { choice: usize },
    Settle { ahead: bool, lanes: u64 },
    EndPending { back: usize, kept: u64 },
    Configure { lifts: bool },
    Decide,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4_u64, 0..3_u64).prop_map(|(lane, gap)| Step::Accept { lane, gap }),
        4 => (any::<usize>(), 0..3_u8).prop_map(|(choice, kind)| Step::End { choice, kind }),
        1 => any::<usize>().prop_map(|choice| Step::EndAgain { choice }),
        3 => any::<usize>().prop_map(|choice| Step::Fail { choice }),
        3 => any::<(bool, u64)>().prop_map(|(ahead, lanes)| Step::Settle { ahead, lanes }),
        1 => (0..8_usize, any::<u64>()).prop_map(|(back, kept)| Step::EndPending { back, kept }),
        1 => any::<bool>().prop_map(|lifts| Step::Configure { lifts }),
        1 => Just(Step::Decide),
    ]
}

/// Which pending deliveries may be attempted.
#[derive(Clone, Copy, Debug)]
enum Order {
    PerRecord,
    None,
}

/// A webhook whose every delivery is known, beside the state that folds from its entries.
struct Model {
    order: Order,
    state: WebhookState,
    last: Sequence,
    accepted: BTreeMap<Sequence, LaneHash>,
    /// Failed attempts, of those that failed or were kept.
    pending: BTreeMap<Sequence, Option<u32>>,
    ended: Ledger,
    /// Every rule that was ever applied.
    applied: Vec<Applied>,
}

impl Model {
    fn new(order: Order) -> Self {
        let mut model = Self {
            order,
            state: WebhookState::default(),
            last: Sequence(9),
            accepted: BTreeMap::new(),
            pending: BTreeMap::new(),
            ended: Ledger::default(),
            applied: Vec::new(),
        };
        model.configure(true);
        model
    }

    fn journal(&mut self, entry: &JournalEntry) {
        let place = EntryPlace {
            pack: Sequence(1),
            index: 0,
        };
        self.state.apply(place, entry);
    }

    fn lane(&self, sequence: Sequence) -> LaneHash {
        *self.accepted.get(&sequence).unwrap()
    }

    fn lane_pending(&self, lane: LaneHash) -> impl Iterator<Item = (Sequence, Option<u32>)> {
        let all = self
            .pending
            .iter()
            .map(|(sequence, failed)| (*sequence, *failed));
        all.filter(move |(sequence, _)| self.lane(*sequence) == lane)
    }

    /// What may be under way.
    fn eligible(&self) -> Vec<Sequence> {
        let all = self.pending.keys().copied();
        match self.order {
            Order::None => all.collect(),
            Order::PerRecord => {
                let mut lanes = BTreeSet::new();
                all.filter(|sequence| lanes.insert(self.lane(*sequence)))
                    .collect()
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Accept { lane, gap } => {
                self.last = Sequence(self.last.0 + 1 + gap);
                self.accepted.insert(self.last, LaneHash(lane));
                self.pending.insert(self.last, None);
                self.state.ledger.count(None, 1);
                self.ended.accepted += 1;
            }
            Step::End { choice, kind } => {
                if let Some(sequence) = pick(&self.eligible(), choice) {
                    self.end(sequence, kind);
                }
            }
            Step::EndAgain { choice } => self.end_again(choice),
            Step::Fail { choice } => {
                if let Some(sequence) = pick(&self.eligible(), choice) {
                    let failed_before = self.pending.get(&sequence).copied().flatten();
                    let number = failed_before.unwrap_or(0) + 1;
                    self.pending.insert(sequence, Some(number));
                    self.journal(&failed(sequence, self.lane(sequence), number));
                }
            }
            Step::Settle { ahead, lanes } => self.settle(ahead, lanes),
            Step::EndPending { back, kept } => self.end_pending(back, kept),
            Step::Configure { lifts } => self.configure(lifts),
            Step::Decide => {
                let from = self.last.next();
                self.applied.push(Applied {
                    from: position(from),
                    rule: Rule::Deactivated,
                });
                self.journal(&deactivated(from.0));
            }
        }
    }

    fn end(&mut self, sequence: Sequence, kind: u8) {
        let attempt = attempt(sequence, self.lane(sequence), 1);
        self.pending.remove(&sequence);
        let entry = match kind {
            0 => {
                self.ended.delivered += 1;
                JournalEntry::Delivered {
                    attempt,
                    status: 200,
                }
            }
            1 => {
                let end = UnsentEnd::Exhausted(ExhaustReason::Expired);
                self.ended.end(end, 1);
                JournalEntry::Ended { attempt, end }
            }
            _ => {
                let end = UnsentEnd::Skipped(SkipReason::Erased);
                self.ended.end(end, 1);
                JournalEntry::Ended { attempt, end }
            }
        };
        self.journal(&entry);
    }

    fn end_again(&mut self, choice: usize) {
        let ended = self.accepted.keys().copied();
        let ended: Vec<_> = ended
            .filter(|key| !self.pending.contains_key(key))
            .collect();
        if let Some(sequence) = pick(&ended, choice) {
            let mut before = self.state.clone();
            let entry = JournalEntry::Delivered {
                attempt: attempt(sequence, self.lane(sequence), 1),
                status: 200,
            };
            self.journal(&entry);
            before.links = self.state.links;
            assert_eq!(self.state, before, "an end that was known");
        }
    }

    /// A truthful `Settled`. `ahead`: counting on lanes that it makes fall behind itself; the bits
    /// of `choices` say which of the permitted words each lane gets.
    fn settle(&mut self, ahead: bool, choices: u64) {
        let known = self.state.resolved;
        let blocking = self.pending.keys().copied().find(|sequence| {
            let lane = self.lane(*sequence);
            let (head, head_failed) = self.lane_pending(lane).next().unwrap();
            let is_failing_head = head == *sequence && head_failed.is_some();
            let falls_behind = ahead && head_failed.is_some() && head > known;
            !is_failing_head && !falls_behind && !self.state.behind.contains_key(&lane)
        });
        let resolved = blocking.map_or(self.last, Sequence::previous);
        // Of each lane, the lowest that no failure tells of.
        let untold = |lane| self.lane_pending(lane).find(|(_, failed)| failed.is_none());
        let low = |lane| untold(lane).map_or(self.last.next(), |(sequence, _)| sequence);
        let settled = resolved.max(known);
        let lanes: Vec<_> = (0..4)
            .map(LaneHash)
            .filter_map(|lane| match choices >> (lane.0 * 2) & 3 {
                0 => None,
                1 if low(lane) > settled => Some((lane, None)),
                2 => Some((lane, Some(low(lane)))),
                _ => Some((lane, Some(low(lane).previous()))),
            })
            .collect();
        let is_all = choices >> 8 & 1 == 1 && (0..4).all(|lane| low(LaneHash(lane)) > settled);
        let lanes = if is_all {
            LanesSettled::All
        } else {
            LanesSettled::Some(lanes)
        };
        self.journal(&JournalEntry::Settled {
            webhook: WEBHOOK,
            resolved,
            lanes,
        });
        assert_eq!(self.state.resolved, settled);
    }

    fn end_pending(&mut self, back: usize, kept: u64) {
        let through = self.accepted.keys().rev().nth(back).copied();
        let through = through.unwrap_or(self.last);
        let mut under_way = self.eligible();
        under_way.retain(|sequence| *sequence <= through);
        let kept: Vec<_> = (0..64)
            .zip(under_way)
            .filter(|(bit, _)| kept >> bit & 1 == 1)
            .map(|(_, sequence)| Kept {
                sequence,
                event: EVENT,
                event_type: EVENT_TYPE,
                lane: self.lane(sequence),
                attempts: self.pending.get(&sequence).copied().flatten().unwrap_or(0),
            })
            .collect();
        let before = self.pending.len();
        let mut pending = self.pending.split_off(&through.next());
        pending.extend(kept.iter().map(|kept| (kept.sequence, Some(kept.attempts))));
        self.pending = pending;
        let count = u64::try_from(before - self.pending.len()).unwrap();
        let end = UnsentEnd::Skipped(SkipReason::Disabled);
        self.ended.end(end, count);
        self.journal(&JournalEntry::PendingEnded {
            webhook: WEBHOOK,
            through,
            end,
            count,
            kept,
        });
    }

    fn configure(&mut self, lifts: bool) {
        let sequence = Sequence(u64::try_from(self.applied.len()).unwrap() + 1);
        let from = self.last.next();
        self.applied.push(Applied {
            from: position(from),
            rule: Rule::Registry { sequence, lifts },
        });
        self.journal(&configured(sequence.0, from.0, lifts));
    }

    fn check(&self) {
        let state = &self.state;
        assert_eq!(state.ledger, self.ended);
        assert_eq!(
            state.ledger.pending(),
            u64::try_from(self.pending.len()).unwrap()
        );
        for (sequence, lane) in &self.accepted {
            let is_pending = self.pending.contains_key(sequence);
            assert_eq!(state.has_ended(*sequence, *lane), !is_pending, "{sequence}");
            let is_behind = |from: &Sequence| sequence >= from;
            let is_reachable = *sequence > state.resolved
                || state.failing.contains_key(sequence)
                || state.behind.get(lane).is_some_and(is_behind);
            assert!(is_reachable || !is_pending, "{sequence} is lost");
        }
        let failing = self.pending.iter();
        let failing: BTreeMap<_, _> = failing
            .filter_map(|(sequence, failed)| failed.map(|attempts| (*sequence, attempts)))
            .collect();
        let told = state.failing.iter();
        let told: BTreeMap<_, _> = told.map(|(key, value)| (*key, value.attempts)).collect();
        assert_eq!(told, failing);
        self.check_rules();
    }

    /// What was dropped of the rules changes no classification that may be asked for again.
    fn check_rules(&self) {
        let state = &self.state;
        let marks = state.failing.keys().chain(state.behind.values()).copied();
        let lowest = marks.fold(state.resolved.next(), Sequence::min);
        for sequence in (lowest.0..=self.last.next().0 + 1).map(Sequence) {
            assert_eq!(
                classified(&state.applied, sequence),
                classified(&self.applied, sequence),
                "{sequence} of {:?}",
                self.applied
            );
        }
    }
}

#[test]
fn totals_are_what_moved_the_ledger_and_what_failed() {
    let mut state = PartitionState::default();
    let skipped = Counted {
        webhook: WEBHOOK,
        skipped: Some(SkipReason::Disabled),
        count: 4,
    };
    let ended = JournalEntry::PendingEnded {
        webhook: WEBHOOK,
        through: Sequence(30),
        end: UnsentEnd::Exhausted(ExhaustReason::Deactivated),
        count: 2,
        kept: vec![],
    };
    let mut first = pack(1, 1, 6, vec![configured(1, 10, false)]);
    first.counted.push(skipped);
    // The log has an end twice, and the ledger counts it once.
    let entries = vec![
        delivered(11),
        delivered(11),
        failed(Sequence(12), LANE, 1),
        ended,
    ];
    state.apply(Sequence(1), &first).unwrap();
    state.apply(Sequence(2), &pack(1, 2, 0, entries)).unwrap();
    let told = state.totals.webhooks.get(&WEBHOOK).unwrap();
    let tally = |event_type| {
        let of_type = told.types.get(&event_type).unwrap();
        assert_eq!(of_type.minutes, of_type.hours);
        let [row] = of_type.hours[..] else {
            panic!("one row: {of_type:?}");
        };
        row.tally
    };
    let typed = Tally {
        delivered: 1,
        failed_attempts: 1,
        ..Tally::default()
    };
    assert_eq!(tally(Some(EVENT_TYPE)), typed);
    let together = Tally {
        exhausted: 2,
        skipped: 4,
        ..Tally::default()
    };
    assert_eq!(tally(None), together);
    let deleted = JournalEntry::PendingEnded {
        webhook: WEBHOOK,
        through: Sequence(30),
        end: UnsentEnd::Skipped(SkipReason::Deleted),
        count: 0,
        kept: vec![],
    };
    let late = vec![deleted, delivered(13)];
    state.apply(Sequence(3), &pack(1, 3, 0, late)).unwrap();
    assert_eq!(state.totals, Totals::default());
}

fn pick(from: &[Sequence], choice: usize) -> Option<Sequence> {
    from.get(choice.checked_rem(from.len())?).copied()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_fold_knows_of_every_delivery_whether_it_has_ended(
        order in prop_oneof![Just(Order::PerRecord), Just(Order::None)],
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let mut model = Model::new(order);
        for step in &steps {
            model.step(step);
            model.check();
        }
    }
}
