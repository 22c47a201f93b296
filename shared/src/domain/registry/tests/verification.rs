//! What verifies a webhook, what unverifies it, and what it lifts.

use super::*;

fn log(dialect: Dialect, verification_required: bool) -> Log {
    let mut log = Log::with_project();
    let mut create = log.create_webhook(WEBHOOK, r#"["*"]"#);
    if let Command::CreateWebhook { definition, .. } = &mut create {
        definition.dialect = dialect;
        definition.verification_required = verification_required;
        definition.status = Status::PendingVerification;
    }
    log.execute(create).unwrap();
    log
}

impl Log {
    fn verify(&mut self) -> Result<(), CommandError> {
        let base = self.webhook().sequence;
        self.execute(Command::VerifyWebhook {
            project: PROJECT,
            id: WEBHOOK,
            base,
        })
    }

    fn update_url(&mut self, url: UrlChange) {
        let base = self.webhook().sequence;
        let definition = WebhookDefinition {
            description: Some("other".into()),
            ..self.webhook().definition.clone()
        };
        self.execute(Command::UpdateWebhook {
            project: PROJECT,
            id: WEBHOOK,
            definition,
            url,
            base,
        })
        .unwrap();
    }

    fn is_verified(&self) -> bool {
        self.webhook().definition.verified_at.is_some()
    }
}

#[test]
fn updates_that_call_for_another_verification() {
    for (dialect, required, url, stays) in [
        (Dialect::HrOn, false, UrlChange::Same, false),
        (Dialect::HrOn, false, UrlChange::Moved, false),
        (Dialect::Stackone, true, UrlChange::Same, true),
        (Dialect::Stackone, true, UrlChange::Moved, false),
        (Dialect::Stackone, false, UrlChange::Moved, true),
    ] {
        let mut log = log(dialect, required);
        log.verify().unwrap();
        assert_eq!(log.latest(), (Status::Enabled, true));
        assert!(log.is_verified());
        log.update_url(url);
        let status = if stays {
            Status::Enabled
        } else {
            Status::PendingVerification
        };
        assert_eq!(
            log.latest(),
            (status, false),
            "{dialect:?} {required} {url:?}"
        );
        assert_eq!(log.is_verified(), stays);
        log.verify().unwrap();
        assert_eq!(log.latest(), (Status::Enabled, true));
    }
}

#[test]
fn being_disabled_stands_in_for_no_verification() {
    let mut log = log(Dialect::HrOn, false);
    log.verify().unwrap();
    log.set(AskedStatus::Disabled).unwrap();
    log.update_url(UrlChange::Same);
    assert_eq!(log.status(), (Status::Disabled, None));
    assert_eq!(log.set(AskedStatus::Enabled), Err(CommandError::Unverified));
    log.verify().unwrap();
    assert_eq!(log.status(), (Status::Disabled, None));
    log.set(AskedStatus::Enabled).unwrap();
    assert_eq!(log.status(), (Status::Enabled, None));
}

#[test]
fn a_deactivated_webhook_of_hr_on_is_verified_and_of_stackone_enabled() {
    for (dialect, verified) in [(Dialect::HrOn, false), (Dialect::Stackone, true)] {
        let mut log = log(dialect, true);
        log.verify().unwrap();
        let seen = log.webhook().sequence;
        assert_eq!(log.record(GONE, 7, seen), 1);
        assert_eq!(log.is_verified(), verified);
        let enabled = log.set(AskedStatus::Enabled);
        assert_eq!(enabled.is_ok(), verified, "{dialect:?}");
        log.verify().unwrap();
        assert_eq!(log.status(), (Status::Enabled, None));
        assert_eq!(log.webhook().decided, None);
        // The owner's word of before comes too late.
        assert_eq!(log.record(GONE, 8, seen), 0);
    }
}

#[test]
fn an_endpoint_that_changed_meanwhile_has_proved_nothing() {
    let mut log = log(Dialect::HrOn, false);
    let base = log.webhook().sequence;
    log.update_url(UrlChange::Moved);
    let late = log.execute(Command::VerifyWebhook {
        project: PROJECT,
        id: WEBHOOK,
        base,
    });
    assert_eq!(late, Err(CommandError::Stale));
    assert_eq!(log.status(), (Status::PendingVerification, None));
}
