//! What the projection keeps, and what it lets go.

use std::sync::Arc;

use super::decide::{VERSIONS_MAX, WEBHOOK_BYTES_PER_PROJECT_MAX};
use super::*;
use crate::domain::account::AccountDefinition;
use crate::domain::filter::Selection;
use crate::domain::journal::DeactivateReason;
use crate::domain::policy::Policy;
use crate::domain::webhook::{Dialect, Status, Webhook};
use crate::limits::VERSION_HISTORY_MS;
use crate::secret::{DataKey, MasterKeys, new_signing_secret};

mod deleted;
mod secrets;
mod verification;

const PROJECT: ProjectId = ProjectId::from_bytes([1; 16]);
const WEBHOOK: WebhookId = WebhookId::from_bytes([2; 16]);
const SECRET: SecretId = SecretId::from_bytes([3; 16]);
const FROM: Position = Position {
    generation: 1,
    sequence: Sequence(1),
};
/// Any time will do.
const START: i64 = 1_700_000_000_000;
const DATA_KEY: [u8; 32] = [7; 32];
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// A log of our own, folded as it grows.
struct Log {
    state: RegistryState,
    keys: MasterKeys,
    /// Of the project.
    data_key: DataKey,
    at: Timestamp,
    appended: Vec<(Sequence, (ProjectId, Aggregate, String), RegistryRecord)>,
}

impl Log {
    fn new() -> Self {
        Self {
            state: RegistryState::default(),
            keys: MasterKeys::new("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", &[]).unwrap(),
            data_key: DataKey::new(&DATA_KEY),
            at: Timestamp::from_millis(START),
            appended: Vec::new(),
        }
    }

    /// With a project in it.
    fn with_project() -> Self {
        let mut log = Self::new();
        log.execute(log.create_project()).unwrap();
        log
    }

    fn with_webhook(events: &str) -> Self {
        let mut log = Self::with_project();
        log.execute(log.create_webhook(WEBHOOK, events)).unwrap();
        log
    }

    fn later(&mut self, ms: i64) {
        self.at = self.at.plus_millis(ms);
    }

    fn execute(&mut self, command: Command) -> Result<(), CommandError> {
        for append in decide(&self.state, command, self.at)? {
            self.append(append);
        }
        Ok(())
    }

    fn append(&mut self, append: Append) {
        let record = RegistryRecord {
            at: self.at,
            by: "test".into(),
            entry: append.entry,
        };
        let place = (append.project, append.aggregate, append.id.as_str());
        let sequence = self.state.applied().next();
        self.state
            .apply(place, sequence, &record, &self.keys)
            .unwrap();
        let place = (append.project, append.aggregate, append.id);
        self.appended.push((sequence, place, record));
    }

    fn create_project(&self) -> Command {
        let context = seal_context(SEALED_DATA_KEY, PROJECT, &PROJECT.to_string());
        Command::CreateProject {
            id: PROJECT,
            name: "Acme".into(),
            sealed_data_key: self.keys.seal(&DATA_KEY, &context, &[0; 24]),
        }
    }

    fn create_webhook(&self, id: WebhookId, events: &str) -> Command {
        let secret = new_signing_secret(&[3; 32]);
        Command::CreateWebhook {
            project: PROJECT,
            id,
            from: FROM,
            definition: self.definition(id, events),
            sealed_secret: self.data_key.seal(
                secret.reveal().as_bytes(),
                &signing_secret_context(PROJECT, SECRET),
                &[0; 24],
            ),
        }
    }

    fn definition(&self, id: WebhookId, events: &str) -> WebhookDefinition {
        let endpoint = format!(
            r#"{{"url":"https://example.com/?token=hunter2","headers":[["x-key","{}"]]}}"#,
            "h".repeat(4_000)
        );
        let context = seal_context(SEALED_ENDPOINT, PROJECT, &id.to_string());
        WebhookDefinition {
            dialect: Dialect::Stackone,
            sealed_endpoint: self.data_key.seal(endpoint.as_bytes(), &context, &[0; 24]),
            selection: Selection::new(serde_json::from_str(events).unwrap()).unwrap(),
            description: Some("d".repeat(500)),
            verification_required: false,
            verified_at: None,
            policy: Policy::default(),
            status: Status::Enabled,
            status_reason: None,
            active_secret: SECRET,
            previous_secret: None,
        }
    }

    fn update(&mut self, events: &str) -> Result<(), CommandError> {
        self.execute(Command::UpdateWebhook {
            project: PROJECT,
            id: WEBHOOK,
            definition: self.definition(WEBHOOK, events),
            url: UrlChange::Same,
            base: self.webhook().sequence,
        })
    }

    fn set(&mut self, status: AskedStatus) -> Result<(), CommandError> {
        self.execute(Command::SetWebhookStatus {
            project: PROJECT,
            id: WEBHOOK,
            status,
            reason: None,
            base: None,
        })
    }

    /// How many entries that took.
    fn record(&mut self, decision: OwnerDecision, pack: u64, seen: Sequence) -> u64 {
        let before = self.state.applied();
        self.execute(Command::RecordDecision {
            project: PROJECT,
            id: WEBHOOK,
            decision,
            decided: decided_at(pack),
            seen,
        })
        .unwrap();
        self.state.applied().0 - before.0
    }

    fn status(&self) -> (Status, Option<&str>) {
        let definition = &self.webhook().definition;
        (definition.status, definition.status_reason.as_deref())
    }

    fn delete(&mut self, id: WebhookId) {
        let command = Command::DeleteWebhook {
            project: PROJECT,
            id,
            base: None,
        };
        self.execute(command).unwrap();
    }

    /// An entry that is about something else.
    fn other_entry(&mut self) {
        let id = KeyId::from_bytes([9; 16]);
        let name = "key".to_owned();
        let hash = [9; 32];
        self.execute(Command::CreateApiKey {
            project: PROJECT,
            id,
            name,
            hash,
        })
        .unwrap();
    }

    /// What holds of the webhook now, and whether that lifts what an owner decided.
    fn latest(&self) -> (Status, bool) {
        let version = self.webhook().versions.last().unwrap();
        (version.status.unwrap(), version.lifts)
    }

    fn webhook(&self) -> &Arc<Webhook> {
        self.state.webhook(WEBHOOK).unwrap()
    }

    fn held_bytes(&self) -> usize {
        self.state.project(PROJECT).unwrap().webhook_bytes
    }
}

const GONE: OwnerDecision = OwnerDecision::Deactivated(DeactivateReason::Gone);

fn decided_at(pack: u64) -> DecidedAt {
    DecidedAt {
        epoch: Epoch(1),
        place: EntryPlace {
            pack: Sequence(pack),
            index: 0,
        },
    }
}

#[test]
fn of_a_deleted_webhook_stays_what_classifies_and_nothing_else() {
    let mut log = Log::with_webhook(r#"["account.*"]"#);
    log.update(r#"["*"]"#).unwrap();
    let before = Arc::clone(log.webhook());
    log.delete(WEBHOOK);
    let left = log.webhook();
    assert!(left.deleted && left.sequence > before.sequence);
    assert_eq!(
        (left.id, left.project, left.from),
        (WEBHOOK, PROJECT, before.from)
    );
    assert_eq!(left.definition.policy, before.definition.policy);
    let versions: Vec<_> = left
        .versions
        .iter()
        .map(|version| {
            let events = serde_json::to_string(&*version.selection).unwrap();
            (events, version.status)
        })
        .collect();
    assert_eq!(
        versions,
        [
            (r#"["account.*"]"#.to_owned(), Some(Status::Enabled)),
            (r#"["*"]"#.to_owned(), Some(Status::Enabled)),
            (r#"["*"]"#.to_owned(), None),
        ]
    );
    assert!(left.secrets.is_empty() && left.endpoint.headers.is_empty());
    assert_ne!(left.endpoint.url, before.endpoint.url);
    assert!(before.signers.is_some() && left.signers.is_none());
    assert!(left.definition.sealed_endpoint.is_empty());
    assert!(left.definition.description.is_none());
    assert!(log.held_bytes() < 2_000, "{}", log.held_bytes());
}

#[test]
fn a_deleted_webhook_is_forgotten_when_no_retained_event_needs_it() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    log.delete(WEBHOOK);
    log.later(VERSION_HISTORY_MS - DAY_MS);
    log.other_entry();
    assert!(log.state.webhook(WEBHOOK).is_some());
    log.later(3 * DAY_MS);
    log.other_entry();
    assert!(log.state.webhook(WEBHOOK).is_none());
    assert_eq!(log.held_bytes(), 0);
}

#[test]
fn a_deleted_project_leaves_nothing_for_ever() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    log.execute(Command::DeleteProject { id: PROJECT }).unwrap();
    assert!(log.webhook().deleted);
    log.later(VERSION_HISTORY_MS + DAY_MS);
    log.execute(log.create_project()).unwrap();
    assert_eq!(log.state.webhooks().count(), 0);
}

#[test]
fn edits_that_leave_the_selection_share_it_and_each_is_found() {
    let mut log = Log::with_webhook(r#"["account.*"]"#);
    let before = log.held_bytes();
    let mut sequences = vec![log.webhook().sequence];
    for _ in 0..20 {
        log.update(r#"["account.*"]"#).unwrap();
        sequences.push(log.webhook().sequence);
    }
    let webhook = log.webhook();
    let first = webhook.version(sequences[0]).unwrap();
    for sequence in sequences {
        let version = webhook.version(sequence).unwrap();
        assert_eq!(version.registry_sequence, sequence);
        assert!(Arc::ptr_eq(&version.selection, &first.selection));
    }
    assert!(log.held_bytes() - before < 20 * 64);
}

#[test]
fn a_webhook_can_be_changed_so_often_within_what_is_retained() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    for change in 1..VERSIONS_MAX {
        let events = ["[\"*\"]", "[\"account.*\"]"][change % 2];
        log.update(events).unwrap();
    }
    let refused = log.update(r#"["*"]"#).unwrap_err();
    assert!(matches!(refused, CommandError::LimitReached { max, .. } if max == VERSIONS_MAX));
    // Without any entry between, which alone lets the projection forget.
    log.later(VERSION_HISTORY_MS + 1);
    log.update(r#"["*"]"#).unwrap();
    log.later(VERSION_HISTORY_MS + 1);
    log.update(r#"["*"]"#).unwrap();
    assert_eq!(log.webhook().versions.len(), 2);
    log.delete(WEBHOOK);
}

#[test]
fn versions_are_forgotten_though_the_webhook_rests() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    for _ in 0..10 {
        log.update(r#"["account.*"]"#).unwrap();
        log.update(r#"["*"]"#).unwrap();
    }
    let full = log.held_bytes();
    log.later(VERSION_HISTORY_MS + DAY_MS);
    log.other_entry();
    assert_eq!(log.webhook().versions.len(), 1);
    assert!(log.held_bytes() < full);
}

#[test]
fn what_the_webhooks_of_a_project_hold_is_bounded_with_the_deleted_ones() {
    let names: Vec<_> = (0..100).map(|n| format!("provider-{n:0>120}")).collect();
    let events = serde_json::json!([{"event": "*", "providers": names}]).to_string();
    let webhook = |n: u8| WebhookId::from_bytes([n; 16]);
    let mut log = Log::with_project();
    for n in 0..10 {
        log.execute(log.create_webhook(webhook(n), &events))
            .unwrap();
        log.delete(webhook(n));
    }
    let held = log.held_bytes();
    assert!(
        (10 * events.len()..20 * events.len()).contains(&held),
        "{held}"
    );

    // As if there were many more of them.
    log.execute(log.create_webhook(WEBHOOK, "[\"*\"]")).unwrap();
    let project = log.state.projects.get_mut(&PROJECT).unwrap();
    project.webhook_bytes += WEBHOOK_BYTES_PER_PROJECT_MAX;
    for refused in [
        log.update(&events),
        log.execute(log.create_webhook(webhook(11), &events)),
    ] {
        assert!(
            matches!(refused, Err(CommandError::LimitReached { max, .. }) if max == WEBHOOK_BYTES_PER_PROJECT_MAX),
            "{refused:?}"
        );
    }
    log.delete(WEBHOOK);
    log.later(VERSION_HISTORY_MS + DAY_MS);
    log.other_entry();
    assert_eq!(log.held_bytes(), WEBHOOK_BYTES_PER_PROJECT_MAX);
}

#[test]
fn a_project_that_has_only_its_data_key_is_not_there() {
    let mut log = Log::new();
    let appends = decide(&log.state, log.create_project(), log.at).unwrap();
    log.append(appends.into_iter().next().unwrap());
    let account = AccountDefinition {
        provider: "bamboohr".into(),
        name: None,
        origin_owner_id: "1".into(),
        origin_owner_name: None,
        origin_username: None,
        sealed_secrets: Vec::new(),
    };
    for command in [
        Command::CreateApiKey {
            project: PROJECT,
            id: KeyId::from_bytes([5; 16]),
            name: "key".into(),
            hash: [5; 32],
        },
        Command::CreateAccount {
            project: PROJECT,
            id: AccountId::from_bytes([5; 16]),
            definition: account,
        },
        log.create_webhook(WEBHOOK, r#"["*"]"#),
        Command::DeleteProject { id: PROJECT },
    ] {
        let refused = log.execute(command.clone());
        assert_eq!(refused, Err(CommandError::NotFound), "{command:?}");
    }
}

#[test]
fn whoever_asks_for_a_status_lifts_what_an_owner_decided() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    let seen = log.webhook().sequence;
    assert_eq!(log.record(GONE, 7, seen), 1);
    assert_eq!(log.status(), (Status::Deactivated, Some("gone")));
    assert_eq!(log.webhook().decided, Some(decided_at(7)));
    for (asked, status) in [
        (AskedStatus::Enabled, Status::Enabled),
        (AskedStatus::Disabled, Status::Disabled),
        (AskedStatus::Enabled, Status::Enabled),
    ] {
        log.set(asked).unwrap();
        assert_eq!(log.status(), (status, None));
        assert_eq!(log.webhook().decided, None);
    }
    let versions = &log.webhook().versions;
    let told: Vec<_> = versions
        .iter()
        .map(|version| (version.status.unwrap(), version.lifts))
        .collect();
    assert_eq!(
        told,
        [
            (Status::Enabled, true),
            (Status::Deactivated, false),
            (Status::Enabled, true),
            (Status::Disabled, true),
            (Status::Enabled, true),
        ]
    );
    assert!(
        versions
            .iter()
            .all(|version| Arc::ptr_eq(&version.selection, &versions[0].selection))
    );
}

#[test]
fn asking_for_the_status_that_holds_appends_nothing() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    for asked in [AskedStatus::Enabled, AskedStatus::Disabled] {
        log.set(asked).unwrap();
        let before = log.state.applied();
        log.set(asked).unwrap();
        assert_eq!(log.state.applied(), before, "{asked:?}");
    }
    log.delete(WEBHOOK);
    assert_eq!(log.set(AskedStatus::Enabled), Err(CommandError::NotFound));
}

#[test]
fn an_edit_keeps_the_status_and_lifts_nothing() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    let seen = log.webhook().sequence;
    log.record(GONE, 7, seen);
    // Its definition says enabled.
    log.update(r#"["account.*"]"#).unwrap();
    assert_eq!(log.status(), (Status::Deactivated, Some("gone")));
    assert_eq!(log.webhook().decided, Some(decided_at(7)));
    let last = log.webhook().versions.last().unwrap();
    assert_eq!(
        (last.status, last.lifts),
        (Some(Status::Deactivated), false)
    );
    assert_eq!(log.record(GONE, 7, seen), 0);
}

#[test]
fn what_is_not_verified_is_neither_enabled_nor_disabled() {
    let mut log = Log::with_project();
    let cases = [
        (Dialect::Stackone, Status::PendingVerification, false),
        (Dialect::HrOn, Status::PendingVerification, false),
        (Dialect::HrOn, Status::Deactivated, false),
        (Dialect::Stackone, Status::Deactivated, true),
        (Dialect::HrOn, Status::Quarantined, true),
        (Dialect::Stackone, Status::Quarantined, true),
    ];
    for (number, (dialect, status, may)) in (0..).zip(cases) {
        let id = WebhookId::from_bytes([number; 16]);
        let mut create = log.create_webhook(id, r#"["*"]"#);
        if let Command::CreateWebhook { definition, .. } = &mut create {
            definition.dialect = dialect;
            definition.status = status;
            definition.verified_at = may.then_some(log.at);
        }
        log.execute(create).unwrap();
        for asked in [AskedStatus::Enabled, AskedStatus::Disabled] {
            let command = Command::SetWebhookStatus {
                project: PROJECT,
                id,
                status: asked,
                reason: None,
                base: None,
            };
            let decided = decide(&log.state, command, log.at);
            match decided {
                Ok(appends) => assert!(may && appends.len() == 1, "{dialect:?} {status:?}"),
                Err(refused) => {
                    assert!(!may, "{dialect:?} {status:?}");
                    assert_eq!(refused, CommandError::Unverified);
                }
            }
        }
    }
}

#[test]
fn a_decision_is_recorded_once_and_not_after_it_was_lifted() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    let created = log.webhook().sequence;
    // Disabled and enabled again before the owner's decision got here.
    log.set(AskedStatus::Disabled).unwrap();
    log.set(AskedStatus::Enabled).unwrap();
    let lifted = log.webhook().sequence;
    assert_eq!(log.record(GONE, 7, created), 0);
    assert_eq!(log.status(), (Status::Enabled, None));
    // The owner had applied that when it decided.
    assert_eq!(log.record(GONE, 8, lifted), 1);
    assert_eq!(log.record(GONE, 8, lifted), 0);
    // A second decision of the owner, and the first one late.
    assert_eq!(log.record(OwnerDecision::Quarantined, 9, lifted), 1);
    assert_eq!(log.status(), (Status::Quarantined, Some("fault")));
    assert_eq!(log.record(GONE, 8, lifted), 0);
    assert_eq!(log.status(), (Status::Quarantined, Some("fault")));
    log.delete(WEBHOOK);
    assert_eq!(log.record(GONE, 10, lifted), 0);
}

#[test]
fn the_limit_of_changes_holds_for_those_that_ask_and_not_for_the_owner() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    for change in 1..VERSIONS_MAX {
        let asked = [AskedStatus::Enabled, AskedStatus::Disabled][change % 2];
        log.set(asked).unwrap();
    }
    let refused = log.set(AskedStatus::Enabled);
    assert!(matches!(refused, Err(CommandError::LimitReached { max, .. }) if max == VERSIONS_MAX));
    let seen = log.webhook().sequence;
    assert_eq!(log.record(GONE, 7, seen), 1);
}
