//! What delivery decides, pure: no clock, no I/O, no randomness, no waiting.
//!
//! What lasts is a fold of JOURNAL ([`shared::domain::state`]); what is here decides what to
//! journal next. A shell feeds inputs and carries out effects; time and jitter are inputs. The invariants that hold here:
//!
//! - every event of a partition is classified once for each webhook, by the configuration that
//!   JOURNAL says held at its position ([`classify`], [`partition`]);
//! - every accepted event is pending until exactly one terminal entry ends it ([`delivery`]);
//! - at most one attempt of a lane is under way, and it is the lane's lowest ([`lanes`]);
//! - entries are packed in the order in which they were decided, one pack at a time ([`commits`]).
#![warn(clippy::wildcard_enum_match_arm)]

pub mod classify;
pub mod commits;
pub mod delivery;
pub mod health;
pub mod lanes;
pub mod overview;
pub mod ownership;
mod pack_size;
pub mod partition;
pub mod rate;
pub mod replay;
pub mod retry;
pub mod settling;
pub mod standing;
