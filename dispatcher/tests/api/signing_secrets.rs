//! Signing secrets: added, activated, deleted for good.

use reqwest::Method;
use serde_json::{Value, json};

use crate::endpoint::Endpoint;
use crate::nats_server::NatsServer;
use crate::support::{Api, Owners, eventually};

const LOOPBACK: &[&str] = &["127.0.0.0/8"];

struct Scene {
    nats: NatsServer,
    api: Api,
    key: String,
    webhook: String,
    first: String,
}

async fn scene() -> Scene {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let key = api.project("Acme").await.key;
    let body = json!({"url": "http://127.0.0.1:9/", "events": ["*"]});
    let created = api.post(&key, "/v1/webhooks", body).await.expect(201);
    Scene {
        webhook: format!("/v1/webhooks/{}", created.text("/id")),
        first: created.text("/signing_secrets/0/id"),
        nats,
        api,
        key,
    }
}

impl Scene {
    fn secrets(&self) -> String {
        format!("{}/signing_secrets", self.webhook)
    }

    async fn add(&self) -> (String, String) {
        let added = self.api.post(&self.key, &self.secrets(), Value::Null).await;
        let added = added.expect(201);
        assert_eq!(added.body["active"], false);
        (added.text("/id"), added.text("/secret"))
    }

    async fn activate(&self, id: &str, status: u16) {
        let path = format!("{}/{id}/activate", self.secrets());
        let answer = self.api.post(&self.key, &path, Value::Null).await;
        let answer = answer.expect(status);
        if status == 200 {
            assert_eq!(answer.body["active"], true);
            assert_eq!(answer.body["applied"], true);
        }
    }

    async fn delete(&self, id: &str, status: u16) {
        let path = format!("{}/{id}", self.secrets());
        self.api.delete(&self.key, &path).await.expect(status);
    }

    /// Ids, the active one marked.
    async fn listed(&self) -> Vec<(String, bool)> {
        let items = self.api.all_pages(&self.key, &self.secrets(), 2).await;
        let listed = items.iter().map(|item| {
            assert!(item.get("secret").is_none());
            let id = item["id"].as_str().unwrap().to_owned();
            (id, item["active"].as_bool().unwrap())
        });
        listed.collect()
    }
}

#[actix_web::test]
async fn one_secret_is_active_and_a_deleted_one_is_gone_for_good() {
    let scene = scene().await;
    let (second, text) = scene.add().await;
    assert!(text.starts_with("whsec_"));
    let shown = scene.api.get(&scene.key, &scene.webhook).await.expect(200);
    assert_eq!(shown.text("/signing_secrets/1/secret"), text);
    let first = scene.first.as_str();
    let listed = |ids: &[(&str, bool)]| -> Vec<(String, bool)> {
        ids.iter()
            .map(|(id, active)| ((*id).to_owned(), *active))
            .collect()
    };
    assert_eq!(
        scene.listed().await,
        listed(&[(first, true), (second.as_str(), false)])
    );
    scene.delete(first, 409).await;
    scene.activate(&second, 200).await;
    scene.activate(&second, 200).await;
    assert_eq!(
        scene.listed().await,
        listed(&[(first, false), (second.as_str(), true)])
    );
    scene.delete(&second, 409).await;
    scene.delete(first, 204).await;
    scene.delete(first, 404).await;
    scene.activate(first, 404).await;
    assert_eq!(scene.listed().await, listed(&[(second.as_str(), true)]));
    let stranger = scene.api.project("Other").await.key;
    let path = scene.secrets();
    scene.api.get(&stranger, &path).await.expect(404);
    scene
        .api
        .post(&stranger, &path, Value::Null)
        .await
        .expect(404);
    for at in [
        format!("{path}/{second}/activate"),
        format!("{path}/{second}"),
    ] {
        scene.api.post(&stranger, &at, Value::Null).await;
        scene.api.delete(&stranger, &at).await;
    }
    assert_eq!(scene.listed().await, listed(&[(second.as_str(), true)]));
    for _ in 1..10 {
        scene.add().await;
    }
    let refused = scene.api.post(&scene.key, &path, Value::Null).await;
    refused.expect(409);
}

#[actix_web::test]
async fn secrets_are_changed_of_the_version_that_is_named() {
    let scene = scene().await;
    let tag = async || {
        let shown = scene.api.get(&scene.key, &scene.webhook).await;
        shown.expect(200).header("etag").to_owned()
    };
    let call = async |method, path: &str, tag: &str| {
        let call = scene.api.call(method, path).by(&scene.key);
        call.header("if-match", tag).send().await
    };
    let (secrets, old) = (scene.secrets(), tag().await);
    let added = call(Method::POST, &secrets, &old).await.expect(201);
    let second = format!("{secrets}/{}", added.text("/id"));
    let activate = format!("{second}/activate");
    // One that does not sign is no change of the webhook.
    assert_eq!(tag().await, old);
    call(Method::POST, &activate, &old).await.expect(200);
    let now = tag().await;
    let first = format!("{secrets}/{}", scene.first);
    for (method, path) in [
        (Method::POST, &secrets),
        (Method::POST, &activate),
        (Method::DELETE, &first),
    ] {
        call(method, path, &old).await.expect(412);
    }
    assert_eq!(scene.listed().await.len(), 2);
    call(Method::DELETE, &first, &now).await.expect(204);
}

/// Messages of the secret's subject that the server still holds.
async fn held(api: &Api, secret: &str) -> Vec<u64> {
    let stream = &api.nats().registry;
    let last = shared::nats::last_sequence(stream).await.unwrap().0;
    let mut held = Vec::new();
    for sequence in 1..=last {
        if let Ok(message) = stream.get_raw_message(sequence).await
            && message.subject.ends_with(secret)
        {
            held.push(sequence);
        }
    }
    held
}

#[actix_web::test]
async fn a_deleted_secret_is_not_in_the_store_and_others_still_read_the_log() {
    let scene = scene().await;
    let (second, _) = scene.add().await;
    scene.activate(&second, 200).await;
    let before = held(&scene.api, &scene.first).await;
    assert_eq!(before.len(), 1);
    scene.delete(&scene.first, 204).await;
    let after = held(&scene.api, &scene.first).await;
    assert_eq!(after.len(), 1);
    assert!(after[0] > before[0]);
    // A replica that reads the log from its beginning finds a webhook that was made with a secret
    // that is not there any more.
    let late = Api::with(&scene.nats, LOOPBACK, Owners::Present).await;
    let id = scene.webhook.rsplit('/').next().unwrap().parse().unwrap();
    let signers = |api: &Api| {
        api.view().read(|state| {
            let webhook = state.webhook(id)?;
            let signers = webhook.signers.as_ref()?;
            Some((webhook.secrets.len(), signers.previous.is_some()))
        })
    };
    eventually(|| (signers(&late) == Some((1, false))).then_some(())).await;
    assert_eq!(signers(&scene.api), Some((1, false)));
    assert!(late.view().is_current());

    scene
        .api
        .delete(&scene.key, &scene.webhook)
        .await
        .expect(204);
    let erased = held(&scene.api, &second).await;
    assert_eq!(erased.len(), 1);
    let left = |api: &Api| api.view().read(|state| state.erasable_secrets().count());
    assert_eq!(left(&scene.api), 0);
}

#[actix_web::test]
async fn tests_are_signed_by_both_secrets_until_the_old_one_is_deleted() {
    let scene = scene().await;
    let endpoint = Endpoint::start();
    let patch = json!({"url": endpoint.url});
    scene
        .api
        .patch(&scene.key, &scene.webhook, patch)
        .await
        .expect(200);
    let account = json!({"provider": "bamboohr", "origin_owner_id": "customer-1"});
    let account = scene.api.post(&scene.key, "/v1/accounts", account).await;
    let account = account.expect(201).text("/id");
    let signatures = async || {
        let body = json!([{"event": "hris_employees.created", "record_id": "1"}]);
        let path = format!("{}/events", scene.webhook);
        let call = scene.api.call(Method::POST, &path);
        let answer = call
            .by(&scene.key)
            .header("x-account-id", &account)
            .json(&body);
        assert_eq!(answer.send().await.expect(207).body[0]["status"], 200);
        let seen = endpoint.seen().pop().unwrap();
        seen.headers["webhook-signature"].split(' ').count()
    };
    assert_eq!(signatures().await, 1);
    let (second, _) = scene.add().await;
    assert_eq!(signatures().await, 1);
    scene.activate(&second, 200).await;
    assert_eq!(signatures().await, 2);
    scene.delete(&scene.first, 204).await;
    assert_eq!(signatures().await, 1);
}

#[actix_web::test]
async fn a_step_through_one_replica_can_be_followed_up_at_once_through_another() {
    let nats = NatsServer::start().await;
    let (one, behind) = (Api::start(&nats).await, Api::lagging(&nats).await);
    let key = one.project("Acme").await.key;
    let body = json!({"url": "https://1.1.1.1/hook", "events": ["*"]});
    let created = one.post(&key, "/v1/webhooks", body).await.expect(201);
    let mut old = created.text("/signing_secrets/0/id");
    let secrets = format!("/v1/webhooks/{}/signing_secrets", created.text("/id"));
    for _ in 0..3 {
        let added = one.post(&key, &secrets, Value::Null).await.expect(201);
        let new = added.text("/id");
        let path = format!("{secrets}/{new}/activate");
        one.post(&key, &path, Value::Null).await.expect(200);
        // There the old one may still be the active one.
        let path = format!("{secrets}/{old}");
        behind.delete(&key, &path).await.expect(204);
        old = new;
    }
}
