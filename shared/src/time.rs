//! Time. The only file of the workspace that reads a clock.
//!
//! Pure code takes `now: Timestamp` as an argument. Shells hold a [`Clock`].

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A point in time: milliseconds since the Unix epoch, UTC. Printed as RFC 3339 with milliseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The text was no RFC 3339 time within the years 0 to 9999.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time: {0:?}")]
pub struct InvalidTimestamp(String);

impl Timestamp {
    /// The last instant that jiff can hold, 9999-12-30T22:00:00.999Z.
    const MAX_MS: i64 = 253_402_207_200_999;
    /// The first, 0000-01-01T00:00:00Z.
    const MIN_MS: i64 = -62_167_219_200_000;

    /// `ms` is clamped to the years 0 to 9999, so that every value can be printed and parsed.
    pub const fn from_millis(ms: i64) -> Self {
        if ms > Self::MAX_MS {
            Self(Self::MAX_MS)
        } else if ms < Self::MIN_MS {
            Self(Self::MIN_MS)
        } else {
            Self(ms)
        }
    }

    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Parses RFC 3339, any offset. Anything finer than a millisecond is cut off.
    pub fn parse_rfc3339(text: &str) -> Result<Self, InvalidTimestamp> {
        let parsed: jiff::Timestamp = text
            .parse()
            .map_err(|_| InvalidTimestamp(text.chars().take(64).collect()))?;
        Ok(Self::from_millis(parsed.as_millisecond()))
    }

    pub const fn plus_millis(self, ms: i64) -> Self {
        Self::from_millis(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`; negative when `earlier` is later.
    pub const fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            // `from_millis` clamps, so jiff's wider range always holds the value.
            Err(_) => f.write_str("9999-12-30T22:00:00.999Z"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse_rfc3339(&text).map_err(D::Error::custom)
    }
}

/// Where a shell gets its time from.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time. May jump; the core keeps its own monotone `now`.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary start; never goes back. Stands still while the machine sleeps.
    fn elapsed(&self) -> Duration;
    /// Time since an arbitrary start, not that of [`Self::elapsed`]; never goes back, and goes on
    /// while the machine sleeps. Leases run by it (`protocol.md`, rule 5): a replica that slept
    /// through its lease must notice.
    fn uptime(&self) -> Duration;
}

/// `CLOCK_MONOTONIC` counts suspension on macOS, where it is `mach_continuous_time`; on Linux it
/// does not.
#[cfg(target_os = "linux")]
const COUNTING_SUSPENSION: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const COUNTING_SUSPENSION: ClockId = ClockId::Monotonic;

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        Timestamp::from_millis(since_epoch)
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn uptime(&self) -> Duration {
        let since_boot = clock_gettime(COUNTING_SUSPENSION);
        // Neither clock is ever negative.
        Duration::try_from(since_boot).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_rfc3339_with_milliseconds() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_750_158_000_123, "2025-06-17T11:00:00.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (i64::MAX, "9999-12-30T22:00:00.999Z"),
        ];
        for (ms, text) in cases {
            let time = Timestamp::from_millis(ms);
            assert_eq!(time.to_string(), text);
            assert_eq!(Timestamp::parse_rfc3339(text), Ok(time));
        }
    }

    #[test]
    fn parses_offsets_and_refuses_other_text() {
        assert_eq!(
            Timestamp::parse_rfc3339("2025-06-17T13:00:00+02:00"),
            Ok(Timestamp::from_millis(1_750_158_000_000))
        );
        for text in ["", "yesterday", "2025-06-17", "2025-06-17T11:00:00"] {
            assert!(Timestamp::parse_rfc3339(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn uptime_goes_on_and_never_back() {
        let clock = SystemClock::new();
        let first = clock.uptime();
        assert!(first > Duration::ZERO);
        let mut last = first;
        while last == first {
            let next = clock.uptime();
            assert!(next >= last);
            last = next;
        }
    }
}
