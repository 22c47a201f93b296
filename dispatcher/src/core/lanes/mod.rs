//! Lanes: the pending deliveries of one webhook that share an ordering key. The lowest of a lane
//! is its head; only heads are attempted, one at a time, and a head that waits for its retry
//! holds up its own lane alone.
//!
//! A lane remembers a bounded number of its deliveries. Beyond, it remembers from where it does
//! not know them all, and reads them again from the stream when their turn comes near. So a
//! record that fails for days costs a few entries, however much lies behind it, and takes no
//! place in the window that the other lanes share.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use shared::domain::policy::Ordering;
use shared::ids::{EventId, EventTypeHash, LaneHash, Sequence};
use shared::limits::{
    LANE_MAX, NARROW_WINDOW_MAX, PARKED_LANE_MAX, PARKED_LANES_MAX, SETTLE_AFTER_ENDS, WINDOW_MAX,
};
use shared::time::Timestamp;

mod forgetting;
mod holding;

/// What is known of a pending delivery. The body is not: it lies in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    pub event: EventId,
    pub event_type: EventTypeHash,
    pub lane: LaneHash,
    /// Failed attempts so far.
    pub attempts: u32,
    /// When the next attempt is due, after a failed one.
    pub retry_at: Option<Timestamp>,
}

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Deliveries of lanes that do not wait for a retry, all together.
    pub window: usize,
    /// The same while nothing is sent: what a dead endpoint is probed with.
    pub narrow_window: usize,
    /// Deliveries of one such lane.
    pub lane: usize,
    /// Deliveries of a lane whose head waits for its retry.
    pub parked_lane: usize,
    /// Lanes whose heads wait for a retry.
    pub parked_lanes: usize,
    /// Ends after which the journal is told how far everything has ended.
    pub settle_after: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            window: WINDOW_MAX,
            narrow_window: NARROW_WINDOW_MAX,
            lane: LANE_MAX,
            parked_lane: PARKED_LANE_MAX,
            parked_lanes: PARKED_LANES_MAX,
            settle_after: SETTLE_AFTER_ENDS,
        }
    }
}

/// What became of a delivery that was shown to the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is remembered, or its lane knows that it must read it again.
    Yes,
    /// There is no room: the webhook stops here and reads on later.
    NoRoom,
}

/// From where a lane does not remember all that is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unremembered {
    from: Sequence,
    /// What lies up to here is being read; what comes after is remembered while there is room.
    reading_to: Option<Sequence>,
    /// The first after `reading_to` that was not remembered.
    then: Option<Sequence>,
}

/// All lanes of a webhook.
#[derive(Clone, Debug)]
pub struct Lanes {
    bounds: Bounds,
    ordering: Ordering,
    pending: BTreeMap<Sequence, Pending>,
    /// Members of each lane, ascending; no lane is empty.
    members: HashMap<u64, BTreeSet<Sequence>>,
    /// Heads that may be attempted now, lowest first.
    ready: BTreeSet<Sequence>,
    /// Heads that wait for their retry, earliest first.
    parked: BTreeSet<(Timestamp, Sequence)>,
    /// Deliveries in the lanes of `parked`: they take no place in the window.
    parked_members: usize,
    /// Lanes with an attempt under way, and of which delivery. It need not be the head: a lower
    /// one may have been read since.
    in_flight: HashMap<u64, Sequence>,
    /// Lanes with an attempt under way that is none of their deliveries': a replay's.
    held: HashSet<u64>,
    /// By record, whatever the ordering.
    unremembered: HashMap<LaneHash, Unremembered>,
    /// The same, lowest first.
    unremembered_from: BTreeSet<(Sequence, LaneHash)>,
    /// Of these, those whose turn is near.
    starving: BTreeSet<(Sequence, LaneHash)>,
    /// Nothing is sent at present: a few heads are enough.
    is_narrow: bool,
    /// Up to here a later delivery of a lane may have ended before an earlier one, under another
    /// ordering. To forget the earlier one would bring the later one back.
    kept_through: Sequence,
}

impl Lanes {
    pub fn new(ordering: Ordering, bounds: Bounds) -> Self {
        Self {
            bounds,
            ordering,
            pending: BTreeMap::new(),
            members: HashMap::new(),
            ready: BTreeSet::new(),
            parked: BTreeSet::new(),
            parked_members: 0,
            in_flight: HashMap::new(),
            held: HashSet::new(),
            unremembered: HashMap::new(),
            unremembered_from: BTreeSet::new(),
            starving: BTreeSet::new(),
            is_narrow: false,
            kept_through: Sequence(0),
        }
    }

    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    pub fn ordering(&self) -> Ordering {
        self.ordering
    }

    /// Deliveries that take a place in the window.
    pub fn window_len(&self) -> usize {
        self.pending.len().saturating_sub(self.parked_members)
    }

    /// Whether reading on is worth a read: half of the window is free.
    pub fn has_room_to_read(&self) -> bool {
        self.window_len() <= self.window() / 2 && self.parked.len() < self.bounds.parked_lanes
    }

    fn window(&self) -> usize {
        if self.is_narrow {
            self.bounds.narrow_window
        } else {
            self.bounds.window
        }
    }

    /// Attempts under way, a replay's included.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len() + self.held.len()
    }

    pub fn contains(&self, sequence: Sequence) -> bool {
        self.pending.contains_key(&sequence)
    }

    pub fn get(&self, sequence: Sequence) -> Option<&Pending> {
        self.pending.get(&sequence)
    }

    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether nothing is pending, remembered or not.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.unremembered.is_empty()
    }

    /// Everything remembered, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Sequence, &Pending)> {
        self.pending
            .iter()
            .map(|(sequence, pending)| (*sequence, pending))
    }

    /// What has an attempt under way.
    pub fn under_way(&self) -> impl Iterator<Item = (Sequence, &Pending)> {
        self.in_flight
            .values()
            .filter_map(|sequence| Some((*sequence, self.pending.get(sequence)?)))
    }

    pub fn is_under_way(&self, sequence: Sequence) -> bool {
        self.pending.get(&sequence).is_some_and(|pending| {
            self.in_flight.get(&self.key(sequence, pending.lane)) == Some(&sequence)
        })
    }

    pub fn has_ready(&self, now: Timestamp) -> bool {
        !self.ready.is_empty() || self.next_due().is_some_and(|due| due <= now)
    }

    /// When the earliest waiting head is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.parked.first().map(|(due, _)| *due)
    }

    /// Whether the record's lane will read this delivery again.
    pub fn reads_again(&self, sequence: Sequence, lane: LaneHash) -> bool {
        self.unremembered
            .get(&lane)
            .is_some_and(|unremembered| unremembered.from <= sequence)
    }

    /// Remembers a delivery that JOURNAL tells of, whatever the bounds.
    pub fn restore(&mut self, sequence: Sequence, pending: Pending) {
        self.remember(sequence, pending);
    }

    /// Nothing that is remembered at or below is forgotten again, because ends may lie between.
    pub fn keep_through(&mut self, sequence: Sequence) {
        self.kept_through = self.kept_through.max(sequence);
    }

    /// Takes the next delivery of the stream. Sequences rise from call to call.
    pub fn admit(&mut self, sequence: Sequence, pending: Pending) -> Admitted {
        let key = self.key(sequence, pending.lane);
        let remembered = self.members.get(&key).map_or(0, BTreeSet::len);
        let is_parked = self.is_parked(key);
        let lane_is_full = self.ordering == Ordering::PerRecord
            && if is_parked {
                // The head takes no place behind itself.
                remembered > self.bounds.parked_lane
            } else {
                remembered >= self.bounds.lane
            };
        let has_room = is_parked
            || (self.window_len() < self.window() && self.parked.len() < self.bounds.parked_lanes);
        if let Some(unremembered) = self.unremembered.get_mut(&pending.lane) {
            if unremembered.reading_to.is_some() && unremembered.then.is_none() {
                if lane_is_full || !has_room {
                    unremembered.then = Some(sequence);
                } else {
                    self.remember(sequence, pending);
                }
            }
            return Admitted::Yes;
        }
        if lane_is_full {
            self.forget_from(pending.lane, sequence);
        } else if has_room {
            self.remember(sequence, pending);
        } else {
            return Admitted::NoRoom;
        }
        Admitted::Yes
    }

    /// Takes the next head to attempt: due retries before new ones unless told otherwise, then
    /// the lowest.
    pub fn start_next(&mut self, now: Timestamp, prefers_new: bool) -> Option<(Sequence, Pending)> {
        let due = self.parked.first().filter(|(due, _)| *due <= now);
        let (due, new) = (
            due.map(|(_, sequence)| *sequence),
            self.ready.first().copied(),
        );
        let sequence = if prefers_new {
            new.or(due)
        } else {
            due.or(new)
        }?;
        self.start(sequence)
    }

    /// Takes the lowest head above `last`, due or not, else the lowest of all.
    pub fn start_after(&mut self, last: Sequence) -> Option<(Sequence, Pending)> {
        let heads = || {
            let parked = self.parked.iter().map(|(_, sequence)| *sequence);
            self.ready.iter().copied().chain(parked)
        };
        let next = heads().filter(|head| *head > last).min();
        let sequence = next.or_else(|| heads().min())?;
        self.start(sequence)
    }

    fn start(&mut self, sequence: Sequence) -> Option<(Sequence, Pending)> {
        let pending = *self.pending.get(&sequence)?;
        self.unlist(sequence);
        self.in_flight
            .insert(self.key(sequence, pending.lane), sequence);
        self.review(pending.lane);
        Some((sequence, pending))
    }

    /// The attempt came to nothing that counts; the delivery stands where it stood.
    pub fn put_back(&mut self, sequence: Sequence) {
        if let Some(pending) = self.pending.get(&sequence) {
            let lane = pending.lane;
            let key = self.key(sequence, lane);
            self.free(key, sequence);
            self.review(lane);
        }
    }

    /// The attempt failed; the delivery waits until `retry_at`, and its lane forgets most of what
    /// lies behind it.
    pub fn park(&mut self, sequence: Sequence, attempts: u32, retry_at: Timestamp) {
        let Some(pending) = self.pending.get_mut(&sequence) else {
            return;
        };
        pending.attempts = attempts;
        pending.retry_at = Some(retry_at);
        let lane = pending.lane;
        let key = self.key(sequence, lane);
        self.free(key, sequence);
        if self.ordering == Ordering::PerRecord && self.is_parked(key) {
            self.trim(key, lane);
        }
        self.review(lane);
    }

    /// The delivery ended; the next of its lane becomes the head.
    pub fn remove(&mut self, sequence: Sequence) -> Option<Pending> {
        let pending = *self.pending.get(&sequence)?;
        let key = self.key(sequence, pending.lane);
        self.drop_member(key, sequence);
        self.free(key, sequence);
        self.review(pending.lane);
        Some(pending)
    }

    /// Sorts everything remembered into lanes anew. Only while nothing is in flight: an attempt
    /// under the old order must not run beside its successor under the new one.
    pub fn reorder(&mut self, ordering: Ordering) {
        debug_assert!(self.in_flight() == 0, "reordered with attempts in flight");
        self.ordering = ordering;
        self.members.clear();
        self.ready.clear();
        self.parked.clear();
        self.parked_members = 0;
        for (sequence, pending) in std::mem::take(&mut self.pending) {
            self.remember(sequence, pending);
        }
        let lanes: Vec<LaneHash> = self.unremembered.keys().copied().collect();
        lanes.into_iter().for_each(|lane| self.review(lane));
    }

    fn remember(&mut self, sequence: Sequence, pending: Pending) {
        if self.pending.contains_key(&sequence) {
            return;
        }
        let key = self.key(sequence, pending.lane);
        let previous_head = self.head(key);
        if let Some(head) = previous_head.filter(|head| sequence < *head) {
            self.unlist(head);
        }
        if self.is_parked(key) {
            self.parked_members += 1;
        }
        self.pending.insert(sequence, pending);
        self.members.entry(key).or_default().insert(sequence);
        if previous_head.is_none_or(|head| sequence < head) {
            self.list(key, sequence);
        }
    }

    fn drop_member(&mut self, key: u64, sequence: Sequence) {
        if self.head(key) == Some(sequence) {
            self.unlist(sequence);
        } else if self.is_parked(key) {
            self.parked_members = self.parked_members.saturating_sub(1);
        }
        self.pending.remove(&sequence);
        if let Some(members) = self.members.get_mut(&key) {
            members.remove(&sequence);
            if members.is_empty() {
                self.members.remove(&key);
            }
        }
    }

    /// Whether the record's lane has something to do without reading again.
    fn can_go_on(&self, lane: LaneHash) -> bool {
        let key = match self.ordering {
            Ordering::PerRecord => lane.0,
            Ordering::Strict => 0,
            Ordering::None => return !self.pending.is_empty(),
        };
        self.is_taken(key)
            || self
                .head(key)
                .is_some_and(|head| self.is_known_lowest(key, head))
    }

    /// Whether nothing that is forgotten comes before the head.
    fn is_known_lowest(&self, key: u64, head: Sequence) -> bool {
        match self.ordering {
            Ordering::PerRecord => self
                .unremembered
                .get(&LaneHash(key))
                .is_none_or(|unremembered| head < unremembered.from),
            Ordering::Strict => self
                .unremembered_from
                .first()
                .is_none_or(|(from, _)| head < *from),
            Ordering::None => true,
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

    fn is_parked(&self, key: u64) -> bool {
        self.head(key).is_some_and(|head| {
            self.due(head)
                .is_some_and(|due| self.parked.contains(&(due, head)))
        })
    }

    fn due(&self, sequence: Sequence) -> Option<Timestamp> {
        self.pending.get(&sequence)?.retry_at
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

    /// Lists a head as ready or waiting, unless its lane has an attempt under way or has
    /// forgotten what comes before it.
    fn list(&mut self, key: u64, head: Sequence) {
        if self.is_taken(key) || !self.is_known_lowest(key, head) {
            return;
        }
        match self.due(head) {
            Some(due) => {
                if self.parked.insert((due, head)) {
                    self.parked_members += self.members.get(&key).map_or(0, BTreeSet::len);
                }
            }
            None => {
                self.ready.insert(head);
            }
        }
    }

    fn unlist(&mut self, head: Sequence) {
        self.ready.remove(&head);
        let Some(pending) = self.pending.get(&head) else {
            return;
        };
        if let Some(due) = pending.retry_at
            && self.parked.remove(&(due, head))
        {
            let key = self.key(head, pending.lane);
            let members = self.members.get(&key).map_or(0, BTreeSet::len);
            self.parked_members = self.parked_members.saturating_sub(members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn lanes(ordering: Ordering, members: &[(u64, u64)]) -> Lanes {
        let mut lanes = Lanes::new(ordering, Bounds::default());
        for (sequence, lane) in members {
            let pending = Pending {
                event: EventId::from_bytes([0; 16]),
                event_type: EventTypeHash(0),
                lane: LaneHash(*lane),
                attempts: 0,
                retry_at: None,
            };
            lanes.restore(Sequence(*sequence), pending);
        }
        lanes
    }

    fn start_all(lanes: &mut Lanes, now: Timestamp) -> Vec<u64> {
        std::iter::from_fn(|| lanes.start_next(now, false))
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
        lanes.restore(Sequence(4), *lanes.get(Sequence(2)).unwrap());
        let fresh = Pending {
            lane: LaneHash(10),
            ..*lanes.get(Sequence(2)).unwrap()
        };
        lanes.restore(Sequence(5), fresh);
        assert_eq!(start_all(&mut lanes, due), [1, 5]);
        lanes.remove(Sequence(1));
        assert_eq!(start_all(&mut lanes, due), [2]);
    }

    #[test]
    fn a_lower_one_that_comes_in_late_waits_for_the_attempt_under_way() {
        let mut lanes = lanes(Ordering::Strict, &[(5, 1)]);
        assert_eq!(start_all(&mut lanes, NOW), [5]);
        lanes.restore(Sequence(3), *lanes.get(Sequence(5)).unwrap());
        assert_eq!(start_all(&mut lanes, NOW), [0_u64; 0]);
        lanes.park(Sequence(5), 1, NOW);
        assert_eq!(start_all(&mut lanes, NOW), [3]);
        lanes.remove(Sequence(3));
        assert_eq!(start_all(&mut lanes, NOW), [5]);
    }
}
