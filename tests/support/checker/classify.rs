//! The checker's own word on what a webhook is owed: from EVENTS, from REGISTRY's definitions, and
//! from where JOURNAL says that each of them holds.

use shared::domain::event::Event;
use shared::domain::webhook::{Status, WebhookDefinition};
use shared::time::Timestamp;

/// A configuration of a webhook and from where it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config<'a> {
    pub(super) registry_sequence: u64,
    /// First sequence of EVENTS that it classifies.
    pub(super) from: u64,
    /// `None`: deleted.
    pub(super) definition: Option<&'a WebhookDefinition>,
    /// When it was journaled, by the server's clock, and by the owner's.
    pub(super) stored_at: Timestamp,
    pub(super) applied_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    NotWanted,
    Accepted,
    /// Counted, and never sent.
    Skipped,
}

/// `configs` in the order in which they were journaled, of which the last that begins at or
/// before the event holds.
pub(super) fn classify(configs: &[Config<'_>], sequence: u64, event: &Event) -> Class {
    let holds = configs.iter().rev().find(|config| config.from <= sequence);
    let Some(definition) = holds.and_then(|config| config.definition) else {
        return Class::NotWanted;
    };
    if !definition.selection.matches(event) {
        return Class::NotWanted;
    }
    match definition.status {
        Status::Enabled | Status::Quarantined => Class::Accepted,
        Status::PendingVerification | Status::Disabled | Status::Deactivated => Class::Skipped,
    }
}
