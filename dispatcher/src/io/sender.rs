//! One attempt: headers, signatures, the POST, and what its answer is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use shared::dialect::{hr_on, stackone};
use shared::domain::delivery::FailureKind;
use shared::domain::event::Event;
use shared::domain::journal::{Failure, SkipReason, UnsentEnd};
use shared::domain::registry::{SEALED_ANSWER, seal_context};
use shared::domain::webhook::{Dialect, Webhook};
use shared::http_client::GuardedClient;
use shared::ids::{EventId, ReplayId};
use shared::secret::DataKey;
use shared::time::{Clock, Timestamp};

use crate::core::delivery::AttemptOutcome;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const REPLAY: HeaderName = HeaderName::from_static("carillon-replay");
const HR_ON_TOKEN: HeaderName = HeaderName::from_static(hr_on::TOKEN_HEADER);
const STACKONE_SIGNATURE: HeaderName = HeaderName::from_static(stackone::SIGNATURE_HEADER);

/// What an attempt came to, and when.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub started_at: Timestamp,
    /// To the response head or the error.
    pub latency: Duration,
    pub outcome: AttemptOutcome,
}

/// Sends `event` to the endpoint as it is configured now. The outcome is fixed at the response
/// head (`protocol.md`, rule 15); what follows of the answer only decides what is kept of it.
/// The project's `data_key` is looked up for failures alone. `replay`: on whose behalf it is sent
/// once more.
pub(crate) async fn send(
    client: &GuardedClient,
    clock: &dyn Clock,
    webhook: &Webhook,
    data_key: impl FnOnce() -> Option<Arc<DataKey>>,
    event: &Event,
    replay: Option<ReplayId>,
) -> Sent {
    let started_at = clock.now();
    let started = clock.elapsed();
    let unsent = |outcome| Sent {
        started_at,
        latency: Duration::ZERO,
        outcome,
    };
    let Some(body) = body(webhook, event) else {
        return unsent(AttemptOutcome::Gone(UnsentEnd::Skipped(
            SkipReason::Undecodable,
        )));
    };
    // The entry that names who signs now is on its way here.
    let Some(mut headers) = headers(webhook, event.id, started_at, &body) else {
        return unsent(AttemptOutcome::NotStarted);
    };
    // Ours, whatever static headers the webhook has.
    if let Some(replay) = replay
        && let Ok(value) = HeaderValue::from_str(&replay.to_string())
    {
        headers.insert(REPLAY, value);
    }
    let timeout = Duration::from_millis(u64::from(webhook.definition.policy.timeout_ms));
    let sent = client
        .send(&webhook.endpoint.url, headers, body, timeout)
        .await;
    let latency = clock.elapsed().saturating_sub(started);
    let outcome = match sent {
        Ok(answer) if is_success(webhook.definition.dialect, answer.status()) => {
            let status = answer.status();
            // Read off the connection beside the next attempt, so that it can be used again.
            actix_rt::spawn(async move { drop(answer.discard().await) });
            AttemptOutcome::Delivered { status }
        }
        Ok(answer) => {
            let status = answer.status();
            let retry_after_ms = answer.retry_after_ms(clock.now());
            let head = answer.keep().await;
            let failure = Failure {
                kind: FailureKind::Status,
                status: Some(status),
                sealed_answer: seal(data_key(), webhook, &head.answer),
            };
            AttemptOutcome::Failed {
                failure,
                retry_after_ms,
            }
        }
        Err(error) => {
            let failure = Failure {
                kind: error.kind,
                status: None,
                // Of an address that is refused, nothing is told (`design.md`, section 3).
                sealed_answer: match error.kind {
                    FailureKind::RefusedAddress => Vec::new(),
                    FailureKind::Timeout
                    | FailureKind::Connect
                    | FailureKind::Tls
                    | FailureKind::Dns
                    | FailureKind::Reset
                    | FailureKind::Status
                    | FailureKind::Protocol => seal(data_key(), webhook, error.detail.as_bytes()),
                },
            };
            AttemptOutcome::Failed {
                failure,
                retry_after_ms: None,
            }
        }
    };
    Sent {
        started_at,
        latency,
        outcome,
    }
}

/// Everything else, redirects included, is a failure.
pub(crate) fn is_success(dialect: Dialect, status: u16) -> bool {
    match dialect {
        Dialect::Stackone => (200..300).contains(&status),
        Dialect::HrOn => status == 200,
    }
}

/// What is posted. `None` for an event that the dialect has no name for; its filter never selects one.
pub(crate) fn body(webhook: &Webhook, event: &Event) -> Option<Bytes> {
    match webhook.definition.dialect {
        Dialect::Stackone => Some(event.body.clone()),
        Dialect::HrOn => {
            hr_on::render(&event.event_type, &event.record_id, event.published_at).map(Bytes::from)
        }
    }
}

/// What a POST to the webhook carries besides its body: what it is configured with, and by whom the
/// body is. `None` while the registry view does not know who signs.
pub(crate) fn headers(
    webhook: &Webhook,
    id: EventId,
    at: Timestamp,
    body: &[u8],
) -> Option<HeaderMap> {
    let signers = webhook.signers.as_ref()?;
    let mut headers = HeaderMap::with_capacity(8 + webhook.endpoint.headers.len());
    for (name, value) in &webhook.endpoint.headers {
        // Checked when the webhook was written.
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut set = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    set(WEBHOOK_ID, &id.to_string());
    set(WEBHOOK_TIMESTAMP, &at.as_seconds().to_string());
    set(WEBHOOK_SIGNATURE, &signers.standard(id, at, body));
    match webhook.definition.dialect {
        Dialect::Stackone => set(STACKONE_SIGNATURE, &signers.active.stackone(body)),
        Dialect::HrOn => {
            if let Some(token) = &webhook.endpoint.token {
                set(HR_ON_TOKEN, token);
            }
        }
    }
    Some(headers)
}

/// Sealed with the project's key, so that destroying the key destroys all answers (rule 28).
fn seal(data_key: Option<Arc<DataKey>>, webhook: &Webhook, answer: &[u8]) -> Vec<u8> {
    match data_key {
        Some(key) if !answer.is_empty() => {
            let context = seal_context(SEALED_ANSWER, webhook.project, &webhook.id.to_string());
            key.seal(answer, &context, &shared::random::bytes())
        }
        Some(_) | None => Vec::new(),
    }
}
