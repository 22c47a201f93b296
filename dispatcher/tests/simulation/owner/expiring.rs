//! What the owner does about what EVENTS is about to drop: looks how old it is, and counts one
//! webhook after the other.

use std::collections::VecDeque;

use dispatcher::core::commits::Expiry;
use dispatcher::core::partition::owed;
use shared::ids::{Sequence, WebhookId};

use super::{Owner, SCAN_RETRY_MS, read};
use crate::replica::{Host, OwnerWake, Wake};
use crate::settings::Plant;
use crate::world::World;

/// Looks while an event ages from nothing to its end.
const LOOKS: i64 = 40;

#[derive(Default)]
pub(crate) struct Expiring {
    waiting: VecDeque<WebhookId>,
    through: Sequence,
    is_counting: bool,
}

impl Owner {
    /// Looks at it now and again after a while.
    pub(super) fn consider_expiry(&mut self, host: &mut Host, world: &mut World) {
        let Some(age_max) = world.settings.age_max_ms else {
            return;
        };
        if world.settings.plants(Plant::NothingExpires) {
            return;
        }
        let again = Wake::Owner(self.epoch, OwnerWake::LookAtAges);
        world.wake(host.index, age_max / LOOKS, again);
        if self.expiring.waiting.is_empty() {
            let horizon = Sequence(world.events.horizon(world.now));
            self.expiring.waiting = self.commits.expirable(horizon).into();
            self.expiring.through = horizon;
        }
        self.begin_count(host, world);
    }

    fn begin_count(&mut self, host: &mut Host, world: &mut World) {
        if self.expiring.is_counting {
            return;
        }
        if let Some(id) = self.expiring.waiting.pop_front() {
            self.expiring.is_counting = true;
            let first = Sequence(world.events.first());
            self.commits
                .begin_expiring(id, self.expiring.through, first);
            self.go_on_counting(id, 0, host, world);
        }
    }

    fn go_on_counting(&self, id: WebhookId, from: i64, host: &Host, world: &mut World) {
        let in_ms = from + world.chance.within(1, 40);
        let wake = Wake::Owner(self.epoch, OwnerWake::CountExpiring(id));
        world.wake(host.index, in_ms, wake);
    }

    pub(super) fn count_expiring(&mut self, id: WebhookId, host: &mut Host, world: &mut World) {
        let webhook = world.registry.webhook(id, host.registry_seen).cloned();
        match (self.commits.expiry(id), webhook) {
            (Expiry::Read { after, through }, Some(webhook)) => {
                let asked = (after, through);
                let Some(stretch) = read(world, asked, Some(webhook.project)) else {
                    self.go_on_counting(id, SCAN_RETRY_MS, host, world);
                    return;
                };
                if let Some(history) = self.core.history(id) {
                    let events = stretch.events.iter();
                    let matches: Vec<_> = events
                        .filter_map(|(sequence, event)| owed(history, *sequence, event))
                        .collect();
                    self.commits.read_expiring(id, &matches, stretch.through);
                }
                self.go_on_counting(id, 0, host, world);
                return;
            }
            (Expiry::Check, Some(_)) => {
                let is_held = self.now(host, world) < self.hold_ends_until;
                if is_held && self.commits.expiring(id) > 0 {
                    self.go_on_counting(id, SCAN_RETRY_MS, host, world);
                    return;
                }
                let first = Sequence(world.events.first());
                self.commits.counted_expiring(id, first);
            }
            (Expiry::Off | Expiry::Read { .. } | Expiry::Check, _) => {}
        }
        self.expiring.is_counting = false;
        self.begin_count(host, world);
    }
}
