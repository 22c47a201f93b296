//! What a webhook's actor counts and logs of what it sent and decided.

use shared::domain::journal::{JournalEntry, UnsentEnd};

use super::webhook::{AttemptDone, WebhookActor};
use crate::core::delivery::AttemptOutcome;

impl WebhookActor {
    /// What attempts took; what became of deliveries is counted by [`Self::count_entry`].
    pub(super) fn count_attempt(&self, done: &AttemptDone) {
        let metrics = &self.replica.metrics;
        let sent = &done.sent;
        match &sent.outcome {
            AttemptOutcome::Delivered { .. } => {
                metrics.attempt_seconds.record(sent.latency.as_secs_f64());
                if let Some(published_at) = done.published_at {
                    let latency_ms = i64::try_from(sent.latency.as_millis()).unwrap_or(0);
                    let ended = sent.started_at.plus_millis(latency_ms);
                    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a latency")]
                    let seconds = ended.millis_since(published_at).max(0) as f64 / 1_000.0;
                    metrics.end_to_end_seconds.record(seconds);
                }
            }
            AttemptOutcome::Failed { failure, .. } => {
                metrics.failed_attempt(failure.kind);
                metrics.attempt_seconds.record(sent.latency.as_secs_f64());
                tracing::info!(
                    webhook.id = %self.webhook.id,
                    partition = self.partition().0,
                    error = failure.kind.as_str(),
                    status = failure.status,
                    "an attempt failed"
                );
            }
            AttemptOutcome::Gone(_) | AttemptOutcome::NotStarted => {}
        }
    }

    /// Ends of deliveries, each once: when its entry is on its way into JOURNAL.
    pub(super) fn count_entry(&self, entry: &JournalEntry) {
        let metrics = &self.replica.metrics;
        match entry {
            JournalEntry::Delivered { .. } => metrics.delivered.increment(1),
            JournalEntry::Exhausted { .. }
            | JournalEntry::Ended {
                end: UnsentEnd::Exhausted(_),
                ..
            } => metrics.exhausted.increment(1),
            JournalEntry::Ended {
                end: UnsentEnd::Skipped(_),
                ..
            } => metrics.skipped.increment(1),
            JournalEntry::BreakerOpened { .. } => {
                metrics.breakers_opened.increment(1);
                tracing::warn!(webhook.id = %self.webhook.id, "the endpoint is taken to be down");
            }
            JournalEntry::BreakerClosed { .. } => {
                tracing::info!(webhook.id = %self.webhook.id, "the endpoint answers again");
            }
            JournalEntry::Deactivated { reason, .. } => {
                metrics.webhooks_deactivated.increment(1);
                tracing::warn!(webhook.id = %self.webhook.id, ?reason, "the webhook is deactivated");
            }
            JournalEntry::Replay { step, .. } => metrics.replay(step),
            // How many end by these is known when they are packed.
            JournalEntry::PendingEnded { .. }
            | JournalEntry::AttemptFailed { .. }
            | JournalEntry::ProbeFailed { .. }
            | JournalEntry::ConfigApplied { .. }
            | JournalEntry::CountedBack { .. }
            | JournalEntry::Quarantined { .. }
            | JournalEntry::Settled { .. }
            | JournalEntry::AccountsProjected { .. }
            | JournalEntry::Released => {}
        }
    }
}
