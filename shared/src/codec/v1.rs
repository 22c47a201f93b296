//! Version 1 of events, packs and epoch entries. Never edited once released; enum variants are
//! appended only.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::DecodeError;
use crate::domain::delivery::FailureKind as DomainFailureKind;
use crate::domain::event::{Event, EventType, Source as DomainSource};
use crate::domain::journal as domain;
use crate::ids::{
    AccountId, Epoch, EventId, LaneHash, Position as DomainPosition, ProjectId, ReplicaId,
    Sequence, WebhookId,
};
use crate::time::Timestamp;

type Id = [u8; 16];

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

#[derive(Serialize, Deserialize)]
enum Source {
    NativeProgrammatic,
    NativeManual,
    Synthetic,
    Account,
    FirstParty,
    Test,
}

impl<'a> From<&'a Event> for EventHead<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            id: event.id.to_bytes(),
            project: event.project.to_bytes(),
            event_type: event.event_type.as_str(),
            source: match event.source {
                DomainSource::NativeProgrammatic => Source::NativeProgrammatic,
                DomainSource::NativeManual => Source::NativeManual,
                DomainSource::Synthetic => Source::Synthetic,
                DomainSource::Account => Source::Account,
                DomainSource::FirstParty => Source::FirstParty,
                DomainSource::Test => Source::Test,
            },
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
            source: match self.source {
                Source::NativeProgrammatic => DomainSource::NativeProgrammatic,
                Source::NativeManual => DomainSource::NativeManual,
                Source::Synthetic => DomainSource::Synthetic,
                Source::Account => DomainSource::Account,
                Source::FirstParty => DomainSource::FirstParty,
                Source::Test => DomainSource::Test,
            },
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

#[derive(Serialize, Deserialize)]
pub(super) struct EpochEntry {
    epoch: u64,
    owner: Id,
    at_ms: i64,
    generation: u32,
}

impl From<&domain::EpochEntry> for EpochEntry {
    fn from(entry: &domain::EpochEntry) -> Self {
        Self {
            epoch: entry.epoch.0,
            owner: entry.owner.to_bytes(),
            at_ms: entry.at.as_millis(),
            generation: entry.generation,
        }
    }
}

impl From<EpochEntry> for domain::EpochEntry {
    fn from(wire: EpochEntry) -> Self {
        Self {
            epoch: Epoch(wire.epoch),
            owner: ReplicaId::from_bytes(wire.owner),
            at: Timestamp::from_millis(wire.at_ms),
            generation: wire.generation,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Pack {
    epoch: u64,
    number: u64,
    at_ms: i64,
    classified: Position,
    checkpoint: Option<Checkpoint>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Position {
    generation: u32,
    sequence: u64,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    position: Position,
    event: Id,
}

#[derive(Serialize, Deserialize)]
enum Entry {
    ConfigApplied {
        webhook: Id,
        registry_sequence: u64,
        from: Position,
    },
    Delivered {
        attempt: Attempt,
        status: u16,
    },
    AttemptFailed {
        attempt: Attempt,
        failure: Failure,
        retry_at_ms: i64,
    },
    Exhausted {
        attempt: Attempt,
        failure: Failure,
        reason: ExhaustReason,
    },
    Ended {
        attempt: Attempt,
        end: UnsentEnd,
    },
    AccountsProjected {
        registry_sequence: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Attempt {
    webhook: Id,
    position: Position,
    event: Id,
    lane: u64,
    number: u32,
    started_at_ms: i64,
    latency_ms: u32,
    previous_entry: Option<Place>,
    previous_failure: Option<Place>,
}

#[derive(Serialize, Deserialize)]
struct Place {
    pack: u64,
    index: u16,
}

#[derive(Serialize, Deserialize)]
struct Failure {
    kind: FailureKind,
    status: Option<u16>,
    sealed_answer: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
enum FailureKind {
    Timeout,
    Connect,
    Tls,
    Dns,
    RefusedAddress,
    Reset,
    Status,
    Protocol,
}

#[derive(Serialize, Deserialize)]
enum UnsentEnd {
    Skipped(SkipReason),
    Exhausted(ExhaustReason),
}

#[derive(Serialize, Deserialize)]
enum ExhaustReason {
    Schedule,
    Expired,
}

#[derive(Serialize, Deserialize)]
enum SkipReason {
    Disabled,
    Deactivated,
    Unverified,
    Deleted,
    Erased,
    Undecodable,
}

impl From<DomainPosition> for Position {
    fn from(position: DomainPosition) -> Self {
        Self {
            generation: position.generation,
            sequence: position.sequence.0,
        }
    }
}

impl From<Position> for DomainPosition {
    fn from(wire: Position) -> Self {
        Self {
            generation: wire.generation,
            sequence: Sequence(wire.sequence),
        }
    }
}

impl From<&domain::Pack> for Pack {
    fn from(pack: &domain::Pack) -> Self {
        Self {
            epoch: pack.epoch.0,
            number: pack.number,
            at_ms: pack.at.as_millis(),
            classified: pack.classified.into(),
            checkpoint: pack.checkpoint.map(|checkpoint| Checkpoint {
                position: checkpoint.position.into(),
                event: checkpoint.event.to_bytes(),
            }),
            entries: pack.entries.iter().map(Into::into).collect(),
        }
    }
}

impl From<Pack> for domain::Pack {
    fn from(wire: Pack) -> Self {
        Self {
            epoch: Epoch(wire.epoch),
            number: wire.number,
            at: Timestamp::from_millis(wire.at_ms),
            classified: wire.classified.into(),
            checkpoint: wire.checkpoint.map(|checkpoint| domain::Checkpoint {
                position: checkpoint.position.into(),
                event: EventId::from_bytes(checkpoint.event),
            }),
            entries: wire.entries.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<&domain::JournalEntry> for Entry {
    fn from(entry: &domain::JournalEntry) -> Self {
        use domain::JournalEntry as E;
        match entry {
            E::ConfigApplied {
                webhook,
                registry_sequence,
                from,
            } => Self::ConfigApplied {
                webhook: webhook.to_bytes(),
                registry_sequence: registry_sequence.0,
                from: (*from).into(),
            },
            E::Delivered { attempt, status } => Self::Delivered {
                attempt: attempt.into(),
                status: *status,
            },
            E::AttemptFailed {
                attempt,
                failure,
                retry_at,
            } => Self::AttemptFailed {
                attempt: attempt.into(),
                failure: failure.into(),
                retry_at_ms: retry_at.as_millis(),
            },
            E::Exhausted {
                attempt,
                failure,
                reason,
            } => Self::Exhausted {
                attempt: attempt.into(),
                failure: failure.into(),
                reason: (*reason).into(),
            },
            E::Ended { attempt, end } => Self::Ended {
                attempt: attempt.into(),
                end: match end {
                    domain::UnsentEnd::Skipped(reason) => UnsentEnd::Skipped((*reason).into()),
                    domain::UnsentEnd::Exhausted(reason) => UnsentEnd::Exhausted((*reason).into()),
                },
            },
            E::AccountsProjected { registry_sequence } => Self::AccountsProjected {
                registry_sequence: registry_sequence.0,
            },
        }
    }
}

impl From<Entry> for domain::JournalEntry {
    fn from(wire: Entry) -> Self {
        match wire {
            Entry::ConfigApplied {
                webhook,
                registry_sequence,
                from,
            } => Self::ConfigApplied {
                webhook: WebhookId::from_bytes(webhook),
                registry_sequence: Sequence(registry_sequence),
                from: from.into(),
            },
            Entry::Delivered { attempt, status } => Self::Delivered {
                attempt: attempt.into(),
                status,
            },
            Entry::AttemptFailed {
                attempt,
                failure,
                retry_at_ms,
            } => Self::AttemptFailed {
                attempt: attempt.into(),
                failure: failure.into(),
                retry_at: Timestamp::from_millis(retry_at_ms),
            },
            Entry::Exhausted {
                attempt,
                failure,
                reason,
            } => Self::Exhausted {
                attempt: attempt.into(),
                failure: failure.into(),
                reason: reason.into(),
            },
            Entry::Ended { attempt, end } => Self::Ended {
                attempt: attempt.into(),
                end: match end {
                    UnsentEnd::Skipped(reason) => domain::UnsentEnd::Skipped(reason.into()),
                    UnsentEnd::Exhausted(reason) => domain::UnsentEnd::Exhausted(reason.into()),
                },
            },
            Entry::AccountsProjected { registry_sequence } => Self::AccountsProjected {
                registry_sequence: Sequence(registry_sequence),
            },
        }
    }
}

impl From<&domain::AttemptEntry> for Attempt {
    fn from(attempt: &domain::AttemptEntry) -> Self {
        let place = |place: domain::EntryPlace| Place {
            pack: place.pack.0,
            index: place.index,
        };
        Self {
            webhook: attempt.webhook.to_bytes(),
            position: attempt.position.into(),
            event: attempt.event.to_bytes(),
            lane: attempt.lane.0,
            number: attempt.number,
            started_at_ms: attempt.started_at.as_millis(),
            latency_ms: attempt.latency_ms,
            previous_entry: attempt.previous.entry.map(place),
            previous_failure: attempt.previous.failure.map(place),
        }
    }
}

impl From<Attempt> for domain::AttemptEntry {
    fn from(wire: Attempt) -> Self {
        let place = |place: Place| domain::EntryPlace {
            pack: Sequence(place.pack),
            index: place.index,
        };
        Self {
            webhook: WebhookId::from_bytes(wire.webhook),
            position: wire.position.into(),
            event: EventId::from_bytes(wire.event),
            lane: LaneHash(wire.lane),
            number: wire.number,
            started_at: Timestamp::from_millis(wire.started_at_ms),
            latency_ms: wire.latency_ms,
            previous: domain::Links {
                entry: wire.previous_entry.map(place),
                failure: wire.previous_failure.map(place),
            },
        }
    }
}

impl From<&domain::Failure> for Failure {
    fn from(failure: &domain::Failure) -> Self {
        use DomainFailureKind as K;
        Self {
            kind: match failure.kind {
                K::Timeout => FailureKind::Timeout,
                K::Connect => FailureKind::Connect,
                K::Tls => FailureKind::Tls,
                K::Dns => FailureKind::Dns,
                K::RefusedAddress => FailureKind::RefusedAddress,
                K::Reset => FailureKind::Reset,
                K::Status => FailureKind::Status,
                K::Protocol => FailureKind::Protocol,
            },
            status: failure.status,
            sealed_answer: failure.sealed_answer.clone(),
        }
    }
}

impl From<Failure> for domain::Failure {
    fn from(wire: Failure) -> Self {
        use DomainFailureKind as K;
        Self {
            kind: match wire.kind {
                FailureKind::Timeout => K::Timeout,
                FailureKind::Connect => K::Connect,
                FailureKind::Tls => K::Tls,
                FailureKind::Dns => K::Dns,
                FailureKind::RefusedAddress => K::RefusedAddress,
                FailureKind::Reset => K::Reset,
                FailureKind::Status => K::Status,
                FailureKind::Protocol => K::Protocol,
            },
            status: wire.status,
            sealed_answer: wire.sealed_answer,
        }
    }
}

impl From<domain::ExhaustReason> for ExhaustReason {
    fn from(reason: domain::ExhaustReason) -> Self {
        match reason {
            domain::ExhaustReason::Schedule => Self::Schedule,
            domain::ExhaustReason::Expired => Self::Expired,
        }
    }
}

impl From<ExhaustReason> for domain::ExhaustReason {
    fn from(wire: ExhaustReason) -> Self {
        match wire {
            ExhaustReason::Schedule => Self::Schedule,
            ExhaustReason::Expired => Self::Expired,
        }
    }
}

impl From<domain::SkipReason> for SkipReason {
    fn from(reason: domain::SkipReason) -> Self {
        match reason {
            domain::SkipReason::Disabled => Self::Disabled,
            domain::SkipReason::Deactivated => Self::Deactivated,
            domain::SkipReason::Unverified => Self::Unverified,
            domain::SkipReason::Deleted => Self::Deleted,
            domain::SkipReason::Erased => Self::Erased,
            domain::SkipReason::Undecodable => Self::Undecodable,
        }
    }
}

impl From<SkipReason> for domain::SkipReason {
    fn from(wire: SkipReason) -> Self {
        match wire {
            SkipReason::Disabled => Self::Disabled,
            SkipReason::Deactivated => Self::Deactivated,
            SkipReason::Unverified => Self::Unverified,
            SkipReason::Deleted => Self::Deleted,
            SkipReason::Erased => Self::Erased,
            SkipReason::Undecodable => Self::Undecodable,
        }
    }
}
