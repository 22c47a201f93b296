//! Ingest as its callers see it: the real thing in process, over HTTP, against a real nats-server.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers; clippy.toml allows these only inside test functions"
)]

mod events;
mod limits;
mod native;
mod nats_server;
mod outage;
mod process;
mod world;
