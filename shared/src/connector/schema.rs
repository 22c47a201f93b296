//! The file `connector.toml`. Unknown fields are errors, so that a typo cannot be ignored.
//!
//! ```toml
//! provider = "acme"              # lower case; what accounts name
//! name = "Acme HR"               # what people read
//! success_status = 202           # optional, 200
//! signing_secret = "generated"   # we make it and a person types it in at the provider, or "given"
//! events = ["hris_employees.updated"]    # every event that the program may emit; in the catalog
//!
//! [verification.hmac]            # or [verification.token]; see `crate::verify`
//! algorithm = "sha256"
//! message = ["body", { header = "x-acme-timestamp" }]
//! signature = { header = "x-acme-signature", prefix = "sha256=", encoding = "hex" }
//!
//! [mapping]                      # see `super::mapping`
//! program = '''
//!   .body.changes[]
//!   | {event: "hris_employees.updated", record_id: .id, occurred_at: .at, dedup: .uuid,
//!      event_data: ({id: (.id | text), work_email: .mail} | omit_missing)}
//! '''
//! ```

use std::collections::BTreeSet;

use serde::Deserialize;

use super::SigningSecretSource;
use crate::domain::catalog;
use crate::limits::NAME_BYTES_MAX;
use crate::verify::Scheme;

/// What the platform writes in a provider's place where it names events by their identity
/// (`protocol.md`, rule 1): first-party events and those of accounts. A provider of that name could
/// make their ids.
const RESERVED_PROVIDERS: [&str; 2] = ["first_party", "account"];

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectorFile {
    pub(super) provider: String,
    pub(super) name: String,
    #[serde(default = "ok")]
    pub(super) success_status: u16,
    pub(super) signing_secret: SigningSecretSource,
    pub(super) events: Vec<String>,
    pub(super) verification: Scheme,
    pub(super) mapping: MappingFile,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MappingFile {
    pub(super) program: String,
}

/// A field and what is wrong with it.
pub(super) type Flaw = (String, String);

const fn ok() -> u16 {
    200
}

impl ConnectorFile {
    /// Checks what the types cannot say, the program aside.
    pub(super) fn validate(&self) -> Result<(), Flaw> {
        let flaw = |field: &str, detail: &str| Err((field.to_owned(), detail.to_owned()));
        let lower = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-'
        };
        // The name goes into metrics' labels, URLs and folder names.
        if self.provider.is_empty() || self.provider.len() > 64 || !self.provider.bytes().all(lower)
        {
            return flaw("provider", "must be 1 to 64 of a-z, 0-9, _ and -");
        }
        if RESERVED_PROVIDERS.contains(&self.provider.as_str()) {
            return flaw("provider", "is a name that Carillon itself uses");
        }
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return flaw("name", "must not be empty or too long");
        }
        if !(200..300).contains(&self.success_status) {
            return flaw("success_status", "must be 200 to 299");
        }
        if self.events.is_empty() {
            return flaw("events", "must name at least one event");
        }
        let mut seen = BTreeSet::new();
        for (index, event) in self.events.iter().enumerate() {
            let field = format!("events[{index}]");
            // Under any other name the events of a callback would be lost, and its provider told
            // that all is well.
            let known = catalog::resolve(event).filter(|known| known.as_str() == event);
            let Some(event_type) = known else {
                return flaw(&field, "is not in the catalog of event types");
            };
            if catalog::is_reserved(&event_type) {
                return flaw(&field, "is a type that only Carillon itself sends");
            }
            if !seen.insert(event) {
                return flaw(&field, "is there twice");
            }
        }
        self.verification.validate().map_err(|invalid| {
            (
                format!("verification.{}", invalid.field),
                invalid.detail.to_owned(),
            )
        })
    }
}
