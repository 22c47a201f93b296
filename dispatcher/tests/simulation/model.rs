//! The log told once more, plainly: every delivery of every webhook by itself.

use std::collections::BTreeMap;

use shared::domain::journal::{
    AttemptEntry, Counted, ExhaustReason, JournalEntry, Pack, SkipReason, UnsentEnd,
};
use shared::domain::webhook::Status;
use shared::ids::{EventId, LaneHash, WebhookId};
use shared::time::Timestamp;

use crate::checker::Decision;
use crate::streams::{Registry, Wants};
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
    /// When its status came to let nothing be sent.
    pub(crate) quiet_since: Option<i64>,
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
    pub(crate) attempts: u32,
    retry_at: Option<Timestamp>,
    pub(crate) end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Delivered,
    Unsent(UnsentEnd),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    NotWanted,
    Accepted,
    Skipped(SkipReason),
}

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

    /// What lies between is classified now, and the pack says the same.
    fn classify(&mut self, pack: &Pack, through: u64, world: &World) {
        let mut expected: BTreeMap<(WebhookId, Option<SkipReason>), u64> = BTreeMap::new();
        for (sequence, event) in world.events.range(self.classified, through) {
            for (id, told) in &mut self.webhooks {
                if told
                    .uncounted
                    .is_some_and(|(_, through)| sequence.0 <= through)
                {
                    continue;
                }
                if told.project(&world.registry) != event.project {
                    continue;
                }
                let class = told.class(sequence.0, event.event_type.resource(), &world.registry);
                let skipped = match class {
                    Class::NotWanted => continue,
                    Class::Accepted => None,
                    Class::Skipped(reason) => Some(reason),
                };
                *expected.entry((*id, skipped)).or_default() += 1;
                told.take(sequence.0, event.lane, event.id, skipped);
            }
        }
        self.classified = self.classified.max(through);
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
        assert_eq!(counted, expected, "what pack {} counts", pack.number);
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
                told.end(attempt, End::Unsent(UnsentEnd::Exhausted(*reason)));
            }
            JournalEntry::Ended { attempt, end } => {
                let attempts = told.pending(attempt).attempts;
                assert_eq!(
                    attempt.number, attempts,
                    "attempts of what ended: {attempt:?}"
                );
                assert_ne!(
                    *end,
                    UnsentEnd::Exhausted(ExhaustReason::Expired),
                    "EVENTS still has it: {attempt:?}"
                );
                assert_ne!(
                    *end,
                    UnsentEnd::Skipped(SkipReason::Erased),
                    "EVENTS still has it: {attempt:?}"
                );
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
                for (sequence, delivery) in told.deliveries.range_mut(..=through.0) {
                    let is_kept = kept.iter().any(|kept| kept.sequence.0 == *sequence);
                    if delivery.end.is_none() && !is_kept {
                        delivery.end = Some(End::Unsent(*end));
                        ended += 1;
                    }
                }
                assert_eq!(*count, ended, "how many ended of {id}: {entry:?}");
                if *end == UnsentEnd::Skipped(SkipReason::Deleted) {
                    self.webhooks.remove(&id);
                } else {
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
            JournalEntry::Deactivated { .. }
            | JournalEntry::Quarantined { .. }
            | JournalEntry::Settled { .. }
            | JournalEntry::AccountsProjected { .. }
            | JournalEntry::Released => {}
        }
    }
}

/// Where the very first owner began: below it nothing is classified.
fn pack_origin(pack: &Pack) -> u64 {
    let froms = pack.entries.iter().filter_map(|entry| match entry {
        JournalEntry::ConfigApplied { back_through, .. } => *back_through,
        _ => None,
    });
    froms.map(|through| through.0).min().unwrap_or(0)
}

impl Told {
    pub(crate) fn latest(&self) -> u64 {
        self.configs
            .last()
            .map_or(0, |config| config.registry_sequence)
    }

    fn project(&self, registry: &Registry) -> shared::ids::ProjectId {
        registry.get(self.latest()).unwrap().project
    }

    fn status(config: Config, registry: &Registry) -> Option<Status> {
        let status = registry.get(config.registry_sequence).unwrap().status?;
        Some(config.decision.unwrap_or(status))
    }

    fn look_quiet(&mut self, world: &World) {
        let last = self.configs.last().copied();
        let status = last.and_then(|last| Self::status(last, &world.registry));
        self.quiet_since = match status {
            Some(Status::Enabled) => None,
            Some(_) | None => self.quiet_since.or(Some(world.now)),
        };
    }

    fn class(&self, sequence: u64, resource: &str, registry: &Registry) -> Class {
        let holds = self
            .configs
            .iter()
            .rev()
            .find(|config| config.from <= sequence);
        let Some(config) = holds.copied() else {
            return Class::NotWanted;
        };
        let is_wanted = match registry.get(config.registry_sequence).unwrap().wants {
            Wants::All => true,
            Wants::Resource(wanted) => wanted == resource,
        };
        match Self::status(config, registry) {
            Some(status) if is_wanted => match status {
                Status::Enabled | Status::Quarantined => Class::Accepted,
                Status::Disabled => Class::Skipped(SkipReason::Disabled),
                Status::Deactivated => Class::Skipped(SkipReason::Deactivated),
                Status::PendingVerification => Class::Skipped(SkipReason::Unverified),
            },
            Some(_) | None => Class::NotWanted,
        }
    }

    fn take(&mut self, sequence: u64, lane: LaneHash, event: EventId, skipped: Option<SkipReason>) {
        match skipped {
            Some(reason) => *self.skipped.entry(reason).or_default() += 1,
            None => {
                let delivery = Delivery {
                    lane,
                    event,
                    attempts: 0,
                    retry_at: None,
                    end: None,
                };
                assert!(
                    self.deliveries.insert(sequence, delivery).is_none(),
                    "classified twice"
                );
            }
        }
    }

    /// Accepted, delivered, exhausted, skipped.
    pub(crate) fn counts(&self) -> (u64, u64, u64, u64) {
        let (mut delivered, mut exhausted) = (0, 0);
        let at_once: u64 = self.skipped.values().sum();
        let mut skipped = at_once;
        for delivery in self.deliveries.values() {
            match delivery.end {
                Some(End::Delivered) => delivered += 1,
                Some(End::Unsent(UnsentEnd::Exhausted(_))) => exhausted += 1,
                Some(End::Unsent(UnsentEnd::Skipped(_))) => skipped += 1,
                None => {}
            }
        }
        (
            self.deliveries.len() as u64 + at_once,
            delivered,
            exhausted,
            skipped,
        )
    }

    fn pending(&mut self, attempt: &AttemptEntry) -> &mut Delivery {
        let known = self.deliveries.get_mut(&attempt.position.sequence.0);
        let delivery = known.unwrap_or_else(|| panic!("never accepted: {attempt:?}"));
        assert_eq!(delivery.end, None, "ended before: {attempt:?}");
        assert_eq!(
            (delivery.lane, delivery.event),
            (attempt.lane, attempt.event),
            "{attempt:?}"
        );
        delivery
    }

    fn end(&mut self, attempt: &AttemptEntry, end: End) {
        self.pending(attempt).end = Some(end);
    }

    fn weigh(&mut self, counts: bool) {
        if counts {
            assert!(
                !self.breaker_is_open,
                "a failure counts while the breaker is open"
            );
            self.consecutive += 1;
        }
    }

    /// The attempt is the next one, and was not decided before its time.
    fn attempted(
        &mut self,
        attempt: &AttemptEntry,
        epoch: u64,
        decisions: &Decisions,
        is_probe: bool,
    ) {
        let delivery = self.pending(attempt);
        assert_eq!(
            attempt.number,
            delivery.attempts + 1,
            "numbers have no gap: {attempt:?}"
        );
        let key = (attempt.webhook, attempt.position.sequence.0);
        let mut decided = decisions.get(&key).into_iter().flatten();
        let decided =
            decided.rfind(|decision| decision.epoch == epoch && decision.number == attempt.number);
        let decided = decided.unwrap_or_else(|| panic!("nobody decided it: {attempt:?}"));
        let is_due = delivery.retry_at.is_none_or(|due| decided.now >= due);
        assert!(
            is_due || is_probe,
            "before its time: {attempt:?}, {decided:?}, {delivery:?}"
        );
    }

    fn justify(&self, attempt: &AttemptEntry, reason: ExhaustReason, world: &World) {
        match reason {
            ExhaustReason::Schedule => {
                let policies = world.registry.of(attempt.webhook);
                let steps = policies
                    .map(|decided| decided.policy.retry_schedule_ms.len())
                    .min();
                let steps = u32::try_from(steps.unwrap_or(0)).unwrap();
                assert!(attempt.number > steps, "exhausted early: {attempt:?}");
            }
            ExhaustReason::Deactivated => {
                let is_deactivated = |config: &Config| config.decision == Some(Status::Deactivated);
                assert!(
                    self.configs.iter().any(is_deactivated),
                    "not deactivated: {attempt:?}"
                );
            }
            ExhaustReason::Expired => panic!("expired after an attempt: {attempt:?}"),
        }
    }

    /// Some configuration that holds from what follows says that nothing waits.
    fn justify_end(&self, through: u64, end: UnsentEnd, registry: &Registry) {
        let says = |config: &Config| {
            let ends = match Self::status(*config, registry) {
                Some(Status::Disabled) => Some(UnsentEnd::Skipped(SkipReason::Disabled)),
                Some(Status::Deactivated) => Some(UnsentEnd::Exhausted(ExhaustReason::Deactivated)),
                Some(_) | None => None,
            };
            ends == Some(end) && config.from <= through + 1
        };
        assert!(
            self.configs.iter().any(says),
            "nothing ends {end:?} through {through}"
        );
    }

    fn count_back(
        &mut self,
        id: WebhookId,
        accepted: u64,
        skipped: &[(SkipReason, u64)],
        world: &World,
    ) {
        let (first, through) = self.uncounted.take().expect("something was not counted");
        let mut expected = (0, BTreeMap::new());
        for (sequence, event) in world.events.range(first - 1, through) {
            if self.project(&world.registry) != event.project {
                continue;
            }
            let class = self.class(sequence.0, event.event_type.resource(), &world.registry);
            match class {
                Class::NotWanted => continue,
                Class::Accepted => {
                    expected.0 += 1;
                    self.take(sequence.0, event.lane, event.id, None);
                }
                Class::Skipped(reason) => {
                    *expected.1.entry(reason).or_default() += 1;
                    self.take(sequence.0, event.lane, event.id, Some(reason));
                }
            }
        }
        let counted = (accepted, skipped.iter().copied().collect());
        assert_eq!(
            counted, expected,
            "what the creation of {id} reached back to"
        );
    }
}
