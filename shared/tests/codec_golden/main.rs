//! Bytes of every released version still decode to the same values, and nothing else decodes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may fail loudly"
)]

mod registry;
mod replays;

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use shared::codec::{self, DecodeError};
use shared::domain::account::AccountDefinition;
use shared::domain::delivery::FailureKind;
use shared::domain::event::{Event, EventType, Source};
use shared::domain::filter::Selection;
use shared::domain::journal::{
    AttemptEntry, Checkpoint, Counted, DeactivateReason, EntryPlace, EpochEntry, ExhaustReason,
    Failure, FailureWeight, JournalEntry, Kept, LanesSettled, Links, Pack, SkipReason, UnsentEnd,
};
use shared::domain::policy::Policy;
use shared::domain::registry::{DecidedAt, RegistryEntry, RegistryRecord};
use shared::domain::snapshot::{KeptSnapshot, SnapshotLabel, SnapshotManifest, SnapshotWriteId};
use shared::domain::state::totals::{Row, Tally, Totals, TypeTotals, WebhookTotals};
use shared::domain::state::{
    Applied, Breaker, Failing, Health, Ledger, PartitionState, Rule, WebhookState,
};
use shared::domain::webhook::{Dialect, Status, WebhookDefinition};
use shared::ids::*;
use shared::time::Timestamp;

const AT: Timestamp = Timestamp::from_millis(1_750_158_000_123);

fn position(sequence: u64) -> Position {
    Position {
        generation: 1,
        sequence: Sequence(sequence),
    }
}

fn event() -> Event {
    Event {
        id: EventId::from_bytes([3; 16]),
        project: ProjectId::from_bytes([1; 16]),
        event_type: EventType::parse("hris_employees.created").unwrap(),
        source: Source::NativeManual,
        account: Some(AccountId::from_bytes([2; 16])),
        provider: Some("bamboohr".into()),
        record_id: "42".into(),
        occurred_at: AT,
        published_at: AT,
        lane: LaneHash(7),
        registry_sequence: Some(Sequence(9)),
        body: Bytes::from_static(b"{\"id\":1}"),
    }
}

const WEBHOOK: WebhookId = WebhookId::from_bytes([4; 16]);
const REPLAY: ReplayId = ReplayId::from_bytes([8; 16]);
const EVENT: EventId = EventId::from_bytes([3; 16]);
const EVENT_TYPE: EventTypeHash = EventTypeHash(0xfedc_ba98);
const FAILURE_KINDS: [FailureKind; 8] = [
    FailureKind::Timeout,
    FailureKind::Connect,
    FailureKind::Tls,
    FailureKind::Dns,
    FailureKind::RefusedAddress,
    FailureKind::Reset,
    FailureKind::Status,
    FailureKind::Protocol,
];
const LINKS: Links = Links {
    entry: Some(EntryPlace {
        pack: Sequence(0),
        index: 1,
    }),
    failure: Some(EntryPlace {
        pack: Sequence(60),
        index: 0,
    }),
};
const CHECKPOINT: Checkpoint = Checkpoint {
    position: Position {
        generation: 1,
        sequence: Sequence(79),
    },
    event: EventId::from_bytes([5; 16]),
};

fn pack() -> Pack {
    let skipped = [None].into_iter().chain(SkipReason::ALL.map(Some));
    Pack {
        epoch: Epoch(3),
        number: 8,
        at: AT,
        classified: position(80),
        checkpoint: Some(CHECKPOINT),
        counted: (1..)
            .zip(skipped)
            .map(|(count, skipped)| Counted {
                webhook: WEBHOOK,
                skipped,
                count,
            })
            .collect(),
        counts_continue: false,
        entries: [attempt_entries(), webhook_entries()].concat(),
    }
}

/// Every entry about an attempt, with every value of what it names.
fn attempt_entries() -> Vec<JournalEntry> {
    let attempt = AttemptEntry {
        webhook: WEBHOOK,
        position: position(77),
        event: EVENT,
        event_type: EVENT_TYPE,
        lane: LaneHash(u64::MAX),
        number: 2,
        started_at: AT,
        latency_ms: 12,
        previous: LINKS,
    };
    let failure = |kind| Failure {
        kind,
        status: (kind == FailureKind::Status).then_some(500),
        sealed_answer: vec![1, 2, 3],
    };
    let weight = FailureWeight {
        counts: true,
        is_spread: false,
        pause_until: Some(AT),
    };
    let mut entries = vec![JournalEntry::Delivered {
        attempt,
        status: 204,
    }];
    entries.extend(FAILURE_KINDS.map(|kind| JournalEntry::AttemptFailed {
        attempt,
        failure: failure(kind),
        retry_at: AT,
        weight,
    }));
    entries.extend(ExhaustReason::ALL.map(|reason| JournalEntry::Exhausted {
        attempt,
        failure: failure(FailureKind::Reset),
        reason,
        weight: FailureWeight {
            counts: false,
            is_spread: true,
            pause_until: None,
        },
    }));
    entries.extend(unsent_ends().map(|end| JournalEntry::Ended { attempt, end }));
    entries.push(JournalEntry::ProbeFailed {
        attempt,
        failure: failure(FailureKind::Timeout),
        next_probe_at: AT.plus_millis(1),
        weight,
    });
    entries
}

fn unsent_ends() -> impl Iterator<Item = UnsentEnd> {
    let skipped = SkipReason::ALL.map(UnsentEnd::Skipped);
    let exhausted = ExhaustReason::ALL.map(UnsentEnd::Exhausted);
    skipped.into_iter().chain(exhausted)
}

/// Every other entry.
fn webhook_entries() -> Vec<JournalEntry> {
    let webhook = WEBHOOK;
    let mut entries = vec![
        JournalEntry::ConfigApplied {
            webhook,
            registry_sequence: Sequence(5),
            from: position(70),
            back_through: Some(Sequence(75)),
            lifts: true,
        },
        JournalEntry::ConfigApplied {
            webhook,
            registry_sequence: Sequence(6),
            from: position(76),
            back_through: None,
            lifts: false,
        },
        JournalEntry::CountedBack {
            webhook,
            accepted: 300,
            skipped: SkipReason::ALL.into_iter().zip(1..).collect(),
        },
        JournalEntry::BreakerOpened {
            webhook,
            at: AT,
            next_probe_at: AT.plus_millis(2),
        },
        JournalEntry::BreakerClosed { webhook, at: AT },
        JournalEntry::Quarantined {
            webhook,
            at: AT,
            from: position(81),
        },
        JournalEntry::Settled {
            webhook,
            resolved: Sequence(76),
            lanes: LanesSettled::Some(vec![(LaneHash(1), Some(Sequence(74))), (LaneHash(2), None)]),
        },
        JournalEntry::Settled {
            webhook,
            resolved: Sequence(77),
            lanes: LanesSettled::All,
        },
        JournalEntry::AccountsProjected {
            registry_sequence: Sequence(6),
        },
        JournalEntry::Released,
    ];
    let reasons = [
        DeactivateReason::Gone,
        DeactivateReason::ConsecutiveFailures,
        DeactivateReason::FailingTooLong,
    ];
    entries.extend(reasons.map(|reason| JournalEntry::Deactivated {
        webhook,
        reason,
        at: AT,
        from: position(81),
    }));
    entries.extend(unsent_ends().map(|end| JournalEntry::PendingEnded {
        webhook,
        through: Sequence(80),
        end,
        count: 4,
        kept: vec![Kept {
            sequence: Sequence(78),
            event: EVENT,
            event_type: EVENT_TYPE,
            lane: LaneHash(7),
            attempts: 1,
        }],
    }));
    entries.extend(replays::replay_steps().map(|step| JournalEntry::Replay {
        webhook,
        replay: REPLAY,
        step,
    }));
    entries
}

/// A state with every value that its parts can have: one webhook full, the others by breaker.
fn state() -> PartitionState {
    let mut ledger = Ledger {
        accepted: 1_000,
        delivered: 900,
        ..Ledger::default()
    };
    // By name, so that the order of `ALL` is frozen too.
    for (reason, count) in [
        (ExhaustReason::Schedule, 1),
        (ExhaustReason::Expired, 2),
        (ExhaustReason::Deactivated, 3),
    ] {
        let place = ExhaustReason::ALL.iter().position(|known| *known == reason);
        *ledger.exhausted.get_mut(place.unwrap()).unwrap() = count;
    }
    for (reason, count) in [
        (SkipReason::Disabled, 4),
        (SkipReason::Deactivated, 5),
        (SkipReason::Unverified, 6),
        (SkipReason::Deleted, 7),
        (SkipReason::Erased, 8),
        (SkipReason::Undecodable, 9),
    ] {
        let place = SkipReason::ALL.iter().position(|known| *known == reason);
        *ledger.skipped.get_mut(place.unwrap()).unwrap() = count;
    }
    let rules = [
        Rule::Registry {
            sequence: Sequence(5),
            lifts: true,
        },
        Rule::Deactivated,
        Rule::Quarantined,
    ];
    let failing = Failing {
        event: EVENT,
        event_type: EVENT_TYPE,
        lane: LaneHash(7),
        attempts: 2,
        retry_at: AT,
    };
    let health = |breaker| Health {
        consecutive_failures: 4,
        last_failure_at: Some(AT),
        failing_since: Some(AT.plus_millis(-5)),
        spread_failures: 3,
        last_spread_at: Some(AT.plus_millis(-1)),
        paused_until: Some(AT.plus_millis(60_000)),
        breaker,
    };
    let full = WebhookState {
        applied: rules
            .map(|rule| Applied {
                from: position(70),
                rule,
            })
            .to_vec(),
        ledger,
        uncounted: Some((Sequence(70), Sequence(75))),
        resolved: Sequence(76),
        ended: [(Sequence(79), LaneHash(7)), (Sequence(78), LaneHash(1))].into(),
        failing: [(Sequence(74), failing)].into(),
        behind: [(LaneHash(7), Sequence(75))].into(),
        health: health(Breaker::Open {
            probes: 2,
            next_probe_at: AT.plus_millis(9),
            last_probed: Sequence(74),
        }),
        links: LINKS,
        decided: Some(EntryPlace {
            pack: Sequence(59),
            index: 3,
        }),
        replays: replays::replays(),
    };
    let ramping = WebhookState {
        health: health(Breaker::Ramping { successes: 17 }),
        ..WebhookState::default()
    };
    PartitionState {
        last: Some((Epoch(3), 8)),
        journal: Sequence(61),
        classified: Some(position(80)),
        checkpoint: Some(CHECKPOINT),
        now: AT,
        webhooks: [
            (WebhookId::from_bytes([6; 16]), WebhookState::default()),
            (WebhookId::from_bytes([5; 16]), ramping),
            (WEBHOOK, full),
        ]
        .into(),
        totals: totals(),
        projected: Sequence(6),
        released: true,
        counts_begun: pack().counted,
    }
}

fn totals() -> Totals {
    let tally = |delivered| Tally {
        delivered,
        failed_attempts: 2,
        exhausted: 3,
        skipped: u32::MAX,
    };
    let row = |slot, delivered| Row {
        slot,
        tally: tally(delivered),
    };
    let typed = TypeTotals {
        minutes: vec![row(29_169_299, 1), row(29_169_300, 4)],
        hours: vec![row(486_155, 5)],
    };
    let untyped = TypeTotals {
        minutes: Vec::new(),
        hours: vec![row(486_155, 0)],
    };
    let types = [(Some(EVENT_TYPE), typed), (None, untyped)].into();
    Totals {
        webhooks: [(WEBHOOK, WebhookTotals { types })].into(),
    }
}

fn snapshot_manifest() -> SnapshotManifest {
    let kept = |journal, chunks: &[u64]| KeptSnapshot {
        label: SnapshotLabel {
            partition: PartitionId(7),
            generation: 1,
            epoch: Epoch(3),
            journal: Sequence(journal),
            classified: Sequence(journal * 10),
        },
        write: SnapshotWriteId(0xa1b2_c3d4_e5f6_0718 + journal),
        size_bytes: 1_300_000,
        checksum: 0x0102_0304_0506_0708 + journal,
        chunks: chunks.iter().copied().map(Sequence).collect(),
    };
    SnapshotManifest {
        newest: kept(90, &[14, 16, 15]),
        previous: Some(kept(40, &[9, 10, 11])),
    }
}

/// Compares with the golden file; writes it when it is not there yet, which fails the test so
/// that a new file is looked at and committed.
fn golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.v1.bin"));
    match std::fs::read(&path) {
        Ok(expected) => assert_eq!(bytes, expected, "{name}: version 1 is frozen"),
        Err(_) => {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            panic!("{} was written: look at it and commit it", path.display());
        }
    }
}

#[test]
fn version_one_is_frozen() {
    let event_bytes = codec::encode_event(&event());
    golden("event", &event_bytes);
    assert_eq!(codec::decode_event(&event_bytes), Ok(event()));

    let pack_bytes = codec::encode_pack(&pack());
    golden("pack", &pack_bytes);
    assert_eq!(codec::decode_pack(&pack_bytes), Ok(pack()));

    let state_bytes = codec::encode_state(&state());
    golden("state", &state_bytes);
    assert_eq!(codec::decode_state(&state_bytes), Ok(state()));

    let epoch = EpochEntry {
        epoch: Epoch(3),
        owner: ReplicaId::from_bytes([9; 16]),
        at: AT,
        generation: 1,
    };
    let epoch_bytes = codec::encode_epoch(&epoch);
    golden("epoch", &epoch_bytes);
    assert_eq!(codec::decode_epoch(&epoch_bytes), Ok(epoch));

    let manifest_bytes = codec::encode_snapshot_manifest(&snapshot_manifest());
    golden("snapshot-manifest", &manifest_bytes);
    assert_eq!(
        codec::decode_snapshot_manifest(&manifest_bytes),
        Ok(snapshot_manifest())
    );

    for (index, record) in registry::records().iter().enumerate() {
        let bytes = codec::encode_record(record);
        golden(&format!("record-{index:02}"), &bytes);
        assert_eq!(codec::decode_record(&bytes).as_ref(), Ok(record));
    }
}

#[test]
fn the_golden_pack_has_every_entry() {
    let entries = pack().entries;
    let kinds: HashSet<_> = entries.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 16);
}

#[test]
fn a_decoded_body_is_a_slice_of_the_message() {
    let bytes = codec::encode_event(&event());
    let decoded = codec::decode_event(&bytes).unwrap();
    let body_start = bytes.len() - decoded.body.len();
    assert_eq!(decoded.body.as_ptr(), bytes.slice(body_start..).as_ptr());
}

#[test]
fn cut_grown_and_later_messages_are_refused() {
    let bytes = codec::encode_pack(&pack());
    for end in 0..bytes.len() {
        assert!(codec::decode_pack(&bytes[..end]).is_err(), "{end}");
    }
    let grown = [&bytes[..], &[0]].concat();
    assert!(matches!(
        codec::decode_pack(&grown),
        Err(DecodeError::Malformed(_))
    ));
    let later = [&[2], &bytes[1..]].concat();
    assert_eq!(
        codec::decode_pack(&later),
        Err(DecodeError::UnknownVersion(2))
    );

    let state = codec::encode_state(&state());
    for end in 0..state.len() {
        assert!(codec::decode_state(&state[..end]).is_err(), "{end}");
    }
    assert!(codec::decode_state(&[&state[..], &[0]].concat()).is_err());

    let event = codec::encode_event(&event());
    for end in 0..event.len() {
        assert!(codec::decode_event(&event.slice(..end)).is_err(), "{end}");
    }
    let grown = Bytes::from([&event[..], &[0]].concat());
    assert!(codec::decode_event(&grown).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_or_allocate_without_bound(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
        versioned in any::<bool>(),
    ) {
        if let (true, Some(first)) = (versioned, bytes.first_mut()) {
            *first = 1;
        }
        let _unread = codec::decode_pack(&bytes).is_ok();
        let _unread = codec::decode_state(&bytes).is_ok();
        let _unread = codec::decode_record(&bytes).is_ok();
        let _unread = codec::decode_epoch(&bytes).is_ok();
        let _unread = codec::decode_snapshot_manifest(&bytes).is_ok();
        let _unread = codec::decode_event(&bytes.into()).is_ok();
    }
}
