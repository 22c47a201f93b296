//! Which events a webhook is owed: a function of the event, its position and the configurations
//! that JOURNAL says held there, and of nothing else (`protocol.md`, rule 11).

use std::sync::Arc;

use shared::domain::event::Event;
use shared::domain::filter::Selection;
use shared::domain::journal::SkipReason;
use shared::domain::webhook::{Status, WebhookVersion};
use shared::ids::Sequence;

/// What an event is to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    NotWanted,
    Accepted,
    Skipped(SkipReason),
}

/// The configurations of one webhook and from where each holds, ascending.
#[derive(Clone, Debug, Default)]
pub struct ConfigHistory {
    applied: Vec<Applied>,
}

#[derive(Clone, Debug)]
struct Applied {
    registry_sequence: Sequence,
    from: Sequence,
    /// `None` when the registry no longer knows the version: nothing retained needs it.
    rule: Option<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    selection: Arc<Selection>,
    /// `None`: deleted.
    status: Option<Status>,
}

impl ConfigHistory {
    /// The version holds from `from` on. Folding the same entry again changes nothing.
    pub fn apply(
        &mut self,
        registry_sequence: Sequence,
        from: Sequence,
        version: Option<&WebhookVersion>,
    ) {
        if self.latest() >= Some(registry_sequence) {
            return;
        }
        self.applied.push(Applied {
            registry_sequence,
            from,
            rule: version.map(|version| Rule {
                selection: Arc::clone(&version.selection),
                status: version.status,
            }),
        });
    }

    /// Registry sequences and from where each holds, ascending.
    pub fn applied(&self) -> impl Iterator<Item = (Sequence, Sequence)> {
        self.applied
            .iter()
            .map(|applied| (applied.registry_sequence, applied.from))
    }

    /// Registry sequence of what holds now.
    pub fn latest(&self) -> Option<Sequence> {
        self.applied.last().map(|applied| applied.registry_sequence)
    }

    /// First position that any configuration covers.
    pub fn start(&self) -> Option<Sequence> {
        self.applied.first().map(|applied| applied.from)
    }

    pub fn is_deleted(&self) -> bool {
        self.applied
            .last()
            .and_then(|applied| applied.rule.as_ref())
            .is_some_and(|rule| rule.status.is_none())
    }

    pub fn classify(&self, sequence: Sequence, event: &Event) -> Class {
        let holds = self
            .applied
            .iter()
            .rev()
            .find(|applied| applied.from <= sequence);
        let Some(rule) = holds.and_then(|applied| applied.rule.as_ref()) else {
            return Class::NotWanted;
        };
        let Some(status) = rule.status else {
            return Class::NotWanted;
        };
        if !rule.selection.matches(event) {
            return Class::NotWanted;
        }
        match status {
            // Quarantine is our fault, not the subscriber's: it is owed all the same.
            Status::Enabled | Status::Quarantined => Class::Accepted,
            Status::Disabled => Class::Skipped(SkipReason::Disabled),
            Status::Deactivated => Class::Skipped(SkipReason::Deactivated),
            Status::PendingVerification => Class::Skipped(SkipReason::Unverified),
        }
    }
}
