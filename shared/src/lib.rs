//! What both services share. Without features the crate is pure: no runtime, no socket, no
//! environment, and no clock outside [`time`].
//!
//! `codec` alone knows bytes, `nats` alone speaks to the server, `subjects` alone prints subjects.

pub mod address_guard;
pub mod codec;
#[cfg(feature = "runtime")]
pub mod config;
pub mod connector;
pub mod dialect;
pub mod domain;
#[cfg(feature = "http")]
pub mod http_client;
pub mod ids;
#[cfg(feature = "http")]
pub mod jwks;
pub mod jwt;
pub mod limits;
#[cfg(feature = "nats")]
pub mod nats;
pub mod partition;
pub mod problem;
pub mod random;
pub mod retry_after;
pub mod secret;
#[cfg(feature = "runtime")]
pub mod shutdown;
pub mod signing;
pub mod subjects;
#[cfg(feature = "telemetry")]
pub mod telemetry;
pub mod time;
pub mod verify;
