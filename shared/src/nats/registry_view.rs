//! The live projection of REGISTRY, and appends to it.
//!
//! One task folds; everybody reads under a short lock. The view knows how current it is: a task
//! asks the leader for the last sequence each second, and a view that was not confirmed for 5 s
//! says so (`protocol.md`, rule 4).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};

use super::append::{AppendError, Expected, NewMessage};
use super::erasing::overwrite;
use super::read::{StoredMessage, last_matching};
use super::tail::Tail;
use super::{Nats, Unavailable, last_sequence};
use crate::codec::{self, DecodeError};
use crate::domain::registry::{
    Aggregate, Append, ApplyError, Change, Command, CommandError, RegistryRecord, RegistryState,
    decide,
};
use crate::ids::Sequence;
use crate::secret::{MasterKeys, UnsealError};
use crate::subjects;
use crate::time::{Clock, Timestamp};

/// Above this age of its last confirmation, the view may be blind to a revocation.
const CURRENT_WITHIN: Duration = Duration::from_secs(5);
const CONFIRM_EVERY: Duration = Duration::from_secs(1);
/// How long a lookup of something unknown waits for the projection to catch up.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(2);
/// How long a writer waits for its own entry to be folded.
const FOLD_WITHIN: Duration = Duration::from_secs(5);
/// Catch-ups for unknown things ask the leader at most this often.
const CATCH_UP_EVERY: Duration = Duration::from_millis(100);
/// Attempts of one command whose subject keeps moving.
const DECIDE_TRIES: usize = 5;
/// Tries of one append.
const APPEND_TRIES: usize = 5;
/// Of these, tries without an acknowledgement, each of which takes 2 s: the caller shall be told
/// while it still waits.
const UNKNOWN_TRIES: usize = 2;

/// A shared handle.
#[derive(Clone)]
pub struct RegistryView {
    inner: Arc<Inner>,
}

struct Inner {
    nats: Nats,
    keys: MasterKeys,
    clock: Arc<dyn Clock>,
    state: RwLock<RegistryState>,
    applied: watch::Sender<Sequence>,
    /// `clock.elapsed()` of the last confirmation, in milliseconds.
    confirmed_at_ms: AtomicU64,
    /// The last catch-up for something unknown: `clock.elapsed()` when it began, and its end.
    last_catch_up: Mutex<Option<(Duration, Result<(), Unavailable>)>>,
    fatal: watch::Sender<Option<String>>,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// Nobody knows whether it holds; the caller may look, or repeat.
    #[error("JetStream is not available: {0}")]
    Unavailable(String),
}

impl RegistryView {
    /// Starts folding from the beginning. Each change is also sent to `follower`, in order.
    /// The tasks end when the last handle and the runtime do.
    pub fn start(
        nats: Nats,
        keys: MasterKeys,
        clock: Arc<dyn Clock>,
        follower: Option<mpsc::UnboundedSender<Change>>,
    ) -> Self {
        let view = Self {
            inner: Arc::new(Inner {
                nats,
                keys,
                clock,
                state: RwLock::default(),
                applied: watch::Sender::new(Sequence(0)),
                confirmed_at_ms: AtomicU64::new(0),
                last_catch_up: Mutex::default(),
                fatal: watch::Sender::new(None),
            }),
        };
        spawn(view.clone().fold(follower));
        spawn(view.clone().confirm());
        view
    }

    pub fn read<R>(&self, look: impl FnOnce(&RegistryState) -> R) -> R {
        // A panic under the write lock leaves a state that is still whole entries.
        look(
            &self
                .inner
                .state
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Whether revocations of more than 5 s ago are certainly seen.
    pub fn is_current(&self) -> bool {
        let confirmed = self.inner.confirmed_at_ms.load(Ordering::Acquire);
        let age = self
            .inner
            .clock
            .elapsed()
            .saturating_sub(Duration::from_millis(confirmed));
        confirmed > 0 && age <= CURRENT_WITHIN
    }

    /// Set once the registry cannot be read with the keys at hand; the process should end.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.inner.fatal.subscribe()
    }

    /// Before something is called unknown: folds through what the leader has now. Calls share
    /// one question to the leader, at most ten of them a second.
    pub async fn catch_up(&self) -> Result<(), Unavailable> {
        let clock = &self.inner.clock;
        let called_at = clock.elapsed();
        let mut last_catch_up = self.inner.last_catch_up.lock().await;
        if let Some((began_at, end)) = &*last_catch_up {
            // Begun after this call, it saw all that this call may ask for. Its failure is shared
            // too: else, with the server away, those who wait would time out one after another.
            if *began_at >= called_at {
                return end.clone();
            }
            // Answering from a look that began earlier would deny what was made since then.
            let due = *began_at + CATCH_UP_EVERY;
            tokio::time::sleep(due.saturating_sub(clock.elapsed())).await;
        }
        let began_at = clock.elapsed();
        let end = self.catch_up_now().await;
        *last_catch_up = Some((began_at, end.clone()));
        end
    }

    /// Waits until `sequence` is folded.
    pub async fn wait_for(&self, sequence: Sequence, within: Duration) -> Result<(), Unavailable> {
        let mut applied = self.inner.applied.subscribe();
        let reached = applied.wait_for(|applied| *applied >= sequence);
        match tokio::time::timeout(within, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Unavailable("the registry lags behind".into())),
        }
    }

    /// Decides, appends, and answers after the local projection has folded it. `by` and `at` are
    /// for the audit. A command that meets a moved subject is decided anew. The sequence is that of
    /// what was decided, which the owner applies; what was erased besides comes after it. 0 when the
    /// command asked for nothing, by all that the leader had meanwhile.
    pub async fn execute(
        &self,
        command: Command,
        by: &str,
        at: Timestamp,
    ) -> Result<Sequence, ExecuteError> {
        let mut last_error = ExecuteError::Refused(CommandError::Stale);
        for _ in 0..DECIDE_TRIES {
            let decided = self.read(|state| decide(state, command.clone(), at));
            let appends = match decided {
                Ok(appends) if !appends.is_empty() => appends,
                // What holds here may be past elsewhere, where the caller has seen it.
                Ok(_) | Err(_) => {
                    self.catch_up().await?;
                    self.read(|state| decide(state, command.clone(), at))?
                }
            };
            match self.append_all(&appends, by, at).await {
                Ok((decided, last)) => {
                    self.wait_for(last, FOLD_WITHIN).await?;
                    return Ok(decided);
                }
                Err(ExecuteError::Refused(CommandError::Stale)) => self.catch_up_now().await?,
                Err(error @ (ExecuteError::Refused(_) | ExecuteError::Unavailable(_))) => {
                    last_error = error;
                    break;
                }
            }
        }
        Err(last_error)
    }

    async fn catch_up_now(&self) -> Result<(), Unavailable> {
        let last = last_sequence(&self.inner.nats.registry).await?;
        self.wait_for(last, CATCH_UP_WITHIN).await
    }

    /// The sequences of the last decision and of the last of all.
    async fn append_all(
        &self,
        appends: &[Append],
        by: &str,
        at: Timestamp,
    ) -> Result<(Sequence, Sequence), ExecuteError> {
        let (mut decided, mut last) = (Sequence(0), Sequence(0));
        for append in appends {
            let subject = subjects::registry(append.project, append.aggregate, &append.id);
            let record = RegistryRecord {
                at,
                by: by.to_owned(),
                entry: append.entry.clone(),
            };
            let message = NewMessage {
                payload: codec::encode_record(&record).into(),
                // Times, ids and sealed bytes in the payload tell one command from another.
                message_id: hex::encode(crate::secret::hash_bytes(&[
                    subject.as_bytes(),
                    &append.expected.0.to_le_bytes(),
                    &codec::encode_record(&record),
                ])),
                expected: Some(Expected {
                    subject: subject.clone(),
                    sequence: append.expected,
                }),
                subject,
                never_expires: false,
            };
            last = self.append_one(message).await?;
            if append.erases_history() {
                self.overwrite(append.expected).await;
            } else {
                decided = last;
            }
        }
        Ok((decided, last))
    }

    /// What is not overwritten now, [`Self::overwrite_erased`] does.
    async fn overwrite(&self, sequence: Sequence) {
        if let Err(error) = overwrite(&self.inner.nats.registry, sequence).await {
            tracing::debug!(%error, "an erased secret is not overwritten yet");
        }
    }

    /// Overwrites the secrets that were erased since, or before, and that this process has met in
    /// the log. Every process does so; who comes second finds nothing.
    pub async fn overwrite_erased(&self) -> Result<(), Unavailable> {
        let left: Vec<_> = self.read(|state| state.overwritable_secrets().collect());
        for (id, sequence) in left {
            overwrite(&self.inner.nats.registry, sequence).await?;
            let mut state = self
                .inner
                .state
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            state.overwritten(id);
        }
        Ok(())
    }

    /// One checked append. After a lost acknowledgement, a conflict does not mean "not stored":
    /// the subject's last message says whose append holds.
    async fn append_one(&self, message: NewMessage) -> Result<Sequence, ExecuteError> {
        let mut unknown = 0;
        for _ in 0..APPEND_TRIES {
            match self.inner.nats.append(message.clone()).await {
                Ok(appended) => return Ok(appended.sequence),
                Err(AppendError::Busy) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(AppendError::TooLarge) => {
                    return Err(ExecuteError::Unavailable(
                        "larger than the server takes".into(),
                    ));
                }
                Err(AppendError::Unknown(_)) => {
                    unknown += 1;
                    if unknown == UNKNOWN_TRIES {
                        break;
                    }
                }
                Err(AppendError::Conflict) => {
                    let last = last_matching(&self.inner.nats.registry, &message.subject).await?;
                    return match last {
                        Some(last)
                            if unknown > 0
                                && last.message_id.as_ref() == Some(&message.message_id) =>
                        {
                            Ok(last.sequence)
                        }
                        Some(_) | None => Err(CommandError::Stale.into()),
                    };
                }
            }
        }
        Err(ExecuteError::Unavailable("no acknowledgement".into()))
    }

    async fn fold(self, follower: Option<mpsc::UnboundedSender<Change>>) {
        let stream = self.inner.nats.registry.clone();
        let mut tail = Tail::new(stream, subjects::REGISTRY_ALL, Sequence(0));
        loop {
            let batch = tail.next().await;
            let mut last = batch.after;
            for message in &batch.messages {
                last = message.sequence;
                let folded = match self.learn_data_key(message).await {
                    Ok(()) => self.fold_one(message),
                    Err(reason) => Err(reason),
                };
                match folded {
                    Ok(Some(change)) => {
                        if let Some(follower) = &follower {
                            // The follower ends with the process.
                            let _closed = follower.send(change).is_err();
                        }
                    }
                    Ok(None) => {}
                    // Its data key was sealed anew or destroyed since.
                    Err(_) if self.is_superseded(message).await => {}
                    Err(reason) => {
                        tracing::error!(error = %reason, "the registry cannot be read");
                        self.inner.fatal.send_replace(Some(reason));
                        return;
                    }
                }
            }
            self.inner.applied.send_replace(last);
        }
    }

    /// A project's data key stands behind what it opens once it was sealed anew.
    async fn learn_data_key(&self, message: &StoredMessage) -> Result<(), String> {
        let Some((project, aggregate, _)) = subjects::parse_registry(&message.subject) else {
            return Ok(());
        };
        let is_lacking = match aggregate {
            Aggregate::Account | Aggregate::Webhook | Aggregate::SigningSecret => {
                self.read(|state| state.lacks_data_key(project))
            }
            Aggregate::Project | Aggregate::DataKey | Aggregate::ApiKey => false,
        };
        if !is_lacking {
            return Ok(());
        }
        let subject = subjects::registry(project, Aggregate::DataKey, &project.to_string());
        let Some(last) = self.last_of(&subject).await else {
            return Ok(());
        };
        let record = codec::decode_record(&last.payload)
            .map_err(|error| format!("{}: {error}", last.subject))?;
        let mut state = self
            .inner
            .state
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let learnt = state.learn_data_key(project, &record.entry, &self.inner.keys);
        learnt.map_err(|error| format!("{}: {error}", last.subject))
    }

    /// Whether the entry is about a data key, and not the last one.
    async fn is_superseded(&self, message: &StoredMessage) -> bool {
        let place = subjects::parse_registry(&message.subject);
        if place.is_none_or(|(_, aggregate, _)| aggregate != Aggregate::DataKey) {
            return false;
        }
        let last = self.last_of(&message.subject).await;
        last.is_some_and(|last| last.sequence > message.sequence)
    }

    /// Asks for as long as it takes.
    async fn last_of(&self, subject: &str) -> Option<StoredMessage> {
        loop {
            match last_matching(&self.inner.nats.registry, subject).await {
                Ok(last) => return last,
                Err(error) => tracing::debug!(%error, "a data key is asked for again"),
            }
            tokio::time::sleep(CONFIRM_EVERY).await;
        }
    }

    /// `Err` when going on would misread everything: a later release's entry, or a missing key.
    fn fold_one(&self, message: &StoredMessage) -> Result<Option<Change>, String> {
        let record = match codec::decode_record(&message.payload) {
            Ok(record) => Some(record),
            Err(error @ DecodeError::UnknownVersion(_)) => {
                return Err(format!("{}: {error}", message.subject));
            }
            Err(DecodeError::Malformed(_)) => None,
        };
        let mut state = self
            .inner
            .state
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let (Some(record), Some(place)) = (record, subjects::parse_registry(&message.subject))
        else {
            tracing::error!(subject = %message.subject, "registry entry is not readable");
            state.skip_to(message.sequence);
            return Ok(None);
        };
        match state.apply(place, message.sequence, &record, &self.inner.keys) {
            Ok(change) => Ok(Some(change)),
            Err(ApplyError::Unseal(error @ UnsealError::UnknownKey(_))) => {
                Err(format!("{}: {error}", message.subject))
            }
            Err(error) => {
                tracing::error!(subject = %message.subject, %error, "registry entry is ignored");
                Ok(None)
            }
        }
    }

    async fn confirm(self) {
        loop {
            let asked_at = self.inner.clock.elapsed();
            let caught_up = async {
                let last = last_sequence(&self.inner.nats.registry).await?;
                self.wait_for(last, CATCH_UP_WITHIN).await
            };
            match caught_up.await {
                Ok(()) => {
                    let ms = u64::try_from(asked_at.as_millis()).unwrap_or(u64::MAX);
                    self.inner
                        .confirmed_at_ms
                        .store(ms.max(1), Ordering::Release);
                }
                Err(error) => tracing::debug!(%error, "registry view is not confirmed"),
            }
            tokio::time::sleep(CONFIRM_EVERY).await;
        }
    }
}

impl From<Unavailable> for ExecuteError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error.0)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the view lives as long as the process; its tasks end with the runtime"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    let _detached = tokio::spawn(task);
}
