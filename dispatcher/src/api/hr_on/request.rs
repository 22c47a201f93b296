//! What requests say of a webhook, validated.

use serde_json::Value;
use shared::dialect::hr_on;
use shared::domain::endpoint_url::EndpointUrl;
use shared::domain::filter::{Selection, Selector};
use shared::problem::FieldError;
use utoipa::ToSchema;

use crate::api::error::ApiError;
use crate::api::fields::{Fields, Parsed, fault, fault_at, prose};

/// The token is sent as a header with each event.
const TOKEN_BYTES_MAX: usize = 256;

/// What is sent to make a webhook in HR-ON's dialect.
#[derive(ToSchema)]
#[schema(as = HrOnCreateWebhook, rename_all = "camelCase")]
#[expect(dead_code, reason = "read by the derive alone")]
pub(super) struct CreateWebhook {
    /// Where to; its address must be public.
    #[schema(
        max_length = 2048,
        format = "uri",
        example = "https://hooks.example.com/hr-on"
    )]
    endpoint: String,
    #[schema(min_items = 1, max_items = 200, example = json!(["EmployeeCreated"]))]
    event_names: Vec<String>,
    /// Sent as `X-HR-ON-Token`.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[!-~]+$",
        example = "a-token"
    )]
    token: String,
}

/// What is sent to change such a webhook: what is left out stays.
#[derive(ToSchema)]
#[schema(as = HrOnUpdateWebhook, rename_all = "camelCase")]
#[expect(dead_code, reason = "read by the derive alone")]
pub(super) struct UpdateWebhook {
    /// Where to; its address must be public.
    #[schema(
        max_length = 2048,
        format = "uri",
        example = "https://hooks.example.com/hr-on"
    )]
    endpoint: Option<String>,
    #[schema(min_items = 1, max_items = 200, example = json!(["EmployeeCreated"]))]
    event_names: Option<Vec<String>>,
    /// Sent as `X-HR-ON-Token`.
    #[schema(
        min_length = 1,
        max_length = 256,
        pattern = "^[!-~]+$",
        example = "a-token"
    )]
    token: Option<String>,
}

/// What is sent for a test event.
#[derive(ToSchema)]
#[schema(as = HrOnTriggerWebhook, rename_all = "camelCase")]
#[expect(dead_code, reason = "read by the derive alone")]
pub(super) struct TriggerWebhook {
    /// One that the webhook has subscribed to; the first of them by default.
    #[schema(max_length = 256, example = "EmployeeCreated")]
    event_name: Option<String>,
}

/// Whose address has yet to be judged.
pub(super) struct NewWebhook {
    pub(super) endpoint: EndpointUrl,
    pub(super) selection: Selection,
    pub(super) token: String,
}

/// What is not given stays.
pub(super) struct WebhookUpdate {
    /// Its address has yet to be judged.
    pub(super) endpoint: Option<EndpointUrl>,
    pub(super) selection: Option<Selection>,
    pub(super) token: Option<String>,
}

impl NewWebhook {
    pub(super) fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let endpoint = fields.required("endpoint", endpoint);
        let selection = fields.required("eventNames", event_names);
        let token = fields.required("token", token);
        let new = endpoint
            .zip(selection)
            .zip(token)
            .map(|((endpoint, selection), token)| Self {
                endpoint,
                selection,
                token,
            });
        fields.finish(new)
    }
}

impl WebhookUpdate {
    pub(super) fn parse(mut fields: Fields) -> Result<Self, ApiError> {
        let update = Self {
            endpoint: fields.optional("endpoint", endpoint),
            selection: fields.optional("eventNames", event_names),
            token: fields.optional("token", token),
        };
        fields.finish(Some(update))
    }
}

/// `eventName` of a trigger. Whether there is such an event is the webhook's to know.
pub(super) fn event_name(mut fields: Fields) -> Result<Option<String>, ApiError> {
    let name = fields.optional("eventName", prose(TOKEN_BYTES_MAX));
    fields.finish(Some(name))
}

fn endpoint(value: Value) -> Parsed<EndpointUrl> {
    let text = prose(EndpointUrl::BYTES_MAX)(value)?;
    EndpointUrl::parse(&text).or_else(|error| fault(error.to_string()))
}

/// A name that is there twice selects no more than once.
fn event_names(value: Value) -> Parsed<Selection> {
    let Value::Array(names) = value else {
        return fault("must be an array");
    };
    let (mut selectors, mut faults) = (Vec::<Selector>::new(), Vec::new());
    for (index, name) in names.iter().enumerate() {
        match name.as_str().and_then(hr_on::event_type) {
            Some(event_type) => {
                let selector = hr_on::selector(event_type);
                if !selectors.contains(&selector) {
                    selectors.push(selector);
                }
            }
            None => faults.push(FieldError {
                pointer: format!("/{index}"),
                detail: "is none of HR-ON's event names".to_owned(),
            }),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Selection::new(selectors).or_else(|invalid| fault_at(invalid.pointer, invalid.detail))
}

fn token(value: Value) -> Parsed<String> {
    match prose(TOKEN_BYTES_MAX)(value)? {
        text if text.is_empty() => fault("must not be empty"),
        text if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(text),
        _ => fault("must be visible ASCII characters"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::fields::object;
    use crate::api::openapi::request;

    #[test]
    fn requests_are_what_is_documented() {
        request::check::<CreateWebhook>(&json!({}), |fields| NewWebhook::parse(fields).map(drop));
        request::check::<UpdateWebhook>(&json!({}), |fields| {
            WebhookUpdate::parse(fields).map(drop)
        });
        request::check::<TriggerWebhook>(&json!({}), |fields| event_name(fields).map(drop));
    }

    fn fields(body: Value) -> Fields {
        Fields::new(object(body).unwrap())
    }

    fn pointers<T>(result: Result<T, ApiError>) -> Vec<String> {
        match result {
            Ok(_) => Vec::new(),
            Err(ApiError::Refused(problem)) => {
                let errors = problem.errors.into_iter();
                errors.map(|error| error.pointer).collect()
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn faults_are_told_with_their_places() {
        let good = json!({"endpoint": "http://x.example", "eventNames": ["EmployeeCreated"],
            "token": "t"});
        let with = |name: &str, value: Value| {
            let mut body = good.clone();
            body[name] = value;
            body
        };
        for (body, expected) in [
            (good.clone(), vec![]),
            (json!({}), vec!["/endpoint", "/eventNames", "/token"]),
            (with("endpoint", json!("ftp://x")), vec!["/endpoint"]),
            (with("eventNames", json!([])), vec!["/eventNames"]),
            (with("eventNames", json!("*")), vec!["/eventNames"]),
            (
                with(
                    "eventNames",
                    json!(["EmployeeCreated", "hris_employees.created"]),
                ),
                vec!["/eventNames/1"],
            ),
            (with("token", json!("")), vec!["/token"]),
            (with("token", json!("a b")), vec!["/token"]),
            (with("token", json!("ä")), vec!["/token"]),
            (with("token", json!("t".repeat(256))), vec![]),
            (with("token", json!("t".repeat(257))), vec!["/token"]),
            (with("active", json!(true)), vec!["/active"]),
        ] {
            assert_eq!(
                pointers(NewWebhook::parse(fields(body.clone()))),
                expected,
                "{body}"
            );
        }
    }

    #[test]
    fn names_keep_their_order_and_stand_once() {
        let names = json!(["EmployeeUpdated", "DocumentUploaded", "EmployeeUpdated"]);
        let selection = event_names(names).unwrap();
        let selected = hr_on::event_names(&selection);
        assert_eq!(selected.unwrap(), ["EmployeeUpdated", "DocumentUploaded"]);
    }
}
