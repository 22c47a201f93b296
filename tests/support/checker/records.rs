//! What the checker judges by: everything that was recorded of a run.

use std::collections::HashMap;

use shared::domain::event::Event;
use shared::domain::journal::EpochEntry;
use shared::domain::registry::RegistryRecord;
use shared::ids::{EventId, PartitionId, ProjectId, ReplicaId, WebhookId};
use shared::time::Timestamp;

use super::journal::PackFacts;
use crate::receiver::recorder::{Record, Recorded};

/// Everything that was recorded, each list in the order of its log.
#[derive(Clone, Debug)]
pub struct Records {
    pub events: Vec<EventLine>,
    pub registry: Vec<RegistryLine>,
    pub journal: Vec<JournalLine>,
    /// Only what ingest answered with success.
    pub client: Vec<ClientAnswer>,
    /// The webhook behind each path of the receiver.
    pub endpoints: HashMap<String, WebhookId>,
    pub receiver: Record,
    pub faults: Vec<Fault>,
    /// What the API said when the run was over; empty when it cannot say.
    pub told: Vec<ToldLedger>,
    pub state: State,
}

/// Whether the run had come to rest when it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything should have ended.
    Quiet,
    /// Deliveries may be pending.
    Running,
}

/// A message of EVENTS.
#[derive(Clone, Debug)]
pub struct EventLine {
    pub sequence: u64,
    /// By the server's clock.
    pub stored_at: Timestamp,
    pub partition: PartitionId,
    pub event: Event,
    /// Hash of its body, as the receiver computes it.
    pub body: u64,
}

/// A message of REGISTRY about a webhook.
#[derive(Clone, Debug)]
pub struct RegistryLine {
    pub sequence: u64,
    pub project: ProjectId,
    pub webhook: WebhookId,
    pub record: RegistryRecord,
}

/// A message of JOURNAL.
#[derive(Clone, Debug)]
pub struct JournalLine {
    pub sequence: u64,
    pub stored_at: Timestamp,
    pub partition: PartitionId,
    pub content: JournalContent,
}

#[derive(Clone, Debug)]
pub enum JournalContent {
    Epoch(EpochEntry),
    Pack(PackFacts),
}

/// An event that ingest said it has.
#[derive(Clone, Debug)]
pub struct ClientAnswer {
    pub project: ProjectId,
    pub idempotency_key: String,
    pub record_id: String,
    pub id: EventId,
}

/// Something that was done to a process.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: FaultKind,
    /// To which process, for a reader.
    pub what: String,
    /// Of a dispatcher, if its log tells.
    pub replica: Option<ReplicaId>,
    pub at: Timestamp,
    /// When it was undone.
    pub until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    DispatcherKilled,
    DispatcherPaused,
    DispatcherStopped,
    DispatcherAdded,
    /// Its connection to the servers was cut or silent.
    DispatcherCutOff,
    /// What touches no owner.
    Other,
}

/// A webhook's counts as the API tells them.
#[derive(Clone, Copy, Debug)]
pub struct ToldLedger {
    pub webhook: WebhookId,
    pub accepted: u64,
    pub delivered: u64,
    pub pending: u64,
    pub exhausted: u64,
    pub skipped: u64,
    pub gap: i64,
}

impl Record {
    /// Wall time of one of its times. All processes read one machine's clock.
    pub(super) fn wall(&self, at_us: u64) -> Timestamp {
        let ms = i64::try_from(at_us / 1_000).unwrap_or(i64::MAX);
        self.started_at.plus_millis(ms)
    }
}

impl Recorded {
    /// When it was answered, or arrived if it never was.
    pub(super) fn end_us(&self) -> u64 {
        self.answered.map_or(self.at_us, |answered| answered.at_us)
    }
}
