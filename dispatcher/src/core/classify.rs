//! Which events a webhook is owed: a function of the event, its position and the configurations
//! that JOURNAL says held there, and of nothing else (`protocol.md`, rule 11).

use std::sync::Arc;

use shared::domain::catalog;
use shared::domain::event::Event;
use shared::domain::filter::Selection;
use shared::domain::journal::SkipReason;
use shared::domain::state::{Applied, Rule as AppliedRule};
use shared::domain::webhook::{Status, Webhook, WebhookVersion};
use shared::ids::{Sequence, WebhookId};

/// What an event is to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    NotWanted,
    Accepted,
    Skipped(SkipReason),
}

/// What holds for one webhook and from where, ascending.
#[derive(Clone, Debug, Default)]
pub struct ConfigHistory {
    webhook: Option<WebhookId>,
    held: Vec<Held>,
}

#[derive(Clone, Debug)]
struct Held {
    from: Sequence,
    /// Registry sequence of what it stems from; that of the version before for a decision.
    registry_sequence: Sequence,
    /// `None` when the registry no longer knows the version: nothing retained needs it.
    rule: Option<Rule>,
    lifts: bool,
    /// The owner's own decision (rule 10), which later versions inherit until one lifts it.
    decision: Option<Status>,
}

#[derive(Clone, Debug)]
struct Rule {
    selection: Arc<Selection>,
    /// `None`: deleted.
    status: Option<Status>,
}

impl ConfigHistory {
    /// Before anything was applied.
    pub fn of(webhook: WebhookId) -> Self {
        Self {
            webhook: Some(webhook),
            held: Vec::new(),
        }
    }

    /// What the journal says was applied, with what the registry says of it.
    pub fn restored(applied: &[Applied], webhook: &Webhook) -> Self {
        let mut history = Self::of(webhook.id);
        for applied in applied {
            let from = applied.from.sequence;
            match applied.rule {
                AppliedRule::Registry { sequence, lifts } => {
                    history.push(sequence, from, webhook.version(sequence), lifts);
                }
                AppliedRule::Deactivated => history.decide(from, Status::Deactivated),
                AppliedRule::Quarantined => history.decide(from, Status::Quarantined),
            }
        }
        history
    }

    /// The version holds from `from` on. Applying it again changes nothing.
    pub fn apply(&mut self, from: Sequence, version: &WebhookVersion) {
        if self.latest() < Some(version.registry_sequence) {
            self.push(
                version.registry_sequence,
                from,
                Some(version),
                version.lifts,
            );
        }
    }

    fn push(
        &mut self,
        registry_sequence: Sequence,
        from: Sequence,
        version: Option<&WebhookVersion>,
        lifts: bool,
    ) {
        let decision = self.held.last().and_then(|held| held.decision);
        self.held.push(Held {
            from,
            registry_sequence,
            rule: version.map(|version| Rule {
                selection: Arc::clone(&version.selection),
                status: version.status,
            }),
            lifts,
            decision: decision.filter(|_| !lifts),
        });
    }

    /// The owner decided, from `from` on.
    pub fn decide(&mut self, from: Sequence, status: Status) {
        let held = match self.held.last().cloned() {
            Some(last) => Held {
                from,
                decision: Some(status),
                ..last
            },
            // The version that it was decided about is forgotten; the later ones inherit it.
            None => Held {
                from,
                registry_sequence: Sequence(0),
                rule: None,
                lifts: false,
                decision: Some(status),
            },
        };
        self.held.push(held);
    }

    /// Registry sequence of what holds now.
    pub fn latest(&self) -> Option<Sequence> {
        self.held.last().map(|held| held.registry_sequence)
    }

    /// Whether something that `later` has beyond this lifts what an owner decided.
    pub fn is_lifted_by(&self, later: &Self) -> bool {
        let known = self.latest();
        let news = later
            .held
            .iter()
            .filter(|held| Some(held.registry_sequence) > known);
        news.into_iter().any(|held| held.lifts)
    }

    /// First position that any configuration covers.
    pub fn start(&self) -> Option<Sequence> {
        self.held.first().map(|held| held.from)
    }

    pub fn is_deleted(&self) -> bool {
        self.held
            .last()
            .and_then(|held| held.rule.as_ref())
            .is_some_and(|rule| rule.status.is_none())
    }

    /// The status that holds now; `None` once deleted.
    pub fn status(&self) -> Option<Status> {
        self.held.last().and_then(Held::status)
    }

    pub fn classify(&self, sequence: Sequence, event: &Event) -> Class {
        let holds = self.held.iter().rev().find(|held| held.from <= sequence);
        let Some((held, rule)) = holds.and_then(|held| Some((held, held.rule.as_ref()?))) else {
            return Class::NotWanted;
        };
        let Some(status) = held.status() else {
            return Class::NotWanted;
        };
        if !rule.selection.matches(event) || self.is_about_itself(event) {
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

impl ConfigHistory {
    /// An endpoint that fails is not told so by one more event, which it would fail to take.
    fn is_about_itself(&self, event: &Event) -> bool {
        catalog::is_about_webhooks(&event.event_type)
            && self
                .webhook
                .is_some_and(|id| *event.record_id == *id.to_string())
    }
}

impl Held {
    fn status(&self) -> Option<Status> {
        let status = self.rule.as_ref()?.status?;
        Some(self.decision.unwrap_or(status))
    }
}
