//! `GET /v1/webhooks/{id}/attempts`: what was sent to an endpoint and what it answered, newest
//! first, for as long as JOURNAL keeps it (14 days).
//!
//! A page costs a bounded number of reads. One whose filters match rarely may hold fewer items
//! than were asked for, even none, and still have a `next`.

use std::fmt;
use std::str::FromStr;

use actix_web::web::{Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;
use shared::domain::catalog;
use shared::domain::event::EventType;
use shared::domain::journal::{AttemptEntry, EntryPlace, JournalEntry, Links};
use shared::ids::{EventTypeHash, ProjectId, Sequence, WebhookId};
use shared::limits::OUTSIDE_ID_BYTES_MAX;
use shared::partition::event_type_hash;
use utoipa::IntoParams;

use super::attempt_resource::{AttemptResource, Outcome, Shower};
use crate::api::auth::Principal;
use crate::api::error::ApiError;
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::page::{List, Page, PageQuery, cursor};
use crate::api::time_range::{TimeRange, invalid};
use crate::api::{find, owner, webhook_id};
use crate::app::App;
use crate::io::attempt_log::{AttemptLog, Logged, Read};
use crate::owner::{Answer, Question};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Parameters {
    #[param(value_type = Option<Outcome>, nullable = false)]
    outcome: Option<String>,
    /// A type of the catalog, in either dialect's words.
    #[param(nullable = false, example = "hris_employees.created")]
    event_type: Option<String>,
    #[param(max_length = 512, nullable = false)]
    record_id: Option<String>,
    /// The first instant.
    #[param(value_type = Option<terms::Time>, nullable = false)]
    from: Option<String>,
    /// The first instant after the range.
    #[param(value_type = Option<terms::Time>, nullable = false)]
    to: Option<String>,
}

/// Which attempts are asked for.
struct Filter {
    webhook: WebhookId,
    outcome: Option<Outcome>,
    event_type: Option<EventTypeHash>,
    record_id: Option<String>,
    range: TimeRange,
}

/// The place of the entry that the next page begins with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(EntryPlace);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.pack, self.0.index)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pack, index) = text.split_once('.').ok_or(())?;
        Ok(Self(EntryPlace {
            pack: Sequence(pack.parse().map_err(drop)?),
            index: index.parse().map_err(drop)?,
        }))
    }
}

#[utoipa::path(
    get,
    path = "/webhooks/{id}/attempts",
    operation_id = "list_attempts",
    summary = "List attempts",
    tag = "Deliveries",
    params(("id" = terms::WebhookId, Path), PageQuery, Parameters),
    responses(
        (status = 200, description = "A page of attempts, newest first", body = List<AttemptResource>),
        (status = 422),
    ),
)]
pub(super) async fn list(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    page: Page<Place>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let webhook = webhook_id(&path)?;
    find(&app, |state| {
        state.webhook_of(caller.project, webhook).map(|_| ())
    })
    .await?;
    let filter = Filter::parse(webhook, request.query_string())?;
    let first = match page.after {
        Some(Place(place)) => Some(place),
        None => filter.link(newest(&app, caller.project, webhook).await?),
    };
    let list = read(&app, caller.project, &filter, first, page.limit).await?;
    Ok(HttpResponse::Ok().json(list))
}

async fn newest(app: &App, project: ProjectId, webhook: WebhookId) -> Result<Links, ApiError> {
    let question = Question::LastAttempt { webhook };
    let Answer::LastAttempt(last) = owner::ask(app, project, question).await? else {
        return Err(owner::answered_otherwise());
    };
    Ok(last.into())
}

async fn read(
    app: &App,
    project: ProjectId,
    filter: &Filter,
    first: Option<EntryPlace>,
    limit: usize,
) -> Result<List<AttemptResource>, ApiError> {
    let mut log = AttemptLog::new(&app.nats, app.nats.partitions.of(project));
    let mut shower = Shower::new(app, project);
    let mut items = Vec::new();
    let mut place = first;
    let next = loop {
        let Some(at) = place else {
            break None;
        };
        if items.len() >= limit || shower.has_read_enough() {
            break Some(at);
        }
        let logged = match log.read(at).await? {
            Read::Entry(logged) => logged,
            Read::Forgotten => break None,
            Read::Enough => break Some(at),
            Read::Foreign => return Err(foreign()),
        };
        let (entry, attempt) = filter.own(&logged)?;
        // Attempts of earlier packs began earlier still.
        if filter
            .range
            .from
            .is_some_and(|from| logged.pack().at < from)
        {
            break None;
        }
        place = logged.follow(filter.link(attempt.previous));
        if filter.takes(entry, attempt)
            && let Some(item) = shower.show(entry).await?
            && filter.takes_record(&item)
        {
            items.push(item);
        }
    };
    let next = next.map(|place| cursor(Place(place)));
    Ok(List { items, next })
}

fn foreign() -> ApiError {
    ApiError::bad_request("cursor must be the `next` of an answer to this call")
}

impl Filter {
    fn parse(webhook: WebhookId, query: &str) -> Result<Self, ApiError> {
        let asked = Query::<Parameters>::from_query(query)
            .map_err(|_| ApiError::bad_request("each parameter may be given once"))?;
        let outcome = asked.outcome.as_deref().map(|name| {
            Outcome::parse(name)
                .ok_or_else(|| invalid("/outcome", "must be delivered, failed or exhausted"))
        });
        let record_id = asked.record_id.clone();
        if record_id
            .as_ref()
            .is_some_and(|id| id.len() > OUTSIDE_ID_BYTES_MAX)
        {
            return Err(invalid("/record_id", "no record id is that long"));
        }
        let event_type = asked.event_type.as_deref().map(event_type).transpose()?;
        Ok(Self {
            webhook,
            outcome: outcome.transpose()?,
            event_type: event_type.as_ref().map(event_type_hash),
            record_id,
            range: TimeRange::parse(asked.from.as_deref(), asked.to.as_deref())?,
        })
    }

    /// What failed has links of its own; what was exhausted without a request has not.
    fn link(&self, links: Links) -> Option<EntryPlace> {
        match self.outcome {
            Some(Outcome::Failed) => links.failure,
            Some(Outcome::Delivered | Outcome::Exhausted) | None => links.entry,
        }
    }

    /// A cursor may name any entry, but shows none of another webhook.
    fn own<'a>(
        &self,
        logged: &'a Logged,
    ) -> Result<(&'a JournalEntry, &'a AttemptEntry), ApiError> {
        let entry = logged.entry().ok_or_else(foreign)?;
        let attempt = entry
            .attempt()
            .filter(|attempt| attempt.webhook == self.webhook);
        Ok((entry, attempt.ok_or_else(foreign)?))
    }

    fn takes(&self, entry: &JournalEntry, attempt: &AttemptEntry) -> bool {
        let outcome = Outcome::of(entry);
        outcome.is_some()
            && (self.outcome.is_none() || self.outcome == outcome)
            && self
                .event_type
                .is_none_or(|wanted| wanted == attempt.event_type)
            && self.range.contains(attempt.started_at)
    }

    fn takes_record(&self, item: &AttemptResource) -> bool {
        self.record_id.is_none() || self.record_id == item.record_id
    }
}

/// The type that a query names, in either dialect's terms.
pub(super) fn event_type(name: &str) -> Result<EventType, ApiError> {
    catalog::resolve(name).ok_or_else(|| invalid("/event_type", "is not in the catalog"))
}
