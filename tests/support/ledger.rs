//! What was sent against what arrived: loss, order, duplicates.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::receiver::Delivery;

/// Events that were accepted, in order.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    by_record: BTreeMap<String, Vec<String>>,
    count: usize,
}

impl Ledger {
    /// An event that ingest answered success for. An id that it named before counts once.
    pub fn accepted(&mut self, record: &str, id: &str) {
        let ids = self.by_record.entry(record.to_owned()).or_default();
        if !ids.iter().any(|other| other == id) {
            ids.push(id.to_owned());
            self.count += 1;
        }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Ids of accepted events that the receiver has not answered with success.
    pub fn missing(&self, deliveries: &[Delivery]) -> Vec<String> {
        let arrived: HashSet<&str> = deliveries
            .iter()
            .filter(|delivery| delivery.succeeded())
            .map(Delivery::id)
            .collect();
        let accepted = self.by_record.values().flatten();
        accepted
            .filter(|id| !arrived.contains(id.as_str()))
            .cloned()
            .collect()
    }

    /// Records whose events did not come in their lane's order, each with what is wrong: first
    /// arrivals are in the order in which the events were accepted, and none comes before the one
    /// in front of it was answered with success. Repeats of an id are passed over; what was never
    /// accepted is not.
    pub fn order_violations(&self, deliveries: &[Delivery]) -> Vec<String> {
        let arrived = Arrived::of(deliveries);
        self.by_record
            .iter()
            .filter_map(|(record, accepted)| {
                let wrong = arrived.violation(record, accepted)?;
                Some(format!("{record}: accepted {accepted:?}: {wrong}"))
            })
            .collect()
    }
}

/// What of each id counts for its lane's order.
struct Arrived<'a> {
    /// Ids of a record by first arrival.
    by_record: HashMap<&'a str, Vec<&'a str>>,
    first_arrival: HashMap<&'a str, Duration>,
    first_success: HashMap<&'a str, Duration>,
}

impl<'a> Arrived<'a> {
    fn of(deliveries: &'a [Delivery]) -> Self {
        let mut arrived = Self {
            by_record: HashMap::new(),
            first_arrival: HashMap::new(),
            first_success: HashMap::new(),
        };
        for delivery in deliveries {
            let id = delivery.id();
            if !arrived.first_arrival.contains_key(id) {
                arrived.first_arrival.insert(id, delivery.at);
                let of_record = arrived.by_record.entry(delivery.record_id());
                of_record.or_default().push(id);
            }
            if let Some(answered) = delivery.answered.filter(|_| delivery.succeeded()) {
                let first = arrived.first_success.entry(id).or_insert(answered.at);
                *first = answered.at.min(*first);
            }
        }
        arrived
    }

    fn violation(&self, record: &str, accepted: &[String]) -> Option<String> {
        let order = self.by_record.get(record).map_or(&[][..], Vec::as_slice);
        if order.len() > accepted.len() || accepted.iter().zip(order).any(|(a, b)| a != b) {
            return Some(format!("arrived {order:?}"));
        }
        order
            .iter()
            .zip(order.iter().skip(1))
            .find_map(|(before, after)| {
                let done = self.first_success.get(before);
                let began = self.first_arrival.get(after);
                (done.is_none() || done > began).then(|| {
                    format!("{after} came at {began:?}, {before} had its success at {done:?}")
                })
            })
    }
}

/// Arrivals of an id after it had been answered with success.
pub fn repeats_after_success(deliveries: &[Delivery]) -> usize {
    let mut succeeded = HashSet::new();
    let mut repeats = 0;
    for delivery in deliveries {
        repeats += usize::from(succeeded.contains(delivery.id()));
        if delivery.succeeded() {
            succeeded.insert(delivery.id());
        }
    }
    repeats
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::{Answered, Verdict};

    /// The `place`-th second's request, answered half a second later.
    fn delivery(place: u32, (record, id, status): (&str, &str, u16)) -> Delivery {
        let at = Duration::from_secs(place.into());
        let answered = Answered {
            status,
            at: at + Duration::from_millis(500),
        };
        Delivery {
            at,
            path: "/".into(),
            headers: BTreeMap::from([("webhook-id".into(), id.into())]),
            body: Vec::new(),
            json: serde_json::json!({ "record_id": record }),
            answered: Some(answered),
            verdict: Verdict::Unknown,
        }
    }

    fn deliveries(arrivals: &[(&str, &str, u16)]) -> Vec<Delivery> {
        let numbered = (0..).zip(arrivals);
        numbered
            .map(|(place, arrival)| delivery(place, *arrival))
            .collect()
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for (record, id) in [("a", "1"), ("a", "2"), ("b", "3"), ("a", "2")] {
            ledger.accepted(record, id);
        }
        ledger
    }

    #[test]
    fn loss_order_and_repeats_are_seen() {
        let ledger = ledger();
        assert_eq!(ledger.len(), 3);
        let check = |arrivals: &[_], missing: &[&str], disordered: usize, repeats| {
            let deliveries = deliveries(arrivals);
            assert_eq!(ledger.missing(&deliveries), missing, "{arrivals:?}");
            let disorder = ledger.order_violations(&deliveries);
            assert_eq!(disorder.len(), disordered, "{arrivals:?}: {disorder:?}");
            assert_eq!(repeats_after_success(&deliveries), repeats, "{arrivals:?}");
        };
        let (a1, a2, b3) = (("a", "1", 204), ("a", "2", 204), ("b", "3", 204));
        let (a1_failed, unknown) = (("a", "1", 500), ("a", "9", 204));
        check(&[a1, b3, a2], &[], 0, 0);
        check(&[a1_failed, a1], &["2", "3"], 0, 0);
        check(&[a1_failed, a2, a1], &["3"], 1, 0);
        check(&[a2, a1], &["3"], 1, 0);
        check(&[a2], &["1", "3"], 1, 0);
        check(&[a1, a2, a1], &["3"], 0, 1);
        check(&[a1, a2, unknown], &["3"], 1, 0);
    }

    #[test]
    fn an_event_that_overlaps_the_one_before_it_is_seen() {
        let mut deliveries = deliveries(&[("a", "1", 204), ("a", "2", 204)]);
        assert!(ledger().order_violations(&deliveries).is_empty());
        deliveries[1].at = Duration::from_millis(499);
        assert_eq!(ledger().order_violations(&deliveries).len(), 1);
    }
}
