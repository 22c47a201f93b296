//! A tenant and its API keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{AccountId, KeyId, ProjectId, Sequence, WebhookId};
use crate::secret::DataKey;
use crate::time::Timestamp;

#[derive(Clone, Debug)]
pub struct Project {
    pub id: ProjectId,
    pub name: String,
    pub created_at: Timestamp,
    pub sequence: Sequence,
    /// Seals what is secret of the project, and free text in JOURNAL (`protocol.md`, rule 28).
    pub data_key: Option<Arc<DataKey>>,
    /// Last of the data key's subject; 0 while that is yet to be folded.
    pub data_key_sequence: Sequence,
    pub api_keys: BTreeMap<KeyId, ApiKey>,
    pub accounts: BTreeSet<AccountId>,
    pub webhooks: BTreeSet<WebhookId>,
    /// What its webhooks hold in every replica, with their versions and with what is left of
    /// those that were deleted.
    pub webhook_bytes: usize,
}

impl Project {
    /// False between its two first entries, of which the first is its data key: the second may
    /// never have come.
    pub fn is_made(&self) -> bool {
        self.sequence > Sequence(0)
    }
}

/// An API key: its hash alone is kept.
#[derive(Clone, Debug)]
pub struct ApiKey {
    pub id: KeyId,
    pub name: String,
    pub hash: [u8; 32],
    pub created_at: Timestamp,
    pub sequence: Sequence,
}
