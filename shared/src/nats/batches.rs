//! Appends gathered into atomic batches, for servers that sync each message to disk before they
//! acknowledge it: a batch costs them a fixed number of syncs, however large it is.
//!
//! One publish is under way at a time, and what comes meanwhile is the next batch
//! (`protocol.md`, rule 3). After a busy publish the next one waits a moment for whom the last one
//! answered: else senders that wait for their answers fall apart into two halves that take turns,
//! and every message costs twice the syncs. Nothing waits after a lull. Whatever becomes of a batch, each of its
//! messages is answered for by itself: one that is refused whole, for a repeated message id or for
//! any other reason, is appended message by message, and those that are there already say so.

use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::PublishMessage;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Nats;
use super::append::{AppendError, Appended, NewMessage};
use crate::ids::Sequence;
use crate::random;

/// Of one batch; the server takes up to 1,000.
const MESSAGES_MAX: usize = 200;
const BYTES_MAX: usize = 4 << 20;
/// Fewer are appended one by one, side by side: a batch has a price of its own.
const MESSAGES_MIN: usize = 5;
/// For those who were answered just now, unless as many as there may be are there already.
const LINGER: Duration = Duration::from_millis(2);
/// A publish that ended longer ago than this says nothing of the next one.
const LULL: Duration = Duration::from_millis(10);
/// That wait for the publish under way; senders wait beyond.
const WAITING_MAX: usize = 4_096;

const BATCH_ID_HEADER: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE_HEADER: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT_HEADER: &str = "Nats-Batch-Commit";

/// Gathers appends. Clones share the batches; the task ends with the last one.
#[derive(Clone)]
pub struct Batches {
    waiting: mpsc::Sender<Waiting>,
}

struct Waiting {
    message: NewMessage,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Batches {
    pub fn start(nats: Nats) -> Self {
        let (waiting, received) = mpsc::channel(WAITING_MAX);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends when the last handle does, and with the runtime"
        )]
        let _detached = tokio::spawn(run(nats, received));
        Self { waiting }
    }

    /// As [`Nats::append`]. The message must expect nothing, and may not outlive its stream's age.
    pub async fn append(&self, message: NewMessage) -> Result<Appended, AppendError> {
        let ended = || AppendError::Unknown("the process is ending".to_owned());
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { message, answer };
        self.waiting.send(waiting).await.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

async fn run(nats: Nats, mut received: mpsc::Receiver<Waiting>) {
    let mut next = None;
    // Whom the last publish answered and who waited then, and until when they count.
    let (mut senders, mut quiet_at) = (0, Instant::now());
    loop {
        let Some(first) = (match next.take() {
            Some(first) => Some(first),
            None => received.recv().await,
        }) else {
            return;
        };
        let now = Instant::now();
        let awaited = if now < quiet_at { senders } else { 0 };
        let mut bytes = first.message.payload.len();
        let mut batch = vec![first];
        while batch.len() < MESSAGES_MAX {
            let another = if batch.len() < awaited {
                timeout_at(now + LINGER, received.recv())
                    .await
                    .ok()
                    .flatten()
            } else {
                received.try_recv().ok()
            };
            let Some(another) = another else {
                break;
            };
            bytes = bytes.saturating_add(another.message.payload.len());
            if bytes > BYTES_MAX {
                next = Some(another);
                break;
            }
            batch.push(another);
        }
        let answered = batch.len();
        publish(&nats, batch).await;
        senders = answered.saturating_add(received.len());
        quiet_at = Instant::now() + LULL;
    }
}

async fn publish(nats: &Nats, batch: Vec<Waiting>) {
    if batch.len() >= MESSAGES_MIN {
        match publish_batch(nats, &batch).await {
            Ok(last) => {
                let behind = u64::try_from(batch.len()).unwrap_or(u64::MAX);
                let before = last.0.saturating_sub(behind);
                for (sequence, waiting) in (before.saturating_add(1)..).zip(batch) {
                    let appended = Appended {
                        sequence: Sequence(sequence),
                        duplicate: false,
                    };
                    // Whoever has gone asks again under the same message id.
                    let _gone = waiting.answer.send(Ok(appended)).is_err();
                }
                return;
            }
            Err(error) => tracing::debug!(%error, "a batch is appended message by message"),
        }
    }
    let singles = batch.into_iter().map(async |waiting| {
        let appended = nats.append(waiting.message).await;
        let _gone = waiting.answer.send(appended).is_err();
    });
    join_all(singles).await;
}

/// Gives the sequence of the last message, which the others lie before without a gap.
async fn publish_batch(nats: &Nats, batch: &[Waiting]) -> Result<Sequence, String> {
    let id = hex::encode(random::bytes::<16>());
    let Some((last, others)) = batch.split_last() else {
        return Err("nothing to publish".to_owned());
    };
    for (number, waiting) in (1_u64..).zip(others) {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(BATCH_ID_HEADER, id.as_str());
        headers.insert(BATCH_SEQUENCE_HEADER, number.to_string());
        headers.insert(NATS_MESSAGE_ID, waiting.message.message_id.as_str());
        let message = &waiting.message;
        nats.client
            .publish_with_headers(message.subject.clone(), headers, message.payload.clone())
            .await
            .map_err(|error| error.to_string())?;
    }
    let commit = PublishMessage::build()
        .payload(last.message.payload.clone())
        .message_id(last.message.message_id.as_str())
        .header(BATCH_ID_HEADER, id.as_str())
        .header(BATCH_SEQUENCE_HEADER, batch.len().to_string().as_str())
        .header(BATCH_COMMIT_HEADER, "1");
    let acknowledgement = nats
        .context
        .send_publish(last.message.subject.clone(), commit)
        .await
        .map_err(|error| error.to_string())?
        .await
        .map_err(|error| error.to_string())?;
    Ok(Sequence(acknowledgement.sequence))
}
