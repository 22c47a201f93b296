//! The catalog of event types, each with what a delivery of it looks like in the dialects that have
//! a name for it.

use actix_web::HttpResponse;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};
use shared::dialect::hr_on;
use shared::dialect::stackone::{self, Envelope, record_type};
use shared::domain::account::AccountDefinition;
use shared::domain::catalog;
use shared::domain::event::EventType;
use shared::ids::{AccountId, EventId, ProjectId, WebhookId};
use shared::time::Timestamp;
use utoipa::ToSchema;

use crate::api::auth::Principal;
use crate::api::error::ApiError;
use crate::api::page::List;

/// 17 June 2025, 11:00: when HR-ON's guide has its example happen.
const AT: Timestamp = Timestamp::from_millis(1_750_158_000_000);
/// That guide's employee.
const HR_ON_RECORD: &str = "3fe2987b-ef4e-4b7c-b321-89585e2a4178";

#[derive(Serialize, ToSchema)]
#[schema(as = EventType)]
struct EventTypeResource {
    name: String,
    record_type: String,
    /// JSON Schema of the `stackone` body.
    #[schema(value_type = Object)]
    schema: Value,
    /// A `stackone` body.
    #[schema(value_type = Object)]
    example: Box<RawValue>,
    #[schema(required)]
    hr_on: Option<HrOnResource>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = HrOnEventType)]
struct HrOnResource {
    name: &'static str,
    description: &'static str,
    #[schema(value_type = Object)]
    schema: Value,
    #[schema(value_type = Object)]
    example: Box<RawValue>,
}

/// All of them on one page, as clients make menus of them.
#[utoipa::path(
    get,
    path = "/event_types",
    operation_id = "list_event_types",
    summary = "List event types",
    tag = "Catalog",
    responses(
        (status = 200, description = "All event types, with schema and example", body = List<EventTypeResource>),
    ),
)]
pub(super) async fn list(_: Principal) -> Result<HttpResponse, ApiError> {
    let items: Result<Vec<_>, _> = catalog::names().map(|name| event_type(&name)).collect();
    let list = List {
        items: items?,
        next: None,
    };
    Ok(HttpResponse::Ok().json(list))
}

fn event_type(name: &str) -> Result<EventTypeResource, ApiError> {
    let event_type = EventType::parse(name).map_err(ApiError::internal)?;
    Ok(EventTypeResource {
        name: name.to_owned(),
        record_type: record_type(&event_type).to_owned(),
        schema: schema(&event_type),
        example: raw(example(&event_type)?)?,
        hr_on: hr_on(&event_type)?,
    })
}

fn raw(json: Vec<u8>) -> Result<Box<RawValue>, ApiError> {
    let text = String::from_utf8(json).map_err(ApiError::internal)?;
    RawValue::from_string(text).map_err(ApiError::internal)
}

fn hr_on(event_type: &EventType) -> Result<Option<HrOnResource>, ApiError> {
    let Some(name) = hr_on::event_name(event_type) else {
        return Ok(None);
    };
    let Some(example) = hr_on::render(event_type, HR_ON_RECORD, AT) else {
        return Ok(None);
    };
    let id_field = hr_on::id_field(name);
    Ok(Some(HrOnResource {
        name,
        description: hr_on::describe(name),
        schema: json!({
            "$schema": DRAFT,
            "type": "object",
            "required": ["message", "eventName", "sentAt", id_field],
            "properties": {
                "message": {"type": "string"},
                "eventName": {"const": name},
                "sentAt": {"type": "string", "format": "date-time"},
                id_field: {"type": "string"},
            },
        }),
        example: raw(example)?,
    }))
}

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// What every body has, and what events of this type have besides.
fn schema(event_type: &EventType) -> Value {
    let text = || json!({"type": "string"});
    let time = || json!({"type": "string", "format": "date-time"});
    let mut properties: Map<String, Value> = [
        (
            "id",
            json!({"type": "string", "pattern": "^evt_[0-9a-f]{32}$"}),
        ),
        (
            "project_id",
            json!({"type": "string", "pattern": "^prj_[0-9a-f]{32}$"}),
        ),
        ("event", json!({"const": event_type.as_str()})),
        ("event_date", time()),
        ("sent_at", time()),
        ("record_type", json!({"const": record_type(event_type)})),
        ("record_id", text()),
        (
            "account_id",
            json!({"type": "string", "pattern": "^acc_[0-9a-f]{32}$"}),
        ),
        ("provider", text()),
        ("origin_owner_id", text()),
        ("origin_owner_name", text()),
        ("origin_username", text()),
    ]
    .map(|(name, schema)| (name.to_owned(), schema))
    .into_iter()
    .collect();
    let mut required = vec![
        "id",
        "project_id",
        "event",
        "event_date",
        "sent_at",
        "record_type",
        "record_id",
    ];
    match Kind::of(event_type) {
        Kind::Account => required.extend(["account_id", "provider", "origin_owner_id"]),
        Kind::Webhook => {
            let data = json!({
                "type": "object",
                "required": ["id", "status", "reason", "consecutive_failures"],
                "properties": {
                    "id": {"type": "string"},
                    "status": {"enum": ["enabled", "deactivated"]},
                    "reason": {"type": ["string", "null"]},
                    "consecutive_failures": {"type": "integer", "minimum": 0},
                },
            });
            properties.insert("event_data".to_owned(), data);
            required.push("event_data");
        }
        // On native and first-party events, as far as it is known; on synthetic ones never.
        Kind::Record => {
            let (raw, data) = (
                "the provider's own payload",
                "the record, as far as the event tells of it",
            );
            for (name, description) in [("raw_event", raw), ("event_data", data)] {
                properties.insert(name.to_owned(), json!({ "description": description }));
            }
        }
    }
    json!({
        "$schema": DRAFT,
        "type": "object",
        "required": required,
        "properties": properties,
    })
}

/// Who says such events.
enum Kind {
    Account,
    Webhook,
    Record,
}

impl Kind {
    fn of(event_type: &EventType) -> Self {
        if catalog::is_about_webhooks(event_type) {
            Self::Webhook
        } else if catalog::is_reserved(event_type) {
            Self::Account
        } else {
            Self::Record
        }
    }
}

fn example(event_type: &EventType) -> Result<Vec<u8>, ApiError> {
    let account_id = AccountId::from_bytes([2; 16]);
    let account = AccountDefinition {
        provider: "bamboohr".to_owned(),
        name: None,
        origin_owner_id: "customer-1".to_owned(),
        origin_owner_name: Some("Acme".to_owned()),
        origin_username: None,
        sealed_secrets: Vec::new(),
    };
    let webhook = WebhookId::from_bytes([4; 16]).to_string();
    let (record_id, account, data) = match Kind::of(event_type) {
        Kind::Account => (account_id.to_string(), Some(&account), None),
        Kind::Webhook => {
            let (status, reason) = match event_type.action() {
                "deactivated" => ("deactivated", Some("gone")),
                _ => ("enabled", None),
            };
            let data = json!({
                "id": webhook, "status": status, "reason": reason, "consecutive_failures": 5,
            });
            (webhook, None, Some(data))
        }
        Kind::Record => ("42".to_owned(), Some(&account), Some(json!({"id": "42"}))),
    };
    let event_data = data.as_ref().map(to_raw_value).transpose();
    let event_data = event_data.map_err(ApiError::internal)?;
    Ok(stackone::render(&Envelope {
        id: EventId::from_bytes([3; 16]),
        project: ProjectId::from_bytes([1; 16]),
        event_type,
        occurred_at: AT,
        sent_at: AT.plus_millis(250),
        record_id: &record_id,
        account: account.map(|definition| (account_id, definition)),
        raw_event: None,
        event_data: event_data.as_deref(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As far as our schemas go.
    fn fits(schema: &Value, value: &Value) {
        if let Some(only) = schema.get("const") {
            assert_eq!(value, only);
        }
        if let Some(one_of) = schema.get("enum").and_then(Value::as_array) {
            assert!(one_of.contains(value), "{value}");
        }
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            let prefix = pattern.trim_start_matches('^').split('[').next();
            let text = value.as_str().unwrap();
            assert!(
                text.starts_with(prefix.unwrap()) && text.len() == 36,
                "{text}"
            );
        }
        if schema.get("type") == Some(&json!("string")) {
            assert!(value.is_string(), "{value}");
        }
        let Some(properties) = schema.get("properties") else {
            return;
        };
        for name in schema["required"].as_array().unwrap() {
            assert!(value.get(name.as_str().unwrap()).is_some(), "{name}");
        }
        for (name, value) in value.as_object().unwrap() {
            fits(&properties[name], value);
            assert!(properties.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn each_example_fits_its_schema() {
        let mut in_hr_on = 0;
        for name in catalog::names() {
            let resource = event_type(&name).ok().unwrap();
            let example: Value = serde_json::from_str(resource.example.get()).unwrap();
            assert_eq!(example["event"], name.as_str());
            fits(&resource.schema, &example);
            if let Some(hr_on) = resource.hr_on {
                let example: Value = serde_json::from_str(hr_on.example.get()).unwrap();
                assert_eq!(example["eventName"], hr_on.name);
                fits(&hr_on.schema, &example);
                in_hr_on += 1;
            }
        }
        assert_eq!(in_hr_on, catalog::HR_ON_NAMES.len());
    }
}
