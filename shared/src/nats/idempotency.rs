//! Keys by which callers make a repeated creation one: what the first call with a key was about,
//! kept for a day.

use bytes::Bytes;

use super::append::{AppendError, Expected, NewMessage};
use super::read::last_matching;
use super::{Nats, Unavailable};
use crate::ids::Sequence;
use crate::random;
use crate::subjects;

const TRIES: usize = 5;

/// Who came first with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This call. What it brought is kept.
    First,
    /// An earlier one, which brought this.
    Earlier(Bytes),
}

/// Claims the key whose hash is `key`, with what a later call is to find. Of calls at the same
/// time, exactly one is the first.
pub async fn claim(nats: &Nats, key: &[u8; 32], brought: Bytes) -> Result<Claim, Unavailable> {
    let subject = subjects::idempotency(key);
    let message = NewMessage {
        payload: brought,
        // Of this call alone: an equal one by somebody else is not this one.
        message_id: hex::encode(random::bytes::<16>()),
        expected: Some(Expected {
            subject: subject.clone(),
            sequence: Sequence(0),
        }),
        subject,
        never_expires: false,
    };
    let mut error = AppendError::Busy;
    for _ in 0..TRIES {
        error = match nats.append(message.clone()).await {
            Ok(_) => return Ok(Claim::First),
            Err(error) => error,
        };
        // Also after a lost acknowledgement: what is there says whose claim holds.
        let last = last_matching(&nats.idempotency, &message.subject).await?;
        if let Some(last) = last {
            let is_ours = last.message_id.as_ref() == Some(&message.message_id);
            return Ok(if is_ours {
                Claim::First
            } else {
                Claim::Earlier(last.payload)
            });
        }
    }
    Err(Unavailable::new(error))
}
