//! The master key is changed while events flow: no signature is ever bad, nothing that the former
//! key has sealed stays in the store, and then the new key alone will do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;
use shared::random;
use shared::secret::MasterKeys;
use support::api::text;
use support::cluster::Tenant;
use support::nats::SyncInterval;
use support::receiver::Receiver;
use support::run::{Fleet, Paths, Size};

use crate::rotation::flow;
use crate::stage::SOON;

const PATH: &str = "/resealed";
const KEY: &str = "CARILLON_MASTER_KEY";
const PREVIOUS: &str = "CARILLON_MASTER_KEY_PREVIOUS";
const EVENTS_A_STEP: usize = 100;

/// What everything that a master key has sealed begins with.
fn mark(master_key: &str) -> Vec<u8> {
    let mut sealed = MasterKeys::new(master_key, &[])
        .unwrap()
        .seal(b"", b"", &[0; 24]);
    sealed.truncate(5);
    sealed
}

struct Scene {
    fleet: Fleet,
    receiver: Receiver,
    tenant: Tenant,
}

impl Scene {
    fn occurrences(&self, master_key: &str) -> usize {
        let server = &self.fleet.nats.servers()[0];
        server.occurrences(&mark(master_key)).unwrap()
    }

    async fn reseal(&self) -> String {
        let dispatcher = &self.fleet.dispatchers[0].service;
        dispatcher.command(&["--reseal"]).await.unwrap()
    }

    /// One replica after the other, as an operator does it.
    async fn roll(&mut self, key: &str, previous: &str) {
        for member in &mut self.fleet.dispatchers {
            member.service.set(KEY, key);
            member.service.set(PREVIOUS, previous);
            assert!(member.service.terminate().await.unwrap().success());
            member.service.restart().await.unwrap();
        }
    }

    async fn more(&self) {
        let before = self.receiver.count();
        let wait = self.receiver.wait_for("more deliveries", SOON, |all| {
            all.len() >= before + EVENTS_A_STEP
        });
        wait.await.unwrap();
        self.receiver.all_verified().unwrap();
    }
}

#[tokio::test]
async fn the_master_key_is_changed_while_events_flow() {
    let [old, new] = [(); 2].map(|()| STANDARD.encode(random::bytes::<32>()));
    let size = Size {
        dispatcher: "dispatcher",
        dispatchers: 2,
        ingests: 1,
        servers: 1,
        sync: SyncInterval::Default,
        paths: Paths::Direct,
    };
    // Every service opens with the new key before any seals with it.
    let settings = [(KEY, old.as_str()), (PREVIOUS, new.as_str())];
    let fleet = Fleet::start_with(&size, &settings).await.unwrap();
    let admin = fleet.admin().unwrap();
    let mut scene = Scene {
        tenant: Tenant::create(&admin, "Resealed").await.unwrap(),
        receiver: Receiver::start().unwrap(),
        fleet,
    };
    let client = scene.tenant.client.clone();
    let webhook = json!({"url": scene.receiver.url(PATH), "events": ["*"]});
    let webhook = client.create_webhook(&webhook).await.unwrap();
    let webhook = webhook.expect(201).unwrap();
    let secret = text(&webhook, "/signing_secrets/0/secret").unwrap();
    scene.receiver.trust(PATH, &secret);
    let account = json!({"provider": "greenhouse", "origin_owner_id": "customer-1"});
    let account = client.create_account(&account).await.unwrap();
    let account = account.expect(201).unwrap();
    assert!(scene.occurrences(&old) > 0);
    assert_eq!(scene.occurrences(&new), 0);

    let steps = async {
        scene.more().await;
        scene.roll(&new, &old).await;
        Tenant::create(&admin, "Sealed with the new key")
            .await
            .unwrap();
        assert_eq!(
            scene.reseal().await,
            "data keys: 2, sealed anew: 1, former entries overwritten: 1\n"
        );
        assert_eq!(scene.occurrences(&old), 0);
        assert!(scene.occurrences(&new) > 0);
        assert_eq!(
            scene.reseal().await,
            "data keys: 2, sealed anew: 0, former entries overwritten: 0\n"
        );
        scene.more().await;
        scene.roll(&new, "").await;
        scene.more().await;
    };
    tokio::select! {
        () = steps => {}
        () = flow(client.clone()) => {}
    }
    let ingest = &mut scene.fleet.ingests[0].service;
    ingest.set(KEY, &new);
    ingest.set(PREVIOUS, "");
    ingest.restart().await.unwrap();
    let again = text(&account, "/id").unwrap();
    let again = client.get_account(&again).await.unwrap();
    let again = again.expect(200).unwrap();
    assert_eq!(again["ingest"], account["ingest"]);
    let added = format!(
        "/v1/webhooks/{}/signing_secrets",
        text(&webhook, "/id").unwrap()
    );
    let added = client.call(Method::POST, &added, None).await.unwrap();
    added.expect(201).unwrap();
    tokio::select! {
        () = scene.more() => {}
        () = flow(client.clone()) => {}
    }
}
