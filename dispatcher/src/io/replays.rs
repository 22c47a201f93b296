//! What a replay matches, read from EVENTS and JOURNAL in bounded pieces: never all at once.

use std::collections::BTreeMap;

use shared::codec;
use shared::ids::{PartitionId, ProjectId, Sequence};
use shared::limits::REPLAY_WINDOW_MAX;
use shared::nats::Unavailable;
use shared::nats::read::{first_since, read_all};
use shared::subjects;
use shared::time::Timestamp;

use super::events;
use crate::actors::shared_state::Replica;
use crate::core::replay::{Found, Selector};

/// How far the time that an event or an entry tells may be from when the server stored it: clocks,
/// and appends that took several tries.
const STORED_WITHIN_MS: i64 = 10 * 60 * 1_000;
/// Found in EVENTS, enough for one read.
const FOUND_ENOUGH: usize = 1_000;

/// Where a webhook's events and entries lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub partition: PartitionId,
    pub project: ProjectId,
}

/// How many events are selected. Everything that was journaled before the selection was fixed
/// must be stored.
pub(crate) async fn count(
    replica: &Replica,
    place: Place,
    selector: &Selector,
) -> Result<u64, Unavailable> {
    let mut matched: u64 = 0;
    if let Some(since) = selector.needs_entries_since() {
        entries(replica, place, selector, since, |_| matched += 1).await?;
    }
    if selector.needs_events() {
        let mut after = begin(replica, place, selector).await?;
        while after < selector.through() {
            let (found, through) = stretch(replica, place, selector, after).await?;
            matched = matched.saturating_add(u64::try_from(found.len()).unwrap_or(u64::MAX));
            after = through;
        }
    }
    Ok(matched)
}

/// What is selected after `after`, ascending, and how far that goes.
pub(crate) async fn read(
    replica: &Replica,
    place: Place,
    selector: &Selector,
    after: Sequence,
) -> Result<(Vec<Found>, Sequence), Unavailable> {
    let mut lowest: BTreeMap<Sequence, Found> = BTreeMap::new();
    let mut through = selector.through();
    if let Some(since) = selector.needs_entries_since() {
        // JOURNAL is in the order of ends; the next ones by position may stand anywhere in it.
        entries(replica, place, selector, since, |found| {
            if found.sequence > after {
                lowest.insert(found.sequence, found);
                if lowest.len() > REPLAY_WINDOW_MAX {
                    lowest.pop_last();
                }
            }
        })
        .await?;
        if lowest.len() >= REPLAY_WINDOW_MAX
            && let Some((last, _)) = lowest.last_key_value()
        {
            through = *last;
        }
    }
    if selector.needs_events() {
        let mut reached = after;
        if after == Sequence(0) {
            reached = begin(replica, place, selector).await?;
        }
        let mut found_there = 0;
        while reached < through && found_there < FOUND_ENOUGH {
            let (found, to) = stretch(replica, place, selector, reached).await?;
            found_there += found.len();
            lowest.extend(found.into_iter().map(|found| (found.sequence, found)));
            reached = to;
        }
        through = through.min(reached);
        lowest.split_off(&through.next());
    }
    Ok((lowest.into_values().collect(), through))
}

/// Nothing at or below is selected in EVENTS.
async fn begin(
    replica: &Replica,
    place: Place,
    selector: &Selector,
) -> Result<Sequence, Unavailable> {
    let origin = selector.origin();
    let Some(since) = selector.published_since() else {
        return Ok(origin);
    };
    let filter = subjects::events_of_project(place.partition, place.project);
    let since = since.plus_millis(-STORED_WITHIN_MS);
    let first = first_since(&replica.nats.events, &filter, since).await?;
    let before = first.map_or(selector.through(), Sequence::previous);
    Ok(before.max(origin))
}

/// One read of EVENTS.
async fn stretch(
    replica: &Replica,
    place: Place,
    selector: &Selector,
    after: Sequence,
) -> Result<(Vec<Found>, Sequence), Unavailable> {
    let filter = subjects::events_of_project(place.partition, place.project);
    // Closed never: the replica holds it.
    let turn = replica.backlog_turns.acquire().await;
    replica.metrics.backlog_reads.increment(1);
    let (nats, metrics, through) = (&replica.nats, &replica.metrics, selector.through());
    let read = events::stretch(nats, metrics, &filter, after, through).await?;
    drop(turn);
    let found = read.events.iter();
    let found = found.filter_map(|(sequence, event)| selector.event(*sequence, event));
    let found = found.collect();
    let is_past = |before: Timestamp| {
        let last = read.events.last();
        last.is_some_and(|(_, event)| event.published_at.millis_since(before) > STORED_WITHIN_MS)
    };
    let reached = if selector.published_before().is_some_and(is_past) {
        through
    } else {
        read.through
    };
    Ok((found, reached))
}

/// What JOURNAL tells of since then.
async fn entries(
    replica: &Replica,
    place: Place,
    selector: &Selector,
    since: Timestamp,
    mut each: impl FnMut(Found),
) -> Result<(), Unavailable> {
    let (stream, filter) = (&replica.nats.journal, subjects::journal(place.partition));
    let since = since.plus_millis(-STORED_WITHIN_MS);
    let turn = replica.backlog_turns.acquire().await;
    let Some(first) = first_since(stream, &filter, since).await? else {
        return Ok(());
    };
    let mut unreadable = None;
    read_all(
        stream,
        &filter,
        first.previous(),
        |message| match codec::decode_pack(&message.payload) {
            Ok(pack) => {
                let found = pack.entries.iter();
                let found = found.filter_map(|entry| selector.entry(entry));
                found.for_each(&mut each);
            }
            Err(error) => unreadable = Some(format!("JOURNAL {}: {error}", message.sequence)),
        },
    )
    .await?;
    drop(turn);
    unreadable.map_or(Ok(()), |error| Err(Unavailable(error)))
}
