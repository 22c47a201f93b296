//! What must hold, checked from the logs, the senders' and the receivers' records, by code that
//! the production fold knows nothing of. Anything that does not hold ends the run by a panic.

use std::collections::{BTreeMap, BTreeSet};

use dispatcher::core::delivery::{Attempt, ReplayTurn};
use shared::codec;
use shared::domain::journal::Pack;
use shared::domain::policy::Ordering;
use shared::domain::state::PartitionState;
use shared::domain::webhook::Status;
use shared::ids::{LaneHash, Sequence, WebhookId};
use shared::time::Timestamp;

use crate::model::Model;
use crate::replica::Host;
use crate::streams::{Registry, Subject};
use crate::world::World;

/// An attempt as its owner decided it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decision {
    pub(crate) epoch: u64,
    pub(crate) number: u32,
    pub(crate) now: Timestamp,
    /// By its owner's word.
    pub(crate) is_probe: bool,
}

#[derive(Default)]
pub(crate) struct Checker {
    pub(crate) model: Model,
    /// The production fold of the whole log, which every other way to it must come to.
    reference: PartitionState,
    /// Its bytes at each epoch entry.
    at_epochs: BTreeMap<u64, Vec<u8>>,
    pub(crate) decisions: BTreeMap<(WebhookId, u64), Vec<Decision>>,
    /// When attempts were decided, by epoch and webhook.
    starts: BTreeMap<(u64, WebhookId), Vec<Timestamp>>,
    arrived: BTreeSet<(WebhookId, u64)>,
    /// The last first arrival of each lane.
    last_arrival: BTreeMap<(WebhookId, Option<LaneHash>), Arrived>,
    /// The last epoch that sent something.
    last_sender: u64,
}

/// From what is stored of a status to when nothing more may be decided under the one before, on
/// a process that was running all the while.
const QUIET_AFTER_MS: i64 = 2_000;

/// A first arrival.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    sequence: u64,
    epoch: u64,
    /// How much was decided about the webhook by then.
    decided: usize,
}

impl Checker {
    pub(crate) fn pending(&self) -> usize {
        self.model.pending().count()
    }

    pub(crate) fn describe_pending(&self) -> String {
        let pending: Vec<String> = self
            .model
            .pending()
            .take(8)
            .map(|(id, sequence, delivery)| format!("{id} {sequence} {delivery:?}"))
            .collect();
        format!("{} ({})", self.pending(), pending.join("; "))
    }

    /// Those that nothing holds up any more.
    pub(crate) fn replays_at_work(&self, registry: &Registry) -> usize {
        let webhooks = self.model.webhooks.values();
        webhooks.map(|told| told.replays_at_work(registry)).sum()
    }

    pub(crate) fn describe_replays(&self) -> Vec<String> {
        let webhooks = self.reference.webhooks.iter();
        let active = webhooks.filter(|(_, told)| told.replays.is_active());
        active
            .map(|(id, told)| {
                let (replays, health) = (&told.replays, told.health);
                format!(
                    "{id}: {:?}, {:?}, {health:?}",
                    replays.active, replays.known
                )
            })
            .collect()
    }

    pub(crate) fn classified(&self) -> u64 {
        self.model.classified
    }

    /// Whether all that was decided about webhooks is applied.
    pub(crate) fn knows_all(&self, registry: &Registry) -> bool {
        registry.latest().iter().all(|(id, (sequence, decided))| {
            let applied = self.model.webhooks.get(id);
            if decided.status.is_none() {
                applied.is_none()
            } else {
                applied.is_some_and(|webhook| {
                    webhook.latest() == *sequence && webhook.uncounted.is_none()
                })
            }
        })
    }

    /// In a world without faults, nothing is dropped by age before it has ended.
    pub(crate) fn time_passed(world: &World) {
        if world
            .settings
            .scene
            .as_ref()
            .is_none_or(|scene| scene.stall_ms.is_some())
        {
            return;
        }
        let first = world.events.first();
        let dropped = |(id, sequence, _): &(WebhookId, u64, _)| {
            assert!(*sequence >= first, "{sequence} of {id} vanishes");
        };
        world
            .checker
            .model
            .pending()
            .for_each(|pending| dropped(&pending));
    }

    /// JOURNAL has a message more.
    pub(crate) fn stored(world: &mut World, sequence: u64) {
        let message = world.journal.message(sequence).unwrap().clone();
        let mut checker = std::mem::take(&mut world.checker);
        match message.subject {
            Subject::Epoch => {
                let entry = codec::decode_epoch(&message.bytes).unwrap();
                checker.model.epoch_stored(entry.epoch.0);
                checker
                    .at_epochs
                    .insert(entry.epoch.0, codec::encode_state(&checker.reference));
            }
            Subject::Packs => {
                let pack = message.pack.unwrap();

                let is_new = checker.model.pack_stored(&pack, &checker.decisions, world);
                let folded = checker.reference.apply(Sequence(sequence), &pack);
                assert_eq!(folded, Ok(()), "the fold stops");
                if is_new {
                    checker.compare(&pack);
                }
            }
        }
        world.checker = checker;
    }

    /// The production fold says of every delivery what the model says.
    fn compare(&self, pack: &Pack) {
        let known: BTreeSet<WebhookId> = self.reference.webhooks.keys().copied().collect();
        let expected: BTreeSet<WebhookId> = self.model.webhooks.keys().copied().collect();
        assert_eq!(known, expected, "webhooks of the fold");
        for (id, told) in &self.reference.webhooks {
            let model = &self.model.webhooks[id];
            let counts = model.counts();
            let ledger = &told.ledger;
            let folded = (
                ledger.accepted,
                ledger.delivered,
                ledger.exhausted_in_all(),
                ledger.skipped_in_all(),
            );
            assert_eq!(folded, counts, "ledger of {id} after pack {}", pack.number);
            // No simulation is longer than what totals by the hour are kept for.
            let (_, delivered, exhausted, skipped) = counts;
            assert_eq!(
                self.totals(*id),
                (delivered, model.failed, exhausted, skipped),
                "totals of {id} after pack {}",
                pack.number
            );
            for (sequence, delivery) in &model.deliveries {
                let has_ended = told.has_ended(Sequence(*sequence), delivery.lane);
                assert_eq!(
                    has_ended,
                    delivery.end.is_some(),
                    "whether {sequence} of {id} has ended: {delivery:?}, {told:?}"
                );
            }
            for (sequence, failing) in &told.failing {
                let delivery = &model.deliveries[&sequence.0];
                assert_eq!(
                    failing.attempts, delivery.attempts,
                    "attempts of {sequence}"
                );
            }
            model.compare_replays(&told.replays);
            assert_eq!(
                told.health.is_open(),
                model.breaker_is_open,
                "breaker of {id}"
            );
        }
    }

    /// By the fold: delivered, failed attempts, exhausted, skipped.
    fn totals(&self, webhook: WebhookId) -> (u64, u64, u64, u64) {
        let totals = self.reference.totals.webhooks.get(&webhook);
        let hours = totals.into_iter().flat_map(|totals| totals.types.values());
        let rows = hours.flat_map(|totals| &totals.hours);
        rows.fold((0, 0, 0, 0), |sum, row| {
            (
                sum.0 + u64::from(row.tally.delivered),
                sum.1 + u64::from(row.tally.failed_attempts),
                sum.2 + u64::from(row.tally.exhausted),
                sum.3 + u64::from(row.tally.skipped),
            )
        })
    }

    /// An owner begins with this state.
    pub(crate) fn taken(world: &mut World, epoch: u64, state: &PartitionState) {
        // Somebody else has taken it since, and the first append will say so.
        if world.checker.model.epoch != epoch {
            return;
        }
        let told = codec::encode_state(state);
        let replayed = &world.checker.at_epochs[&epoch];
        assert!(
            told == *replayed,
            "the state taken over in epoch {epoch} is not the replayed one: {state:?}, {:?}",
            codec::decode_state(replayed)
        );
    }

    /// An owner's pack is known stored, and folded by it.
    pub(crate) fn committed(world: &mut World, epoch: u64, number: u64, state: &PartitionState) {
        if world.checker.model.last == Some((epoch, number)) && world.chance.per_mille(250) {
            let reference = &world.checker.reference;
            assert!(
                codec::encode_state(state) == codec::encode_state(reference),
                "the owner folds to another state than the log: {state:?}, {reference:?}"
            );
        }
    }

    /// A configuration is on its way into the log: what it lets be sent is sent at once.
    pub(crate) fn applies(world: &mut World, webhook: WebhookId, registry_sequence: Sequence) {
        let status = world
            .registry
            .get(registry_sequence.0)
            .and_then(|decided| decided.status);
        if status == Some(Status::Enabled)
            && let Some(told) = world.checker.model.webhooks.get_mut(&webhook)
        {
            told.quiet_since = None;
        }
    }

    /// The core starts an attempt.
    pub(crate) fn decided(
        world: &mut World,
        epoch: u64,
        webhook: WebhookId,
        attempt: Attempt,
        (now, is_probe): (Timestamp, bool),
    ) {
        world.note(|| {
            format!(
                "decided {webhook} {} number {}",
                attempt.sequence, attempt.number
            )
        });
        let decision = Decision {
            epoch,
            number: attempt.number,
            now,
            is_probe,
        };
        let key = (webhook, attempt.sequence.0);
        world
            .checker
            .decisions
            .entry(key)
            .or_default()
            .push(decision);
        Self::counts_as_start(world, epoch, webhook, now);
    }

    /// Whatever it is an attempt of: the rate holds, and the webhook may be sent to.
    fn counts_as_start(world: &mut World, epoch: u64, webhook: WebhookId, now: Timestamp) {
        let starts = world.checker.starts.entry((epoch, webhook)).or_default();
        starts.push(now);
        if let Some(limit) = Policies::of(world, webhook).rate {
            let starts = &world.checker.starts[&(epoch, webhook)];
            let within = starts
                .iter()
                .rev()
                .take_while(|at| now.millis_since(**at) < 1_000);
            let within = within.count();
            assert!(
                within <= limit as usize,
                "{within} starts of {webhook} in a second"
            );
        }
        let model = &world.checker.model;
        if let Some(known) = model.webhooks.get(&webhook)
            && model.epoch == epoch
            && let Some(since) = known.quiet_since
        {
            assert!(
                world.now - since <= QUIET_AFTER_MS || world.has_paused(since),
                "{webhook} is not quiet"
            );
        }
    }

    /// The core starts an attempt of a replay.
    pub(crate) fn replayed(
        world: &mut World,
        epoch: u64,
        webhook: WebhookId,
        turn: ReplayTurn,
        (now, is_amiss): (Timestamp, bool),
    ) {
        world.note(|| format!("decided {webhook} {turn:?}"));
        assert!(!is_amiss, "a replay while the breaker is open: {turn:?}");
        Self::counts_as_start(world, epoch, webhook, now);
    }

    /// A POST leaves its sender.
    pub(crate) fn sent(world: &mut World, index: usize, host: &Host) {
        let post = world.posts[index].clone();
        let (id, sequence, epoch) = (post.webhook, post.sequence, post.epoch);
        world.note(|| format!("sent {id} {sequence} by {}, epoch {epoch}", post.process));
        assert!(host.has_lease(world), "sent outside of the lease: {post:?}");
        assert!(
            epoch >= world.checker.last_sender,
            "a deposed owner sends: {post:?}"
        );
        world.checker.last_sender = epoch;
        let is_replay = post.replay.is_some();
        let policies = Policies::of(world, id);
        let earlier = &world.posts[..index];
        let mut under_way = 0;
        for other in earlier
            .iter()
            .filter(|other| other.webhook == id && other.epoch == epoch)
        {
            let is_success = other.ended.is_some_and(|(_, success)| success);
            assert!(
                other.sequence != sequence || !is_success || other.replay.is_some() || is_replay,
                "sent again after a success in the same epoch: {post:?}"
            );
            if other.ended.is_some() {
                continue;
            }
            under_way += 1;
            let is_same_lane = other.lane == post.lane || policies.is_strict;
            assert!(
                policies.has_none || !is_same_lane,
                "two attempts of a lane: {other:?}, {post:?}"
            );
        }
        assert!(
            under_way < policies.max_in_flight,
            "too many in flight: {post:?}"
        );
        let known = world.checker.model.webhooks.get(&id);
        if let Some(delivery) = known.and_then(|known| known.deliveries.get(&sequence)) {
            assert_eq!(
                delivery.end.is_some(),
                is_replay,
                "whether its delivery has ended: {post:?}, {delivery:?}"
            );
        }
    }

    /// A POST reaches its receiver.
    pub(crate) fn arrived(world: &mut World, index: usize) {
        let post = world.posts[index].clone();
        let (id, sequence) = (post.webhook, post.sequence);
        world.note(|| format!("arrived {id} {sequence}"));
        let event = world.events.get(sequence).expect("of an event");
        let decided = world.registry.latest()[&id].1.project;
        assert_eq!(event.project, decided, "another project's event: {post:?}");
        if post.replay.is_some() {
            return;
        }
        if !world.checker.arrived.insert((id, sequence)) {
            return;
        }
        let policies = Policies::of(world, id);
        if policies.has_none {
            return;
        }
        let lane = (!policies.is_strict).then_some(post.lane);
        let arrived = Arrived {
            sequence,
            epoch: post.epoch,
            decided: world.registry.of(id).count(),
        };
        let resource = event.event_type.resource().to_owned();
        let Some(last) = world.checker.last_arrival.insert((id, lane), arrived) else {
            return;
        };
        // Where an owner dies before it has told how far it classified, the next one classifies
        // anew, and by what was decided since (rule 11): what the webhook was not owed then it is
        // owed now.
        let mut known = world.registry.of(id).take(last.decided);
        let was_not_owed =
            last.epoch < post.epoch && known.any(|decided| !decided.accepts(&resource));
        assert!(
            last.sequence < sequence || was_not_owed,
            "arrived after {last:?}: {post:?}"
        );
    }

    /// Everything has come to rest.
    pub(crate) fn at_rest(world: &World) {
        let checker = &world.checker;
        let reference = codec::encode_state(&checker.reference);
        for back in 0..3 {
            let snapshot = world.snapshots.get(back);
            let mut state = snapshot.map_or_else(PartitionState::default, |snapshot| {
                codec::decode_state(&snapshot.bytes).unwrap()
            });
            for message in world.journal.after(state.journal.0) {
                if let Some(pack) = &message.pack {
                    state.apply(Sequence(message.sequence), pack).unwrap();
                }
            }
            assert!(
                codec::encode_state(&state) == reference,
                "snapshot {back} and what follows fold to another state than the log"
            );
        }
    }
}

/// What a webhook's policies have in common, all of its time.
struct Policies {
    is_strict: bool,
    has_none: bool,
    max_in_flight: usize,
    rate: Option<u32>,
}

impl Policies {
    fn of(world: &World, webhook: WebhookId) -> Self {
        let mut policies = Self {
            is_strict: true,
            has_none: false,
            max_in_flight: 0,
            rate: Some(0),
        };
        for decided in world.registry.of(webhook) {
            let policy = &decided.policy;
            policies.is_strict &= policy.ordering == Ordering::Strict;
            policies.has_none |= policy.ordering == Ordering::None;
            policies.max_in_flight = policies
                .max_in_flight
                .max(usize::from(policy.max_in_flight));
            policies.rate = match (policies.rate, policy.rate_limit_per_second) {
                (Some(known), Some(rate)) => Some(known.max(rate)),
                (None, _) | (_, None) => None,
            };
        }
        policies
    }
}
