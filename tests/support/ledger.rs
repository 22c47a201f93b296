//! What was sent against what arrived: loss, order, duplicates.

use std::collections::{BTreeMap, HashMap, HashSet};

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

    /// Records whose events did not arrive first in the order in which they were accepted, and
    /// what came instead. Repeats of an id are passed over; what was never accepted is not.
    pub fn order_violations(&self, deliveries: &[Delivery]) -> Vec<String> {
        let mut seen = HashSet::new();
        let mut arrived: HashMap<&str, Vec<&str>> = HashMap::new();
        for delivery in deliveries {
            if seen.insert(delivery.id()) {
                arrived
                    .entry(delivery.record_id())
                    .or_default()
                    .push(delivery.id());
            }
        }
        self.by_record
            .iter()
            .filter_map(|(record, accepted)| {
                let arrived = arrived.remove(record.as_str()).unwrap_or_default();
                let in_order = accepted.iter().zip(&arrived).all(|(a, b)| a == b)
                    && arrived.len() <= accepted.len();
                (!in_order).then(|| format!("{record}: accepted {accepted:?}, arrived {arrived:?}"))
            })
            .collect()
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
    use crate::receiver::Verdict;

    fn delivery(record: &str, id: &str, status: u16) -> Delivery {
        Delivery {
            at: std::time::Duration::ZERO,
            path: "/".into(),
            headers: BTreeMap::from([("webhook-id".into(), id.into())]),
            body: Vec::new(),
            json: serde_json::json!({ "record_id": record }),
            answered: Some(status),
            verdict: Verdict::Unknown,
        }
    }

    #[test]
    fn loss_order_and_repeats_are_seen() {
        let mut ledger = Ledger::default();
        for (record, id) in [("a", "1"), ("a", "2"), ("b", "3"), ("a", "2")] {
            ledger.accepted(record, id);
        }
        assert_eq!(ledger.len(), 3);
        let check =
            |arrivals: &[(&str, &str, u16)], missing: &[&str], disordered: usize, repeats| {
                let deliveries: Vec<_> = arrivals
                    .iter()
                    .map(|(record, id, status)| delivery(record, id, *status))
                    .collect();
                assert_eq!(ledger.missing(&deliveries), missing, "{arrivals:?}");
                assert_eq!(
                    ledger.order_violations(&deliveries).len(),
                    disordered,
                    "{arrivals:?}"
                );
                assert_eq!(repeats_after_success(&deliveries), repeats, "{arrivals:?}");
            };
        check(
            &[("a", "1", 204), ("b", "3", 204), ("a", "2", 204)],
            &[],
            0,
            0,
        );
        check(&[("a", "1", 500), ("a", "1", 204)], &["2", "3"], 0, 0);
        check(&[("a", "2", 204), ("a", "1", 204)], &["3"], 1, 0);
        check(&[("a", "2", 204)], &["1", "3"], 1, 0);
        check(
            &[("a", "1", 204), ("a", "2", 204), ("a", "1", 204)],
            &["3"],
            0,
            1,
        );
        check(
            &[("a", "1", 204), ("a", "2", 204), ("a", "9", 204)],
            &["3"],
            1,
            0,
        );
    }
}
