//! Erasing for good: messages are overwritten where they lie.
//!
//! What a purge or a rollup drops cannot be read through the server any more, but its bytes stay in
//! the store's files until the block that they lie in is written anew or goes with its age; in
//! REGISTRY, which is kept, that may be never (seen). The server overwrites what is deleted by its
//! sequence, at once, for the price of reading its whole block: some hundred messages a second, and
//! fewer than a hundred in blocks of megabytes (seen).

use std::collections::BTreeMap;

use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};

use super::read::{last_matching, read_all, read_range};
use super::{Nats, Unavailable};
use crate::codec;
use crate::domain::registry::{Aggregate, RegistryEntry};
use crate::ids::{ProjectId, Sequence};
use crate::subjects;

/// Events of a project up to which each is overwritten. Those of a larger one are purged, and their
/// bytes go with their blocks: at the latest, when they reach EVENTS' age.
const EVENTS_OVERWRITTEN_MAX: usize = 1_000;
/// Of what is read to be overwritten.
const BYTES_MAX: usize = 16 << 20;

/// What REGISTRY holds under one subject.
#[derive(Clone, Debug)]
pub struct HeldSubject<T> {
    pub project: ProjectId,
    pub aggregate: Aggregate,
    pub id: String,
    /// In order, at least one.
    pub messages: Vec<(Sequence, T)>,
}

/// What REGISTRY holds under the subjects that `filter` names, by subject, with what `look` makes of
/// each entry; `None` of one that is not readable.
pub async fn held<T>(
    nats: &Nats,
    filter: &str,
    look: impl Fn(Option<RegistryEntry>) -> T,
) -> Result<BTreeMap<String, HeldSubject<T>>, Unavailable> {
    let mut held: BTreeMap<String, HeldSubject<T>> = BTreeMap::new();
    read_all(&nats.registry, filter, Sequence(0), |message| {
        let Some((project, aggregate, id)) = subjects::parse_registry(&message.subject) else {
            return;
        };
        let record = codec::decode_record(&message.payload).ok();
        let looked = (message.sequence, look(record.map(|record| record.entry)));
        held.entry(message.subject.clone())
            .or_insert_with(|| HeldSubject {
                project,
                aggregate,
                id: id.to_owned(),
                messages: Vec::new(),
            })
            .messages
            .push(looked);
    })
    .await?;
    Ok(held)
}

/// Overwrites one message. It must not be the last of a subject whose appends are checked
/// (`protocol.md`, rule 28). One that is gone already is gone.
pub async fn overwrite(stream: &Stream<()>, sequence: Sequence) -> Result<(), Unavailable> {
    let Err(error) = stream.delete_message(sequence.0).await else {
        return Ok(());
    };
    match stream.get_raw_message(sequence.0).await {
        Err(gone) if gone.kind() == RawMessageErrorKind::NoMessageFound => Ok(()),
        Ok(_) | Err(_) => Err(Unavailable::new(error)),
    }
}

/// Erases a project's events. How many there were, or at least how many were seen.
pub async fn erase_events(nats: &Nats, project: ProjectId) -> Result<usize, Unavailable> {
    let filter = subjects::events_of_project(nats.partitions.of(project), project);
    let bounds = (EVENTS_OVERWRITTEN_MAX, BYTES_MAX);
    let first = Sequence(0);
    let read = read_range(&nats.events, &filter, first, first, bounds).await?;
    let Some(last) = read.messages.last() else {
        return Ok(0);
    };
    let newest = last_matching(&nats.events, &filter).await?;
    if newest.is_none_or(|newest| newest.sequence == last.sequence) {
        // The oldest first: who reads through the last of them finds it until the end.
        for message in &read.messages {
            overwrite(&nats.events, message.sequence).await?;
        }
    }
    let purge = nats.events.purge().filter(filter);
    purge.await.map_err(Unavailable::new)?;
    Ok(read.messages.len())
}
