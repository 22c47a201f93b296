//! What the listeners share: built once at start, read by every handler.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use shared::connector::Connectors;
use shared::http_client::GuardedClient;
use shared::nats::Nats;
use shared::nats::key_usage::KeyUsage;
use shared::nats::registry_view::RegistryView;
use shared::secret::{MasterKeys, Secret};
use shared::time::Clock;

use crate::api::trials::Trials;
use crate::applied::Applied;
use crate::tokens::Tokens;

/// Everything that answering a management call takes. Any replica holds the same.
pub struct App {
    pub view: RegistryView,
    pub nats: Nats,
    pub clock: Arc<dyn Clock>,
    /// Manages projects and API keys.
    pub admin_token: Secret,
    /// Judges tokens, which open a project as its API keys do.
    pub tokens: Tokens,
    pub master_keys: MasterKeys,
    /// Where providers reach ingest, without a final slash.
    pub public_ingest_url: String,
    pub connectors: Arc<Connectors>,
    /// Judges endpoints before they are accepted.
    pub client: GuardedClient,
    pub applied: Arc<Applied>,
    pub key_usage: KeyUsage,
    pub trials: Trials,
}

/// Where the listeners find the [`App`]: it is there once JetStream has answered for the first
/// time, and is not to be used any more once the process stops.
#[derive(Default)]
pub struct AppSlot {
    app: OnceLock<Arc<App>>,
    closed: AtomicBool,
}

impl AppSlot {
    /// Later calls change nothing.
    pub fn open(&self, app: Arc<App>) {
        self.app.get_or_init(|| app);
    }

    /// For good.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn app(&self) -> Option<&Arc<App>> {
        self.app.get()
    }
}
