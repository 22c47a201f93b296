//! The records, joined: what each webhook is owed, what the log says of each delivery, and what
//! arrived for it.

use std::collections::{BTreeMap, HashMap};

use shared::domain::journal::SkipReason;
use shared::domain::policy::Policy;
use shared::domain::registry::RegistryEntry;
use shared::domain::webhook::{Status, WebhookDefinition};
use shared::ids::{EventId, EventTypeHash, LaneHash, PartitionId, ProjectId, WebhookId};
use shared::partition::event_type_hash;
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
    /// Events from the first through the second are counted by an entry of their own.
    pub(super) back: Option<(u64, u64)>,
    /// What it is owed, ascending.
    pub(super) owed: Vec<Owed>,
    /// When its breaker was open.
    pub(super) open: Vec<Open>,
}

/// An event that a webhook is owed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    pub(super) sequence: u64,
    pub(super) event: EventId,
    pub(super) lane: LaneHash,
    /// Why it is not sent, if its status kept it from being sent.
    pub(super) skipped: Option<SkipReason>,
}

/// A time in which a webhook's breaker is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    pub(super) at: Timestamp,
    pub(super) until: Option<Timestamp>,
}

impl Open {
    pub(super) fn contains(&self, at: Timestamp) -> bool {
        at.millis_since(self.at) >= -CLOCK_MS
            && self
                .until
                .is_none_or(|until| at.millis_since(until) <= CLOCK_MS)
    }
}

impl Webhook<'_> {
    /// Of the latest definition.
    pub(super) fn policy(&self) -> Option<&Policy> {
        let configs = self.configs.iter().rev();
        let (definition, _) = configs.into_iter().find_map(|config| config.definition)?;
        Some(&definition.policy)
    }

    /// What is to be sent of what it is owed.
    pub(super) fn is_accepted(&self, sequence: u64) -> bool {
        let place = self
            .owed
            .binary_search_by_key(&sequence, |owed| owed.sequence);
        let owed = place.ok().and_then(|place| self.owed.get(place));
        owed.is_some_and(|owed| owed.skipped.is_none())
    }

    pub(super) fn was_open(&self, at: Timestamp) -> bool {
        self.open.iter().any(|open| open.contains(at))
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
            Fact::ConfigApplied { .. }
            | Fact::CountedBack { .. }
            | Fact::Ended { .. }
            | Fact::PendingEnded { .. }
            | Fact::BreakerOpened { .. }
            | Fact::BreakerClosed { .. }
            | Fact::Decided { .. }
            | Fact::Settled { .. }
            | Fact::Released
            | Fact::NotJudged => None,
        })
    }

    /// The end by an entry of its own.
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
                back: None,
                owed: Vec::new(),
                open: Vec::new(),
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
        let Some(webhook) = logged.fact.webhook() else {
            return;
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
        if let Some(sequence) = logged.fact.sequence() {
            let delivery = self.deliveries.entry((webhook, sequence)).or_default();
            delivery.entries.push(logged);
        }
        state.fold(webhook, definitions, logged, findings);
    }

    fn classify(&mut self) {
        let mut by_project: HashMap<ProjectId, Vec<&EventLine>> = HashMap::new();
        for line in &self.records.events {
            by_project.entry(line.event.project).or_default().push(line);
        }
        for webhook in self.webhooks.values_mut() {
            for line in by_project.get(&webhook.project).into_iter().flatten() {
                let skipped = match classify(&webhook.configs, line.sequence, &line.event) {
                    Class::Accepted => None,
                    Class::Skipped(reason) => Some(reason),
                    Class::NotWanted => continue,
                };
                webhook.owed.push(Owed {
                    sequence: line.sequence,
                    event: line.event.id,
                    lane: line.event.lane,
                    skipped,
                });
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

    /// Whether the webhook's partition was lost by an owner in this span: one that gave it up in
    /// good order sends nothing any more.
    pub(super) fn has_changed(&self, webhook: WebhookId, from: Timestamp, to: Timestamp) -> bool {
        let webhook = self.webhooks.get(&webhook);
        let partition = webhook.and_then(|webhook| webhook.partition);
        let partition = partition.and_then(|id| self.partitions.get(&id));
        let epochs = partition.map_or(&[][..], |partition| &partition.epochs);
        let within = |epoch: &EpochLine| {
            !epoch.was_released && from <= epoch.stored_at && epoch.stored_at <= to
        };
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

    pub(super) fn is_of_type(&self, event: EventId, event_type: EventTypeHash) -> bool {
        let line = self.by_id.get(&event).and_then(|lines| lines.first());
        line.is_some_and(|line| event_type_hash(&line.event.event_type) == event_type)
    }
}

impl<'a> Webhook<'a> {
    /// What a fact says of configuration and breaker.
    fn fold(
        &mut self,
        id: WebhookId,
        definitions: &Definitions<'a>,
        logged: Logged<'a>,
        findings: &mut Findings,
    ) {
        match logged.fact {
            Fact::ConfigApplied {
                registry_sequence,
                from,
                back_through,
                lifts,
                ..
            } => {
                let number = *registry_sequence;
                let Some(defined) = definitions.get(&(id, number)).copied() else {
                    let detail = format!("{id} applies {number}, not in REGISTRY");
                    findings.add(Invariant::ClassifiedOnce, detail);
                    return;
                };
                let decided = self.configs.last().and_then(|last| last.decided);
                let config = Config {
                    registry_sequence: number,
                    from: *from,
                    definition: defined.definition,
                    decided: decided.filter(|_| !lifts),
                    place: logged.line.sequence,
                    stored_at: logged.line.stored_at,
                    applied_at: logged.pack.at,
                };
                if self.configs.is_empty() {
                    self.back = back_through.map(|through| (*from, through));
                }
                if self.apply(id, config, defined.created_from, findings) && *lifts {
                    self.closed(logged.pack.at);
                }
            }
            Fact::Decided { from, status, .. } => {
                if let Some(last) = self.configs.last().copied() {
                    self.configs.push(Config {
                        from: *from,
                        decided: Some(*status),
                        place: logged.line.sequence,
                        stored_at: logged.line.stored_at,
                        applied_at: logged.pack.at,
                        ..last
                    });
                }
            }
            Fact::BreakerOpened { at, .. } => {
                if self.open.last().is_some_and(|open| open.until.is_none()) {
                    let detail = format!("{id} is opened at {at}, and was open");
                    findings.add(Invariant::Breaker, detail);
                }
                let until = None;
                self.open.push(Open { at: *at, until });
            }
            Fact::BreakerClosed { at, .. } => self.closed(*at),
            Fact::CountedBack { .. }
            | Fact::Attempted(_)
            | Fact::Ended { .. }
            | Fact::PendingEnded { .. }
            | Fact::Settled { .. }
            | Fact::Released
            | Fact::NotJudged => {}
        }
    }

    fn closed(&mut self, at: Timestamp) {
        if let Some(open) = self.open.last_mut() {
            open.until.get_or_insert(at);
        }
    }

    /// Whether it is news; a repeat must say the same.
    fn apply(
        &mut self,
        id: WebhookId,
        config: Config<'a>,
        created_from: Option<u64>,
        findings: &mut Findings,
    ) -> bool {
        let number = config.registry_sequence;
        let same = |other: &&Config<'_>| other.registry_sequence == number;
        if let Some(before) = self.configs.iter().find(same) {
            if before.from != config.from {
                let (first, then) = (before.from, config.from);
                let detail = format!("{id} applies {number} from {first} and from {then}");
                findings.add(Invariant::ClassifiedOnce, detail);
            }
            return false;
        }
        if self
            .configs
            .last()
            .is_some_and(|last| last.registry_sequence > number)
        {
            let detail = format!("{id} applies {number} after a later one");
            findings.add(Invariant::ClassifiedOnce, detail);
            return false;
        }
        if created_from.is_some_and(|from| from != config.from) {
            let from = config.from;
            let detail = format!("{id} was created from {created_from:?} and applied from {from}");
            findings.add(Invariant::ClassifiedOnce, detail);
        }
        self.configs.push(config);
        true
    }
}

/// What REGISTRY says of a webhook from one of its entries on.
#[derive(Clone, Copy)]
struct Defined<'a> {
    /// Of a creation: from where it reaches.
    created_from: Option<u64>,
    /// `None`: deleted.
    definition: Option<(&'a WebhookDefinition, Status)>,
}

/// By webhook and registry sequence.
type Definitions<'a> = HashMap<(WebhookId, u64), Defined<'a>>;

fn definitions(records: &Records) -> Definitions<'_> {
    let mut definitions = Definitions::new();
    let mut latest: HashMap<WebhookId, (&WebhookDefinition, Status)> = HashMap::new();
    for line in &records.registry {
        let (created_from, definition) = match &line.record.entry {
            RegistryEntry::WebhookCreated { from, definition } => {
                (Some(from.sequence.0), Some((definition, definition.status)))
            }
            RegistryEntry::WebhookUpdated(definition) => {
                (None, Some((definition, definition.status)))
            }
            RegistryEntry::WebhookStatusSet { status, .. }
            | RegistryEntry::WebhookVerified { status } => {
                let latest = latest.get(&line.webhook);
                (None, latest.map(|(definition, _)| (*definition, *status)))
            }
            RegistryEntry::SigningSecretDeleted { .. } => {
                (None, latest.get(&line.webhook).copied())
            }
            RegistryEntry::WebhookDeleted => (None, None),
            RegistryEntry::ProjectCreated { .. }
            | RegistryEntry::ProjectDeleted
            | RegistryEntry::DataKeyCreated { .. }
            | RegistryEntry::ApiKeyCreated { .. }
            | RegistryEntry::ApiKeyRevoked
            | RegistryEntry::AccountCreated(_)
            | RegistryEntry::AccountUpdated(_)
            | RegistryEntry::AccountDeleted(_)
            | RegistryEntry::SigningSecretAdded { .. }
            | RegistryEntry::SigningSecretErased
            | RegistryEntry::DataKeyResealed { .. }
            | RegistryEntry::Erased
            | RegistryEntry::ProjectErased { .. } => continue,
        };
        if let Some(defined) = definition {
            latest.insert(line.webhook, defined);
        }
        let defined = Defined {
            created_from,
            definition,
        };
        definitions.insert((line.webhook, line.sequence), defined);
    }
    definitions
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
