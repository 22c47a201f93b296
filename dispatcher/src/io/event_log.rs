//! A project's events in EVENTS, newest first. JetStream reads forward only and finds no message by
//! its id, so that the way back goes in windows that grow while they hold little.

use std::sync::Arc;

use shared::codec;
use shared::domain::event::Event;
use shared::ids::Sequence;
use shared::nats::read::{StoredMessage, read_between};
use shared::nats::{Nats, Unavailable};

/// Sequences of the first window; a window that holds little is followed by one four times as wide.
const WINDOW: u64 = 256;
/// What one window may hold; one that holds more is read anew, narrower.
const EVENTS_MAX: usize = 1_000;
const BYTES_MAX: usize = 8 << 20;
/// Windows of one reader: with the growth above, more than any stream is long.
const WINDOWS_MAX: usize = 24;

/// A reader that goes back from one sequence to another.
pub(crate) struct EventLog<'a> {
    nats: &'a Nats,
    filter: String,
    /// Nothing at or below is read.
    floor: Sequence,
    /// What is above has been read.
    reached: Sequence,
    width: u64,
    windows: usize,
}

impl<'a> EventLog<'a> {
    /// From `through`, which EVENTS is known to have reached, back to what follows `floor`.
    pub(crate) fn new(
        nats: &'a Nats,
        filter: String,
        (floor, through): (Sequence, Sequence),
    ) -> Self {
        Self {
            nats,
            filter,
            floor,
            reached: through,
            width: WINDOW,
            windows: 0,
        }
    }

    /// What is left to read begins here; `None` when nothing is.
    pub(crate) fn rest(&self) -> Option<Sequence> {
        (self.reached > self.floor).then_some(self.reached)
    }

    /// The events of the next window, newest first, perhaps none; `None` once there is nothing
    /// left, or this reader has read as much as it may.
    pub(crate) async fn next(
        &mut self,
    ) -> Result<Option<Vec<(Sequence, Arc<Event>)>>, Unavailable> {
        while self.rest().is_some() && self.windows < WINDOWS_MAX {
            self.windows += 1;
            let after = Sequence(self.reached.0.saturating_sub(self.width)).max(self.floor);
            let range = (after, self.reached);
            let limits = (EVENTS_MAX, BYTES_MAX);
            let read = read_between(&self.nats.events, &self.filter, range, limits).await?;
            // One message is whatever it is.
            if read.through < self.reached && self.width > 1 {
                self.width = (self.width / 8).max(1);
                continue;
            }
            self.reached = after;
            if read.messages.len() < EVENTS_MAX / 8 {
                self.width = self.width.saturating_mul(4);
            }
            let mut events = decode(&read.messages)?;
            events.reverse();
            return Ok(Some(events));
        }
        Ok(None)
    }
}

/// Those that are not readable are left out.
pub(crate) fn decode(
    messages: &[StoredMessage],
) -> Result<Vec<(Sequence, Arc<Event>)>, Unavailable> {
    let mut events = Vec::with_capacity(messages.len());
    for message in messages {
        match codec::decode_event(&message.payload) {
            Ok(event) => events.push((message.sequence, Arc::new(event))),
            Err(error @ codec::DecodeError::UnknownVersion(_)) => {
                return Err(Unavailable(error.to_string()));
            }
            Err(codec::DecodeError::Malformed(_)) => {}
        }
    }
    Ok(events)
}
