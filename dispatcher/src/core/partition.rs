//! A partition: how far it is classified, which webhooks it has, and what each is offered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use shared::domain::event::Event;
use shared::domain::journal::{Checkpoint, JournalEntry};
use shared::domain::webhook::{Webhook, WebhookVersion};
use shared::ids::{Position, ProjectId, Sequence, WebhookId};

use super::classify::{Class, ConfigHistory};
use super::commits::Classified;
use super::delivery::{Match, Offer};
use super::fold::PartitionFold;

/// The state of an owned partition.
#[derive(Debug)]
pub struct Partition {
    generation: u32,
    /// Every event at or below is classified; what a new configuration starts after.
    classified: Sequence,
    checkpoint: Option<Checkpoint>,
    /// How far events were read here; behind `classified` only while a takeover recounts.
    scanned: Sequence,
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

/// Why a stretch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The partition must be given what follows this first.
    pub scanned: Sequence,
}

impl Partition {
    /// As the fold left it, without webhooks yet; then come [`Self::restore`] for each of them and
    /// [`Self::start_scan`].
    pub fn new(generation: u32, fold: &PartitionFold) -> Self {
        Self {
            generation,
            classified: fold
                .classified
                .map_or(Sequence(0), |position| position.sequence),
            checkpoint: fold.checkpoint,
            scanned: Sequence(0),
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

    pub fn scanned(&self) -> Sequence {
        self.scanned
    }

    /// Starts reading after `origin`: all of it is older than anything a webhook here wants.
    pub fn start_scan(&mut self, origin: Sequence) {
        self.scanned = self.scanned.max(origin);
        self.classified = self.classified.max(self.scanned);
        for route in self.routes.values_mut() {
            route.offered = self.scanned;
        }
    }

    /// The earliest position that a webhook here starts after, if there is a webhook.
    pub fn earliest_start(&self) -> Option<Sequence> {
        self.routes
            .values()
            .filter(|route| !route.history.is_deleted())
            .filter_map(|route| route.history.start())
            .map(Sequence::previous)
            .min()
    }

    pub fn history(&self, webhook: WebhookId) -> Option<&ConfigHistory> {
        self.routes.get(&webhook).map(|route| &route.history)
    }

    /// Takes over the configurations that JOURNAL says hold. What it has forgotten by age held
    /// for longer than EVENTS keeps an event: the last version before the first that it still
    /// tells of, or the last of all, holds from the beginning.
    pub fn restore(&mut self, webhook: &Webhook, configs: &[(Sequence, Position)]) {
        let first_told = configs
            .first()
            .map(|(registry_sequence, _)| *registry_sequence);
        let forgotten = webhook.versions.iter().rev().find(|version| {
            first_told.is_none_or(|first_told| version.registry_sequence < first_told)
        });
        let route = self.route(webhook);
        if let Some(version) = forgotten {
            let from = webhook.from.sequence;
            route
                .history
                .apply(version.registry_sequence, from, Some(version));
        }
        for (registry_sequence, from) in configs {
            let version = webhook.version(*registry_sequence);
            route
                .history
                .apply(*registry_sequence, from.sequence, version);
        }
    }

    /// What holds for a webhook, to be said again by a new owner: JOURNAL forgets by age.
    pub fn restated(&self, webhook: WebhookId) -> Vec<JournalEntry> {
        let generation = self.generation;
        let stated = |(registry_sequence, from)| JournalEntry::ConfigApplied {
            webhook,
            registry_sequence,
            from: Position {
                generation,
                sequence: from,
            },
        };
        self.history(webhook)
            .map(|history| history.applied().map(stated).collect())
            .unwrap_or_default()
    }

    /// Applies what the registry says of a webhook now, and gives what is to be journaled if that
    /// is news (rule 11). Only the first version reaches back, to the position that its creation
    /// names.
    pub fn configure(&mut self, webhook: &Webhook) -> Option<Vec<JournalEntry>> {
        let (next, generation) = (self.classified.next(), self.generation);
        if webhook.deleted && !self.routes.contains_key(&webhook.id) {
            return None;
        }
        let first_from = webhook.from.sequence;
        let (first, latest) = (webhook.versions.first()?, webhook.versions.last()?);
        let route = self.route(webhook);
        let mut news: Vec<(&WebhookVersion, Sequence)> = Vec::new();
        if route.history.latest().is_none() {
            news.push((first, first_from));
        }
        let known = route.history.latest().unwrap_or(first.registry_sequence);
        if known < latest.registry_sequence {
            news.push((latest, next.max(first_from)));
        }
        let apply = |(version, from): (&WebhookVersion, Sequence)| {
            let registry_sequence = version.registry_sequence;
            route.history.apply(registry_sequence, from, Some(version));
            JournalEntry::ConfigApplied {
                webhook: webhook.id,
                registry_sequence,
                from: Position {
                    generation,
                    sequence: from,
                },
            }
        };
        let entries: Vec<JournalEntry> = news.into_iter().map(apply).collect();
        (!entries.is_empty()).then_some(entries)
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
    /// the events that it names. A stretch that overlaps what was scanned gives the rest.
    pub fn take(&mut self, stretch: &Stretch) -> Result<Offers, Gap> {
        if stretch.after > self.scanned {
            return Err(Gap {
                scanned: self.scanned,
            });
        }
        let mut offers = BTreeMap::new();
        if stretch.through <= self.scanned {
            return Ok(offers);
        }
        for (sequence, event) in &stretch.events {
            if *sequence > self.scanned {
                self.classify(*sequence, event, stretch.through, &mut offers);
            }
        }
        self.scanned = stretch.through;
        self.classified = self.classified.max(self.scanned);
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
        Ok(offers)
    }

    fn classify(
        &mut self,
        sequence: Sequence,
        event: &Arc<Event>,
        through: Sequence,
        offers: &mut Offers,
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

    /// The webhook of a route that is empty yet is offered what comes after the scan.
    fn route(&mut self, webhook: &Webhook) -> &mut Route {
        self.routes.entry(webhook.id).or_insert_with(|| {
            self.by_project
                .entry(webhook.project)
                .or_default()
                .push(webhook.id);
            Route {
                history: ConfigHistory::default(),
                offered: self.scanned,
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
        lane: event.lane,
        skipped,
    })
}
