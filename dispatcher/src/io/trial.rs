//! Test events: posted at once, by whichever replica is asked, as a delivery would be. They are in
//! no log, and no ledger, breaker or counter knows of them.

use std::time::Duration;

use bytes::Bytes;
use shared::dialect::stackone::{self, Envelope};
use shared::domain::account::Account;
use shared::domain::event::{Event, EventType, Source};
use shared::domain::webhook::Webhook;
use shared::http_client::GuardedClient;
use shared::ids::{EventId, ProjectId};
use shared::partition::lane_hash;
use shared::random;
use shared::time::{Clock, Timestamp};

use super::handshake::unreachable_because;
use super::sender;

/// What the endpoint made of a test event.
pub(crate) enum Trial {
    Taken,
    /// With what it answered, or why it did not.
    Refused(String),
    /// Nothing was sent: the webhook's dialect has no name for such an event.
    Nameless,
}

/// A test event about a record that need not be there.
pub(crate) fn event(
    project: ProjectId,
    event_type: EventType,
    record_id: &str,
    account: Option<&Account>,
    now: Timestamp,
) -> Event {
    let id = EventId::new(now, &random::for_id());
    let body = stackone::render(&Envelope {
        id,
        project,
        event_type: &event_type,
        occurred_at: now,
        sent_at: now,
        record_id,
        account: account.map(|account| (account.id, &account.definition)),
        raw_event: None,
        event_data: None,
    });
    let account_id = account.map(|account| account.id);
    Event {
        id,
        project,
        source: Source::Test,
        account: account_id,
        provider: account.map(|account| account.definition.provider.as_str().into()),
        record_id: record_id.into(),
        occurred_at: now,
        published_at: now,
        lane: lane_hash(account_id, event_type.resource(), record_id),
        registry_sequence: None,
        body: Bytes::from(body),
        event_type,
    }
}

/// One POST. Returns at most 1 s after the webhook's timeout.
pub(crate) async fn post(
    client: &GuardedClient,
    clock: &dyn Clock,
    webhook: &Webhook,
    event: &Event,
) -> Trial {
    let Some(body) = sender::body(webhook, event) else {
        return Trial::Nameless;
    };
    let Some(headers) = sender::headers(webhook, event.id, clock.now(), &body) else {
        let detail = "its signing secret is being changed; try again";
        return Trial::Refused(detail.to_owned());
    };
    let timeout = Duration::from_millis(u64::from(webhook.definition.policy.timeout_ms));
    let url = &webhook.endpoint.url;
    match client.post(url, headers, body, timeout).await {
        Ok(head) if sender::is_success(webhook.definition.dialect, head.status) => Trial::Taken,
        Ok(head) => {
            let answer = String::from_utf8_lossy(&head.answer);
            Trial::Refused(format!("answered {}: {answer}", head.status))
        }
        Err(error) => Trial::Refused(unreachable_because(error.kind)),
    }
}
