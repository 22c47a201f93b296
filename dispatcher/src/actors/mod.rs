//! The actors: thin shells round the pure core, and the only code that names actix.
//!
//! Flow of an event: [`node`] reads the tail and hands each partition its stretch →
//! [`partition`] classifies it and offers each webhook what it is owed → [`webhook`] steps its
//! core, attempts, and pushes outcomes into the partition's [`log`] → [`journal`] commits packs.
//!
//! All of a replica's actors live on one thread: a second one costs more in wake-ups than it
//! brings on two cores, and state never crosses threads. Mailboxes are bounded and filled by
//! `try_send` from held addresses; an offer that finds no room is dropped, and the webhook reads
//! the stream instead.

pub(crate) mod announcer;
mod backlog;
pub(crate) mod children;
mod counting;
mod expiring;
pub(crate) mod handover;
mod horizon;
pub(crate) mod journal;
pub(crate) mod lease;
pub(crate) mod log;
mod metering;
pub(crate) mod node;
pub(crate) mod partition;
pub(crate) mod projector;
pub(crate) mod questions;
mod replaying;
pub(crate) mod replays;
pub(crate) mod shared_state;
mod snapshots;
mod supervision;
mod told;
pub(crate) mod webhook;
