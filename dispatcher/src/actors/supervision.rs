//! What a partition does when one of its webhooks' actors has nothing to do any more, or has
//! ended by a panic.

use actix::Handler;
use shared::domain::journal::JournalEntry;

use super::children::Ended;
use super::partition::PartitionActor;
use super::webhook::Rested;

impl Handler<Rested> for PartitionActor {
    type Result = ();

    /// The actor has settled everything. It is let go if nothing was sent to it since, and if
    /// what it pushed is stored: it would begin again from what is.
    fn handle(&mut self, rested: Rested, _: &mut Self::Context) {
        let is_settled = self.log.look(|commits| {
            commits.pending(rested.webhook) == 0 && commits.stored() >= rested.pushed
        });
        if is_settled {
            self.children.rest(&rested);
        }
    }
}

impl Handler<Ended> for PartitionActor {
    type Result = ();

    /// An actor ended by a panic: it begins again from the log, later and later; in the end its
    /// webhook is quarantined (rule 10).
    fn handle(&mut self, ended: Ended, _: &mut Self::Context) {
        let now = self.log.now();
        if self.children.ended(&ended, now, self.log.pushed()) {
            self.replica.metrics.webhooks_quarantined.increment(1);
            tracing::error!(
                webhook.id = %ended.webhook,
                partition = self.id.0,
                "the webhook's actor fails again and again; the webhook is quarantined"
            );
            self.log.push(JournalEntry::Quarantined {
                webhook: ended.webhook,
                at: now,
                from: self.core.classified().position,
            });
            self.hear_decisions();
        }
    }
}
