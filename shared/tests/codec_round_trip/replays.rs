//! Whatever the steps and states of replays may hold.

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use shared::domain::delivery::FailureKind;
use shared::domain::journal::JournalEntry;
use shared::domain::replay::{ReplayAttempt, ReplayOutcome, ReplaySelection, ReplayStep};
use shared::domain::state::{ActiveReplay, Deactivation, Extent, Replay, ReplayLedger, Replays};
use shared::ids::ReplayId;

use super::{event_id, lane, position, sequence, time, webhook_id};

fn replay_id() -> impl Strategy<Value = ReplayId> {
    any::<[u8; 16]>().prop_map(ReplayId::from_bytes)
}

fn selection() -> impl Strategy<Value = ReplaySelection> {
    prop_oneof![
        vec(event_id(), 0..4).prop_map(ReplaySelection::Events),
        time().prop_map(ReplaySelection::ExhaustedSince),
        (time(), time()).prop_map(|(from, to)| ReplaySelection::Published { from, to }),
    ]
}

fn replay_attempt() -> impl Strategy<Value = ReplayAttempt> {
    let outcome = prop_oneof![
        any::<u16>().prop_map(|status| ReplayOutcome::Sent { status }),
        (of(any::<u16>()), of(time()), of(time())).prop_map(|(status, pause_until, resume_at)| {
            ReplayOutcome::Failed {
                kind: FailureKind::Status,
                status,
                pause_until,
                resume_at,
            }
        }),
        Just(ReplayOutcome::Gone),
    ];
    let event = (sequence(), event_id(), lane());
    (event, time(), any::<u32>(), outcome, sequence()).prop_map(
        |((sequence, event, lane), started_at, latency_ms, outcome, settled)| ReplayAttempt {
            sequence,
            event,
            lane,
            started_at,
            latency_ms,
            outcome,
            settled,
        },
    )
}

pub(crate) fn replay_entry() -> impl Strategy<Value = JournalEntry> {
    let step = prop_oneof![
        (selection(), position(), time()).prop_map(|(selection, through, at)| ReplayStep::Begun {
            selection,
            through,
            at,
        }),
        any::<u64>().prop_map(|matched| ReplayStep::Counted { matched }),
        replay_attempt().prop_map(ReplayStep::Attempted),
        (time(), of(time())).prop_map(|(next_probe_at, pause_until)| ReplayStep::ProbeFailed {
            next_probe_at,
            pause_until,
        }),
        time().prop_map(|at| ReplayStep::Cancelled { at }),
        time().prop_map(|at| ReplayStep::Ended { at }),
    ];
    (webhook_id(), replay_id(), step).prop_map(|(webhook, replay, step)| JournalEntry::Replay {
        webhook,
        replay,
        step,
    })
}

fn extent() -> impl Strategy<Value = Extent> {
    let sequences = || proptest::collection::btree_set(sequence(), 0..4);
    let marks = (sequence(), sequence());
    let behind = btree_map(lane(), sequence(), 0..4);
    (marks, sequences(), sequences(), behind).prop_map(
        |((through, resolved), ended, failing, behind)| Extent {
            through,
            resolved,
            ended,
            failing,
            behind,
        },
    )
}

pub(crate) fn replays() -> impl Strategy<Value = Replays> {
    let deactivation = || {
        let parts = (time(), extent());
        parts.prop_map(|(at, before)| Deactivation { at, before })
    };
    let known = (any::<[u64; 6]>(), time(), of(time()), any::<[bool; 2]>()).prop_map(
        |(counts, begun_at, ended_at, [is_counted, is_cancelled])| Replay {
            fingerprint: counts[0],
            begun_at,
            ended_at,
            is_counted,
            is_cancelled,
            ledger: ReplayLedger {
                matched: counts[1],
                sent: counts[2],
                failed: counts[3],
                gone: counts[4],
                cancelled: counts[5],
            },
        },
    );
    let attempted = proptest::collection::btree_set(sequence(), 0..4);
    let progress = (sequence(), attempted, any::<u32>(), of(time()));
    let active = (
        replay_id(),
        selection(),
        extent(),
        vec(deactivation(), 0..2),
        progress,
    )
        .prop_map(
            |(id, selection, extent, deactivations, progress)| ActiveReplay {
                id,
                selection,
                extent,
                deactivations,
                settled: progress.0,
                attempted: progress.1,
                failures_in_row: progress.2,
                resume_at: progress.3,
            },
        );
    let lists = (vec(active, 0..2), vec(deactivation(), 0..2));
    (btree_map(replay_id(), known, 0..3), of(time()), lists).prop_map(
        |(known, deactivated_at, (active, deactivations))| Replays {
            known,
            active,
            deactivated_at,
            deactivations,
        },
    )
}
