//! What delivery decides, pure: no clock, no I/O, no randomness, no waiting.
//!
//! State is a fold of EVENTS and JOURNAL. A shell feeds inputs and carries out effects; time and
//! jitter are inputs. The invariants that hold here:
//!
//! - every event of a partition is classified once for each webhook, by the configuration that
//!   JOURNAL says held at its position ([`classify`], [`partition`]);
//! - every accepted event is pending until exactly one terminal entry ends it ([`delivery`]);
//! - at most one attempt of a lane is under way, and it is the lane's lowest ([`lanes`]);
//! - entries are packed in the order in which they were decided, one pack at a time ([`commits`]).
//!
//! Absent on purpose, because they come with the full state machine: breaker, rate limit,
//! deactivation, replay, snapshots.
#![warn(clippy::wildcard_enum_match_arm)]

pub mod classify;
pub mod commits;
pub mod delivery;
pub mod fold;
pub mod lanes;
pub mod ledger;
pub mod partition;
pub mod retry;
