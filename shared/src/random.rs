//! Randomness for shells. Pure code takes it as an argument.

use std::sync::atomic::{AtomicU16, Ordering};

use crate::ids::IdRandom;

/// `N` bytes from the operating system.
///
/// # Panics
/// When the operating system has none to give, in which case no id or nonce is safe to make.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(
        clippy::expect_used,
        reason = "without randomness nothing is safe to go on"
    )]
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// The random part of one UUIDv7: a counter of this process in front (RFC 9562, 6.2, method 1), so
/// that ids of one millisecond sort as they were made, then 62 random bits.
pub fn for_id() -> IdRandom {
    static COUNTER: AtomicU16 = AtomicU16::new(0);
    let mut random: IdRandom = bytes();
    let [high, low] = COUNTER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let [first, second, ..] = &mut random;
    (*first, *second) = (high, low);
    random
}

/// For jitter, where predictability does no harm but repetition does.
pub fn number() -> u64 {
    u64::from_le_bytes(bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ProjectId;
    use crate::time::Timestamp;

    #[test]
    fn ids_of_one_millisecond_sort_as_they_were_made() {
        let now = Timestamp::from_millis(1_750_158_000_000);
        let ids: Vec<_> = (0..500).map(|_| ProjectId::new(now, &for_id())).collect();
        // The counter has 12 bits in an id, and starts again after them.
        let breaks = ids.windows(2).filter(|pair| pair[0] >= pair[1]).count();
        assert!(breaks <= 1, "{breaks}");
    }
}
