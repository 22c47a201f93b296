//! One normalized fact, as it lies in EVENTS.
//!
//! The body is the rendered `stackone` body, opaque from here on: it is rendered once, at
//! ingest, so that every attempt of every webhook sends the same bytes.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};

use crate::ids::{AccountId, EventId, LaneHash, ProjectId, Sequence};
use crate::limits::EVENT_TYPE_BYTES_MAX;
use crate::time::Timestamp;

/// A unified event type: `{resource}.{action}`, such as `hris_employees.created`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(Box<str>);

/// The text is no event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an event type of the form resource.action: {0:?}")]
pub struct InvalidEventType(String);

impl EventType {
    /// Lower-case letters, digits and `_`, in two parts joined by a dot; the first character of
    /// each is a letter. That keeps wildcards and spaces out of subjects.
    pub fn parse(text: &str) -> Result<Self, InvalidEventType> {
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        match text.split_once('.') {
            Some((resource, action))
                if text.len() <= EVENT_TYPE_BYTES_MAX && part(resource) && part(action) =>
            {
                Ok(Self(text.into()))
            }
            _ => Err(InvalidEventType(
                text.chars().take(EVENT_TYPE_BYTES_MAX).collect(),
            )),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `hris_employees` of `hris_employees.created`.
    pub fn resource(&self) -> &str {
        self.0.split_once('.').map_or("", |(resource, _)| resource)
    }

    pub fn action(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, action)| action)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for EventType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A provider's callback, over a subscription that we made.
    NativeProgrammatic,
    /// A provider's callback, over a subscription that the customer made by hand.
    NativeManual,
    /// A change found by polling.
    Synthetic,
    /// A linked account was created, updated or deleted, or a webhook fails, recovers or is
    /// deactivated: what the platform itself says.
    Account,
    /// `POST /v1/events`.
    FirstParty,
    /// A trigger; never counted.
    Test,
}

/// An event with its rendered body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub project: ProjectId,
    pub event_type: EventType,
    pub source: Source,
    pub account: Option<AccountId>,
    /// Key of the account's connector.
    pub provider: Option<Box<str>>,
    pub record_id: Box<str>,
    /// When it happened, by the source's word, else when it was received.
    pub occurred_at: Timestamp,
    /// `sent_at` of the rendered body.
    pub published_at: Timestamp,
    pub lane: LaneHash,
    /// The registry entry that an account event tells of (`protocol.md`, rule 27).
    pub registry_sequence: Option<Sequence>,
    pub body: Bytes,
}

/// The dedup tuple of `protocol.md`, rule 1. Event id and `Nats-Msg-Id` both come from all of it:
/// message ids are stream-wide, and the same provider id in two projects would else swallow one.
#[derive(Clone, Copy, Debug)]
pub struct DedupTuple<'a> {
    pub project: ProjectId,
    pub account: Option<AccountId>,
    /// Connector key, or `first_party`, `account`.
    pub connector: &'a str,
    /// The provider's own id, the hash of the change, or the idempotency key.
    pub identity: &'a str,
    pub event_type: &'a EventType,
    pub record_id: &'a str,
    /// Index among the events of one callback that share everything else.
    pub index: u32,
}

impl DedupTuple<'_> {
    /// A UUIDv8 of the first 16 bytes of a SHA-256 over the length-prefixed parts.
    pub fn event_id(&self) -> EventId {
        let mut hash = Sha256::new();
        hash.update(b"carillon event id 1\0");
        hash.update(self.project.to_bytes());
        hash.update(self.account.map_or([0; 16], AccountId::to_bytes));
        for part in [
            self.connector,
            self.identity,
            self.event_type.as_str(),
            self.record_id,
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(self.index.to_le_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let mut bytes = [0; 16];
        bytes
            .iter_mut()
            .zip(digest)
            .for_each(|(to, from)| *to = from);
        EventId::from_uuid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// An event of the given type, for tests of this crate.
#[cfg(test)]
pub(crate) fn test_event(event_type: &str, source: Source, provider: Option<&str>) -> Event {
    let event_type = EventType::parse(event_type).unwrap();
    Event {
        id: EventId::from_bytes([3; 16]),
        project: ProjectId::from_bytes([1; 16]),
        account: Some(AccountId::from_bytes([2; 16])),
        source,
        provider: provider.map(Into::into),
        record_id: "42".into(),
        occurred_at: Timestamp::from_millis(1_750_158_000_000),
        published_at: Timestamp::from_millis(1_750_158_000_123),
        lane: crate::partition::lane_hash(None, event_type.resource(), "42"),
        registry_sequence: None,
        body: Bytes::from_static(b"{}"),
        event_type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_have_two_plain_parts() {
        for good in ["hris_employees.created", "a.b", "x1.y_2"] {
            assert_eq!(EventType::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "", "a", "a.", ".b", "a.b.c", "A.b", "a.*", "a.>", "a b.c", "1a.b", "ä.b",
        ] {
            assert!(EventType::parse(bad).is_err(), "{bad:?}");
        }
        assert!(EventType::parse(&format!("a.{}", "b".repeat(200))).is_err());
    }

    #[test]
    fn every_part_of_the_tuple_changes_the_id() {
        let (created, updated) = (
            EventType::parse("hris_employees.created").unwrap(),
            EventType::parse("hris_employees.updated").unwrap(),
        );
        let base = DedupTuple {
            project: ProjectId::from_bytes([1; 16]),
            account: Some(AccountId::from_bytes([2; 16])),
            connector: "bamboohr",
            identity: "a",
            event_type: &created,
            record_id: "b",
            index: 0,
        };
        let others = [
            DedupTuple {
                project: ProjectId::from_bytes([9; 16]),
                ..base
            },
            DedupTuple {
                account: None,
                ..base
            },
            DedupTuple {
                connector: "greenhouse",
                ..base
            },
            DedupTuple {
                identity: "ab",
                record_id: "",
                ..base
            },
            DedupTuple {
                event_type: &updated,
                ..base
            },
            DedupTuple {
                record_id: "c",
                ..base
            },
            DedupTuple { index: 1, ..base },
        ];
        let id = base.event_id();
        assert_eq!(id, base.event_id());
        assert_eq!(id.uuid().get_version_num(), 8);
        assert_eq!(id.to_string(), "evt_6d1ab9b5fbe1892b9dd68bbba7985a40");
        for other in others {
            assert_ne!(id, other.event_id(), "{other:?}");
        }
    }
}
