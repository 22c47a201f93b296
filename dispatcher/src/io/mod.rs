//! What actors reach the world through: the endpoint, EVENTS, JOURNAL, REGISTRY. Nothing here decides.

pub(crate) mod attempt_log;
pub(crate) mod decisions;
pub(crate) mod erasing;
pub(crate) mod event_log;
pub(crate) mod events;
pub(crate) mod handshake;
pub(crate) mod journal;
pub(crate) mod recovery;
pub(crate) mod replays;
pub(crate) mod sender;
pub(crate) mod takeover;
pub(crate) mod trial;
pub(crate) mod webhook_events;
