//! What the outside does: events are published, webhooks are made, changed and deleted.

use std::sync::Arc;

use bytes::Bytes;
use shared::domain::event::{Event, EventType, Source};
use shared::domain::policy::{Ordering, Policy};
use shared::domain::webhook::{Dialect, Status};
use shared::ids::{EventId, LaneHash, ProjectId, WebhookId};
use shared::time::Timestamp;

use crate::endpoint::Endpoint;
use crate::replica::Wake;
use crate::settings::Settings;
use crate::streams::{Decided, Wants};
use crate::world::{Chance, Happening, World};

pub(crate) struct Workload {
    lanes: u64,
    published: u64,
    created: u8,
    webhooks: usize,
    orderings: Vec<Ordering>,
    /// Decided, and not in REGISTRY yet.
    decided: Vec<Decided>,
}

const PROJECTS: [ProjectId; 2] = [
    ProjectId::from_bytes([1; 16]),
    ProjectId::from_bytes([2; 16]),
];

impl Workload {
    pub(crate) fn draw(chance: &mut Chance, settings: &Settings) -> Self {
        let all = [Ordering::PerRecord, Ordering::Strict, Ordering::None];
        let kinds = usize::try_from(settings.orderings).unwrap();
        let first = usize::try_from(chance.below(3)).unwrap();
        Self {
            lanes: settings.lanes,
            published: 0,
            created: 0,
            webhooks: settings.webhooks,
            orderings: (0..kinds).map(|index| all[(first + index) % 3]).collect(),
            decided: Vec::new(),
        }
    }

    pub(crate) fn publish(world: &mut World) {
        if world.logs_are_away() {
            let in_ms = world.chance.within(500, 3_000);
            world.at(in_ms, Happening::Publish);
            return;
        }
        if world.chance.per_mille(200) {
            world.events.publish(world.now, None);
        }
        let event = Self::event(world);
        let sequence = world.events.publish(world.now, Some(Arc::new(event)));
        world.note(|| format!("event {sequence}"));
        let late = world.settings.tail_fails;
        for index in world.alive() {
            let in_ms = if world.misfortune(late) {
                world.chance.within(0, 10_000)
            } else {
                world.chance.within(1, 20)
            };
            world.wake(index, in_ms, Wake::Tail);
        }
    }

    fn event(world: &mut World) -> Event {
        let is_drawn = world.settings.scene.is_none();
        let (now, chance, workload) = (world.now, &mut world.chance, &mut world.workload);
        workload.published += 1;
        // The same id again, after the dedup window, is a delivery of its own (rule 23).
        let number = if workload.published > 1 && chance.per_mille(40) {
            chance.below(workload.published - 1) + 1
        } else {
            workload.published
        };
        let project = usize::from(is_drawn && chance.per_mille(300));
        // A few records have most of the events.
        let most = chance.below(workload.lanes) + 1;
        let record = chance.below(most);
        let event_type = *chance.pick(&["hris_employees.created", "ats_jobs.created"]);
        Event {
            id: EventId::from_bytes(u128::from(number).to_be_bytes()),
            project: PROJECTS[project],
            event_type: EventType::parse(event_type).unwrap(),
            source: Source::FirstParty,
            account: None,
            provider: None,
            record_id: "1".into(),
            occurred_at: Timestamp::from_millis(now),
            published_at: Timestamp::from_millis(now),
            lane: LaneHash(record),
            registry_sequence: None,
            body: Bytes::new(),
        }
    }

    pub(crate) fn command(world: &mut World) {
        let known: Vec<Decided> = world
            .registry
            .latest()
            .into_values()
            .map(|(_, decided)| decided.clone())
            .filter(|decided| decided.status.is_some())
            .collect();
        let made = usize::from(world.workload.created);
        if made < world.workload.webhooks || (known.is_empty() && made < 8) {
            Self::create(world);
        } else if !known.is_empty() {
            let decided = world.chance.pick(&known).clone();
            Self::change(world, decided);
        }
    }

    fn create(world: &mut World) {
        world.workload.created += 1;
        let webhook = WebhookId::from_bytes([world.workload.created; 16]);
        let endpoint = Endpoint::draw(world);
        world.endpoints.insert(webhook, endpoint);
        // Read from the leader before the append: what comes in between is classified too.
        let from = world.events.last() + 1;
        let is_drawn = world.settings.scene.is_none();
        let project = PROJECTS[usize::from(is_drawn && world.chance.per_mille(300))];
        let decided = Decided {
            webhook,
            project,
            wants: match &world.settings.scene {
                Some(_) => Wants::All,
                None => wants(&mut world.chance),
            },
            status: Some(if !is_drawn || world.chance.per_mille(850) {
                Status::Enabled
            } else {
                Status::PendingVerification
            }),
            lifts: true,
            dialect: if is_drawn && world.chance.per_mille(150) {
                Dialect::HrOn
            } else {
                Dialect::Stackone
            },
            policy: match &world.settings.scene {
                Some(scene) => scene.policy.clone(),
                None => policy(world),
            },
            from,
        };
        let in_ms = world.chance.within(0, 400);
        world.workload.decided.push(decided);
        let index = world.workload.decided.len() - 1;
        world.at(in_ms, Happening::Decided(index));
    }

    pub(crate) fn decided(world: &mut World, index: usize) {
        let decided = world.workload.decided[index].clone();
        Self::append(world, decided);
    }

    fn change(world: &mut World, mut decided: Decided) {
        decided.lifts = false;
        match world.chance.below(10) {
            0 | 1 => {
                decided.status = Some(Status::Disabled);
                decided.lifts = true;
            }
            2..=4 => {
                decided.status = Some(Status::Enabled);
                decided.lifts = true;
            }
            5 => decided.status = None,
            6 => decided.wants = wants(&mut world.chance),
            7 => {
                decided.status = Some(Status::PendingVerification);
                decided.lifts = true;
            }
            _ => decided.policy = policy(world),
        }
        Self::append(world, decided);
    }

    fn append(world: &mut World, decided: Decided) {
        let what = world.traces().then(|| format!("{decided:?}"));
        let sequence = world.registry.append(world.now, decided);
        world.note(|| format!("registry {sequence}: {}", what.unwrap_or_default()));
        let late = world.settings.projection_late;
        for index in world.alive() {
            let in_ms = if world.misfortune(late) {
                world.chance.within(0, 10_000)
            } else {
                world.chance.within(1, 50)
            };
            world.wake(index, in_ms, Wake::Registry);
        }
    }

    /// Whoever waited for verification has it.
    pub(crate) fn verify_all(world: &mut World) {
        let waiting: Vec<Decided> = world
            .registry
            .latest()
            .into_values()
            .map(|(_, decided)| decided.clone())
            .filter(|decided| decided.status == Some(Status::PendingVerification))
            .collect();
        for mut decided in waiting {
            decided.status = Some(Status::Enabled);
            decided.lifts = true;
            Self::append(world, decided);
        }
    }
}

fn wants(chance: &mut Chance) -> Wants {
    *chance.pick(&[
        Wants::All,
        Wants::All,
        Wants::Resource("hris_employees"),
        Wants::Resource("ats_jobs"),
    ])
}

fn policy(world: &mut World) -> Policy {
    let orderings = world.workload.orderings.clone();
    // Long worlds wait longer, so that all are about equally eventful.
    let scale = u64::try_from(world.settings.span_ms / 600_000)
        .unwrap()
        .max(1);
    let chance = &mut world.chance;
    let schedules: [&[u64]; 4] = [
        &[1_000, 5_000, 30_000],
        &[],
        &[2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000],
        &[5_000, 30_000, 120_000, 600_000, 1_800_000],
    ];
    Policy {
        ordering: *chance.pick(&orderings),
        max_in_flight: u16::try_from(1 + chance.below(6)).unwrap(),
        timeout_ms: *chance.pick(&[1_000, 10_000, 30_000]),
        rate_limit_per_second: chance.per_mille(200).then_some(2),
        retry_schedule_ms: chance
            .pick(&schedules)
            .iter()
            .map(|wait| wait * scale)
            .collect(),
        deactivate_after_consecutive_failures: chance.per_mille(150).then_some(4),
        deactivate_after_failing_ms: chance.per_mille(200).then_some(60_000 * scale),
    }
}
