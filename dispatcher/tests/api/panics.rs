//! An actor that panics: it begins again from the log, later and later, and in the end its webhook
//! is quarantined. Nobody else notices, and nothing is lost.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use dispatcher::Ports;
use dispatcher::panics::panic_times;
use serde_json::json;
use shared::codec;
use shared::domain::event::{Event, EventType, Source};
use shared::domain::journal::JournalEntry;
use shared::domain::state::PartitionState;
use shared::ids::{EventId, LaneHash, ProjectId, Sequence, WebhookId};
use shared::nats::read::read_all;
use shared::nats::topology::{self, TopologySettings};
use shared::nats::{self, Nats, NatsSettings};
use shared::partition::PartitionCount;
use shared::subjects;
use shared::time::Timestamp;

use crate::nats_server::NatsServer;
use crate::process::{Dispatcher, PARTITIONS};
use crate::support::{ADMIN, eventually_ok};

/// Events that arrived, by the path that they were sent to, in order.
type Arrived = Arc<Mutex<Vec<(String, String)>>>;

fn receiver() -> (String, Arrived) {
    let arrived = Arrived::default();
    let seen = web::Data::new(Arc::clone(&arrived));
    let take = async |request: HttpRequest, seen: web::Data<Arrived>| {
        let id = request.headers().get("webhook-id").unwrap();
        let id = id.to_str().unwrap().to_owned();
        seen.lock().unwrap().push((request.path().to_owned(), id));
        HttpResponse::Ok()
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = move || {
        App::new()
            .app_data(seen.clone())
            .default_service(web::to(take))
    };
    let server = HttpServer::new(app).workers(1).disable_signals();
    actix_rt::spawn(server.listen(listener).unwrap().run());
    (url, arrived)
}

struct World {
    nats: Nats,
    project: ProjectId,
    arrived: Arrived,
}

impl World {
    async fn publish(&self, number: u128, record_id: &str) -> String {
        let id = EventId::from_bytes(number.to_be_bytes());
        let now = Timestamp::from_millis(1_750_000_000_000);
        let event = Event {
            id,
            project: self.project,
            event_type: EventType::parse("hris_employees.created").unwrap(),
            source: Source::FirstParty,
            account: None,
            provider: None,
            record_id: record_id.into(),
            occurred_at: now,
            published_at: now,
            // Of one lane: what follows the poison waits for it.
            lane: LaneHash(1),
            registry_sequence: None,
            body: Bytes::from_static(b"{}"),
        };
        let partition = self.nats.partitions.of(self.project);
        let subject = subjects::event(partition, self.project, &event.event_type);
        let stored = self
            .nats
            .context
            .publish(subject, codec::encode_event(&event));
        stored.await.unwrap().await.unwrap();
        id.to_string()
    }

    fn arrived_at(&self, path: &str) -> Vec<String> {
        let arrived = self.arrived.lock().unwrap();
        let there = arrived.iter().filter(|(at, _)| at == path);
        there.map(|(_, id)| id.clone()).collect()
    }

    /// What JOURNAL says, and how many quarantines are in it.
    async fn fold(&self) -> (PartitionState, usize) {
        let (mut state, mut quarantines) = (PartitionState::default(), 0);
        let subject = subjects::journal(self.nats.partitions.of(self.project));
        let read = read_all(&self.nats.journal, &subject, Sequence(0), |message| {
            let pack = codec::decode_pack(&message.payload).unwrap();
            let is_quarantine =
                |entry: &&JournalEntry| matches!(entry, JournalEntry::Quarantined { .. });
            quarantines += pack.entries.iter().filter(is_quarantine).count();
            state.apply(message.sequence, &pack).unwrap();
        });
        read.await.unwrap();
        (state, quarantines)
    }
}

async fn connect(nats: &NatsServer) -> Nats {
    let settings = NatsSettings {
        urls: vec![nats.url.clone()],
        ..NatsSettings::default()
    };
    let topology = TopologySettings {
        replicas: 1,
        partitions: PartitionCount::new(PARTITIONS).unwrap(),
    };
    let client = nats::connect(&settings).await.unwrap();
    topology::ensure(&client, &topology).await.unwrap()
}

#[actix_web::test]
async fn an_actor_that_panics_again_and_again_is_quarantined_and_loses_nothing() {
    let server = NatsServer::start().await;
    let dispatcher = Dispatcher::start(server.url.clone(), Ports::system());
    eventually_ok(async || dispatcher.ops("/readyz").await.0 == 200).await;
    let made = dispatcher
        .post(ADMIN, "/v1/projects", json!({"name": "x"}))
        .await;
    let project = made.expect(201).text("/id");
    let keys = format!("/v1/projects/{project}/api_keys");
    let key = dispatcher.post(ADMIN, &keys, json!({"name": "x"})).await;
    let key = key.expect(201).text("/key");
    let (url, arrived) = receiver();
    let webhook = async |path: &str| {
        let body = json!({"url": format!("{url}{path}"), "events": ["*"]});
        let made = dispatcher
            .post(&key, "/v1/webhooks", body)
            .await
            .expect(201);
        made.text("/id").parse::<WebhookId>().unwrap()
    };
    let (poisoned, other) = (webhook("/poisoned").await, webhook("/other").await);
    let world = World {
        nats: connect(&server).await,
        project: project.parse().unwrap(),
        arrived,
    };

    panic_times(3);
    let mut ids = vec![world.publish(1, "fine").await];
    eventually_ok(async || world.arrived_at("/poisoned") == ids).await;
    let began = Instant::now();
    ids.push(world.publish(2, &format!("panic-{poisoned}")).await);
    ids.push(world.publish(3, "fine").await);
    // The other one does not notice.
    eventually_ok(async || world.arrived_at("/other") == ids).await;
    let panics = "carillon_dispatcher_webhook_panics_total";
    let quarantined = "carillon_dispatcher_webhooks_quarantined_total";
    eventually_ok(async || dispatcher.metric(quarantined).await == Some(1.0)).await;
    assert_eq!(dispatcher.metric(panics).await, Some(3.0));
    assert!(began.elapsed() >= Duration::from_secs(3), "without backoff");
    let path = format!("/v1/webhooks/{poisoned}");
    let status = async || {
        dispatcher
            .get(&key, &path)
            .await
            .expect(200)
            .text("/status")
    };
    eventually_ok(async || status().await == "quarantined").await;
    assert_eq!(world.fold().await.1, 1);

    // It is owed what comes meanwhile, and the partition goes on.
    ids.push(world.publish(4, "fine").await);
    eventually_ok(async || world.arrived_at("/other") == ids).await;
    assert_eq!(world.arrived_at("/poisoned"), ids[..1]);
    dispatcher
        .post(&key, &format!("{path}/enable"), json!({}))
        .await
        .expect(200);
    eventually_ok(async || world.arrived_at("/poisoned") == ids).await;
    assert_eq!(status().await, "enabled");
    dispatcher.stop.send(()).unwrap();
    Dispatcher::ended(dispatcher.ended).await;
    let (state, quarantines) = world.fold().await;
    assert_eq!(quarantines, 1);
    for webhook in [poisoned, other] {
        let ledger = state.webhooks[&webhook].ledger;
        assert_eq!((ledger.accepted, ledger.delivered), (4, 4));
        assert_eq!(ledger.pending(), 0);
    }
    assert_eq!(world.arrived_at("/poisoned"), ids, "once each, in order");
}
