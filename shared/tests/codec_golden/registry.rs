//! An entry of each kind.

use super::*;

pub(super) fn records() -> Vec<RegistryRecord> {
    let account = AccountDefinition {
        provider: "bamboohr".into(),
        name: Some("HR".into()),
        origin_owner_id: "customer-1".into(),
        origin_owner_name: None,
        origin_username: Some("ada".into()),
        sealed_secrets: vec![9; 40],
    };
    let selection =
        r#"["*",{"event":"hris_employees.*","providers":["bamboohr"],"sources":["native"]}]"#;
    let webhook = WebhookDefinition {
        dialect: Dialect::Stackone,
        sealed_endpoint: vec![8; 60],
        selection: Selection::new(serde_json::from_str(selection).unwrap()).unwrap(),
        description: Some("first".into()),
        verification_required: false,
        verified_at: Some(Timestamp::from_millis(1_750_158_000_500)),
        policy: Policy::default(),
        status: Status::Enabled,
        status_reason: None,
        active_secret: SecretId::from_bytes([6; 16]),
        previous_secret: Some(SecretId::from_bytes([7; 16])),
    };
    [
        RegistryEntry::ProjectCreated {
            name: "Acme".into(),
        },
        RegistryEntry::ProjectDeleted,
        RegistryEntry::DataKeyCreated {
            sealed: vec![1; 77],
        },
        RegistryEntry::ApiKeyCreated {
            name: "ci".into(),
            hash: [5; 32],
        },
        RegistryEntry::ApiKeyRevoked,
        RegistryEntry::AccountCreated(account.clone()),
        RegistryEntry::AccountUpdated(account.clone()),
        RegistryEntry::AccountDeleted(account),
        RegistryEntry::WebhookCreated {
            from: position(12),
            definition: webhook.clone(),
        },
        RegistryEntry::WebhookUpdated(webhook),
        RegistryEntry::WebhookDeleted,
        RegistryEntry::SigningSecretAdded {
            webhook: WebhookId::from_bytes([4; 16]),
            sealed: vec![2; 90],
        },
        RegistryEntry::WebhookStatusSet {
            status: Status::Deactivated,
            reason: Some("gone".into()),
            decided: Some(DecidedAt {
                epoch: Epoch(3),
                place: EntryPlace {
                    pack: Sequence(60),
                    index: 2,
                },
            }),
        },
        RegistryEntry::WebhookStatusSet {
            status: Status::Disabled,
            reason: None,
            decided: None,
        },
        RegistryEntry::SigningSecretDeleted {
            secret: SecretId::from_bytes([7; 16]),
        },
        RegistryEntry::SigningSecretErased,
        RegistryEntry::WebhookVerified {
            status: Status::Enabled,
        },
        RegistryEntry::DataKeyResealed {
            sealed: vec![1, 2, 3],
        },
        RegistryEntry::Erased,
        RegistryEntry::ProjectErased {
            through: Sequence(9),
        },
    ]
    .into_iter()
    .map(|entry| RegistryRecord {
        at: AT,
        by: "admin".into(),
        entry,
    })
    .collect()
}
