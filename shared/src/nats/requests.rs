//! Questions to the owner of a partition: request and reply on a subject that the owner alone
//! listens to, outside of all streams.
//!
//! A question carries the registry sequence that its asker has seen, which the owner must reach
//! before it answers (`protocol.md`, rule 12). What is asked and answered is not this module's
//! business. An answer is lost with its owner; nobody may conclude anything from silence.

use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{HeaderMap, Message, Request, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::{Nats, Unavailable};
use crate::ids::{PartitionId, Sequence};
use crate::subjects;

const SEEN_HEADER: &str = "Carillon-Registry-Sequence";
/// On an answer: the owner could not, for the reason named.
const DECLINED_HEADER: &str = "Carillon-Declined";

/// Asks the owner of `partition`, who has or waits for registry entries up to `seen`. Nobody
/// listening is [`Unavailable`] at once, no answer is after `within`.
pub async fn ask(
    nats: &Nats,
    partition: PartitionId,
    seen: Sequence,
    body: Bytes,
    within: Duration,
) -> Result<Bytes, Unavailable> {
    let mut headers = HeaderMap::new();
    headers.insert(SEEN_HEADER, seen.to_string());
    let request = Request::new()
        .headers(headers)
        .payload(body)
        .timeout(Some(within));
    let answer = nats
        .client
        .send_request(subjects::owner(partition), request)
        .await
        .map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Unavailable("the partition has no owner".into()),
            RequestErrorKind::TimedOut
            | RequestErrorKind::InvalidSubject
            | RequestErrorKind::MaxPayloadExceeded
            | RequestErrorKind::Other => Unavailable::new(error),
        })?;
    let declined = answer
        .headers
        .as_ref()
        .and_then(|headers| headers.get(DECLINED_HEADER));
    match declined {
        Some(reason) => Err(Unavailable(reason.to_string())),
        None => Ok(answer.payload),
    }
}

/// What is asked of one partition's owner, as long as this is held.
pub struct Questions {
    nats: Nats,
    subscriber: Subscriber,
}

/// A question, to be answered or declined once.
pub struct Question {
    nats: Nats,
    message: Message,
    /// The registry sequence that the asker has seen.
    pub seen: Sequence,
}

impl Questions {
    /// Listens as the owner of `partition`.
    pub async fn of(nats: &Nats, partition: PartitionId) -> Result<Self, Unavailable> {
        let subscriber = nats
            .client
            .subscribe(subjects::owner(partition))
            .await
            .map_err(Unavailable::new)?;
        Ok(Self {
            nats: nats.clone(),
            subscriber,
        })
    }

    /// The next one; `None` when the connection has ended for good.
    pub async fn next(&mut self) -> Option<Question> {
        loop {
            let message = self.subscriber.next().await?;
            let seen = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(SEEN_HEADER)?.as_str().parse().ok());
            // One without is not ours.
            if let Some(seen) = seen {
                return Some(Question {
                    nats: self.nats.clone(),
                    message,
                    seen: Sequence(seen),
                });
            }
        }
    }
}

impl Question {
    pub fn body(&self) -> &Bytes {
        &self.message.payload
    }

    pub async fn answer(self, body: Bytes) {
        self.reply(HeaderMap::new(), body).await;
    }

    /// The asker gets [`Unavailable`] with this reason, which must be one line.
    pub async fn decline(self, reason: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(DECLINED_HEADER, reason);
        self.reply(headers, Bytes::new()).await;
    }

    async fn reply(self, headers: HeaderMap, body: Bytes) {
        let Some(reply) = self.message.reply else {
            return;
        };
        let sent = self
            .nats
            .client
            .publish_with_headers(reply, headers, body)
            .await;
        if let Err(error) = sent {
            // The asker's patience ends by itself.
            tracing::debug!(%error, "an answer was not sent");
        }
    }
}
