//! What actors reach the world through: the endpoint, EVENTS, JOURNAL. Nothing here decides.

pub mod events;
pub mod journal;
pub mod sender;
pub mod takeover;
