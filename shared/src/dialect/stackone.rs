//! StackOne's payload (`dialects.md`, 1.2) and our `id` in front.
//!
//! Rendered once, when the event is published. `sent_at` is that time, so that a retry sends the
//! same bytes and a receiver's signature check never depends on which attempt it sees.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::account::AccountDefinition;
use crate::domain::event::EventType;
use crate::ids::{AccountId, EventId, ProjectId};
use crate::time::Timestamp;

/// The dialect's own signature header.
pub const SIGNATURE_HEADER: &str = "x-stackone-signature";

/// Everything that the body says.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    pub id: EventId,
    pub project: ProjectId,
    pub event_type: &'a EventType,
    pub occurred_at: Timestamp,
    pub sent_at: Timestamp,
    pub record_id: &'a str,
    pub account: Option<(AccountId, &'a AccountDefinition)>,
    /// The provider's payload, byte for byte; native events only.
    pub raw_event: Option<&'a RawValue>,
    /// The unified model as far as it is known; never on synthetic events.
    pub event_data: Option<&'a RawValue>,
}

/// Fields of an account are absent on events without one.
#[derive(Serialize)]
struct Body<'a> {
    id: EventId,
    project_id: ProjectId,
    event: &'a str,
    event_date: Timestamp,
    sent_at: Timestamp,
    record_type: &'a str,
    record_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin_owner_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin_owner_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin_username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_event: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_data: Option<&'a RawValue>,
}

/// The JSON body.
pub fn render(envelope: &Envelope<'_>) -> Vec<u8> {
    let account = envelope.account.map(|(_, definition)| definition);
    let body = Body {
        id: envelope.id,
        project_id: envelope.project,
        event: envelope.event_type.as_str(),
        event_date: envelope.occurred_at,
        sent_at: envelope.sent_at,
        record_type: record_type(envelope.event_type),
        record_id: envelope.record_id,
        account_id: envelope.account.map(|(id, _)| id),
        provider: account.map(|account| account.provider.as_str()),
        origin_owner_id: account.map(|account| account.origin_owner_id.as_str()),
        origin_owner_name: account.and_then(|account| account.origin_owner_name.as_deref()),
        origin_username: account.and_then(|account| account.origin_username.as_deref()),
        raw_event: envelope.raw_event,
        event_data: envelope.event_data,
    };
    #[expect(
        clippy::expect_used,
        reason = "strings, times and valid raw JSON always serialize"
    )]
    serde_json::to_vec(&body).expect("the body has string keys only")
}

/// The unprefixed resource name: `employees` of `hris_employees` (`design.md`, section 4).
pub fn record_type(event_type: &EventType) -> &str {
    let resource = event_type.resource();
    ["hris_", "ats_", "crm_", "lms_", "documents_", "hr_"]
        .iter()
        .find_map(|category| resource.strip_prefix(category))
        .unwrap_or(resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_event_carries_the_payload_byte_for_byte() {
        let event_type = EventType::parse("hris_employees.updated").unwrap();
        let account = AccountDefinition {
            provider: "bamboohr".into(),
            name: None,
            origin_owner_id: "customer-1".into(),
            origin_owner_name: Some("Acme".into()),
            origin_username: None,
            sealed_secrets: Vec::new(),
        };
        let raw: Box<RawValue> = serde_json::from_str(r#"{ "a" : 1.0, "b":"\u003c" }"#).unwrap();
        let data: Box<RawValue> = serde_json::from_str(r#"{"id":"42"}"#).unwrap();
        let body = render(&Envelope {
            id: EventId::from_bytes([3; 16]),
            project: ProjectId::from_bytes([1; 16]),
            event_type: &event_type,
            occurred_at: Timestamp::from_millis(1_750_158_000_000),
            sent_at: Timestamp::from_millis(1_750_158_000_123),
            record_id: "42",
            account: Some((AccountId::from_bytes([2; 16]), &account)),
            raw_event: Some(&raw),
            event_data: Some(&data),
        });
        let expected = concat!(
            r#"{"id":"evt_03030303030303030303030303030303","#,
            r#""project_id":"prj_01010101010101010101010101010101","#,
            r#""event":"hris_employees.updated","event_date":"2025-06-17T11:00:00.000Z","#,
            r#""sent_at":"2025-06-17T11:00:00.123Z","record_type":"employees","#,
            r#""record_id":"42","account_id":"acc_02020202020202020202020202020202","#,
            r#""provider":"bamboohr","origin_owner_id":"customer-1","#,
            r#""origin_owner_name":"Acme","raw_event":{ "a" : 1.0, "b":"\u003c" },"#,
            r#""event_data":{"id":"42"}}"#
        );
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn record_types_have_no_category() {
        for (event, expected) in [
            ("account.created", "account"),
            ("ats_job_postings.deleted", "job_postings"),
            ("hr_departments.created", "departments"),
            ("documents_files.created", "files"),
            ("hris_employments.updated", "employments"),
        ] {
            assert_eq!(record_type(&EventType::parse(event).unwrap()), expected);
        }
    }
}
