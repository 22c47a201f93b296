//! `GET /v1/webhooks/{id}/overview`: what became of a webhook's deliveries within a range of the
//! last 30 days, by bucket and by type, and how its account stands.

use actix_web::web::{Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};
use shared::domain::catalog;
use shared::domain::state::totals::{HOUR_MS, HOURS_KEPT_MS};
use shared::ids::EventTypeHash;
use shared::time::Timestamp;
use utoipa::{IntoParams, ToSchema};

use crate::api::auth::Principal;
use crate::api::error::ApiError;
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::time_range::{TimeRange, invalid};
use crate::api::{find, owner, webhook_id};
use crate::core::overview::{Grain, Overview, Span, Sums};
use crate::owner::{Answer, Question};

/// The range where none is given.
const RANGE_MS: i64 = 24 * HOUR_MS;

/// Texts, so that a malformed time is told in our words.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Parameters {
    /// The first instant, within the last 30 days; 24 hours before `to` where it is left out.
    #[param(value_type = Option<terms::Time>, nullable = false)]
    from: Option<String>,
    /// The first instant after the range; now where it is left out.
    #[param(value_type = Option<terms::Time>, nullable = false)]
    to: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Overview)]
struct OverviewResource {
    #[serde(flatten)]
    #[schema(value_type = terms::Sums)]
    sums: Sums,
    pending: u64,
    consecutive_failures: u32,
    ledger: LedgerResource,
    by_event: Vec<EventResource>,
    /// The length of each bucket: `minute` or `hour`.
    #[schema(value_type = terms::Grain)]
    bucket: Grain,
    buckets: Vec<BucketResource>,
}

/// Since the webhook's creation.
#[derive(Serialize, ToSchema)]
#[schema(as = Ledger)]
struct LedgerResource {
    accepted: u64,
    delivered: u64,
    pending: u64,
    exhausted: u64,
    skipped: u64,
    /// What was accepted and is in none of the others.
    gap: i64,
    /// Whether `pending` was counted from the events themselves, and not as what the others leave.
    recounted: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EventTypeTotals)]
struct EventResource {
    /// Null for what ended together with others, of whatever type.
    #[schema(required)]
    event: Option<&'static str>,
    #[serde(flatten)]
    #[schema(value_type = terms::Sums)]
    sums: Sums,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Bucket)]
struct BucketResource {
    #[schema(value_type = terms::Time)]
    at: Timestamp,
    #[serde(flatten)]
    #[schema(value_type = terms::Sums)]
    sums: Sums,
}

#[utoipa::path(
    get,
    path = "/webhooks/{id}/overview",
    operation_id = "get_overview",
    summary = "Get totals of a webhook's deliveries",
    tag = "Deliveries",
    params(("id" = terms::WebhookId, Path), Parameters),
    responses(
        (status = 200, description = "The totals", body = OverviewResource),
        (status = 400),
        (status = 422),
    ),
)]
pub(super) async fn get(
    caller: Principal,
    app: OpenApp,
    path: Path<String>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let webhook = webhook_id(&path)?;
    find(&app, |state| {
        state.webhook_of(caller.project, webhook).map(|_| ())
    })
    .await?;
    let span = span(request.query_string(), app.clock.now())?;
    let question = Question::Overview { webhook, span };
    let Answer::Overview(overview) = owner::ask(&app, caller.project, question).await? else {
        return Err(owner::answered_otherwise());
    };
    Ok(HttpResponse::Ok().json(OverviewResource::of(&overview, span)))
}

fn span(query: &str, now: Timestamp) -> Result<Span, ApiError> {
    let asked = Query::<Parameters>::from_query(query)
        .map_err(|_| ApiError::bad_request("from and to may be given once each"))?;
    let range = TimeRange::parse(asked.from.as_deref(), asked.to.as_deref())?;
    let to = match (range.from, range.to) {
        (_, Some(to)) => to,
        // A clock of the caller's that is ahead.
        (Some(from), None) => now.max(from.plus_millis(1)),
        (None, None) => now.plus_millis(1),
    };
    let from = range.from.unwrap_or_else(|| to.plus_millis(-RANGE_MS));
    // An hour more, which is kept: a range of 30 days takes time to get here.
    if now.millis_since(from) > HOURS_KEPT_MS + HOUR_MS {
        return Err(invalid("/from", "totals are kept for 30 days"));
    }
    if to.millis_since(from) > HOURS_KEPT_MS + HOUR_MS {
        return Err(invalid("/to", "a range is at most 30 days"));
    }
    Ok(Span::new(from, to, now))
}

impl OverviewResource {
    fn of(overview: &Overview, span: Span) -> Self {
        let account = overview.account;
        let mut sums = Sums::default();
        // Types that this release has no name for stand with those that have none.
        let mut unnamed = Sums::default();
        let mut by_event = Vec::new();
        for (hash, of_type) in &overview.by_type {
            sums.add(*of_type);
            let named = hash.and_then(|hash| catalog::by_hash(EventTypeHash(hash)));
            match named {
                Some(event_type) => by_event.push(EventResource {
                    event: Some(event_type.as_str()),
                    sums: *of_type,
                }),
                None => unnamed.add(*of_type),
            }
        }
        by_event.sort_by_key(|of_type| of_type.event);
        if unnamed != Sums::default() {
            by_event.push(EventResource {
                event: None,
                sums: unnamed,
            });
        }
        let mut told = overview.buckets.iter().peekable();
        let buckets = span.buckets().map(|at| BucketResource {
            at,
            sums: told
                .next_if(|(told, _)| *told == at)
                .map_or_else(Sums::default, |(_, sums)| *sums),
        });
        Self {
            sums,
            pending: account.pending,
            consecutive_failures: overview.consecutive_failures,
            ledger: LedgerResource {
                accepted: account.accepted,
                delivered: account.delivered,
                pending: account.pending,
                exhausted: account.exhausted,
                skipped: account.skipped,
                gap: account.gap(),
                recounted: account.is_recounted,
            },
            bucket: span.grain,
            buckets: buckets.collect(),
            by_event,
        }
    }
}
