//! A partition: how far it is classified, which webhooks it has, and what each is offered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use shared::domain::event::Event;
use shared::domain::journal::{Checkpoint, Counted, JournalEntry, SkipReason, UnsentEnd};
use shared::domain::state::Applied;
use shared::domain::webhook::{Status, Webhook, WebhookVersion};
use shared::ids::{Position, ProjectId, Sequence, WebhookId};
use shared::partition::event_type_hash;

use super::classify::{Class, ConfigHistory};
use super::commits::Classified;
use super::delivery::{Match, Offer, ends_pending};

/// The state of an owned partition.
#[derive(Debug)]
pub struct Partition {
    generation: u32,
    /// Every event at or below is classified; what a new configuration starts after.
    classified: Sequence,
    checkpoint: Option<Checkpoint>,
    routes: HashMap<WebhookId, Route>,
    by_project: HashMap<ProjectId, Vec<WebhookId>>,
}

#[derive(Debug)]
struct Route {
    history: ConfigHistory,
    /// How far the webhook was offered what it is owed; what it is offered next begins here.
    offered: Sequence,
}

/// A stretch of the stream with the partition's events in it, ascending.
#[derive(Clone, Debug)]
pub struct Stretch {
    pub after: Sequence,
    pub through: Sequence,
    pub events: Vec<(Sequence, Arc<Event>)>,
}

/// By webhook, what it is owed and the events that its offer names, in the same order.
pub type Offers = BTreeMap<WebhookId, (Offer, Vec<Arc<Event>>)>;

/// What a stretch came to.
#[derive(Debug, Default)]
pub struct Taken {
    pub offers: Offers,
    pub counted: Vec<Counted>,
}

/// Why a stretch was not taken: the partition must be given what follows `classified` first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub classified: Sequence,
}

/// What applying the registry's word brings about.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Configured {
    pub entries: Vec<JournalEntry>,
    /// What becomes of what is pending, if it does not wait.
    pub ends: Option<UnsentEnd>,
}

impl Partition {
    /// A partition whose log says that it is classified so far; then come [`Self::restore`] for
    /// each webhook that the log tells of.
    pub fn new(generation: u32, classified: Sequence, checkpoint: Option<Checkpoint>) -> Self {
        Self {
            generation,
            classified,
            checkpoint,
            routes: HashMap::new(),
            by_project: HashMap::new(),
        }
    }

    pub fn classified(&self) -> Classified {
        Classified {
            position: self.position(self.classified),
            checkpoint: self.checkpoint,
        }
    }

    pub fn history(&self, webhook: WebhookId) -> Option<&ConfigHistory> {
        self.routes.get(&webhook).map(|route| &route.history)
    }

    /// How far the webhook was offered what it is owed.
    pub fn offered(&self, webhook: WebhookId) -> Option<Sequence> {
        self.routes.get(&webhook).map(|route| route.offered)
    }

    /// Takes over what the journal says was applied.
    pub fn restore(&mut self, webhook: &Webhook, applied: &[Applied]) {
        let history = ConfigHistory::restored(applied, webhook);
        self.route(webhook).history = history;
    }

    /// The owner decided that the webhook has this status from `from` on.
    pub fn decided(&mut self, webhook: WebhookId, from: Sequence, status: Status) {
        if let Some(route) = self.routes.get_mut(&webhook) {
            route.history.decide(from, status);
        }
    }

    /// Applies what the registry says of a webhook now, and gives what is to be journaled if that
    /// is news (rule 11). Only the first version reaches back, to the position that its creation
    /// names.
    pub fn configure(&mut self, webhook: &Webhook) -> Configured {
        let mut configured = Configured::default();
        if webhook.deleted && !self.routes.contains_key(&webhook.id) {
            return configured;
        }
        let (next, generation) = (self.classified.next(), self.generation);
        let first_from = webhook.from.sequence;
        let (Some(first), Some(latest)) = (webhook.versions.first(), webhook.versions.last())
        else {
            return configured;
        };
        let classified = self.classified;
        let history = &mut self.route(webhook).history;
        let mut news: Vec<(WebhookVersion, Sequence)> = Vec::new();
        if history.latest().is_none() {
            news.push((first.clone(), first_from));
        }
        let known = history.latest().unwrap_or(first.registry_sequence);
        if known < latest.registry_sequence {
            // Those between are not applied; what one of them lifts is lifted all the same.
            let versions = webhook.versions.iter();
            let lifts = versions
                .filter(|version| version.registry_sequence > known)
                .any(|version| version.lifts);
            let latest = WebhookVersion {
                lifts,
                ..latest.clone()
            };
            news.push((latest, next.max(first_from)));
        }
        for (version, from) in news {
            history.apply(from, &version);
            configured.entries.push(JournalEntry::ConfigApplied {
                webhook: webhook.id,
                registry_sequence: version.registry_sequence,
                from: Position {
                    generation,
                    sequence: from,
                },
                back_through: (from <= classified).then_some(classified),
                lifts: version.lifts,
            });
        }
        if !configured.entries.is_empty() {
            configured.ends = match history.status() {
                Some(status) => ends_pending(status),
                None => Some(UnsentEnd::Skipped(SkipReason::Deleted)),
            };
        }
        configured
    }

    pub fn remove(&mut self, project: ProjectId, webhook: WebhookId) {
        self.routes.remove(&webhook);
        if let Some(webhooks) = self.by_project.get_mut(&project) {
            webhooks.retain(|id| *id != webhook);
            if webhooks.is_empty() {
                self.by_project.remove(&project);
            }
        }
    }

    /// Classifies a stretch, and gives each webhook that is owed something in it an offer with
    /// the events that it names. A stretch that overlaps what was classified gives the rest.
    pub fn take(&mut self, stretch: &Stretch) -> Result<Taken, Gap> {
        if stretch.after > self.classified {
            return Err(Gap {
                classified: self.classified,
            });
        }
        let mut taken = Taken::default();
        if stretch.through <= self.classified {
            return Ok(taken);
        }
        let mut counts = BTreeMap::new();
        for (sequence, event) in &stretch.events {
            if *sequence > self.classified {
                let through = stretch.through;
                self.classify(*sequence, event, through, &mut taken.offers, &mut counts);
            }
        }
        let counted = |((webhook, skipped), count)| Counted {
            webhook,
            skipped,
            count,
        };
        taken.counted = counts.into_iter().map(counted).collect();
        self.classified = stretch.through;
        if let Some((sequence, event)) = stretch.events.last() {
            let seen = Checkpoint {
                position: self.position(*sequence),
                event: event.id,
            };
            let is_later = |known: Checkpoint| known.position < seen.position;
            if self.checkpoint.is_none_or(is_later) {
                self.checkpoint = Some(seen);
            }
        }
        Ok(taken)
    }

    fn classify(
        &mut self,
        sequence: Sequence,
        event: &Arc<Event>,
        through: Sequence,
        offers: &mut Offers,
        counts: &mut BTreeMap<(WebhookId, Option<SkipReason>), u64>,
    ) {
        let Some(webhooks) = self.by_project.get(&event.project) else {
            return;
        };
        for webhook in webhooks {
            let Some(route) = self.routes.get_mut(webhook) else {
                continue;
            };
            let Some(owed) = owed(&route.history, sequence, event) else {
                continue;
            };
            *counts.entry((*webhook, owed.skipped)).or_default() += 1;
            // What is skipped at once is nothing to wake a webhook for.
            if owed.skipped.is_some() {
                continue;
            }
            let after = std::mem::replace(&mut route.offered, through);
            let (offer, events) = offers.entry(*webhook).or_insert_with(|| {
                let offer = Offer {
                    after,
                    through,
                    matches: Vec::new(),
                };
                (offer, Vec::new())
            });
            offer.matches.push(owed);
            events.push(Arc::clone(event));
        }
    }

    /// The webhook of a route that is empty yet is offered what comes after what is classified.
    fn route(&mut self, webhook: &Webhook) -> &mut Route {
        self.routes.entry(webhook.id).or_insert_with(|| {
            self.by_project
                .entry(webhook.project)
                .or_default()
                .push(webhook.id);
            Route {
                history: ConfigHistory::of(webhook.id),
                offered: self.classified,
            }
        })
    }

    fn position(&self, sequence: Sequence) -> Position {
        Position {
            generation: self.generation,
            sequence,
        }
    }
}

/// What an event is to a webhook, as an offer says it.
pub fn owed(history: &ConfigHistory, sequence: Sequence, event: &Event) -> Option<Match> {
    let skipped = match history.classify(sequence, event) {
        Class::NotWanted => return None,
        Class::Accepted => None,
        Class::Skipped(reason) => Some(reason),
    };
    Some(Match {
        sequence,
        event: event.id,
        event_type: event_type_hash(&event.event_type),
        lane: event.lane,
        skipped,
    })
}
