//! What owners decided, shown in REGISTRY (`protocol.md`, rule 10).
//!
//! A decision holds from its journal entry on. The registry's word comes after it, is repeated
//! until it stands there, and never against somebody who has lifted the decision meanwhile: that
//! is checked by the server with the append.

use std::time::Duration;

use shared::codec;
use shared::domain::journal::{EntryPlace, JournalEntry, OwnerDecision};
use shared::domain::registry::{Command, DecidedAt};
use shared::ids::{PartitionId, ProjectId, Sequence, WebhookId};
use shared::nats::read::{Lookup, message_at};
use shared::nats::registry_view::{ExecuteError, RegistryView};
use shared::nats::{Nats, Unavailable};
use shared::time::Clock;

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A decision that the registry may not show yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwedDecision {
    pub partition: PartitionId,
    pub project: ProjectId,
    pub webhook: WebhookId,
    pub decision: OwnerDecision,
    pub decided: DecidedAt,
    /// The webhook's last registry entry that the owner had applied.
    pub seen: Sequence,
}

/// Returns once the registry shows the decision, or will not, since somebody lifted it or deleted
/// the webhook; or once `is_deposed` says that this is another owner's to repeat.
pub(crate) async fn record(
    view: &RegistryView,
    clock: &dyn Clock,
    owed: &OwedDecision,
    is_deposed: impl Fn() -> bool,
) {
    let by = format!("owner:{}:{}", owed.partition, owed.decided.epoch.0);
    let command = Command::RecordDecision {
        project: owed.project,
        id: owed.webhook,
        decision: owed.decision,
        decided: owed.decided,
        seen: owed.seen,
    };
    let mut wait = RETRY_FIRST;
    while !is_deposed() {
        match view.execute(command.clone(), &by, clock.now()).await {
            Ok(_) => return,
            // Its subject keeps moving, or nobody knows whether it holds.
            Err(error @ (ExecuteError::Refused(_) | ExecuteError::Unavailable(_))) => {
                tracing::warn!(
                    webhook.id = %owed.webhook,
                    %error,
                    "a decision is not in the registry yet"
                );
            }
        }
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(RETRY_MAX);
    }
}

/// The entry at `place`, and who wrote it. `None` if JOURNAL does not hold it any more.
pub(crate) async fn entry_at(
    nats: &Nats,
    place: EntryPlace,
) -> Result<Option<(DecidedAt, JournalEntry)>, Unavailable> {
    let message = match message_at(&nats.journal, place.pack).await? {
        Lookup::Found(message) => message,
        Lookup::Expired | Lookup::Erased => return Ok(None),
    };
    let pack = match codec::decode_pack(&message.payload) {
        Ok(pack) => pack,
        Err(error) => return Err(Unavailable(error.to_string())),
    };
    let epoch = pack.epoch;
    let entry = pack.entries.into_iter().nth(usize::from(place.index));
    Ok(entry.map(|entry| (DecidedAt { epoch, place }, entry)))
}
