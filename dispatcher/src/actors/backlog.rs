//! Reading what a webhook is behind with.

use std::time::Duration;

use shared::ids::{Sequence, WebhookId};
use shared::nats::bounds;

use super::log::PartitionLog;
use super::shared_state::Replica;
use crate::core::partition::Stretch;
use crate::io::events;

/// After a read that JetStream did not answer.
pub(super) const READ_RETRY: Duration = Duration::from_millis(500);

/// A stretch of what `filter` names in (after, known], as far as one read goes. `None`, after a
/// while, when it is to be asked for again: JetStream did not answer, or EVENTS has dropped where
/// it begins, and what is pending there must end before it is passed over (rule 21).
pub(super) async fn read_backlog(
    replica: &Replica,
    log: &PartitionLog,
    webhook: WebhookId,
    filter: &str,
    (after, known): (Sequence, Sequence),
) -> Option<Stretch> {
    // Closed never: the replica holds it.
    let _turn = replica.backlog_turns.acquire().await;
    let read = events::stretch(&replica.nats, &replica.metrics, filter, after, known).await;
    // Afterwards, since events are dropped meanwhile too.
    let first = bounds(&replica.nats.events).await.map(|(first, _)| first);
    match read.and_then(|stretch| Ok((stretch, first?.previous()))) {
        Ok((stretch, dropped)) if dropped <= after || !log.owes(webhook) => return Some(stretch),
        Ok((_, dropped)) => replica.horizon.set(replica.horizon.get().max(dropped)),
        Err(error) => {
            log.note(&error);
            tracing::debug!(%error, "a backlog was not read");
        }
    }
    tokio::time::sleep(READ_RETRY).await;
    None
}
