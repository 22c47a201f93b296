//! `from` and `to` of a query: RFC 3339 times, either may be left out.

use shared::problem::{FieldError, Problem};
use shared::time::Timestamp;

use super::error::ApiError;

/// What was asked for: times at or after `from` and before `to`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeRange {
    pub(crate) from: Option<Timestamp>,
    pub(crate) to: Option<Timestamp>,
}

impl TimeRange {
    /// Both faults are told at once.
    pub(crate) fn parse(from: Option<&str>, to: Option<&str>) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        let mut time = |name: &str, text: Option<&str>| {
            let parsed = text.map(Timestamp::parse_rfc3339).transpose();
            parsed.unwrap_or_else(|_| {
                errors.push(FieldError {
                    pointer: format!("/{name}"),
                    detail: "must be a time by RFC 3339, such as 2026-01-31T12:00:00Z".to_owned(),
                });
                None
            })
        };
        let range = Self {
            from: time("from", from),
            to: time("to", to),
        };
        if !errors.is_empty() {
            return Err(ApiError::Refused(Problem::invalid(errors)));
        }
        if range
            .from
            .zip(range.to)
            .is_some_and(|(from, to)| from >= to)
        {
            return Err(invalid("/from", "must be before `to`"));
        }
        Ok(range)
    }

    pub(crate) fn contains(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at < to)
    }
}

/// A 422 for one parameter of the query.
pub(crate) fn invalid(pointer: &str, detail: impl Into<String>) -> ApiError {
    ApiError::Refused(Problem::invalid_field(pointer, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_from_the_first_and_before_the_second() {
        let at = Timestamp::from_millis;
        let range = TimeRange::parse(
            Some("1970-01-01T00:00:01Z"),
            Some("1970-01-01T02:00:02+02:00"),
        )
        .unwrap();
        for (ms, inside) in [(999, false), (1_000, true), (1_999, true), (2_000, false)] {
            assert_eq!(range.contains(at(ms)), inside, "{ms}");
        }
        assert!(TimeRange::parse(None, None).unwrap().contains(at(0)));
    }

    #[test]
    fn what_is_no_time_or_no_range_is_told_by_its_place() {
        let later = Some("1970-01-01T00:00:02Z");
        for (from, to, places) in [
            (Some("yesterday"), None, vec!["/from"]),
            (Some(""), Some("x"), vec!["/from", "/to"]),
            (later, later, vec!["/from"]),
        ] {
            let Err(ApiError::Refused(problem)) = TimeRange::parse(from, to) else {
                panic!("{from:?} {to:?}");
            };
            let seen: Vec<_> = problem.errors.iter().map(|fault| &fault.pointer).collect();
            assert_eq!(
                (problem.status, seen),
                (
                    422,
                    places
                        .iter()
                        .map(|&place| place.to_owned())
                        .collect::<Vec<_>>()
                        .iter()
                        .collect()
                )
            );
        }
    }
}
