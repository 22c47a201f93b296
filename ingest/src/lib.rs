//! What comes in: providers' callbacks and first-party events, verified, mapped, rendered once,
//! and stored in EVENTS before anybody is told that they are.
//!
//! `core` decides, `routes` speak HTTP, `publish` speaks to JetStream. Nothing is kept here: a
//! request that is not answered has not happened.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::{HttpServer, web};
use shared::config::Settings;
use shared::connector::{ConnectorError, Connectors};
use shared::nats::batches::Batches;
use shared::nats::key_usage::KeyUsage;
use shared::nats::registry_view::RegistryView;
use shared::nats::topology::{self, TopologyError};
use shared::nats::{self, Nats};
use shared::telemetry::metrics::Registry;
use shared::telemetry::ops;
use shared::time::SystemClock;

mod app;
mod core;
mod error;
mod memory;
mod metrics;
mod publish;
mod routes;

use app::{App, Store};

/// Connections at once. Each costs some kilobytes; a proxy in front holds fewer.
const CONNECTIONS_MAX: usize = 4_096;
/// How long a request's head may take to arrive.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection may idle between requests. Short, since everybody shares
/// [`CONNECTIONS_MAX`]; a proxy in front must give up its idle ones sooner, or repeat.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long a connection that is being closed may take to say what is left.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Short of the 30 s that a stopping process has. Requests take as long only when both their body
/// and JetStream are slow; one that is cut off is not answered, which promises nothing.
const DRAIN_SECONDS: u64 = 25;
/// Between questions to a JetStream that does not answer yet.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Sockets that are bound already, so that whoever starts the service knows their addresses.
#[derive(Debug)]
pub struct Listeners {
    /// Callbacks and first-party events.
    pub http: TcpListener,
    /// `/livez`, `/readyz`, `/metrics`.
    pub ops: TcpListener,
}

/// Why the service cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("listener: {0}")]
    Listener(#[source] std::io::Error),
    #[error(transparent)]
    Connectors(#[from] ConnectorError),
    #[error("NATS: {0}")]
    Nats(#[source] std::io::Error),
    #[error(transparent)]
    Streams(#[from] TopologyError),
    /// A missing key, or entries of a later release.
    #[error("the registry cannot be read: {0}")]
    Registry(String),
    #[error("the server stopped by itself")]
    Stopped,
}

/// Serves until `shutdown` resolves, then finishes the requests in progress, 25 s at most. Must
/// run in an actix system. JetStream need not be there yet, nor stay: meanwhile requests get 503.
pub async fn run(
    settings: Settings,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let addresses = (listeners.http.local_addr(), listeners.ops.local_addr());
    let (Ok(http), Ok(ops)) = addresses else {
        return Err(RunError::Listener(std::io::Error::other("is not bound")));
    };
    let registry = Registry::new();
    let clock = Arc::new(SystemClock::new());
    let app = web::Data::new(App::new(connectors(&settings)?, clock, &registry));
    let ready = app.clone();
    let readiness = Arc::new(move || ready.readiness());
    let ops_server =
        ops::serve(listeners.ops, registry.handle(), readiness).map_err(RunError::Listener)?;
    let ops_handle = ops_server.handle();
    actix_rt::spawn(ops_server);
    let server = serve(listeners.http, app.clone()).map_err(RunError::Listener)?;
    let handle = server.handle();
    let mut server = actix_rt::spawn(server);
    tracing::info!(%http, %ops, "listening");

    let ended = tokio::select! {
        () = shutdown => Ok(()),
        Err(error) = follow(&settings, &app) => Err(error),
        _ = &mut server => Err(RunError::Stopped),
    };
    drain(&app, handle).await;
    ops_handle.stop(false).await;
    ended
}

fn connectors(settings: &Settings) -> Result<Connectors, ConnectorError> {
    let mut connectors = Connectors::embedded()?;
    if let Some(dir) = &settings.connectors_dir {
        connectors.add_dir(dir)?;
    }
    Ok(connectors)
}

fn serve(listener: TcpListener, app: web::Data<App>) -> std::io::Result<Server> {
    let server = HttpServer::new(move || {
        actix_web::App::new()
            .app_data(app.clone())
            .configure(routes::configure)
    })
    // More of them took time from the dispatcher on the machines that were measured; replicas add
    // more.
    .workers(1)
    .disable_signals()
    .max_connections(CONNECTIONS_MAX)
    .client_request_timeout(HEAD_WITHIN)
    .client_disconnect_timeout(CLOSE_WITHIN)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(DRAIN_SECONDS)
    .listen(listener)?
    .run();
    Ok(server)
}

/// Opens the logs as soon as they are there, and ends only for a reason to end the process.
async fn follow(settings: &Settings, app: &App) -> Result<Infallible, RunError> {
    let nats = connect(settings).await?;
    let keys = settings.master_keys.clone();
    let registry = RegistryView::start(nats.clone(), keys, app.clock.clone(), None);
    let mut fatal = registry.fatal();
    tracing::info!(partitions = nats.partitions.get(), "JetStream is there");
    app.open(Store {
        batches: settings
            .publish_batches
            .then(|| Batches::start(nats.clone())),
        key_usage: KeyUsage::new(nats.clone(), app.clock.clone()),
        nats,
        registry,
    });
    let reason = fatal.wait_for(Option::is_some).await;
    // The sender lives in the view, which the app holds.
    let reason = reason.ok().and_then(|reason| reason.clone());
    Err(RunError::Registry(reason.unwrap_or_default()))
}

/// Takes as long as it takes.
async fn connect(settings: &Settings) -> Result<Nats, RunError> {
    let client = nats::connect(&settings.nats)
        .await
        .map_err(RunError::Nats)?;
    let mut told = false;
    loop {
        match topology::ensure(&client, &settings.topology).await {
            Ok(nats) => return Ok(nats),
            Err(error @ (TopologyError::Foreign { .. } | TopologyError::Forgets { .. })) => {
                return Err(error.into());
            }
            Err(TopologyError::Unavailable(error)) => {
                if !told {
                    tracing::warn!(%error, "waiting for JetStream");
                    told = true;
                }
                tokio::time::sleep(CONNECT_AGAIN_AFTER).await;
            }
        }
    }
}

async fn drain(app: &App, server: ServerHandle) {
    tracing::info!("stopping");
    app.start_draining();
    server.stop(true).await;
    tracing::info!("stopped");
}
