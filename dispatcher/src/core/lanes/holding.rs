//! Lanes that somebody else has an attempt in: no delivery of theirs starts meanwhile.

use shared::ids::{LaneHash, Sequence};

use super::Lanes;

impl Lanes {
    /// Whether an attempt may start in the delivery's lane that is none of the lane's own.
    pub fn is_free(&self, sequence: Sequence, lane: LaneHash) -> bool {
        !self.is_taken(self.key(sequence, lane))
    }

    /// Takes the lane for an attempt that is none of its own; `false` when it is not free.
    pub fn hold(&mut self, sequence: Sequence, lane: LaneHash) -> bool {
        let key = self.key(sequence, lane);
        if self.is_taken(key) {
            return false;
        }
        if let Some(head) = self.head(key) {
            self.unlist(head);
        }
        self.held.insert(key);
        self.review(lane);
        true
    }

    /// That attempt has ended.
    pub fn let_go(&mut self, sequence: Sequence, lane: LaneHash) {
        let key = self.key(sequence, lane);
        self.held.remove(&key);
        if let Some(head) = self.head(key) {
            self.list(key, head);
        }
        self.review(lane);
    }

    pub(super) fn is_taken(&self, key: u64) -> bool {
        self.in_flight.contains_key(&key) || self.held.contains(&key)
    }
}
