//! A partition's way into JOURNAL, shared on its thread by the webhooks that push entries and
//! the committer that packs them. Entries are pushed directly, not sent: a mailbox may be full,
//! and an outcome must not get lost.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use actix::Recipient;
use shared::domain::journal::{JournalEntry, Pack};
use shared::ids::{PartitionId, Sequence, WebhookId};
use shared::time::Timestamp;

use super::journal::Entries;
use crate::core::commits::{Classified, Commits};

pub(crate) struct PartitionLog {
    pub partition: PartitionId,
    commits: RefCell<Commits>,
    classified: Cell<Classified>,
    /// The latest time that anything here was told; `now` never goes back (rule 22).
    now: Cell<Timestamp>,
    /// Webhooks to be told when attempts may start again.
    waiting: RefCell<Vec<Recipient<GateOpened>>>,
    committer: RefCell<Option<Recipient<Entries>>>,
    deposed: Cell<bool>,
}

/// Attempts may start again.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct GateOpened;

impl PartitionLog {
    pub(crate) fn new(
        partition: PartitionId,
        commits: Commits,
        classified: Classified,
        now: Timestamp,
    ) -> Rc<Self> {
        Rc::new(Self {
            partition,
            commits: RefCell::new(commits),
            classified: Cell::new(classified),
            now: Cell::new(now),
            waiting: RefCell::default(),
            committer: RefCell::default(),
            deposed: Cell::new(false),
        })
    }

    pub(crate) fn set_committer(&self, committer: Recipient<Entries>) {
        self.committer.replace(Some(committer));
    }

    /// The partition's monotone time.
    pub(crate) fn now(&self, wall: Timestamp) -> Timestamp {
        let now = self.now.get().max(wall);
        self.now.set(now);
        now
    }

    pub(crate) fn set_classified(&self, classified: Classified) {
        self.classified.set(classified);
    }

    /// Adds an entry, and gives the ordinal that [`Self::stored`] reaches once it is committed.
    pub(crate) fn push(&self, now: Timestamp, entry: JournalEntry) -> u64 {
        let ordinal = self.commits.borrow_mut().push(now, entry);
        if let Some(committer) = &*self.committer.borrow() {
            // A full mailbox means that it is about to look anyway.
            let _full = committer.try_send(Entries).is_err();
        }
        ordinal
    }

    pub(crate) fn stored(&self) -> u64 {
        self.commits.borrow().stored()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.commits.borrow().is_empty()
    }

    pub(crate) fn forget(&self, webhook: WebhookId) {
        self.commits.borrow_mut().forget(webhook);
    }

    pub(crate) fn next_pack(&self, now: Timestamp) -> Option<Pack> {
        let classified = self.classified.get();
        self.commits.borrow_mut().next_pack(now, classified)
    }

    /// The pack under way lies at `at`; those who waited for room are told.
    pub(crate) fn pack_stored(&self, at: Sequence, now: Timestamp) {
        self.commits.borrow_mut().pack_stored(at);
        if self.commits.borrow().gate_is_open(now) {
            for waiting in self.waiting.take() {
                // A full mailbox means that it is about to look anyway.
                let _full = waiting.try_send(GateOpened).is_err();
            }
        }
    }

    /// Whether attempts may start (rule 19).
    pub(crate) fn gate_is_open(&self, now: Timestamp) -> bool {
        !self.deposed.get() && self.commits.borrow().gate_is_open(now)
    }

    pub(crate) fn wait_for_gate(&self, webhook: Recipient<GateOpened>) {
        self.waiting.borrow_mut().push(webhook);
    }

    /// Another replica owns the partition: nothing starts here any more.
    pub(crate) fn depose(&self) {
        self.deposed.set(true);
    }

    pub(crate) fn is_deposed(&self) -> bool {
        self.deposed.get()
    }
}
