//! Lanes: the pending deliveries of one webhook that share an ordering key. The lowest of a lane
//! is its head; only heads are attempted, one at a time, and a head that waits for its retry
//! holds up its own lane alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use shared::domain::policy::Ordering;
use shared::ids::{EventId, LaneHash, Sequence};
use shared::time::Timestamp;

/// What is known of a pending delivery. The body is not: it lies in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub event: EventId,
    pub lane: LaneHash,
    /// Failed attempts so far.
    pub attempts: u32,
    /// When the next attempt is due, after a failed one.
    pub retry_at: Option<Timestamp>,
}

/// All lanes of a webhook.
#[derive(Clone, Debug)]
pub struct Lanes {
    ordering: Ordering,
    pending: BTreeMap<Sequence, Pending>,
    /// Members of each lane, ascending; no lane is empty.
    members: HashMap<u64, BTreeSet<Sequence>>,
    /// Heads that may be attempted now, lowest first.
    ready: BTreeSet<Sequence>,
    /// Heads that wait for their retry, earliest first.
    parked: BTreeSet<(Timestamp, Sequence)>,
    /// Lanes with an attempt under way, and of which delivery. It need not be the head: a lower
    /// one may have been read since.
    in_flight: HashMap<u64, Sequence>,
}

impl Lanes {
    pub fn new(ordering: Ordering) -> Self {
        Self {
            ordering,
            pending: BTreeMap::new(),
            members: HashMap::new(),
            ready: BTreeSet::new(),
            parked: BTreeSet::new(),
            in_flight: HashMap::new(),
        }
    }

    pub fn ordering(&self) -> Ordering {
        self.ordering
    }

    /// Pending deliveries that are held here, those in flight included.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub fn contains(&self, sequence: Sequence) -> bool {
        self.pending.contains_key(&sequence)
    }

    pub fn get(&self, sequence: Sequence) -> Option<&Pending> {
        self.pending.get(&sequence)
    }

    pub fn has_ready(&self, now: Timestamp) -> bool {
        !self.ready.is_empty() || self.next_due().is_some_and(|due| due <= now)
    }

    /// When the earliest parked head is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.parked.first().map(|(due, _)| *due)
    }

    /// Adds a delivery; one that is already there stays as it is.
    pub fn insert(&mut self, sequence: Sequence, pending: Pending) {
        if self.pending.contains_key(&sequence) {
            return;
        }
        let key = self.key(sequence, pending.lane);
        let previous_head = self.head(key);
        self.pending.insert(sequence, pending);
        self.members.entry(key).or_default().insert(sequence);
        if previous_head.is_none_or(|head| sequence < head) {
            if let Some(head) = previous_head {
                self.unlist(head);
            }
            self.list(key, sequence);
        }
    }

    /// Takes the next head to attempt: due retries before new ones, then the lowest.
    pub fn start_next(&mut self, now: Timestamp) -> Option<(Sequence, Pending)> {
        let sequence = match self.parked.first() {
            Some(&(due, sequence)) if due <= now => {
                self.parked.pop_first();
                sequence
            }
            Some(_) | None => self.ready.pop_first()?,
        };
        let pending = *self.pending.get(&sequence)?;
        let key = self.key(sequence, pending.lane);
        self.in_flight.insert(key, sequence);
        Some((sequence, pending))
    }

    /// The attempt failed; the delivery waits until `retry_at`.
    pub fn park(&mut self, sequence: Sequence, attempts: u32, retry_at: Timestamp) {
        let Some(pending) = self.pending.get_mut(&sequence) else {
            return;
        };
        pending.attempts = attempts;
        pending.retry_at = Some(retry_at);
        let lane = pending.lane;
        self.free(self.key(sequence, lane), sequence);
    }

    /// The delivery ended; the next of its lane becomes the head.
    pub fn remove(&mut self, sequence: Sequence) -> Option<Pending> {
        let pending = *self.pending.get(&sequence)?;
        self.unlist(sequence);
        self.pending.remove(&sequence);
        let key = self.key(sequence, pending.lane);
        if let Some(members) = self.members.get_mut(&key) {
            members.remove(&sequence);
            if members.is_empty() {
                self.members.remove(&key);
            }
        }
        self.free(key, sequence);
        Some(pending)
    }

    /// Sorts everything pending into lanes anew. Only while nothing is in flight: an attempt
    /// under the old order must not run beside its successor under the new one.
    pub fn reorder(&mut self, ordering: Ordering) {
        debug_assert!(
            self.in_flight.is_empty(),
            "reordered with attempts in flight"
        );
        let pending = std::mem::take(&mut self.pending);
        *self = Self::new(ordering);
        for (sequence, pending) in pending {
            self.insert(sequence, pending);
        }
    }

    fn key(&self, sequence: Sequence, lane: LaneHash) -> u64 {
        match self.ordering {
            Ordering::PerRecord => lane.0,
            Ordering::Strict => 0,
            Ordering::None => sequence.0,
        }
    }

    fn head(&self, key: u64) -> Option<Sequence> {
        self.members.get(&key)?.first().copied()
    }

    /// The delivery is not under way any more; its lane's head may be.
    fn free(&mut self, key: u64, sequence: Sequence) {
        if self.in_flight.get(&key) == Some(&sequence) {
            self.in_flight.remove(&key);
        }
        if let Some(head) = self.head(key) {
            self.list(key, head);
        }
    }

    /// Lists a head as ready or parked, unless its lane has an attempt under way.
    fn list(&mut self, key: u64, head: Sequence) {
        if self.in_flight.contains_key(&key) {
            return;
        }
        match self.pending.get(&head).and_then(|pending| pending.retry_at) {
            Some(due) => self.parked.insert((due, head)),
            None => self.ready.insert(head),
        };
    }

    fn unlist(&mut self, head: Sequence) {
        self.ready.remove(&head);
        if let Some(due) = self.pending.get(&head).and_then(|pending| pending.retry_at) {
            self.parked.remove(&(due, head));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn lanes(ordering: Ordering, members: &[(u64, u64)]) -> Lanes {
        let mut lanes = Lanes::new(ordering);
        for (sequence, lane) in members {
            let pending = Pending {
                event: EventId::from_bytes([0; 16]),
                lane: LaneHash(*lane),
                attempts: 0,
                retry_at: None,
            };
            lanes.insert(Sequence(*sequence), pending);
        }
        lanes
    }

    fn start_all(lanes: &mut Lanes, now: Timestamp) -> Vec<u64> {
        std::iter::from_fn(|| lanes.start_next(now))
            .map(|(sequence, _)| sequence.0)
            .collect()
    }

    #[test]
    fn orderings_differ_in_what_may_go_at_once() {
        let members = [(1, 7), (2, 8), (3, 7), (4, 9)];
        for (ordering, expected) in [
            (Ordering::PerRecord, vec![1, 2, 4]),
            (Ordering::Strict, vec![1]),
            (Ordering::None, vec![1, 2, 3, 4]),
        ] {
            let mut lanes = lanes(ordering, &members);
            assert_eq!(start_all(&mut lanes, NOW), expected, "{ordering:?}");
            lanes.remove(Sequence(1));
            let next = match ordering {
                Ordering::PerRecord => vec![3],
                Ordering::Strict => vec![2],
                Ordering::None => vec![],
            };
            assert_eq!(start_all(&mut lanes, NOW), next, "{ordering:?}");
        }
    }

    #[test]
    fn a_parked_head_holds_up_its_own_lane_alone_and_goes_first_when_due() {
        let mut lanes = lanes(Ordering::PerRecord, &[(1, 7), (2, 7), (3, 8)]);
        assert_eq!(start_all(&mut lanes, NOW), [1, 3]);
        let due = NOW.plus_millis(500);
        lanes.park(Sequence(1), 1, due);
        lanes.remove(Sequence(3));
        assert_eq!(start_all(&mut lanes, NOW), [0_u64; 0]);
        assert_eq!(lanes.next_due(), Some(due));
        lanes.insert(Sequence(4), *lanes.get(Sequence(2)).unwrap());
        let fresh = Pending {
            lane: LaneHash(10),
            ..*lanes.get(Sequence(2)).unwrap()
        };
        lanes.insert(Sequence(5), fresh);
        assert_eq!(start_all(&mut lanes, due), [1, 5]);
        lanes.remove(Sequence(1));
        assert_eq!(start_all(&mut lanes, due), [2]);
    }

    #[test]
    fn a_lower_one_that_comes_in_late_waits_for_the_attempt_under_way() {
        let mut lanes = lanes(Ordering::Strict, &[(5, 1)]);
        assert_eq!(start_all(&mut lanes, NOW), [5]);
        lanes.insert(Sequence(3), *lanes.get(Sequence(5)).unwrap());
        assert_eq!(start_all(&mut lanes, NOW), [0_u64; 0]);
        lanes.park(Sequence(5), 1, NOW);
        assert_eq!(start_all(&mut lanes, NOW), [3]);
        lanes.remove(Sequence(3));
        assert_eq!(start_all(&mut lanes, NOW), [5]);
    }
}
