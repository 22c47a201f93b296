//! One append and what its refusal means.

use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;

use super::Nats;
use crate::ids::Sequence;

/// Names the subject that an expected sequence is checked on; the client has no constant for it.
const EXPECTED_SUBJECT_HEADER: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
/// Has the server drop what came before a message, at once with storing it.
/// Another append that checks the same subject is under way; the server refuses the second.
const IN_PROCESS_CODE: u64 = 10164;

/// What is appended, and under which condition.
#[derive(Clone, Debug)]
pub struct NewMessage {
    pub subject: String,
    pub payload: Bytes,
    /// Repeats within the stream's dedup window are acknowledged as duplicates.
    pub message_id: String,
    pub expected: Option<Expected>,
    /// Outlives the stream's age limit.
    pub never_expires: bool,
}

/// The append holds only while `subject` still ends at `sequence`; 0 means it has no message.
#[derive(Clone, Debug)]
pub struct Expected {
    pub subject: String,
    pub sequence: Sequence,
}

/// The acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub sequence: Sequence,
    /// It was stored before, under the same message id.
    pub duplicate: bool,
}

/// Why an append is not known to be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Not stored: the checked subject has moved on (10071).
    #[error("the expected sequence no longer holds")]
    Conflict,
    /// Not stored: another append that checks the subject is under way (10164). Try again.
    #[error("another checked append is under way")]
    Busy,
    /// Not stored: larger than the server takes.
    #[error("larger than the server takes")]
    TooLarge,
    /// Perhaps stored. Repeat under the same message id, or read what is there.
    #[error("no acknowledgement: {0}")]
    Unknown(String),
}

impl Nats {
    /// Appends and waits for the acknowledgement, 2 s at most.
    pub async fn append(&self, message: NewMessage) -> Result<Appended, AppendError> {
        let mut publish = PublishMessage::build()
            .payload(message.payload)
            .message_id(message.message_id);
        if let Some(expected) = message.expected {
            publish = publish
                .expected_last_subject_sequence(expected.sequence.0)
                .header(EXPECTED_SUBJECT_HEADER, expected.subject.as_str());
        }
        if message.never_expires {
            publish = publish.header("Nats-TTL", "never");
        }
        let acknowledgement = self
            .context
            .send_publish(message.subject, publish)
            .await
            .map_err(|error| classify(&error))?
            .await
            .map_err(|error| classify(&error))?;
        Ok(Appended {
            sequence: Sequence(acknowledgement.sequence),
            duplicate: acknowledgement.duplicate,
        })
    }
}

fn classify(error: &PublishError) -> AppendError {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => AppendError::Conflict,
        PublishErrorKind::MaxPayloadExceeded => AppendError::TooLarge,
        PublishErrorKind::Other if code(error) == Some(IN_PROCESS_CODE) => AppendError::Busy,
        PublishErrorKind::StreamNotFound
        | PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::TimedOut
        | PublishErrorKind::BrokenPipe
        | PublishErrorKind::MaxAckPending
        | PublishErrorKind::Other => AppendError::Unknown(error.to_string()),
    }
}

fn code(error: &PublishError) -> Option<u64> {
    std::error::Error::source(error)?
        .downcast_ref::<async_nats::jetstream::Error>()
        .map(|error| error.error_code().0)
}
