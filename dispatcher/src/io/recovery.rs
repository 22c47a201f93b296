//! A partition's state from what is durably kept: the newest snapshot that is whole, and the
//! packs after it.

use shared::codec;
use shared::domain::state::PartitionState;
use shared::ids::{PartitionId, Sequence};
use shared::nats::read::read_all;
use shared::nats::snapshots::{self, SnapshotError};
use shared::nats::{Nats, bounds};
use shared::subjects;

use super::takeover::TakeoverError;

/// What was found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub state: PartitionState,
    /// Entries that were folded after the snapshot.
    pub folded: u64,
}

/// Folds JOURNAL through what the leader has. The caller's epoch entry lies in it, so that no
/// earlier owner can add to what is read here.
pub(crate) async fn recover(
    nats: &Nats,
    partition: PartitionId,
) -> Result<Recovered, TakeoverError> {
    let snapshot = newest_snapshot(nats, partition).await?;
    let (first, _) = bounds(&nats.journal).await?;
    // Packs that are gone cannot be guessed (rule 7). Without a snapshot, the log must reach back
    // to the first pack there ever was, which the fold sees by its number.
    let folded_through = snapshot.as_ref().map(|state| state.journal);
    if folded_through.is_some_and(|through| first > through.next()) {
        let through = folded_through.unwrap_or_default();
        return Err(TakeoverError::Stopped(format!(
            "JOURNAL begins at {first}, and the newest snapshot ends at {through}"
        )));
    }
    fold_journal(nats, partition, snapshot).await
}

async fn newest_snapshot(
    nats: &Nats,
    partition: PartitionId,
) -> Result<Option<PartitionState>, TakeoverError> {
    for kept in snapshots::read_candidates(nats, partition).await? {
        let reason = match snapshots::read(nats, &kept).await {
            Ok(bytes) => match codec::decode_state(&bytes) {
                Ok(state) if kept.label.generation == nats.generation => return Ok(Some(state)),
                Ok(_) => "it is of another generation".to_owned(),
                Err(error) => error.to_string(),
            },
            Err(error @ (SnapshotError::Corrupt(_) | SnapshotError::Gone)) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        tracing::error!(
            %partition,
            journal = kept.label.journal.0,
            error = %reason,
            "a snapshot is not usable; the one before it is tried"
        );
    }
    Ok(None)
}

async fn fold_journal(
    nats: &Nats,
    partition: PartitionId,
    snapshot: Option<PartitionState>,
) -> Result<Recovered, TakeoverError> {
    let is_from_the_beginning = snapshot.is_none();
    let mut state = snapshot.unwrap_or_default();
    let mut folded = 0;
    let mut unreadable: Option<(Sequence, String)> = None;
    let subject = subjects::journal(partition);
    let read = read_all(&nats.journal, &subject, state.journal, |message| {
        if unreadable.is_some() {
            return;
        }
        let applied = match codec::decode_pack(&message.payload) {
            Ok(pack) if is_from_the_beginning && state.last.is_none() && pack.number != 1 => {
                Err("the packs before it are gone, and there is no snapshot".to_owned())
            }
            Ok(pack) => {
                folded += u64::try_from(pack.entries.len()).unwrap_or(0);
                let applied = state.apply(message.sequence, &pack);
                applied.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = applied {
            unreadable = Some((message.sequence, error));
        }
    });
    read.await?;
    match unreadable {
        None => Ok(Recovered { state, folded }),
        // Outcomes that cannot be read cannot be skipped: they may be ends.
        Some((sequence, error)) => Err(TakeoverError::Stopped(format!(
            "JOURNAL {sequence}: {error}"
        ))),
    }
}

impl From<SnapshotError> for TakeoverError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Unavailable(error) => Self::Unavailable(error),
            // A later release wrote it, or the manifest is damaged: an operator must look.
            error @ (SnapshotError::Corrupt(_)
            | SnapshotError::Gone
            | SnapshotError::Later(_)
            | SnapshotError::TooLarge(_)) => Self::Stopped(error.to_string()),
        }
    }
}
