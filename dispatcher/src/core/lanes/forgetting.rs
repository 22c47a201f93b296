//! What lanes forget, and how they come to know it again.

use shared::domain::policy::Ordering;
use shared::ids::{LaneHash, Sequence};

use super::{Lanes, Pending, Unremembered};

impl Lanes {
    /// From where the lane does not remember all, if it does not.
    pub fn unremembered_from(&self, lane: LaneHash) -> Option<Sequence> {
        self.unremembered
            .get(&lane)
            .map(|unremembered| unremembered.from)
    }

    /// Lanes that do not remember all, and from where, ascending.
    pub fn all_unremembered(&self) -> impl Iterator<Item = (Sequence, LaneHash)> {
        self.unremembered_from.iter().copied()
    }

    /// The journal tells that something of the lane may be pending from `from` on.
    pub fn restore_unremembered(&mut self, lane: LaneHash, from: Sequence) {
        self.forget_from(lane, from);
    }

    /// Nothing at or below is pending any more, except what is under way. The stream was taken
    /// through `read`.
    pub fn forget_through(&mut self, through: Sequence, read: Sequence) {
        let ended: Vec<Sequence> = self
            .pending
            .range(..=through)
            .map(|(sequence, _)| *sequence)
            .filter(|sequence| !self.is_under_way(*sequence))
            .collect();
        for sequence in ended {
            self.remove(sequence);
        }
        let forgotten: Vec<LaneHash> = self
            .unremembered_from
            .range(..=(through, LaneHash(u64::MAX)))
            .map(|(_, lane)| *lane)
            .collect();
        for lane in forgotten {
            // What lies above was forgotten too, as far as it was taken.
            self.set_unremembered(lane, (through < read).then(|| through.next()));
        }
    }

    /// Forgets all but the first few that were never tried, when nothing is to be sent for a
    /// while. Gives the first that is forgotten: the stream is to be read from there again.
    pub fn narrow(&mut self, is_narrow: bool) -> Option<Sequence> {
        self.is_narrow = is_narrow;
        if !is_narrow || self.window_len() <= self.window() {
            return None;
        }
        let may_go = |sequence: &Sequence, pending: &Pending| {
            pending.attempts == 0 && *sequence > self.kept_through && !self.is_under_way(*sequence)
        };
        let untried: Vec<Sequence> = self
            .pending
            .iter()
            .filter(|(sequence, pending)| may_go(sequence, pending))
            .map(|(sequence, _)| *sequence)
            .skip(self.window())
            .collect();
        let cut = *untried.first()?;
        for sequence in untried {
            self.remove(sequence);
        }
        let beyond: Vec<LaneHash> = self
            .unremembered_from
            .range((cut, LaneHash(0))..)
            .map(|(_, lane)| *lane)
            .collect();
        for lane in beyond {
            self.set_unremembered(lane, None);
        }
        Some(cut)
    }

    /// Begins to read again what lanes have forgotten and will need soon: everything after the
    /// sequence that is returned, through `through`, how far the stream was taken.
    pub fn begin_reading_again(&mut self, through: Sequence) -> Option<Sequence> {
        let &(from, lane) = self.starving.first()?;
        // With the window full, only for a lane that could not go on without.
        if self.window_len() >= self.window() && self.can_go_on(lane) {
            return None;
        }
        for (_, lane) in std::mem::take(&mut self.starving) {
            if let Some(unremembered) = self.unremembered.get_mut(&lane) {
                unremembered.reading_to = Some(through);
                unremembered.then = None;
            }
        }
        Some(from.previous())
    }

    /// What was read again, ascending; `None` when the read failed. `through` is how far it got.
    pub fn finish_reading_again(
        &mut self,
        read: Option<(impl Iterator<Item = (Sequence, Pending)>, Sequence)>,
    ) {
        let through = read.as_ref().map(|(_, through)| *through);
        for (sequence, pending) in read.into_iter().flat_map(|(read, _)| read) {
            self.take_again(sequence, pending);
        }
        let reading: Vec<(LaneHash, Unremembered)> = self
            .unremembered
            .iter()
            .filter(|(_, unremembered)| unremembered.reading_to.is_some())
            .map(|(lane, unremembered)| (*lane, *unremembered))
            .collect();
        for (lane, unremembered) in reading {
            let from = match (through, unremembered.reading_to) {
                (Some(through), Some(reading_to)) if through >= reading_to => unremembered.then,
                (Some(through), _) => Some(unremembered.from.max(through.next())),
                (None, _) => Some(unremembered.from),
            };
            self.set_unremembered(lane, from);
        }
    }

    /// One delivery that was read again, if its lane takes part in the read.
    pub(super) fn take_again(&mut self, sequence: Sequence, pending: Pending) {
        let takes_part = self
            .unremembered
            .get(&pending.lane)
            .is_some_and(|lane| lane.reading_to.is_some() && lane.from <= sequence);
        if !takes_part || self.contains(sequence) {
            return;
        }
        let key = self.key(sequence, pending.lane);
        let members = self.members.get(&key);
        let is_head = match self.ordering {
            Ordering::PerRecord | Ordering::Strict => {
                members.is_none_or(|members| members.first() > Some(&sequence))
            }
            // Each is a lane of its own; one is enough to go on.
            Ordering::None => self.pending.is_empty(),
        };
        let lane_has_room = self.ordering != Ordering::PerRecord
            || members.is_none_or(|members| members.len() < self.bounds.lane);
        let has_room = lane_has_room && self.window_len() < self.window();
        if is_head || has_room {
            self.remember(sequence, pending);
        } else {
            self.set_unremembered(pending.lane, Some(sequence));
        }
    }

    /// Forgets what lies behind the head of a waiting lane, beyond a few. What was attempted
    /// before is kept, since its count is nowhere else.
    pub(super) fn trim(&mut self, key: u64, lane: LaneHash) {
        let Some(members) = self.members.get(&key) else {
            return;
        };
        let was_tried = |sequence: &Sequence| {
            self.pending
                .get(sequence)
                .is_some_and(|pending| pending.attempts > 0)
        };
        let forgotten: Vec<Sequence> = members
            .iter()
            .skip(1 + self.bounds.parked_lane)
            .filter(|sequence| **sequence > self.kept_through && !was_tried(sequence))
            .copied()
            .collect();
        for sequence in &forgotten {
            self.drop_member(key, *sequence);
        }
        if let Some(first) = forgotten.first() {
            self.forget_from(lane, *first);
        }
    }

    /// From `sequence` on, the lane no longer remembers all. A read under way does not cover it.
    pub(super) fn forget_from(&mut self, lane: LaneHash, sequence: Sequence) {
        let from = match self.unremembered.get(&lane) {
            Some(unremembered) => unremembered.from.min(sequence),
            None => sequence,
        };
        self.set_unremembered(lane, Some(from));
    }

    pub(super) fn set_unremembered(&mut self, lane: LaneHash, from: Option<Sequence>) {
        if let Some(old) = self.unremembered.remove(&lane) {
            self.unremembered_from.remove(&(old.from, lane));
            self.starving.remove(&(old.from, lane));
        }
        if let Some(from) = from {
            self.unremembered_from.insert((from, lane));
            self.unremembered.insert(
                lane,
                Unremembered {
                    from,
                    reading_to: None,
                    then: None,
                },
            );
        }
        // What was beyond the mark may now be the head's turn.
        let key = match self.ordering {
            Ordering::PerRecord => Some(lane.0),
            Ordering::Strict => Some(0),
            Ordering::None => None,
        };
        if let Some(key) = key
            && let Some(head) = self.head(key)
        {
            self.unlist(head);
            self.list(key, head);
        }
        self.review(lane);
    }

    /// Notes whether the lane should read again what it has forgotten.
    pub(super) fn review(&mut self, lane: LaneHash) {
        let Some(unremembered) = self.unremembered.get(&lane).copied() else {
            return;
        };
        let is_needed = unremembered.reading_to.is_none()
            && match self.ordering {
                Ordering::PerRecord => {
                    let few = self
                        .members
                        .get(&lane.0)
                        .is_none_or(|members| members.len() <= self.bounds.lane / 4);
                    !self.is_parked(lane.0) && (few || !self.can_go_on(lane))
                }
                Ordering::Strict | Ordering::None => true,
            };
        if is_needed {
            self.starving.insert((unremembered.from, lane));
        } else {
            self.starving.remove(&(unremembered.from, lane));
        }
    }
}
