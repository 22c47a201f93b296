//! A partition's way into JOURNAL, shared on its thread by the webhooks that push entries and
//! the committer that packs them. Entries are pushed directly, not sent: a mailbox may be full,
//! and an outcome must not get lost.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use actix::prelude::SendError;
use bytes::Bytes;
use shared::codec;
use shared::domain::journal::{Counted, JournalEntry, UnsentEnd};
use shared::ids::{Epoch, PartitionId, Sequence, WebhookId};
use shared::time::{Clock, Timestamp};

use super::journal::Entries;
use super::lease::LeaseView;
use crate::core::commits::{Classified, Commits, Decision, Told};
use crate::core::delivery::Match;
use crate::io::events::ReadError;

pub(crate) struct PartitionLog {
    pub partition: PartitionId,
    commits: RefCell<Commits>,
    clock: Arc<dyn Clock>,
    /// The latest `now`, and the clock's `elapsed` at it.
    now: Cell<(Timestamp, Duration)>,
    /// Webhooks to be told when attempts may start again.
    waiting: RefCell<Vec<Recipient<GateOpened>>>,
    committer: RefCell<Option<Recipient<Entries>>>,
    deposed: Cell<bool>,
    /// Attempts of this partition under way.
    attempts: Cell<usize>,
    lease: LeaseView,
    /// The lease's term in which the last stored append was made.
    proven: Cell<u64>,
    /// The term in which the pack under way was made, if the lease was live then.
    made_in: Cell<Option<u64>>,
    /// The partition is about to be released: nothing starts.
    closing: Cell<bool>,
    /// EVENTS holds something of it that only a later release can read.
    unreadable: Cell<bool>,
    /// It is released: nothing more is said.
    released: Cell<bool>,
}

/// Attempts may start again.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct GateOpened;

/// A pack as it is to be appended.
#[derive(Debug)]
pub(crate) struct EncodedPack {
    pub epoch: Epoch,
    pub number: u64,
    pub entries: usize,
    pub bytes: Bytes,
}

impl PartitionLog {
    /// `proven`: the lease's term in which the partition's epoch entry was appended.
    pub(crate) fn new(
        partition: PartitionId,
        commits: Commits,
        clock: Arc<dyn Clock>,
        lease: LeaseView,
        proven: u64,
    ) -> Rc<Self> {
        let now = commits.state().now.max(clock.now());
        Rc::new(Self {
            partition,
            commits: RefCell::new(commits),
            now: Cell::new((now, clock.elapsed())),
            clock,
            waiting: RefCell::default(),
            committer: RefCell::default(),
            deposed: Cell::new(false),
            attempts: Cell::new(0),
            lease,
            proven: Cell::new(proven),
            made_in: Cell::new(None),
            closing: Cell::new(false),
            unreadable: Cell::new(false),
            released: Cell::new(false),
        })
    }

    pub(crate) fn set_committer(&self, committer: Recipient<Entries>) {
        self.committer.replace(Some(committer));
    }

    /// Looks at entries on their way and at the state of those that arrived.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&Commits) -> R) -> R {
        look(&self.commits.borrow())
    }

    /// A webhook's attempts under way went from `before` to `after`.
    pub(crate) fn attempts_moved(&self, before: usize, after: usize) {
        let attempts = (self.attempts.get() + after).saturating_sub(before);
        self.attempts.set(attempts);
    }

    pub(crate) fn attempts(&self) -> usize {
        self.attempts.get()
    }

    /// The partition's time: never goes back (rule 22), and goes on at the pace of the
    /// monotone clock while a wall clock that was ahead once has not caught up.
    pub(crate) fn now(&self) -> Timestamp {
        let (last, last_elapsed) = self.now.get();
        // First the wall clock: when the process is held up between the two, time lags until the
        // next reading, while the other way round it would stay ahead for good.
        let wall = self.clock.now();
        let elapsed = self.clock.elapsed();
        let passed = elapsed.saturating_sub(last_elapsed);
        // Whole milliseconds only; the rest counts next time.
        let passed_ms = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        let paced = last.plus_millis(passed_ms);
        if wall > paced {
            self.now.set((wall, elapsed));
            wall
        } else {
            let counted = Duration::from_millis(u64::try_from(passed_ms).unwrap_or(u64::MAX));
            self.now.set((paced, last_elapsed.saturating_add(counted)));
            paced
        }
    }

    /// Classification has got so far, and counted this.
    pub(crate) fn count(&self, classified: Classified, counted: &[Counted]) {
        self.commits.borrow_mut().count(classified, counted);
    }

    /// See [`Commits::owe_end`].
    pub(crate) fn owe_end(&self, webhook: WebhookId, end: UnsentEnd) {
        self.commits.borrow_mut().owe_end(webhook, end);
    }

    pub(crate) fn owes(&self, webhook: WebhookId) -> bool {
        self.look(|commits| commits.pending(webhook)) > 0
    }

    /// See [`Commits::begin_expiring`].
    pub(crate) fn begin_expiring(&self, webhook: WebhookId, through: Sequence, first: Sequence) {
        let mut commits = self.commits.borrow_mut();
        commits.begin_expiring(webhook, through, first);
    }

    pub(crate) fn read_expiring(&self, webhook: WebhookId, matches: &[Match], through: Sequence) {
        let mut commits = self.commits.borrow_mut();
        commits.read_expiring(webhook, matches, through);
    }

    pub(crate) fn counted_expiring(&self, webhook: WebhookId, first: Sequence) {
        self.commits.borrow_mut().counted_expiring(webhook, first);
    }

    pub(crate) fn take_decisions(&self) -> Vec<Decision> {
        self.commits.borrow_mut().take_decisions()
    }

    pub(crate) fn take_told(&self) -> Vec<Told> {
        self.commits.borrow_mut().take_told()
    }

    /// A pack is made soon, whether entries wait or not.
    pub(crate) fn flush(&self) {
        self.commits.borrow_mut().flush();
        self.wake_committer();
    }

    /// Adds an entry, and gives the ordinal that [`Self::stored`] reaches once it is committed.
    pub(crate) fn push(&self, entry: JournalEntry) -> u64 {
        if self.released.get() {
            return self.pushed();
        }
        let now = self.now();
        let ordinal = self.commits.borrow_mut().push(now, entry);
        self.wake_committer();
        ordinal
    }

    fn wake_committer(&self) {
        if let Some(committer) = &*self.committer.borrow() {
            // A full mailbox means that it is about to look anyway.
            let _full = committer.try_send(Entries).is_err();
        }
    }

    /// Ordinal of the last entry that was added.
    pub(crate) fn pushed(&self) -> u64 {
        self.commits.borrow().pushed()
    }

    pub(crate) fn stored(&self) -> u64 {
        self.commits.borrow().stored()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.commits.borrow().is_empty()
    }

    pub(crate) fn next_pack(&self) -> Option<EncodedPack> {
        let now = self.now();
        let mut commits = self.commits.borrow_mut();
        let pack = commits.next_pack(now)?;
        self.made_in.set(self.lease.live_term());
        Some(EncodedPack {
            epoch: pack.epoch,
            number: pack.number,
            entries: pack.entries.len(),
            bytes: codec::encode_pack(pack).into(),
        })
    }

    /// After a lapse of the lease, only an append that was made since shows that the partition
    /// is still this replica's (rule 5): sees to it that there is one.
    pub(crate) fn prove(&self) {
        let term = self.lease.live_term();
        if term.is_some() && term != Some(self.proven.get()) && term != self.made_in.get() {
            self.flush();
        }
    }

    /// The pack under way lies at `at`; those who waited for room are told.
    pub(crate) fn pack_stored(&self, at: Sequence) {
        self.commits.borrow_mut().pack_stored(at);
        if let Some(term) = self.made_in.take() {
            self.proven.set(term);
        }
        if self.gate_is_open(self.now()) {
            let mut waiting = self.waiting.take();
            // One whose mailbox is full is told with the next pack: the gate may be closed again
            // by the time it looks. One that has ended waits for nothing.
            waiting
                .retain(|webhook| matches!(webhook.try_send(GateOpened), Err(SendError::Full(_))));
            self.waiting.borrow_mut().append(&mut waiting);
        }
    }

    /// Whether attempts may start (rules 5 and 19).
    pub(crate) fn gate_is_open(&self, now: Timestamp) -> bool {
        self.is_ours() && !self.closing.get() && self.commits.borrow().gate_is_open(now)
    }

    /// Whether an attempt that has started may still be sent.
    pub(crate) fn is_ours(&self) -> bool {
        !self.deposed.get() && self.lease.live_term() == Some(self.proven.get())
    }

    /// No attempt starts any more.
    pub(crate) fn close(&self) {
        self.closing.set(true);
    }

    /// Says that the partition is given up, and then nothing more. Gives the ordinal of that.
    pub(crate) fn release(&self) -> u64 {
        let ordinal = self.push(JournalEntry::Released);
        self.released.set(true);
        ordinal
    }

    /// Lets the committer end.
    pub(crate) fn dismiss_committer(&self) {
        self.committer.replace(None);
    }

    /// Notes whether this replica cannot go on with the partition (rule 26).
    pub(crate) fn note(&self, error: &ReadError) {
        if matches!(error, ReadError::Later(..)) && !self.unreadable.replace(true) {
            tracing::error!(partition = %self.partition, %error, "the partition is given up");
        }
    }

    pub(crate) fn is_unreadable(&self) -> bool {
        self.unreadable.get()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    use shared::domain::membership::Roster;
    use shared::domain::state::PartitionState;
    use shared::ids::{Position, ReplicaId};
    use tokio::sync::watch;

    #[derive(Default)]
    struct TestClock(Mutex<(i64, u64)>);

    impl Clock for TestClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.lock().unwrap().0)
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0.lock().unwrap().1)
        }

        fn uptime(&self) -> Duration {
            self.elapsed()
        }
    }

    /// Right, but each reading of one of its times takes as long as is said.
    #[derive(Default)]
    struct HeldUpClock(Mutex<(i64, i64)>);

    impl HeldUpClock {
        fn read(&self) -> i64 {
            let mut times = self.0.lock().unwrap();
            let read = times.0;
            times.0 += times.1;
            read
        }
    }

    impl Clock for HeldUpClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.read())
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(u64::try_from(self.read()).unwrap())
        }

        fn uptime(&self) -> Duration {
            self.elapsed()
        }
    }

    /// With a journaled `now` of 500.
    fn log(clock: Arc<dyn Clock>) -> Rc<PartitionLog> {
        let classified = Classified {
            position: Position {
                generation: 1,
                sequence: Sequence(0),
            },
            checkpoint: None,
        };
        let state = PartitionState {
            now: Timestamp::from_millis(500),
            ..PartitionState::default()
        };
        let commits = Commits::new(Epoch(1), classified, state);
        let (_, roster) = watch::channel(Roster::new(ReplicaId::from_bytes([1; 16])));
        let lease = LeaseView::new(roster, Arc::clone(&clock));
        PartitionLog::new(PartitionId(0), commits, clock, lease, 0)
    }

    #[test]
    fn a_process_that_is_held_up_between_two_readings_does_not_come_ahead_of_time() {
        let clock = Arc::new(HeldUpClock::default());
        *clock.0.lock().unwrap() = (1_000, 0);
        let log = log(clock.clone());
        for held_up_ms in [0, 4_000, 0, 7, 0] {
            clock.0.lock().unwrap().1 = held_up_ms;
            let now = log.now().as_millis();
            assert!(
                now <= clock.0.lock().unwrap().0,
                "{now} after {held_up_ms} ms"
            );
        }
        let right = clock.0.lock().unwrap().0;
        assert_eq!(log.now().as_millis(), right);
    }

    #[test]
    fn a_wall_clock_that_jumps_neither_stops_time_nor_turns_it_back() {
        let clock = Arc::new(TestClock::default());
        let at = |wall: i64, elapsed: u64| *clock.0.lock().unwrap() = (wall, elapsed);
        at(1_000, 0);
        let log = log(clock.clone());
        let now = || log.now().as_millis();
        assert_eq!(now(), 1_000);
        // Two days ahead, once; then right again.
        at(172_801_000, 10);
        assert_eq!(now(), 172_801_000);
        at(1_020, 20);
        assert_eq!(now(), 172_801_010);
        at(6_020, 5_020);
        assert_eq!(now(), 172_806_010);
        // The wall clock has caught up.
        at(172_900_000, 6_000);
        assert_eq!(now(), 172_900_000);
    }
}
