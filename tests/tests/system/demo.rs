//! `make demo`: what it shows is delivered and verified, by others too, and it leaves nothing
//! behind: no process, and no secret in the store.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use support::eventually::eventually;
use support::process::{self, Process};
use support::tools;

use crate::stage::SOON;

/// Starting everything, and the bounds that the demo sets itself.
const DEMO_WITHIN: Duration = Duration::from_secs(100);
/// The watchdog has but to notice.
const GONE_WITHIN: Duration = Duration::from_secs(10);

fn demo(arguments: &[&str], folder: &Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    // Its temporary folder lies in ours, so that even a killed demo leaves nothing.
    command
        .args(arguments)
        .current_dir(folder)
        .env("TMPDIR", folder);
    Process::spawn("demo", command, &folder.join("demo.log")).unwrap()
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

async fn all_gone(report: &Value) {
    let processes = report["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 3, "{report}");
    eventually("the end of everything", GONE_WITHIN, async || {
        let mut ids = processes
            .iter()
            .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap());
        ids.find(|id| process::runs(*id))
            .map_or(Ok(()), |id| Err(format!("{id} still runs")))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_demo_delivers_what_others_verify_and_keeps_no_secret() {
    // Before anything is built on them.
    let (python, (node, node_modules)) = (tools::python().unwrap(), tools::node().unwrap());
    let verify = tools::workspace().join("tests/verify");
    for kept in [&["--keep-store"][..], &["--store", "store"]] {
        let folder = tempfile::tempdir().unwrap();
        let told = ["--once", "--capture", "capture", "--report", "report"];
        let mut demo = demo(&[&told, kept].concat(), folder.path());
        let status = demo.finished(DEMO_WITHIN).await.unwrap();
        assert!(
            status.success(),
            "the demo ended with {status}:\n{}",
            demo.log_tail()
        );
        let capture = folder.path().join("capture");
        let deliveries = json_file(&capture)["deliveries"].as_array().unwrap().len();
        assert_eq!(deliveries, 5, "three events and two accounts");
        let by_python = tools::output_of(
            Command::new(&python)
                .arg(verify.join("verify.py"))
                .arg(&capture),
        );
        assert_eq!(by_python.unwrap().trim(), "verified 5 deliveries");
        let mut by_node = Command::new(&node);
        by_node.arg(verify.join("verify.mjs")).arg(&capture);
        by_node.env("NODE_VERIFIER_MODULES", &node_modules);
        tools::output_of(&mut by_node).unwrap();
        let report = json_file(&folder.path().join("report"));
        no_secret_in_the_store(&report);
        all_gone(&report).await;
    }
}

fn no_secret_in_the_store(report: &Value) {
    let store = PathBuf::from(report["store"].as_str().unwrap());
    let files = files_below(&store);
    let holds = |wanted: &[u8]| {
        files
            .iter()
            .find(|(_, bytes)| bytes.windows(wanted.len()).any(|window| window == wanted))
    };
    // What must be found is: else nothing would be proven.
    for name in ["project", "project_name", "webhook"] {
        assert!(
            holds(report[name].as_str().unwrap().as_bytes()).is_some(),
            "{name} is not found"
        );
    }
    for record in report["record_ids"].as_array().unwrap() {
        assert!(
            holds(record.as_str().unwrap().as_bytes()).is_some(),
            "{record} is not found"
        );
    }
    let ingest_keys = report["ingest_keys"].as_array().unwrap();
    assert_eq!(ingest_keys.len(), 2);
    let named = [
        "webhook_secret",
        "provider_key",
        "greenhouse_secret",
        "api_key",
    ];
    let secrets = named.iter().map(|name| &report[*name]).chain(ingest_keys);
    for secret in secrets.map(|secret| secret.as_str().unwrap()) {
        assert!(secret.len() >= 16, "{secret:?}");
        for form in forms(secret) {
            let found = holds(&form).map(|(path, _)| path);
            assert_eq!(
                found,
                None,
                "{secret} as {:?}",
                String::from_utf8_lossy(&form)
            );
        }
    }
}

/// A secret's text, the text without its prefix, and the bytes that it may stand for.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let bare = secret.split_once('_').map_or(secret, |(_, bare)| bare);
    let decoded = [
        STANDARD.decode(bare).ok(),
        URL_SAFE_NO_PAD.decode(bare).ok(),
        hex::decode(bare).ok(),
    ];
    let texts = [secret, bare].map(|text| text.as_bytes().to_vec());
    let forms = texts.into_iter().chain(decoded.into_iter().flatten());
    // Anything shorter could be found by chance.
    forms.filter(|form| form.len() >= 8).collect()
}

fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                files.push((path, bytes));
            }
        }
    }
    assert!(!files.is_empty());
    files
}

#[tokio::test]
async fn the_demo_stays_until_it_is_stopped_and_then_leaves_no_process() {
    for signal in ["INT", "TERM", "KILL"] {
        let folder = tempfile::tempdir().unwrap();
        let mut demo = demo(&["--report", "report"], folder.path());
        demo.printed("Try next", DEMO_WITHIN).await.unwrap();
        let report = json_file(&folder.path().join("report"));
        let store = PathBuf::from(report["store"].as_str().unwrap());
        assert!(demo.ended().is_none() && store.is_dir());
        demo.signal(signal).unwrap();
        let status = demo.finished(SOON).await.unwrap();
        all_gone(&report).await;
        if signal != "KILL" {
            assert!(status.success(), "{signal}: {status}\n{}", demo.log_tail());
            assert!(!store.exists(), "{signal}: the temporary store is left");
        }
    }
}

#[tokio::test]
async fn the_demo_refuses_a_folder_that_holds_something() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("store")).unwrap();
    std::fs::write(folder.path().join("store/file"), "something").unwrap();
    let mut demo = demo(&["--once", "--store", "store"], folder.path());
    let status = demo.finished(SOON).await.unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(
        demo.log_tail().contains("is not empty"),
        "{}",
        demo.log_tail()
    );
}
