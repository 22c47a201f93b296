//! `POST /v1/events`: from a request body to events, with an error at the index of each item that
//! is invalid.
//!
//! Invariant: the n-th result is the n-th item's, whatever the others are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use shared::domain::account::Account;
use shared::domain::catalog;
use shared::domain::event::{EventType, Source};
use shared::ids::{AccountId, ProjectId};
use shared::limits::{EVENT_BYTES_MAX, EVENTS_PER_REQUEST_MAX, OUTSIDE_ID_BYTES_MAX};
use shared::time::Timestamp;

use super::message_id::{FIRST_PARTY, MessageIds, NewRandom};
use super::nesting;
use super::render::{Fit, UnrenderedEvent};
use super::surrogates;

/// The items of a request, in its order.
#[derive(Debug)]
pub(crate) struct Items<'a> {
    pub(crate) items: Vec<Result<Item<'a>, ItemError>>,
}

/// One item that can be understood.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    /// JSON pointer to it.
    pointer: String,
    event_type: EventType,
    pub(crate) account: Option<AccountId>,
    record_id: Cow<'a, str>,
    data: Option<&'a RawValue>,
    idempotency_key: Option<Cow<'a, str>>,
    occurred_at: Option<Timestamp>,
}

/// What is wrong with one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ItemError {
    pub(crate) code: ItemErrorCode,
    /// JSON pointer into the body.
    pub(crate) pointer: String,
    pub(crate) detail: Cow<'static, str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ItemErrorCode {
    Invalid,
    TooLarge,
}

impl ItemErrorCode {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why a body is no request at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is not UTF-8")]
    NotUtf8,
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("the body is nested too deep")]
    TooDeep,
    #[error("the body holds more than {EVENTS_PER_REQUEST_MAX} events")]
    TooMany,
    #[error("the body holds no event")]
    Empty,
}

/// Understands a body: one object, or an array of up to 1,000.
pub(crate) fn parse(body: &[u8]) -> Result<Items<'_>, BodyError> {
    let text = std::str::from_utf8(body).map_err(|_| BodyError::NotUtf8)?;
    if nesting::is_too_deep(text) {
        return Err(BodyError::TooDeep);
    }
    if !text.trim_start().starts_with('[') {
        let one: &RawValue = from_str(text)?;
        return Ok(Items {
            items: vec![Item::parse(one, String::new())],
        });
    }
    let many = from_str::<RawItems<'_>>(text)?;
    if many.too_many {
        return Err(BodyError::TooMany);
    }
    if many.items.is_empty() {
        return Err(BodyError::Empty);
    }
    let items = many.items.into_iter().enumerate();
    Ok(Items {
        items: items
            .map(|(index, item)| Item::parse(item, format!("/{index}")))
            .collect(),
    })
}

fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, BodyError> {
    serde_json::from_str(text).map_err(|error| BodyError::NotJson(error.to_string()))
}

/// What all events of a request share.
pub(crate) struct Request<'a> {
    pub(crate) project: ProjectId,
    /// Those that items name, as far as they exist and are the project's.
    pub(crate) accounts: &'a HashMap<AccountId, Arc<Account>>,
    pub(crate) now: Timestamp,
    /// The server's.
    pub(crate) max_payload: usize,
}

/// The events that the items stand for.
pub(crate) fn events<'a>(
    items: Items<'a>,
    request: &Request<'a>,
    new_random: NewRandom<'_>,
) -> Vec<Result<UnrenderedEvent<'a>, ItemError>> {
    let mut ids = MessageIds::new(request.project, FIRST_PARTY, request.now, new_random);
    let items = items.items.into_iter();
    items
        .map(|item| item.and_then(|item| event(item, request, &mut ids)))
        .collect()
}

fn event<'a>(
    item: Item<'a>,
    request: &Request<'a>,
    ids: &mut MessageIds<'_>,
) -> Result<UnrenderedEvent<'a>, ItemError> {
    let account = match item.account {
        None => None,
        Some(id) => match request.accounts.get(&id) {
            Some(account) => Some(account.clone()),
            None => return Err(item.invalid("account_id", "there is no such account")),
        },
    };
    let mut event = UnrenderedEvent {
        id: ids.repeatable(
            item.idempotency_key.as_deref(),
            item.account,
            &item.event_type,
            &item.record_id,
        ),
        project: request.project,
        event_type: item.event_type,
        source: Source::FirstParty,
        account,
        record_id: item.record_id,
        occurred_at: item.occurred_at.unwrap_or(request.now),
        published_at: request.now,
        raw_event: None,
        event_data: item.data.map(Cow::Borrowed),
    };
    // A provider cannot send less and its payload stands in `raw_event` anyway; but here `data`
    // is all there is, and its sender can be told.
    match event.fit(request.max_payload) {
        Fit::Whole => Ok(event),
        Fit::WithoutData | Fit::TooLarge => Err(ItemError::too_large(item.pointer)),
    }
}

/// An item's fields; others are errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    account_id: Option<String>,
    #[serde(borrow)]
    record_id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    idempotency_key: Option<String>,
    occurred_at: Option<String>,
}

/// `null` is data like any other: what was sent goes out.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Item<'a> {
    fn parse(item: &'a RawValue, pointer: String) -> Result<Self, ItemError> {
        if item.get().len() > EVENT_BYTES_MAX {
            return Err(ItemError::too_large(pointer));
        }
        let invalid = |field: &str, detail: &'static str| ItemError {
            code: ItemErrorCode::Invalid,
            pointer: format!("{pointer}/{field}"),
            detail: detail.into(),
        };
        let fields: Fields<'a> = match serde_json::from_str(item.get()) {
            Ok(fields) => fields,
            Err(error) => {
                return Err(ItemError {
                    code: ItemErrorCode::Invalid,
                    pointer,
                    detail: without_place(&error).into(),
                });
            }
        };
        let event_type = catalog::resolve(&fields.event)
            .ok_or_else(|| invalid("event", "is no event type of the catalog"))?;
        if catalog::is_reserved(&event_type) {
            return Err(invalid(
                "event",
                "is a type that only Carillon itself sends",
            ));
        }
        let account = match fields.account_id {
            None => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|_| invalid("account_id", "is no account id"))?,
            ),
        };
        if !is_identifier(&fields.record_id) {
            return Err(invalid("record_id", "must be 1 to 512 bytes long"));
        }
        if fields
            .data
            .is_some_and(|data| surrogates::are_lone(data.get()))
        {
            let detail = "holds half of a surrogate pair, which is no character";
            return Err(invalid("data", detail));
        }
        if !fields.idempotency_key.as_deref().is_none_or(is_identifier) {
            return Err(invalid("idempotency_key", "must be 1 to 512 bytes long"));
        }
        let occurred_at = match fields.occurred_at {
            None => None,
            Some(text) => Some(
                Timestamp::parse_rfc3339(&text)
                    .map_err(|_| invalid("occurred_at", "is no RFC 3339 time"))?,
            ),
        };
        Ok(Self {
            pointer,
            event_type,
            account,
            record_id: fields.record_id,
            data: fields.data,
            idempotency_key: fields.idempotency_key.map(Cow::Owned),
            occurred_at,
        })
    }

    fn invalid(&self, field: &str, detail: &'static str) -> ItemError {
        ItemError {
            code: ItemErrorCode::Invalid,
            pointer: format!("{}/{field}", self.pointer),
            detail: detail.into(),
        }
    }
}

impl ItemError {
    fn too_large(pointer: String) -> Self {
        Self {
            code: ItemErrorCode::TooLarge,
            pointer,
            detail: format!("an event may have {EVENT_BYTES_MAX} bytes").into(),
        }
    }
}

fn is_identifier(text: &str) -> bool {
    const {
        assert!(
            OUTSIDE_ID_BYTES_MAX == 512,
            "the texts above name the limit"
        )
    };
    !text.is_empty() && text.len() <= OUTSIDE_ID_BYTES_MAX
}

/// serde_json's message; line and column are those of the item alone, and would mislead.
fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&place).unwrap_or(&message).to_owned()
}

/// An array's items, no more of them than a request may have.
struct RawItems<'a> {
    items: Vec<&'a RawValue>,
    too_many: bool,
}

impl<'de> Deserialize<'de> for RawItems<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RawItemsVisitor)
    }
}

struct RawItemsVisitor;

impl<'de> Visitor<'de> for RawItemsVisitor {
    type Value = RawItems<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<RawItems<'de>, A::Error> {
        let mut items = Vec::new();
        let mut too_many = false;
        while let Some(item) = array.next_element()? {
            if items.len() < EVENTS_PER_REQUEST_MAX {
                items.push(item);
            } else {
                too_many = true;
            }
        }
        Ok(RawItems { items, too_many })
    }
}

#[cfg(test)]
mod tests;
