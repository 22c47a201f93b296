//! A small run that is right.

use std::collections::HashMap;

use bytes::Bytes;
use shared::domain::event::{Event, EventType, Source};
use shared::domain::filter::{Pattern, Selection, Selector};
use shared::domain::journal::{EpochEntry, LanesSettled, UnsentEnd};
use shared::domain::policy::Policy;
use shared::domain::registry::{RegistryEntry, RegistryRecord};
use shared::domain::webhook::{Dialect, Status, WebhookDefinition};
use shared::ids::{
    Epoch, EventId, LaneHash, PartitionId, Position, ProjectId, ReplicaId, SecretId, Sequence,
    WebhookId,
};
use shared::partition::event_type_hash;
use shared::time::Timestamp;

use crate::checker::*;
use crate::receiver::recorder::{AnsweredAt, Record, Recorded, body_hash};

pub(super) const START_MS: i64 = 1_800_000_000_000;
pub(super) const PARTITION: PartitionId = PartitionId(3);
pub(super) const PATH: usize = 0;

pub(super) fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(START_MS + ms)
}

pub(super) fn project(number: u8) -> ProjectId {
    ProjectId::from_bytes([number; 16])
}

pub(super) fn event_type() -> EventType {
    EventType::parse("crm_contacts.updated").unwrap()
}

pub(super) fn webhook() -> WebhookId {
    WebhookId::from_bytes([9; 16])
}

pub(super) fn event_id(sequence: u64) -> EventId {
    EventId::from_bytes([u8::try_from(sequence).unwrap(); 16])
}

/// Of a record with a name of one letter.
pub(super) fn lane(record: &str) -> LaneHash {
    LaneHash(record.bytes().next().map_or(0, u64::from))
}

pub(super) fn event(sequence: u64, record: &str) -> EventLine {
    let body = Bytes::from(format!("body {sequence}"));
    EventLine {
        sequence,
        stored_at: at(i64::try_from(sequence).unwrap()),
        partition: PARTITION,
        body: body_hash(&body),
        event: Event {
            id: event_id(sequence),
            project: project(1),
            event_type: event_type(),
            source: Source::FirstParty,
            account: None,
            provider: None,
            record_id: record.into(),
            occurred_at: at(0),
            published_at: at(0),
            lane: lane(record),
            registry_sequence: None,
            body,
        },
    }
}

pub(super) fn definition(status: Status) -> WebhookDefinition {
    let all = Selector {
        pattern: Pattern::All,
        providers: Vec::new(),
        sources: Vec::new(),
    };
    WebhookDefinition {
        dialect: Dialect::Stackone,
        sealed_endpoint: Vec::new(),
        selection: Selection::new(vec![all]).unwrap(),
        description: None,
        verification_required: false,
        verified_at: None,
        policy: Policy {
            retry_schedule_ms: vec![100],
            max_in_flight: 2,
            ..Policy::default()
        },
        status,
        status_reason: None,
        active_secret: SecretId::from_bytes([1; 16]),
        previous_secret: None,
    }
}

pub(super) fn registry(sequence: u64, entry: RegistryEntry) -> RegistryLine {
    RegistryLine {
        sequence,
        project: project(1),
        webhook: webhook(),
        record: RegistryRecord {
            at: at(0),
            by: "admin".into(),
            entry,
        },
    }
}

pub(super) fn created() -> RegistryEntry {
    RegistryEntry::WebhookCreated {
        from: Position {
            generation: 1,
            sequence: Sequence(1),
        },
        definition: definition(Status::Enabled),
    }
}

pub(super) fn line(sequence: u64, at_ms: i64, content: JournalContent) -> JournalLine {
    JournalLine {
        sequence,
        stored_at: at(at_ms),
        partition: PARTITION,
        content,
    }
}

pub(super) fn epoch(number: u64, at_ms: i64) -> JournalContent {
    JournalContent::Epoch(EpochEntry {
        epoch: Epoch(number),
        owner: ReplicaId::from_bytes([u8::try_from(number).unwrap(); 16]),
        at: at(at_ms),
        generation: 1,
    })
}

pub(super) fn pack(
    (epoch, number): (u64, u64),
    at_ms: i64,
    classified: u64,
    facts: Vec<Fact>,
) -> JournalContent {
    JournalContent::Pack(PackFacts {
        epoch,
        number,
        at: at(at_ms),
        classified,
        facts,
        counted: Vec::new(),
        counts_continue: false,
    })
}

/// The pack, which counts so many as accepted.
pub(super) fn counting(accepted: u64, content: JournalContent) -> JournalContent {
    let JournalContent::Pack(mut pack) = content else {
        panic!("an epoch entry");
    };
    pack.counted = vec![(webhook(), None, accepted)];
    JournalContent::Pack(pack)
}

pub(super) fn applied(registry_sequence: u64, from: u64) -> Fact {
    Fact::ConfigApplied {
        webhook: webhook(),
        registry_sequence,
        from,
        back_through: None,
        lifts: false,
    }
}

/// `applied` that lifts what an owner decided.
pub(super) fn lifted(registry_sequence: u64, from: u64) -> Fact {
    Fact::ConfigApplied {
        webhook: webhook(),
        registry_sequence,
        from,
        back_through: None,
        lifts: true,
    }
}

/// `applied` to what was classified before.
pub(super) fn reaching_back(registry_sequence: u64, from: u64, through: u64) -> Fact {
    Fact::ConfigApplied {
        webhook: webhook(),
        registry_sequence,
        from,
        back_through: Some(through),
        lifts: false,
    }
}

pub(super) fn counted_back(accepted: u64) -> Fact {
    Fact::CountedBack {
        webhook: webhook(),
        accepted,
        skipped: Vec::new(),
    }
}

pub(super) fn deactivated(from: u64) -> Fact {
    Fact::Decided {
        webhook: webhook(),
        from,
        status: Status::Deactivated,
    }
}

pub(super) fn quarantined(from: u64) -> Fact {
    Fact::Decided {
        webhook: webhook(),
        from,
        status: Status::Quarantined,
    }
}

pub(super) fn pending_ended(through: u64, end: UnsentEnd, count: u64, kept: &[u64]) -> Fact {
    Fact::PendingEnded {
        webhook: webhook(),
        through,
        end,
        count,
        kept: kept.to_vec(),
    }
}

pub(super) fn settled(resolved: u64, lanes: LanesSettled) -> Fact {
    Fact::Settled {
        webhook: webhook(),
        resolved,
        lanes,
    }
}

pub(super) fn opened(at_ms: i64) -> Fact {
    Fact::BreakerOpened {
        webhook: webhook(),
        at: at(at_ms),
    }
}

pub(super) fn closed(at_ms: i64) -> Fact {
    Fact::BreakerClosed {
        webhook: webhook(),
        at: at(at_ms),
    }
}

pub(super) fn attempted(sequence: u64, number: u32, started_ms: i64, outcome: Outcome) -> Fact {
    Fact::Attempted(Attempt {
        webhook: webhook(),
        sequence,
        event: event_id(sequence),
        event_type: event_type_hash(&event_type()),
        number,
        started_at: at(started_ms),
        latency_ms: 10,
        counts: false,
        outcome,
    })
}

pub(super) fn delivered(sequence: u64, number: u32, started_ms: i64) -> Fact {
    attempted(
        sequence,
        number,
        started_ms,
        Outcome::Delivered { status: 204 },
    )
}

pub(super) fn failed(sequence: u64, number: u32, started_ms: i64, retry_ms: i64) -> Fact {
    let retry_at = at(retry_ms);
    attempted(sequence, number, started_ms, Outcome::Failed { retry_at })
}

/// Arrives so long after the start, and is answered 5 ms later.
pub(super) fn arrival(sequence: u64, at_ms: u64, status: u16) -> Recorded {
    Recorded {
        path: PATH,
        event: Some(event_id(sequence)),
        body: body_hash(format!("body {sequence}").as_bytes()),
        at_us: at_ms * 1_000,
        answered: Some(AnsweredAt {
            status,
            at_us: (at_ms + 5) * 1_000,
            completed: true,
        }),
    }
}

/// Events 1 and 2 of record `a`, 3 and 4 of record `b`, of which 3 fails once. Between lies a loss
/// of the partition, because of which 2 comes twice.
pub(super) fn sample() -> Records {
    let events = vec![event(1, "a"), event(2, "a"), event(3, "b"), event(4, "b")];
    let client = events
        .iter()
        .map(|line| ClientAnswer {
            project: project(1),
            idempotency_key: format!("key {}", line.sequence),
            record_id: line.event.record_id.to_string(),
            id: line.event.id,
        })
        .collect();
    let journal = vec![
        line(1, 5, epoch(1, 5)),
        line(2, 50, counting(4, pack((1, 1), 50, 4, vec![applied(7, 1)]))),
        line(
            3,
            200,
            pack(
                (1, 2),
                200,
                4,
                vec![delivered(1, 1, 100), failed(3, 1, 100, 9_000)],
            ),
        ),
        line(4, 5_000, epoch(2, 5_000)),
        line(5, 5_100, pack((2, 1), 5_100, 4, vec![applied(7, 1)])),
        line(
            6,
            9_200,
            pack(
                (2, 2),
                9_200,
                4,
                vec![
                    delivered(2, 1, 5_200),
                    delivered(3, 2, 9_000),
                    delivered(4, 1, 9_100),
                ],
            ),
        ),
    ];
    let requests = vec![
        arrival(1, 102, 204),
        arrival(3, 103, 500),
        // Answered, and never committed.
        arrival(2, 150, 204),
        arrival(2, 5_202, 204),
        arrival(3, 9_002, 204),
        arrival(4, 9_102, 204),
    ];
    Records {
        events,
        registry: vec![registry(7, created())],
        journal,
        client,
        endpoints: HashMap::from([("/w".to_owned(), webhook())]),
        receiver: Record {
            started_at: at(0),
            paths: vec!["/w".into()],
            requests,
        },
        faults: vec![Fault {
            kind: FaultKind::DispatcherKilled,
            what: "dispatcher-1".into(),
            replica: Some(ReplicaId::from_bytes([1; 16])),
            at: at(4_000),
            until: None,
        }],
        told: Vec::new(),
        state: State::Quiet,
    }
}

/// The pack at that place of the sample's journal.
pub(super) fn pack_at(records: &mut Records, place: usize) -> &mut PackFacts {
    match &mut records.journal[place].content {
        JournalContent::Pack(pack) => pack,
        JournalContent::Epoch(_) => panic!("an epoch entry"),
    }
}

pub(super) fn told(accepted: u64, delivered: u64, gap: i64) -> ToldLedger {
    ToldLedger {
        webhook: webhook(),
        accepted,
        delivered,
        pending: accepted - delivered,
        exhausted: 0,
        skipped: 0,
        gap,
    }
}
