//! `GET /v1/events`: the project's events, newest first, as long as EVENTS keeps them (7 days).
//!
//! A page costs a bounded number of reads; one whose filter matches rarely may hold fewer items
//! than were asked for, and still have a `next`.

use std::fmt;
use std::str::FromStr;

use actix_web::web::Query;
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use shared::domain::event::{Event, Source};
use shared::ids::{AccountId, EventId, ProjectId, Sequence};
use shared::nats::bounds;
use shared::nats::read::first_since;
use shared::subjects;
use shared::time::Timestamp;
use utoipa::{IntoParams, ToSchema};

use super::attempts::event_type;
use crate::api::auth::Principal;
use crate::api::error::ApiError;
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::page::{List, Page, PageQuery, cursor};
use crate::api::time_range::{TimeRange, invalid};
use crate::app::App;
use crate::io::event_log::EventLog;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// A type of the catalog, in either dialect's words.
    #[param(nullable = false, example = "hris_employees.created")]
    event_type: Option<String>,
    /// An account's id.
    #[param(value_type = Option<terms::AccountId>, nullable = false)]
    account: Option<String>,
    /// The first instant.
    #[param(value_type = Option<terms::Time>, nullable = false)]
    from: Option<String>,
    /// The first instant after the range.
    #[param(value_type = Option<terms::Time>, nullable = false)]
    to: Option<String>,
}

/// The next page begins at or below this sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Below(Sequence);

impl fmt::Display for Below {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Below {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse()
            .map(|number| Self(Sequence(number)))
            .map_err(drop)
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventResource {
    #[schema(value_type = terms::EventId)]
    id: EventId,
    event: String,
    #[schema(value_type = terms::Source)]
    source: Source,
    #[schema(value_type = Option<terms::AccountId>, required)]
    account_id: Option<AccountId>,
    #[schema(required)]
    provider: Option<String>,
    record_id: String,
    #[schema(value_type = terms::Time)]
    occurred_at: Timestamp,
    /// `sent_at` of the body; helps to find the event by its id.
    #[schema(value_type = terms::Time)]
    published_at: Timestamp,
}

impl EventResource {
    pub(super) fn of(event: &Event) -> Self {
        Self {
            id: event.id,
            event: event.event_type.to_string(),
            source: event.source,
            account_id: event.account,
            provider: event.provider.as_deref().map(str::to_owned),
            record_id: event.record_id.to_string(),
            occurred_at: event.occurred_at,
            published_at: event.published_at,
        }
    }
}

#[utoipa::path(
    get,
    path = "/events",
    operation_id = "list_events",
    summary = "List events",
    tag = "Events",
    params(PageQuery, Parameters),
    responses(
        (status = 200, description = "A page of events, newest first", body = List<EventResource>),
        (status = 422),
    ),
)]
pub(super) async fn list(
    caller: Principal,
    app: OpenApp,
    page: Page<Below>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let asked = Query::<Parameters>::from_query(request.query_string())
        .map_err(|_| ApiError::bad_request("each parameter may be given once"))?;
    let range = TimeRange::parse(asked.from.as_deref(), asked.to.as_deref())?;
    let account: Option<AccountId> = match asked.account.as_deref().map(str::parse) {
        None => None,
        Some(Ok(account)) => Some(account),
        Some(Err(_)) => return Err(invalid("/account", "must be the id of an account")),
    };
    let wanted = asked.event_type.as_deref().map(event_type).transpose()?;
    let partition = app.nats.partitions.of(caller.project);
    let filter = match &wanted {
        Some(event_type) => subjects::event(partition, caller.project, event_type),
        None => subjects::events_of_project(partition, caller.project),
    };
    let (floor, through) = sequences(&app, &filter, range).await?;
    let through = page
        .after
        .map_or(through, |Below(below)| below.min(through));
    let mut log = EventLog::new(&app.nats, filter, (floor, through));
    let list = read(&mut log, caller.project, account, page.limit).await?;
    Ok(HttpResponse::Ok().json(list))
}

/// After the first and through the second lies what was stored in the range.
pub(super) async fn sequences(
    app: &App,
    filter: &str,
    range: TimeRange,
) -> Result<(Sequence, Sequence), ApiError> {
    let events = &app.nats.events;
    let (first, last) = bounds(events).await?;
    let floor = match range.from {
        None => first.previous(),
        Some(from) => first_since(events, filter, from)
            .await?
            .map_or(last, Sequence::previous),
    };
    let through = match range.to {
        None => last,
        Some(to) => first_since(events, filter, to)
            .await?
            .map_or(last, Sequence::previous),
    };
    Ok((floor, through))
}

async fn read(
    log: &mut EventLog<'_>,
    project: ProjectId,
    account: Option<AccountId>,
    limit: usize,
) -> Result<List<EventResource>, ApiError> {
    let mut items = Vec::new();
    while let Some(window) = log.next().await? {
        for (sequence, event) in window {
            // The subject says so too.
            let is_own = event.project == project;
            if !is_own || (account.is_some() && event.account != account) {
                continue;
            }
            if items.len() == limit {
                let next = Some(cursor(Below(sequence)));
                return Ok(List { items, next });
            }
            items.push(EventResource::of(&event));
        }
    }
    let next = log.rest().map(|rest| cursor(Below(rest)));
    Ok(List { items, next })
}
