//! What each event carries so that the receiver can tell when it was sent, and whether it arrives in
//! order: `~TTTTTTTTTTTTTTTT.KKKKKKKK.NNNNNNNN`, decimal digits of fixed width, so that a request
//! is a template in which some bytes are replaced.

use shared::time::{Clock as _, SystemClock};

/// No other text of a request or an event has it.
const FIRST: u8 = b'~';
pub(crate) const AT_DIGITS: usize = 16;
pub(crate) const KEY_DIGITS: usize = 8;
pub(crate) const NUMBER_DIGITS: usize = 8;
/// Of the whole mark.
pub(crate) const BYTES: usize = 1 + AT_DIGITS + 1 + KEY_DIGITS + 1 + NUMBER_DIGITS;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// When the event was sent, as [`now_us`] has it.
    pub(crate) at_us: u64,
    /// The ordering key.
    pub(crate) key: u64,
    /// Rises within a key.
    pub(crate) number: u64,
}

/// Microseconds since the machine was started, the same in each of its processes.
pub(crate) fn now_us(clock: &SystemClock) -> u64 {
    u64::try_from(clock.uptime().as_micros()).unwrap_or(u64::MAX)
}

impl Mark {
    /// As it stands in a template, and in a request.
    pub(crate) fn text(&self) -> String {
        let Self { at_us, key, number } = self;
        format!("~{at_us:016}.{key:08}.{number:08}")
    }

    /// Writes the mark over one that stands at the start of `place`.
    pub(crate) fn write(&self, place: &mut [u8]) {
        let numbers = [
            (1, AT_DIGITS, self.at_us),
            (2 + AT_DIGITS, KEY_DIGITS, self.key),
            (3 + AT_DIGITS + KEY_DIGITS, NUMBER_DIGITS, self.number),
        ];
        for (start, digits, number) in numbers {
            if let Some(place) = place.get_mut(start..start + digits) {
                write_digits(place, number);
            }
        }
    }

    /// The first mark in `bytes`.
    pub(crate) fn find(bytes: &[u8]) -> Option<Self> {
        let start = bytes.iter().position(|byte| *byte == FIRST)?;
        let rest = bytes.get(start + 1..start + BYTES)?;
        let (at_us, rest) = rest.split_at_checked(AT_DIGITS)?;
        let (key, rest) = rest.split_first()?.1.split_at_checked(KEY_DIGITS)?;
        let number = rest.split_first()?.1;
        Some(Self {
            at_us: digits(at_us)?,
            key: digits(key)?,
            number: digits(number)?,
        })
    }
}

/// Fills `place` with the number's last digits.
pub(crate) fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        let last = u8::try_from(number % 10).unwrap_or_default();
        *digit = b'0' + last;
        number /= 10;
    }
}

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        Some(number * 10 + u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_as_it_was_written() {
        let first = Mark {
            at_us: 1,
            key: 2,
            number: 3,
        };
        let mark = Mark {
            at_us: 1_234_567_890_123,
            key: 99_999_999,
            number: 7,
        };
        let mut body = format!(r#"{{"a":"{}","b":"@"}}"#, first.text()).into_bytes();
        assert_eq!(Mark::find(&body), Some(first));
        mark.write(&mut body[6..]);
        assert_eq!(Mark::find(&body), Some(mark));
        assert_eq!(mark.text().len(), BYTES);
        assert!(String::from_utf8(body).unwrap().contains(&mark.text()));
    }

    #[test]
    fn what_is_cut_or_no_number_is_no_mark() {
        for text in [
            "",
            "~",
            "~0000000000000001.00000002.0000000",
            "~x000000000000001.00000002.00000003",
        ] {
            assert_eq!(Mark::find(text.as_bytes()), None, "{text}");
        }
    }
}
