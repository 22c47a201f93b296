//! One customer's linked login at a provider.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{AccountId, ProjectId, Sequence};
use crate::secret::Secret;
use crate::time::Timestamp;

/// What the caller decides about an account, whole: the state after the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountDefinition {
    /// Connector key.
    pub provider: String,
    pub name: Option<String>,
    /// The customer's id in the caller's system.
    pub origin_owner_id: String,
    pub origin_owner_name: Option<String>,
    pub origin_username: Option<String>,
    /// Sealed JSON of [`AccountSecrets`].
    pub sealed_secrets: Vec<u8>,
}

/// The sealed part of an account.
#[derive(Clone, Serialize, Deserialize)]
pub struct AccountSecrets {
    /// The unguessable part of the ingest URL.
    #[serde(with = "secret_text")]
    pub ingest_key: Secret,
    /// What the provider signs callbacks with: given by it, or generated for it.
    #[serde(with = "optional_secret_text", default)]
    pub signing_secret: Option<Secret>,
    /// We made the signing secret, so the API may show it again; a given one is never shown.
    #[serde(default)]
    pub signing_secret_generated: bool,
    /// Everything else of `credentials`, as it was given.
    #[serde(default)]
    pub credentials: Option<Box<RawValue>>,
    #[serde(default)]
    pub settings: Option<Box<RawValue>>,
}

impl std::fmt::Debug for AccountSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccountSecrets(…)")
    }
}

/// An account, folded and unsealed.
#[derive(Clone, Debug)]
pub struct Account {
    pub id: AccountId,
    pub project: ProjectId,
    pub definition: AccountDefinition,
    pub secrets: AccountSecrets,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Registry sequence of the last entry, and its ETag.
    pub sequence: Sequence,
}

mod secret_text {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::secret::Secret;

    pub(super) fn serialize<S: Serializer>(secret: &Secret, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(secret.reveal())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Secret, D::Error> {
        Secret::deserialize(d)
    }
}

mod optional_secret_text {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::secret::Secret;

    pub(super) fn serialize<S: Serializer>(
        secret: &Option<Secret>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::reveal).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Secret>, D::Error> {
        Option::deserialize(d)
    }
}
