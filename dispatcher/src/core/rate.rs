//! How many attempts a webhook may start in a second.

use shared::time::Timestamp;

/// Width of a bucket. A second is ten of them and the one under way, so that no second, wherever
/// it begins, sees more than the limit.
const BUCKET_MS: i64 = 100;
const BUCKETS: usize = 11;

/// Starts within about the last second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Number of the bucket under way.
    bucket: i64,
    /// By bucket number modulo their count.
    starts: [u32; BUCKETS],
    /// Whether the last start was of a delivery that had failed before.
    last_was_retry: bool,
}

impl RateLimit {
    /// Whether one more attempt may start now.
    pub fn allows(&mut self, limit: u32, now: Timestamp) -> bool {
        self.advance(now);
        self.starts.iter().sum::<u32>() < limit
    }

    /// When to look again, after a refusal.
    pub fn look_again_at(&self) -> Timestamp {
        Timestamp::from_millis((self.bucket + 1) * BUCKET_MS)
    }

    /// Due retries go first, and new lanes get at least every other start (rule 17).
    pub fn prefers_new(&self) -> bool {
        self.last_was_retry
    }

    pub fn started(&mut self, now: Timestamp, is_retry: bool) {
        self.advance(now);
        self.last_was_retry = is_retry;
        if let Some(starts) = self.starts.get_mut(index(self.bucket)) {
            *starts = starts.saturating_add(1);
        }
    }

    /// An attempt that is neither new nor a retry.
    pub fn started_again(&mut self, now: Timestamp) {
        self.started(now, self.last_was_retry);
    }

    fn advance(&mut self, now: Timestamp) {
        let bucket = now.as_millis().div_euclid(BUCKET_MS);
        let passed = usize::try_from(bucket - self.bucket).unwrap_or(0);
        for step in 1..=passed.min(BUCKETS) {
            let number = bucket - i64::try_from(step - 1).unwrap_or(0);
            if let Some(starts) = self.starts.get_mut(index(number)) {
                *starts = 0;
            }
        }
        self.bucket = self.bucket.max(bucket);
    }
}

fn index(bucket: i64) -> usize {
    let count = i64::try_from(BUCKETS).unwrap_or(1);
    usize::try_from(bucket.rem_euclid(count)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_sees_more_than_the_limit() {
        for limit in [1_u32, 7, 250] {
            let mut rate = RateLimit::default();
            let mut starts: Vec<i64> = Vec::new();
            let mut now = 1_000_003;
            while now < 1_005_000 {
                let at = Timestamp::from_millis(now);
                if rate.allows(limit, at) {
                    rate.started(at, false);
                    starts.push(now);
                } else {
                    assert!(rate.look_again_at() > at);
                }
                now += 1;
            }
            for (index, start) in starts.iter().enumerate() {
                let within = starts
                    .iter()
                    .skip(index)
                    .take_while(|at| **at < start + 1_000);
                assert!(within.count() <= limit as usize);
            }
            assert!(
                starts.len() >= 4 * limit as usize,
                "{} of {limit}",
                starts.len()
            );
        }
    }
}
