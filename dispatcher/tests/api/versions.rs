//! What a later release wrote: a partition that holds such a thing is given up, and another goes
//! on (`protocol.md`, rule 26).

use dispatcher::Ports;
use serde_json::{Value, json};
use shared::ids::{PartitionId, ProjectId};
use shared::nats::{self, NatsSettings};
use shared::partition::PartitionCount;
use shared::subjects;

use crate::nats_server::NatsServer;
use crate::process::{Dispatcher, PARTITIONS};
use crate::support::{ADMIN, eventually_ok};

/// Of a version that nobody reads yet.
const LATER: &[u8] = &[200, 1, 2, 3];
const READABLE: &str = "carillon_dispatcher_partitions_owned";
const UNREADABLE: &str = "carillon_dispatcher_partitions_unreadable_total";

async fn append(nats: &NatsServer, subject: String) {
    let settings = NatsSettings {
        urls: vec![nats.url.clone()],
        ..NatsSettings::default()
    };
    let client = nats::connect(&settings).await.unwrap();
    client.publish(subject, LATER.into()).await.unwrap();
    client.flush().await.unwrap();
}

/// A project in the partition, and its key.
async fn project_in(dispatcher: &Dispatcher, partition: PartitionId) -> (ProjectId, String) {
    let count = PartitionCount::new(PARTITIONS).unwrap();
    loop {
        let made = dispatcher.post(ADMIN, "/v1/projects", json!({"name": "x"}));
        let made = made.await.expect(201);
        let id: ProjectId = made.text("/id").parse().unwrap();
        if count.of(id) == partition {
            let path = format!("/v1/projects/{id}/api_keys");
            let key = dispatcher.post(ADMIN, &path, json!({"name": "x"})).await;
            return (id, key.expect(201).text("/key"));
        }
    }
}

/// Whether the project's partition has an owner who applies what is decided.
async fn applies(dispatcher: &Dispatcher, key: &str) -> bool {
    let body = json!({"url": "https://93.184.216.34/", "events": ["*"]});
    let made = dispatcher.post(key, "/v1/webhooks", body).await.expect(201);
    made.body["applied"] != Value::Bool(false)
}

async fn owns(dispatcher: &Dispatcher, partitions: f64) -> bool {
    dispatcher.metric(READABLE).await == Some(partitions)
}

async fn is_ready(dispatcher: &Dispatcher) -> bool {
    dispatcher.ops("/readyz").await.0 == 200
}

#[actix_web::test]
async fn a_partition_with_an_event_of_a_later_release_is_given_up_and_another_goes_on() {
    let nats = NatsServer::start().await;
    let dispatcher = Dispatcher::start(nats.url.clone(), Ports::system());
    eventually_ok(async || is_ready(&dispatcher).await).await;
    let (first, second) = (PartitionId(0), PartitionId(1));
    let (project, key) = project_in(&dispatcher, first).await;
    let (_, other_key) = project_in(&dispatcher, second).await;
    assert!(applies(&dispatcher, &key).await);
    let event_type = shared::domain::event::EventType::parse("hris_employees.created").unwrap();
    append(&nats, subjects::event(first, project, &event_type)).await;
    eventually_ok(async || owns(&dispatcher, 1.0).await).await;
    assert_eq!(dispatcher.metric(UNREADABLE).await, Some(1.0));
    eventually_ok(async || !is_ready(&dispatcher).await).await;
    assert!(!applies(&dispatcher, &key).await);
    assert!(applies(&dispatcher, &other_key).await);
    assert!(owns(&dispatcher, 1.0).await);
    dispatcher.stop.send(()).unwrap();
    Dispatcher::ended(dispatcher.ended).await;
    // Whoever takes it next finds it where classification stands.
    let next = Dispatcher::start(nats.url.clone(), Ports::system());
    eventually_ok(async || next.metric(UNREADABLE).await == Some(1.0)).await;
    eventually_ok(async || owns(&next, 1.0).await).await;
    assert!(applies(&next, &other_key).await);
    next.stop.send(()).unwrap();
    Dispatcher::ended(next.ended).await;
}

#[actix_web::test]
async fn a_partition_with_a_pack_of_a_later_release_is_not_taken_and_another_is() {
    let nats = NatsServer::start().await;
    let dispatcher = Dispatcher::start(nats.url.clone(), Ports::system());
    eventually_ok(async || is_ready(&dispatcher).await).await;
    let (_, key) = project_in(&dispatcher, PartitionId(0)).await;
    let (_, other_key) = project_in(&dispatcher, PartitionId(1)).await;
    dispatcher.stop.send(()).unwrap();
    Dispatcher::ended(dispatcher.ended).await;
    append(&nats, subjects::journal(PartitionId(0))).await;
    let next = Dispatcher::start(nats.url.clone(), Ports::system());
    let stopped = "carillon_dispatcher_partitions_stopped_total";
    eventually_ok(async || next.metric(stopped).await == Some(1.0)).await;
    eventually_ok(async || owns(&next, 1.0).await).await;
    assert!(!is_ready(&next).await);
    assert!(applies(&next, &other_key).await);
    assert!(!applies(&next, &key).await);
    next.stop.send(()).unwrap();
    Dispatcher::ended(next.ended).await;
}
