//! One pack into JOURNAL, fenced by the partition's epoch entry.

use std::time::Duration;

use shared::ids::{PartitionId, Sequence};
use shared::nats::Nats;
use shared::nats::append::{AppendError, Expected, NewMessage};
use shared::nats::read::last_matching;
use shared::subjects;

use crate::actors::log::EncodedPack;
use crate::metrics::DispatcherMetrics;

const RETRY: Duration = Duration::from_millis(100);
const BUSY_RETRY: Duration = Duration::from_millis(20);

/// What became of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Committed {
    /// It lies at this sequence.
    Stored(Sequence),
    /// Another replica owns the partition.
    Deposed,
}

/// Appends a pack, and repeats for as long as its fate is unknown.
pub(crate) async fn commit(
    nats: &Nats,
    metrics: &DispatcherMetrics,
    partition: PartitionId,
    fence: Sequence,
    pack: &EncodedPack,
) -> Committed {
    let message = NewMessage {
        subject: subjects::journal(partition),
        payload: pack.bytes.clone(),
        message_id: format!("pack-{partition}-{}-{}", pack.epoch.0, pack.number),
        expected: Some(Expected {
            subject: subjects::journal_epoch(partition),
            sequence: fence,
        }),
        never_expires: false,
    };
    let mut in_doubt = false;
    loop {
        let is_refused = match nats.append(message.clone()).await {
            Ok(appended) => return Committed::Stored(appended.sequence),
            Err(AppendError::Conflict) if !in_doubt => return Committed::Deposed,
            Err(AppendError::Conflict) => true,
            Err(AppendError::Busy) => {
                metrics.commit_retries.increment(1);
                tokio::time::sleep(BUSY_RETRY).await;
                continue;
            }
            Err(error @ (AppendError::Unknown(_) | AppendError::TooLarge)) => {
                in_doubt = true;
                tracing::warn!(%partition, %error, "a pack is not acknowledged");
                false
            }
        };
        // The append whose acknowledgement was lost may be the partition's last message. That is
        // looked for before each repetition: one that comes after the dedup window, since this
        // process stood still, would be stored at a second place.
        loop {
            let last = last_matching(&nats.journal, &message.subject).await;
            match last {
                Ok(Some(last)) if last.message_id.as_ref() == Some(&message.message_id) => {
                    return Committed::Stored(last.sequence);
                }
                Ok(Some(_) | None) if is_refused => return Committed::Deposed,
                Ok(Some(_) | None) => break,
                Err(error) => tracing::warn!(%partition, %error, "a pack is in doubt"),
            }
            tokio::time::sleep(RETRY).await;
        }
        metrics.commit_retries.increment(1);
        tokio::time::sleep(RETRY).await;
    }
}
