//! What goes out, and what manages it: one actor per webhook over a pure core, and the API.

use std::cell::Cell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared::address_guard::AddressGuard;
use shared::config::Settings;
use shared::connector::Connectors;
use shared::http_client::{GuardedClient, Resolve, SystemResolver};
use shared::ids::ReplicaId;
use shared::nats::registry_view::RegistryView;
use shared::nats::topology::{self, TopologyError};
use shared::nats::{self, Nats};
use shared::telemetry::metrics::Registry;
use shared::telemetry::ops;
use shared::time::{Clock, SystemClock};
use tokio::sync::mpsc;

use crate::actors::node::{Node, NodeError};
use crate::actors::shared_state::Replica;
use crate::app::App;
use crate::applied::Applied;
use crate::error::DispatchError;
use crate::metrics::DispatcherMetrics;

mod actors;
pub mod api;
pub mod app;
pub mod applied;
pub mod core;
pub mod error;
mod io;
mod metrics;

const CONNECT_RETRY: Duration = Duration::from_millis(500);
/// A pack, with room for its headers; a server that takes less cannot hold our journal.
const PAYLOAD_BYTES_MIN: usize = 512 << 10;

/// The sockets that the process serves on; bound by the caller, who may ask for port 0.
#[derive(Debug)]
pub struct Listeners {
    pub http: TcpListener,
    pub ops: TcpListener,
}

/// Runs until `shutdown` resolves or a fault makes going on pointless. Must be called on an
/// actix system. How names resolve is passed in, so that a test can change its mind.
pub async fn run(
    settings: Settings,
    listeners: Listeners,
    resolver: Arc<dyn Resolve>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DispatchError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let registry = Registry::new();
    let metrics = DispatcherMetrics::new(&registry);
    let ready = Arc::new(AtomicBool::new(false));
    let view_slot: Arc<std::sync::OnceLock<(Nats, RegistryView)>> = Arc::default();
    let ops = ops::serve(
        listeners.ops,
        registry.handle(),
        readiness(Arc::clone(&ready), Arc::clone(&view_slot)),
    )?;
    let ops_handle = ops.handle();
    actix_rt::spawn(ops);
    tracing::info!(
        http = %listeners.http.local_addr()?,
        "dispatcher starts"
    );
    let work = serve(
        settings,
        listeners.http,
        resolver,
        metrics,
        ready,
        view_slot,
    );
    let result = match futures_util::future::select(std::pin::pin!(work), &mut shutdown).await {
        // Not yet serving: there is nothing to drain.
        futures_util::future::Either::Right(_) => Ok(()),
        futures_util::future::Either::Left((Err(error), _)) => Err(error),
        futures_util::future::Either::Left((Ok(serving), _)) => serving.until(shutdown).await,
    };
    ops_handle.stop(false).await;
    result
}

/// A replica that has taken its partitions and answers the API.
struct Serving {
    node: Node,
    changes: mpsc::UnboundedReceiver<shared::domain::registry::Change>,
    api: actix_web::dev::ServerHandle,
    view: RegistryView,
}

impl Serving {
    async fn until(self, shutdown: impl Future<Output = ()>) -> Result<(), DispatchError> {
        let mut fatal = self.view.fatal();
        let mut shutdown = std::pin::pin!(shutdown);
        let unreadable = std::cell::RefCell::new(None);
        let stop = async {
            tokio::select! {
                () = &mut shutdown => {}
                reason = fatal.wait_for(Option::is_some) => {
                    *unreadable.borrow_mut() = reason.ok().and_then(|reason| reason.clone());
                }
            }
        };
        let result = self.node.run(self.changes, stop).await;
        self.api.stop(true).await;
        match unreadable.into_inner() {
            Some(reason) => Err(DispatchError::Registry(reason)),
            None => result.map_err(DispatchError::from),
        }
    }
}

async fn serve(
    settings: Settings,
    http: TcpListener,
    resolver: Arc<dyn Resolve>,
    metrics: DispatcherMetrics,
    ready: Arc<AtomicBool>,
    view_slot: Arc<std::sync::OnceLock<(Nats, RegistryView)>>,
) -> Result<Serving, DispatchError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let guard = Arc::new(AddressGuard::new(settings.endpoint_allow_cidrs.clone()));
    let agent = concat!("Carillon/", env!("CARGO_PKG_VERSION"));
    let client = GuardedClient::new(guard, resolver, agent)?;
    let mut connectors = Connectors::embedded()?;
    if let Some(dir) = &settings.connectors_dir {
        connectors.add_dir(dir)?;
    }
    let admin_token = settings
        .admin_token
        .clone()
        .ok_or(DispatchError::NoAdminToken)?;
    let nats = connect(&settings).await?;
    let (follower, changes) = mpsc::unbounded_channel();
    let keys = settings.master_keys.clone();
    let view = RegistryView::start(nats.clone(), keys, Arc::clone(&clock), Some(follower));
    let _first = view_slot.set((nats.clone(), view.clone()));
    let applied = Arc::new(Applied::new(nats.partitions));
    let replica = Rc::new(Replica {
        nats: nats.clone(),
        view: view.clone(),
        clock: Arc::clone(&clock),
        client: client.clone(),
        metrics,
        applied: Arc::clone(&applied),
        slots: Default::default(),
        bodies: Default::default(),
        draining: Cell::new(false),
        ready,
    });
    let id = ReplicaId::new(clock.now(), &shared::random::bytes());
    let mut fatal = view.fatal();
    let node = tokio::select! {
        node = Node::start(replica, id) => node?,
        reason = fatal.wait_for(Option::is_some) => {
            let reason = reason.ok().and_then(|reason| reason.clone());
            return Err(DispatchError::Registry(reason.unwrap_or_default()));
        }
    };
    let app = Arc::new(App {
        view: view.clone(),
        nats,
        clock,
        admin_token,
        master_keys: settings.master_keys,
        public_ingest_url: settings.public_ingest_url,
        connectors: Arc::new(connectors),
        client,
        applied,
    });
    let server = api::serve(http, app)?;
    let api = server.handle();
    actix_rt::spawn(server);
    tracing::info!(replica = %id, "dispatcher is ready");
    Ok(Serving {
        node,
        changes,
        api,
        view,
    })
}

/// Connects and declares the streams, for as long as it takes.
async fn connect(settings: &Settings) -> Result<Nats, DispatchError> {
    let client = nats::connect(&settings.nats).await?;
    loop {
        match topology::ensure(&client, &settings.topology).await {
            Ok(nats) if nats.max_payload() < PAYLOAD_BYTES_MIN => {
                return Err(DispatchError::PayloadTooSmall(nats.max_payload()));
            }
            Ok(nats) => return Ok(nats),
            Err(TopologyError::Unavailable(error)) => {
                tracing::warn!(%error, "waiting for JetStream");
                tokio::time::sleep(CONNECT_RETRY).await;
            }
            Err(error @ TopologyError::Foreign { .. }) => return Err(error.into()),
        }
    }
}

fn readiness(
    ready: Arc<AtomicBool>,
    view: Arc<std::sync::OnceLock<(Nats, RegistryView)>>,
) -> ops::Readiness {
    Arc::new(move || match view.get() {
        None => Err("waiting for JetStream"),
        Some((nats, _)) if !nats.is_connected() => Err("not connected to NATS"),
        Some((_, view)) if !view.is_current() => Err("the registry view is not current"),
        Some(_) if !ready.load(Ordering::Acquire) => Err("partitions are not all owned"),
        Some(_) => Ok(()),
    })
}

/// How names resolve outside of tests.
pub fn system_resolver() -> Arc<dyn Resolve> {
    Arc::new(SystemResolver)
}

impl From<NodeError> for DispatchError {
    fn from(error: NodeError) -> Self {
        Self::Node(error.to_string())
    }
}
