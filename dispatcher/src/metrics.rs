//! What the dispatcher counts. Labels are enums, never an id, a URL or a text from outside.

use metrics::{Counter, Gauge, Histogram};
use shared::domain::delivery::FailureKind;
use shared::domain::replay::{ReplayOutcome, ReplayStep};
use shared::telemetry::metrics::Registry;

use crate::core::ownership::Predecessor;

/// Handles, registered once: recording is an atomic operation.
pub(crate) struct DispatcherMetrics {
    pub delivered: Counter,
    pub exhausted: Counter,
    pub skipped: Counter,
    failed_attempts: [(FailureKind, Counter); 8],
    /// From an event's publication to the endpoint's answer, of first attempts and later ones.
    pub end_to_end_seconds: Histogram,
    pub attempt_seconds: Histogram,
    pub attempts_in_flight: Gauge,
    pub events_read: Counter,
    pub events_undecodable: Counter,
    pub events_fetched: Counter,
    pub backlog_reads: Counter,
    pub packs: Counter,
    pub pack_entries: Counter,
    pub commit_seconds: Histogram,
    pub commit_retries: Counter,
    pub packs_refused: Counter,
    pub gate_closed: Counter,
    pub partitions_owned: Gauge,
    pub partitions_stopped: Counter,
    pub partitions_unseen: Counter,
    pub partitions_unreadable: Counter,
    pub clock_offset_seconds: Gauge,
    takeovers: [Counter; 4],
    pub takeover_seconds: Histogram,
    pub lease_lapses: Counter,
    pub webhooks: Gauge,
    pub webhook_panics: Counter,
    pub webhooks_quarantined: Counter,
    pub webhooks_deactivated: Counter,
    pub breakers_opened: Counter,
    pub mailbox_full: Counter,
    pub snapshots: Counter,
    pub snapshots_failed: Counter,
    pub snapshot_seconds: Histogram,
    pub ledger_gaps: Counter,
    pub accounts_projected: Counter,
    pub projects_erased: Counter,
    pub webhook_events: Counter,
    pub webhook_events_dropped: Counter,
    replays_begun: Counter,
    replay_attempts: [Counter; 3],
}

impl DispatcherMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let deliveries = |outcome: &'static [(&'static str, &'static str)]| {
            registry.counter(
                "carillon_dispatcher_deliveries_total",
                "Deliveries ended, by outcome",
                outcome,
            )
        };
        let count = |name, help| registry.counter(name, help, &[]);
        Self {
            delivered: deliveries(&[("outcome", "delivered")]),
            exhausted: deliveries(&[("outcome", "exhausted")]),
            skipped: deliveries(&[("outcome", "skipped")]),
            failed_attempts: failed_attempts(registry),
            end_to_end_seconds: registry.seconds(
                "carillon_dispatcher_end_to_end_seconds",
                "From publication of an event to its delivery",
                &[],
            ),
            attempt_seconds: registry.seconds(
                "carillon_dispatcher_attempt_seconds",
                "From the start of an attempt to its outcome",
                &[],
            ),
            attempts_in_flight: registry.gauge(
                "carillon_dispatcher_attempts_in_flight",
                "Attempts under way",
                &[],
            ),
            events_read: count(
                "carillon_dispatcher_events_read_total",
                "Events read from the tail",
            ),
            events_undecodable: count(
                "carillon_dispatcher_events_undecodable_total",
                "Events whose bytes are not readable",
            ),
            events_fetched: count(
                "carillon_dispatcher_events_fetched_total",
                "Events read again for an attempt",
            ),
            backlog_reads: count(
                "carillon_dispatcher_backlog_reads_total",
                "Reads of a stretch of the stream for a webhook that is behind",
            ),
            packs: count("carillon_dispatcher_packs_total", "Packs stored in JOURNAL"),
            pack_entries: count(
                "carillon_dispatcher_pack_entries_total",
                "Entries stored in JOURNAL",
            ),
            commit_seconds: registry.seconds(
                "carillon_dispatcher_commit_seconds",
                "From making a pack to knowing that it is stored",
                &[],
            ),
            commit_retries: count(
                "carillon_dispatcher_commit_retries_total",
                "Appends to JOURNAL that had to be repeated",
            ),
            packs_refused: count(
                "carillon_dispatcher_packs_refused_total",
                "Packs that JOURNAL refused because another replica owns the partition",
            ),
            gate_closed: count(
                "carillon_dispatcher_gate_closed_total",
                "Times a webhook had to wait because too many outcomes were not journaled",
            ),
            partitions_owned: registry.gauge(
                "carillon_dispatcher_partitions_owned",
                "Partitions that this replica owns",
                &[],
            ),
            partitions_stopped: count(
                "carillon_dispatcher_partitions_stopped_total",
                "Partitions given up because of a fault or another owner",
            ),
            clock_offset_seconds: registry.gauge(
                "carillon_dispatcher_clock_offset_seconds",
                "How far the wall clock is ahead of JetStream's",
                &[],
            ),
            partitions_unreadable: count(
                "carillon_dispatcher_partitions_unreadable_total",
                "Partitions given up because a later release wrote what this one cannot read",
            ),
            partitions_unseen: count(
                "carillon_dispatcher_partitions_unseen_total",
                "Partitions taken after EVENTS had dropped what no owner had classified",
            ),
            takeovers: takeovers(registry),
            takeover_seconds: registry.seconds(
                "carillon_dispatcher_takeover_seconds",
                "From the decision to take a partition to running it",
                &[],
            ),
            lease_lapses: count(
                "carillon_dispatcher_lease_lapses_total",
                "Times that the replica's lease lapsed and began anew",
            ),
            webhooks: registry.gauge(
                "carillon_dispatcher_webhooks",
                "Webhooks with an actor",
                &[],
            ),
            webhook_panics: count(
                "carillon_dispatcher_webhook_panics_total",
                "Actors that ended by a panic",
            ),
            webhooks_quarantined: count(
                "carillon_dispatcher_webhooks_quarantined_total",
                "Webhooks put aside because their actors failed again and again",
            ),
            webhooks_deactivated: count(
                "carillon_dispatcher_webhooks_deactivated_total",
                "Webhooks deactivated because of their endpoints' answers",
            ),
            breakers_opened: count(
                "carillon_dispatcher_breakers_opened_total",
                "Times an endpoint was taken to be down",
            ),
            snapshots: count(
                "carillon_dispatcher_snapshots_total",
                "Snapshots of partitions stored",
            ),
            snapshots_failed: count(
                "carillon_dispatcher_snapshots_failed_total",
                "Snapshots of partitions that could not be stored",
            ),
            snapshot_seconds: registry.seconds(
                "carillon_dispatcher_snapshot_seconds",
                "Encoding and storing one snapshot",
                &[],
            ),
            mailbox_full: count(
                "carillon_dispatcher_mailbox_full_total",
                "Offers that a webhook had no room for, and reads from the stream instead",
            ),
            ledger_gaps: count(
                "carillon_dispatcher_ledger_gaps_total",
                "Webhooks whose account did not add up when they were looked at; 0, or a fault",
            ),
            accounts_projected: count(
                "carillon_dispatcher_accounts_projected_total",
                "Account entries published as events",
            ),
            projects_erased: count(
                "carillon_dispatcher_projects_erased_total",
                "Deleted projects of which nothing is left in the logs",
            ),
            webhook_events: count(
                "carillon_dispatcher_webhook_events_total",
                "Events published about webhooks that fail, recover or are deactivated",
            ),
            webhook_events_dropped: count(
                "carillon_dispatcher_webhook_events_dropped_total",
                "Events about webhooks given up because too many waited to be published",
            ),
            replays_begun: count("carillon_dispatcher_replays_total", "Replays begun"),
            replay_attempts: replay_attempts(registry),
        }
    }

    pub(crate) fn takeover(&self, predecessor: Predecessor) {
        let [first, released, dead, own] = &self.takeovers;
        match predecessor {
            Predecessor::None => first.increment(1),
            Predecessor::Released => released.increment(1),
            Predecessor::Dead(_) => dead.increment(1),
            Predecessor::Own => own.increment(1),
        }
    }

    pub(crate) fn replay(&self, step: &ReplayStep) {
        let [sent, failed, gone] = &self.replay_attempts;
        match step {
            ReplayStep::Begun { .. } => self.replays_begun.increment(1),
            ReplayStep::Attempted(attempt) => match attempt.outcome {
                ReplayOutcome::Sent { .. } => sent.increment(1),
                ReplayOutcome::Failed { .. } => failed.increment(1),
                ReplayOutcome::Gone => gone.increment(1),
            },
            ReplayStep::Counted { .. }
            | ReplayStep::ProbeFailed { .. }
            | ReplayStep::Cancelled { .. }
            | ReplayStep::Ended { .. } => {}
        }
    }

    pub(crate) fn failed_attempt(&self, kind: FailureKind) {
        if let Some((_, counter)) = self.failed_attempts.iter().find(|(of, _)| *of == kind) {
            counter.increment(1);
        }
    }
}

/// In the order of [`Predecessor`]'s variants.
fn takeovers(registry: &Registry) -> [Counter; 4] {
    let of = |labels| {
        let name = "carillon_dispatcher_takeovers_total";
        let help = "Partitions taken over, by what became of the owner before";
        registry.counter(name, help, labels)
    };
    [
        of(&[("predecessor", "none")]),
        of(&[("predecessor", "released")]),
        of(&[("predecessor", "dead")]),
        of(&[("predecessor", "own")]),
    ]
}

fn replay_attempts(registry: &Registry) -> [Counter; 3] {
    let of = |labels| {
        let name = "carillon_dispatcher_replay_attempts_total";
        registry.counter(
            name,
            "Events that replays had their turn at, by outcome",
            labels,
        )
    };
    [
        of(&[("outcome", "sent")]),
        of(&[("outcome", "failed")]),
        of(&[("outcome", "gone")]),
    ]
}

fn failed_attempts(registry: &Registry) -> [(FailureKind, Counter); 8] {
    use FailureKind as K;
    let of = |kind, labels| {
        let name = "carillon_dispatcher_failed_attempts_total";
        (
            kind,
            registry.counter(name, "Attempts that failed, by kind", labels),
        )
    };
    [
        of(K::Timeout, &[("kind", "timeout")]),
        of(K::Connect, &[("kind", "connect")]),
        of(K::Tls, &[("kind", "tls")]),
        of(K::Dns, &[("kind", "dns")]),
        of(K::RefusedAddress, &[("kind", "refused_address")]),
        of(K::Reset, &[("kind", "reset")]),
        of(K::Status, &[("kind", "status")]),
        of(K::Protocol, &[("kind", "protocol")]),
    ]
}
