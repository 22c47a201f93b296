//! What goes out, and what manages it: one actor per webhook over a pure core, and the API.

use std::cell::Cell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared::address_guard::AddressGuard;
use shared::codec;
use shared::config::Settings;
use shared::connector::Connectors;
use shared::domain::membership::Member;
use shared::domain::registry::Change;
use shared::http_client::{GuardedClient, Resolve, SystemResolver};
use shared::ids::ReplicaId;
use shared::nats::key_usage::KeyUsage;
use shared::nats::membership::Membership;
use shared::nats::registry_view::RegistryView;
use shared::nats::resealing::{self, Resealed};
use shared::nats::topology::{self, TopologyError};
use shared::nats::{self, Nats};
use shared::secret::MasterKeys;
use shared::telemetry::metrics::Registry;
use shared::telemetry::ops;
use shared::time::{Clock, SystemClock};
use tokio::sync::{Semaphore, mpsc};

use crate::actors::lease::LeaseView;
use crate::actors::node::{Node, NodeError};
use crate::actors::shared_state::{BACKLOG_READS_MAX, FRESH_ATTEMPTS_MAX, Replica};
use crate::api::trials::Trials;
use crate::app::{App, AppSlot};
use crate::applied::Applied;
use crate::error::DispatchError;
use crate::io::erasing::erase_what_is_left;
use crate::metrics::DispatcherMetrics;
use crate::tokens::Tokens;

mod actors;
pub mod api;
pub mod app;
pub mod applied;
pub mod core;
pub mod error;
mod io;
mod metrics;
mod owner;
#[cfg(feature = "test-panics")]
pub mod panics;
pub mod tokens;

const CONNECT_RETRY: Duration = Duration::from_millis(500);
/// A pack, with room for its headers; a server that takes less cannot hold our journal.
const PAYLOAD_BYTES_MIN: usize = 512 << 10;

/// The sockets that the process serves on; bound by the caller, who may ask for port 0.
#[derive(Debug)]
pub struct Listeners {
    pub http: TcpListener,
    pub ops: TcpListener,
}

/// What the process learns of the world through; passed in, so that a test can change its mind.
pub struct Ports {
    /// How names resolve.
    pub resolver: Arc<dyn Resolve>,
    pub clock: Arc<dyn Clock>,
}

impl Ports {
    /// Those of the machine.
    pub fn system() -> Self {
        Self {
            resolver: Arc::new(SystemResolver),
            clock: Arc::new(SystemClock::new()),
        }
    }
}

/// What the ops listener asks.
#[derive(Default)]
struct Condition {
    ready: Arc<AtomicBool>,
    clock_is_off: Arc<AtomicBool>,
}

/// Runs until `shutdown` resolves or a fault makes going on pointless. Must be called on an
/// actix system.
pub async fn run(
    settings: Settings,
    listeners: Listeners,
    ports: Ports,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DispatchError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let registry = Registry::new();
    let metrics = DispatcherMetrics::new(&registry);
    let condition = Condition::default();
    let slot = Arc::new(AppSlot::default());
    let ops = ops::serve(
        listeners.ops,
        registry.handle(),
        readiness(&condition, Arc::clone(&slot)),
    )?;
    let ops_handle = ops.handle();
    actix_rt::spawn(ops);
    tracing::info!(
        http = %listeners.http.local_addr()?,
        "dispatcher starts"
    );
    // At once, so that a caller is told that JetStream is away instead of waiting for it.
    let server = api::serve(listeners.http, Arc::clone(&slot))?;
    let door = Door {
        slot: Arc::clone(&slot),
        server: server.handle(),
    };
    actix_rt::spawn(server);
    let work = start(settings, ports, metrics, condition, slot);
    let result = match futures_util::future::select(std::pin::pin!(work), &mut shutdown).await {
        // Not yet sending: there is nothing to drain.
        futures_util::future::Either::Right(_) => Ok(()),
        futures_util::future::Either::Left((Err(error), _)) => Err(error),
        futures_util::future::Either::Left((Ok(working), _)) => {
            working.until(shutdown, &door).await
        }
    };
    door.close();
    door.closed().await;
    ops_handle.stop(false).await;
    result
}

/// What management calls come through.
struct Door {
    slot: Arc<AppSlot>,
    server: actix_web::dev::ServerHandle,
}

impl Door {
    /// From here on nothing new is written; calls under way go on beside what the caller does.
    fn close(&self) {
        self.slot.close();
        // Asks at once; only the answer is awaited, elsewhere.
        drop(self.server.stop(true));
    }

    /// The calls under way are answered, or were cut off after 10 s.
    async fn closed(&self) {
        self.server.stop(true).await;
    }
}

/// A replica that takes its share of the partitions.
struct Working {
    node: Node,
    changes: mpsc::UnboundedReceiver<Change>,
    view: RegistryView,
}

impl Working {
    async fn until(
        self,
        shutdown: impl Future<Output = ()>,
        door: &Door,
    ) -> Result<(), DispatchError> {
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
            // Before the drain, which nothing would apply a new decision after, and beside it,
            // since both have to end within 30 s.
            door.close();
        };
        let result = self.node.run(self.changes, stop).await;
        match unreadable.into_inner() {
            Some(reason) => Err(DispatchError::Registry(reason)),
            None => result.map_err(DispatchError::from),
        }
    }
}

async fn start(
    settings: Settings,
    ports: Ports,
    metrics: DispatcherMetrics,
    condition: Condition,
    slot: Arc<AppSlot>,
) -> Result<Working, DispatchError> {
    let snapshot_entries = settings.snapshot_entries;
    let (follower, changes) = mpsc::unbounded_channel();
    let app = Arc::new(Box::pin(app(settings, ports, follower)).await?);
    slot.open(Arc::clone(&app));
    let started_at = app.clock.now();
    let id = ReplicaId::new(started_at, &shared::random::for_id());
    let member = Member {
        codec_version: codec::READABLE_VERSION,
        started_at,
        leaving: false,
    };
    let membership = Membership::join(app.nats.clone(), Arc::clone(&app.clock), id, member);
    let replica = Rc::new(Replica {
        lease: LeaseView::new(membership.roster(), Arc::clone(&app.clock)),
        membership,
        nats: app.nats.clone(),
        view: app.view.clone(),
        clock: Arc::clone(&app.clock),
        client: app.client.clone(),
        metrics,
        applied: Arc::clone(&app.applied),
        slots: Default::default(),
        fresh_turns: Semaphore::new(FRESH_ATTEMPTS_MAX),
        bodies: Default::default(),
        backlog_turns: Semaphore::new(BACKLOG_READS_MAX),
        recount_turn: Semaphore::new(1),
        snapshot_entries,
        snapshot_turn: Semaphore::new(1),
        packs: Default::default(),
        horizon: Cell::default(),
        draining: Cell::new(false),
        clock_is_off: condition.clock_is_off,
        ready: condition.ready,
    });
    actix_rt::spawn(erase_what_is_left(Rc::clone(&replica)));
    let mut fatal = app.view.fatal();
    let node = tokio::select! {
        node = Node::start(replica) => node,
        reason = fatal.wait_for(Option::is_some) => {
            let reason = reason.ok().and_then(|reason| reason.clone());
            return Err(DispatchError::Registry(reason.unwrap_or_default()));
        }
    };
    tracing::info!(replica = %id, "dispatcher takes part");
    Ok(Working {
        node,
        changes,
        view: app.view.clone(),
    })
}

/// Seals with the current master key what former ones have sealed, while the services run: see
/// [`resealing`]. Waits for JetStream as long as it takes.
pub async fn reseal(settings: Settings) -> Result<Resealed, DispatchError> {
    let nats = connect(&settings).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let keys = settings.master_keys;
    let view = RegistryView::start(nats.clone(), keys.clone(), Arc::clone(&clock), None);
    let mut fatal = view.fatal();
    tokio::select! {
        resealed = resealed(&view, &nats, &keys, clock.as_ref()) => resealed,
        reason = fatal.wait_for(Option::is_some) => {
            let reason = reason.ok().and_then(|reason| reason.clone());
            Err(DispatchError::Registry(reason.unwrap_or_default()))
        }
    }
}

async fn resealed(
    view: &RegistryView,
    nats: &Nats,
    keys: &MasterKeys,
    clock: &dyn Clock,
) -> Result<Resealed, DispatchError> {
    // A long log takes its time to fold, which no single wait would give it.
    while !view.is_current() {
        tokio::time::sleep(CONNECT_RETRY).await;
    }
    Ok(resealing::reseal(view, nats, keys, clock).await?)
}

/// Waits for JetStream as long as it takes; faults of the settings show before.
async fn app(
    settings: Settings,
    ports: Ports,
    follower: mpsc::UnboundedSender<Change>,
) -> Result<App, DispatchError> {
    let Ports { resolver, clock } = ports;
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
    let tokens = Tokens::new(
        settings.jwt.clone(),
        settings.jwt_jwks_url.as_ref(),
        Arc::clone(&clock),
    )?;
    let nats = connect(&settings).await?;
    let keys = settings.master_keys.clone();
    let view = RegistryView::start(nats.clone(), keys, Arc::clone(&clock), Some(follower));
    Ok(App {
        view,
        applied: Arc::new(Applied::new(nats.partitions)),
        key_usage: KeyUsage::new(nats.clone(), Arc::clone(&clock)),
        nats,
        clock,
        admin_token,
        tokens,
        master_keys: settings.master_keys,
        public_ingest_url: settings.public_ingest_url,
        connectors: Arc::new(connectors),
        client,
        trials: Trials::default(),
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
            Err(error @ (TopologyError::Foreign { .. } | TopologyError::Forgets { .. })) => {
                return Err(error.into());
            }
        }
    }
}

fn readiness(condition: &Condition, slot: Arc<AppSlot>) -> ops::Readiness {
    let (ready, clock_is_off) = (
        Arc::clone(&condition.ready),
        Arc::clone(&condition.clock_is_off),
    );
    Arc::new(move || match slot.app() {
        None => Err("waiting for JetStream"),
        Some(app) if !app.nats.is_connected() => Err("not connected to NATS"),
        Some(app) if !app.view.is_current() => Err("the registry view is not current"),
        Some(_) if clock_is_off.load(Ordering::Acquire) => {
            Err("the wall clock is over 60 s off JetStream's")
        }
        Some(_) if !ready.load(Ordering::Acquire) => Err("partitions are not all owned"),
        Some(_) => Ok(()),
    })
}

impl From<NodeError> for DispatchError {
    fn from(error: NodeError) -> Self {
        Self::Node(error.to_string())
    }
}
