//! Steps and states of replays with every value that their parts can have.

use shared::domain::delivery::FailureKind;
use shared::domain::replay::{ReplayAttempt, ReplayOutcome, ReplaySelection, ReplayStep};
use shared::domain::state::{ActiveReplay, Deactivation, Extent, Replay, ReplayLedger, Replays};
use shared::ids::{LaneHash, Sequence};

use super::{AT, EVENT, REPLAY, position};

pub(crate) fn replay_steps() -> impl Iterator<Item = ReplayStep> {
    let selections = [
        ReplaySelection::Events(vec![EVENT]),
        ReplaySelection::ExhaustedSince(AT),
        ReplaySelection::Published {
            from: AT,
            to: AT.plus_millis(1),
        },
    ];
    let outcomes = [
        ReplayOutcome::Sent { status: 204 },
        ReplayOutcome::Failed {
            kind: FailureKind::Status,
            status: Some(503),
            pause_until: Some(AT.plus_millis(1_000)),
            resume_at: Some(AT.plus_millis(2_000)),
        },
        ReplayOutcome::Gone,
    ];
    let begun = selections.into_iter().map(|selection| ReplayStep::Begun {
        selection,
        through: position(80),
        at: AT,
    });
    let attempted = outcomes.into_iter().map(|outcome| {
        ReplayStep::Attempted(ReplayAttempt {
            sequence: Sequence(74),
            event: EVENT,
            lane: LaneHash(7),
            started_at: AT,
            latency_ms: 12,
            outcome,
            settled: Sequence(73),
        })
    });
    let rest = [
        ReplayStep::Counted { matched: 5 },
        ReplayStep::ProbeFailed {
            next_probe_at: AT,
            pause_until: Some(AT),
        },
        ReplayStep::Cancelled { at: AT },
        ReplayStep::Ended { at: AT },
    ];
    begun.chain(attempted).chain(rest)
}

pub(crate) fn replays() -> Replays {
    let extent = Extent {
        through: Sequence(80),
        resolved: Sequence(76),
        ended: [Sequence(79)].into(),
        failing: [Sequence(74)].into(),
        behind: [(LaneHash(7), Sequence(75))].into(),
    };
    let known = Replay {
        fingerprint: 0x0102_0304_0506_0708,
        begun_at: AT,
        ended_at: Some(AT.plus_millis(7)),
        is_counted: true,
        is_cancelled: true,
        ledger: ReplayLedger {
            matched: 10,
            sent: 1,
            failed: 2,
            gone: 3,
            cancelled: 4,
        },
    };
    let deactivation = Deactivation {
        at: AT,
        before: extent.clone(),
    };
    Replays {
        known: [(REPLAY, known)].into(),
        active: vec![ActiveReplay {
            id: REPLAY,
            selection: ReplaySelection::ExhaustedSince(AT),
            extent,
            deactivations: vec![deactivation.clone()],
            settled: Sequence(70),
            attempted: [Sequence(72)].into(),
            failures_in_row: 6,
            resume_at: Some(AT.plus_millis(8)),
        }],
        deactivated_at: Some(AT),
        deactivations: vec![deactivation],
    }
}
