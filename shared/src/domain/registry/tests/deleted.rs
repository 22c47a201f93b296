//! What is left of a deleted project, and its data key under another master key.

use super::*;
use crate::domain::account::AccountDefinition;

const OTHER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

fn erasable(log: &Log) -> Vec<ProjectId> {
    log.state.erasable_projects().map(|(id, _)| id).collect()
}

/// With a tombstone, which it lies at.
fn deleted() -> (Log, Sequence) {
    let mut log = Log::with_webhook(r#"["*"]"#);
    log.execute(Command::DeleteProject { id: PROJECT }).unwrap();
    let tombstone = log.state.applied();
    (log, tombstone)
}

fn recorded(through: Sequence) -> Command {
    Command::RecordErasure {
        project: PROJECT,
        through,
    }
}

#[test]
fn a_deleted_project_is_to_be_erased_until_somebody_says_that_it_is() {
    let (mut log, tombstone) = deleted();
    assert_eq!(erasable(&log), [PROJECT]);
    // Its secrets go with it, not by themselves.
    assert_eq!(log.state.erasable_secrets().count(), 0);
    assert!(log.state.webhook(WEBHOOK).is_some_and(|left| left.deleted));
    log.execute(recorded(tombstone)).unwrap();
    assert_eq!(erasable(&log), []);
    assert!(log.state.webhook(WEBHOOK).is_none());
    let again = decide(&log.state, recorded(tombstone), log.at);
    assert!(again.unwrap().is_empty());
}

#[test]
fn subjects_of_a_deleted_project_alone_are_ended() {
    let end = |last| Command::EraseOfDeleted {
        project: PROJECT,
        aggregate: Aggregate::Webhook,
        id: WEBHOOK.to_string(),
        last,
    };
    let living = Log::with_webhook(r#"["*"]"#);
    let last = living.webhook().sequence;
    let refused = decide(&living.state, end(last), living.at);
    assert_eq!(refused, Err(CommandError::NotFound));
    assert_eq!(
        decide(&living.state, recorded(last), living.at),
        Err(CommandError::NotFound)
    );
    let (mut log, tombstone) = deleted();
    let ended = decide(&log.state, end(last), log.at).unwrap();
    assert_eq!(ended[0].expected, last);
    assert_eq!(ended[0].entry, RegistryEntry::Erased);
    assert!(!ended[0].erases_history());
    log.append(ended[0].clone());
    log.execute(recorded(tombstone)).unwrap();
    assert_eq!(erasable(&log), []);
}

#[test]
fn what_is_written_after_the_tombstone_is_ignored_and_erased_too() {
    let (mut log, tombstone) = deleted();
    log.execute(recorded(tombstone)).unwrap();
    // A call that had read the project before.
    let before = Log::with_project();
    let late = decide(
        &before.state,
        before.create_webhook(WEBHOOK, "[\"*\"]"),
        log.at,
    )
    .unwrap();
    for append in late {
        log.append(append);
    }
    assert!(log.state.webhook(WEBHOOK).is_none());
    assert!(log.state.project(PROJECT).is_none());
    assert_eq!(erasable(&log), [PROJECT]);
    let through = log.state.applied();
    log.execute(recorded(tombstone)).unwrap();
    assert_eq!(erasable(&log), [PROJECT], "that is not all of it");
    log.execute(recorded(through)).unwrap();
    assert_eq!(erasable(&log), []);
}

/// Each moment of an erasure that overwrites the newest first, and after it.
#[test]
fn what_an_erasure_leaves_folds_without_a_fault() {
    let (mut log, tombstone) = deleted();
    let history = log.appended.len() - 1;
    log.execute(recorded(tombstone)).unwrap();
    for kept in (0..=history).rev() {
        for told in [false, true] {
            let mut left = Log::new();
            let last = log.appended.len() - usize::from(!told);
            for (index, (sequence, place, record)) in log.appended[..last].iter().enumerate() {
                if index < kept || index >= history {
                    let place = (place.0, place.1, place.2.as_str());
                    let folded = left.state.apply(place, *sequence, record, &left.keys);
                    folded.unwrap();
                }
            }
            assert!(left.state.project(PROJECT).is_none());
            assert_eq!(erasable(&left).is_empty(), told, "{kept}");
            let sealed = left.state.webhook_of(PROJECT, WEBHOOK);
            assert!(sealed.is_none());
        }
    }
}

impl Log {
    /// With the other master key as the current one, as after its rotation.
    fn reseal(&mut self) -> MasterKeys {
        let first = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let both = MasterKeys::new(OTHER_KEY, &[first]).unwrap();
        let context = seal_context(SEALED_DATA_KEY, PROJECT, &PROJECT.to_string());
        let sealed = both.seal(&DATA_KEY, &context, &[1; 24]);
        let command = Command::ResealDataKey {
            project: PROJECT,
            sealed,
        };
        let appends = decide(&self.state, command, self.at).unwrap();
        assert_eq!(
            appends[0].expected,
            self.state.project(PROJECT).unwrap().data_key_sequence
        );
        for append in appends {
            self.append(append);
        }
        both
    }
}

/// Every fold opens its data key, and nobody can delete it.
#[test]
fn a_project_whose_making_was_cut_off_is_sealed_anew_too() {
    let mut log = Log::new();
    let appends = decide(&log.state, log.create_project(), log.at).unwrap();
    log.append(appends[0].clone());
    log.reseal();
    let last = log.appended.last().unwrap();
    assert!(matches!(
        last.2.entry,
        RegistryEntry::DataKeyResealed { .. }
    ));
    // Whoever repeats the call goes on with it.
    log.execute(log.create_project()).unwrap();
    assert!(
        log.state
            .project(PROJECT)
            .is_some_and(|made| made.is_made())
    );
}

#[test]
fn a_replica_without_the_new_master_key_goes_on_with_the_data_key_that_it_holds() {
    // It folds with the first key alone.
    let mut log = Log::with_webhook(r#"["*"]"#);
    log.reseal();
    log.update(r#"["hris_employees.*"]"#).unwrap();
    assert!(log.webhook().endpoint.url.as_str().contains("hunter2"));
    // And would do so once more.
    log.reseal();
}

/// The log as it is once the former entry is overwritten, read with the new key alone.
#[test]
fn a_data_key_that_was_sealed_anew_is_learnt_before_it_is_needed() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    log.reseal();
    let keys = MasterKeys::new(OTHER_KEY, &[]).unwrap();
    let resealed = log.appended.last().unwrap().2.entry.clone();
    let mut left = RegistryState::default();
    let mut needed = 0;
    for (sequence, place, record) in &log.appended {
        if matches!(record.entry, RegistryEntry::DataKeyCreated { .. }) {
            continue;
        }
        let is_sealed = place.1 == Aggregate::Webhook || place.1 == Aggregate::SigningSecret;
        if is_sealed && left.lacks_data_key(PROJECT) {
            needed += 1;
            left.learn_data_key(PROJECT, &resealed, &keys).unwrap();
        }
        let place = (place.0, place.1, place.2.as_str());
        left.apply(place, *sequence, record, &keys).unwrap();
    }
    assert_eq!(needed, 1);
    let webhook = left.webhook_of(PROJECT, WEBHOOK).unwrap();
    assert!(webhook.signers.is_some());
    assert!(!left.lacks_data_key(PROJECT));
}

#[test]
fn what_a_data_key_opens_is_not_folded_without_it() {
    let log = Log::with_project();
    let mut left = RegistryState::default();
    let mut last = Sequence(0);
    for (sequence, place, record) in &log.appended {
        last = *sequence;
        if place.1 != Aggregate::DataKey {
            let place = (place.0, place.1, place.2.as_str());
            left.apply(place, *sequence, record, &log.keys).unwrap();
        }
    }
    let account = RegistryRecord {
        at: log.at,
        by: "test".into(),
        entry: RegistryEntry::AccountCreated(AccountDefinition {
            provider: "bamboohr".into(),
            name: None,
            origin_owner_id: "customer-1".into(),
            origin_owner_name: None,
            origin_username: None,
            sealed_secrets: vec![1, 2, 3],
        }),
    };
    let id = AccountId::from_bytes([9; 16]).to_string();
    let place = (PROJECT, Aggregate::Account, id.as_str());
    assert_eq!(
        left.apply(place, last.next(), &account, &log.keys),
        Err(ApplyError::NoDataKey)
    );
}
