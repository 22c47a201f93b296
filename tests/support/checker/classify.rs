//! The checker's own word on what a webhook is owed: from EVENTS, from REGISTRY's definitions, and
//! from where JOURNAL says that each of them, or what an owner decided, holds.

use shared::domain::event::Event;
use shared::domain::journal::SkipReason;
use shared::domain::webhook::{Status, WebhookDefinition};
use shared::time::Timestamp;

/// A configuration of a webhook and from where it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config<'a> {
    pub(super) registry_sequence: u64,
    /// First sequence of EVENTS that it classifies.
    pub(super) from: u64,
    /// With the status that goes with it in REGISTRY. `None`: deleted.
    pub(super) definition: Option<(&'a WebhookDefinition, Status)>,
    /// What an owner decided, which takes the place of that status until a later
    /// configuration lifts it.
    pub(super) decided: Option<Status>,
    /// Where it lies in JOURNAL.
    pub(super) place: u64,
    /// When it was journaled, by the server's clock, and by the owner's.
    pub(super) stored_at: Timestamp,
    pub(super) applied_at: Timestamp,
}

impl Config<'_> {
    /// `None`: deleted.
    pub(super) fn status(&self) -> Option<Status> {
        let (_, status) = self.definition?;
        Some(self.decided.unwrap_or(status))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    NotWanted,
    Accepted,
    /// Counted, and never sent.
    Skipped(SkipReason),
}

/// `configs` in the order in which they were journaled, of which the last that begins at or
/// before the event holds.
pub(super) fn classify(configs: &[Config<'_>], sequence: u64, event: &Event) -> Class {
    let holds = configs.iter().rev().find(|config| config.from <= sequence);
    let Some((status, (definition, _))) =
        holds.and_then(|config| Some((config.status()?, config.definition?)))
    else {
        return Class::NotWanted;
    };
    if !definition.selection.matches(event) {
        return Class::NotWanted;
    }
    match status {
        Status::Enabled | Status::Quarantined => Class::Accepted,
        Status::PendingVerification => Class::Skipped(SkipReason::Unverified),
        Status::Disabled => Class::Skipped(SkipReason::Disabled),
        Status::Deactivated => Class::Skipped(SkipReason::Deactivated),
    }
}
