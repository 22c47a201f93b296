//! Stand-ins for the streams, with the server's rules.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use dispatcher::core::partition::Stretch;
use shared::codec;
use shared::domain::event::Event;
use shared::domain::filter::Selection;
use shared::domain::journal::Pack;
use shared::domain::policy::Policy;
use shared::domain::webhook::{
    Dialect, Endpoint, Status, Webhook, WebhookDefinition, WebhookVersion,
};
use shared::ids::{Position, ProjectId, SecretId, Sequence, WebhookId};
use shared::secret::new_signing_secret;
use shared::signing::{Signer, Signers};
use shared::time::Timestamp;

/// EVENTS: this partition's, and others' in between.
#[derive(Default)]
pub(crate) struct Events {
    /// By sequence less 1; `None` is another partition's. What the stream has dropped stays here,
    /// for those who check.
    log: Vec<Option<Arc<Event>>>,
    stored_at: Vec<i64>,
    age_max: Option<i64>,
    dropped: u64,
}

impl Events {
    pub(crate) fn new(age_max: Option<i64>) -> Self {
        Self {
            age_max,
            ..Self::default()
        }
    }

    pub(crate) fn publish(&mut self, now: i64, event: Option<Arc<Event>>) -> u64 {
        self.log.push(event);
        self.stored_at.push(now);
        self.last()
    }

    /// Drops what is too old.
    pub(crate) fn age(&mut self, now: i64) {
        if let Some(age_max) = self.age_max {
            self.dropped = self.older_than(now - age_max);
        }
    }

    /// The first that the stream still has, if not what comes after it.
    pub(crate) fn first(&self) -> u64 {
        self.dropped + 1
    }

    /// Everything at or below has reached nine tenths of its age.
    pub(crate) fn horizon(&self, now: i64) -> u64 {
        self.age_max
            .map_or(0, |age_max| self.older_than(now - age_max / 10 * 9))
    }

    fn older_than(&self, at: i64) -> u64 {
        self.stored_at.partition_point(|stored| *stored < at) as u64
    }

    /// What a sender finds.
    pub(crate) fn fetch(&self, sequence: u64) -> Option<&Arc<Event>> {
        (sequence > self.dropped).then(|| self.get(sequence))?
    }

    pub(crate) fn last(&self) -> u64 {
        self.log.len() as u64
    }

    /// The last of this partition.
    pub(crate) fn last_ours(&self) -> u64 {
        self.log
            .iter()
            .rposition(Option::is_some)
            .map_or(0, |index| index as u64 + 1)
    }

    pub(crate) fn get(&self, sequence: u64) -> Option<&Arc<Event>> {
        self.log
            .get(usize::try_from(sequence.checked_sub(1)?).ok()?)?
            .as_ref()
    }

    /// What lies in (after, through].
    pub(crate) fn range(&self, after: u64, through: u64) -> Vec<(Sequence, Arc<Event>)> {
        (after + 1..=through.min(self.last()))
            .filter_map(|sequence| Some((Sequence(sequence), Arc::clone(self.get(sequence)?))))
            .collect()
    }

    /// A read of at most so many events, of one project or of all.
    pub(crate) fn stretch(
        &self,
        (after, known): (Sequence, Sequence),
        project: Option<ProjectId>,
        most: usize,
    ) -> Stretch {
        let mut events = self.range(after.0.max(self.dropped), known.0);
        events.retain(|(_, event)| project.is_none_or(|project| event.project == project));
        let through = match events.get(most) {
            Some(_) => events[most - 1].0,
            None => known.max(after),
        };
        events.truncate(most);
        Stretch {
            after,
            through,
            events,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Packs,
    Epoch,
}

/// A message on its way into JOURNAL.
#[derive(Clone, Debug)]
pub(crate) struct Append {
    pub(crate) subject: Subject,
    pub(crate) id: String,
    pub(crate) bytes: Vec<u8>,
    /// The last sequence of the epoch's subject.
    pub(crate) expected: Option<u64>,
    /// Others wait for what it may say.
    pub(crate) may_release: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) sequence: u64,
    pub(crate) is_duplicate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// 10071.
    Conflict,
    /// 10164.
    Busy,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) sequence: u64,
    pub(crate) subject: Subject,
    pub(crate) id: String,
    pub(crate) bytes: Vec<u8>,
    /// What the bytes say, if that is a pack.
    pub(crate) pack: Option<Arc<Pack>>,
    at: i64,
}

/// JOURNAL.
pub(crate) struct Journal {
    messages: Vec<Message>,
    last: u64,
    refuses_before_duplicates: bool,
}

const DEDUP_WINDOW_MS: i64 = 120_000;

impl Journal {
    pub(crate) fn new(refuses_before_duplicates: bool) -> Self {
        Self {
            messages: Vec::new(),
            last: 0,
            refuses_before_duplicates,
        }
    }

    pub(crate) fn append(&mut self, now: i64, append: &Append) -> Result<Appended, Refused> {
        let expected = append.expected;
        let is_refused = expected.is_some_and(|expected| expected != self.last_epoch());
        let duplicate = self
            .messages
            .iter()
            .rev()
            .take_while(|message| now - message.at <= DEDUP_WINDOW_MS)
            .find(|message| message.id == append.id)
            .map(|message| message.sequence);
        if is_refused && (self.refuses_before_duplicates || duplicate.is_none()) {
            return Err(Refused::Conflict);
        }
        if let Some(sequence) = duplicate {
            let is_duplicate = true;
            return Ok(Appended {
                sequence,
                is_duplicate,
            });
        }
        // Other partitions' packs lie in between.
        self.last += 1 + u64::from(now % 3 == 0);
        self.messages.push(Message {
            sequence: self.last,
            subject: append.subject,
            id: append.id.clone(),
            bytes: append.bytes.clone(),
            pack: (append.subject == Subject::Packs)
                .then(|| Arc::new(codec::decode_pack(&append.bytes).unwrap())),
            at: now,
        });
        Ok(Appended {
            sequence: self.last,
            is_duplicate: false,
        })
    }

    fn last_epoch(&self) -> u64 {
        self.last_of(Subject::Epoch).map_or(0, |last| last.sequence)
    }

    pub(crate) fn last_of(&self, subject: Subject) -> Option<&Message> {
        self.messages
            .iter()
            .rev()
            .find(|message| message.subject == subject)
    }

    pub(crate) fn message(&self, sequence: u64) -> Option<&Message> {
        let index = self
            .messages
            .binary_search_by_key(&sequence, |message| message.sequence);
        self.messages.get(index.ok()?)
    }

    pub(crate) fn after(&self, sequence: u64) -> impl Iterator<Item = &Message> {
        self.messages
            .iter()
            .filter(move |message| message.sequence > sequence)
    }
}

/// SNAPSHOTS of the one partition: two kept, newest last.
#[derive(Default)]
pub(crate) struct Snapshots {
    kept: Vec<Snapshot>,
}

#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) epoch: u64,
    pub(crate) journal: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Snapshots {
    /// A lower one never replaces a higher one.
    pub(crate) fn put(&mut self, snapshot: Snapshot) {
        let rank = |snapshot: &Snapshot| (snapshot.epoch, snapshot.journal);
        if self
            .kept
            .last()
            .is_none_or(|newest| rank(newest) < rank(&snapshot))
        {
            self.kept.push(snapshot);
            let extra = self.kept.len().saturating_sub(2);
            self.kept.drain(..extra);
        }
    }

    /// `back` 0 is the newest.
    pub(crate) fn get(&self, back: usize) -> Option<&Snapshot> {
        self.kept.iter().rev().nth(back)
    }
}

/// Which events a webhook wants, in the checker's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    All,
    Resource(&'static str),
}

/// What was decided about a webhook.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(crate) webhook: WebhookId,
    pub(crate) project: ProjectId,
    pub(crate) wants: Wants,
    /// `None`: deleted.
    pub(crate) status: Option<Status>,
    pub(crate) lifts: bool,
    pub(crate) dialect: Dialect,
    pub(crate) policy: Policy,
    /// Of the creation.
    pub(crate) from: u64,
}

impl Decided {
    /// Whether an event that is about such a record is to be delivered.
    pub(crate) fn accepts(&self, resource: &str) -> bool {
        let is_wanted = match self.wants {
            Wants::All => true,
            Wants::Resource(wanted) => wanted == resource,
        };
        is_wanted && self.status == Some(Status::Enabled)
    }
}

/// REGISTRY: sequences are index + 1.
#[derive(Default)]
pub(crate) struct Registry {
    log: Vec<Decided>,
    folded: BTreeMap<WebhookId, Vec<Arc<Webhook>>>,
}

impl Registry {
    pub(crate) fn append(&mut self, now: i64, decided: Decided) -> u64 {
        let sequence = self.last() + 1;
        let versions = self.folded.entry(decided.webhook).or_default();
        let mut webhook = match versions.last() {
            Some(last) => (**last).clone(),
            None => template(&decided, now),
        };
        let at = Timestamp::from_millis(now);
        webhook.sequence = Sequence(sequence);
        webhook.updated_at = at;
        webhook.deleted = decided.status.is_none();
        webhook.definition.policy = decided.policy.clone();
        if let Some(status) = decided.status {
            webhook.definition.status = status;
        }
        webhook.versions.push(WebhookVersion {
            registry_sequence: Sequence(sequence),
            at,
            selection: selection(decided.wants),
            status: decided.status,
            lifts: decided.lifts,
        });
        versions.push(Arc::new(webhook));
        self.log.push(decided);
        sequence
    }

    pub(crate) fn last(&self) -> u64 {
        self.log.len() as u64
    }

    pub(crate) fn get(&self, sequence: u64) -> Option<&Decided> {
        self.log
            .get(usize::try_from(sequence.checked_sub(1)?).ok()?)
    }

    /// As one sees it who has folded through `seen`.
    pub(crate) fn webhook(&self, id: WebhookId, seen: u64) -> Option<&Arc<Webhook>> {
        let versions = self.folded.get(&id)?.iter().rev();
        versions
            .into_iter()
            .find(|webhook| webhook.sequence.0 <= seen)
    }

    pub(crate) fn webhooks(&self) -> impl Iterator<Item = WebhookId> {
        self.folded.keys().copied()
    }

    /// All that was ever decided about a webhook.
    pub(crate) fn of(&self, webhook: WebhookId) -> impl Iterator<Item = &Decided> {
        self.log
            .iter()
            .filter(move |decided| decided.webhook == webhook)
    }

    /// The last decision about each webhook.
    pub(crate) fn latest(&self) -> BTreeMap<WebhookId, (u64, &Decided)> {
        let numbered = (1..).zip(&self.log);
        numbered
            .map(|(sequence, decided)| (decided.webhook, (sequence, decided)))
            .collect()
    }
}

static SELECTIONS: LazyLock<[Arc<Selection>; 3]> = LazyLock::new(|| {
    ["*", "hris_employees.*", "ats_jobs.*"].map(|pattern| {
        let json = format!("[{pattern:?}]");
        Arc::new(Selection::new(serde_json::from_str(&json).unwrap()).unwrap())
    })
});

fn selection(wants: Wants) -> Arc<Selection> {
    let index = match wants {
        Wants::All => 0,
        Wants::Resource("hris_employees") => 1,
        Wants::Resource(_) => 2,
    };
    Arc::clone(&SELECTIONS[index])
}

static SIGNERS: LazyLock<Arc<Signers>> = LazyLock::new(|| {
    let active = Signer::new(&new_signing_secret(&[1; 32])).unwrap();
    let previous = None;
    Arc::new(Signers { active, previous })
});

fn template(decided: &Decided, now: i64) -> Webhook {
    let at = Timestamp::from_millis(now);
    Webhook {
        id: decided.webhook,
        project: decided.project,
        definition: WebhookDefinition {
            dialect: decided.dialect,
            sealed_endpoint: Vec::new(),
            selection: (*selection(decided.wants)).clone(),
            description: None,
            verification_required: false,
            verified_at: None,
            policy: decided.policy.clone(),
            status: Status::Enabled,
            status_reason: None,
            active_secret: SecretId::from_bytes([6; 16]),
            previous_secret: None,
        },
        endpoint: Endpoint {
            url: serde_json::from_str("\"https://example.com/\"").unwrap(),
            headers: Vec::new(),
            token: None,
        },
        secrets: Vec::new(),
        signers: Some(Arc::clone(&SIGNERS)),
        created_at: at,
        updated_at: at,
        sequence: Sequence(0),
        from: Position {
            generation: 1,
            sequence: Sequence(decided.from),
        },
        versions: Vec::new(),
        decided: None,
        deleted: false,
    }
}
