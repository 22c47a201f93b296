//! Identifiers: UUIDs behind a printed prefix, and numbers that must not be mixed up.
//!
//! Ids are UUIDv7 (time and randomness are given by the caller) except event ids that are
//! derived from a dedup tuple, which are UUIDv8.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

use crate::time::Timestamp;

/// The text is no id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}<uuid>: {text:?}")]
pub struct InvalidId {
    prefix: &'static str,
    text: String,
}

/// The random part of one UUIDv7.
pub type IdRandom = [u8; 10];

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// A UUIDv7 of `now` and the given randomness.
            pub fn new(now: Timestamp, random: &IdRandom) -> Self {
                let ms = u64::try_from(now.as_millis()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(ms, random).into_uuid())
            }

            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            pub const fn to_bytes(self) -> [u8; 16] {
                *self.0.as_bytes()
            }

            /// The bare UUID, as the HR-ON dialect prints it.
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// The id that [`Self::uuid`] prints so, hyphens included.
            pub fn from_bare(text: &str) -> Option<Self> {
                let uuid = Uuid::try_parse(text).ok()?;
                (text.len() == uuid::fmt::Hyphenated::LENGTH).then_some(Self(uuid))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix($prefix)
                    .filter(|hex| hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
                    .and_then(|hex| Uuid::try_parse(hex).ok())
                    .map(Self)
                    .ok_or_else(|| InvalidId { prefix: $prefix, text: text.chars().take(64).collect() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

id!(/// A tenant.
    ProjectId, "prj_");
id!(/// One customer's linked login at a provider.
    AccountId, "acc_");
id!(/// One normalized fact; also its `Nats-Msg-Id` and its `webhook-id`.
    EventId, "evt_");
impl EventId {
    /// When it was made, if the id says so: one that is derived from a dedup tuple does not.
    pub fn created_at(self) -> Option<Timestamp> {
        let time = self
            .0
            .get_timestamp()
            .filter(|_| self.0.get_version_num() == 7)?;
        let (seconds, nanos) = time.to_unix();
        let seconds = i64::try_from(seconds).ok()?.checked_mul(1_000)?;
        Some(Timestamp::from_millis(
            seconds.saturating_add(i64::from(nanos / 1_000_000)),
        ))
    }
}

id!(/// A subscriber's endpoint with its filter, secrets and policy.
    WebhookId, "wh_");
id!(/// A webhook's signing secret.
    SecretId, "sec_");
id!(/// An API key.
    KeyId, "key_");
id!(/// One request to send events of a webhook again.
    ReplayId, "rpl_");
id!(/// A running process of either service.
    ReplicaId, "rep_");

/// Number of a partition, below the partition count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u16);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}", self.0)
    }
}

/// A partition's ownership, by number: 1 for the first owner, one more for each next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Sequence of a message in a stream, from 1; 0 stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a stream. The generation changes only by an operator's command (stream restored
/// from a backup or made anew), so that old sequences can never be taken for new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// From 1.
    pub generation: u32,
    pub sequence: Sequence,
}

/// Hash of an ordering key; equal hashes share a lane, which costs concurrency, never order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneHash(pub u64);

/// Hash of an event type's name, by which JOURNAL names the type. Of those in the catalog no two
/// have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTypeHash(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_with_their_prefix_and_parse_back() {
        let id = ProjectId::new(Timestamp::from_millis(1_750_158_000_123), &[7; 10]);
        assert_eq!(id.uuid().get_version_num(), 7);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().starts_with("prj_01977d8bbffb7"), "{id}");
    }

    #[test]
    fn only_an_id_by_time_tells_when_it_was_made() {
        let at = Timestamp::from_millis(1_750_158_000_123);
        assert_eq!(EventId::new(at, &[7; 10]).created_at(), Some(at));
        let derived = uuid::Builder::from_custom_bytes([7; 16]).into_uuid();
        assert_eq!(EventId::from_uuid(derived).created_at(), None);
    }

    #[test]
    fn another_kind_of_id_or_spelling_is_refused() {
        let id = ProjectId::from_bytes([0xab; 16]).to_string();
        let upper = id.to_uppercase().replace("PRJ_", "prj_");
        let cut = id.strip_suffix('b').unwrap();
        for text in [
            "",
            "prj_",
            cut,
            &upper,
            &format!("{id}0"),
            &format!("x{id}"),
        ] {
            assert!(text.parse::<ProjectId>().is_err(), "{text:?}");
        }
        assert!(id.parse::<AccountId>().is_err());
        assert!(id.replace("prj_", "acc_").parse::<AccountId>().is_ok());
    }
}
