//! From a provider's callback to events.
//!
//! Invariant: the same callback of the same account gives the same events under the same ids,
//! those aside whose source gives nothing to tell a repeat by.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;
use shared::connector::{Callback, Connector, MapError, MappedEvent, SigningSecretSource};
use shared::domain::account::Account;
use shared::domain::catalog;
use shared::domain::event::{EventType, Source};
use shared::secret::Secret;
use shared::time::Timestamp;
use shared::verify::VerifyError;

use super::message_id::{MessageIds, NewRandom};
use super::render::{Fit, UnrenderedEvent};

/// What the events of one callback may repeat of it together: each carries it whole as its
/// `raw_event`, so that one of 1 MiB with a thousand changes would be a gigabyte in the log. Enough
/// for the largest callback with 16 changes, or for one of 50 KiB with 300. Beyond, its events go
/// without `raw_event`: some providers never send again what they see refused.
pub(crate) const REPEATED_BYTES_MAX: usize = 16 << 20;

/// Why a callback is not the provider's, as far as we can tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyRefusal {
    #[error("{0}")]
    BadSignature(VerifyError),
    /// Ours or our customer's to repair: there is no usable secret to check it with.
    #[error("{0}")]
    Unverifiable(VerifyError),
}

/// What a callback that is the provider's comes to.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// At least one event.
    Accept(Vec<UnrenderedEvent<'static>>),
    /// Nothing that any event stands for.
    Unmapped,
    Refuse(MapRefusal),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MapRefusal {
    #[error("{0}")]
    Malformed(MapError),
    /// The body, or one event.
    #[error("the callback makes an event that is too large to be stored")]
    TooLarge,
    /// More events, or more of them, than one callback may make.
    #[error("{0}")]
    TooMuch(MapError),
}

/// A verdict, and what it passed over.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    /// Names that the connector emits although the catalog has no such type: the connector's
    /// mistake, which must not cost the callback's other events.
    pub(crate) unknown_events: Vec<String>,
}

/// To be asked before [`judge`].
pub(crate) fn verify(
    account: &Account,
    connector: &Connector,
    callback: &Callback<'_>,
    now: Timestamp,
) -> Result<(), VerifyRefusal> {
    let secret = account.secrets.signing_secret.as_ref().map(Secret::reveal);
    connector
        .verify(callback, secret, now)
        .map_err(|error| match error {
            VerifyError::NoSecret | VerifyError::UnusableSecret => {
                VerifyRefusal::Unverifiable(error)
            }
            VerifyError::MissingHeader(_)
            | VerifyError::RepeatedHeader(_)
            | VerifyError::MalformedHeader(_)
            | VerifyError::Mismatch
            | VerifyError::OutsideWindow => VerifyRefusal::BadSignature(error),
        })
}

/// What a verified callback comes to. `max_payload` is the server's: an event that exceeds it
/// goes without its data, and if one is still too large the whole callback is refused, since its
/// sender can do nothing with half an answer.
pub(crate) fn judge(
    account: &Arc<Account>,
    connector: &Connector,
    callback: &Callback<'_>,
    now: Timestamp,
    max_payload: usize,
    new_random: NewRandom<'_>,
) -> Judgement {
    let mut unknown_events = Vec::new();
    let verdict = match mapped(connector, callback) {
        Ok(mapped) => {
            let ids = MessageIds::new(account.project, connector.provider(), now, new_random);
            let frame = Frame {
                account,
                source: source(connector),
                raw_event: raw_event(callback.body, mapped.len()),
                now,
                max_payload,
            };
            accept(&frame, ids, mapped, &mut unknown_events)
        }
        Err(refusal) => Verdict::Refuse(refusal),
    };
    Judgement {
        verdict,
        unknown_events,
    }
}

/// What the connector makes of the callback.
fn mapped(connector: &Connector, callback: &Callback<'_>) -> Result<Vec<MappedEvent>, MapRefusal> {
    connector.map(callback).map_err(|error| match error {
        MapError::TooLarge => MapRefusal::TooLarge,
        MapError::TooMuch => MapRefusal::TooMuch(error),
        MapError::NotJson
        | MapError::Failed
        | MapError::RecordId { .. }
        | MapError::InvalidOutput(_) => MapRefusal::Malformed(error),
    })
}

/// The body as it arrived, white space around it aside. `None` only if it is no JSON, and then the
/// connector has mapped it to nothing, or if so many events would repeat too much of it.
fn raw_event(body: &[u8], events: usize) -> Option<Arc<RawValue>> {
    if events.saturating_mul(body.len()) > REPEATED_BYTES_MAX {
        return None;
    }
    let raw: Box<RawValue> = serde_json::from_slice(body).ok()?;
    Some(raw.into())
}

/// What the events of one callback share.
struct Frame<'a> {
    account: &'a Arc<Account>,
    source: Source,
    raw_event: Option<Arc<RawValue>>,
    now: Timestamp,
    max_payload: usize,
}

fn accept(
    frame: &Frame<'_>,
    mut ids: MessageIds<'_>,
    mapped: Vec<MappedEvent>,
    unknown_events: &mut Vec<String>,
) -> Verdict {
    let mut events = Vec::with_capacity(mapped.len());
    for one in mapped {
        // A provider can no more speak for the platform than for a type that does not exist.
        let known = catalog::resolve(&one.event).filter(|known| !catalog::is_reserved(known));
        let Some(event_type) = known else {
            unknown_events.push(one.event);
            continue;
        };
        let mut event = frame.event(&mut ids, event_type, one);
        match event.fit(frame.max_payload) {
            Fit::Whole => {}
            Fit::WithoutData => event.event_data = None,
            Fit::TooLarge => return Verdict::Refuse(MapRefusal::TooLarge),
        }
        events.push(event);
    }
    if events.is_empty() {
        Verdict::Unmapped
    } else {
        Verdict::Accept(events)
    }
}

impl Frame<'_> {
    fn event(
        &self,
        ids: &mut MessageIds<'_>,
        event_type: EventType,
        mapped: MappedEvent,
    ) -> UnrenderedEvent<'static> {
        let account = self.account;
        UnrenderedEvent {
            id: ids.distinct(
                mapped.dedup.as_deref(),
                Some(account.id),
                &event_type,
                &mapped.record_id,
            ),
            project: account.project,
            event_type,
            source: self.source,
            account: Some(account.clone()),
            record_id: Cow::Owned(mapped.record_id),
            occurred_at: mapped.occurred_at.unwrap_or(self.now),
            published_at: self.now,
            raw_event: self.raw_event.clone(),
            event_data: mapped.event_data.map(Cow::Owned),
        }
    }
}

/// A secret of our making is typed in by a person, who then makes the subscription too; one that
/// the provider gives comes back from a subscription made by program.
fn source(connector: &Connector) -> Source {
    match connector.signing_secret() {
        SigningSecretSource::Generated => Source::NativeManual,
        SigningSecretSource::Given => Source::NativeProgrammatic,
    }
}

#[cfg(test)]
mod tests;
