//! Replays: asked for by the outside, handed on by the owner, worked on by a webhook's shell.

use dispatcher::core::delivery::{Attempt, ReplayEffect, ReplayInput};
use dispatcher::core::replay::{Found, Selector};
use shared::domain::journal::JournalEntry;
use shared::domain::replay::{ReplaySelection, ReplayStep};
use shared::domain::state::Extent;
use shared::ids::{EventId, ReplayId, Sequence, WebhookId};
use shared::time::Timestamp;

use crate::checker::Checker;
use crate::child::{Child, ChildWake, Message, READ_RETRY_MS};
use crate::owner::Owner;
use crate::replica::{Host, Wake};
use crate::settings::Plant;
use crate::world::World;

/// How long the shell waits before it looks at the log again.
const LOOK_MS: i64 = 10;

/// Somebody asks for a replay, asks for one again, or wants no more of one.
pub(crate) fn command(world: &mut World) {
    let known = world.registry.latest();
    let webhooks: Vec<WebhookId> = known.into_keys().collect();
    if webhooks.is_empty() {
        return;
    }
    let webhook = *world.chance.pick(&webhooks);
    let asked = world.replays_asked.len() as u64;
    let input = if asked > 0 && world.chance.per_mille(300) {
        let index = usize::try_from(world.chance.below(asked)).unwrap();
        let (webhook, replay, selection) = world.replays_asked[index].clone();
        if world.chance.per_mille(300) {
            hand_on(world, webhook, ReplayInput::Begin { replay, selection });
        } else {
            hand_on(world, webhook, ReplayInput::Cancel(replay));
        }
        return;
    } else {
        let replay = ReplayId::from_bytes(u128::from(asked + 1).to_be_bytes());
        let selection = selection(world);
        let asked = (webhook, replay, selection.clone());
        world.replays_asked.push(asked);
        ReplayInput::Begin { replay, selection }
    };
    hand_on(world, webhook, input);
}

fn hand_on(world: &mut World, webhook: WebhookId, input: ReplayInput) {
    world.note(|| format!("asked of {webhook}: {input:?}"));
    for index in world.alive() {
        let in_ms = world.chance.within(0, 400);
        world.wake(index, in_ms, Wake::Replay(webhook, input.clone()));
    }
}

fn selection(world: &mut World) -> ReplaySelection {
    let (now, span) = (world.now, world.settings.span_ms);
    let ago = |world: &mut World| Timestamp::from_millis(now - world.chance.within(0, span));
    match world.chance.below(3) {
        0 => {
            let mut ids: Vec<EventId> = (0..world.chance.within(1, 6))
                .map(|_| EventId::from_bytes(u128::from(world.chance.below(40) + 1).to_be_bytes()))
                .collect();
            ids.sort_unstable();
            ids.dedup();
            ReplaySelection::Events(ids)
        }
        1 => ReplaySelection::ExhaustedSince(ago(world)),
        _ => {
            let (one, other) = (ago(world), ago(world));
            ReplaySelection::Published {
                from: one.min(other),
                to: one.max(other).plus_millis(1),
            }
        }
    }
}

impl Owner {
    pub(crate) fn replay_asked(
        &mut self,
        id: WebhookId,
        input: ReplayInput,
        host: &mut Host,
        world: &mut World,
    ) {
        if self.is_halted() {
            return;
        }
        let Some(webhook) = world.registry.webhook(id, host.registry_seen).cloned() else {
            return;
        };
        let idle_through = self.idle_through(id);
        self.begin(&webhook, idle_through, host, world);
        let sent = self.send(id, Message::Replay(input.clone()), host, world);
        if let (None, ReplayInput::Cancel(replay)) = (sent, input) {
            let at = self.now(host, world);
            let entry = JournalEntry::Replay {
                webhook: id,
                replay,
                step: ReplayStep::Cancelled { at },
            };
            self.push(entry, host, world);
        }
        self.after(host, world);
    }
}

impl Child {
    pub(crate) fn perform_replay(
        &mut self,
        effect: ReplayEffect,
        now: Timestamp,
        owner: &mut Owner,
        host: &Host,
        world: &mut World,
    ) {
        let in_ms = world.chance.within(0, 30);
        match effect {
            ReplayEffect::Attempt(turn) => {
                owner.under_way += 1;
                let is_open = self.core.health().is_open();
                // Only where there is nothing to probe with.
                let is_amiss = is_open && owner.commits.pending(self.webhook.id) > 0;
                Checker::replayed(world, owner.epoch, self.webhook.id, turn, (now, is_amiss));
                let attempt = Attempt {
                    sequence: turn.sequence,
                    event: turn.event,
                    number: 1,
                };
                self.ask(
                    in_ms,
                    ChildWake::Send(attempt, Some(turn)),
                    owner,
                    host,
                    world,
                );
            }
            ReplayEffect::Count(replay) => {
                let wake = ChildWake::Look(replay, None, self.pushed);
                self.ask(in_ms, wake, owner, host, world);
            }
            ReplayEffect::Read { replay, after } => {
                let wake = ChildWake::Look(replay, Some(after), self.pushed);
                self.ask(in_ms, wake, owner, host, world);
            }
        }
    }

    pub(crate) fn look(
        &mut self,
        replay: ReplayId,
        after: Option<Sequence>,
        pushed: u64,
        owner: &mut Owner,
        host: &Host,
        world: &mut World,
    ) {
        if owner.commits.stored() < pushed {
            let wake = ChildWake::Look(replay, after, pushed);
            self.ask(LOOK_MS, wake, owner, host, world);
            return;
        }
        let active = self.core.replay().filter(|active| active.id == replay);
        let plants_pending = world.settings.plants(Plant::ReplayOfPending);
        let selector = active.map(|active| {
            let mut active = active.clone();
            if plants_pending {
                active.extent = Extent::whole(active.extent.through);
            }
            Selector::of(self.webhook.id, self.history.clone(), &active)
        });
        let fails = world.settings.read_fails;
        let is_away = world.logs_are_away() || world.misfortune(fails);
        let (Some(selector), false) = (selector, is_away) else {
            let wake = ChildWake::Looked(ReplayInput::ReadFailed(replay));
            self.ask(READ_RETRY_MS, wake, owner, host, world);
            return;
        };
        let mut found = found(world, &selector, self);
        let input = match after {
            None => ReplayInput::Counted {
                replay,
                matched: found.len() as u64,
            },
            Some(after) => {
                found.retain(|found| found.sequence > after);
                let through = match found.get(world.settings.read_events) {
                    Some(next) => next.sequence.previous(),
                    None => selector.through(),
                };
                found.truncate(world.settings.read_events);
                ReplayInput::Read {
                    replay,
                    found,
                    through,
                }
            }
        };
        let in_ms = world.chance.within(0, 30);
        self.ask(in_ms, ChildWake::Looked(input), owner, host, world);
    }
}

/// All that is selected, ascending.
fn found(world: &World, selector: &Selector, child: &Child) -> Vec<Found> {
    let mut found = Vec::new();
    if selector.needs_entries_since().is_some() {
        let packs = world
            .journal
            .after(0)
            .filter_map(|message| message.pack.as_ref());
        let entries = packs.flat_map(|pack| &pack.entries);
        found.extend(entries.filter_map(|entry| selector.entry(entry)));
    }
    if selector.needs_events() {
        // What EVENTS has dropped nobody finds, whether it was ever classified or not.
        let after = selector.origin().0.max(world.events.first() - 1);
        let events = world.events.range(after, selector.through().0);
        let own = events
            .iter()
            .filter(|(_, event)| event.project == child.webhook.project);
        found.extend(own.filter_map(|(sequence, event)| selector.event(*sequence, event)));
    }
    found.sort_by_key(|found| found.sequence);
    found
}
