//! Test events in StackOne's shape: `[{"event", "record_id"}]`, each answered for itself.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::web::Path;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::domain::account::Account;
use shared::domain::catalog;
use shared::domain::webhook::{Status, Webhook};
use shared::ids::AccountId;
use shared::limits::OUTSIDE_ID_BYTES_MAX;
use shared::problem::{FieldError, Problem};
use utoipa::{IntoParams, ToSchema};

use crate::api::auth::Principal;
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::webhooks::webhook;
use crate::api::{find, id, webhook_id};
use crate::app::App;
use crate::io::trial::{self, Trial};

const ACCOUNT_HEADER: &str = "x-account-id";
/// Tests of one call.
const TESTS_MAX: usize = 25;
/// Of them under way at the same time; the others wait.
const TESTS_AT_ONCE: usize = 5;

/// The header in documents.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive alone")]
struct AccountHeader {
    /// The account that the tests are of.
    #[param(rename = "x-account-id", value_type = terms::AccountId)]
    account: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Test {
    #[schema(example = "hris_employees.created")]
    event: String,
    #[schema(min_length = 1, max_length = 512, example = "42")]
    record_id: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TestResult)]
struct TestResource {
    event: String,
    record_id: String,
    status: u16,
    message: String,
}

/// Answers once every endpoint has.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/events",
    operation_id = "trigger_webhook",
    summary = "Send test events",
    tag = "Webhooks",
    params(("id" = terms::WebhookId, Path), AccountHeader),
    request_body = Vec<Test>,
    responses(
        (status = 207, description = "What became of each test", body = Vec<TestResource>),
        (status = 429),
    ),
)]
pub(super) async fn trigger(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let (project, id) = (caller.project, webhook_id(&path)?);
    webhook(&app, project, id).await?;
    let account = account_id(&request)?;
    let account = find(&app, |state| state.account_of(project, account).cloned()).await?;
    let tests = tests(body.elements(&caller, &app).await?)?;
    // It may have been verified or enabled a moment ago, through another replica.
    app.view.catch_up().await?;
    let webhook = webhook(&app, project, id).await?;
    let _turn = app.trials.tests(id, tests.len(), app.clock.now())?;
    let items: Vec<_> = stream::iter(tests)
        .map(|test| run(&app, &webhook, &account, test))
        .buffered(TESTS_AT_ONCE)
        .collect()
        .await;
    Ok(HttpResponse::build(StatusCode::MULTI_STATUS).json(items))
}

async fn run(app: &App, webhook: &Arc<Webhook>, account: &Account, test: Test) -> TestResource {
    let (status, message) = match webhook.definition.status {
        Status::Enabled => post(app, webhook, account, &test).await,
        Status::PendingVerification
        | Status::Disabled
        | Status::Deactivated
        | Status::Quarantined => (409, "the webhook is not enabled".to_owned()),
    };
    TestResource {
        event: test.event,
        record_id: test.record_id,
        status,
        message,
    }
}

async fn post(app: &App, webhook: &Webhook, account: &Account, test: &Test) -> (u16, String) {
    let Some(event_type) = catalog::resolve(&test.event) else {
        return (422, "there is no such event type".to_owned());
    };
    let now = app.clock.now();
    let record_id = &test.record_id;
    let event = trial::event(webhook.project, event_type, record_id, Some(account), now);
    match trial::post(&app.client, app.clock.as_ref(), webhook, &event).await {
        Trial::Taken => (200, "delivered".to_owned()),
        Trial::Refused(reason) => (502, reason),
        Trial::Nameless => (422, "the webhook's dialect has no such event".to_owned()),
    }
}

fn account_id(request: &HttpRequest) -> Result<AccountId, ApiError> {
    let header = request.headers().get(ACCOUNT_HEADER);
    let header = header.ok_or_else(|| ApiError::bad_request("x-account-id is required"))?;
    id(header.to_str().unwrap_or_default())
}

fn tests(elements: Vec<Value>) -> Result<Vec<Test>, ApiError> {
    if elements.is_empty() || elements.len() > TESTS_MAX {
        let detail = format!("must hold 1 to {TESTS_MAX} tests");
        return Err(ApiError::Refused(Problem::invalid_field("", detail)));
    }
    let (mut tests, mut errors) = (Vec::new(), Vec::new());
    for (index, element) in elements.into_iter().enumerate() {
        let mut refuse = |pointer, detail| errors.push(FieldError { pointer, detail });
        match serde_json::from_value::<Test>(element) {
            Ok(test) if (1..=OUTSIDE_ID_BYTES_MAX).contains(&test.record_id.len()) => {
                tests.push(test);
            }
            Ok(_) => refuse(
                format!("/{index}/record_id"),
                format!("must be 1 to {OUTSIDE_ID_BYTES_MAX} bytes"),
            ),
            Err(error) => refuse(format!("/{index}"), error.to_string()),
        }
    }
    if errors.is_empty() {
        Ok(tests)
    } else {
        Err(ApiError::Refused(Problem::invalid(errors)))
    }
}
