//! An independent judge of a run: from the three logs, from what the client was answered and from
//! what arrived at the receiver it finds out what should have happened, and names every promise
//! that was not kept, by the names of `protocol.md`'s invariants.
//!
//! It shares the wire formats, the subjects and the filter with the services, and no other code:
//! a fold that is wrong cannot confirm itself. It is pure; [`collect`] alone reads the streams.
//! Of JOURNAL's entries [`journal`] alone knows the shape.

mod arrivals;
mod classify;
pub mod collect;
mod duplicates;
mod ends;
mod fence;
mod findings;
mod journal;
mod lanes;
mod records;
mod schedule;
mod stored;
mod takeovers;
#[cfg(test)]
mod tests;
mod world;

pub use self::findings::{Figures, Invariant, Report, Violation};
pub use self::journal::{Attempt, Fact, Outcome, PackFacts};
pub use self::records::{
    ClientAnswer, EventLine, Fault, FaultKind, JournalContent, JournalLine, Records, RegistryLine,
    State, ToldLedger,
};
pub use self::takeovers::{Takeover, takeovers};

use self::findings::Findings;
use self::world::World;

/// Checks every invariant.
pub fn check(records: &Records) -> Report {
    let mut findings = Findings::default();
    let world = World::new(records, &mut findings);
    stored::check(&world, &mut findings);
    fence::check(&world, &mut findings);
    ends::check(&world, &mut findings);
    schedule::check(&world, &mut findings);
    arrivals::check(&world, &mut findings);
    lanes::check(&world, &mut findings);
    duplicates::check(&world, &mut findings);
    findings.into_report()
}
