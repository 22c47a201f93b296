//! `ANY /v1/native/{account_id}/{ingest_key}`: callbacks of providers.
//!
//! Invariant: success is answered only when every event that the callback stands for is known to
//! be stored. Otherwise the provider is asked to send it again, and gets the same ids for it.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use shared::domain::account::Account;
use shared::limits::CALLBACK_BODY_BYTES_MAX;

use super::examination::{Arrived, connector, examine};
use super::{body, credentials};
use crate::app::{App, Store};
use crate::core::callback::{Judgement, MapRefusal, Verdict, VerifyRefusal};
use crate::core::render::UnrenderedEvent;
use crate::error::IngestError;
use crate::metrics::Outcome;
use crate::publish::{PublishError, publish};

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
    app.metrics.callbacks.count(outcome);
    answer.map(|(response, _)| response)
}

async fn answer(
    app: &web::Data<App>,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(HttpResponse, Outcome), IngestError> {
    // The body is read for those alone who know the key.
    let account = credentials::account(app.store()?, request).await?;
    let success_status = connector(app, &account)?.success_status();
    let limit = CALLBACK_BODY_BYTES_MAX;
    let reservation = app.bodies.reservation(account.project);
    let (body, mut reservation) = body::read(request, payload, limit, reservation).await?;
    // A body may take longer to arrive than a revocation to hold.
    let store = app.store()?;
    let account = credentials::account(store, request).await?;
    // Signatures are checked over the decompressed bytes: no provider that we know compresses
    // callbacks, and what a proxy compresses on the way was signed before.
    let arrived = Arc::new(Arrived {
        app: app.clone(),
        method: request.method().as_str().to_owned(),
        query: request.query_string().to_owned(),
        headers: headers(request),
        body,
        at: app.clock.now(),
        max_payload: store.nats.max_payload(),
    });
    let judgement = verified(store, &account, &arrived).await?;
    if arrived.is_large() {
        // It may have waited for its turn.
        credentials::account(app.store()?, request).await?;
    }
    report_unknown_events(app, &account, &judgement.unknown_events);
    let outcome = match judgement.verdict {
        Verdict::Accept(events) => {
            // Events have a copy of the body, for which its place is taken.
            drop(arrived);
            reservation.grow(events.iter().map(data_bytes).sum())?;
            store_all(app, store, &events).await?;
            Outcome::Accepted
        }
        Verdict::Unmapped => Outcome::Unmapped,
        Verdict::Refuse(refusal) => return Err(refused(&account, refusal)),
    };
    let success = StatusCode::from_u16(success_status).unwrap_or(StatusCode::OK);
    Ok((HttpResponse::new(success), outcome))
}

fn headers(request: &HttpRequest) -> Vec<(String, String)> {
    // actix keeps names in lower case.
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = request.headers().iter();
    headers
        .map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())))
        .collect()
}

/// What the callback comes to, verified with the account's secret as it is now.
async fn verified(
    store: &Store,
    account: &Arc<Account>,
    arrived: &Arc<Arrived>,
) -> Result<Judgement, IngestError> {
    let refusal = match examine(arrived, account).await? {
        Ok(judgement) => return Ok(judgement),
        Err(refusal) => refusal,
    };
    // Providers give the secret when the subscription is made, and the first callback may be here
    // before the secret is; a 401 would lose it for good.
    store.catch_up().await?;
    let latest = store
        .registry
        .read(|registry| registry.account(account.id).cloned());
    let changed = latest.filter(|latest| latest.sequence != account.sequence);
    let refusal = match changed {
        None => refusal,
        Some(latest) => match examine(arrived, &latest).await? {
            Ok(judgement) => return Ok(judgement),
            Err(refusal) => refusal,
        },
    };
    tracing::warn!(
        project.id = %account.project,
        account.id = %account.id,
        provider = account.definition.provider,
        error = %refusal,
        "callback is not verified"
    );
    Err(match refusal {
        VerifyRefusal::BadSignature(_) => IngestError::BadSignature,
        // Not the sender's fault, and soon repaired: it shall come again.
        VerifyRefusal::Unverifiable(_) => IngestError::Unverifiable,
    })
}

fn report_unknown_events(app: &App, account: &Account, names: &[String]) {
    for name in names {
        app.metrics.unknown_event_types.increment(1);
        tracing::error!(
            provider = account.definition.provider,
            event_type = name,
            "the connector emits an event type that the catalog does not have"
        );
    }
}

/// What the connector has made of the body beside it.
fn data_bytes(event: &UnrenderedEvent<'_>) -> usize {
    event.record_id.len() + event.event_data.as_ref().map_or(0, |data| data.get().len())
}

async fn store_all(
    app: &App,
    store: &Store,
    events: &[UnrenderedEvent<'_>],
) -> Result<(), IngestError> {
    let events: Vec<_> = events.iter().collect();
    let outcomes = publish(app, store, &events).await;
    for outcome in outcomes {
        match outcome {
            Ok(_) => {}
            Err(PublishError::TooLarge) => {
                return Err(IngestError::TooLarge(
                    MapRefusal::TooLarge.to_string().into(),
                ));
            }
            Err(PublishError::Unavailable) => {
                return Err(IngestError::Unavailable("not every event could be stored"));
            }
        }
    }
    Ok(())
}

/// What cannot be mapped although it is the provider's gets 422. Success would lose it without a
/// trace. A 5xx would have it sent again, unchanged, for days, and some providers switch a
/// subscription off that fails for long. After a 4xx some do not send it again (BambooHR), but it
/// stands in the provider's log, in ours and in the metric, and someone can act on it.
fn refused(account: &Account, refusal: MapRefusal) -> IngestError {
    let detail = refusal.to_string();
    let error = match refusal {
        MapRefusal::Malformed(_) => IngestError::Unmappable(detail),
        MapRefusal::TooLarge => IngestError::TooLarge(detail.into()),
        MapRefusal::TooMuch(_) => IngestError::TooMuch(detail),
    };
    tracing::error!(
        project.id = %account.project,
        account.id = %account.id,
        provider = account.definition.provider,
        %error,
        "a verified callback is refused"
    );
    error
}
