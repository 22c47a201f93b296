//! Reads `Retry-After` (RFC 9110, 10.2.3): a number of seconds, or a date.

use std::time::{Duration, UNIX_EPOCH};

use crate::limits::RETRY_AFTER_MS_MAX;
use crate::time::Timestamp;

/// How long the answer asks to be left alone, in milliseconds; at most 24 h. What is past already
/// is 0. `None` when `value` is neither a number nor a date.
///
/// A date is read relative to `date`, the `Date` header of the same answer, because the two come
/// from one clock, which need not be ours (`protocol.md`, rule 16). Where that is missing or no
/// date, relative to `now`.
pub fn parse_ms(value: &str, date: Option<&str>, now: Timestamp) -> Option<u64> {
    let value = value.trim_ascii();
    let ms = match delay_ms(value) {
        Some(ms) => ms,
        None => {
            let until_ms = date_ms(value)?;
            let from_ms = date
                .and_then(|date| date_ms(date.trim_ascii()))
                .unwrap_or_else(|| u64::try_from(now.as_millis()).unwrap_or(0));
            until_ms.saturating_sub(from_ms)
        }
    };
    Some(ms.min(RETRY_AFTER_MS_MAX))
}

/// Digits alone by the grammar. Servers that compute the number send negative ones too, and mean
/// that the time has come. A number beyond 64 bits is a very long time.
fn delay_ms(value: &str) -> Option<u64> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    if digits.len() < value.len() {
        return Some(0);
    }
    Some(digits.parse().unwrap_or(u64::MAX).saturating_mul(1_000))
}

/// Milliseconds since the Unix epoch. Any of the three forms of RFC 9110, 5.6.7, from 1970 on.
fn date_ms(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text).ok()?;
    // The parser takes no date before the epoch.
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_epoch.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000);
    const DAY_MS: u64 = 86_400_000;

    fn check(cases: &[(&str, Option<&str>, Option<u64>)]) {
        for (value, date, expected) in cases {
            assert_eq!(parse_ms(value, *date, NOW), *expected, "{value:?} {date:?}");
        }
    }

    #[test]
    fn seconds_are_counted_from_the_answer() {
        check(&[
            ("0", None, Some(0)),
            ("120", None, Some(120_000)),
            ("0007", None, Some(7_000)),
            (" 5\t", Some("not read"), Some(5_000)),
            ("-1", None, Some(0)),
            ("86400", None, Some(DAY_MS)),
            ("86401", None, Some(DAY_MS)),
            ("18446744073709551615", None, Some(DAY_MS)),
            ("99999999999999999999999999", None, Some(DAY_MS)),
        ]);
    }

    #[test]
    fn dates_are_read_by_the_clock_of_the_answer_or_else_by_ours() {
        let at = "Sun, 06 Nov 1994 08:49:37 GMT";
        check(&[
            (at, None, Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", None, Some(30_000)),
            ("Sunday, 06-Nov-94 08:50:07 GMT", None, Some(30_000)),
            ("Sun Nov  6 08:50:07 1994", None, Some(30_000)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", None, Some(0)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None, Some(0)),
            ("Mon, 07 Nov 1994 09:49:37 GMT", None, Some(DAY_MS)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", None, Some(DAY_MS)),
            // An endpoint whose clock is an hour ahead, and one whose clock is an hour behind.
            (
                "Sun, 06 Nov 1994 09:50:07 GMT",
                Some("Sun, 06 Nov 1994 09:49:37 GMT"),
                Some(30_000),
            ),
            (
                "Sun, 06 Nov 1994 07:50:07 GMT",
                Some(" Sunday, 06-Nov-94 07:49:37 GMT "),
                Some(30_000),
            ),
            (at, Some("Sun, 06 Nov 1994 09:49:37 GMT"), Some(0)),
            (
                "Sun, 06 Nov 1994 08:50:07 GMT",
                Some("yesterday"),
                Some(30_000),
            ),
        ]);
    }

    #[test]
    fn a_time_before_the_epoch_counts_as_the_epoch() {
        let before = Timestamp::from_millis(-5_000);
        let date = "Thu, 01 Jan 1970 00:00:07 GMT";
        assert_eq!(parse_ms(date, None, before), Some(7_000));
    }

    #[test]
    fn anything_else_is_as_good_as_absent() {
        let cases = [
            "",
            " ",
            "-",
            "--1",
            "+5",
            "1.5",
            "5s",
            "1 2",
            "0x10",
            "٣",
            "soon",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 31 Feb 1994 08:49:37",
            "Wed, 31 Dec 1969 23:59:59 GMT",
            "1994-11-06T08:49:37Z",
        ];
        for value in cases {
            check(&[(value, None, None)]);
        }
    }
}
