//! From a provider's callback to unified events.
//!
//! A connector has one jq program. Its input is `{"body": …, "headers": {…}, "query": {…}}`: the
//! parsed JSON body, headers with names in lower case, decoded query parameters (of a repeated one
//! the first). It yields one object for each event, in the order in which things happened, and
//! nothing for a callback that means nothing to us (a ping, a kind of event outside the catalog):
//!
//! - `event`: one of the names that the connector declares.
//! - `record_id`: text or whole number, never empty.
//! - `occurred_at`: RFC 3339 text (an offset without a colon and a missing zone, taken as UTC, are
//!   let pass) or unix seconds; anything else counts as absent, and the time of receipt is used.
//! - `dedup`: what names the change at its source (`protocol.md`, rule 1): the provider's own id,
//!   or whatever identifies the change, its time or version included, as text or any JSON. Absent,
//!   null or empty when the source gives none of these: then the change is never deduplicated,
//!   since two equal changes in a row would else be taken for one.
//! - `event_data`: as much of the unified model as the callback tells.
//!
//! Invariants: the same callback gives the same events, byte for byte; no input panics or makes
//! more than the limits below; errors name no part of the callback.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jaq_json::{Map, Num, Val};
use serde_json::value::RawValue;

use super::Callback;
use super::program::{Fields, Program, Unwritable, as_text, to_json};
use crate::limits::{CALLBACK_BODY_BYTES_MAX, OUTSIDE_ID_BYTES_MAX};
use crate::time::Timestamp;

/// Events of one callback, as many as one `POST /v1/events` may carry.
pub const EVENTS_PER_CALLBACK_MAX: usize = 1_000;

/// Ids, dedup texts and data of one callback's events together. Eight times a body's limit: two
/// events may describe the same object, yet a program must not multiply what it was given.
const OUTPUT_BYTES_MAX: usize = 8 << 20;

/// One event that a callback tells of.
#[derive(Debug, Clone)]
pub struct MappedEvent {
    /// One of the names that the connector declares.
    pub event: String,
    /// Not empty, at most 512 bytes.
    pub record_id: String,
    /// `None`: the time of receipt is the best there is.
    pub occurred_at: Option<Timestamp>,
    /// What identifies the change at its source, not empty. `None`: never deduplicated.
    pub dedup: Option<String>,
    /// A JSON object, compact.
    pub event_data: Option<Box<RawValue>>,
}

/// Why a callback gives no events although it should. Holds no part of the callback.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    #[error("the body is longer than {CALLBACK_BODY_BYTES_MAX} bytes")]
    TooLarge,
    /// Not JSON, or nested deeper than 128.
    #[error("the body is not JSON")]
    NotJson,
    #[error(
        "the callback makes more than {EVENTS_PER_CALLBACK_MAX} events or {OUTPUT_BYTES_MAX} bytes of them"
    )]
    TooMuch,
    /// The callback is not of the shape that the connector expects.
    #[error("the mapping program failed on the callback")]
    Failed,
    #[error(
        "{event}: the record id is missing, empty, too long, or neither text nor a whole number"
    )]
    RecordId { event: String },
    /// The connector's mistake.
    #[error("the mapping program yields an invalid event: {0}")]
    InvalidOutput(&'static str),
}

/// Runs `program` on `callback`. `events` are the names that it may emit.
pub(super) fn map(
    program: &Program,
    events: &[String],
    callback: &Callback<'_>,
) -> Result<Vec<MappedEvent>, MapError> {
    // A bulkhead: jaq is meant not to panic, yet a callback must not be the proof that it can.
    // Nothing outlives the unwinding but the program, which running does not change.
    catch_unwind(AssertUnwindSafe(|| {
        map_unguarded(program, events, callback)
    }))
    .unwrap_or(Err(MapError::Failed))
}

pub(super) fn map_unguarded(
    program: &Program,
    events: &[String],
    callback: &Callback<'_>,
) -> Result<Vec<MappedEvent>, MapError> {
    let mut mapped = Vec::new();
    let mut budget = Budget {
        bytes: OUTPUT_BYTES_MAX,
    };
    for output in program.outputs(input(callback)?) {
        if mapped.len() == EVENTS_PER_CALLBACK_MAX {
            return Err(MapError::TooMuch);
        }
        let output = output.map_err(|_| MapError::Failed)?;
        mapped.push(event(&output, events, &mut budget)?);
    }
    Ok(mapped)
}

fn input(callback: &Callback<'_>) -> Result<Val, MapError> {
    if callback.body.len() > CALLBACK_BODY_BYTES_MAX {
        return Err(MapError::TooLarge);
    }
    // serde_json's parser and not jaq's own: it refuses nesting deeper than 128, without which a
    // body of brackets would overflow the stack.
    let body: Val = serde_json::from_slice(callback.body).map_err(|_| MapError::NotJson)?;
    let mut headers = Map::default();
    for (name, value) in callback.headers {
        headers
            .entry(text(name))
            .and_modify(|joined| {
                *joined = text(&[as_text(joined).unwrap_or_default(), value].join(", "))
            })
            .or_insert_with(|| text(value));
    }
    let mut query = Map::default();
    for (name, value) in url::form_urlencoded::parse(callback.query.as_bytes()) {
        query.entry(text(&name)).or_insert_with(|| text(&value));
    }
    let fields = [
        ("body", body),
        ("headers", Val::obj(headers)),
        ("query", Val::obj(query)),
    ];
    Ok(Val::obj(
        fields
            .into_iter()
            .map(|(name, value)| (text(name), value))
            .collect(),
    ))
}

fn text(text: &str) -> Val {
    Val::utf8_str(text.to_owned())
}

/// What one callback may still produce.
struct Budget {
    bytes: usize,
}

impl Budget {
    fn take(&mut self, bytes: usize) -> Result<(), MapError> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(MapError::TooMuch)?;
        Ok(())
    }

    fn json(&mut self, value: &Val, fields: Fields) -> Result<String, MapError> {
        let json = to_json(value, fields, self.bytes).map_err(|unwritable| match unwritable {
            Unwritable::TooLong => MapError::TooMuch,
            Unwritable::NoJson => MapError::InvalidOutput("a value that JSON cannot say"),
        })?;
        self.take(json.len())?;
        Ok(json)
    }
}

fn event(output: &Val, events: &[String], budget: &mut Budget) -> Result<MappedEvent, MapError> {
    let Val::Obj(fields) = output else {
        return Err(MapError::InvalidOutput("not an object"));
    };
    let known = ["event", "record_id", "occurred_at", "dedup", "event_data"];
    if !fields
        .keys()
        .all(|key| as_text(key).is_some_and(|name| known.contains(&name)))
    {
        return Err(MapError::InvalidOutput("an unknown field"));
    }
    let field = |name: &str| fields.get(&text(name)).unwrap_or(&Val::Null);
    let event = as_text(field("event"))
        .and_then(|name| events.iter().find(|declared| *declared == name))
        .ok_or(MapError::InvalidOutput(
            "an event that the connector does not declare",
        ))?
        .clone();
    let record_id = identifier(field("record_id")).ok_or_else(|| MapError::RecordId {
        event: event.clone(),
    })?;
    budget.take(record_id.len())?;
    let event_data = match field("event_data") {
        Val::Null => None,
        data @ Val::Obj(_) => {
            let json = budget.json(data, Fields::AsMade)?;
            Some(
                RawValue::from_string(json)
                    .map_err(|_| MapError::InvalidOutput("event_data is no JSON"))?,
            )
        }
        Val::Bool(_) | Val::Num(_) | Val::BStr(_) | Val::TStr(_) | Val::Arr(_) => {
            return Err(MapError::InvalidOutput("event_data is no object"));
        }
    };
    Ok(MappedEvent {
        event,
        record_id,
        occurred_at: time(field("occurred_at")),
        dedup: dedup(field("dedup"), budget)?,
        event_data,
    })
}

/// Numbers become texts. A fraction, or a number so large that reading it lost digits, is no id.
fn identifier(value: &Val) -> Option<String> {
    let id = match value {
        Val::TStr(_) => as_text(value)?.to_owned(),
        Val::Num(Num::Int(id)) => id.to_string(),
        Val::Num(Num::BigInt(id)) => id.to_string(),
        Val::Num(Num::Float(_) | Num::Dec(_)) => return None,
        Val::Null | Val::Bool(_) | Val::BStr(_) | Val::Arr(_) | Val::Obj(_) => return None,
    };
    let present = !id.trim().is_empty() && id.len() <= OUTSIDE_ID_BYTES_MAX;
    present.then_some(id)
}

/// Lenient, for an event with a strange time is worth more than no event.
fn time(value: &Val) -> Option<Timestamp> {
    match value {
        Val::TStr(_) => {
            let text = as_text(value)?.trim();
            let utc = || Timestamp::parse_rfc3339(&format!("{text}Z"));
            Timestamp::parse_rfc3339(text).or_else(|_| utc()).ok()
        }
        Val::Num(Num::Int(seconds)) => {
            let ms = i64::try_from(*seconds).ok()?.checked_mul(1_000)?;
            Some(Timestamp::from_millis(ms))
        }
        Val::Num(Num::BigInt(_) | Num::Float(_) | Num::Dec(_)) => None,
        Val::Null | Val::Bool(_) | Val::BStr(_) | Val::Arr(_) | Val::Obj(_) => None,
    }
}

/// Text as it is, anything else as JSON with sorted keys: a provider that sends the same change
/// again may order its fields anew.
fn dedup(value: &Val, budget: &mut Budget) -> Result<Option<String>, MapError> {
    match value {
        Val::Null => Ok(None),
        Val::TStr(_) => {
            let text = as_text(value).ok_or(MapError::InvalidOutput("dedup is no text"))?;
            budget.take(text.len())?;
            Ok((!text.is_empty()).then(|| text.to_owned()))
        }
        Val::Bool(_) | Val::Num(_) | Val::BStr(_) | Val::Arr(_) | Val::Obj(_) => {
            budget.json(value, Fields::Sorted).map(Some)
        }
    }
}
