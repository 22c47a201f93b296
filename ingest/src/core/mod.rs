//! What ingest decides, without runtime, server, clock, randomness or environment: whether a
//! callback is taken, which events it and a first-party request stand for, what their ids are, in
//! which order they are stored, and whether each fits the server.

pub(crate) mod callback;
pub(crate) mod first_party;
pub(crate) mod lanes;
pub(crate) mod message_id;
pub(crate) mod nesting;
pub(crate) mod render;
pub(crate) mod surrogates;
