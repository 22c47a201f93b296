//! The verification of an endpoint: it is sent a random text and must send it back whole.
//!
//! Signed as a delivery is, so that an endpoint can echo what is ours and nothing else.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use shared::domain::delivery::FailureKind;
use shared::domain::webhook::Webhook;
use shared::http_client::GuardedClient;
use shared::ids::EventId;
use shared::random;
use shared::secret::Secret;
use shared::time::Clock;

use super::sender;

/// From the start of the connection to the end of the answer.
const WITHIN: Duration = Duration::from_secs(10);
const SUCCESS: u16 = 200;

/// Posts `challenge` and compares the answer. An error says what was wrong with it, in words for the
/// one who asked; of an address that is refused, they tell nothing.
pub(crate) async fn shake(
    client: &GuardedClient,
    clock: &dyn Clock,
    webhook: &Webhook,
    challenge: &Secret,
) -> Result<(), String> {
    let within = tokio::time::timeout(WITHIN, exchange(client, clock, webhook, challenge));
    within
        .await
        .unwrap_or_else(|_| Err(format!("no whole answer within {} s", WITHIN.as_secs())))
}

async fn exchange(
    client: &GuardedClient,
    clock: &dyn Clock,
    webhook: &Webhook,
    challenge: &Secret,
) -> Result<(), String> {
    let body = Bytes::copy_from_slice(challenge.reveal().as_bytes());
    let now = clock.now();
    let id = EventId::new(now, &random::for_id());
    let headers = sender::headers(webhook, id, now, &body);
    let mut headers = headers.ok_or("its signing secret is being changed; try again")?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    let answer = client
        .send(&webhook.endpoint.url, headers, body, WITHIN)
        .await
        .map_err(|error| unreachable_because(error.kind))?;
    if answer.status() != SUCCESS {
        return Err(format!(
            "the endpoint answered {} instead of {SUCCESS}",
            answer.status()
        ));
    }
    let echoed = answer.whole(challenge.reveal().len()).await;
    let echoed = echoed.as_deref().map(std::str::from_utf8);
    match echoed {
        Some(Ok(text)) if challenge.matches(text) => Ok(()),
        Some(Ok(_) | Err(_)) | None => {
            Err("the endpoint did not answer with what it was sent, and nothing else".to_owned())
        }
    }
}

/// Why there was no answer, in a word; details of connections are no caller's business.
pub(crate) fn unreachable_because(kind: FailureKind) -> String {
    format!("the endpoint was not reached: {kind}")
}
