//! The management API: thin handlers over `decide`, the registry view and, later, the owners of
//! partitions. Any replica answers any call.
//!
//! A handler reads from the local projection and writes by a command; it answers after the
//! projection has folded its own entry. Every error is `application/problem+json`. Deliberately
//! absent: another way to the data than `RegistryView`, and state between two calls.

use std::net::TcpListener;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::{HttpResponse, HttpServer, http::StatusCode, web};
use shared::domain::registry::{Command, RegistryState};
use shared::ids::{ProjectId, Sequence, WebhookId};
use shared::problem::{self, Problem};
use shared::secret::DataKey;

use self::error::ApiError;
use crate::app::{App, AppSlot};

mod auth;
mod body;
mod error;
mod etag;
mod fields;
mod hr_on;
mod idempotency;
mod open_app;
pub(crate) mod openapi;
mod owner;
mod page;
mod time_range;
pub mod trials;
mod v1;
mod webhooks;

/// Connections at once; one worker needs no more, and each costs a descriptor and its buffers.
const CONNECTIONS_MAX: usize = 4_096;
/// For a request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Calls under way at a stop get this long; the longest wait of one is for the registry.
const SHUTDOWN_SECONDS: u64 = 10;
/// Read, change, append: repeated this often when others change the same thing meanwhile.
const CHANGE_TRIES: usize = 5;

/// Serves until the returned server is stopped; whatever the slot does not hold open gets 503. One
/// worker: a call is a look into memory and an append, and deliveries want the cores.
pub fn serve(listener: TcpListener, slot: Arc<AppSlot>) -> std::io::Result<Server> {
    let slot = web::Data::from(slot);
    let server = HttpServer::new(move || {
        actix_web::App::new()
            .app_data(slot.clone())
            .configure(configure)
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(SHUTDOWN_SECONDS)
    .client_request_timeout(HEAD_WITHIN)
    .max_connections(CONNECTIONS_MAX)
    .listen(listener)?
    .run();
    Ok(server)
}

/// All routes. The application data must hold an [`AppSlot`].
pub fn configure(config: &mut web::ServiceConfig) {
    let v1 = web::scope("/v1").configure(v1::configure);
    let hr_on = web::scope("/hr-on/v1").configure(hr_on::configure);
    let hr_on = hr_on.wrap(from_fn(finish)).wrap(from_fn(hr_on::speak));
    config
        // What is no text names nothing; actix would answer that in words of its own.
        .app_data(web::PathConfig::default().error_handler(|_, _| ApiError::not_found().into()))
        .service(v1.wrap(from_fn(finish)))
        .service(hr_on)
        .configure(openapi::configure)
        .default_service(web::to(not_found));
}

async fn not_found() -> HttpResponse {
    error::respond(&Problem::not_found())
}

/// What holds for every answer: answers may carry secrets, so that no cache may keep them; and
/// actix's own 405 has no body.
async fn finish(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let mut response = next.call(request).await?.map_into_boxed_body();
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return Ok(response);
    }
    let problem = Problem::method_not_allowed();
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let content_type = HeaderValue::from_static(problem::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.response_mut().extensions_mut().insert(problem);
    Ok(response.map_body(|_, _| BoxBody::new(body)))
}

/// A webhook's id from the path, in either dialect's form.
fn webhook_id(text: &str) -> Result<WebhookId, ApiError> {
    id(text).or_else(|error| WebhookId::from_bare(text).ok_or(error))
}

/// An id from the path. A malformed one names nothing.
fn id<T: FromStr>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::not_found())
}

/// What the projection holds, or 404. Before that the projection is brought up to date, so that
/// what was made through one replica can at once be used through another.
async fn find<T>(app: &App, look: impl Fn(&RegistryState) -> Option<T>) -> Result<T, ApiError> {
    if let Some(found) = app.view.read(&look) {
        return Ok(found);
    }
    app.view.catch_up().await?;
    app.view.read(&look).ok_or_else(ApiError::not_found)
}

/// What the secrets of the caller's project are sealed with; 404 if the project is deleted meanwhile.
fn data_key(app: &App, project: ProjectId) -> Result<Arc<DataKey>, ApiError> {
    let key = app
        .view
        .read(|state| state.project(project)?.data_key.clone());
    key.ok_or_else(ApiError::not_found)
}

/// Makes a thing, unless an earlier call with the same idempotency key has made it, or another
/// makes it at the same time. Gives the entry's sequence, if it was made here.
async fn make(
    app: &App,
    command: Command,
    by: &str,
    is_made: impl Fn(&RegistryState) -> bool,
) -> Result<Option<Sequence>, ApiError> {
    if app.view.read(&is_made) {
        return Ok(None);
    }
    match app.view.execute(command, by, app.clock.now()).await {
        Ok(sequence) => Ok(Some(sequence)),
        Err(_) if app.view.read(&is_made) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Repeats a read-modify-write that met a change by others.
async fn unless_moved_on<T>(
    mut change: impl AsyncFnMut() -> Result<T, ApiError>,
) -> Result<T, ApiError> {
    for _ in 0..CHANGE_TRIES {
        match change().await {
            Err(ApiError::MovedOn) => {}
            done @ (Ok(_) | Err(_)) => return done,
        }
    }
    Err(ApiError::MovedOn)
}
