//! What both services share. Without features the crate is pure: no runtime, no socket, no
//! environment, and no clock outside [`time`].
//!
//! `codec` alone knows bytes, `nats` alone speaks to the server, `subjects` alone prints subjects.

pub mod ids;
pub mod time;
