//! A partition's webhook actors: which are awake, and when one that ended by a panic may begin
//! again.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use actix::dev::ToEnvelope;
use actix::{Addr, Handler, Message};
use futures_util::future::join_all;
use shared::ids::WebhookId;
use shared::time::Timestamp;

use super::webhook::{Halt, Rested, WebhookActor};

/// Waits before an actor that panicked begins again: one, two, four seconds and so on.
const RESTART_FIRST_MS: i64 = 1_000;
/// Panics within [`PANICS_WITHIN_MS`] after which the webhook is quarantined.
const PANICS_MAX: u32 = 3;
const PANICS_WITHIN_MS: i64 = 10 * 60 * 1_000;

/// The actors of one partition.
#[derive(Default)]
pub(crate) struct Children {
    awake: HashMap<WebhookId, Child>,
    /// Of webhooks whose actor ended by a panic.
    fallen: HashMap<WebhookId, Fallen>,
    incarnations: u64,
}

struct Child {
    address: Addr<WebhookActor>,
    incarnation: u64,
    /// Messages sent to it.
    sent: u64,
    under_way: Rc<Cell<usize>>,
}

struct Fallen {
    panics: u32,
    first_at: Timestamp,
    may_start_at: Timestamp,
    /// Ordinal of the last entry that it can have pushed: what is not stored is not begun from.
    pushed: u64,
    /// Attempts of the last incarnation that have not ended: their lanes are taken.
    under_way: Rc<Cell<usize>>,
}

/// An actor ended by a panic.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Ended {
    pub webhook: WebhookId,
    pub incarnation: u64,
}

impl Children {
    pub(crate) fn is_awake(&self, webhook: WebhookId) -> bool {
        self.awake.contains_key(&webhook)
    }

    /// Whether attempts of an actor that ended are still under way.
    pub(crate) fn is_under_way(&self, webhook: WebhookId) -> bool {
        self.fallen
            .get(&webhook)
            .is_some_and(|fallen| fallen.under_way.get() > 0)
    }

    /// `stored`: ordinal of the last entry that is known stored.
    pub(crate) fn may_start(&self, webhook: WebhookId, now: Timestamp, stored: u64) -> bool {
        let is_due = |fallen: &Fallen| {
            fallen.may_start_at <= now && fallen.pushed <= stored && fallen.under_way.get() == 0
        };
        !self.is_awake(webhook) && self.fallen.get(&webhook).is_none_or(is_due)
    }

    /// Webhooks whose actor ended and may begin again. Old falls are forgotten.
    pub(crate) fn due(&mut self, now: Timestamp, stored: u64) -> Vec<WebhookId> {
        let awake = &self.awake;
        self.fallen.retain(|id, fallen| {
            !awake.contains_key(id) || now.millis_since(fallen.first_at) <= PANICS_WITHIN_MS
        });
        let fallen = self.fallen.keys().copied();
        fallen
            .filter(|id| self.may_start(*id, now, stored))
            .collect()
    }

    pub(crate) fn start(
        &mut self,
        webhook: WebhookId,
        start: impl FnOnce(u64, Rc<Cell<usize>>) -> Addr<WebhookActor>,
    ) {
        self.incarnations += 1;
        let under_way = Rc::new(Cell::new(0));
        let child = Child {
            address: start(self.incarnations, Rc::clone(&under_way)),
            incarnation: self.incarnations,
            sent: 0,
            under_way,
        };
        self.awake.insert(webhook, child);
    }

    /// Whether the message found room; `None` if the webhook has no actor.
    pub(crate) fn send<M>(&mut self, webhook: WebhookId, message: M) -> Option<bool>
    where
        M: Message<Result = ()> + Send + 'static,
        WebhookActor: Handler<M>,
        <WebhookActor as actix::Actor>::Context: ToEnvelope<WebhookActor, M>,
    {
        let child = self.awake.get_mut(&webhook)?;
        let is_taken = child.address.try_send(message).is_ok();
        child.sent += u64::from(is_taken);
        Some(is_taken)
    }

    /// What is under way ends without it.
    pub(crate) fn let_go(&mut self, webhook: WebhookId) {
        if let Some(child) = self.awake.remove(&webhook) {
            halt(&child.address);
        }
        self.fallen.remove(&webhook);
    }

    /// Lets an actor go that has nothing to do, unless something was sent to it meanwhile.
    pub(crate) fn rest(&mut self, rested: &Rested) {
        let is_current = self.awake.get(&rested.webhook).is_some_and(|child| {
            child.incarnation == rested.incarnation && child.sent == rested.received
        });
        if is_current && let Some(child) = self.awake.remove(&rested.webhook) {
            halt(&child.address);
        }
    }

    /// Ends all. Resolves once each has handled what had come by then.
    pub(crate) fn halt_all(&mut self) -> impl Future<Output = ()> + use<> {
        let children = std::mem::take(&mut self.awake);
        let halted: Vec<_> = children
            .into_values()
            .map(|child| child.address.send(Halt))
            .collect();
        async {
            // One that has ended by itself has nothing more to say.
            let _ended = join_all(halted).await;
        }
    }

    /// Ends all, without waiting for it.
    pub(crate) fn abandon(&mut self) {
        for child in self.awake.drain().map(|(_, child)| child) {
            halt(&child.address);
        }
    }

    /// Notes the panic; whether it was one too many.
    pub(crate) fn ended(&mut self, ended: &Ended, now: Timestamp, pushed: u64) -> bool {
        let is_current = self
            .awake
            .get(&ended.webhook)
            .is_some_and(|child| child.incarnation == ended.incarnation);
        if !is_current {
            return false;
        }
        let Some(child) = self.awake.remove(&ended.webhook) else {
            return false;
        };
        let before = self.fallen.remove(&ended.webhook);
        let recent = before.filter(|fallen| now.millis_since(fallen.first_at) <= PANICS_WITHIN_MS);
        let (panics, first_at) = recent.map_or((1, now), |fallen| {
            (fallen.panics.saturating_add(1), fallen.first_at)
        });
        let wait = RESTART_FIRST_MS << panics.saturating_sub(1).min(8);
        let fallen = Fallen {
            panics,
            first_at,
            may_start_at: now.plus_millis(wait),
            pushed,
            under_way: child.under_way,
        };
        self.fallen.insert(ended.webhook, fallen);
        panics >= PANICS_MAX
    }
}

/// Its timers would keep an actor that nobody has an address of.
fn halt(address: &Addr<WebhookActor>) {
    #[expect(clippy::disallowed_methods, reason = "an exit notice; one an actor")]
    address.do_send(Halt);
}
