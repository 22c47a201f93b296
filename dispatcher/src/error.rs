//! Why the dispatcher ends on its own.

use shared::connector::ConnectorError;
use shared::http_client::ClientSetupError;
use shared::nats::resealing::ResealError;
use shared::nats::topology::TopologyError;

#[derive(Debug, thiserror::Error)]
pub enum DispatchError {
    #[error("a listener failed: {0}")]
    Listener(#[from] std::io::Error),
    #[error(transparent)]
    Client(#[from] ClientSetupError),
    #[error(transparent)]
    Connectors(#[from] ConnectorError),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error("admin_token must be set")]
    NoAdminToken,
    #[error("the NATS server takes messages of {0} bytes at most; set max_payload to 1 MiB")]
    PayloadTooSmall(usize),
    #[error("the registry cannot be read: {0}")]
    Registry(String),
    #[error(transparent)]
    Reseal(#[from] ResealError),
    #[error("{0}")]
    Node(String),
}
