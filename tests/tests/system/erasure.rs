//! A deleted project leaves nothing behind: not in the store's files, not in the API, not in a
//! replica; and the other projects do not notice.

use async_nats::jetstream;
use reqwest::Method;
use serde_json::json;
use shared::codec;
use shared::domain::registry::{Aggregate, RegistryEntry};
use shared::subjects;
use support::api::{Client, text};
use support::cluster::{Cluster, Tenant};
use support::eventually::eventually;
use support::ledger::Ledger;
use support::receiver::{Answer, Receiver};

use crate::stage::{HOOK, IN_A_WHILE, SOON, Stage, event, post_all};

/// Stand in the logs as they are.
const NAME: &str = "marker-of-the-name-5a1c";
const KEY_NAME: &str = "marker-of-the-key-77d0";
const DESCRIPTION: &str = "marker-of-the-description-9b2e";
const OWNER: &str = "marker-of-the-owner-c4f1";
const BODY: &str = "marker-of-the-body-d07a";
const PLAIN: [&str; 5] = [NAME, KEY_NAME, DESCRIPTION, OWNER, BODY];
/// Are sealed.
const ANSWER: &str = "marker-of-the-answer-e3b8";
const TOKEN: &str = "marker-of-the-token-f6c9";
const CREDENTIAL: &str = "marker-of-the-credential-a1d2";
const SEALED: [&str; 3] = [ANSWER, TOKEN, CREDENTIAL];

const DOWN: &str = "/down";

/// All in one partition, so that the projects are as close to each other as they can be.
async fn stage() -> Stage {
    let cluster = Cluster::builder().setting("CARILLON_PARTITIONS", "1");
    let cluster = cluster.start().await.unwrap();
    let stage = Stage {
        receiver: Receiver::start().unwrap(),
        tenant: cluster.tenant("The other").await.unwrap(),
        cluster,
    };
    stage.receiver.answer(|arrival| {
        if arrival.path.starts_with(DOWN) {
            Answer::status(500).with_body(ANSWER)
        } else {
            Answer::status(204)
        }
    });
    let everything = json!(["*"]);
    stage
        .webhook(&stage.tenant, HOOK, everything, json!({}))
        .await;
    stage
}

/// A project with markers in everything that it can hold, some of its deliveries pending.
async fn marked(stage: &Stage) -> (Tenant, Vec<String>) {
    let admin = stage.cluster.admin().unwrap();
    let tenant = Tenant::create(&admin, NAME).await.unwrap();
    let key = admin.create_api_key(&tenant.project, KEY_NAME).await;
    key.unwrap().expect(201).unwrap();
    let account = json!({
        "provider": "bamboohr", "origin_owner_id": OWNER, "credentials": {"token": CREDENTIAL},
    });
    let account = tenant.client.create_account(&account).await.unwrap();
    let account = account.id(201).unwrap();
    let path = format!("{DOWN}?token={TOKEN}");
    let url = stage.receiver.url(&path);
    let webhook = json!({"url": url, "events": ["*"], "description": DESCRIPTION});
    let webhook = tenant.client.create_webhook(&webhook).await.unwrap();
    let webhook = webhook.expect(201).unwrap();
    let secret = text(&webhook, "/signing_secrets/0/secret").unwrap();
    stage.receiver.trust(&path, &secret);
    let webhook = text(&webhook, "/id").unwrap();
    let mut events = Vec::new();
    for number in 0..20 {
        let mut event = event(&format!("{BODY}-{}", number % 4), number);
        event["data"] = json!({"text": BODY});
        events.push(event);
        // Between those of the project that stays, so that they share the store's blocks.
        post_all(&stage.tenant.client, &[self::event("between", number)]).await;
        let last = events.len() - 1;
        post_all(&tenant.client, &events[last..]).await;
    }
    let attempts = format!("/v1/webhooks/{webhook}/attempts");
    eventually("a failure with its answer", SOON, async || {
        let shown = tenant.client.call(Method::GET, &attempts, None).await;
        let shown = shown.unwrap().expect(200).unwrap();
        let told = shown.to_string();
        told.contains(ANSWER).then_some(()).ok_or(told)
    })
    .await
    .unwrap();
    let paths = [
        format!("/v1/webhooks/{webhook}"),
        attempts,
        format!("/v1/accounts/{account}"),
        "/v1/events".to_owned(),
        "/v1/audit".to_owned(),
    ];
    (tenant, paths.into())
}

/// What is sealed in the last entry about it.
async fn sealed(cluster: &Cluster, project: &str, aggregate: Aggregate, id: &str) -> Vec<u8> {
    let nats = async_nats::connect(cluster.nats.url()).await.unwrap();
    let registry = jetstream::new(nats).get_stream(subjects::REGISTRY).await;
    let registry = registry.unwrap();
    let subject = subjects::registry(project.parse().unwrap(), aggregate, id);
    let message = registry.get_last_raw_message_by_subject(&subject);
    let record = codec::decode_record(&message.await.unwrap().payload).unwrap();
    let sealed = match record.entry {
        RegistryEntry::DataKeyCreated { sealed }
        | RegistryEntry::SigningSecretAdded { sealed, .. } => Some(sealed),
        _ => None,
    };
    sealed.unwrap()
}

async fn metric(cluster: &Cluster, name: &str) -> f64 {
    let metrics = cluster.dispatcher.metrics().await.unwrap();
    let mut lines = metrics.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// Waits until so many webhooks have an actor.
async fn actors(cluster: &Cluster, count: f64) {
    eventually("actors", SOON, async || {
        let actors = metric(cluster, "carillon_dispatcher_webhooks").await;
        if actors == count {
            Ok(())
        } else {
            Err(actors.to_string())
        }
    })
    .await
    .unwrap();
}

async fn deleted(admin: &Client, project: &str) {
    let path = format!("/v1/projects/{project}");
    let deleted = admin.call(Method::DELETE, &path, None).await.unwrap();
    deleted.expect(204).unwrap();
    for path in [path.clone(), format!("{path}/api_keys")] {
        let gone = admin.call(Method::GET, &path, None).await.unwrap();
        gone.expect(404).unwrap();
    }
}

#[tokio::test]
async fn a_deleted_project_is_gone_from_the_store_and_others_go_on() {
    let mut stage = stage().await;
    let (tenant, paths) = marked(&stage).await;
    let nats = &stage.cluster.nats;
    for marker in PLAIN {
        assert!(nats.occurrences(marker.as_bytes()).unwrap() > 0, "{marker}");
    }
    let project = &tenant.project;
    let data_key = sealed(&stage.cluster, project, Aggregate::DataKey, project).await;
    assert!(nats.occurrences(&data_key).unwrap() > 0);
    for marker in SEALED {
        assert_eq!(nats.occurrences(marker.as_bytes()).unwrap(), 0, "{marker}");
    }

    // The other one's had something to do a moment ago, so that neither rests.
    actors(&stage.cluster, 2.0).await;
    let admin = stage.cluster.admin().unwrap();
    deleted(&admin, &tenant.project).await;
    actors(&stage.cluster, 1.0).await;
    for path in &paths {
        let refused = tenant.client.call(Method::GET, path, None).await.unwrap();
        refused.expect(401).unwrap();
        let others = stage.tenant.client.call(Method::GET, path, None).await;
        let others = others.unwrap().success();
        assert!(others.is_err() || !others.unwrap().to_string().contains("marker"));
    }
    let refused = tenant.client.post_events(&json!([event("r", 0)])).await;
    refused.unwrap().expect(401).unwrap();
    // The one that was to erase it.
    stage.cluster.dispatcher.kill();
    stage.cluster.dispatcher.restart().await.unwrap();

    let mut ledger = Ledger::default();
    let mut number = 20;
    eventually("the erasure", IN_A_WHILE, async || {
        let id = stage.post(event("during", number)).await;
        ledger.accepted("during", &id);
        number += 1;
        match metric(&stage.cluster, "carillon_dispatcher_projects_erased_total").await {
            0.0 => Err("it is not said yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    let nats = &stage.cluster.nats;
    for marker in PLAIN.into_iter().chain(SEALED) {
        assert_eq!(nats.occurrences(marker.as_bytes()).unwrap(), 0, "{marker}");
    }
    assert_eq!(nats.occurrences(&data_key).unwrap(), 0);
    stage.settled(&ledger).await;

    // Whoever reads the logs from their beginning, and takes the partition, finds no fault in them.
    stage.cluster.dispatcher.terminate().await.unwrap();
    stage.cluster.ingest.restart().await.unwrap();
    stage.cluster.dispatcher.restart().await.unwrap();
    let id = stage.post(event("after", number)).await;
    ledger.accepted("after", &id);
    stage.settled(&ledger).await;
    let projects = admin.call(Method::GET, "/v1/projects", None).await.unwrap();
    let projects = projects.expect(200).unwrap();
    assert_eq!(text(&projects, "/items/0/name").unwrap(), "The other");
    assert_eq!(projects["items"].as_array().unwrap().len(), 1);
    let log = std::fs::read_to_string(stage.cluster.dispatcher.log()).unwrap();
    assert!(!log.contains("registry entry is"), "{log}");
}

#[tokio::test]
async fn a_deleted_signing_secret_is_gone_from_the_stores_files() {
    let stage = stage().await;
    let (client, project) = (&stage.tenant.client, &stage.tenant.project);
    let url = stage.receiver.url("/rotated");
    let webhook = json!({"url": url, "events": ["*"]});
    let webhook = client.create_webhook(&webhook).await.unwrap();
    let webhook = webhook.id(201).unwrap();
    let secrets = format!("/v1/webhooks/{webhook}/signing_secrets");
    let added = client.call(Method::POST, &secrets, None).await.unwrap();
    let added = added.id(201).unwrap();
    let sealed = sealed(&stage.cluster, project, Aggregate::SigningSecret, &added).await;
    let nats = &stage.cluster.nats;
    assert!(nats.occurrences(&sealed).unwrap() > 0);
    let deleted = format!("{secrets}/{added}");
    let deleted = client.call(Method::DELETE, &deleted, None).await.unwrap();
    deleted.expect(204).unwrap();
    eventually("its bytes gone", SOON, async || {
        match nats.occurrences(&sealed).unwrap() {
            0 => Ok(()),
            count => Err(count.to_string()),
        }
    })
    .await
    .unwrap();
}
