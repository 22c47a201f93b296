//! What the owner does about single webhooks: applies their configurations, wakes and tells them.

use std::sync::Arc;

use dispatcher::core::delivery::{Beginning, Deliveries, Rules};
use shared::domain::journal::{JournalEntry, SkipReason, UnsentEnd};
use shared::domain::state::WebhookState;
use shared::domain::webhook::{Status, Webhook};
use shared::ids::{Sequence, WebhookId};

use super::Owner;
use crate::child::{Child, Message};
use crate::replica::Host;
use crate::settings::Plant;
use crate::world::World;

impl Owner {
    pub(super) fn wake(
        &mut self,
        webhook: &Arc<Webhook>,
        idle_through: Option<Sequence>,
        host: &mut Host,
        world: &mut World,
    ) {
        let id = webhook.id;
        let told = self.commits.state().webhooks.get(&id);
        let is_replaying = told.is_some_and(|told| told.replays.is_active());
        let idle = self.idle_through(id);
        if idle.is_none() || is_replaying {
            self.begin(webhook, idle_through.or(idle), host, world);
        }
    }

    /// How far everything has ended, if nothing is pending.
    pub(crate) fn idle_through(&self, id: WebhookId) -> Option<Sequence> {
        let classified = self.core.classified().position.sequence;
        (self.commits.pending(id) == 0).then_some(classified)
    }

    pub(crate) fn begin(
        &mut self,
        webhook: &Arc<Webhook>,
        idle_through: Option<Sequence>,
        host: &mut Host,
        world: &mut World,
    ) {
        let id = webhook.id;
        if self.counting.contains(&id) || self.children.contains_key(&id) {
            return;
        }
        let (Some(rules), Some(history)) = (self.rules(webhook, world), self.core.history(id))
        else {
            return;
        };
        match rules.status {
            Status::Enabled | Status::PendingVerification => {}
            Status::Disabled | Status::Deactivated | Status::Quarantined => return,
        }
        let history = history.clone();
        let start = history.start().unwrap_or_default().previous();
        let told = self.commits.pushed_state(id);
        let mut state = told.unwrap_or_else(|| WebhookState {
            resolved: start,
            ..WebhookState::default()
        });
        if world.settings.plants(Plant::ReplayFromTheStart) {
            for active in &mut state.replays.active {
                active.settled = Sequence(0);
                active.attempted.clear();
            }
        }
        let core = Deliveries::new(Beginning {
            webhook: id,
            generation: 1,
            rules,
            state,
            idle_through,
            hold_ends_until: self.hold_ends_until,
            bounds: world.settings.bounds,
        });
        self.incarnations += 1;
        let mut child = Child::new(Arc::clone(webhook), history, core, self.incarnations);
        child.start(self, host, world);
        self.children.insert(id, child);
        self.lagging.insert(id);
    }

    pub(super) fn rules(&self, webhook: &Webhook, world: &World) -> Option<Rules> {
        let history = self.core.history(webhook.id)?;
        let mut policy = webhook.definition.policy.clone();
        if world.settings.plants(Plant::LaneCheckOff) {
            policy.ordering = shared::domain::policy::Ordering::None;
        }
        Some(Rules {
            policy,
            dialect: webhook.definition.dialect,
            status: history.status()?,
            lifts: false,
        })
    }

    pub(super) fn configure(&mut self, webhook: &Arc<Webhook>, host: &mut Host, world: &mut World) {
        self.hear_decisions();
        let configured = self.core.configure(webhook);
        for mut entry in configured.entries {
            let mut back = None;
            if let JournalEntry::ConfigApplied {
                from, back_through, ..
            } = &mut entry
            {
                back = back_through.map(|through| (from.sequence, through));
                if world.settings.plants(Plant::PositionFromApi) && back.is_none() {
                    // Where EVENTS ended when somebody asked.
                    from.sequence = Sequence(world.events.last() + 1);
                }
            }
            self.push(entry, host, world);
            if let Some((from, through)) = back {
                self.count_back(webhook.id, from, through, host, world);
            }
        }
        match configured.ends {
            Some(end @ UnsentEnd::Skipped(SkipReason::Deleted)) => {
                self.delete(webhook, end, host, world);
            }
            Some(end) => {
                self.commits.owe_end(webhook.id, end);
                self.update(webhook, host, world);
            }
            None => {
                self.wake(webhook, None, host, world);
                self.update(webhook, host, world);
            }
        }
    }

    pub(super) fn delete(
        &mut self,
        webhook: &Webhook,
        end: UnsentEnd,
        host: &mut Host,
        world: &mut World,
    ) {
        let id = webhook.id;
        let entry = JournalEntry::PendingEnded {
            webhook: id,
            through: Sequence(0),
            end,
            count: 0,
            kept: Vec::new(),
        };
        self.push(entry, host, world);
        self.lagging.remove(&id);
        self.counting.remove(&id);
        self.waiting.remove(&id);
        self.children.remove(&id);
        self.core.remove(webhook.project, id);
    }

    pub(super) fn update(&mut self, webhook: &Arc<Webhook>, host: &mut Host, world: &mut World) {
        let id = webhook.id;
        let owed = self.commits.owed(id);
        let (Some(rules), Some(history)) = (self.rules(webhook, world), self.core.history(id))
        else {
            self.lagging.remove(&id);
            return;
        };
        let message = Message::Update {
            webhook: Arc::clone(webhook),
            history: history.clone(),
            rules,
            owed,
            known: self.core.classified().position.sequence,
        };
        let told = match self.send(id, message, host, world) {
            Some(told) => told && owed.is_none(),
            None if owed.is_some() => self.end_without_actor(id, host, world),
            None => true,
        };
        if told {
            self.lagging.remove(&id);
        } else {
            self.lagging.insert(id);
        }
    }

    pub(super) fn end_without_actor(
        &mut self,
        webhook: WebhookId,
        host: &mut Host,
        world: &mut World,
    ) -> bool {
        if self.now(host, world) < self.hold_ends_until {
            return false;
        }
        if let Some(owed) = self.commits.owed(webhook) {
            let entry = JournalEntry::PendingEnded {
                webhook,
                through: owed.through,
                end: owed.end,
                count: 0,
                kept: Vec::new(),
            };
            self.push(entry, host, world);
        }
        true
    }
}
