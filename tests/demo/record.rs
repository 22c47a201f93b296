//! What other programs are told: captured deliveries, and what the demo has created.

use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::acts;
use crate::scene::{PROJECT_NAME, Scene};

/// The deliveries, each with the secret that verifies it.
pub(crate) fn capture(scene: &Scene, file: &Path) -> Result<()> {
    let deliveries: Vec<_> = scene
        .receiver
        .deliveries()
        .into_iter()
        .map(|delivery| {
            json!({
                "secret": scene.webhook_secret,
                "headers": delivery.headers,
                "body_base64": STANDARD.encode(&delivery.body),
            })
        })
        .collect();
    write(file, &json!({ "deliveries": deliveries }))
}

/// Secrets included, so that a test can make sure that they lie nowhere else.
pub(crate) fn report(scene: &Scene, file: &Path) -> Result<()> {
    write(
        file,
        &json!({
            "webhook_secret": scene.webhook_secret,
            "provider_key": scene.bamboohr.signing_secret,
            "greenhouse_secret": scene.greenhouse.signing_secret,
            "api_key": scene.tenant.key,
            "ingest_keys": [scene.bamboohr.ingest_key(), scene.greenhouse.ingest_key()],
            "store": scene.cluster.nats.store_dir(),
            "project": scene.tenant.project,
            "project_name": PROJECT_NAME,
            "webhook": scene.webhook,
            "record_ids": [acts::EMPLOYEE, acts::CONTACT, acts::CANDIDATE.to_string()],
            "processes": scene.cluster.process_ids(),
        }),
    )
}

/// Whoever waits for the file never sees half of it.
fn write(file: &Path, content: &Value) -> Result<()> {
    let unfinished = file.with_extension("unfinished");
    std::fs::write(&unfinished, format!("{content:#}\n"))
        .and_then(|()| std::fs::rename(&unfinished, file))
        .with_context(|| format!("writing {}", file.display()))
}
