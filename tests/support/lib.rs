//! What the system tests and the demo stand on: real processes, real HTTP, a real nats-server.
//!
//! Signatures, inward and outward, are computed here with other code than the services use, so
//! that a mistake of theirs cannot confirm itself. Waiting happens in [`eventually`] alone, by
//! bounded polling. Every process that is started here ends with the one that started it.

pub mod api;
pub mod checker;
pub mod cluster;
pub mod eventually;
pub mod ledger;
pub mod nats;
pub mod ports;
pub mod process;
pub mod providers;
pub mod proxy;
pub mod receiver;
pub mod run;
pub mod stored;
pub mod tools;
