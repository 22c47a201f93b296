//! Connectors: what is known of each provider, as data. A connector adds no Rust code.
//!
//! The embedded ones are always there; a directory may add others, or replace embedded ones.
//! Everything in a file is checked when it is loaded, the jq program compiled, so that a mistake is
//! found at start and not by a callback. Pure but for [`Connectors::add_dir`], which reads files.

mod functions;
mod mapping;
mod program;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use mapping::{EVENTS_PER_CALLBACK_MAX, MapError, MappedEvent};

use crate::time::Timestamp;
use crate::verify::{Scheme, VerifyError};
use program::Program;
use schema::ConnectorFile;

/// File name and text of each connector that comes with the program.
const EMBEDDED: &[(&str, &str)] = &[
    (
        "bamboohr/connector.toml",
        include_str!("../../connectors/bamboohr/connector.toml"),
    ),
    (
        "greenhouse/connector.toml",
        include_str!("../../connectors/greenhouse/connector.toml"),
    ),
];

/// A connector's file; larger ones are a mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All connectors, by provider.
#[derive(Debug)]
pub struct Connectors {
    by_provider: BTreeMap<String, Connector>,
}

/// One provider's connector.
pub struct Connector {
    file: ConnectorFile,
    program: Program,
}

/// Who makes the secret that a provider signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SigningSecretSource {
    /// We do, and a person types it in at the provider.
    Generated,
    /// The provider does, when the subscription is made.
    Given,
}

/// A provider's request, as the server received it.
#[derive(Debug, Clone, Copy)]
pub struct Callback<'a> {
    pub method: &'a str,
    /// Without the question mark.
    pub query: &'a str,
    /// Names in lower case; repeated ones stand as often as they arrived.
    pub headers: &'a [(String, String)],
    /// Decompressed, else as it arrived.
    pub body: &'a [u8],
}

/// Why connectors cannot be loaded. Each names the file, and the field where there is one.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// No TOML, or not a connector's fields.
    #[error("{file}: {detail}")]
    Syntax { file: String, detail: String },
    #[error("{file}: {field}: {detail}")]
    Invalid {
        file: String,
        field: String,
        detail: String,
    },
}

impl Connectors {
    pub fn embedded() -> Result<Self, ConnectorError> {
        let mut connectors = Self {
            by_provider: BTreeMap::new(),
        };
        for (file, text) in EMBEDDED {
            connectors.insert(Connector::parse(file, text)?);
        }
        Ok(connectors)
    }

    /// Adds `<provider>/connector.toml` of each folder in `dir`; one for a provider that is already
    /// there replaces it. Folders without that file are passed over. On an error nothing is added.
    pub fn add_dir(&mut self, dir: &Path) -> Result<(), ConnectorError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| ConnectorError::Read { path, source }
        };
        let mut folders = BTreeSet::new();
        for entry in std::fs::read_dir(dir).map_err(unreadable(dir))? {
            folders.insert(entry.map_err(unreadable(dir))?.path());
        }
        let mut added = Vec::new();
        for folder in folders {
            let path = folder.join("connector.toml");
            if !path.is_file() {
                continue;
            }
            let bytes = std::fs::metadata(&path).map_err(unreadable(&path))?.len();
            if bytes > FILE_BYTES_MAX {
                let source = io::Error::other(format!("{bytes} bytes, more than {FILE_BYTES_MAX}"));
                return Err(ConnectorError::Read { path, source });
            }
            let text = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
            let file = path.display().to_string();
            let connector = Connector::parse(&file, &text)?;
            // Otherwise two folders could hold one provider, and one of them would silently lose.
            if folder.file_name().and_then(|name| name.to_str()) != Some(connector.provider()) {
                let detail = "must be the name of the folder".to_owned();
                return Err(ConnectorError::Invalid {
                    file,
                    field: "provider".to_owned(),
                    detail,
                });
            }
            added.push(connector);
        }
        for connector in added {
            self.insert(connector);
        }
        Ok(())
    }

    pub fn get(&self, provider: &str) -> Option<&Connector> {
        self.by_provider.get(provider)
    }

    /// In the order of their providers' names.
    pub fn iter(&self) -> impl Iterator<Item = &Connector> {
        self.by_provider.values()
    }

    fn insert(&mut self, connector: Connector) {
        self.by_provider
            .insert(connector.provider().to_owned(), connector);
    }
}

impl Connector {
    /// Reads and checks one connector. `file` is what errors call it.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConnectorError> {
        let parsed: ConnectorFile =
            toml::from_str(text).map_err(|error| ConnectorError::Syntax {
                file: file.to_owned(),
                detail: syntax_detail(text, &error),
            })?;
        let invalid = |(field, detail)| ConnectorError::Invalid {
            file: file.to_owned(),
            field,
            detail,
        };
        parsed.validate().map_err(invalid)?;
        let program = Program::compile(&parsed.mapping.program)
            .map_err(|detail| invalid(("mapping.program".to_owned(), detail)))?;
        Ok(Self {
            file: parsed,
            program,
        })
    }

    /// What accounts name: lower case.
    pub fn provider(&self) -> &str {
        &self.file.provider
    }

    /// What people read.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The answer that the provider takes for success, 200 to 299.
    pub fn success_status(&self) -> u16 {
        self.file.success_status
    }

    pub fn signing_secret(&self) -> SigningSecretSource {
        self.file.signing_secret
    }

    /// Every event that callbacks can map to.
    pub fn events(&self) -> &[String] {
        &self.file.events
    }

    /// How callbacks prove whose they are.
    pub fn verification(&self) -> &Scheme {
        &self.file.verification
    }

    /// Whether the callback is the provider's. To be asked before [`Self::map`].
    pub fn verify(
        &self,
        callback: &Callback<'_>,
        secret: Option<&str>,
        now: Timestamp,
    ) -> Result<(), VerifyError> {
        self.file
            .verification
            .verify(callback.headers, callback.body, secret, now)
    }

    /// What the callback tells of, in order; nothing for a ping and for what no event stands for.
    /// The same callback gives the same events.
    pub fn map(&self, callback: &Callback<'_>) -> Result<Vec<MappedEvent>, MapError> {
        mapping::map(&self.program, &self.file.events, callback)
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("provider", &self.file.provider)
            .finish_non_exhaustive()
    }
}

/// toml's message in one line, with the number of the line it speaks of.
fn syntax_detail(text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map(|before| before.matches('\n').count().saturating_add(1));
    let message = error.message().replace('\n', " ");
    line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}"))
}

#[cfg(test)]
mod tests;
