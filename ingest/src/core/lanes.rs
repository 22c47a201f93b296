//! In which order the events of one request or callback are stored (`protocol.md`, rule 2).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use shared::ids::{EventId, LaneHash};

/// What is stored after what. Numbers are places in the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The events of a lane are stored one after another, in input order; lanes are independent.
    pub(crate) lanes: Vec<Vec<usize>>,
    /// For each event the place of the first one with its id, which alone is stored.
    pub(crate) stored_as: Vec<usize>,
}

/// Groups by lane, and collapses equal ids to their first.
pub(crate) fn plan(events: impl IntoIterator<Item = (EventId, LaneHash)>) -> Plan {
    let mut plan = Plan {
        lanes: Vec::new(),
        stored_as: Vec::new(),
    };
    let mut first_by_id = HashMap::new();
    let mut members_by_lane: HashMap<LaneHash, Vec<usize>> = HashMap::new();
    let mut lanes_in_order = Vec::new();
    for (place, (id, lane)) in events.into_iter().enumerate() {
        let first = *first_by_id.entry(id).or_insert(place);
        plan.stored_as.push(first);
        if first != place {
            continue;
        }
        match members_by_lane.entry(lane) {
            Entry::Occupied(mut members) => members.get_mut().push(place),
            Entry::Vacant(vacant) => {
                vacant.insert(vec![place]);
                lanes_in_order.push(lane);
            }
        }
    }
    plan.lanes = lanes_in_order
        .into_iter()
        .filter_map(|lane| members_by_lane.remove(&lane))
        .collect();
    plan
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(id: u8, lane: u64) -> (EventId, LaneHash) {
        (EventId::from_bytes([id; 16]), LaneHash(lane))
    }

    #[test]
    fn lanes_keep_input_order_and_repeats_are_stored_once() {
        let plan = plan([key(1, 10), key(2, 20), key(3, 10), key(1, 10), key(4, 20)]);
        assert_eq!(plan.lanes, [vec![0, 2], vec![1, 4]]);
        assert_eq!(plan.stored_as, [0, 1, 2, 0, 4]);
    }

    proptest! {
        #[test]
        fn every_event_is_stored_exactly_once_in_the_order_of_its_lane(
            ids in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            // An id stands for a whole tuple, so equal ids are always of one lane.
            let keys: Vec<_> = ids.iter().map(|id| key(*id, u64::from(*id % 7))).collect();
            let plan = plan(keys.iter().copied());
            let mut stored: Vec<usize> = plan.lanes.concat();
            for lane in &plan.lanes {
                prop_assert!(lane.is_sorted());
                prop_assert!(lane.iter().all(|place| keys[*place].1 == keys[lane[0]].1));
            }
            stored.sort_unstable();
            let mut expected: Vec<usize> = plan.stored_as.clone();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(stored, expected);
            for (place, first) in plan.stored_as.iter().enumerate() {
                prop_assert!(*first <= place && keys[*first] == keys[place]);
            }
        }
    }
}
