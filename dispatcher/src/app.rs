//! What the listeners share: built once at start, read by every handler.

use std::sync::Arc;

use shared::connector::Connectors;
use shared::http_client::GuardedClient;
use shared::nats::Nats;
use shared::nats::registry_view::RegistryView;
use shared::secret::{MasterKeys, Secret};
use shared::time::Clock;

use crate::applied::Applied;

/// Everything that answering a management call takes. Any replica holds the same.
pub struct App {
    pub view: RegistryView,
    pub nats: Nats,
    pub clock: Arc<dyn Clock>,
    /// Manages projects and API keys.
    pub admin_token: Secret,
    pub master_keys: MasterKeys,
    /// Where providers reach ingest, without a final slash.
    pub public_ingest_url: String,
    pub connectors: Arc<Connectors>,
    /// Judges endpoints before they are accepted.
    pub client: GuardedClient,
    pub applied: Arc<Applied>,
}
