//! Follows a stream for ever. The client's ordered consumers replay from sequence 1 when nothing
//! was delivered before a reconnect, so this makes its own consumer anew, from the last sequence
//! read, on any error or end.

use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use futures_util::FutureExt as _;

use super::Unavailable;
use super::read::{Messages, StoredMessage, open};
use crate::ids::Sequence;

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Bounds one batch, and so the work between two looks at anything else.
const BATCH_MESSAGES_MAX: usize = 256;

/// A position in a stream that moves with it.
pub struct Tail {
    stream: Stream<()>,
    filter: String,
    last: Sequence,
    messages: Option<Messages>,
    retry: Duration,
}

/// Messages in (after, last message's sequence], without a gap.
#[derive(Clone, Debug)]
pub struct TailBatch {
    pub after: Sequence,
    pub messages: Vec<StoredMessage>,
}

impl Tail {
    /// Follows what matches `filter`, from the message after `after`.
    pub fn new(stream: Stream<()>, filter: impl Into<String>, after: Sequence) -> Self {
        Self {
            stream,
            filter: filter.into(),
            last: after,
            messages: None,
            retry: RETRY_FIRST,
        }
    }

    /// The next messages: at least one, and as many more as have already arrived. Waits for as
    /// long as it takes. Dropping the future loses nothing.
    pub async fn next(&mut self) -> TailBatch {
        loop {
            match self.try_next().await {
                Ok(batch) => {
                    self.retry = RETRY_FIRST;
                    return batch;
                }
                Err(error) => {
                    self.messages = None;
                    tracing::debug!(stream = %self.filter, %error, "tail is made anew");
                    tokio::time::sleep(self.retry).await;
                    self.retry = (self.retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn try_next(&mut self) -> Result<TailBatch, Unavailable> {
        let messages = match &mut self.messages {
            Some(messages) => messages,
            slot @ None => slot.insert(open(&self.stream, &self.filter, self.last).await?),
        };
        let after = self.last;
        let mut batch = vec![messages.next().await?];
        while batch.len() < BATCH_MESSAGES_MAX {
            match messages.next().now_or_never() {
                Some(Ok(message)) => batch.push(message),
                // What was read before the fault counts; the consumer does not.
                Some(Err(_)) => {
                    self.messages = None;
                    break;
                }
                None => break,
            }
        }
        self.last = batch.last().map_or(after, |message| message.sequence);
        Ok(TailBatch {
            after,
            messages: batch,
        })
    }
}
