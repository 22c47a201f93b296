//! The store of snapshots against a real nats-server.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers; clippy.toml allows these only inside test functions"
)]

mod nats_server;

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use shared::codec;
use shared::domain::snapshot::{KeptSnapshot, SnapshotLabel, SnapshotManifest, SnapshotWriteId};
use shared::ids::{Epoch, PartitionId, Sequence};
use shared::limits::SNAPSHOT_BYTES_MAX;
use shared::nats::Nats;
use shared::nats::append::NewMessage;
use shared::nats::read::last_matching;
use shared::nats::snapshots::{SnapshotError, Written, read, read_candidates, write};
use shared::subjects;

use crate::nats_server::NatsServer;

const PARTITION: PartitionId = PartitionId(7);

fn label((generation, epoch, journal): (u32, u64, u64)) -> SnapshotLabel {
    SnapshotLabel {
        partition: PARTITION,
        generation,
        epoch: Epoch(epoch),
        journal: Sequence(journal),
        classified: Sequence(journal * 10),
    }
}

/// Bytes that no two places or snapshots share.
fn state(size: usize, seed: u64) -> Bytes {
    let words = (0..).map(|word: u64| (word ^ (seed << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).take(size).collect();
    bytes.into()
}

async fn stored(nats: &Nats, label: SnapshotLabel, bytes: &Bytes) {
    let written = write(nats, label, bytes.clone()).await.unwrap();
    assert_eq!(written, Written::Stored, "{label:?}");
}

async fn candidates(nats: &Nats) -> Vec<KeptSnapshot> {
    read_candidates(nats, PARTITION).await.unwrap()
}

fn labels(candidates: &[KeptSnapshot]) -> Vec<SnapshotLabel> {
    candidates.iter().map(|kept| kept.label).collect()
}

/// How many messages lie under which subject.
async fn messages(nats: &Nats) -> BTreeMap<String, usize> {
    let subjects = nats.snapshots.info_with_subjects(subjects::SNAPSHOTS_ALL);
    subjects.await.unwrap().try_collect().await.unwrap()
}

/// The manifest and the chunks of the candidates, and nothing else.
async fn assert_nothing_else_is_kept(nats: &Nats) {
    let mut expected = BTreeMap::from([(subjects::snapshot_manifest(PARTITION), 1)]);
    for kept in candidates(nats).await {
        expected.insert(
            subjects::snapshot_chunks(PARTITION, kept.write),
            kept.chunks.len(),
        );
    }
    // An empty snapshot has no chunks.
    expected.retain(|_, count| *count > 0);
    assert_eq!(messages(nats).await, expected);
}

async fn put(nats: &Nats, subject: String, payload: Bytes, message_id: &str) -> Sequence {
    let message = NewMessage {
        subject,
        payload,
        message_id: message_id.into(),
        expected: None,
        never_expires: false,
    };
    nats.append(message).await.unwrap().sequence
}

/// Puts another manifest in the place of the last one.
async fn tamper(nats: &Nats, change: impl FnOnce(&mut SnapshotManifest)) {
    let subject = subjects::snapshot_manifest(PARTITION);
    let last = last_matching(&nats.snapshots, &subject).await.unwrap();
    let mut manifest = codec::decode_snapshot_manifest(&last.unwrap().payload).unwrap();
    change(&mut manifest);
    let payload = codec::encode_snapshot_manifest(&manifest).into();
    put(nats, subject, payload, "tampered").await;
}

#[tokio::test]
async fn what_is_written_is_read_whatever_the_sizes() {
    for (max_payload, size, chunks) in [
        (1 << 20, 3_000_000, 6),
        (1 << 20, 1 << 20, 2),
        (1 << 20, (1 << 20) + 1, 3),
        (1 << 20, 1, 1),
        (1 << 20, 0, 0),
        (64 << 10, 3_000_000, 92),
        (8 << 10, 10_000, 3),
    ] {
        let server = NatsServer::with_max_payload(max_payload).await;
        let nats = &server.nats;
        assert_eq!(candidates(nats).await, []);
        let bytes = state(size, 1);
        stored(nats, label((1, 1, 5)), &bytes).await;
        let kept = candidates(nats).await;
        assert_eq!(labels(&kept), [label((1, 1, 5))]);
        assert_eq!(kept[0].chunks.len(), chunks, "{max_payload} {size}");
        assert_eq!(read(nats, &kept[0]).await.unwrap(), bytes);
        assert_nothing_else_is_kept(nats).await;
    }
}

#[tokio::test]
async fn two_are_kept_and_what_was_before_is_gone() {
    let server = NatsServer::start().await;
    let nats = &server.nats;
    let other = SnapshotLabel {
        partition: PartitionId(70),
        ..label((1, 1, 1))
    };
    stored(nats, other, &state(10, 70)).await;
    let mut dropped = None;
    for journal in 1..=4 {
        stored(nats, label((1, 1, journal)), &state(1_200_000, journal)).await;
        let kept = candidates(nats).await;
        let expected: Vec<_> = (journal.max(2) - 1..=journal).rev().collect();
        let seen: Vec<_> = kept.iter().map(|kept| kept.label.journal.0).collect();
        assert_eq!(seen, expected);
        for kept in &kept {
            let bytes = read(nats, kept).await.unwrap();
            assert_eq!(bytes, state(1_200_000, kept.label.journal.0));
        }
        if let Some(dropped) = dropped.replace(kept.last().unwrap().clone())
            && journal > 2
        {
            let error = read(nats, &dropped).await.unwrap_err();
            assert!(matches!(error, SnapshotError::Gone), "{error}");
        }
    }
    let mut all = messages(nats).await;
    all.retain(|subject, _| subject.starts_with("snapshots.7."));
    assert_eq!(all.into_values().sum::<usize>(), 1 + 3 + 3);
    let others = read_candidates(nats, other.partition).await.unwrap();
    assert_eq!(read(nats, &others[0]).await.unwrap(), state(10, 70));
}

#[tokio::test]
async fn an_earlier_one_never_replaces_a_later_one() {
    let server = NatsServer::start().await;
    let nats = &server.nats;
    stored(nats, label((2, 5, 100)), &state(100, 1)).await;
    for earlier in [(1, 9, 900), (2, 4, 900), (2, 5, 99), (2, 5, 100)] {
        let written = write(nats, label(earlier), state(100, 2)).await.unwrap();
        assert_eq!(written, Written::Superseded, "{earlier:?}");
    }
    let kept = candidates(nats).await;
    assert_eq!(labels(&kept), [label((2, 5, 100))]);
    assert_eq!(read(nats, &kept[0]).await.unwrap(), state(100, 1));
    assert_nothing_else_is_kept(nats).await;
    for later in [(2, 5, 101), (2, 6, 50), (3, 1, 1)] {
        stored(nats, label(later), &state(100, 3)).await;
    }
    assert_eq!(
        labels(&candidates(nats).await),
        [label((3, 1, 1)), label((2, 6, 50))]
    );
}

#[tokio::test]
async fn of_a_corrupt_one_the_older_is_still_there() {
    type Change = fn(&mut KeptSnapshot);
    let changes: [Change; 6] = [
        |kept| kept.chunks.swap(0, 1),
        |kept| kept.checksum ^= 1,
        |kept| kept.size_bytes -= 1,
        |kept| kept.size_bytes = u64::MAX,
        |kept| kept.chunks.truncate(1),
        |kept| kept.write = SnapshotWriteId(1),
    ];
    let server = NatsServer::start().await;
    let nats = &server.nats;
    stored(nats, label((1, 1, 1)), &state(1_000_000, 1)).await;
    stored(nats, label((1, 1, 2)), &state(1_000_000, 2)).await;
    let whole = candidates(nats).await;
    for (index, change) in changes.into_iter().enumerate() {
        let mut newest = whole[0].clone();
        change(&mut newest);
        let error = read(nats, &newest).await.unwrap_err();
        assert!(
            matches!(error, SnapshotError::Corrupt(_)),
            "{index}: {error}"
        );
    }
    tamper(nats, |manifest| manifest.newest.chunks.swap(0, 1)).await;
    let kept = candidates(nats).await;
    assert!(read(nats, &kept[0]).await.is_err());
    assert_eq!(read(nats, &kept[1]).await.unwrap(), state(1_000_000, 1));

    let lost = kept[0].chunks[0].0;
    nats.snapshots.delete_message(lost).await.unwrap();
    let error = read(nats, &kept[0]).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Gone), "{error}");
    assert_eq!(read(nats, &kept[1]).await.unwrap(), state(1_000_000, 1));
}

#[tokio::test]
async fn an_interrupted_write_changes_nothing_and_the_next_one_clears_it_away() {
    let server = NatsServer::start().await;
    let nats = &server.nats;
    let interrupted = |id| subjects::snapshot_chunks(PARTITION, SnapshotWriteId(id));
    put(nats, interrupted(1), state(10, 1), "first").await;
    assert_eq!(candidates(nats).await, []);
    stored(nats, label((1, 1, 1)), &state(100, 1)).await;
    stored(nats, label((1, 1, 2)), &state(100, 2)).await;
    let before = candidates(nats).await;

    for (id, message_id) in [(2, "second"), (2, "third"), (3, "fourth")] {
        put(nats, interrupted(id), state(10, id), message_id).await;
    }
    assert_eq!(candidates(nats).await, before);
    for (kept, seed) in before.iter().zip([2, 1]) {
        assert_eq!(read(nats, kept).await.unwrap(), state(100, seed));
    }
    assert_eq!(messages(nats).await.len(), 1 + 2 + 2);

    stored(nats, label((1, 1, 3)), &state(100, 3)).await;
    assert_nothing_else_is_kept(nats).await;
}

/// Two owners who both believe that the partition is theirs begin at once.
#[tokio::test]
async fn of_writers_at_once_the_later_one_is_newest() {
    let server = NatsServer::start().await;
    let nats = &server.nats;
    for round in 1..=20 {
        let (earlier, later) = (label((1, round, 1)), label((1, round, 2)));
        let size = 600_000;
        let (first, second) = tokio::join!(
            write(nats, earlier, state(size, round * 2)),
            write(nats, later, state(size, round * 2 + 1)),
        );
        first.unwrap();
        assert_eq!(second.unwrap(), Written::Stored);
        let kept = candidates(nats).await;
        assert_eq!(kept[0].label, later);
        for kept in &kept {
            let seed = kept.label.epoch.0 * 2 + kept.label.journal.0 - 1;
            assert_eq!(read(nats, kept).await.unwrap(), state(size, seed));
        }
    }
    stored(nats, label((2, 1, 1)), &state(10, 1)).await;
    assert_nothing_else_is_kept(nats).await;
}

/// Each purges what it need not keep while the other is anywhere in a write of its own.
#[tokio::test]
async fn no_writer_takes_away_what_another_is_writing() {
    const WRITES: usize = 60;
    let server = NatsServer::start().await;
    let nats = &server.nats;
    let writer = async |size: usize| {
        let mut stored = 0;
        while stored < WRITES {
            let newest = candidates(nats).await.first().cloned();
            let journal = newest.map_or(1, |kept| kept.label.journal.0 + 1);
            let bytes = state(size, journal);
            match write(nats, label((1, 1, journal)), bytes).await.unwrap() {
                Written::Stored => stored += 1,
                Written::Superseded => {}
            }
            // What is gone has two later ones in its place.
            while let Some(newest) = candidates(nats).await.first() {
                match read(nats, newest).await {
                    Ok(_) => break,
                    Err(SnapshotError::Gone) => {
                        let kept = candidates(nats).await;
                        assert!(!kept.contains(newest), "{:?}", newest.label);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    tokio::join!(writer(700_000), writer(2_000), writer(10));
    let kept = candidates(nats).await;
    assert_eq!(kept.len(), 2);
    for kept in &kept {
        let size = usize::try_from(kept.size_bytes).unwrap();
        let expected = state(size, kept.label.journal.0);
        assert_eq!(read(nats, kept).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_is_neither_skipped_nor_replaced() {
    let server = NatsServer::start().await;
    let nats = &server.nats;
    let subject = subjects::snapshot_manifest(PARTITION);
    for (payload, later_version) in [(&[2_u8, 0][..], Some(2)), (&[1, 0], None), (&[], None)] {
        let payload = Bytes::copy_from_slice(payload);
        let message_id = format!("{payload:?}");
        put(nats, subject.clone(), payload, &message_id).await;
        let errors = [
            read_candidates(nats, PARTITION).await.unwrap_err(),
            write(nats, label((1, 1, 1)), Bytes::new())
                .await
                .unwrap_err(),
        ];
        for error in errors {
            match error {
                SnapshotError::Later(version) => assert_eq!(Some(version), later_version),
                SnapshotError::Corrupt(_) => assert_eq!(None, later_version),
                other => panic!("{other}"),
            }
        }
    }
    assert_eq!(messages(nats).await.len(), 1);
}

#[tokio::test]
async fn a_manifest_of_another_partition_is_corrupt() {
    let server = NatsServer::start().await;
    let nats = &server.nats;
    stored(nats, label((1, 1, 1)), &state(10, 1)).await;
    tamper(nats, |manifest| {
        manifest.newest.label.partition = PartitionId(8);
    })
    .await;
    let error = read_candidates(nats, PARTITION).await.unwrap_err();
    assert!(matches!(error, SnapshotError::Corrupt(_)), "{error}");
}

#[tokio::test]
async fn what_is_larger_than_the_limit_is_refused_before_it_is_sent() {
    let server = NatsServer::start().await;
    let bytes = Bytes::from(vec![0; SNAPSHOT_BYTES_MAX + 1]);
    let error = write(&server.nats, label((1, 1, 1)), bytes)
        .await
        .unwrap_err();
    assert!(matches!(error, SnapshotError::TooLarge(_)), "{error}");
    assert!(messages(&server.nats).await.is_empty());
}
