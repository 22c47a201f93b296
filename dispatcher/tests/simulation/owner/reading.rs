//! What the owner takes of EVENTS: from the tail, by scans of what the tail left out, and by
//! counting what a creation reaches back to.

use std::collections::{BTreeMap, BTreeSet};

use dispatcher::core::classify::Class;
use dispatcher::core::partition::Stretch;
use shared::domain::journal::JournalEntry;
use shared::ids::{Sequence, WebhookId};

use super::{Counting, Owner, SCAN_RETRY_MS, read};
use crate::child::Message;
use crate::replica::{Host, OwnerWake, Wake};
use crate::world::World;

impl Owner {
    pub(crate) fn take(&mut self, stretch: &Stretch, host: &mut Host, world: &mut World) {
        if self.is_halted {
            return;
        }
        self.known = self.known.max(stretch.through);
        self.hear_decisions();
        match self.core.take(stretch) {
            Ok(taken) => {
                let asleep: BTreeSet<WebhookId> = taken
                    .offers
                    .keys()
                    .filter(|id| !self.children.contains_key(id) && self.commits.pending(**id) == 0)
                    .copied()
                    .collect();
                self.commits.count(self.core.classified(), &taken.counted);
                for (id, (offer, _events)) in taken.offers {
                    if !self.children.contains_key(&id)
                        && let Some(webhook) =
                            world.registry.webhook(id, host.registry_seen).cloned()
                    {
                        let idle_through = asleep.contains(&id).then_some(offer.after);
                        self.wake(&webhook, idle_through, host, world);
                    }
                    let registry_sequence = self.core.history(id).and_then(|held| held.latest());
                    let message = Message::Offered {
                        offer,
                        registry_sequence,
                    };
                    if self.send(id, message, host, world) == Some(false) {
                        self.lagging.insert(id);
                    }
                }
            }
            Err(_) => self.scan(self.known, host, world),
        }
        self.after(host, world);
    }

    pub(super) fn scan(&mut self, known: Sequence, host: &mut Host, world: &mut World) {
        self.known = self.known.max(known);
        if self.scanning || self.core.classified().position.sequence >= self.known {
            return;
        }
        self.scanning = true;
        let in_ms = world.chance.within(1, 40);
        let wake = OwnerWake::Scan(self.known);
        world.wake(host.index, in_ms, Wake::Owner(self.epoch, wake));
    }

    pub(super) fn scanned(&mut self, known: Sequence, host: &mut Host, world: &mut World) {
        self.known = self.known.max(known);
        self.scanning = false;
        let classified = self.core.classified().position.sequence;
        if classified < self.known {
            if let Some(stretch) = read(world, (classified, self.known), None) {
                self.take(&stretch, host, world);
            } else {
                self.scanning = true;
                let wake = OwnerWake::Scan(self.known);
                world.wake(host.index, SCAN_RETRY_MS, Wake::Owner(self.epoch, wake));
                return;
            }
        }
        self.scan(self.known, host, world);
    }

    pub(super) fn count_back(
        &mut self,
        id: WebhookId,
        from: Sequence,
        through: Sequence,
        host: &mut Host,
        world: &mut World,
    ) {
        if self.core.history(id).is_none() || !self.counting.insert(id) {
            return;
        }
        let counting = Counting {
            webhook: id,
            after: from.previous(),
            through,
            accepted: 0,
            skipped: BTreeMap::new(),
        };
        let in_ms = world.chance.within(1, 2_000);
        world.wake(
            host.index,
            in_ms,
            Wake::Owner(self.epoch, OwnerWake::Count(counting)),
        );
    }

    pub(super) fn counted(&mut self, mut counting: Counting, host: &mut Host, world: &mut World) {
        let id = counting.webhook;
        let Some(webhook) = world.registry.webhook(id, host.registry_seen).cloned() else {
            return;
        };
        if !self.counting.contains(&id) {
            return;
        }
        let Some(history) = self.core.history(id).cloned() else {
            return;
        };
        if counting.after < counting.through {
            let mut again = 20;
            let asked = (counting.after, counting.through);
            if let Some(stretch) = read(world, asked, Some(webhook.project)) {
                for (sequence, event) in &stretch.events {
                    match history.classify(*sequence, event) {
                        Class::NotWanted => {}
                        Class::Accepted => counting.accepted += 1,
                        Class::Skipped(reason) => {
                            *counting.skipped.entry(reason).or_default() += 1;
                        }
                    }
                }
                counting.after = stretch.through;
            } else {
                again = SCAN_RETRY_MS;
            }
            let wake = OwnerWake::Count(counting);
            world.wake(host.index, again, Wake::Owner(self.epoch, wake));
            return;
        }
        self.counting.remove(&id);
        let entry = JournalEntry::CountedBack {
            webhook: id,
            accepted: counting.accepted,
            skipped: counting.skipped.into_iter().collect(),
        };
        self.push(entry, host, world);
        self.owe_what_may_not_wait(id);
        self.wake(&webhook, None, host, world);
        self.update(&webhook, host, world);
    }
}
