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
    let mut body = body::read(request, payload, CALLBACK_BODY_BYTES_MAX, &app.bodies).await?;
    let headers = headers(request);
    // Signatures are checked over the decompressed bytes: no provider that we know compresses,
    // and one behind a proxy that does has signed before it.
    let bytes = body.to_vec();
    let callback = Callback {
        method: request.method().as_str(),
        query: request.query_string(),
        headers: &headers,
        body: &bytes,
    };
    body.reserve(bytes.len())?;
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
    let success = StatusCode::from_u16(connector.success_status()).unwrap_or(StatusCode::OK);
    let outcome = match judgement.verdict {
        Verdict::Accept(events) => {
            body.reserve(events.iter().map(bytes_made).sum())?;
            store_all(app, store, &events).await?;
            Outcome::Accepted
        }
        Verdict::Unmapped => Outcome::Unmapped,
        Verdict::Refuse(refusal) => return Err(refused(&account, refusal)),
    };
    Ok((HttpResponse::new(success), outcome))
}
