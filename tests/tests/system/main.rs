//! The whole system as its users meet it: built binaries, a real nats-server, real HTTP.
//!
//! One test binary. Each test starts what it needs on ports and in folders of its own. Nothing
//! sleeps to wait: that something does not happen is shown by something later that does.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "what helps a test fails as the test does"
)]

mod accounts;
mod backup;
mod callbacks;
mod chaos;
mod crash;
mod demo;
mod documents;
mod erasure;
mod history;
mod hot_lane;
mod hr_on;
mod master_key;
mod nats_outage;
mod ops;
mod ownership;
mod pair;
mod rebinding;
mod registry;
mod replays;
mod resealing;
mod restarts;
mod retries;
mod rotation;
mod samples;
mod shutdown;
mod snapshots;
mod ssrf;
mod stackone;
mod stage;
mod statuses;
mod verification;
