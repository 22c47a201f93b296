//! What actors reach the world through: the endpoint, EVENTS, JOURNAL. Nothing here decides.

pub(crate) mod events;
pub(crate) mod journal;
pub(crate) mod recovery;
pub(crate) mod sender;
pub(crate) mod takeover;
