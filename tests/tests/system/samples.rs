//! What the documentation for subscribers shows is what was run here.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use support::api::text;
use support::cluster::Cluster;
use support::ports::Port;
use support::process::Process;
use support::tools;

use crate::stage::{SOON, event, post_all};

const SAMPLES: [&str; 2] = ["receiver.mjs", "receiver.py"];

fn documents() -> PathBuf {
    tools::workspace().join("deploy/docs")
}

/// Runs a sample as a webhook's endpoint and sends it an event.
async fn check(sample: &str, program: &Path) {
    let cluster = Cluster::start().await.unwrap();
    let client = cluster.tenant("System test").await.unwrap().client;
    let port = Port::claim().unwrap();
    // The sample needs the secret, so the webhook comes first, and waits for its first event.
    let webhook = json!({
        "url": format!("http://{}/webhooks", port.address()),
        "events": ["crm_contacts.*"],
    });
    let webhook = client
        .create_webhook(&webhook)
        .await
        .unwrap()
        .expect(201)
        .unwrap();
    let mut command = Command::new(program);
    command
        .arg(documents().join("samples").join(sample))
        .env("PORT", port.number().to_string())
        .env(
            "WEBHOOK_SECRETS",
            text(&webhook, "/signing_secrets/0/secret").unwrap(),
        );
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Process::spawn(sample, command, &folder.path().join("log")).unwrap();
    receiver.printed("listening on", SOON).await.unwrap();
    let ids = post_all(&client, &[event("contact-1", 1), event("contact-1", 2)]).await;
    for id in ids {
        let line = format!("accepted {id} crm_contacts.updated contact-1");
        receiver.printed(&line, SOON).await.unwrap();
    }
    assert!(
        !receiver.log_tail().contains("refused"),
        "{}",
        receiver.log_tail()
    );
}

#[tokio::test]
async fn the_node_sample_accepts_deliveries() {
    check("receiver.mjs", &tools::node().unwrap().0).await;
}

#[tokio::test]
async fn the_python_sample_accepts_deliveries() {
    check("receiver.py", &tools::python().unwrap()).await;
}

#[test]
fn the_document_shows_the_samples_as_they_are() {
    let document = std::fs::read_to_string(documents().join("subscribers.md")).unwrap();
    for sample in SAMPLES {
        let code = std::fs::read_to_string(documents().join("samples").join(sample)).unwrap();
        assert!(
            document.contains(code.trim_end()),
            "subscribers.md differs from {sample}"
        );
    }
}
