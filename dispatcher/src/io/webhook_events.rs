//! `webhook.failing`, `webhook.recovered` and `webhook.deactivated`: what the journal tells of a
//! webhook, as events that others of its project can subscribe to.
//!
//! The id comes from the entry's place in JOURNAL, so that telling it again is no other event.
//! Quarantine is our own fault and no event.

use bytes::Bytes;
use serde::Serialize;
use shared::dialect::stackone::{self, Envelope};
use shared::domain::event::{DedupTuple, Event, EventType, Source};
use shared::domain::journal::JournalEntry;
use shared::domain::webhook::Status;
use shared::ids::{PartitionId, ProjectId, WebhookId};
use shared::partition::lane_hash;
use shared::time::Timestamp;

use crate::core::commits::Told;

/// `event_data`.
#[derive(Serialize)]
struct WebhookData {
    id: WebhookId,
    status: Status,
    /// The API's `status_reason`.
    reason: Option<&'static str>,
    consecutive_failures: u32,
}

/// The event that tells of a stored entry; `None` for entries that none tells of.
pub(crate) fn webhook_event(
    partition: PartitionId,
    project: ProjectId,
    told: &Told,
    now: Timestamp,
) -> Option<Event> {
    let (action, status) = match &told.entry {
        JournalEntry::BreakerOpened { .. } => ("failing", Status::Enabled),
        JournalEntry::BreakerClosed { .. } => ("recovered", Status::Enabled),
        JournalEntry::Deactivated { .. } => ("deactivated", Status::Deactivated),
        JournalEntry::Quarantined { .. }
        | JournalEntry::ConfigApplied { .. }
        | JournalEntry::CountedBack { .. }
        | JournalEntry::Delivered { .. }
        | JournalEntry::AttemptFailed { .. }
        | JournalEntry::Exhausted { .. }
        | JournalEntry::Ended { .. }
        | JournalEntry::PendingEnded { .. }
        | JournalEntry::ProbeFailed { .. }
        | JournalEntry::Settled { .. }
        | JournalEntry::AccountsProjected { .. }
        | JournalEntry::Released
        | JournalEntry::Replay { .. } => return None,
    };
    let event_type = EventType::parse(&format!("webhook.{action}")).ok()?;
    let record_id = told.webhook.to_string();
    let place = told.at.place;
    let id = DedupTuple {
        project,
        account: None,
        connector: "webhook",
        identity: &format!("{partition}:{}:{}", place.pack, place.index),
        event_type: &event_type,
        record_id: &record_id,
        index: 0,
    }
    .event_id();
    let data = serde_json::value::to_raw_value(&WebhookData {
        id: told.webhook,
        status,
        reason: told.entry.decision().map(|decision| decision.reason()),
        consecutive_failures: told.consecutive_failures,
    })
    .ok()?;
    let body = stackone::render(&Envelope {
        id,
        project,
        event_type: &event_type,
        occurred_at: told.occurred_at,
        sent_at: now,
        record_id: &record_id,
        account: None,
        raw_event: None,
        event_data: Some(&data),
    });
    Some(Event {
        id,
        project,
        source: Source::Account,
        account: None,
        provider: None,
        occurred_at: told.occurred_at,
        published_at: now,
        lane: lane_hash(None, event_type.resource(), &record_id),
        registry_sequence: None,
        body: Bytes::from(body),
        record_id: record_id.into(),
        event_type,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::domain::journal::{DeactivateReason, EntryPlace};
    use shared::domain::registry::DecidedAt;
    use shared::ids::{Epoch, Position, Sequence};

    const AT: Timestamp = Timestamp::from_millis(1_750_158_000_000);
    const WEBHOOK: WebhookId = WebhookId::from_bytes([4; 16]);

    fn told(entry: JournalEntry, epoch: u64) -> Told {
        let place = EntryPlace {
            pack: Sequence(60),
            index: 2,
        };
        Told {
            webhook: WEBHOOK,
            at: DecidedAt {
                epoch: Epoch(epoch),
                place,
            },
            entry,
            occurred_at: AT,
            consecutive_failures: 3,
        }
    }

    fn event(told: &Told) -> Option<Event> {
        let now = AT.plus_millis(123);
        webhook_event(PartitionId(7), ProjectId::from_bytes([1; 16]), told, now)
    }

    #[test]
    fn a_deactivated_webhook_is_told_with_its_reason() {
        let from = Position {
            generation: 1,
            sequence: Sequence(9),
        };
        let entry = JournalEntry::Deactivated {
            webhook: WEBHOOK,
            reason: DeactivateReason::Gone,
            at: AT,
            from,
        };
        let first = event(&told(entry.clone(), 1)).unwrap();
        assert_eq!(first.event_type.as_str(), "webhook.deactivated");
        let body: serde_json::Value = serde_json::from_slice(&first.body).unwrap();
        let expected = serde_json::json!({
            "id": first.id.to_string(),
            "project_id": "prj_01010101010101010101010101010101",
            "event": "webhook.deactivated",
            "event_date": "2025-06-17T11:00:00.000Z",
            "sent_at": "2025-06-17T11:00:00.123Z",
            "record_type": "webhook",
            "record_id": "wh_04040404040404040404040404040404",
            "event_data": {
                "id": "wh_04040404040404040404040404040404",
                "status": "deactivated",
                "reason": "gone",
                "consecutive_failures": 3,
            },
        });
        assert_eq!(body, expected);
        assert_eq!(event(&told(entry, 2)).unwrap().id, first.id);
        let quarantined = JournalEntry::Quarantined {
            webhook: WEBHOOK,
            at: AT,
            from,
        };
        assert_eq!(event(&told(quarantined, 1)), None);
    }
}
