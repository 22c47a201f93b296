//! Becoming the owner of a partition: epoch entry, then fold (`protocol.md`, rule 6).

use shared::codec;
use shared::domain::journal::EpochEntry;
use shared::ids::{Epoch, PartitionId, ReplicaId, Sequence};
use shared::nats::append::{AppendError, Expected, NewMessage};
use shared::nats::read::{Lookup, last_matching, message_at, read_all};
use shared::nats::{Nats, Unavailable, bounds};
use shared::subjects;
use shared::time::Timestamp;

use shared::domain::state::PartitionState;

/// A membership's length and the longest timeout of an attempt (rule 9).
const PREDECESSOR_MS: i64 = 33_000;

/// What a new owner starts from.
#[derive(Debug)]
pub(crate) struct Takeover {
    pub partition: PartitionId,
    pub epoch: Epoch,
    /// Sequence of the epoch entry: what every pack is checked against.
    pub fence: Sequence,
    /// What the journal tells.
    pub state: PartitionState,
    /// Nothing in EVENTS lies at or below.
    pub events_origin: Sequence,
    /// A predecessor's last attempt may still arrive until then (rule 9).
    pub hold_ends_until: Timestamp,
}

/// Why a partition could not be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeoverError {
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Somebody else took it at the same moment.
    #[error("another replica took the partition")]
    Lost,
    /// The logs do not fit together: an operator must look (rule 7).
    #[error("the partition is stopped: {0}")]
    Stopped(String),
}

/// Takes the partition for `replica`.
pub(crate) async fn take_over(
    nats: &Nats,
    partition: PartitionId,
    replica: ReplicaId,
    now: Timestamp,
) -> Result<Takeover, TakeoverError> {
    let (epoch, fence) = announce(nats, partition, replica, now).await?;
    let state = fold_journal(nats, partition).await?;
    let (first, last) = bounds(&nats.events).await?;
    check_events(nats, &state, last).await?;
    Ok(Takeover {
        partition,
        epoch,
        fence,
        hold_ends_until: hold_ends_until(&state, now),
        state,
        events_origin: first.previous(),
    })
}

/// Nobody else may be sending when there was nobody, or when it gave the partition up.
fn hold_ends_until(state: &PartitionState, now: Timestamp) -> Timestamp {
    if state.released || state.last.is_none() {
        Timestamp::default()
    } else {
        now.plus_millis(PREDECESSOR_MS)
    }
}

/// Appends the next epoch entry. From then on, packs of earlier owners are refused.
async fn announce(
    nats: &Nats,
    partition: PartitionId,
    replica: ReplicaId,
    now: Timestamp,
) -> Result<(Epoch, Sequence), TakeoverError> {
    let subject = subjects::journal_epoch(partition);
    let (previous, expected) = match last_matching(&nats.journal, &subject).await? {
        Some(message) => {
            let entry = codec::decode_epoch(&message.payload)
                .map_err(|error| TakeoverError::Stopped(format!("epoch entry: {error}")))?;
            (entry.epoch.0, message.sequence)
        }
        None => (0, Sequence(0)),
    };
    let entry = EpochEntry {
        epoch: Epoch(previous + 1),
        owner: replica,
        at: now,
        generation: nats.generation,
    };
    let message = NewMessage {
        payload: codec::encode_epoch(&entry).into(),
        message_id: format!("epoch-{partition}-{}-{replica}", entry.epoch.0),
        expected: Some(Expected {
            subject: subject.clone(),
            sequence: expected,
        }),
        subject,
        never_expires: true,
    };
    loop {
        match nats.append(message.clone()).await {
            Ok(appended) => return Ok((entry.epoch, appended.sequence)),
            Err(AppendError::Conflict) => {
                // After a lost acknowledgement the conflict may be with our own entry.
                let last = last_matching(&nats.journal, &message.subject).await?;
                return match last {
                    Some(last) if last.message_id.as_ref() == Some(&message.message_id) => {
                        Ok((entry.epoch, last.sequence))
                    }
                    Some(_) | None => Err(TakeoverError::Lost),
                };
            }
            Err(AppendError::Busy | AppendError::Unknown(_)) => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            Err(error @ AppendError::TooLarge) => {
                return Err(TakeoverError::Stopped(error.to_string()));
            }
        }
    }
}

/// All packs: whatever an earlier owner stored lies before the epoch entry that is now known
/// stored, so the last pack that the leader has is the last that there will be.
pub(crate) async fn fold_journal(
    nats: &Nats,
    partition: PartitionId,
) -> Result<PartitionState, TakeoverError> {
    let mut fold = PartitionState::default();
    let mut unreadable: Option<(Sequence, String)> = None;
    let subject = subjects::journal(partition);
    let read = read_all(&nats.journal, &subject, Sequence(0), |message| {
        let folded = codec::decode_pack(&message.payload)
            .map_err(|error| error.to_string())
            .and_then(|pack| {
                let folded = fold.apply(message.sequence, &pack);
                folded.map_err(|error| error.to_string())
            });
        if let Err(error) = folded {
            unreadable.get_or_insert((message.sequence, error));
        }
    });
    read.await?;
    match unreadable {
        None => Ok(fold),
        // Outcomes that cannot be read cannot be skipped: they may be ends.
        Some((sequence, error)) => Err(TakeoverError::Stopped(format!(
            "JOURNAL {sequence}: {error}"
        ))),
    }
}

/// EVENTS must still hold what was classified: a stream that went back would give other events
/// the positions of old ones.
async fn check_events(
    nats: &Nats,
    fold: &PartitionState,
    last: Sequence,
) -> Result<(), TakeoverError> {
    let Some(classified) = fold.classified else {
        return Ok(());
    };
    if classified.generation != nats.generation || classified.sequence > last {
        return Err(TakeoverError::Stopped(format!(
            "EVENTS ends at {last}, before the classified position {}",
            classified.sequence
        )));
    }
    let Some(checkpoint) = fold.checkpoint else {
        return Ok(());
    };
    let sequence = checkpoint.position.sequence;
    if let Lookup::Found(message) = message_at(&nats.events, sequence).await?
        && codec::decode_event(&message.payload).is_ok_and(|event| event.id != checkpoint.event)
    {
        return Err(TakeoverError::Stopped(format!(
            "EVENTS has another event at {sequence} than was classified"
        )));
    }
    Ok(())
}
