//! The server: connection, streams, appends, reads. Nothing else speaks NATS.
//!
//! Measured behaviour of server and client is in the project's notes on JetStream; each choice
//! here that follows from it says so.

use std::time::Duration;

use async_nats::jetstream;

use crate::ids::Sequence;
use crate::partition::PartitionCount;

pub mod append;
pub mod batches;
pub mod erasing;
pub mod idempotency;
pub mod key_usage;
pub mod membership;
pub mod read;
pub mod registry_view;
pub mod requests;
pub mod resealing;
pub mod retention;
pub mod snapshots;
pub mod tail;
pub mod topology;

/// How long an append waits for its acknowledgement. Acknowledgements that are pending when the
/// connection drops never fail early, so this is also how long such an append stays unknown.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// Appends that may be unacknowledged at once.
const ACKS_IN_FLIGHT_MAX: usize = 4_096;

/// How to reach the server.
#[derive(Clone, Debug, Default)]
pub struct NatsSettings {
    pub urls: Vec<String>,
    pub credentials_file: Option<std::path::PathBuf>,
    pub tls_ca_file: Option<std::path::PathBuf>,
    /// Shown in the server's connection list.
    pub client_name: String,
}

/// A connection with its streams, ready for use. Cheap to clone.
#[derive(Clone)]
pub struct Nats {
    pub client: async_nats::Client,
    pub context: jetstream::Context,
    pub events: jetstream::stream::Stream<()>,
    pub registry: jetstream::stream::Stream<()>,
    pub journal: jetstream::stream::Stream<()>,
    pub members: jetstream::stream::Stream<()>,
    pub idempotency: jetstream::stream::Stream<()>,
    pub key_usage: jetstream::stream::Stream<()>,
    pub snapshots: jetstream::stream::Stream<()>,
    pub partitions: PartitionCount,
    /// Of EVENTS positions.
    pub generation: u32,
}

/// The server does not answer, or not yet.
#[derive(Debug, Clone, thiserror::Error)]
#[error("JetStream is not available: {0}")]
pub struct Unavailable(pub String);

impl Unavailable {
    pub(crate) fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl Nats {
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == async_nats::connection::State::Connected
    }

    /// What one message may hold, by the server's word.
    pub fn max_payload(&self) -> usize {
        self.client.server_info().max_payload
    }

    /// EVENTS' last sequence, read from the leader.
    pub async fn events_last(&self) -> Result<Sequence, Unavailable> {
        last_sequence(&self.events).await
    }
}

/// A stream's first and last sequence as its leader has them.
pub async fn bounds(
    stream: &jetstream::stream::Stream<()>,
) -> Result<(Sequence, Sequence), Unavailable> {
    let state = stream.get_info().await.map_err(Unavailable::new)?.state;
    Ok((
        Sequence(state.first_sequence),
        Sequence(state.last_sequence),
    ))
}

/// A stream's last sequence as its leader has it.
pub async fn last_sequence(
    stream: &jetstream::stream::Stream<()>,
) -> Result<Sequence, Unavailable> {
    let info = stream.get_info().await.map_err(Unavailable::new)?;
    Ok(Sequence(info.state.last_sequence))
}

/// Connects; the first connection may take as long as it takes, and is retried for ever.
pub async fn connect(settings: &NatsSettings) -> Result<async_nats::Client, std::io::Error> {
    let mut options = async_nats::ConnectOptions::new()
        .name(&settings.client_name)
        .retry_on_initial_connect()
        .connection_timeout(Duration::from_secs(2))
        .request_timeout(Some(ACK_TIMEOUT))
        .ping_interval(Duration::from_secs(5))
        // The default grows to 4 s; a restarted server should see us at once.
        .reconnect_delay_callback(|attempts| Duration::from_millis((50 * attempts as u64).min(500)))
        .event_callback(|event| async move {
            tracing::info!(%event, "connection to NATS");
        });
    if let Some(path) = &settings.credentials_file {
        options = options.credentials_file(path).await?;
    }
    if let Some(path) = &settings.tls_ca_file {
        options = options.add_root_certificates(path.clone());
    }
    let urls: Vec<async_nats::ServerAddr> = settings
        .urls
        .iter()
        .map(|url| url.parse())
        .collect::<Result<_, _>>()?;
    options
        .connect(urls)
        .await
        .map_err(|error| std::io::Error::other(error.to_string()))
}

fn context(client: &async_nats::Client) -> jetstream::Context {
    jetstream::context::ContextBuilder::new()
        .timeout(ACK_TIMEOUT)
        .ack_timeout(ACK_TIMEOUT)
        .max_ack_inflight(ACKS_IN_FLIGHT_MAX)
        .backpressure_on_inflight(true)
        .build(client.clone())
}
