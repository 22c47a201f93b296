//! Becoming the owner of a partition: epoch entry, then fold (`protocol.md`, rule 6).

use std::time::Duration;

use shared::codec;
use shared::domain::journal::{EpochEntry, JournalEntry};
use shared::domain::membership::MEMBER_TTL;
use shared::domain::state::PartitionState;
use shared::ids::{Epoch, PartitionId, ReplicaId, Sequence};
use shared::nats::append::{AppendError, Expected, NewMessage};
use shared::nats::read::{Lookup, StoredMessage, last_matching, message_at, read_all};
use shared::nats::{Nats, Unavailable, bounds};
use shared::subjects;
use shared::time::Timestamp;

use super::recovery::{Recovered, recover};
use crate::actors::shared_state::Replica;
use crate::core::ownership::{Claim, Predecessor};

/// The longest timeout of an attempt (rule 9).
const ATTEMPT_MS_MAX: i64 = 30_000;
/// How often a predecessor is looked at that has come back to life.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a new owner starts from.
#[derive(Debug)]
pub(crate) struct Takeover {
    pub partition: PartitionId,
    pub epoch: Epoch,
    /// Sequence of the epoch entry: what every pack is checked against.
    pub fence: Sequence,
    /// The lease's term in which that was appended.
    pub proven: u64,
    /// What the journal tells.
    pub state: PartitionState,
    /// Entries that were folded after the last snapshot.
    pub folded: u64,
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
    #[error("the lease has lapsed")]
    Lapsed,
    /// The logs do not fit together: an operator must look (rule 7).
    #[error("the partition is stopped: {0}")]
    Stopped(String),
}

/// Takes the partition, in the order of rule 6.
pub(crate) async fn take_over(replica: &Replica, claim: &Claim) -> Result<Takeover, TakeoverError> {
    let (nats, partition) = (&replica.nats, claim.partition);
    let proven = replica.lease.live_term().ok_or(TakeoverError::Lapsed)?;
    let me = replica.membership.me();
    let (epoch, fence) = announce(nats, claim, me, replica.clock.now()).await?;
    outlive(replica, claim.predecessor).await?;
    let predecessors_end = replica.clock.now();
    let Recovered { state, folded } = recover(nats, partition).await?;
    // The registry as it was after the epoch entry, at least.
    replica.view.catch_up().await?;
    let (first, last) = bounds(&nats.events).await?;
    check_events(nats, &state, last).await?;
    if state
        .classified
        .is_some_and(|classified| classified.sequence.next() < first)
    {
        replica.metrics.partitions_unseen.increment(1);
        tracing::error!(
            %partition,
            "EVENTS has dropped what nobody classified; of this partition, perhaps"
        );
    }
    Ok(Takeover {
        partition,
        epoch,
        fence,
        proven,
        hold_ends_until: hold_ends_until(&state, claim, predecessors_end),
        state,
        folded,
        events_origin: first.previous(),
    })
}

/// It was dead when the decision was made. If it has come back and appended before our epoch
/// entry, it may be sending: it learns of the entry within a lease's length, from the log that
/// tells of entries or from the log that refuses its next pack.
async fn outlive(replica: &Replica, predecessor: Predecessor) -> Result<(), TakeoverError> {
    let Predecessor::Dead(holder) = predecessor else {
        return Ok(());
    };
    let gone = async {
        while !replica.membership.is_gone(holder).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    };
    tokio::time::timeout(MEMBER_TTL, gone)
        .await
        .unwrap_or(Ok(()))
}

/// Nobody else may be sending when there was nobody, or when it gave the partition up. An owner
/// without a pack may have sent all the same.
fn hold_ends_until(state: &PartitionState, claim: &Claim, now: Timestamp) -> Timestamp {
    let released = state
        .last
        .filter(|_| state.released)
        .map(|(epoch, _)| epoch);
    if claim.after.map(|held| held.epoch) == released {
        Timestamp::default()
    } else {
        // In the partition's time, which is ahead of the wall clock if a predecessor's was.
        now.max(state.now).plus_millis(ATTEMPT_MS_MAX)
    }
}

/// Whether the owner of `epoch` has given the partition up.
pub(crate) async fn has_released(
    nats: &Nats,
    partition: PartitionId,
    epoch: Epoch,
) -> Result<bool, Unavailable> {
    let last = last_matching(&nats.journal, &subjects::journal(partition)).await?;
    let pack = last.and_then(|message| codec::decode_pack(&message.payload).ok());
    Ok(pack.is_some_and(|pack| {
        pack.epoch == epoch && pack.entries.last() == Some(&JournalEntry::Released)
    }))
}

/// Every epoch entry, in order, through the last one that the leader has.
pub(crate) async fn read_epochs(
    nats: &Nats,
) -> Result<(Vec<StoredMessage>, Sequence), Unavailable> {
    let mut entries = Vec::new();
    let filter = subjects::JOURNAL_EPOCHS;
    read_all(&nats.journal, filter, Sequence(0), |message| {
        entries.push(message);
    })
    .await?;
    let last = entries.last().map(|message| message.sequence);
    Ok((entries, last.unwrap_or_default()))
}

/// Appends the next epoch entry, which holds only while the one that the claim was made on is the
/// last. From then on, packs of earlier owners are refused.
async fn announce(
    nats: &Nats,
    claim: &Claim,
    replica: ReplicaId,
    now: Timestamp,
) -> Result<(Epoch, Sequence), TakeoverError> {
    let partition = claim.partition;
    let subject = subjects::journal_epoch(partition);
    let (previous, expected) = claim
        .after
        .map_or((0, Sequence(0)), |held| (held.epoch.0, held.sequence));
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
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error @ AppendError::TooLarge) => {
                return Err(TakeoverError::Stopped(error.to_string()));
            }
        }
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
