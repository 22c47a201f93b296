//! One webhook of the model.

use std::collections::BTreeMap;

use shared::domain::event::Event;
use shared::domain::journal::{AttemptEntry, ExhaustReason, SkipReason, UnsentEnd};
use shared::domain::webhook::Status;
use shared::ids::{ProjectId, WebhookId};
use shared::partition::event_type_hash;

use super::{Class, Config, Decisions, Delivery, End, Told};
use crate::streams::{Registry, Wants};
use crate::world::World;

impl Told {
    pub(crate) fn latest(&self) -> u64 {
        self.configs
            .last()
            .map_or(0, |config| config.registry_sequence)
    }

    pub(super) fn project(&self, registry: &Registry) -> ProjectId {
        registry.get(self.latest()).unwrap().project
    }

    pub(super) fn is_enabled(&self, registry: &Registry) -> bool {
        let last = self.configs.last();
        last.and_then(|last| Self::status(*last, registry)) == Some(Status::Enabled)
    }

    pub(super) fn status(config: Config, registry: &Registry) -> Option<Status> {
        let status = registry.get(config.registry_sequence).unwrap().status?;
        Some(config.decision.unwrap_or(status))
    }

    pub(super) fn look_quiet(&mut self, world: &World) {
        let last = self.configs.last().copied();
        let status = last.and_then(|last| Self::status(last, &world.registry));
        self.quiet_since = match status {
            Some(Status::Enabled) => None,
            Some(_) | None => self.quiet_since.or(Some(world.now)),
        };
    }

    pub(super) fn class(&self, sequence: u64, resource: &str, registry: &Registry) -> Class {
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

    pub(super) fn take(&mut self, sequence: u64, event: &Event, skipped: Option<SkipReason>) {
        match skipped {
            Some(reason) => {
                *self.skipped.entry(reason).or_default() += 1;
                self.skipped_at_once.insert(sequence, event.id);
            }
            None => {
                let delivery = Delivery {
                    lane: event.lane,
                    event: event.id,
                    event_type: event_type_hash(&event.event_type),
                    attempts: 0,
                    retry_at: None,
                    end: None,
                    exhausted: None,
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

    pub(super) fn pending(&mut self, attempt: &AttemptEntry) -> &mut Delivery {
        let known = self.deliveries.get_mut(&attempt.position.sequence.0);
        let delivery = known.unwrap_or_else(|| panic!("never accepted: {attempt:?}"));
        assert_eq!(delivery.end, None, "ended before: {attempt:?}");
        assert_eq!(
            (delivery.lane, delivery.event, delivery.event_type),
            (attempt.lane, attempt.event, attempt.event_type),
            "{attempt:?}"
        );
        delivery
    }

    pub(super) fn end(&mut self, attempt: &AttemptEntry, end: End) {
        self.pending(attempt).end = Some(end);
    }

    pub(super) fn weigh(&mut self, counts: bool) {
        self.failed += 1;
        if counts {
            assert!(
                !self.breaker_is_open,
                "a failure counts while the breaker is open"
            );
            self.consecutive += 1;
        }
    }

    /// The attempt is the next one, and was not decided before its time.
    pub(super) fn attempted(
        &mut self,
        attempt: &AttemptEntry,
        epoch: u64,
        decisions: &Decisions,
        is_probe: bool,
    ) {
        let was_lifted = self.was_lifted;
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
        // One that was under way when the webhook was lifted.
        let is_probe = is_probe || (was_lifted && decided.is_probe);
        assert!(
            is_due || is_probe,
            "before its time: {attempt:?}, {decided:?}, {delivery:?}"
        );
    }

    pub(super) fn justify(&self, attempt: &AttemptEntry, reason: ExhaustReason, world: &World) {
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
    pub(super) fn justify_end(&self, through: u64, end: UnsentEnd, registry: &Registry) {
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

    pub(super) fn count_back(
        &mut self,
        id: WebhookId,
        accepted: u64,
        skipped: &[(SkipReason, u64)],
        world: &World,
    ) {
        let (first, through) = self.uncounted.take().expect("something was not counted");
        let events: Vec<_> = world
            .events
            .range(first - 1, through)
            .into_iter()
            .filter(|(_, event)| self.project(&world.registry) == event.project)
            .map(|(sequence, event)| {
                let class = self.class(sequence.0, event.event_type.resource(), &world.registry);
                (sequence.0, event, class)
            })
            .collect();
        let counted = (accepted, skipped.iter().copied().collect());
        // What EVENTS dropped before it was counted nobody counts: the oldest first.
        let first = world.events.first();
        let dropped = events.partition_point(|(sequence, ..)| *sequence < first);
        let says = |missed: &usize| {
            let mut expected = (0, BTreeMap::new());
            for (_, _, class) in &events[*missed..] {
                match class {
                    Class::NotWanted => {}
                    Class::Accepted => expected.0 += 1,
                    Class::Skipped(reason) => *expected.1.entry(*reason).or_default() += 1,
                }
            }
            expected == counted
        };
        let missed = (0..=dropped)
            .find(says)
            .unwrap_or_else(|| panic!("what the creation of {id} reached back to: {counted:?}"));
        for (sequence, event, class) in events.into_iter().skip(missed) {
            let skipped = match class {
                Class::NotWanted => continue,
                Class::Accepted => None,
                Class::Skipped(reason) => Some(reason),
            };
            self.take(sequence, &event, skipped);
        }
    }
}
