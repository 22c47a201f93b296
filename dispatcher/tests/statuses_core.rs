//! What an owner decided and what the registry says of it, in a partition's classification.
#![expect(clippy::unwrap_used, reason = "a test's helpers may fail loudly")]

use std::sync::Arc;

use bytes::Bytes;
use dispatcher::core::classify::{Class, ConfigHistory};
use dispatcher::core::partition::Partition;
use shared::domain::event::{Event, EventType, Source};
use shared::domain::filter::Selection;
use shared::domain::journal::JournalEntry;
use shared::domain::policy::Policy;
use shared::domain::state::{Applied, Rule};
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

fn version(registry: u64, status: Status, lifts: bool) -> WebhookVersion {
    WebhookVersion {
        registry_sequence: Sequence(registry),
        at: Timestamp::from_millis(0),
        selection: Arc::new(selection("*")),
        status: Some(status),
        lifts,
    }
}

fn webhook(versions: Vec<WebhookVersion>) -> Webhook {
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
            sequence: Sequence(1),
        },
        versions,
        decided: None,
        deleted: false,
    }
}

/// A partition whose owner has deactivated the webhook under its first version.
fn deactivated() -> Partition {
    let mut partition = Partition::new(1, Sequence(0), None);
    let created = webhook(vec![version(1, Status::Enabled, true)]);
    partition.configure(&created);
    partition.decided(WEBHOOK, Sequence(1), Status::Deactivated);
    partition
}

fn lifts(entries: &[JournalEntry]) -> Vec<bool> {
    let lifts = entries.iter().filter_map(|entry| match entry {
        JournalEntry::ConfigApplied { lifts, .. } => Some(*lifts),
        _ => None,
    });
    lifts.collect()
}

#[test]
fn what_was_lifted_is_lifted_though_a_later_version_is_applied_in_its_stead() {
    use Status::{Deactivated, Disabled, Enabled};
    let cases = [
        // Edited.
        (vec![version(2, Enabled, false)], Deactivated, false),
        // The decision itself comes back.
        (vec![version(2, Deactivated, false)], Deactivated, false),
        (vec![version(2, Enabled, true)], Enabled, true),
        // Enabled or disabled and then edited, before the owner heard of either.
        (
            vec![version(2, Enabled, true), version(3, Enabled, false)],
            Enabled,
            true,
        ),
        (
            vec![version(2, Disabled, true), version(3, Disabled, false)],
            Disabled,
            true,
        ),
        // The decision recorded and lifted at once.
        (
            vec![version(2, Deactivated, false), version(3, Enabled, true)],
            Enabled,
            true,
        ),
    ];
    for (news, status, is_lifted) in cases {
        let mut partition = deactivated();
        let mut versions = vec![version(1, Enabled, true)];
        versions.extend(news);
        let configured = partition.configure(&webhook(versions.clone()));
        assert_eq!(lifts(&configured.entries), [is_lifted], "{versions:?}");
        let history = partition.history(WEBHOOK).unwrap();
        assert_eq!(history.status(), Some(status), "{versions:?}");
    }
}

#[test]
fn a_webhook_is_told_of_others_and_not_of_itself() {
    let applied = Applied {
        from: Position {
            generation: 1,
            sequence: Sequence(1),
        },
        rule: Rule::Registry {
            sequence: Sequence(1),
            lifts: true,
        },
    };
    let created = webhook(vec![version(1, Status::Enabled, true)]);
    let history = ConfigHistory::restored(&[applied], &created);
    let own = WEBHOOK.to_string();
    let other = WebhookId::from_bytes([5; 16]).to_string();
    for (event_type, record, class) in [
        ("webhook.failing", &own, Class::NotWanted),
        ("webhook.deactivated", &own, Class::NotWanted),
        ("webhook.failing", &other, Class::Accepted),
        // Whatever else bears its name.
        ("crm_contacts.updated", &own, Class::Accepted),
    ] {
        let event = Event {
            id: EventId::from_bytes([3; 16]),
            project: PROJECT,
            event_type: EventType::parse(event_type).unwrap(),
            source: Source::Account,
            account: None,
            provider: None,
            record_id: record.as_str().into(),
            occurred_at: Timestamp::from_millis(0),
            published_at: Timestamp::from_millis(0),
            lane: LaneHash(1),
            registry_sequence: None,
            body: Bytes::new(),
        };
        assert_eq!(
            history.classify(Sequence(1), &event),
            class,
            "{event_type} {record}"
        );
    }
}
