//! Latencies, from exact samples.

use serde::{Deserialize, Serialize};

/// Microseconds, as they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<u32>);

/// In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Samples {
    pub(crate) fn add_us(&mut self, from: u64, to: u64) {
        let micros = u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX);
        self.0.push(micros);
    }

    /// `None` of nothing.
    pub(crate) fn percentiles(&self) -> Option<Percentiles> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        // The nearest rank: the smallest that so many of a thousand do not exceed.
        let of_thousand = |part: usize| {
            let rank = (sorted.len() * part).div_ceil(1_000);
            let micros = sorted.get(rank.checked_sub(1)?)?;
            Some(f64::from(*micros) / 1_000.0)
        };
        Some(Percentiles {
            p50: of_thousand(500)?,
            p95: of_thousand(950)?,
            p99: of_thousand(990)?,
            p999: of_thousand(999)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentiles(), None);
        (1..=2_000)
            .rev()
            .for_each(|ms| samples.add_us(5, 5 + ms * 1_000));
        let expected = Percentiles {
            p50: 1_000.0,
            p95: 1_900.0,
            p99: 1_980.0,
            p999: 1_998.0,
        };
        assert_eq!(samples.percentiles(), Some(expected));
    }
}
