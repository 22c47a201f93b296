//! Version 1 of packs. Never edited once released; enum variants are appended only.

use super::mirror::mirror;
use super::v1::{Id, Position};
use crate::domain::delivery::FailureKind as DomainFailureKind;
use crate::domain::journal as domain;
use crate::domain::replay;

mirror! {
    struct Pack = domain::Pack {
        epoch: u64,
        number: u64,
        at: i64,
        classified: Position,
        checkpoint: Option<Checkpoint>,
        counted: Vec<Counted>,
        counts_continue: bool,
        entries: Vec<Entry>,
    }
}

mirror! {
    struct Checkpoint = domain::Checkpoint {
        position: Position,
        event: Id,
    }
}

mirror! {
    struct Counted = domain::Counted {
        webhook: Id,
        skipped: Option<SkipReason>,
        count: u64,
    }
}

mirror! {
    enum Entry = domain::JournalEntry {
        ConfigApplied {
            webhook: Id,
            registry_sequence: u64,
            from: Position,
            back_through: Option<u64>,
            lifts: bool,
        },
        CountedBack {
            webhook: Id,
            accepted: u64,
            skipped: Vec<(SkipReason, u64)>,
        },
        Delivered {
            attempt: Attempt,
            status: u16,
        },
        AttemptFailed {
            attempt: Attempt,
            failure: Failure,
            retry_at: i64,
            weight: FailureWeight,
        },
        Exhausted {
            attempt: Attempt,
            failure: Failure,
            reason: ExhaustReason,
            weight: FailureWeight,
        },
        Ended {
            attempt: Attempt,
            end: UnsentEnd,
        },
        PendingEnded {
            webhook: Id,
            through: u64,
            end: UnsentEnd,
            count: u64,
            kept: Vec<Kept>,
        },
        ProbeFailed {
            attempt: Attempt,
            failure: Failure,
            next_probe_at: i64,
            weight: FailureWeight,
        },
        BreakerOpened {
            webhook: Id,
            at: i64,
            next_probe_at: i64,
        },
        BreakerClosed {
            webhook: Id,
            at: i64,
        },
        Deactivated {
            webhook: Id,
            reason: DeactivateReason,
            at: i64,
            from: Position,
        },
        Quarantined {
            webhook: Id,
            at: i64,
            from: Position,
        },
        Settled {
            webhook: Id,
            resolved: u64,
            lanes: LanesSettled,
        },
        AccountsProjected {
            registry_sequence: u64,
        },
        Released,
        Replay {
            webhook: Id,
            replay: Id,
            step: ReplayStep,
        },
    }
}

mirror! {
    struct Attempt = domain::AttemptEntry {
        webhook: Id,
        position: Position,
        event: Id,
        event_type: u32,
        lane: u64,
        number: u32,
        started_at: i64,
        latency_ms: u32,
        previous: Links,
    }
}

mirror! {
    struct Links = domain::Links {
        entry: Option<Place>,
        failure: Option<Place>,
    }
}

mirror! {
    struct Place = domain::EntryPlace {
        pack: u64,
        index: u16,
    }
}

mirror! {
    struct Failure = domain::Failure {
        kind: FailureKind,
        status: Option<u16>,
        sealed_answer: Vec<u8>,
    }
}

mirror! {
    enum FailureKind = DomainFailureKind {
        Timeout,
        Connect,
        Tls,
        Dns,
        RefusedAddress,
        Reset,
        Status,
        Protocol,
    }
}

mirror! {
    struct FailureWeight = domain::FailureWeight {
        counts: bool,
        is_spread: bool,
        pause_until: Option<i64>,
    }
}

mirror! {
    struct Kept = domain::Kept {
        sequence: u64,
        event: Id,
        event_type: u32,
        lane: u64,
        attempts: u32,
    }
}

mirror! {
    enum LanesSettled = domain::LanesSettled {
        Some(lanes: Vec<(u64, Option<u64>)>),
        All,
    }
}

mirror! {
    enum UnsentEnd = domain::UnsentEnd {
        Skipped(reason: SkipReason),
        Exhausted(reason: ExhaustReason),
    }
}

mirror! {
    enum DeactivateReason = domain::DeactivateReason {
        Gone,
        ConsecutiveFailures,
        FailingTooLong,
    }
}

mirror! {
    enum ExhaustReason = domain::ExhaustReason {
        Schedule,
        Expired,
        Deactivated,
    }
}

mirror! {
    enum SkipReason = domain::SkipReason {
        Disabled,
        Deactivated,
        Unverified,
        Deleted,
        Erased,
        Undecodable,
    }
}

mirror! {
    enum ReplayStep = replay::ReplayStep {
        Begun {
            selection: ReplaySelection,
            through: Position,
            at: i64,
        },
        Counted {
            matched: u64,
        },
        Attempted(attempt: ReplayAttempt),
        ProbeFailed {
            next_probe_at: i64,
            pause_until: Option<i64>,
        },
        Cancelled {
            at: i64,
        },
        Ended {
            at: i64,
        },
    }
}

mirror! {
    enum ReplaySelection = replay::ReplaySelection {
        Events(ids: Vec<Id>),
        ExhaustedSince(since: i64),
        Published {
            from: i64,
            to: i64,
        },
    }
}

mirror! {
    struct ReplayAttempt = replay::ReplayAttempt {
        sequence: u64,
        event: Id,
        lane: u64,
        started_at: i64,
        latency_ms: u32,
        outcome: ReplayOutcome,
        settled: u64,
    }
}

mirror! {
    enum ReplayOutcome = replay::ReplayOutcome {
        Sent {
            status: u16,
        },
        Failed {
            kind: FailureKind,
            status: Option<u16>,
            pause_until: Option<i64>,
            resume_at: Option<i64>,
        },
        Gone,
    }
}
