//! Percentiles.

/// Latencies in milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies(Vec<f64>);

impl Latencies {
    pub(super) fn add_us(&mut self, from: u64, to: u64) {
        let micros = u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX);
        self.0.push(f64::from(micros) / 1_000.0);
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest that `percent` of all do not exceed; `None` of nothing.
    pub(super) fn percentile(&mut self, percent: usize) -> Option<f64> {
        self.0.sort_unstable_by(f64::total_cmp);
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(99), None);
        (1..=200)
            .rev()
            .for_each(|ms| latencies.add_us(0, ms * 1_000));
        assert_eq!(latencies.percentile(50), Some(100.0));
        assert_eq!(latencies.percentile(99), Some(198.0));
    }
}
