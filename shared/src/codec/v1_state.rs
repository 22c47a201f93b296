//! Version 1 of a partition's state, which snapshots hold. Never edited once released; enum
//! variants are appended only.
//!
//! Equal states have equal bytes: every map is sorted, and there is one way to write a value.

use std::collections::BTreeMap;

use super::mirror::mirror;
use super::v1::{Id, Position};
use super::v1_journal::{Checkpoint, Counted, Links, Place, ReplaySelection};
use crate::domain::state as domain;
use crate::domain::state::totals;

mirror! {
    struct Partition = domain::PartitionState {
        last: Option<(u64, u64)>,
        journal: u64,
        classified: Option<Position>,
        checkpoint: Option<Checkpoint>,
        now: i64,
        webhooks: BTreeMap<Id, Webhook>,
        totals: Totals,
        projected: u64,
        released: bool,
        counts_begun: Vec<Counted>,
    }
}

mirror! {
    struct Totals = totals::Totals {
        webhooks: BTreeMap<Id, WebhookTotals>,
    }
}

mirror! {
    struct WebhookTotals = totals::WebhookTotals {
        types: BTreeMap<Option<u32>, TypeTotals>,
    }
}

mirror! {
    struct TypeTotals = totals::TypeTotals {
        minutes: Vec<Row>,
        hours: Vec<Row>,
    }
}

mirror! {
    struct Row = totals::Row {
        slot: u32,
        tally: Tally,
    }
}

mirror! {
    struct Tally = totals::Tally {
        delivered: u32,
        failed_attempts: u32,
        exhausted: u32,
        skipped: u32,
    }
}

mirror! {
    struct Webhook = domain::WebhookState {
        applied: Vec<Applied>,
        ledger: Ledger,
        uncounted: Option<(u64, u64)>,
        resolved: u64,
        ended: BTreeMap<u64, u64>,
        failing: BTreeMap<u64, Failing>,
        behind: BTreeMap<u64, u64>,
        health: Health,
        links: Links,
        decided: Option<Place>,
        replays: Replays,
    }
}

mirror! {
    struct Applied = domain::Applied {
        from: Position,
        rule: Rule,
    }
}

mirror! {
    enum Rule = domain::Rule {
        Registry {
            sequence: u64,
            lifts: bool,
        },
        Deactivated,
        Quarantined,
    }
}

mirror! {
    /// By reason: schedule, expired, deactivated; and disabled, deactivated, unverified, deleted,
    /// erased, undecodable.
    struct Ledger = domain::Ledger {
        accepted: u64,
        delivered: u64,
        exhausted: [u64; 3],
        skipped: [u64; 6],
    }
}

mirror! {
    struct Failing = domain::Failing {
        event: Id,
        event_type: u32,
        lane: u64,
        attempts: u32,
        retry_at: i64,
    }
}

mirror! {
    struct Health = domain::Health {
        consecutive_failures: u32,
        last_failure_at: Option<i64>,
        failing_since: Option<i64>,
        spread_failures: u32,
        last_spread_at: Option<i64>,
        paused_until: Option<i64>,
        breaker: Breaker,
    }
}

mirror! {
    enum Breaker = domain::Breaker {
        Closed,
        Ramping {
            successes: u32,
        },
        Open {
            probes: u32,
            next_probe_at: i64,
            last_probed: u64,
        },
    }
}

mirror! {
    struct Replays = domain::Replays {
        known: BTreeMap<Id, Replay>,
        active: Vec<ActiveReplay>,
        deactivated_at: Option<i64>,
        deactivations: Vec<Deactivation>,
    }
}

mirror! {
    struct Replay = domain::Replay {
        fingerprint: u64,
        begun_at: i64,
        ended_at: Option<i64>,
        is_counted: bool,
        is_cancelled: bool,
        ledger: ReplayLedger,
    }
}

mirror! {
    struct ReplayLedger = domain::ReplayLedger {
        matched: u64,
        sent: u64,
        failed: u64,
        gone: u64,
        cancelled: u64,
    }
}

mirror! {
    struct ActiveReplay = domain::ActiveReplay {
        id: Id,
        selection: ReplaySelection,
        extent: Extent,
        deactivations: Vec<Deactivation>,
        settled: u64,
        attempted: Vec<u64>,
        failures_in_row: u32,
        resume_at: Option<i64>,
    }
}

mirror! {
    struct Deactivation = domain::Deactivation {
        at: i64,
        before: Extent,
    }
}

mirror! {
    struct Extent = domain::Extent {
        through: u64,
        resolved: u64,
        ended: Vec<u64>,
        failing: Vec<u64>,
        behind: BTreeMap<u64, u64>,
    }
}
