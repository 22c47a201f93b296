//! When each API key was used last, to the minute: noted by every replica of both services, outside
//! the logs, since nothing is decided by it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::append::NewMessage;
use super::read::last_matching;
use super::{Nats, Unavailable};
use crate::ids::KeyId;
use crate::random;
use crate::subjects;
use crate::time::{Clock, Timestamp};

/// Between two notes of one key by one replica.
const NOTED_EVERY: Duration = Duration::from_secs(60);

/// Notes uses. Cheap to share behind an `Arc`.
pub struct KeyUsage {
    nats: Nats,
    clock: Arc<dyn Clock>,
    /// Keys that exist alone, so that strangers cannot make it grow. Times are of
    /// [`Clock::elapsed`].
    noted_at: Mutex<HashMap<KeyId, Duration>>,
}

impl KeyUsage {
    pub fn new(nats: Nats, clock: Arc<dyn Clock>) -> Self {
        Self {
            nats,
            clock,
            noted_at: Mutex::default(),
        }
    }

    /// The key has just opened its project. Returns at once; a note that is lost is made again
    /// with a later use.
    pub fn used(&self, key: KeyId) {
        let now = self.clock.elapsed();
        {
            let mut noted_at = self.noted_at.lock().unwrap_or_else(PoisonError::into_inner);
            let is_recent = |at: &Duration| now.saturating_sub(*at) < NOTED_EVERY;
            if noted_at.get(&key).is_some_and(is_recent) {
                return;
            }
            noted_at.insert(key, now);
        }
        let note = NewMessage {
            subject: subjects::key_usage(key),
            payload: self.clock.now().to_string().into(),
            message_id: hex::encode(random::bytes::<16>()),
            expected: None,
            never_expires: false,
        };
        let nats = self.nats.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with its one append, of which nothing is waited for"
        )]
        let _detached = tokio::spawn(async move {
            if let Err(error) = nats.append(note).await {
                tracing::debug!(%error, "the use of a key was not noted");
            }
        });
    }
}

/// When the key was used last; `None` if never, or so long ago that it is forgotten.
pub async fn last_used(nats: &Nats, key: KeyId) -> Result<Option<Timestamp>, Unavailable> {
    let last = last_matching(&nats.key_usage, &subjects::key_usage(key)).await?;
    let text = last.map(|last| String::from_utf8_lossy(&last.payload).into_owned());
    Ok(text.and_then(|text| Timestamp::parse_rfc3339(&text).ok()))
}
