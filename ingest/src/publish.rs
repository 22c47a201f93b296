//! Events into EVENTS.
//!
//! Invariants: an event is reported as stored only after its acknowledgement; the next event of a
//! lane is sent only after the previous one is stored (`protocol.md`, rule 2); an answer comes
//! within [`EVENT_WITHIN`] of [`BEGUN_WITHIN`], whatever JetStream does. Each event is published
//! at once, by an append of its own, unless the operator has said that the server syncs always:
//! atomic batches pay there alone (rule 3).

use std::cell::OnceCell;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use shared::nats::append::{AppendError, Appended, NewMessage};
use shared::subjects;

use crate::app::{App, Store};
use crate::core::lanes;
use crate::core::render::UnrenderedEvent;

/// Lanes of one request that are under way at once.
const LANES_IN_FLIGHT_MAX: usize = 256;
/// How long one event may take, both tries together.
const EVENT_WITHIN: Duration = Duration::from_secs(5);
/// How long a request may go on beginning to store events: a lane of a thousand on a slow server
/// must leave time to answer within the drain of a stopping process.
const BEGUN_WITHIN: Duration = Duration::from_secs(10);
/// Between the tries: a refusal for want of a leader comes at once.
const REPEAT_AFTER: Duration = Duration::from_millis(100);
/// What one permit of the room for messages stands for.
pub(crate) const PERMIT_BYTES: usize = 1 << 10;

/// How an event came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    New,
    /// It was there before, under the same id.
    Before,
}

/// Why an event is not known to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublishError {
    /// Perhaps stored, perhaps not, or not even sent. To be sent again under the same id.
    Unavailable,
    /// Not stored. The size was checked before; the server takes less than it said.
    TooLarge,
}

/// Stores the events, lanes side by side. The n-th result is the n-th event's.
pub(crate) async fn publish(
    app: &App,
    store: &Store,
    events: &[&UnrenderedEvent<'_>],
) -> Vec<Result<Stored, PublishError>> {
    let plan = lanes::plan(events.iter().map(|event| (event.id, event.lane())));
    let request = Request {
        app,
        store,
        events,
        begun_at: app.clock.elapsed(),
        halted: OnceCell::new(),
    };
    let outcomes: Vec<_> = stream::iter(&plan.lanes)
        .map(|lane| request.publish_lane(lane))
        .buffer_unordered(LANES_IN_FLIGHT_MAX)
        .collect()
        .await;
    if let (Some(reason), Some(first)) = (request.halted.get(), events.first()) {
        let project = first.project;
        tracing::warn!(project.id = %project, error = reason, "events are not known to be stored");
    }
    let mut by_place = vec![Err(PublishError::Unavailable); events.len()];
    for (place, outcome) in outcomes.into_iter().flatten() {
        if let Some(slot) = by_place.get_mut(place) {
            *slot = outcome;
        }
    }
    let outcome = |(place, first): (usize, &usize)| match by_place.get(*first) {
        // Its equal in this request was there first.
        Some(Ok(Stored::New)) if *first != place => Ok(Stored::Before),
        Some(outcome) => *outcome,
        None => Err(PublishError::Unavailable),
    };
    plan.stored_as.iter().enumerate().map(outcome).collect()
}

struct Request<'a> {
    app: &'a App,
    store: &'a Store,
    events: &'a [&'a UnrenderedEvent<'a>],
    begun_at: Duration,
    /// Why one event could not be stored. No other is begun then: what fails now fails for all,
    /// and waiting for each in turn would take as many times as long.
    halted: OnceCell<String>,
}

impl Request<'_> {
    /// Outcomes by place, for as many events as were tried.
    async fn publish_lane(&self, lane: &[usize]) -> Vec<(usize, Result<Stored, PublishError>)> {
        let mut outcomes = Vec::with_capacity(lane.len());
        for &place in lane {
            let Some(event) = self.events.get(place).filter(|_| self.may_begin()) else {
                break;
            };
            let outcome = self.publish_one(event).await;
            outcomes.push((place, outcome));
            if outcome.is_err() {
                break;
            }
        }
        outcomes
    }

    fn may_begin(&self) -> bool {
        let elapsed = self.app.clock.elapsed().saturating_sub(self.begun_at);
        self.halted.get().is_none() && elapsed < BEGUN_WITHIN
    }

    async fn publish_one(&self, event: &UnrenderedEvent<'_>) -> Result<Stored, PublishError> {
        let metrics = &self.app.metrics;
        let started = self.app.clock.elapsed();
        let outcome = tokio::time::timeout(EVENT_WITHIN, self.append(event)).await;
        let outcome = outcome.unwrap_or_else(|_| self.halt("not within the time there is".into()));
        let took = self.app.clock.elapsed().saturating_sub(started);
        match outcome {
            Ok(stored) => {
                metrics.publish.record(took.as_secs_f64());
                match stored {
                    Stored::New => metrics.event_stored(event.source),
                    Stored::Before => metrics.duplicates.increment(1),
                }
            }
            Err(PublishError::Unavailable) => metrics.publish_unavailable.increment(1),
            Err(PublishError::TooLarge) => metrics.publish_too_large.increment(1),
        }
        outcome
    }

    async fn append(&self, event: &UnrenderedEvent<'_>) -> Result<Stored, PublishError> {
        // What is published while disconnected waits in the client and goes out later; nobody
        // would be there to hear of it.
        if !self.store.nats.is_connected() {
            return self.halt("not connected to NATS".into());
        }
        let permits = permits(event.message_bytes_bound());
        let room = self.app.message_room.acquire_many(permits).await;
        let Ok(_room) = room else {
            return self.halt("the process is ending".into());
        };
        let partition = self.store.nats.partitions.of(event.project);
        let message = NewMessage {
            subject: subjects::event(partition, event.project, &event.event_type),
            payload: event.message(),
            message_id: event.id.to_string(),
            expected: None,
            never_expires: false,
        };
        match self.append_once(message.clone()).await {
            Ok(appended) if appended.duplicate => return Ok(Stored::Before),
            Ok(_) => return Ok(Stored::New),
            Err(AppendError::TooLarge) => return Err(PublishError::TooLarge),
            Err(error @ (AppendError::Conflict | AppendError::Busy | AppendError::Unknown(_))) => {
                tracing::debug!(event.id = %event.id, %error, "publish is repeated");
            }
        }
        self.app.metrics.publish_repeated.increment(1);
        tokio::time::sleep(REPEAT_AFTER).await;
        // Under the same message id: `duplicate` now says that the first try was stored after all.
        match self.store.nats.append(message).await {
            Ok(_) => Ok(Stored::New),
            Err(error) => self.halt(error.to_string()),
        }
    }

    async fn append_once(&self, message: NewMessage) -> Result<Appended, AppendError> {
        match &self.store.batches {
            Some(batches) => batches.append(message).await,
            None => self.store.nats.append(message).await,
        }
    }

    fn halt(&self, reason: String) -> Result<Stored, PublishError> {
        self.halted.get_or_init(|| reason);
        Err(PublishError::Unavailable)
    }
}

fn permits(bytes: usize) -> u32 {
    let all = crate::memory::MESSAGES_BYTES_MAX / PERMIT_BYTES;
    let wanted = bytes.div_ceil(PERMIT_BYTES).clamp(1, all);
    u32::try_from(wanted).unwrap_or(u32::MAX)
}
