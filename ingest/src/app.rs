//! What every request can reach.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use shared::connector::Connectors;
use shared::domain::registry::RegistryState;
use shared::nats::Nats;
use shared::nats::batches::Batches;
use shared::nats::key_usage::KeyUsage;
use shared::nats::registry_view::RegistryView;
use shared::telemetry::metrics::Registry;
use shared::time::Clock;
use tokio::sync::Semaphore;

use crate::error::IngestError;
use crate::memory::{BODIES_BYTES_MAX, Budget, MESSAGES_BYTES_MAX};
use crate::metrics::IngestMetrics;
use crate::publish::PERMIT_BYTES;
use crate::routes::EXAMINATIONS_MAX;

/// Above what the view itself allows for one question to the leader, and below what a provider
/// waits for an answer: many callers share one question, and must not queue for many.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(3);

pub(crate) struct App {
    pub(crate) connectors: Connectors,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: IngestMetrics,
    pub(crate) bodies: Budget,
    /// Room for rendered messages, in [`PERMIT_BYTES`].
    pub(crate) message_room: Semaphore,
    /// Callbacks that are examined apart from the thread that accepts.
    pub(crate) examinations: Arc<Semaphore>,
    /// Set once JetStream has answered for the first time; until then everything is 503.
    store: OnceLock<Store>,
    draining: AtomicBool,
}

/// The logs: where events go, and what is known of projects and accounts.
pub(crate) struct Store {
    pub(crate) nats: Nats,
    pub(crate) registry: RegistryView,
    pub(crate) key_usage: KeyUsage,
    /// Where events are gathered on their way; `None` when each goes by itself.
    pub(crate) batches: Option<Batches>,
}

impl App {
    pub(crate) fn new(connectors: Connectors, clock: Arc<dyn Clock>, registry: &Registry) -> Self {
        Self {
            connectors,
            clock,
            metrics: IngestMetrics::new(registry),
            bodies: Budget::new(BODIES_BYTES_MAX),
            message_room: Semaphore::new(MESSAGES_BYTES_MAX / PERMIT_BYTES),
            examinations: Arc::new(Semaphore::new(EXAMINATIONS_MAX)),
            store: OnceLock::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// Later calls change nothing.
    pub(crate) fn open(&self, store: Store) {
        self.store.get_or_init(|| store);
    }

    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why requests should go elsewhere, if they should.
    pub(crate) fn readiness(&self) -> Result<(), &'static str> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("stopping");
        }
        let store = self.store.get().ok_or("JetStream has not answered yet")?;
        if !store.nats.is_connected() {
            return Err("not connected to NATS");
        }
        if store.registry.fatal().borrow().is_some() {
            return Err("the registry cannot be read");
        }
        if !store.registry.is_current() {
            return Err("the registry view is not current");
        }
        Ok(())
    }

    /// The logs, while what they tell can be trusted: a view that was not confirmed for 5 s may
    /// be blind to a revocation (`protocol.md`, rule 4).
    pub(crate) fn store(&self) -> Result<&Store, IngestError> {
        let starting = IngestError::Unavailable("JetStream has not answered yet");
        let store = self.store.get().ok_or(starting)?;
        if !store.registry.is_current() {
            return Err(IngestError::Unavailable("the registry view is not current"));
        }
        Ok(store)
    }
}

impl Store {
    /// Looks something up; before it is called unknown, looks again in a view that has caught up
    /// with the leader. Alike for everything that can be unknown (rule 4).
    pub(crate) async fn find<T>(
        &self,
        look: impl Fn(&RegistryState) -> Option<T>,
    ) -> Result<Option<T>, IngestError> {
        if let Some(found) = self.registry.read(&look) {
            return Ok(Some(found));
        }
        self.catch_up().await?;
        Ok(self.registry.read(&look))
    }

    /// Folds through what the leader has now.
    pub(crate) async fn catch_up(&self) -> Result<(), IngestError> {
        let caught_up = tokio::time::timeout(CATCH_UP_WITHIN, self.registry.catch_up()).await;
        match caught_up {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(IngestError::Unavailable("the registry does not answer")),
        }
    }
}
