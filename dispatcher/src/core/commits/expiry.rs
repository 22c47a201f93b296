//! What a webhook has pending in events that EVENTS is about to drop by age, counted so that it
//! ends with an entry before it is dropped (`protocol.md`, rule 21).
//!
//! A webhook remembers positions, not deliveries, so that the number is found by reading. The
//! state says of every delivery whether it has ended, and what ends while the count is under way
//! comes by here; so the number is right at every moment, whatever the webhook's actor remembers,
//! and whether it has one.
//!
//! Where EVENTS has already dropped something that may be pending, nobody can count that. Then
//! what comes after it is counted, and the rest of all that is pending is what ends.

use shared::domain::journal::{ExhaustReason, UnsentEnd};
use shared::domain::state::WebhookState;
use shared::ids::{Sequence, WebhookId};

use super::{Commits, Owed};
use crate::core::delivery::Match;

/// How what is pending at the end of its time ends.
pub const EXPIRED: UnsentEnd = UnsentEnd::Exhausted(ExhaustReason::Expired);

/// A count of what is pending at or below `through`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiring {
    through: Sequence,
    way: Way,
    /// All that is to be read lies in here, the first excluded; what lies at or below `read` was.
    after: Sequence,
    read: Sequence,
    last: Sequence,
    /// So far; all once it is `complete`.
    count: u64,
    complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// What is pending through `through` is added up.
    Up,
    /// What is pending after it is taken off from all that was pending when the count began.
    Down,
}

/// What a count needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// All matches in (after, through], as far as one read goes, for [`Commits::read_expiring`].
    Read { after: Sequence, through: Sequence },
    /// Everything is read: [`Commits::counted_expiring`].
    Check,
    /// Nothing is counted, or not any more.
    Off,
}

impl Expiring {
    fn is_covered(&self, sequence: Sequence) -> bool {
        let is_read = self.after < sequence && sequence <= self.read;
        match self.way {
            Way::Up => is_read,
            // Everything that was pending at the beginning is in the count until it is taken off.
            Way::Down => {
                sequence <= self.through || (self.read < sequence && sequence <= self.last)
            }
        }
    }

    /// A delivery that was pending has ended.
    pub(super) fn ended(&mut self, sequence: Sequence) {
        if self.is_covered(sequence) {
            self.count = self.count.saturating_sub(1);
        }
    }

    fn take(&mut self, state: &WebhookState, matches: &[Match], through: Sequence) {
        for owed in matches {
            let is_due = self.read < owed.sequence && owed.sequence <= self.last;
            if !is_due || owed.skipped.is_some() || state.has_ended(owed.sequence, owed.lane) {
                continue;
            }
            self.count = match self.way {
                Way::Up => self.count.saturating_add(1),
                Way::Down => self.count.saturating_sub(1),
            };
        }
        self.read = self.read.max(through).min(self.last);
    }

    pub(super) fn owed(&self) -> Option<Owed> {
        self.complete.then_some(Owed {
            through: self.through,
            end: EXPIRED,
            accepted_since: 0,
        })
    }
}

impl Commits {
    /// Webhooks of which something may be pending at or below `through` that was not told its end
    /// yet: what was under way then ends by itself.
    pub fn expirable(&self, through: Sequence) -> Vec<WebhookId> {
        let through = through.min(self.classified.position.sequence);
        let may_expire = |id: &WebhookId| {
            let told = self.state.webhooks.get(id);
            told.is_some_and(|told| told.uncounted.is_none() && told.first_pending() <= through)
                && self.expired.get(id).is_none_or(|told| *told < through)
                && !self.expiring.contains_key(id)
        };
        let mut due: Vec<_> = self.pending.keys().copied().filter(may_expire).collect();
        // The same state asks for the same, in the same order.
        due.sort_unstable();
        due
    }

    /// Begins to count what the webhook has pending at or below `through`. `first` is the first
    /// sequence that EVENTS still has. What is not classified yet may still be accepted, and waits
    /// for another count.
    pub fn begin_expiring(&mut self, webhook: WebhookId, through: Sequence, first: Sequence) {
        let classified = self.classified.position.sequence;
        let through = through.min(classified);
        let known = self.pushed_state(webhook);
        let Some(state) = known.filter(|state| state.uncounted.is_none()) else {
            return;
        };
        let first_pending = state.first_pending();
        if first_pending > through || self.expiring.contains_key(&webhook) {
            return;
        }
        let (way, after, last, count) = if first <= first_pending {
            (Way::Up, first_pending.previous(), through, 0)
        } else {
            (Way::Down, through, classified, self.pending(webhook))
        };
        let expiring = Expiring {
            through,
            way,
            after,
            read: after,
            last,
            count,
            complete: false,
        };
        self.expiring.insert(webhook, expiring);
    }

    pub fn expiry(&self, webhook: WebhookId) -> Expiry {
        match self.expiring.get(&webhook) {
            Some(expiring) if expiring.complete => Expiry::Off,
            Some(expiring) if expiring.read < expiring.last => Expiry::Read {
                after: expiring.read,
                through: expiring.last,
            },
            Some(_) => Expiry::Check,
            None => Expiry::Off,
        }
    }

    /// What was read for the count, all matches through `through`.
    pub fn read_expiring(&mut self, webhook: WebhookId, matches: &[Match], through: Sequence) {
        let state = self.pushed_state(webhook);
        if let (Some(state), Some(expiring)) = (state, self.expiring.get_mut(&webhook)) {
            expiring.take(&state, matches, through);
        }
    }

    /// What the count has come to so far; 0 if nothing is counted.
    pub fn expiring(&self, webhook: WebhookId) -> u64 {
        self.expiring
            .get(&webhook)
            .map_or(0, |expiring| expiring.count)
    }

    /// Ends the count. What it comes to is owed from now on, unless EVENTS, which now begins at
    /// `first`, dropped some of it while it was read: then nothing is known, and it is counted anew.
    pub fn counted_expiring(&mut self, webhook: WebhookId, first: Sequence) {
        let Some(expiring) = self.expiring.get_mut(&webhook) else {
            return;
        };
        if first > expiring.after.next() {
            self.expiring.remove(&webhook);
        } else {
            // Of none too: the webhook need not read what has been dropped.
            expiring.complete = true;
        }
    }

    /// How many end now, through `through` and with what is under way; `None` if nobody counted.
    pub(super) fn take_expired(&mut self, webhook: WebhookId, through: Sequence) -> Option<u64> {
        let counted = self.expiring.get(&webhook).copied()?;
        if !counted.complete || counted.through != through {
            return None;
        }
        self.expiring.remove(&webhook);
        self.expired.insert(webhook, through);
        Some(counted.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::commits::Classified;
    use shared::domain::journal::JournalEntry;
    use shared::domain::state::PartitionState;
    use shared::ids::{Epoch, Position};
    use shared::time::Timestamp;

    const WEBHOOK: WebhookId = WebhookId::from_bytes([1; 16]);
    const AT: Timestamp = Timestamp::from_millis(1_000);

    /// Classified through 9, of which three are pending.
    fn commits() -> Commits {
        let mut state = PartitionState::default();
        let mut known = WebhookState::default();
        known.ledger.accepted = 3;
        state.webhooks.insert(WEBHOOK, known);
        let position = Position {
            generation: 1,
            sequence: Sequence(9),
        };
        let classified = Classified {
            position,
            checkpoint: None,
        };
        Commits::new(Epoch(1), classified, state)
    }

    /// Counted through 5, with what nobody finds there.
    fn told_of_none(commits: &mut Commits) {
        commits.begin_expiring(WEBHOOK, Sequence(5), Sequence(1));
        commits.read_expiring(WEBHOOK, &[], Sequence(5));
        commits.counted_expiring(WEBHOOK, Sequence(1));
        commits.push(
            AT,
            JournalEntry::PendingEnded {
                webhook: WEBHOOK,
                through: Sequence(5),
                end: EXPIRED,
                count: 0,
                kept: Vec::new(),
            },
        );
    }

    #[test]
    fn a_count_that_is_given_up_is_made_again() {
        let mut commits = commits();
        assert_eq!(commits.expirable(Sequence(5)), [WEBHOOK]);
        commits.begin_expiring(WEBHOOK, Sequence(5), Sequence(1));
        assert_eq!(commits.expirable(Sequence(5)), [], "it is under way");
        commits.read_expiring(WEBHOOK, &[], Sequence(5));
        commits.counted_expiring(WEBHOOK, Sequence(3));
        assert_eq!(commits.owed(WEBHOOK), None);
        assert_eq!(commits.expirable(Sequence(5)), [WEBHOOK]);
    }

    #[test]
    fn an_end_that_was_told_is_not_told_again_before_more_is_due() {
        let mut commits = commits();
        told_of_none(&mut commits);
        // Not stored yet, so that the state does not say so.
        assert_eq!(commits.expirable(Sequence(5)), []);
        assert_eq!(commits.expirable(Sequence(6)), [WEBHOOK]);
    }

    #[test]
    fn what_a_webhook_comes_to_owe_below_the_horizon_is_counted_too() {
        let mut commits = commits();
        told_of_none(&mut commits);
        commits.push(
            AT,
            JournalEntry::CountedBack {
                webhook: WEBHOOK,
                accepted: 2,
                skipped: Vec::new(),
            },
        );
        assert_eq!(commits.expirable(Sequence(5)), [WEBHOOK]);
    }
}
