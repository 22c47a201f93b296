//! What arrived, in numbers.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use shared::time::SystemClock;

use crate::mark::{Mark, now_us};
use crate::percentiles::{Percentiles, Samples};

#[derive(Default)]
pub(super) struct Counts {
    /// Number of the last event by endpoint and key.
    last: HashMap<(u64, u64), u64>,
    distinct: u64,
    repeated: u64,
    out_of_order: u64,
    unmarked: u64,
    last_at_us: u64,
    samples: Samples,
}

/// What a receiver tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Pairs of event and endpoint.
    pub(crate) distinct: u64,
    /// Arrivals of a pair after its first, as far as nothing of its key came between.
    pub(crate) repeated: u64,
    /// Arrivals behind a later one of their key.
    pub(crate) out_of_order: u64,
    /// Requests that were no event of the load's.
    pub(crate) unmarked: u64,
    /// When the last one arrived, as [`now_us`] has it.
    pub(crate) last_at_us: u64,
    /// From the sending of each event; `None` if there were none.
    pub(crate) latency_ms: Option<Percentiles>,
}

impl Counts {
    pub(super) fn arrived(&mut self, endpoint: u64, body: &[u8], clock: &SystemClock) {
        let at_us = now_us(clock);
        let Some(mark) = Mark::find(body) else {
            self.unmarked += 1;
            return;
        };
        self.last_at_us = at_us;
        let last = self.last.entry((endpoint, mark.key)).or_default();
        if mark.number > *last {
            *last = mark.number;
            self.distinct += 1;
            self.samples.add_us(mark.at_us, at_us);
        } else if mark.number == *last {
            self.repeated += 1;
        } else {
            self.out_of_order += 1;
        }
    }

    pub(super) fn distinct(&self) -> u64 {
        self.distinct
    }

    pub(super) fn report(&self) -> Report {
        Report {
            distinct: self.distinct,
            repeated: self.repeated,
            out_of_order: self.out_of_order,
            unmarked: self.unmarked,
            last_at_us: self.last_at_us,
            latency_ms: self.samples.percentiles(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_and_disorder_are_counted_by_key_and_endpoint() {
        let clock = SystemClock::new();
        let mut counts = Counts::default();
        let mut arrive = |endpoint, key, number| {
            let mark = Mark {
                at_us: now_us(&clock),
                key,
                number,
            };
            counts.arrived(endpoint, mark.text().as_bytes(), &clock);
        };
        for (endpoint, key, number) in [
            (0, 1, 1),
            (0, 1, 2),
            (0, 1, 2),
            (0, 1, 1),
            (0, 2, 1),
            (1, 1, 1),
        ] {
            arrive(endpoint, key, number);
        }
        counts.arrived(0, b"verification", &clock);
        let report = counts.report();
        let seen = (report.distinct, report.repeated, report.out_of_order);
        assert_eq!((seen, report.unmarked), ((4, 1, 1), 1));
        assert!(report.latency_ms.unwrap().p999 < 1_000.0);
        assert!(report.last_at_us > 0);
    }
}
