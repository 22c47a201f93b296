//! `POST /v1/events`: first-party events.
//!
//! Invariant: an id is answered only for an event that is known to be stored. An item without one
//! is invalid, or to be sent again under its idempotency key.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use shared::domain::account::Account;
use shared::ids::{AccountId, EventId, ProjectId};
use shared::limits::EVENTS_REQUEST_BYTES_MAX;
use shared::problem::{FieldError, Problem};

use super::{body, credentials};
use crate::app::{App, Store};
use crate::core::first_party::{self, ItemError, ItemErrorCode, Items};
use crate::core::render::UnrenderedEvent;
use crate::error::{self, IngestError};
use crate::metrics::{IngestMetrics, Outcome};
use crate::publish::{PublishError, Stored, publish};

/// An item's answer, in the order in which the items were sent.
#[derive(Serialize)]
#[serde(untagged)]
enum ItemAnswer {
    Stored { id: EventId },
    Failed { error: ItemFailure },
}

#[derive(Serialize)]
struct ItemFailure {
    /// `invalid`, `too_large` or `unavailable`.
    code: &'static str,
    /// JSON pointer into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    detail: Cow<'static, str>,
}

#[derive(Serialize)]
struct Accepted {
    items: Vec<ItemAnswer>,
}

/// A problem that says of each item what became of it.
#[derive(Serialize)]
struct Refused {
    #[serde(flatten)]
    problem: Problem,
    items: Vec<ItemAnswer>,
}

pub(super) async fn receive(
    app: web::Data<App>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, IngestError> {
    let answer = answer(&app, &request, payload).await;
    let outcome = match &answer {
        Ok((_, outcome)) => *outcome,
        Err(error) => error.outcome(),
    };
    app.metrics.first_party_requests.count(outcome);
    answer.map(|(response, _)| response)
}

async fn answer(
    app: &App,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(HttpResponse, Outcome), IngestError> {
    // The body is read for those alone who have a key.
    let project = credentials::project(app.store()?, request).await?;
    let limit = EVENTS_REQUEST_BYTES_MAX;
    let reservation = app.bodies.reservation(project);
    let (body, _reservation) = body::read(request, payload, limit, reservation).await?;
    // A body may take longer to arrive than a revocation to hold.
    let store = app.store()?;
    let project = credentials::project(store, request).await?;
    let items = first_party::parse(&body)?;
    let accounts = accounts(store, project, &items).await?;
    let common = first_party::Request {
        project,
        accounts: &accounts,
        now: app.clock.now(),
        max_payload: store.nats.max_payload(),
    };
    let events = first_party::events(items, &common, &mut shared::random::for_id);
    let valid: Vec<&UnrenderedEvent<'_>> = events.iter().flatten().collect();
    let outcomes = publish(app, store, &valid).await;
    Ok(summary(&app.metrics, &events, &outcomes))
}

/// The accounts that items name, as far as they are the project's (rule 4: one of them may have
/// been made a moment ago).
async fn accounts(
    store: &Store,
    project: ProjectId,
    items: &Items<'_>,
) -> Result<HashMap<AccountId, Arc<Account>>, IngestError> {
    let named = items.items.iter().flatten().filter_map(|item| item.account);
    let named: HashSet<AccountId> = named.collect();
    let look = || {
        store.registry.read(|registry| {
            let found = named
                .iter()
                .filter_map(|id| registry.account_of(project, *id));
            found.map(|account| (account.id, account.clone())).collect()
        })
    };
    let found: HashMap<_, _> = look();
    if found.len() == named.len() {
        return Ok(found);
    }
    store.catch_up().await?;
    Ok(look())
}

/// 202 when anything is stored, 503 when nothing is that could be, 422 when nothing could.
fn summary(
    metrics: &IngestMetrics,
    events: &[Result<UnrenderedEvent<'_>, ItemError>],
    outcomes: &[Result<Stored, PublishError>],
) -> (HttpResponse, Outcome) {
    let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let mut outcomes = outcomes.iter();
    let mut items = Vec::with_capacity(events.len());
    let mut errors = Vec::new();
    let mut unavailable = 0_usize;
    for event in events {
        let outcome = match event {
            Ok(event) => outcomes.next().map(|outcome| (event, outcome)),
            Err(error) => {
                errors.push(FieldError {
                    pointer: error.pointer.clone(),
                    detail: error.detail.clone().into_owned(),
                });
                count_invalid(metrics, error.code);
                items.push(invalid(error));
                continue;
            }
        };
        match outcome {
            Some((event, Ok(how))) => {
                match how {
                    Stored::New => metrics.items_stored.increment(1),
                    Stored::Before => metrics.items_repeated.increment(1),
                }
                items.push(ItemAnswer::Stored { id: event.id });
            }
            Some((_, Err(PublishError::TooLarge))) => {
                metrics.items_too_large.increment(1);
                items.push(failed("too_large", "is more than the server takes"));
            }
            Some((_, Err(PublishError::Unavailable))) | None => {
                unavailable += 1;
                metrics.items_unavailable.increment(1);
                items.push(failed("unavailable", UNAVAILABLE));
            }
        }
    }
    if stored > 0 {
        let outcome = match items.len() == stored {
            true => Outcome::Accepted,
            false => Outcome::Partial,
        };
        return (HttpResponse::Accepted().json(Accepted { items }), outcome);
    }
    let (problem, outcome) = match unavailable {
        0 => (Problem::invalid(errors), Outcome::Invalid),
        _ => (Problem::unavailable(UNAVAILABLE), Outcome::Unavailable),
    };
    let response = error::response(&problem).json(Refused { problem, items });
    (response, outcome)
}

const UNAVAILABLE: &str = "not known to be stored; send it again with the same idempotency key";

fn count_invalid(metrics: &IngestMetrics, code: ItemErrorCode) {
    match code {
        ItemErrorCode::Invalid => metrics.items_invalid.increment(1),
        ItemErrorCode::TooLarge => metrics.items_too_large.increment(1),
    }
}

fn invalid(error: &ItemError) -> ItemAnswer {
    ItemAnswer::Failed {
        error: ItemFailure {
            code: error.code.as_str(),
            pointer: Some(error.pointer.clone()),
            detail: error.detail.clone(),
        },
    }
}

fn failed(code: &'static str, detail: &'static str) -> ItemAnswer {
    ItemAnswer::Failed {
        error: ItemFailure {
            code,
            pointer: None,
            detail: detail.into(),
        },
    }
}
