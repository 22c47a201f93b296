//! Bytes of every released version still decode to the same values, and nothing else decodes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may fail loudly"
)]

use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use shared::codec::{self, DecodeError};
use shared::domain::account::AccountDefinition;
use shared::domain::delivery::FailureKind;
use shared::domain::event::{Event, EventType, Source};
use shared::domain::filter::Selection;
use shared::domain::journal::{
    AttemptEntry, Checkpoint, EntryPlace, EpochEntry, ExhaustReason, Failure, JournalEntry, Links,
    Pack, SkipReason, UnsentEnd,
};
use shared::domain::policy::Policy;
use shared::domain::registry::{RegistryEntry, RegistryRecord};
use shared::domain::snapshot::{KeptSnapshot, SnapshotLabel, SnapshotManifest, SnapshotWriteId};
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

fn pack() -> Pack {
    let webhook = WebhookId::from_bytes([4; 16]);
    let place = |pack, index| {
        Some(EntryPlace {
            pack: Sequence(pack),
            index,
        })
    };
    let attempt = AttemptEntry {
        webhook,
        position: position(77),
        event: EventId::from_bytes([3; 16]),
        lane: LaneHash(u64::MAX),
        number: 2,
        started_at: AT,
        latency_ms: 12,
        previous: Links {
            entry: place(0, 1),
            failure: place(60, 0),
        },
    };
    let failure = Failure {
        kind: FailureKind::Status,
        status: Some(500),
        sealed_answer: vec![1, 2, 3],
    };
    Pack {
        epoch: Epoch(3),
        number: 8,
        at: AT,
        classified: position(80),
        checkpoint: Some(Checkpoint {
            position: position(79),
            event: EventId::from_bytes([5; 16]),
        }),
        entries: vec![
            JournalEntry::ConfigApplied {
                webhook,
                registry_sequence: Sequence(5),
                from: position(70),
            },
            JournalEntry::Delivered {
                attempt,
                status: 204,
            },
            JournalEntry::AttemptFailed {
                attempt,
                failure: failure.clone(),
                retry_at: AT,
            },
            JournalEntry::Exhausted {
                attempt,
                failure,
                reason: ExhaustReason::Schedule,
            },
            JournalEntry::Ended {
                attempt,
                end: UnsentEnd::Skipped(SkipReason::Erased),
            },
            JournalEntry::Ended {
                attempt,
                end: UnsentEnd::Exhausted(ExhaustReason::Expired),
            },
            JournalEntry::AccountsProjected {
                registry_sequence: Sequence(6),
            },
        ],
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

fn records() -> Vec<RegistryRecord> {
    let account = AccountDefinition {
        provider: "bamboohr".into(),
        name: Some("HR".into()),
        origin_owner_id: "customer-1".into(),
        origin_owner_name: None,
        origin_username: Some("ada".into()),
        sealed_secrets: vec![9; 40],
    };
    let selection =
        r#"["*",{"event":"hris_employees.*","providers":["bamboohr"],"sources":["native"]}]"#;
    let webhook = WebhookDefinition {
        dialect: Dialect::Stackone,
        sealed_endpoint: vec![8; 60],
        selection: Selection::new(serde_json::from_str(selection).unwrap()).unwrap(),
        description: Some("first".into()),
        verification_required: false,
        policy: Policy::default(),
        status: Status::Enabled,
        status_reason: None,
        active_secret: SecretId::from_bytes([6; 16]),
        previous_secret: Some(SecretId::from_bytes([7; 16])),
    };
    [
        RegistryEntry::ProjectCreated {
            name: "Acme".into(),
        },
        RegistryEntry::ProjectDeleted,
        RegistryEntry::DataKeyCreated {
            sealed: vec![1; 77],
        },
        RegistryEntry::ApiKeyCreated {
            name: "ci".into(),
            hash: [5; 32],
        },
        RegistryEntry::ApiKeyRevoked,
        RegistryEntry::AccountCreated(account.clone()),
        RegistryEntry::AccountUpdated(account.clone()),
        RegistryEntry::AccountDeleted(account),
        RegistryEntry::WebhookCreated {
            from: position(12),
            definition: webhook.clone(),
        },
        RegistryEntry::WebhookUpdated(webhook),
        RegistryEntry::WebhookDeleted,
        RegistryEntry::SigningSecretAdded {
            webhook: WebhookId::from_bytes([4; 16]),
            sealed: vec![2; 90],
        },
    ]
    .into_iter()
    .map(|entry| RegistryRecord {
        at: AT,
        by: "admin".into(),
        entry,
    })
    .collect()
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

    for (index, record) in records().iter().enumerate() {
        let bytes = codec::encode_record(record);
        golden(&format!("record-{index:02}"), &bytes);
        assert_eq!(codec::decode_record(&bytes).as_ref(), Ok(record));
    }
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
        let _unread = codec::decode_record(&bytes).is_ok();
        let _unread = codec::decode_epoch(&bytes).is_ok();
        let _unread = codec::decode_snapshot_manifest(&bytes).is_ok();
        let _unread = codec::decode_event(&bytes.into()).is_ok();
    }
}
