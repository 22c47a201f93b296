//! JetStream goes away, hangs, comes back; senders are slow; the process stops.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use shared::secret::MasterKeys;
use shared::time::{Clock as _, SystemClock};

use crate::nats_server::NatsServer;
use crate::world::{Connection, Ingest, World, answer, eventually, http};

fn keyed(record: &str, key: &str) -> String {
    json!({"event": "ats_jobs.updated", "record_id": record, "idempotency_key": key}).to_string()
}

const CREATED: &str =
    r#"{"type":"employee.created","timestamp":"2025-06-17T10:00:00Z","data":{"employeeId":"42"}}"#;

/// 503 with `Retry-After`, in less than 6 s.
async fn assert_unavailable(request: reqwest::RequestBuilder) -> Value {
    let clock = SystemClock::new();
    let (status, retry_after, body) = answer(request).await;
    assert_eq!((status, &body["code"]), (503, &json!("unavailable")));
    assert!(retry_after.is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert!(
        clock.elapsed() < Duration::from_secs(6),
        "{:?}",
        clock.elapsed()
    );
    body
}

#[actix_web::test]
async fn without_jetstream_everything_is_503_and_recovers_by_itself() {
    let mut world = World::start().await;
    let project = world.project().await;
    let account = world.account(&project, "bamboohr", Some("hush")).await;
    assert_eq!(
        answer(world.post_events(&project, keyed("1", "before")))
            .await
            .0,
        202
    );
    world.server.kill();
    let body = assert_unavailable(world.post_events(&project, keyed("1", "during"))).await;
    assert_eq!(body["items"][0]["error"]["code"], "unavailable");
    assert_unavailable(world.callback(&account, CREATED)).await;
    let stranger = format!("{}/v1/native/acc_/x", world.ingest.url);
    assert_unavailable(world.http.post(&stranger)).await;
    eventually("ingest is not ready", async || !world.ready().await).await;
    world.server.restart().await;
    world.until_ready().await;
    for key in ["before", "during", "after"] {
        assert_eq!(
            answer(world.post_events(&project, keyed("1", key))).await.0,
            202
        );
    }
    assert_eq!(answer(world.callback(&account, CREATED)).await.0, 200);
    assert_eq!(answer(world.http.post(&stranger)).await.0, 404);
    assert_eq!(world.events().await.len(), 4, "each once");
}

#[actix_web::test]
async fn an_event_in_doubt_is_503_and_stored_once_when_it_comes_again() {
    let world = World::start().await;
    let project = world.project().await;
    assert_eq!(
        answer(world.post_events(&project, keyed("1", "warm")))
            .await
            .0,
        202
    );
    world.server.signal("STOP");
    let items: Vec<Value> = (0..400)
        .map(|n| serde_json::from_str(&keyed(&(n % 300).to_string(), &n.to_string())).unwrap())
        .collect();
    let items = serde_json::to_string(&items).unwrap();
    let body = assert_unavailable(world.post_events(&project, items.clone())).await;
    assert_eq!(body["items"].as_array().unwrap().len(), 400);
    world.server.signal("CONT");
    world.until_ready().await;
    let (status, _, body) = answer(world.post_events(&project, items)).await;
    assert_eq!(status, 202);
    let answered: HashSet<String> = body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect();
    let stored = world.events().await;
    assert_eq!(
        (answered.len(), stored.len()),
        (400, 401),
        "each once, and the first"
    );
    let of_record = stored.iter().filter(|event| &*event.record_id == "7");
    let of_record: Vec<_> = of_record.map(|event| event.id.to_string()).collect();
    let expected =
        [7, 307].map(|place: usize| body["items"][place]["id"].as_str().unwrap().to_owned());
    assert_eq!(of_record, expected, "in the order of the request");
}

#[actix_web::test]
async fn what_was_answered_survives_a_killed_server() {
    let mut world = World::start().await;
    let project = world.project().await;
    let mut answered = Vec::new();
    for round in 0..60 {
        if round == 20 {
            world.server.kill();
        }
        if round == 30 {
            world.server.restart().await;
            world.until_ready().await;
        }
        let items: Vec<Value> = (0..20)
            .map(|n| json!({"event": "ats_jobs.updated", "record_id": (n % 5).to_string(), "data": round}))
            .collect();
        let body = serde_json::to_string(&items).unwrap();
        let (status, _, body) = answer(world.post_events(&project, body)).await;
        assert_eq!(
            status,
            if (20..30).contains(&round) { 503 } else { 202 },
            "{body}"
        );
        let items = body["items"].as_array().cloned().unwrap_or_default();
        answered.extend(
            items
                .iter()
                .filter_map(|item| item["id"].as_str().map(str::to_owned)),
        );
    }
    let stored: HashSet<String> = world
        .events()
        .await
        .iter()
        .map(|event| event.id.to_string())
        .collect();
    assert_eq!(answered.len(), 50 * 20);
    assert!(answered.iter().all(|id| stored.contains(id)));
}

#[actix_web::test]
async fn ingest_may_start_before_nats() {
    let mut server = NatsServer::not_started(1 << 20);
    let ingest = Ingest::start(&server.url());
    let events = http()
        .post(format!("{}/v1/events", ingest.url))
        .bearer_auth("key");
    assert_unavailable(events.try_clone().unwrap()).await;
    let ready = http()
        .get(format!("{}/readyz", ingest.ops))
        .send()
        .await
        .unwrap();
    assert_eq!(ready.status(), 503);
    assert_eq!(
        ready.text().await.unwrap(),
        "JetStream has not answered yet\n"
    );
    server.restart().await;
    eventually("the key is known to be unknown", async || {
        answer(events.try_clone().unwrap()).await.0 == 401
    })
    .await;
}

#[actix_web::test]
async fn a_stopping_ingest_finishes_what_it_has_begun() {
    let mut world = World::start().await;
    let project = world.project().await;
    let body = keyed("1", "slow");
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        project.key,
        body.len()
    );
    let (first, rest) = body.split_at(10);
    let mut slow = Connection::open(&world.ingest.url);
    slow.send(format!("{head}{first}")).await;
    let idle = answer(world.post_events(&project, keyed("2", "idle"))).await;
    assert_eq!(idle.0, 202, "and its connection stays open");
    world.ingest.ask_to_stop();
    eventually("new connections are refused", async || {
        let request = http().get(&world.ingest.url).send().await;
        request.is_err_and(|error| error.is_connect())
    })
    .await;
    assert!(!world.ready().await);
    slow.send(rest).await;
    assert_eq!(slow.status().await, 202);
    let clock = SystemClock::new();
    world.ingest.ended().await.unwrap();
    assert!(
        clock.elapsed() < Duration::from_secs(5),
        "{:?}",
        clock.elapsed()
    );
    assert_eq!(world.events().await.len(), 2);
}

#[actix_web::test]
async fn a_head_that_does_not_arrive_is_not_waited_for() {
    let world = World::start().await;
    let mut slow = Connection::open(&world.ingest.url);
    slow.send("POST /v1/events HTTP/1.1\r\nHost:").await;
    let clock = SystemClock::new();
    let rest = slow.rest().await;
    assert!(
        rest.is_empty() || rest.starts_with("HTTP/1.1 408 "),
        "{rest}"
    );
    assert!(
        clock.elapsed() < Duration::from_secs(10),
        "{:?}",
        clock.elapsed()
    );
}

#[actix_web::test]
async fn a_registry_that_cannot_be_read_ends_the_process() {
    let world = World::start().await;
    world.project().await;
    let other = MasterKeys::new("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", &[]).unwrap();
    let mut blind = Ingest::with_keys(&world.server.url(), other);
    let ended = blind.ended().await;
    assert!(
        matches!(ended, Err(ingest::RunError::Registry(_))),
        "{ended:?}"
    );
}
