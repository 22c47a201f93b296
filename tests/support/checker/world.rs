//! The records, joined: what each webhook is owed, what the log says of each delivery, and what
//! arrived for it.

use std::collections::{BTreeMap, HashMap, HashSet};

use shared::domain::policy::Policy;
use shared::domain::registry::RegistryEntry;
use shared::domain::webhook::WebhookDefinition;
use shared::ids::{EventId, PartitionId, ProjectId, WebhookId};
use shared::time::Timestamp;

use super::classify::{Class, Config, classify};
use super::findings::{Findings, Invariant};
use super::journal::{Attempt, Fact, PackFacts};
use super::records::{EventLine, FaultKind, JournalContent, JournalLine, Records};
use crate::receiver::recorder::Recorded;

/// The clocks that are compared are one machine's, read in milliseconds.
pub(super) const CLOCK_MS: i64 = 20;
/// How much later than it came a busy receiver may note an arrival.
pub(super) const LAG_MS: i64 = 1_000;
/// After a pause, what a process had begun to send before it goes out within this.
const LATE_MS: i64 = 2_000;

pub(super) struct World<'a> {
    pub(super) records: &'a Records,
    pub(super) by_id: HashMap<EventId, Vec<&'a EventLine>>,
    pub(super) webhooks: BTreeMap<WebhookId, Webhook<'a>>,
    pub(super) partitions: BTreeMap<PartitionId, Partition<'a>>,
    /// Every delivery that the log tells of, by webhook and sequence.
    pub(super) deliveries: HashMap<(WebhookId, u64), Delivery<'a>>,
    /// In the order of their arrival.
    pub(super) arrivals: HashMap<(WebhookId, EventId), Vec<&'a Recorded>>,
}

pub(super) struct Webhook<'a> {
    pub(super) project: ProjectId,
    pub(super) partition: Option<PartitionId>,
    pub(super) configs: Vec<Config<'a>>,
    /// Sequences of what it is owed, ascending.
    pub(super) accepted: Vec<u64>,
    /// And of what it was owed but for its status.
    pub(super) skipped: HashSet<u64>,
}

impl Webhook<'_> {
    /// Of the latest definition.
    pub(super) fn policy(&self) -> Option<&Policy> {
        let definitions = self
            .configs
            .iter()
            .rev()
            .find_map(|config| config.definition);
        definitions.map(|definition| &definition.policy)
    }

    pub(super) fn is_owed(&self, sequence: u64) -> bool {
        self.accepted.binary_search(&sequence).is_ok()
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.configs
            .last()
            .is_some_and(|config| config.definition.is_none())
    }
}

#[derive(Default)]
pub(super) struct Partition<'a> {
    /// In log order.
    pub(super) lines: Vec<&'a JournalLine>,
    pub(super) epochs: Vec<EpochLine>,
}

/// An epoch entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct EpochLine {
    pub(super) sequence: u64,
    pub(super) stored_at: Timestamp,
    /// The owner before had given the partition up.
    pub(super) was_released: bool,
}

/// What the log says of one delivery.
#[derive(Default)]
pub(super) struct Delivery<'a> {
    pub(super) entries: Vec<Logged<'a>>,
}

/// A fact and where it lies.
#[derive(Clone, Copy)]
pub(super) struct Logged<'a> {
    pub(super) line: &'a JournalLine,
    pub(super) pack: &'a PackFacts,
    pub(super) fact: &'a Fact,
}

impl<'a> Delivery<'a> {
    pub(super) fn attempts(&self) -> impl Iterator<Item = (Logged<'a>, &'a Attempt)> {
        self.entries.iter().filter_map(|logged| match logged.fact {
            Fact::Attempted(attempt) => Some((*logged, attempt)),
            Fact::ConfigApplied { .. } | Fact::Ended { .. } | Fact::Released => None,
        })
    }

    pub(super) fn first_end(&self) -> Option<Logged<'a>> {
        let mut ends = self.entries.iter();
        ends.find(|logged| logged.fact.end().is_some()).copied()
    }
}

impl<'a> World<'a> {
    pub(super) fn new(records: &'a Records, findings: &mut Findings) -> Self {
        let mut world = Self {
            records,
            by_id: HashMap::new(),
            webhooks: BTreeMap::new(),
            partitions: BTreeMap::new(),
            deliveries: HashMap::new(),
            arrivals: HashMap::new(),
        };
        for line in &records.events {
            world.by_id.entry(line.event.id).or_default().push(line);
        }
        for line in &records.journal {
            let partition = world.partitions.entry(line.partition).or_default();
            partition.lines.push(line);
        }
        for line in &records.registry {
            world.webhooks.entry(line.webhook).or_insert(Webhook {
                project: line.project,
                partition: None,
                configs: Vec::new(),
                accepted: Vec::new(),
                skipped: HashSet::new(),
            });
        }
        world.fold_epochs();
        world.fold_facts(findings);
        world.classify();
        world.join_arrivals(findings);
        findings.figures.packs = records.journal.len() - findings.figures.epochs;
        world
    }

    fn fold_epochs(&mut self) {
        for partition in self.partitions.values_mut() {
            let mut was_released = false;
            for line in &partition.lines {
                match &line.content {
                    JournalContent::Epoch(_) => {
                        partition.epochs.push(EpochLine {
                            sequence: line.sequence,
                            stored_at: line.stored_at,
                            was_released,
                        });
                        was_released = false;
                    }
                    JournalContent::Pack(pack) => {
                        was_released |= pack.facts.contains(&Fact::Released);
                    }
                }
            }
        }
    }

    /// Facts of packs that count: those at their first occurrence.
    fn fold_facts(&mut self, findings: &mut Findings) {
        let definitions = definitions(self.records);
        let partitions = std::mem::take(&mut self.partitions);
        for (id, partition) in &partitions {
            findings.figures.epochs += partition.epochs.len();
            for (line, pack) in first_occurrences(partition) {
                for fact in &pack.facts {
                    self.fold_fact(*id, &definitions, Logged { line, pack, fact }, findings);
                }
            }
        }
        self.partitions = partitions;
    }

    fn fold_fact(
        &mut self,
        partition: PartitionId,
        definitions: &Definitions<'a>,
        logged: Logged<'a>,
        findings: &mut Findings,
    ) {
        let (webhook, sequence) = match logged.fact {
            Fact::ConfigApplied { webhook, .. } => (*webhook, None),
            Fact::Attempted(attempt) => (attempt.webhook, Some(attempt.sequence)),
            Fact::Ended {
                webhook, sequence, ..
            } => (*webhook, Some(*sequence)),
            Fact::Released => return,
        };
        let Some(state) = self.webhooks.get_mut(&webhook) else {
            let detail = format!("{partition:?} tells of {webhook}, which REGISTRY lacks");
            findings.add(Invariant::Isolation, detail);
            return;
        };
        let own = *state.partition.get_or_insert(partition);
        if own != partition {
            let detail = format!("{webhook} is told of in {own:?} and in {partition:?}");
            findings.add(Invariant::Isolation, detail);
        }
        if let Some(sequence) = sequence {
            let delivery = self.deliveries.entry((webhook, sequence)).or_default();
            delivery.entries.push(logged);
        } else if let Fact::ConfigApplied {
            registry_sequence,
            from,
            ..
        } = logged.fact
        {
            let Some((created_from, definition)) =
                definitions.get(&(webhook, *registry_sequence)).copied()
            else {
                let detail = format!("{webhook} applies {registry_sequence}, not in REGISTRY");
                findings.add(Invariant::ClassifiedOnce, detail);
                return;
            };
            let config = Config {
                registry_sequence: *registry_sequence,
                from: *from,
                definition,
                stored_at: logged.line.stored_at,
                applied_at: logged.pack.at,
            };
            state.apply(webhook, config, created_from, findings);
        }
    }

    fn classify(&mut self) {
        let mut by_project: HashMap<ProjectId, Vec<&EventLine>> = HashMap::new();
        for line in &self.records.events {
            by_project.entry(line.event.project).or_default().push(line);
        }
        for webhook in self.webhooks.values_mut() {
            for line in by_project.get(&webhook.project).into_iter().flatten() {
                match classify(&webhook.configs, line.sequence, &line.event) {
                    Class::Accepted => webhook.accepted.push(line.sequence),
                    Class::Skipped => {
                        webhook.skipped.insert(line.sequence);
                    }
                    Class::NotWanted => {}
                }
            }
        }
    }

    fn join_arrivals(&mut self, findings: &mut Findings) {
        let record = &self.records.receiver;
        findings.figures.arrivals = record.requests.len();
        for request in &record.requests {
            let path = record.paths.get(request.path).map_or("", String::as_str);
            match (self.records.endpoints.get(path), request.event) {
                (Some(webhook), Some(event)) => {
                    let arrivals = self.arrivals.entry((*webhook, event)).or_default();
                    arrivals.push(request);
                }
                (webhook, event) => {
                    let detail = format!("arrival at {path} ({webhook:?}) of {event:?}");
                    findings.add(Invariant::Isolation, detail);
                }
            }
        }
    }

    /// Whether the webhook's partition changed its owner in this span.
    pub(super) fn has_changed(&self, webhook: WebhookId, from: Timestamp, to: Timestamp) -> bool {
        let webhook = self.webhooks.get(&webhook);
        let partition = webhook.and_then(|webhook| webhook.partition);
        let partition = partition.and_then(|id| self.partitions.get(&id));
        let epochs = partition.map_or(&[][..], |partition| &partition.epochs);
        let within = |epoch: &EpochLine| from <= epoch.stored_at && epoch.stored_at <= to;
        epochs.iter().any(within)
    }

    /// Whether what arrived then may come from a dispatcher that was paused and has just been
    /// resumed: nobody can call back what it had handed to its socket.
    pub(super) fn may_be_late(&self, at: Timestamp) -> bool {
        self.records.faults.iter().any(|fault| {
            let resumed = (fault.kind == FaultKind::DispatcherPaused)
                .then_some(fault.until)
                .flatten();
            resumed.is_some_and(|resumed| (0..=LATE_MS).contains(&at.millis_since(resumed)))
        })
    }

    /// Whether the arrival may be what the attempt sent, by their times.
    pub(super) fn is_arrival_of(&self, attempt: &Attempt, arrival: &Recorded) -> bool {
        let came_at = self.records.receiver.wall(arrival.at_us);
        let since_ms = came_at.millis_since(attempt.started_at);
        (-CLOCK_MS..=i64::from(attempt.latency_ms) + CLOCK_MS).contains(&since_ms)
    }

    pub(super) fn sequence_of(&self, event: EventId) -> Option<u64> {
        Some(self.by_id.get(&event)?.first()?.sequence)
    }
}

impl<'a> Webhook<'a> {
    /// A new owner says again what holds, so that a repeat must say the same.
    fn apply(
        &mut self,
        id: WebhookId,
        config: Config<'a>,
        created_from: Option<u64>,
        findings: &mut Findings,
    ) {
        let number = config.registry_sequence;
        let same = |other: &&Config<'_>| other.registry_sequence == number;
        if let Some(before) = self.configs.iter().find(same) {
            if before.from != config.from {
                let (first, then) = (before.from, config.from);
                let detail = format!("{id} applies {number} from {first} and from {then}");
                findings.add(Invariant::ClassifiedOnce, detail);
            }
            return;
        }
        if self
            .configs
            .last()
            .is_some_and(|last| last.registry_sequence > number)
        {
            let detail = format!("{id} applies {number} after a later one");
            findings.add(Invariant::ClassifiedOnce, detail);
            return;
        }
        if created_from.is_some_and(|from| from != config.from) {
            let from = config.from;
            let detail = format!("{id} was created from {created_from:?} and applied from {from}");
            findings.add(Invariant::ClassifiedOnce, detail);
        }
        self.configs.push(config);
    }
}

/// By webhook and registry sequence: from where a creation reaches, and what was defined.
type Definitions<'a> = HashMap<(WebhookId, u64), (Option<u64>, Option<&'a WebhookDefinition>)>;

fn definitions(records: &Records) -> Definitions<'_> {
    let of = |entry| match entry {
        &RegistryEntry::WebhookCreated {
            from,
            ref definition,
        } => Some((Some(from.sequence.0), Some(definition))),
        RegistryEntry::WebhookUpdated(definition) => Some((None, Some(definition))),
        RegistryEntry::WebhookDeleted => Some((None, None)),
        RegistryEntry::ProjectCreated { .. }
        | RegistryEntry::ProjectDeleted
        | RegistryEntry::DataKeyCreated { .. }
        | RegistryEntry::ApiKeyCreated { .. }
        | RegistryEntry::ApiKeyRevoked
        | RegistryEntry::AccountCreated(_)
        | RegistryEntry::AccountUpdated(_)
        | RegistryEntry::AccountDeleted(_)
        | RegistryEntry::SigningSecretAdded { .. } => None,
    };
    let lines = records.registry.iter();
    lines
        .filter_map(|line| Some(((line.webhook, line.sequence), of(&line.record.entry)?)))
        .collect()
}

/// Packs in log order, without repeats and without those of an owner that was deposed.
pub(super) fn first_occurrences<'a>(
    partition: &Partition<'a>,
) -> impl Iterator<Item = (&'a JournalLine, &'a PackFacts)> {
    let mut last = None;
    partition.lines.iter().filter_map(move |line| {
        let JournalContent::Pack(pack) = &line.content else {
            return None;
        };
        let place = Some((pack.epoch, pack.number));
        if place <= last {
            return None;
        }
        last = place;
        Some((*line, pack))
    })
}
