//! The management API over HTTP, in process, on a real nats-server.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what helps a test fails as the test does"
)]

mod access;
mod accounts;
mod audit;
mod catalog;
mod clocks;
mod delay;
mod endpoint;
mod endpoints;
mod erasing;
mod events;
mod expiry;
mod history;
mod hr_on;
mod idempotency;
mod lifecycle;
mod logs;
mod nats_server;
#[cfg(feature = "test-panics")]
mod panics;
mod process;
mod projects;
mod signing_secrets;
mod slow_call;
mod support;
mod tokens;
mod verification;
mod versions;
mod webhooks;
