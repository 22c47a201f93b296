//! Which secrets there are, which one signs, and what is left to erase.

use super::*;
use crate::ids::EventId;
use crate::signing::Signer;

const OTHER: SecretId = SecretId::from_bytes([21; 16]);
const THIRD: SecretId = SecretId::from_bytes([22; 16]);

fn text(id: SecretId) -> crate::secret::Secret {
    let [first, ..] = id.to_bytes();
    new_signing_secret(&[first; 32])
}

impl Log {
    fn add(&mut self, id: SecretId) -> Result<(), CommandError> {
        let context = signing_secret_context(PROJECT, id);
        let sealed = self
            .data_key
            .seal(text(id).reveal().as_bytes(), &context, &[0; 24]);
        self.execute(Command::AddSigningSecret {
            project: PROJECT,
            webhook: WEBHOOK,
            id,
            sealed,
        })
    }

    fn activate(&mut self, id: SecretId) -> Result<(), CommandError> {
        self.execute(Command::ActivateSigningSecret {
            project: PROJECT,
            webhook: WEBHOOK,
            id,
            base: None,
        })
    }

    fn delete_secret(&mut self, id: SecretId) -> Result<(), CommandError> {
        self.execute(self.deletion(id))
    }

    fn deletion(&self, id: SecretId) -> Command {
        Command::DeleteSigningSecret {
            project: PROJECT,
            webhook: WEBHOOK,
            id,
            base: None,
        }
    }

    fn held(&self) -> Vec<SecretId> {
        self.webhook().secrets.iter().map(|one| one.id).collect()
    }

    /// The value of `webhook-signature` is by these, in this order.
    fn signs_with(&self, ids: &[SecretId]) {
        let (event, at) = (EventId::from_bytes([1; 16]), self.at);
        let signed = self.webhook().signers.as_ref().unwrap();
        let signed = signed.standard(event, at, b"body");
        let by: Vec<_> = ids
            .iter()
            .map(|id| Signer::new(&text(*id)).unwrap())
            .map(|signer| signer.standard(&event.to_string(), at, b"body"))
            .collect();
        assert_eq!(signed, by.join(" "));
    }
}

fn log() -> Log {
    let mut log = Log::with_webhook(r#"["*"]"#);
    log.add(OTHER).unwrap();
    log.activate(OTHER).unwrap();
    log
}

#[test]
fn the_active_secret_signs_and_the_one_before_it_while_it_exists() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    log.add(OTHER).unwrap();
    assert_eq!(log.held(), [SECRET, OTHER]);
    assert_eq!(log.webhook().definition.active_secret, SECRET);
    let before = log.webhook().sequence;
    log.activate(SECRET).unwrap();
    assert_eq!(log.webhook().sequence, before, "it was active");
    log.activate(OTHER).unwrap();
    assert_eq!(log.webhook().definition.previous_secret, Some(SECRET));
    log.add(THIRD).unwrap();
    log.activate(THIRD).unwrap();
    log.signs_with(&[THIRD, OTHER]);
    log.delete_secret(OTHER).unwrap();
    log.signs_with(&[THIRD]);
    assert_eq!(log.held(), [SECRET, THIRD]);
    assert_eq!(log.latest(), (Status::Enabled, false));
}

#[test]
fn the_active_secret_stays_and_a_deleted_one_is_gone_for_good() {
    let mut log = log();
    assert_eq!(log.delete_secret(OTHER), Err(CommandError::ActiveSecret));
    log.delete_secret(SECRET).unwrap();
    assert_eq!(log.activate(SECRET), Err(CommandError::NotFound));
    assert_eq!(log.delete_secret(SECRET), Err(CommandError::NotFound));
    assert_eq!(log.activate(THIRD), Err(CommandError::NotFound));
    log.signs_with(&[OTHER]);
}

#[test]
fn deleting_and_activating_meet_on_the_subject_of_the_webhook() {
    let log = log();
    let activation = Command::ActivateSigningSecret {
        project: PROJECT,
        webhook: WEBHOOK,
        id: SECRET,
        base: None,
    };
    let first = |command| {
        let appends = decide(&log.state, command, log.at).unwrap();
        let first = appends.into_iter().next().unwrap();
        (first.aggregate, first.id, first.expected)
    };
    // So the server takes one of the two.
    assert_eq!(first(activation), first(log.deletion(SECRET)));
}

#[test]
fn what_is_deleted_is_erased_by_somebody_in_the_end() {
    let mut log = log();
    let appends = decide(&log.state, log.deletion(SECRET), log.at).unwrap();
    assert_eq!(appends.len(), 2);
    assert!(!appends[0].erases_history() && appends[1].erases_history());
    // Whoever deleted it got no further.
    log.append(appends[0].clone());
    let left: Vec<_> = log.state.erasable_secrets().collect();
    assert_eq!(left, [SECRET]);
    let erase = Command::EraseSigningSecret { id: SECRET };
    let again = decide(&log.state, erase.clone(), log.at).unwrap();
    assert_eq!(again, appends[1..]);
    log.append(appends[1].clone());
    assert_eq!(log.state.erasable_secrets().count(), 0);
    assert!(decide(&log.state, erase, log.at).unwrap().is_empty());
    // Its bytes lie where it was added, until somebody has overwritten them.
    let left: Vec<_> = log.state.overwritable_secrets().collect();
    assert_eq!(left, [(SECRET, appends[1].expected)]);
    log.state.overwritten(SECRET);
    assert_eq!(log.state.overwritable_secrets().count(), 0);

    let deletion = Command::DeleteWebhook {
        project: PROJECT,
        id: WEBHOOK,
        base: None,
    };
    let appends = decide(&log.state, deletion, log.at).unwrap();
    assert_eq!(appends.len(), 2);
    log.append(appends[0].clone());
    let left: Vec<_> = log.state.erasable_secrets().collect();
    assert_eq!(left, [OTHER]);
}

#[test]
fn a_secret_that_comes_after_its_webhooks_end_is_erased() {
    let mut log = log();
    let context = signing_secret_context(PROJECT, THIRD);
    let sealed = log
        .data_key
        .seal(text(THIRD).reveal().as_bytes(), &context, &[0; 24]);
    let addition = Command::AddSigningSecret {
        project: PROJECT,
        webhook: WEBHOOK,
        id: THIRD,
        sealed,
    };
    let late = decide(&log.state, addition, log.at).unwrap();
    log.delete(WEBHOOK);
    log.append(late[0].clone());
    let left: Vec<_> = log.state.erasable_secrets().collect();
    assert_eq!(left, [THIRD]);
}

/// The log as the server has it after an erasure: without what the secret's subject held.
#[test]
fn a_log_without_the_erased_secret_folds_to_the_same() {
    let mut whole = log();
    whole.delete_secret(SECRET).unwrap();
    let mut left = Log::new();
    for (sequence, place, record) in &whole.appended {
        let erased = record.entry != RegistryEntry::SigningSecretErased
            && place.1 == Aggregate::SigningSecret
            && place.2 == SECRET.to_string();
        if !erased {
            let place = (place.0, place.1, place.2.as_str());
            left.state
                .apply(place, *sequence, record, &left.keys)
                .unwrap();
        }
        if let Some(webhook) = left.state.webhook(WEBHOOK) {
            let knows_the_active = webhook.definition.active_secret == OTHER;
            assert_eq!(webhook.signers.is_some(), knows_the_active);
        }
    }
    assert_eq!(left.held(), [OTHER]);
    left.signs_with(&[OTHER]);
    assert_eq!(left.state.erasable_secrets().count(), 0);
    assert_eq!(left.state.overwritable_secrets().count(), 0);
}

#[test]
fn secrets_of_a_webhook_are_bounded() {
    let mut log = Log::with_webhook(r#"["*"]"#);
    for number in 1..crate::limits::SIGNING_SECRETS_MAX {
        let number = 100 + u8::try_from(number).unwrap();
        log.add(SecretId::from_bytes([number; 16])).unwrap();
    }
    let refused = log.add(OTHER);
    assert!(matches!(refused, Err(CommandError::LimitReached { .. })));
}

#[test]
fn a_change_of_secrets_holds_for_the_version_that_it_names() {
    let mut log = log();
    let old = log.webhook().sequence;
    log.add(THIRD).unwrap();
    let activation = |base| Command::ActivateSigningSecret {
        project: PROJECT,
        webhook: WEBHOOK,
        id: THIRD,
        base,
    };
    let deletion = |base| Command::DeleteSigningSecret {
        project: PROJECT,
        webhook: WEBHOOK,
        id: SECRET,
        base,
    };
    // One more secret is no change of the webhook.
    assert!(decide(&log.state, deletion(Some(old)), log.at).is_ok());
    log.execute(activation(Some(old))).unwrap();
    let stale = Err(CommandError::Stale);
    assert_eq!(decide(&log.state, activation(Some(old)), log.at), stale);
    assert_eq!(decide(&log.state, deletion(Some(old)), log.at), stale);
    let now = log.webhook().sequence;
    log.execute(deletion(Some(now))).unwrap();
}
