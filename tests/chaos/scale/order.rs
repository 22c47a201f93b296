//! Whether what was published arrived: all of it, and each key's events in their order.

use std::collections::HashMap;

use shared::ids::EventId;
use support::receiver::recorder::Record;

/// What was published to a project with one webhook, in order.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Key, and number among the events of that key.
    places: HashMap<EventId, (usize, usize)>,
    /// How many events each key has.
    counts: HashMap<usize, usize>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    /// Never answered with success.
    pub(super) lost: usize,
    /// First arrived before one that was published earlier with the same key.
    pub(super) out_of_order: usize,
    /// Arrived again after a success.
    pub(super) repeated: usize,
}

impl Published {
    pub(super) fn add(&mut self, key: usize, event: EventId) {
        let count = self.counts.entry(key).or_default();
        self.places.insert(event, (key, *count));
        *count += 1;
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn arrived(&self, record: &Record) -> Arrived {
        let mut arrived = Arrived::default();
        let mut next: HashMap<usize, usize> = HashMap::new();
        let mut succeeded: HashMap<EventId, bool> = HashMap::new();
        for request in &record.requests {
            let Some(event) = request.event else {
                continue;
            };
            let Some((key, number)) = self.places.get(&event) else {
                continue;
            };
            match succeeded.get_mut(&event) {
                Some(true) => arrived.repeated += 1,
                Some(once) => *once = request.succeeded(),
                None => {
                    let next = next.entry(*key).or_default();
                    arrived.out_of_order += usize::from(*number != *next);
                    *next = (number + 1).max(*next);
                    succeeded.insert(event, request.succeeded());
                }
            }
        }
        let taken = succeeded.values().filter(|once| **once).count();
        arrived.lost = self.places.len() - taken;
        arrived
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use support::receiver::recorder::{AnsweredAt, Recorded};

    fn id(number: u8) -> EventId {
        EventId::from_bytes([number; 16])
    }

    #[test]
    fn what_is_lost_out_of_order_or_repeated_is_counted() {
        let mut published = Published::default();
        for (key, number) in [(1, 1), (1, 2), (2, 3), (1, 4)] {
            published.add(key, id(number));
        }
        let check = |requests: &[(u8, u16)], expected: (usize, usize, usize)| {
            let requests = requests.iter().map(|(event, status)| Recorded {
                path: 0,
                event: Some(id(*event)),
                body: 0,
                at_us: 0,
                answered: Some(AnsweredAt {
                    status: *status,
                    at_us: 0,
                    completed: true,
                }),
            });
            let record = Record {
                requests: requests.collect(),
                ..Record::default()
            };
            let arrived = published.arrived(&record);
            let found = (arrived.lost, arrived.out_of_order, arrived.repeated);
            assert_eq!(found, expected);
        };
        check(&[(3, 204), (1, 204), (2, 204), (4, 204)], (0, 0, 0));
        check(
            &[(1, 500), (1, 204), (2, 204), (4, 204), (3, 500)],
            (1, 0, 0),
        );
        check(
            &[(1, 204), (4, 204), (2, 204), (3, 204), (3, 204)],
            (0, 2, 1),
        );
    }
}
