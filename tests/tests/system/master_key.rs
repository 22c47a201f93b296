//! The new master key comes into use in two rolling restarts, as the operators' document begins its
//! change, and nobody meets at any time what it cannot open.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use support::api::text;
use support::cluster::{Cluster, Service};
use support::providers;
use support::receiver::{Delivery, Receiver};

use crate::stage::{HOOK, SOON, event, post_all};

const KEY: &str = "CARILLON_MASTER_KEY";
const SECOND: &str = "/second";
const PREVIOUS: &str = "CARILLON_MASTER_KEY_PREVIOUS";

async fn restart(service: &mut Service, key: &str, previous: &str) {
    service.set(KEY, key);
    service.set(PREVIOUS, previous);
    assert!(service.terminate().await.unwrap().success());
    service.restart().await.unwrap();
}

#[tokio::test]
async fn the_master_key_is_changed_in_two_rolling_restarts() {
    let [old, new] = [(); 2].map(|()| STANDARD.encode(shared::random::bytes::<32>()));
    let receiver = Receiver::start().unwrap();
    let mut cluster = Cluster::builder().setting(KEY, &old).start().await.unwrap();
    let tenant = cluster.tenant("Master key").await.unwrap();
    let client = &tenant.client;
    let webhook = json!({"url": receiver.url(HOOK), "events": ["*"]});
    let webhook = client.create_webhook(&webhook).await.unwrap();
    let webhook = webhook.expect(201).unwrap();
    receiver.trust(HOOK, &text(&webhook, "/signing_secrets/0/secret").unwrap());

    restart(&mut cluster.ingest, &old, &new).await;
    restart(&mut cluster.dispatcher, &old, &new).await;
    restart(&mut cluster.dispatcher, &new, &old).await;
    // A project whose data key the new key has sealed, opened by an ingest that has the old one first.
    let second = cluster.tenant("Sealed with the new key").await.unwrap();
    let webhook = json!({"url": receiver.url(SECOND), "events": ["*"]});
    let webhook = second.client.create_webhook(&webhook).await.unwrap();
    let webhook = webhook.expect(201).unwrap();
    receiver.trust(
        SECOND,
        &text(&webhook, "/signing_secrets/0/secret").unwrap(),
    );
    let account = json!({"provider": "greenhouse", "origin_owner_id": "customer-1"});
    let account = second.client.create_account(&account).await.unwrap();
    let account = account.expect(201).unwrap();
    let body = providers::greenhouse_candidate_updated(17, "Ada");
    let secret = text(&account, "/ingest/secret").unwrap();
    let callback = providers::greenhouse(&secret, body, "1");
    let url = text(&account, "/ingest/url").unwrap();
    let answer = client.callback(&url, &callback).await.unwrap();
    answer.expect(200).unwrap();
    restart(&mut cluster.ingest, &new, &old).await;

    let id = post_all(client, &[event("record", 1)]).await.remove(0);
    receiver.wait_for_id(&id, SOON).await.unwrap();
    let is_there = |all: &[Delivery]| {
        let mut candidates = all.iter().filter(|one| one.record_id() == "17");
        candidates.any(Delivery::succeeded)
    };
    let wait = receiver.wait_for("the candidate", SOON, is_there);
    wait.await.unwrap();
    receiver.all_verified().unwrap();
    cluster.stop().await.unwrap();
}
