//! `ANY /v1/native/{account_id}/{ingest_key}`: callbacks of providers.
//!
//! Invariant: success is answered only when every event that the callback stands for is known to
//! be stored. Otherwise the provider is asked to send it again, and gets the same ids for it.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use shared::connector::{Callback, Connector};
use shared::domain::account::Account;
use shared::limits::CALLBACK_BODY_BYTES_MAX;
use shared::time::Timestamp;

use super::{body, credentials};
use crate::app::{App, Store};
use crate::core::callback::{self, MapRefusal, Verdict, VerifyRefusal};
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
    app: &App,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<(HttpResponse, Outcome), IngestError> {
    let store = app.store()?;
    // The body is read for those alone who know the key.
    let account = credentials::account(store, request).await?;
    let connector = connector(app, &account)?;
    let limit = CALLBACK_BODY_BYTES_MAX;
    let (body, mut reservation) = body::read(request, payload, limit, &app.bodies).await?;
    let headers = headers(request);
    // Signatures are checked over the decompressed bytes: no provider that we know compresses
    // callbacks, and what a proxy compresses on the way was signed before.
    let callback = Callback {
        method: request.method().as_str(),
        query: request.query_string(),
        headers: &headers,
        body: &body,
    };
    let now = app.clock.now();
    let account = verified(store, account, connector, &callback, now).await?;
    let judgement = callback::judge(
        &account,
        connector,
        &callback,
        now,
        store.nats.max_payload(),
        &mut shared::random::bytes,
    );
    report_unknown_events(app, &account, &judgement.unknown_events);
    let outcome = match judgement.verdict {
        Verdict::Accept(events) => {
            reservation.grow(events.iter().map(data_bytes).sum())?;
            store_all(app, store, &events).await?;
            Outcome::Accepted
        }
        Verdict::Unmapped => Outcome::Unmapped,
        Verdict::Refuse(refusal) => return Err(refused(&account, refusal)),
    };
    let success = StatusCode::from_u16(connector.success_status()).unwrap_or(StatusCode::OK);
    Ok((HttpResponse::new(success), outcome))
}

/// Accounts are made for providers that the dispatcher knows; a replica that does not know one is
/// set up otherwise, and another may.
fn connector<'a>(app: &'a App, account: &Account) -> Result<&'a Connector, IngestError> {
    let provider = &account.definition.provider;
    app.connectors.get(provider).ok_or_else(|| {
        tracing::error!(account.id = %account.id, provider, "there is no such connector here");
        IngestError::Unavailable("the provider's connector is not there")
    })
}

fn headers(request: &HttpRequest) -> Vec<(String, String)> {
    // actix keeps names in lower case.
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = request.headers().iter();
    headers
        .map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes())))
        .collect()
}

/// The account with whose secret the callback verifies.
async fn verified(
    store: &Store,
    account: Arc<Account>,
    connector: &Connector,
    callback: &Callback<'_>,
    now: Timestamp,
) -> Result<Arc<Account>, IngestError> {
    let Err(refusal) = callback::verify(&account, connector, callback, now) else {
        return Ok(account);
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
        Some(latest) => match callback::verify(&latest, connector, callback, now) {
            Ok(()) => return Ok(latest),
            Err(refusal) => refusal,
        },
    };
    tracing::warn!(
        project.id = %account.project,
        account.id = %account.id,
        provider = connector.provider(),
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
    let outcomes = publish(app, &store.nats, &events).await;
    for outcome in outcomes {
        match outcome {
            Ok(_) => {}
            Err(PublishError::TooLarge) => return Err(too_large()),
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
    let error = match refusal {
        MapRefusal::Malformed(error) => IngestError::Unmappable(error.to_string()),
        MapRefusal::TooLarge => too_large(),
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

fn too_large() -> IngestError {
    IngestError::TooLarge("the callback makes an event that is too large to be stored".into())
}
