//! What all actors of a replica share: handles, budgets, and whether the replica is draining.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shared::http_client::GuardedClient;
use shared::ids::Sequence;
use shared::nats::Nats;
use shared::nats::membership::Membership;
use shared::nats::registry_view::RegistryView;
use shared::time::Clock;
use tokio::sync::Semaphore;

use super::lease::LeaseView;
use crate::applied::Applied;
use crate::metrics::DispatcherMetrics;

/// Attempts under way in the whole replica, shared fairly: each socket costs memory and a file
/// descriptor.
const ATTEMPTS_MAX: usize = 512;
/// Attempts that have just been started. More of them at once only wait for this thread, and take
/// more connections and memory meanwhile. What an endpoint takes longer than [`FRESH`] for counts
/// as [`ATTEMPTS_MAX`] alone, so that distant endpoints are not held to this number.
pub(crate) const FRESH_ATTEMPTS_MAX: usize = 128;
/// Several times what an endpoint nearby takes under load.
pub(crate) const FRESH: Duration = Duration::from_millis(20);
/// Bodies kept from the tail for their first attempt; what does not fit is read again.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Backlogs that are read at once.
pub(crate) const BACKLOG_READS_MAX: usize = 8;

pub(crate) struct Replica {
    pub nats: Nats,
    pub view: RegistryView,
    pub clock: Arc<dyn Clock>,
    pub client: GuardedClient,
    pub metrics: DispatcherMetrics,
    pub applied: Arc<Applied>,
    pub membership: Membership,
    pub lease: LeaseView,
    pub slots: Slots,
    /// Turns of attempts that have just been started; in the order in which they were asked for.
    pub fresh_turns: Semaphore,
    pub bodies: BodyBudget,
    /// Reads of backlogs under way: each holds a consumer and up to 8 MiB.
    pub backlog_turns: Semaphore,
    /// Recounts of pending deliveries under way: each reads EVENTS like a backlog does.
    pub recount_turn: Semaphore,
    /// Journal entries of a partition after which a snapshot is stored.
    pub snapshot_entries: u64,
    /// One snapshot is encoded and stored at a time.
    pub snapshot_turn: Semaphore,
    /// Packs that wait for their acknowledgement.
    pub packs: PacksUnderWay,
    /// Everything in EVENTS at or below is about to be dropped by age (rule 21).
    pub horizon: Cell<Sequence>,
    /// No attempt starts any more.
    pub draining: Cell<bool>,
    /// The wall clock is too far off JetStream's (rule 22).
    pub clock_is_off: Arc<AtomicBool>,
    /// Whether all partitions are owned and delivered.
    pub ready: Arc<AtomicBool>,
}

/// Attempts under way, and among how many webhooks they are shared.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    attempts: Cell<usize>,
    webhooks: Cell<usize>,
}

impl Slots {
    pub(crate) fn attempts(&self) -> usize {
        self.attempts.get()
    }

    /// How many attempts a webhook with `own` under way may add. A webhook always gets one, so
    /// that endpoints which hold on to theirs cost the others their surplus and no more.
    pub(crate) fn allowance(&self, own: usize) -> usize {
        let sharing = self.webhooks.get() + usize::from(own == 0);
        (ATTEMPTS_MAX / sharing.max(1)).max(1).saturating_sub(own)
    }

    /// A webhook's count of attempts went from `before` to `after`.
    pub(crate) fn moved(&self, before: usize, after: usize) {
        self.attempts
            .set((self.attempts.get() + after).saturating_sub(before));
        let webhooks = self.webhooks.get();
        match (before, after) {
            (0, 1..) => self.webhooks.set(webhooks + 1),
            (1.., 0) => self.webhooks.set(webhooks.saturating_sub(1)),
            _ => {}
        }
    }
}

/// Bytes of event bodies held for their first attempt. What several webhooks hold is one body, and
/// counts once.
#[derive(Debug, Default)]
pub(crate) struct BodyBudget {
    held: Cell<usize>,
    holders: RefCell<HashMap<Sequence, usize>>,
}

impl BodyBudget {
    /// Takes the body of the event at `sequence` for one more webhook, if it fits.
    pub(crate) fn take(&self, sequence: Sequence, bytes: usize) -> bool {
        let mut holders = self.holders.borrow_mut();
        if let Some(holders) = holders.get_mut(&sequence) {
            *holders += 1;
            return true;
        }
        let held = self.held.get() + bytes;
        if held > BODY_BYTES_MAX {
            return false;
        }
        self.held.set(held);
        holders.insert(sequence, 1);
        true
    }

    /// One webhook less holds what it took.
    pub(crate) fn give_back(&self, sequence: Sequence, bytes: usize) {
        let mut holders = self.holders.borrow_mut();
        match holders.get_mut(&sequence) {
            Some(others) if *others > 1 => *others -= 1,
            Some(_) | None => {
                holders.remove(&sequence);
                self.held.set(self.held.get().saturating_sub(bytes));
            }
        }
    }
}

/// How many packs are under way in all partitions.
#[derive(Debug, Default)]
pub(crate) struct PacksUnderWay(Rc<Cell<usize>>);

/// One pack, for as long as it is held.
#[derive(Debug)]
pub(crate) struct PackUnderWay(Rc<Cell<usize>>);

impl PacksUnderWay {
    pub(crate) fn count(&self) -> usize {
        self.0.get()
    }

    pub(crate) fn begin(&self) -> PackUnderWay {
        self.0.set(self.0.get() + 1);
        PackUnderWay(Rc::clone(&self.0))
    }
}

impl Drop for PackUnderWay {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_shared_fairly_and_never_refused_whole() {
        let slots = Slots::default();
        assert_eq!(slots.allowance(0), ATTEMPTS_MAX);
        slots.moved(0, ATTEMPTS_MAX);
        assert_eq!(slots.allowance(ATTEMPTS_MAX), 0);
        // A second webhook gets its half although the first one holds everything.
        assert_eq!(slots.allowance(0), ATTEMPTS_MAX / 2);
        for _ in 0..2 * ATTEMPTS_MAX {
            slots.moved(0, 1);
        }
        assert_eq!(slots.allowance(0), 1);
        slots.moved(ATTEMPTS_MAX, 0);
        assert_eq!(slots.attempts(), 2 * ATTEMPTS_MAX);
    }

    #[test]
    fn bodies_are_held_within_the_budget() {
        let bodies = BodyBudget::default();
        let [first, second] = [Sequence(1), Sequence(2)];
        assert!(bodies.take(first, BODY_BYTES_MAX));
        assert!(!bodies.take(second, 1));
        bodies.give_back(first, BODY_BYTES_MAX);
        assert!(bodies.take(second, 1));
    }

    #[test]
    fn a_body_that_several_webhooks_hold_counts_once() {
        let bodies = BodyBudget::default();
        let [first, second] = [Sequence(1), Sequence(2)];
        for _ in 0..3 {
            assert!(bodies.take(first, BODY_BYTES_MAX));
        }
        for _ in 0..2 {
            bodies.give_back(first, BODY_BYTES_MAX);
            assert!(!bodies.take(second, 1));
        }
        bodies.give_back(first, BODY_BYTES_MAX);
        assert!(bodies.take(second, BODY_BYTES_MAX));
        assert_eq!(bodies.holders.borrow().len(), 1);
    }

    #[test]
    fn packs_are_under_way_for_as_long_as_they_are_held() {
        let packs = PacksUnderWay::default();
        let (first, second) = (packs.begin(), packs.begin());
        assert_eq!(packs.count(), 2);
        drop((first, second));
        assert_eq!(packs.count(), 0);
    }
}
