//! The file `connector.toml`. Unknown fields are errors, so that a typo cannot be ignored.
//!
//! ```toml
//! provider = "acme"              # lower case; what accounts name
//! name = "Acme HR"               # what people read
//! success_status = 202           # optional, 200
//! signing_secret = "generated"   # we make it and a person types it in at the provider, or "given"
//! events = ["hris_employees.updated"]    # every event that the program may emit
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
use crate::limits::{EVENT_TYPE_BYTES_MAX, NAME_BYTES_MAX};
use crate::verify::Scheme;

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
            if !is_event_name(event) {
                return flaw(
                    &field,
                    "must be <resource>.created, .updated or .deleted in lower case",
                );
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

/// The shape of a unified event's name. Whether the catalog has it is the caller's question.
fn is_event_name(name: &str) -> bool {
    let resource =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    name.len() <= EVENT_TYPE_BYTES_MAX
        && name.split_once('.').is_some_and(|(left, right)| {
            resource(left) && matches!(right, "created" | "updated" | "deleted")
        })
}
