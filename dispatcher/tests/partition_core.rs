//! A partition's classification: by the configuration that held at each position, once, and with
//! offers that leave no gap.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may fail loudly"
)]

use std::sync::Arc;

use bytes::Bytes;
use dispatcher::core::classify::ConfigHistory;
use dispatcher::core::overview::Recount;
use dispatcher::core::partition::{Gap, Partition, Stretch, owed};
use shared::domain::event::{Event, EventType, Source};
use shared::domain::filter::Selection;
use shared::domain::journal::{JournalEntry, SkipReason};
use shared::domain::policy::Policy;
use shared::domain::state::{Applied, Failing, Rule, WebhookState};
use shared::domain::webhook::{
    Dialect, Endpoint, Status, Webhook, WebhookDefinition, WebhookVersion,
};
use shared::ids::*;
use shared::secret::new_signing_secret;
use shared::signing::{Signer, Signers};
use shared::time::Timestamp;

const PROJECT: ProjectId = ProjectId::from_bytes([1; 16]);
const WEBHOOK: WebhookId = WebhookId::from_bytes([4; 16]);

fn selection(pattern: &str) -> Selection {
    let json = format!("[{pattern:?}]");
    Selection::new(serde_json::from_str(&json).unwrap()).unwrap()
}

fn version(registry: u64, pattern: &str, status: Option<Status>) -> WebhookVersion {
    WebhookVersion {
        registry_sequence: Sequence(registry),
        at: Timestamp::from_millis(0),
        selection: Arc::new(selection(pattern)),
        lifts: registry == 10,
        status,
    }
}

fn webhook(from: u64, versions: Vec<WebhookVersion>) -> Webhook {
    let signer = Signer::new(&new_signing_secret(&[1; 32])).unwrap();
    Webhook {
        id: WEBHOOK,
        project: PROJECT,
        definition: WebhookDefinition {
            dialect: Dialect::Stackone,
            sealed_endpoint: Vec::new(),
            selection: selection("*"),
            description: None,
            verification_required: false,
            verified_at: None,
            policy: Policy::default(),
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
        signers: Some(Arc::new(Signers {
            active: signer,
            previous: None,
        })),
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
        sequence: versions.last().unwrap().registry_sequence,
        from: Position {
            generation: 1,
            sequence: Sequence(from),
        },
        decided: None,
        deleted: versions.last().unwrap().status.is_none(),
        versions,
    }
}

fn event(sequence: u64, event_type: &str) -> (Sequence, Arc<Event>) {
    let event = Event {
        id: EventId::from_bytes(u128::from(sequence).to_be_bytes()),
        project: PROJECT,
        event_type: EventType::parse(event_type).unwrap(),
        source: Source::FirstParty,
        account: None,
        provider: None,
        record_id: "1".into(),
        occurred_at: Timestamp::from_millis(0),
        published_at: Timestamp::from_millis(0),
        lane: LaneHash(1),
        registry_sequence: None,
        body: Bytes::new(),
    };
    (Sequence(sequence), Arc::new(event))
}

fn employees(after: u64, through: u64) -> Stretch {
    Stretch {
        after: Sequence(after),
        through: Sequence(through),
        events: (after + 1..=through)
            .map(|sequence| event(sequence, "hris_employees.created"))
            .collect(),
    }
}

/// Sequences offered to the one webhook, with their skip reason.
fn take(partition: &mut Partition, stretch: &Stretch) -> Vec<(u64, Option<SkipReason>)> {
    let taken = partition.take(stretch).unwrap();
    let counted: u64 = taken.counted.iter().map(|counted| counted.count).sum();
    let mut offers = taken.offers;
    let skipped = taken.counted.iter().find_map(|counted| counted.skipped);
    if skipped.is_some() {
        assert!(offers.is_empty());
        let sequences = stretch.events.iter().map(|(sequence, _)| sequence.0);
        return sequences.map(|sequence| (sequence, skipped)).collect();
    }
    let Some((offer, events)) = offers.remove(&WEBHOOK) else {
        return Vec::new();
    };
    assert!(offers.is_empty());
    assert_eq!(offer.matches.len(), events.len());
    assert_eq!(offer.matches.len() as u64, counted);
    let matches = offer.matches.iter();
    matches
        .map(|owed| (owed.sequence.0, owed.skipped))
        .collect()
}

fn partition() -> Partition {
    Partition::new(1, Sequence(0), None)
}

fn froms(entries: &[JournalEntry]) -> Vec<(u64, u64)> {
    let from = |entry: &JournalEntry| match entry {
        JournalEntry::ConfigApplied {
            registry_sequence,
            from,
            ..
        } => (registry_sequence.0, from.sequence.0),
        other => panic!("{other:?}"),
    };
    entries.iter().map(from).collect()
}

#[test]
fn a_new_configuration_holds_from_the_next_position_on() {
    let mut partition = partition();
    let created = vec![version(10, "hris_employees.*", Some(Status::Enabled))];
    let configured = partition.configure(&webhook(1, created.clone())).entries;
    assert_eq!(froms(&configured), [(10, 1)]);
    assert_eq!(
        take(&mut partition, &employees(0, 2)),
        [(1, None), (2, None)]
    );

    let disabled = version(11, "hris_employees.*", Some(Status::Disabled));
    let versions = [created.clone(), vec![disabled]].concat();
    let configured = partition.configure(&webhook(1, versions.clone())).entries;
    assert_eq!(froms(&configured), [(11, 3)]);
    assert!(
        partition
            .configure(&webhook(1, versions))
            .entries
            .is_empty(),
        "no news"
    );
    let skipped = Some(SkipReason::Disabled);
    assert_eq!(take(&mut partition, &employees(2, 3)), [(3, skipped)]);
}

#[test]
fn creation_alone_reaches_back_and_later_versions_do_not() {
    let mut partition = partition();
    take(&mut partition, &employees(0, 5));
    let versions = vec![
        version(10, "hris_employees.*", Some(Status::Enabled)),
        version(11, "ats_jobs.*", Some(Status::Enabled)),
    ];
    let configured = partition.configure(&webhook(3, versions)).entries;
    assert_eq!(froms(&configured), [(10, 3), (11, 6)]);
    let history = partition.history(WEBHOOK).unwrap();
    assert_eq!(history.start(), Some(Sequence(3)));
    assert_eq!(take(&mut partition, &employees(5, 6)), []);
}

#[test]
fn a_stretch_with_a_gap_is_refused_and_an_overlap_gives_the_rest() {
    let mut partition = partition();
    let created = vec![version(10, "*", Some(Status::Enabled))];
    partition.configure(&webhook(1, created));
    take(&mut partition, &employees(0, 2));
    let gap = partition.take(&employees(4, 5)).unwrap_err();
    assert_eq!(
        gap,
        Gap {
            classified: Sequence(2)
        }
    );
    assert_eq!(take(&mut partition, &employees(0, 3)), [(3, None)]);
    assert_eq!(take(&mut partition, &employees(1, 3)), []);
}

#[test]
fn offers_join_without_a_gap_across_stretches_that_hold_nothing_wanted() {
    let mut partition = partition();
    let created = vec![version(10, "ats_jobs.*", Some(Status::Enabled))];
    partition.configure(&webhook(1, created));
    let jobs = |after, through| Stretch {
        events: vec![event(through, "ats_jobs.created")],
        ..employees(after, through)
    };
    let offered = |partition: &mut Partition, stretch: &Stretch| {
        let taken = partition.take(stretch).unwrap();
        taken
            .offers
            .get(&WEBHOOK)
            .map(|(offer, _)| (offer.after.0, offer.through.0))
    };
    assert_eq!(offered(&mut partition, &jobs(0, 2)), Some((0, 2)));
    assert_eq!(offered(&mut partition, &employees(2, 7)), None);
    assert_eq!(offered(&mut partition, &jobs(7, 9)), Some((2, 9)));
}

#[test]
fn a_takeover_classifies_as_the_log_says_and_news_start_after_it() {
    let applied = |registry: u64, from: u64| Applied {
        from: Position {
            generation: 1,
            sequence: Sequence(from),
        },
        rule: Rule::Registry {
            sequence: Sequence(registry),
            lifts: registry == 10,
        },
    };
    let versions = vec![
        version(10, "hris_employees.*", Some(Status::Enabled)),
        version(11, "ats_jobs.*", Some(Status::Enabled)),
        version(12, "hris_employees.*", Some(Status::Enabled)),
    ];
    let webhook = webhook(3, versions);
    let mut partition = Partition::new(1, Sequence(8), None);
    partition.restore(&webhook, &[applied(10, 3), applied(11, 6)]);
    let history = partition.history(WEBHOOK).unwrap().clone();
    let configured = partition.configure(&webhook).entries;
    assert_eq!(froms(&configured), [(12, 9)]);
    let owed = |sequence| {
        let (sequence, event) = event(sequence, "hris_employees.created");
        owed(&history, sequence, &event).is_some()
    };
    assert_eq!([2, 3, 5, 6, 8].map(owed), [false, true, true, false, false]);
    let offered = take(&mut partition, &employees(8, 10));
    assert_eq!(offered, [(9, None), (10, None)]);
    assert_eq!(partition.classified().position.sequence, Sequence(10));
}

#[test]
fn an_owners_decision_holds_until_it_is_lifted() {
    let mut partition = partition();
    let mut versions = vec![version(10, "*", Some(Status::Enabled))];
    partition.configure(&webhook(1, versions.clone()));
    take(&mut partition, &employees(0, 1));
    partition.decided(WEBHOOK, Sequence(2), Status::Deactivated);
    let skipped = Some(SkipReason::Deactivated);
    assert_eq!(take(&mut partition, &employees(1, 2)), [(2, skipped)]);
    // Somebody changes its description: that lifts nothing.
    versions.push(version(11, "*", Some(Status::Enabled)));
    partition.configure(&webhook(1, versions.clone()));
    assert_eq!(take(&mut partition, &employees(2, 3)), [(3, skipped)]);
    versions.push(WebhookVersion {
        lifts: true,
        ..version(12, "*", Some(Status::Enabled))
    });
    partition.configure(&webhook(1, versions));
    assert_eq!(take(&mut partition, &employees(3, 4)), [(4, None)]);
}

#[test]
fn a_deleted_webhook_is_owed_nothing_more() {
    let mut partition = partition();
    let created = vec![version(10, "*", Some(Status::Enabled))];
    partition.configure(&webhook(1, created.clone()));
    take(&mut partition, &employees(0, 1));
    let versions = [created, vec![version(11, "*", None)]].concat();
    partition.configure(&webhook(1, versions.clone()));
    assert!(partition.history(WEBHOOK).unwrap().is_deleted());
    assert_eq!(take(&mut partition, &employees(1, 2)), []);
    partition.remove(PROJECT, WEBHOOK);
    assert_eq!(take(&mut partition, &employees(2, 3)), []);
    assert!(
        partition
            .configure(&webhook(1, versions))
            .entries
            .is_empty()
    );
}

#[test]
fn a_checkpoint_is_the_last_event_seen_whatever_is_classified_after_it() {
    let mut partition = partition();
    let checkpoint = |partition: &Partition| {
        let checkpoint = partition.classified().checkpoint?;
        Some((checkpoint.position.sequence.0, checkpoint.event))
    };
    take(&mut partition, &employees(0, 2));
    let second = Some((2, event(2, "a.b").1.id));
    assert_eq!(checkpoint(&partition), second);
    let others = Stretch {
        after: Sequence(2),
        through: Sequence(9),
        events: Vec::new(),
    };
    take(&mut partition, &others);
    assert_eq!(partition.classified().position.sequence, Sequence(9));
    assert_eq!(checkpoint(&partition), second);
}

#[test]
fn a_recount_finds_what_is_pending_in_the_events_themselves() {
    let registry = Rule::Registry {
        sequence: Sequence(10),
        lifts: true,
    };
    let applied = Applied {
        from: Position {
            generation: 1,
            sequence: Sequence(1),
        },
        rule: registry,
    };
    let versions = vec![version(10, "hris_employees.*", Some(Status::Enabled))];
    let history = ConfigHistory::restored(&[applied], &webhook(1, versions));
    let (_, sample) = event(8, "hris_employees.created");
    let failing = Failing {
        event: sample.id,
        event_type: EventTypeHash(1),
        lane: LaneHash(1),
        attempts: 1,
        retry_at: Timestamp::from_millis(0),
    };
    // Of eleven events, one failed and one ended; the last is of no interest.
    let told = WebhookState {
        resolved: Sequence(10),
        ended: [(Sequence(12), LaneHash(1))].into(),
        failing: [(Sequence(8), failing)].into(),
        ..WebhookState::default()
    };
    let recounted = |told: &WebhookState, missing: Option<u64>| {
        let mut recount = Recount::new(told, history.clone(), Sequence(16)).unwrap();
        let (after, through) = recount.range();
        assert_eq!(through, Sequence(16));
        for sequence in (after.0 + 1..=15).filter(|sequence| Some(*sequence) != missing) {
            let (sequence, event) = event(sequence, "hris_employees.created");
            recount.take(sequence, &event);
        }
        let (sequence, event) = event(16, "ats_jobs.created");
        recount.take(sequence, &event);
        (after.0, recount.pending())
    };
    assert_eq!(recounted(&told, None), (10, 5));
    assert_eq!(recounted(&told, Some(14)), (10, 4));
    // What lies behind the failed one is pending too, from where its lane is not resolved.
    let behind = WebhookState {
        behind: [(LaneHash(1), Sequence(9))].into(),
        ..told.clone()
    };
    assert_eq!(recounted(&behind, None), (8, 7));
    let uncounted = WebhookState {
        uncounted: Some((Sequence(1), Sequence(4))),
        ..told
    };
    assert!(Recount::new(&uncounted, history.clone(), Sequence(16)).is_none());
}
