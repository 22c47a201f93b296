//! Version 1 of events and epoch entries, and of the values that all messages are made of. Never
//! edited once released; enum variants are appended only.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::DecodeError;
use super::mirror::{Mirror, mirror};
use crate::domain::event::{Event, EventType, Source as DomainSource};
use crate::domain::journal as domain;
use crate::ids::{
    AccountId, Epoch, EventId, EventTypeHash, LaneHash, Position as DomainPosition, ProjectId,
    ReplayId, ReplicaId, Sequence, WebhookId,
};
use crate::time::Timestamp;

pub(super) type Id = [u8; 16];

/// How a newtype and the bare value that it stands for on the wire become each other.
macro_rules! value {
    ($wire:ty = $domain:ty, $of:expr, $into_domain:expr) => {
        impl Mirror<$domain> for $wire {
            fn of(domain: &$domain) -> Self {
                $of(*domain)
            }

            fn into_domain(self) -> $domain {
                $into_domain(self)
            }
        }
    };
}

value!(Id = WebhookId, WebhookId::to_bytes, WebhookId::from_bytes);
value!(Id = EventId, EventId::to_bytes, EventId::from_bytes);
value!(Id = ReplayId, ReplayId::to_bytes, ReplayId::from_bytes);
value!(Id = ReplicaId, ReplicaId::to_bytes, ReplicaId::from_bytes);
value!(u64 = Epoch, |epoch: Epoch| epoch.0, Epoch);
value!(u64 = Sequence, |sequence: Sequence| sequence.0, Sequence);
value!(u64 = LaneHash, |lane: LaneHash| lane.0, LaneHash);
value!(
    u32 = EventTypeHash,
    |event_type: EventTypeHash| event_type.0,
    EventTypeHash
);
// Milliseconds.
value!(
    i64 = Timestamp,
    Timestamp::as_millis,
    Timestamp::from_millis
);

mirror! {
    struct Position = DomainPosition {
        generation: u32,
        sequence: u64,
    }
}

mirror! {
    enum Source = DomainSource {
        NativeProgrammatic,
        NativeManual,
        Synthetic,
        Account,
        FirstParty,
        Test,
    }
}

mirror! {
    struct EpochEntry = domain::EpochEntry {
        epoch: u64,
        owner: Id,
        at: i64,
        generation: u32,
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct EventHead<'a> {
    id: Id,
    project: Id,
    event_type: &'a str,
    source: Source,
    account: Option<Id>,
    provider: Option<&'a str>,
    record_id: &'a str,
    occurred_at_ms: i64,
    published_at_ms: i64,
    lane: u64,
    registry_sequence: Option<u64>,
    pub(super) body_bytes: u64,
}

impl<'a> From<&'a Event> for EventHead<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            id: event.id.to_bytes(),
            project: event.project.to_bytes(),
            event_type: event.event_type.as_str(),
            source: Source::of(&event.source),
            account: event.account.map(AccountId::to_bytes),
            provider: event.provider.as_deref(),
            record_id: &event.record_id,
            occurred_at_ms: event.occurred_at.as_millis(),
            published_at_ms: event.published_at.as_millis(),
            lane: event.lane.0,
            registry_sequence: event.registry_sequence.map(|sequence| sequence.0),
            body_bytes: event.body.len() as u64,
        }
    }
}

impl EventHead<'_> {
    pub(super) fn into_event(self, body: Bytes) -> Result<Event, DecodeError> {
        Ok(Event {
            id: EventId::from_bytes(self.id),
            project: ProjectId::from_bytes(self.project),
            event_type: EventType::parse(self.event_type).map_err(DecodeError::malformed)?,
            source: self.source.into_domain(),
            account: self.account.map(AccountId::from_bytes),
            provider: self.provider.map(Into::into),
            record_id: self.record_id.into(),
            occurred_at: Timestamp::from_millis(self.occurred_at_ms),
            published_at: Timestamp::from_millis(self.published_at_ms),
            lane: LaneHash(self.lane),
            registry_sequence: self.registry_sequence.map(Sequence),
            body,
        })
    }
}
