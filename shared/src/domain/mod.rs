//! The event-sourced model, pure, so that any replica can validate and fold.

pub mod account;
pub mod catalog;
pub mod delivery;
pub mod endpoint_url;
pub mod event;
pub mod filter;
pub mod journal;
pub mod membership;
pub mod policy;
pub mod project;
pub mod registry;
pub mod replay;
pub mod snapshot;
pub mod state;
pub mod webhook;
