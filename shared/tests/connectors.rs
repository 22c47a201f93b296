//! Walks the samples of every connector: each verifies, stops verifying when one byte changes, and
//! maps to the events that stand beside it. A new connector or sample needs no line here.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers; clippy.toml allows these only inside test functions"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use shared::connector::{Callback, Connector, Connectors, MappedEvent};
use shared::time::Timestamp;
use shared::verify::VerifyError;

/// A recorded or hand-made callback and what it must become.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    description: String,
    secret: String,
    /// Needed only where the scheme has a window.
    #[serde(default)]
    now: Timestamp,
    #[serde(default)]
    query: String,
    headers: BTreeMap<String, String>,
    /// Exact text: it is what was signed.
    body: String,
    expected: Vec<ExpectedEvent>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedEvent {
    event: String,
    record_id: String,
    occurred_at: Option<Timestamp>,
    dedup: Option<String>,
    event_data: Option<Value>,
}

#[test]
fn every_sample_verifies_and_maps_as_expected() {
    let connectors = Connectors::embedded().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("connectors");
    let mut walked = BTreeSet::new();
    for folder in entries(&root) {
        let provider = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let connector = connectors
            .get(&provider)
            .unwrap_or_else(|| panic!("{provider} has a folder but is not embedded"));
        let mut emitted = BTreeSet::new();
        for path in entries(&folder.join("samples")) {
            let name = path.display();
            let text = std::fs::read_to_string(&path).unwrap();
            let sample: Sample =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!sample.description.is_empty(), "{name}");
            check(connector, &sample, &path);
            emitted.extend(sample.expected.into_iter().map(|event| event.event));
        }
        let declared: BTreeSet<String> = connector.events().iter().cloned().collect();
        assert_eq!(
            emitted, declared,
            "{provider}: every declared event needs a sample"
        );
        walked.insert(provider);
    }
    let embedded: BTreeSet<String> = connectors.iter().map(|c| c.provider().to_owned()).collect();
    assert_eq!(walked, embedded);
}

#[test]
fn a_directory_adds_connectors_and_replaces_embedded_ones() {
    let embedded = include_str!("../connectors/bamboohr/connector.toml");
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("connectors_dir");
    std::fs::remove_dir_all(&root).ok();
    let write = |folder: &str, text: &str| {
        std::fs::create_dir_all(root.join(folder)).unwrap();
        std::fs::write(root.join(folder).join("connector.toml"), text).unwrap();
    };
    write(
        "bamboohr",
        &embedded.replace("\"BambooHR\"", "\"BambooHR, ours\""),
    );
    write("acme", &embedded.replace("\"bamboohr\"", "\"acme\""));
    std::fs::create_dir_all(root.join("notes")).unwrap();

    let mut connectors = Connectors::embedded().unwrap();
    connectors.add_dir(&root).unwrap();
    let names: Vec<&str> = connectors.iter().map(Connector::name).collect();
    assert_eq!(names, ["BambooHR", "BambooHR, ours", "Greenhouse"]);

    write("zeta", "provider = \"zeta\"\nsurprise = 1\n");
    let mut connectors = Connectors::embedded().unwrap();
    let error = connectors.add_dir(&root).unwrap_err().to_string();
    let named = error.contains("zeta/connector.toml: line 2") && error.contains("`surprise`");
    assert!(named, "{error}");
    assert!(
        connectors.get("acme").is_none(),
        "all of a directory or nothing"
    );

    write("zeta", embedded);
    let error = connectors.add_dir(&root).unwrap_err().to_string();
    assert!(
        error.ends_with("provider: must be the name of the folder"),
        "{error}"
    );

    let error = connectors
        .add_dir(&root.join("nowhere"))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot read ") && error.contains("nowhere"),
        "{error}"
    );
}

fn check(connector: &Connector, sample: &Sample, path: &Path) {
    let name = path.display();
    let headers: Vec<(String, String)> = sample
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    let verify = |body: &[u8], secret| {
        let callback = Callback {
            method: "POST",
            query: &sample.query,
            headers: &headers,
            body,
        };
        connector.verify(&callback, secret, sample.now)
    };
    let body = sample.body.as_bytes();
    let secret = Some(sample.secret.as_str());
    assert_eq!(verify(body, secret), Ok(()), "{name}");
    assert_eq!(verify(body, None), Err(VerifyError::NoSecret), "{name}");
    assert_eq!(
        verify(body, Some("another secret")),
        Err(VerifyError::Mismatch),
        "{name}"
    );
    for index in 0..body.len() {
        let mut changed = body.to_vec();
        changed[index] ^= 1;
        assert_eq!(
            verify(&changed, secret),
            Err(VerifyError::Mismatch),
            "{name}: byte {index}"
        );
    }

    let callback = Callback {
        method: "POST",
        query: &sample.query,
        headers: &headers,
        body,
    };
    let mapped = connector
        .map(&callback)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    for event in &mapped {
        let data = event
            .event_data
            .as_ref()
            .map(|data| data.get())
            .unwrap_or_default();
        assert!(
            data.len() <= compact_len(data),
            "{name}: not compact: {data}"
        );
    }
    let again = connector.map(&callback).unwrap();
    assert_eq!(
        format!("{mapped:?}"),
        format!("{again:?}"),
        "{name}: not deterministic"
    );
    let mapped: Vec<ExpectedEvent> = mapped.into_iter().map(as_expected).collect();
    assert_eq!(mapped, sample.expected, "{name}");
}

fn as_expected(event: MappedEvent) -> ExpectedEvent {
    ExpectedEvent {
        event: event.event,
        record_id: event.record_id,
        occurred_at: event.occurred_at,
        dedup: event.dedup,
        event_data: event
            .event_data
            .map(|data| serde_json::from_str(data.get()).unwrap()),
    }
}

/// Length of `json` as serde_json writes it; field order does not change it.
fn compact_len(json: &str) -> usize {
    let value: Option<Value> = serde_json::from_str(json).ok();
    value.map_or(0, |value| value.to_string().len())
}

fn entries(folder: &Path) -> BTreeSet<PathBuf> {
    let found: BTreeSet<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!found.is_empty(), "{} is empty", folder.display());
    found
}
