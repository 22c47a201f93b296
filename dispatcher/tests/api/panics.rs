//! An actor that panics: it begins again from the log, later and later, and in the end its webhook
//! is quarantined. Nobody else notices, and nothing is lost.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use dispatcher::Ports;
use dispatcher::panics::panic_times;
use serde_json::json;
use shared::domain::journal::JournalEntry;
use shared::ids::WebhookId;

use crate::logs::Logs;
use crate::nats_server::NatsServer;
use crate::process::Dispatcher;
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

fn arrived_at(arrived: &Arrived, path: &str) -> Vec<String> {
    let arrived = arrived.lock().unwrap();
    let there = arrived.iter().filter(|(at, _)| at == path);
    there.map(|(_, id)| id.clone()).collect()
}

fn quarantines(entries: &[JournalEntry]) -> usize {
    let is_one = |entry: &&JournalEntry| matches!(entry, JournalEntry::Quarantined { .. });
    entries.iter().filter(is_one).count()
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
    let logs = Logs::of(&server, &project).await;

    panic_times(3);
    let mut ids = vec![logs.publish(1, "fine").await];
    eventually_ok(async || arrived_at(&arrived, "/poisoned") == ids).await;
    let began = Instant::now();
    ids.push(logs.publish(2, &format!("panic-{poisoned}")).await);
    ids.push(logs.publish(3, "fine").await);
    // The other one does not notice.
    eventually_ok(async || arrived_at(&arrived, "/other") == ids).await;
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
    assert_eq!(quarantines(&logs.fold().await.1), 1);

    // It is owed what comes meanwhile, and the partition goes on.
    ids.push(logs.publish(4, "fine").await);
    eventually_ok(async || arrived_at(&arrived, "/other") == ids).await;
    assert_eq!(arrived_at(&arrived, "/poisoned"), ids[..1]);
    dispatcher
        .post(&key, &format!("{path}/enable"), json!({}))
        .await
        .expect(200);
    eventually_ok(async || arrived_at(&arrived, "/poisoned") == ids).await;
    assert_eq!(status().await, "enabled");
    dispatcher.stop.send(()).unwrap();
    Dispatcher::ended(dispatcher.ended).await;
    let (state, entries) = logs.fold().await;
    assert_eq!(quarantines(&entries), 1);
    for webhook in [poisoned, other] {
        let ledger = state.webhooks[&webhook].ledger;
        assert_eq!((ledger.accepted, ledger.delivered), (4, 4));
        assert_eq!(ledger.pending(), 0);
    }
    assert_eq!(
        arrived_at(&arrived, "/poisoned"),
        ids,
        "once each, in order"
    );
}
