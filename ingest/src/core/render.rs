//! Events before they are rendered, and the rule for those that do not fit a message.
//!
//! Rendering waits until an event's turn to be stored: a callback of 1 MiB may tell of a thousand
//! events, each of which carries it whole as `raw_event`, and a gigabyte at once is too much.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use shared::codec;
use shared::dialect::stackone::{self, Envelope};
use shared::domain::account::Account;
use shared::domain::event::{Event, EventType, Source};
use shared::ids::{EventId, LaneHash, ProjectId};
use shared::partition::lane_hash;
use shared::time::Timestamp;

/// The server counts headers as payload; ours are a message id and little else.
const HEADERS_BYTES_MAX: usize = 1 << 10;
/// Braces, names, ids and times of a rendered body, and the head before it.
const FRAME_BYTES_MAX: usize = 2 << 10;
/// A control character of one byte is written with six.
const ESCAPED_GROWTH: usize = 6;

/// Everything that an event says.
#[derive(Clone, Debug)]
pub(crate) struct UnrenderedEvent<'a> {
    pub(crate) id: EventId,
    pub(crate) project: ProjectId,
    pub(crate) event_type: EventType,
    pub(crate) source: Source,
    pub(crate) account: Option<Arc<Account>>,
    pub(crate) record_id: Cow<'a, str>,
    pub(crate) occurred_at: Timestamp,
    /// `sent_at` of the body.
    pub(crate) published_at: Timestamp,
    /// Shared by the events of one callback, and owned, so that they can be made on another thread.
    pub(crate) raw_event: Option<Arc<RawValue>>,
    pub(crate) event_data: Option<Cow<'a, RawValue>>,
}

/// Whether an event fits a message of the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Whole,
    WithoutData,
    TooLarge,
}

impl UnrenderedEvent<'_> {
    pub(crate) fn lane(&self) -> LaneHash {
        let account = self.account.as_ref().map(|account| account.id);
        lane_hash(account, self.event_type.resource(), &self.record_id)
    }

    /// What is stored.
    pub(crate) fn message(&self) -> Bytes {
        codec::encode_event(&self.render())
    }

    /// At least as many bytes as [`Self::message`] has.
    pub(crate) fn message_bytes_bound(&self) -> usize {
        let account = self.account.as_ref().map_or(0, |account| {
            let account = &account.definition;
            account.provider.len()
                + account.origin_owner_id.len()
                + account.origin_owner_name.as_ref().map_or(0, String::len)
                + account.origin_username.as_ref().map_or(0, String::len)
        });
        let texts = account + self.event_type.as_str().len() + 2 * self.record_id.len();
        let raw = self.raw_event.as_ref().map_or(0, |raw| raw.get().len());
        let data = self.event_data.as_ref().map_or(0, |data| data.get().len());
        FRAME_BYTES_MAX + ESCAPED_GROWTH * texts + raw + data
    }

    /// `max_payload` is the server's.
    pub(crate) fn fit(&mut self, max_payload: usize) -> Fit {
        let room = max_payload.saturating_sub(HEADERS_BYTES_MAX);
        if self.message_bytes_bound() <= room || self.message().len() <= room {
            return Fit::Whole;
        }
        let data = self.event_data.take();
        let fits = data.is_some() && self.message().len() <= room;
        self.event_data = data;
        if fits {
            Fit::WithoutData
        } else {
            Fit::TooLarge
        }
    }

    fn render(&self) -> Event {
        let account = self.account.as_deref();
        let body = stackone::render(&Envelope {
            id: self.id,
            project: self.project,
            event_type: &self.event_type,
            occurred_at: self.occurred_at,
            sent_at: self.published_at,
            record_id: &self.record_id,
            account: account.map(|account| (account.id, &account.definition)),
            raw_event: self.raw_event.as_deref(),
            event_data: self.event_data.as_deref(),
        });
        Event {
            id: self.id,
            project: self.project,
            event_type: self.event_type.clone(),
            source: self.source,
            account: account.map(|account| account.id),
            provider: account.map(|account| account.definition.provider.as_str().into()),
            record_id: self.record_id.as_ref().into(),
            occurred_at: self.occurred_at,
            published_at: self.published_at,
            lane: self.lane(),
            registry_sequence: None,
            body: body.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::domain::account::{AccountDefinition, AccountSecrets};
    use shared::ids::{AccountId, Sequence};
    use shared::secret::Secret;

    use super::*;

    fn json(text: &str) -> Box<RawValue> {
        let text = serde_json::to_string(text).unwrap();
        RawValue::from_string(text).unwrap()
    }

    fn account(text: &str) -> Arc<Account> {
        Arc::new(Account {
            id: AccountId::from_bytes([2; 16]),
            project: ProjectId::from_bytes([1; 16]),
            definition: AccountDefinition {
                provider: "bamboohr".into(),
                name: None,
                origin_owner_id: text.into(),
                origin_owner_name: Some(text.into()),
                origin_username: Some(text.into()),
                sealed_secrets: Vec::new(),
            },
            secrets: AccountSecrets {
                ingest_key: Secret::new("key"),
                signing_secret: None,
                signing_secret_generated: false,
                credentials: None,
                settings: None,
            },
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
            sequence: Sequence(1),
        })
    }

    fn event<'a>(
        record_id: &'a str,
        account: &Arc<Account>,
        raw: Option<&RawValue>,
        data: Option<&'a RawValue>,
    ) -> UnrenderedEvent<'a> {
        UnrenderedEvent {
            id: EventId::from_bytes([3; 16]),
            project: ProjectId::from_bytes([1; 16]),
            event_type: EventType::parse("hris_employees.updated").unwrap(),
            source: Source::NativeProgrammatic,
            account: Some(account.clone()),
            record_id: record_id.into(),
            occurred_at: Timestamp::from_millis(i64::MIN),
            published_at: Timestamp::from_millis(1_750_158_000_123),
            raw_event: raw.map(|raw| raw.to_owned().into()),
            event_data: data.map(Cow::Borrowed),
        }
    }

    #[test]
    fn what_does_not_fit_loses_its_data_first() {
        let (raw, data, account) = (
            json(&"r".repeat(5_000)),
            json(&"d".repeat(5_000)),
            account(""),
        );
        let mut event = event("42", &account, Some(&raw), Some(&data));
        let whole = event.message().len();
        for (max_payload, expected) in [
            (1 << 20, Fit::Whole),
            (whole + HEADERS_BYTES_MAX, Fit::Whole),
            (whole + HEADERS_BYTES_MAX - 1, Fit::WithoutData),
            (5_000, Fit::TooLarge),
            (0, Fit::TooLarge),
        ] {
            assert_eq!(event.fit(max_payload), expected, "{max_payload}");
        }
        assert_eq!(event.message().len(), whole, "asking changes nothing");
        event.event_data = None;
        assert_eq!(event.fit(5_000), Fit::TooLarge);
    }

    #[test]
    fn the_message_decodes_to_the_event() {
        let (data, account) = (json("x"), account("o"));
        let event = event("42", &account, None, Some(&data));
        let decoded = codec::decode_event(&event.message()).unwrap();
        assert_eq!(decoded, event.render());
        assert_eq!(decoded.provider.as_deref(), Some("bamboohr"));
        assert!(decoded.body.ends_with(br#""event_data":"x"}"#));
    }

    proptest! {
        #[test]
        fn the_bound_holds(record in "\\PC{0,40}|[\u{0}-\u{1f}]{0,300}", text in any::<String>()) {
            let (raw, account) = (json(&text), account(&record));
            let event = event(&record, &account, Some(&raw), Some(&raw));
            prop_assert!(event.message().len() <= event.message_bytes_bound());
        }
    }
}
