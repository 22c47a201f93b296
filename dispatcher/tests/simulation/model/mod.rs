//! The log told once more, plainly: every delivery of every webhook by itself.

mod replays;
mod told;

use std::collections::BTreeMap;

use shared::domain::event::Event;
use shared::domain::journal::{Counted, ExhaustReason, JournalEntry, Pack, SkipReason, UnsentEnd};
use shared::domain::webhook::{Dialect, Status};
use shared::ids::{EventId, EventTypeHash, LaneHash, ReplayId, WebhookId};
use shared::time::Timestamp;

use crate::checker::Decision;
use crate::world::World;

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) epoch: u64,
    pub(crate) last: Option<(u64, u64)>,
    last_at: Timestamp,
    last_pack: Vec<Pack>,
    pub(crate) classified: u64,
    is_begun: bool,
    is_released: bool,
    pub(crate) webhooks: BTreeMap<WebhookId, Told>,
}

/// What the log tells of a webhook.
#[derive(Default)]
pub(crate) struct Told {
    configs: Vec<Config>,
    pub(crate) uncounted: Option<(u64, u64)>,
    pub(crate) deliveries: BTreeMap<u64, Delivery>,
    skipped: BTreeMap<SkipReason, u64>,
    pub(crate) breaker_is_open: bool,
    /// Its health began anew, which whoever sends does not know at once.
    was_lifted: bool,
    consecutive: u32,
    /// Requests that failed.
    pub(crate) failed: u64,
    /// When its status came to let nothing be sent.
    pub(crate) quiet_since: Option<i64>,
    /// What was skipped as soon as it was classified.
    skipped_at_once: BTreeMap<u64, EventId>,
    deactivated_at: Timestamp,
    /// Times at which all that was pending was exhausted.
    deactivations: Vec<Timestamp>,
    replays: BTreeMap<ReplayId, replays::Told>,
}

#[derive(Clone, Copy, Debug)]
struct Config {
    from: u64,
    registry_sequence: u64,
    decision: Option<Status>,
}

#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) lane: LaneHash,
    event: EventId,
    event_type: EventTypeHash,
    pub(crate) attempts: u32,
    retry_at: Option<Timestamp>,
    pub(crate) end: Option<End>,
    exhausted: Option<replays::Exhausted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Delivered,
    Unsent(UnsentEnd),
}

/// Of all webhooks together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) exhausted: u64,
    pub(crate) skipped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    NotWanted,
    Accepted,
    Skipped(SkipReason),
}

const EXPIRED: UnsentEnd = UnsentEnd::Exhausted(ExhaustReason::Expired);

type Classes = Vec<(WebhookId, Option<SkipReason>)>;
type Decisions = BTreeMap<(WebhookId, u64), Vec<Decision>>;

impl Model {
    pub(crate) fn pending(&self) -> impl Iterator<Item = (WebhookId, u64, &Delivery)> {
        self.webhooks.iter().flat_map(|(id, webhook)| {
            let deliveries = webhook.deliveries.iter();
            deliveries
                .filter(|(_, delivery)| delivery.end.is_none())
                .map(|(sequence, delivery)| (*id, *sequence, delivery))
        })
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (accepted, delivered, exhausted, skipped) in self.webhooks.values().map(Told::counts) {
            counts.accepted += accepted;
            counts.delivered += delivered;
            counts.exhausted += exhausted;
            counts.skipped += skipped;
        }
        counts
    }

    pub(crate) fn epoch_stored(&mut self, epoch: u64) {
        assert_eq!(epoch, self.epoch + 1, "epochs rise by one");
        self.epoch = epoch;
        self.is_released = false;
    }

    /// Takes a pack in; `false` when it was there before.
    pub(crate) fn pack_stored(
        &mut self,
        pack: &Pack,
        decisions: &Decisions,
        world: &World,
    ) -> bool {
        assert_eq!(pack.epoch.0, self.epoch, "a pack of a deposed owner");
        if self.last >= Some((pack.epoch.0, pack.number)) {
            assert!(self.last_pack.contains(pack), "a number is used twice");
            return false;
        }
        let expected = match self.last {
            Some((epoch, number)) if epoch == pack.epoch.0 => number + 1,
            Some(_) | None => 1,
        };
        assert_eq!(
            pack.number, expected,
            "pack numbers of epoch {}",
            self.epoch
        );
        assert!(!self.is_released, "a pack after the release");
        assert!(pack.at >= self.last_at, "journaled time goes back");
        let through = pack.classified.sequence.0;
        assert!(
            through >= self.classified || !self.is_begun,
            "classification goes back"
        );
        if !self.is_begun {
            // Nobody owned it before: what lies below is nobody's.
            self.is_begun = true;
            self.classified = self.classified.max(pack_origin(pack));
        }
        self.last = Some((pack.epoch.0, pack.number));
        self.last_at = pack.at;
        self.last_pack.push(pack.clone());
        for entry in &pack.entries {
            self.configure(entry, world);
        }
        self.classify(pack, through, world);
        for entry in &pack.entries {
            self.apply(entry, pack.epoch.0, decisions, world);
        }
        true
    }

    fn configure(&mut self, entry: &JournalEntry, world: &World) {
        match entry {
            JournalEntry::ConfigApplied {
                webhook,
                registry_sequence,
                from,
                back_through,
                lifts,
            } => {
                let told = self.webhooks.entry(*webhook).or_default();
                let decided = world
                    .registry
                    .get(registry_sequence.0)
                    .expect("in REGISTRY");
                assert_eq!(decided.webhook, *webhook);
                assert!(told.latest() < registry_sequence.0, "applied twice");
                if told.configs.is_empty() {
                    assert_eq!(
                        from.sequence.0, decided.from,
                        "a creation names where it begins"
                    );
                    told.uncounted = back_through.map(|through| (from.sequence.0, through.0));
                } else {
                    assert_eq!(*back_through, None, "creation alone reaches back");
                    assert!(
                        from.sequence.0 > self.classified || decided.from > self.classified,
                        "a configuration reaches back"
                    );
                }
                let before = told.configs.last().and_then(|config| config.decision);
                if *lifts {
                    told.was_lifted = !told.configs.is_empty();
                }
                told.configs.push(Config {
                    from: from.sequence.0,
                    registry_sequence: registry_sequence.0,
                    decision: before.filter(|_| !lifts),
                });
                told.look_quiet(world);
            }
            JournalEntry::Deactivated { webhook, from, .. } => {
                self.decide(*webhook, from.sequence.0, Status::Deactivated, world);
            }
            JournalEntry::Quarantined { webhook, from, .. } => {
                self.decide(*webhook, from.sequence.0, Status::Quarantined, world);
            }
            _ => {}
        }
    }

    fn decide(&mut self, webhook: WebhookId, from: u64, status: Status, world: &World) {
        assert!(from > self.classified, "a decision reaches back");
        let Some(told) = self.webhooks.get_mut(&webhook) else {
            return;
        };
        let last = *told
            .configs
            .last()
            .expect("a configuration before a decision");
        told.configs.push(Config {
            from,
            decision: Some(status),
            ..last
        });
        told.look_quiet(world);
    }

    /// What lies between is classified now, and the pack says the same. What EVENTS has dropped by
    /// now may have been dropped before its owner came to it: the oldest of it first.
    fn classify(&mut self, pack: &Pack, through: u64, world: &World) {
        let events = world.events.range(self.classified, through);
        let counted: BTreeMap<_, _> = pack
            .counted
            .iter()
            .map(
                |Counted {
                     webhook,
                     skipped,
                     count,
                 }| ((*webhook, *skipped), *count),
            )
            .collect();
        let classes: Vec<Classes> = events
            .iter()
            .map(|(sequence, event)| self.classes(sequence.0, event, world))
            .collect();
        let first = world.events.first();
        let dropped = events.partition_point(|(sequence, _)| sequence.0 < first);
        let says = |missed: &usize| {
            let mut expected = BTreeMap::new();
            for key in classes[*missed..].iter().flatten() {
                *expected.entry(*key).or_insert(0) += 1;
            }
            expected == counted
        };
        let missed = (0..=dropped).find(says);
        let missed = missed.unwrap_or_else(|| {
            panic!("what pack {} counts: {counted:?}, {classes:?}", pack.number)
        });
        for ((sequence, event), classes) in events.iter().zip(classes).skip(missed) {
            for (id, skipped) in classes {
                let told = self.webhooks.get_mut(&id).unwrap();
                told.take(sequence.0, event, skipped);
            }
        }
        self.classified = self.classified.max(through);
    }

    /// Who is owed the event, or would be.
    fn classes(&self, sequence: u64, event: &Event, world: &World) -> Classes {
        let mut classes = Classes::new();
        for (id, told) in &self.webhooks {
            let is_uncounted = |(_, through): (u64, u64)| sequence <= through;
            if told.uncounted.is_some_and(is_uncounted)
                || told.project(&world.registry) != event.project
            {
                continue;
            }
            match told.class(sequence, event.event_type.resource(), &world.registry) {
                Class::NotWanted => {}
                Class::Accepted => classes.push((*id, None)),
                Class::Skipped(reason) => classes.push((*id, Some(reason))),
            }
        }
        classes
    }

    fn apply(&mut self, entry: &JournalEntry, epoch: u64, decisions: &Decisions, world: &World) {
        if matches!(entry, JournalEntry::Released) {
            self.is_released = true;
        }
        let Some(id) = entry.webhook() else {
            return;
        };
        // What was under way when it was deleted says nothing more.
        let Some(told) = self.webhooks.get_mut(&id) else {
            return;
        };
        match entry {
            JournalEntry::Delivered { attempt, .. } => {
                let was_open = told.breaker_is_open;
                told.attempted(attempt, epoch, decisions, was_open);
                let is_true = world.posts.iter().any(|post| {
                    post.webhook == id
                        && post.replay.is_none()
                        && post.epoch == epoch
                        && post.sequence == attempt.position.sequence.0
                        && post.succeeded_at.is_some()
                        && post.ended.is_some_and(|(_, success)| success)
                });
                assert!(is_true, "delivered without a success: {attempt:?}");
                told.end(attempt, End::Delivered);
                if !was_open {
                    told.consecutive = 0;
                }
            }
            JournalEntry::AttemptFailed {
                attempt,
                retry_at,
                weight,
                ..
            } => {
                told.attempted(attempt, epoch, decisions, false);
                told.weigh(weight.counts);
                let delivery = told.pending(attempt);
                delivery.attempts = attempt.number;
                delivery.retry_at = Some(*retry_at);
            }
            JournalEntry::Exhausted {
                attempt,
                reason,
                weight,
                ..
            } => {
                told.attempted(attempt, epoch, decisions, false);
                told.weigh(weight.counts);
                told.justify(attempt, *reason, world);
                told.pending(attempt).exhausted =
                    Some(replays::Exhausted::Alone(attempt.ended_at()));
                told.end(attempt, End::Unsent(UnsentEnd::Exhausted(*reason)));
            }
            JournalEntry::Ended { attempt, end } => {
                let attempts = told.pending(attempt).attempts;
                assert_eq!(
                    attempt.number, attempts,
                    "attempts of what ended: {attempt:?}"
                );
                let is_gone = attempt.position.sequence.0 < world.events.first();
                assert!(
                    *end != UnsentEnd::Exhausted(ExhaustReason::Expired) || is_gone,
                    "EVENTS still has it: {attempt:?}"
                );
                assert_ne!(
                    *end,
                    UnsentEnd::Skipped(SkipReason::Erased),
                    "EVENTS still has it: {attempt:?}"
                );
                if matches!(end, UnsentEnd::Exhausted(_)) {
                    told.pending(attempt).exhausted =
                        Some(replays::Exhausted::Alone(attempt.ended_at()));
                }
                told.end(attempt, End::Unsent(*end));
            }
            JournalEntry::PendingEnded {
                through,
                end,
                count,
                kept,
                ..
            } => {
                let mut ended = 0;
                let together = told.end_together(*end);
                for (sequence, delivery) in told.deliveries.range_mut(..=through.0) {
                    let is_kept = kept.iter().any(|kept| kept.sequence.0 == *sequence);
                    if delivery.end.is_none() && !is_kept {
                        delivery.end = Some(End::Unsent(*end));
                        delivery.exhausted = together;
                        ended += 1;
                        assert!(
                            *end != EXPIRED || *sequence <= world.events.horizon(world.now),
                            "{sequence} of {id} expires early"
                        );
                    }
                }
                assert_eq!(*count, ended, "how many ended of {id}: {entry:?}");
                if *end == UnsentEnd::Skipped(SkipReason::Deleted) {
                    self.webhooks.remove(&id);
                } else if *end != EXPIRED {
                    told.justify_end(through.0, *end, &world.registry);
                }
            }
            JournalEntry::ProbeFailed {
                attempt, weight, ..
            } => {
                assert!(
                    told.breaker_is_open || told.was_lifted,
                    "a probe while closed: {attempt:?}"
                );
                assert!(
                    !weight.counts || told.was_lifted,
                    "a probe that counts: {attempt:?}"
                );
                told.weigh(weight.counts);
                let attempts = told.pending(attempt).attempts;
                assert_eq!(
                    attempt.number, attempts,
                    "a probe is no attempt: {attempt:?}"
                );
            }
            JournalEntry::BreakerOpened { .. } => {
                assert!(!told.breaker_is_open, "opened while open");
                let decided = world.registry.get(told.latest()).unwrap();
                assert_eq!(decided.dialect, Dialect::Stackone, "hr-on has no breaker");
                assert!(
                    told.consecutive >= 5 || told.was_lifted,
                    "opened after {} failures",
                    told.consecutive
                );
                told.breaker_is_open = true;
            }
            JournalEntry::BreakerClosed { .. } => {
                assert!(
                    told.breaker_is_open || told.was_lifted,
                    "closed while closed"
                );
                told.breaker_is_open = false;
                told.consecutive = 0;
            }
            JournalEntry::CountedBack {
                accepted, skipped, ..
            } => told.count_back(id, *accepted, skipped, world),
            JournalEntry::ConfigApplied { lifts, .. } => {
                if *lifts {
                    told.breaker_is_open = false;
                    told.consecutive = 0;
                }
            }
            JournalEntry::Replay { replay, step, .. } => {
                told.replay(id, *replay, step, epoch, world)
            }
            JournalEntry::Deactivated { at, .. } => told.deactivated_at = *at,
            JournalEntry::Quarantined { .. }
            | JournalEntry::Settled { .. }
            | JournalEntry::AccountsProjected { .. }
            | JournalEntry::Released => {}
        }
    }
}

/// Where the very first owner began: below it nothing is classified.
fn pack_origin(pack: &Pack) -> u64 {
    let froms = pack.entries.iter().filter_map(|entry| match entry {
        JournalEntry::ConfigApplied {
            from, back_through, ..
        } => Some(back_through.unwrap_or(from.sequence.previous())),
        _ => None,
    });
    // What is applied later in the pack may reach back from further on, and what begins later says
    // no more than that.
    let ends = std::iter::once(pack.classified.sequence);
    froms
        .chain(ends)
        .map(|through| through.0)
        .min()
        .unwrap_or(0)
}
