//! What both services share. Without features the crate is pure: no runtime, no socket, no
//! environment, and no clock outside [`time`].
//!
//! `codec` alone knows bytes, `nats` alone speaks to the server, `subjects` alone prints subjects.

pub mod address_guard;
pub mod codec;
pub mod dialect;
pub mod domain;
#[cfg(feature = "http")]
pub mod http_client;
pub mod ids;
pub mod limits;
pub mod partition;
pub mod secret;
pub mod signing;
pub mod subjects;
pub mod time;
