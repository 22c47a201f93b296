//! A copy of the server's store, made while all is stopped, goes on where the original stood.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;
use support::api::text;
use support::cluster::{Cluster, ClusterBuilder};
use support::eventually::eventually;
use support::receiver::{Answer, Receiver};

use crate::stage::{HOOK, SOON, event, post_all};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// With the same master key as others in the test.
fn builder(folder: &Path, key: &str) -> ClusterBuilder {
    let builder = Cluster::builder().folder(folder);
    builder.setting("CARILLON_MASTER_KEY", key)
}

#[tokio::test]
async fn a_copied_store_goes_on_where_it_stood() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [original, restored] = folders.each_ref().map(tempfile::TempDir::path);
    let key = STANDARD.encode(shared::random::bytes::<32>());
    let receiver = Receiver::start().unwrap();
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    receiver.answer(move |arrival| {
        let takes = well.load(Ordering::SeqCst) || arrival.record_id == "taken";
        Answer::status(if takes { 204 } else { 500 })
    });

    let cluster = builder(original, &key).start().await.unwrap();
    let tenant = cluster.tenant("Backup").await.unwrap();
    let webhook = json!({"url": receiver.url(HOOK), "events": ["*"],
        "policy": {"retry_schedule_ms": [3_000]}});
    let webhook = tenant.client.create_webhook(&webhook).await.unwrap();
    let webhook = webhook.expect(201).unwrap();
    receiver.trust(HOOK, &text(&webhook, "/signing_secrets/0/secret").unwrap());
    let ids = post_all(&tenant.client, &[event("taken", 1), event("waits", 2)]).await;
    let wait = receiver.wait_for("the first attempts", SOON, |all| {
        all.iter().filter(|one| one.answered.is_some()).count() == ids.len()
    });
    wait.await.unwrap();
    cluster.stop().await.unwrap();
    copy(original, restored);

    is_well.store(true, Ordering::SeqCst);
    let cluster = builder(restored, &key).start().await.unwrap();
    let client = cluster.admin().unwrap().with_token(&tenant.key);
    receiver.wait_for_id(&ids[1], SOON).await.unwrap();
    let path = format!("/v1/webhooks/{}/overview", text(&webhook, "/id").unwrap());
    eventually("the account", SOON, async || {
        let shown = client.call(Method::GET, &path, None).await.unwrap();
        let ledger = &shown.json["ledger"];
        let holds = [
            ("accepted", 2),
            ("delivered", 2),
            ("pending", 0),
            ("gap", 0),
        ]
        .iter()
        .all(|(name, count)| ledger[name] == *count);
        holds.then_some(()).ok_or_else(|| shown.to_string())
    })
    .await
    .unwrap();
    assert_eq!(receiver.of_id(&ids[0]).len(), 1, "it was sent again");
    receiver.all_verified().unwrap();
    let last = post_all(&client, &[event("taken", 3)]).await.remove(0);
    receiver.wait_for_id(&last, SOON).await.unwrap();
    cluster.stop().await.unwrap();
}
