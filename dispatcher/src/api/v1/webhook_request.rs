//! What requests say of a webhook, validated; and the webhook after a change.

use serde_json::{Map, Value};
use shared::connector::Connectors;
use shared::dialect::hr_on;
use shared::domain::endpoint_url::EndpointUrl;
use shared::domain::filter::{Selection, Selector};
use shared::domain::policy::Policy;
use shared::domain::webhook::{Dialect, Endpoint, WebhookDefinition};
use shared::limits::NAME_BYTES_MAX;
use shared::problem::FieldError;
use utoipa::ToSchema;

use super::endpoint_headers::{HeadersChange, changed, headers};
use crate::api::error::ApiError;
use crate::api::fields::{Change, Fields, Parsed, boolean, fault, fault_at, object, prose};
use crate::api::fields::{pointer_to, refused};
use crate::api::openapi::terms;

/// What is sent to make a webhook.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub(super) struct CreateWebhook {
    /// Where to; its address must be public.
    #[schema(
        min_length = 1,
        max_length = 2048,
        format = "uri",
        example = "https://hooks.example.com/carillon"
    )]
    url: String,
    #[schema(value_type = Vec<terms::Selector>, min_items = 1, max_items = 200, example = json!(["hris_employees.*", {"event": "account.created"}]))]
    events: Vec<String>,
    #[schema(max_length = 512, example = "All that changes")]
    description: Option<String>,
    /// Sent with each delivery, 20 at most.
    #[schema(value_type = Option<HashMap<String, Option<String>>>, example = json!({"x-team": "hr"}))]
    headers: Option<String>,
    #[schema(value_type = Option<terms::PolicyChange>)]
    policy: Option<String>,
    /// Whether the endpoint must prove that it wants events before it gets any; false by default.
    #[schema(example = true)]
    verification_required: Option<bool>,
}

/// What is sent to change a webhook: what is left out stays, null restores the default.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub(super) struct UpdateWebhook {
    /// Where to; its address must be public.
    #[schema(
        min_length = 1,
        max_length = 2048,
        format = "uri",
        example = "https://hooks.example.com/carillon",
        nullable = false
    )]
    url: Option<String>,
    #[schema(value_type = Option<Vec<terms::Selector>>, min_items = 1, max_items = 200, nullable = false, example = json!(["hris_employees.*", {"event": "account.created"}]))]
    events: Option<Vec<String>>,
    #[schema(max_length = 512, example = "All that changes")]
    description: Option<String>,
    /// Sent with each delivery, 20 at most; null removes one, `***` keeps it.
    #[schema(value_type = Option<HashMap<String, Option<String>>>, example = json!({"x-team": "hr"}))]
    headers: Option<String>,
    #[schema(value_type = Option<terms::PolicyChange>)]
    policy: Option<String>,
}

/// Whose address has yet to be judged.
#[derive(Debug)]
pub(super) struct NewWebhook {
    pub(super) endpoint: Endpoint,
    pub(super) selection: Selection,
    pub(super) description: Option<String>,
    pub(super) verification_required: bool,
    pub(super) policy: Policy,
}

#[derive(Debug)]
pub(super) struct WebhookPatch {
    /// Its address has yet to be judged.
    pub(super) url: Option<EndpointUrl>,
    selection: Option<Selection>,
    description: Change<String>,
    /// Merged by name.
    headers: Change<HeadersChange>,
    /// Merged field by field; cleared, it is the default.
    policy: Change<Map<String, Value>>,
}

impl NewWebhook {
    pub(super) fn parse(mut fields: Fields, connectors: &Connectors) -> Result<Self, ApiError> {
        let url = fields.required("url", url);
        let selection = fields.required("events", |value| events(value, connectors));
        let description = fields.optional("description", prose(NAME_BYTES_MAX));
        let headers = fields.optional("headers", |value| {
            changed(&[], &Change::Set(headers(value)?))
        });
        let policy = fields.optional("policy", |value| {
            policy_with(&Policy::default(), &object(value)?)
        });
        let verification_required = fields.optional("verification_required", boolean);
        fields.finish(url.zip(selection).map(|(url, selection)| Self {
            endpoint: Endpoint {
                url,
                headers: headers.unwrap_or_default(),
                token: None,
            },
            selection,
            description,
            verification_required: verification_required.unwrap_or(false),
            policy: policy.unwrap_or_default(),
        }))
    }
}

impl WebhookPatch {
    pub(super) fn parse(mut fields: Fields, connectors: &Connectors) -> Result<Self, ApiError> {
        let patch = Self {
            url: fields.replacement("url", url),
            selection: fields.replacement("events", |value| events(value, connectors)),
            description: fields.change("description", prose(NAME_BYTES_MAX)),
            headers: fields.change("headers", headers),
            policy: fields.change("policy", object),
        };
        fields.finish(Some(patch))
    }

    pub(super) fn is_keep(&self) -> bool {
        self.url.is_none()
            && self.selection.is_none()
            && self.description.is_keep()
            && self.headers.is_keep()
            && self.policy.is_keep()
    }

    /// 422 for events that the dialect has no names for: they could not be sent.
    pub(super) fn check_dialect(&self, dialect: Dialect) -> Result<(), ApiError> {
        let has_names = |selection| hr_on::event_names(selection).is_some();
        match (dialect, &self.selection) {
            (Dialect::HrOn, Some(selection)) if !has_names(selection) => Err(refused(
                "events",
                fault::<()>("must be types that HR-ON has names for, one by one, of any source")
                    .err()
                    .unwrap_or_default(),
            )),
            (Dialect::HrOn | Dialect::Stackone, Some(_) | None) => Ok(()),
        }
    }

    /// The endpoint after the change; `None` when it stays as it is, and needs no sealing.
    pub(super) fn endpoint(&self, current: &Endpoint) -> Result<Option<Endpoint>, ApiError> {
        if self.url.is_none() && self.headers.is_keep() {
            return Ok(None);
        }
        let headers = changed(&current.headers, &self.headers);
        let endpoint = Endpoint {
            url: self.url.as_ref().unwrap_or(&current.url).clone(),
            headers: headers.map_err(|faults| refused("headers", faults))?,
            token: current.token.clone(),
        };
        Ok(Some(endpoint).filter(|endpoint| endpoint != current))
    }

    /// All else after the change; the endpoint that it seals is the old one.
    pub(super) fn definition(
        &self,
        current: &WebhookDefinition,
    ) -> Result<WebhookDefinition, ApiError> {
        let policy = match &self.policy {
            Change::Keep => current.policy.clone(),
            Change::Clear => Policy::default(),
            Change::Set(members) => {
                policy_with(&current.policy, members).map_err(|faults| refused("policy", faults))?
            }
        };
        Ok(WebhookDefinition {
            selection: self
                .selection
                .as_ref()
                .unwrap_or(&current.selection)
                .clone(),
            description: self.description.apply(current.description.as_ref()),
            policy,
            ..current.clone()
        })
    }
}

fn url(value: Value) -> Parsed<EndpointUrl> {
    let text = prose(EndpointUrl::BYTES_MAX)(value)?;
    EndpointUrl::parse(&text).or_else(|error| fault(error.to_string()))
}

fn events(value: Value, connectors: &Connectors) -> Parsed<Selection> {
    let Value::Array(elements) = value else {
        return fault("must be an array");
    };
    let (mut selectors, mut faults) = (Vec::new(), Vec::new());
    for (index, element) in elements.into_iter().enumerate() {
        let mut refuse = |pointer, detail| faults.push(FieldError { pointer, detail });
        match serde_json::from_value::<Selector>(element) {
            Ok(selector) => {
                for (at, provider) in selector.providers.iter().enumerate() {
                    if connectors.get(provider).is_none() {
                        let detail = format!("there is no connector {provider:?}");
                        refuse(format!("/{index}/providers/{at}"), detail);
                    }
                }
                selectors.push(selector);
            }
            Err(error) => refuse(format!("/{index}"), error.to_string()),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Selection::new(selectors).or_else(|invalid| fault_at(invalid.pointer, invalid.detail))
}

/// `base` with the members that are given. One after the other, so that a fault has its place.
fn policy_with(base: &Policy, members: &Map<String, Value>) -> Parsed<Policy> {
    let (mut policy, mut faults) = (base.clone(), Vec::new());
    for (name, value) in members {
        let changed = serde_json::to_value(&policy).and_then(|mut whole| {
            if let Some(whole) = whole.as_object_mut() {
                whole.insert(name.clone(), value.clone());
            }
            serde_json::from_value(whole)
        });
        match changed {
            Ok(changed) => policy = changed,
            Err(error) => faults.push(FieldError {
                pointer: pointer_to(name),
                detail: error.to_string(),
            }),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    match policy.validate() {
        Ok(()) => Ok(policy),
        Err(invalid) => fault_at(pointer_to(invalid.field), invalid.detail),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::domain::policy::Ordering;
    use shared::domain::webhook::{Dialect, Status};
    use shared::ids::SecretId;

    use super::*;
    use crate::api::openapi::request;

    #[test]
    fn requests_are_what_is_documented() {
        let connectors = Connectors::embedded().unwrap();
        let policy = json!({"policy": {"max_in_flight": 8}});
        request::check::<CreateWebhook>(&policy, |fields| {
            NewWebhook::parse(fields, &connectors).map(drop)
        });
        request::check::<UpdateWebhook>(&policy, |fields| {
            WebhookPatch::parse(fields, &connectors)?;
            Ok(())
        });
        let ordering = json!({"ordering": "strict"});
        request::check::<terms::PolicyChange>(&ordering, |fields| {
            let policy = policy_with(&Policy::default(), &fields.into_members());
            policy.map(drop).map_err(|faults| refused("policy", faults))
        });
    }

    fn pointers<T: std::fmt::Debug>(result: Result<T, ApiError>) -> Vec<String> {
        match result {
            Err(ApiError::Refused(problem)) => problem
                .errors
                .into_iter()
                .map(|error| error.pointer)
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    fn create(body: Value) -> Result<NewWebhook, ApiError> {
        let connectors = Connectors::embedded().unwrap();
        NewWebhook::parse(Fields::new(object(body).unwrap()), &connectors)
    }

    fn patch(body: Value) -> Result<WebhookPatch, ApiError> {
        let connectors = Connectors::embedded().unwrap();
        WebhookPatch::parse(Fields::new(object(body).unwrap()), &connectors)
    }

    fn current() -> (WebhookDefinition, Endpoint) {
        let new = create(json!({
            "url": "https://example.com/a?token=1",
            "events": ["*"],
            "description": "old",
            "headers": {"x-a": "1"},
            "policy": {"max_in_flight": 8},
            "verification_required": false,
        }))
        .unwrap();
        let definition = WebhookDefinition {
            dialect: Dialect::Stackone,
            sealed_endpoint: vec![1],
            selection: new.selection,
            description: new.description,
            verification_required: false,
            verified_at: None,
            policy: new.policy,
            status: Status::Enabled,
            status_reason: None,
            active_secret: SecretId::from_bytes([1; 16]),
            previous_secret: None,
        };
        (definition, new.endpoint)
    }

    #[test]
    fn faults_of_a_new_webhook_are_told_with_their_places() {
        let cases = [
            (json!({}), vec!["/url", "/events"]),
            (
                json!({"url": "ftp://x", "events": "*"}),
                vec!["/url", "/events"],
            ),
            (json!({"url": 1, "events": []}), vec!["/url", "/events"]),
            (
                json!({"url": "https://x", "events": ["hris_employees.*", "x.y", "dogs.*"]}),
                vec!["/events/1"],
            ),
            (
                json!({"url": "https://x", "events": ["*", "dogs.*"]}),
                vec!["/events/1"],
            ),
            (
                json!({"url": "https://x", "events": [{"event": "*", "providers": ["bamboohr", "x"]}]}),
                vec!["/events/0/providers/1"],
            ),
            (
                json!({"url": "https://x", "events": ["*"], "headers": {"Host": "x"}}),
                vec!["/headers/Host"],
            ),
            (
                json!({"url": "https://x", "events": ["*"], "policy": {"retries": 1, "timeout_ms": "1"}}),
                vec!["/policy/retries", "/policy/timeout_ms"],
            ),
            (
                json!({"url": "https://x", "events": ["*"], "policy": {"max_in_flight": 0}}),
                vec!["/policy/max_in_flight"],
            ),
            (
                json!({"url": "https://x", "events": ["*"], "policy": {
                    "rate_limit_per_second": "5",
                    "deactivate_after_consecutive_failures": -1,
                }}),
                vec![
                    "/policy/deactivate_after_consecutive_failures",
                    "/policy/rate_limit_per_second",
                ],
            ),
            (
                json!({"url": "https://x", "events": [{"event": "*", "providers": ["bamboohr", "bamboohr"]}]}),
                vec!["/events/0/providers/1"],
            ),
            (
                json!({"url": "https://x", "events": ["*"], "verification_required": 1, "status": "enabled"}),
                vec!["/verification_required", "/status"],
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(pointers(create(body.clone())), expected, "{body}");
        }
    }

    #[test]
    fn a_policy_may_be_sent_back_as_it_was_read_and_its_limits_set_and_cleared() {
        let policy = serde_json::to_value(Policy::default()).unwrap();
        let created = create(json!({"url": "https://x", "events": ["*"], "policy": policy}));
        assert_eq!(created.unwrap().policy, Policy::default());

        let (mut definition, _) = current();
        let limits = json!({"policy": {
            "rate_limit_per_second": 5,
            "deactivate_after_consecutive_failures": 10,
            "deactivate_after_failing_ms": null,
        }});
        let limited = patch(limits).unwrap();
        definition.policy = limited.definition(&definition).unwrap().policy;
        let other = patch(json!({"policy": {"ordering": "strict"}})).unwrap();
        let after = other.definition(&definition).unwrap().policy;
        assert_eq!(after.rate_limit_per_second, Some(5));
        assert_eq!(after.deactivate_after_consecutive_failures, Some(10));
        assert_eq!(after.deactivate_after_failing_ms, None);
        let cleared = patch(json!({"policy": {"rate_limit_per_second": null}})).unwrap();
        let after = cleared.definition(&definition).unwrap().policy;
        assert_eq!(after.rate_limit_per_second, None);
    }

    #[test]
    fn nothing_of_a_request_prints_what_its_headers_say() {
        let headers = json!({"authorization": "hunter2"});
        let new = create(json!({"url": "https://x", "events": ["*"], "headers": headers}));
        let patch = patch(json!({ "headers": headers }));
        let printed = format!("{:?} {:?}", new.unwrap(), patch.unwrap());
        assert!(printed.contains("authorization"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let (definition, endpoint) = current();
        let patch = patch(json!({
            "events": ["hris_employees.*"],
            "description": null,
            "headers": {"x-b": "2"},
            "policy": {"rate_limit_per_second": null, "ordering": "strict"},
        }))
        .unwrap();
        let changed = patch.endpoint(&endpoint).unwrap().unwrap();
        assert_eq!(changed.url, endpoint.url);
        assert_eq!(changed.headers.len(), 2);
        let after = patch.definition(&definition).unwrap();
        assert_eq!((after.sealed_endpoint, after.description), (vec![1], None));
        assert_eq!(after.policy.ordering, Ordering::Strict);
        assert_eq!(after.policy.rate_limit_per_second, None);
        assert_eq!(after.policy.max_in_flight, 8);
        assert_ne!(after.selection, definition.selection);
        assert_eq!(after.active_secret, definition.active_secret);
    }

    #[test]
    fn an_untouched_endpoint_is_not_sealed_again() {
        let (definition, endpoint) = current();
        let untouched = patch(json!({"policy": null})).unwrap();
        assert_eq!(untouched.endpoint(&endpoint).unwrap(), None);
        let as_it_is = patch(json!({
            "url": "https://example.com/a?token=1",
            "headers": {"X-A": "1"},
        }));
        assert_eq!(as_it_is.unwrap().endpoint(&endpoint).unwrap(), None);
        let after = untouched.definition(&definition).unwrap();
        assert_eq!(after.policy, Policy::default());
        assert!(patch(json!({})).unwrap().is_keep() && !untouched.is_keep());
    }

    #[test]
    fn faults_of_a_patch_are_told_with_their_places() {
        let (definition, endpoint) = current();
        for (body, expected) in [
            (
                json!({"url": null, "events": null}),
                vec!["/url", "/events"],
            ),
            (
                json!({"verification_required": false}),
                vec!["/verification_required"],
            ),
            (json!({"signing_secrets": []}), vec!["/signing_secrets"]),
        ] {
            assert_eq!(pointers(patch(body)), expected);
        }
        let merged =
            patch(json!({"policy": {"timeout_ms": 1}, "headers": {"x-c": "***"}})).unwrap();
        assert_eq!(
            pointers(merged.definition(&definition)),
            ["/policy/timeout_ms"]
        );
        assert_eq!(pointers(merged.endpoint(&endpoint)), ["/headers/x-c"]);
    }
}
