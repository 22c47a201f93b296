//! What one sender may not do to the others, and what it is told instead.

use std::time::Duration;

use serde_json::json;
use shared::domain::registry::Command;
use shared::time::{Clock as _, SystemClock};

use crate::world::{Connection, TestProject, World, answer, eventually, sign};

const SECRET: &str = "hush";

fn event(record: &str) -> String {
    json!({"event": "ats_jobs.updated", "record_id": record}).to_string()
}

fn post_events_head(project: &TestProject, body_bytes: usize) -> String {
    format!(
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {body_bytes}\r\n\r\n",
        project.key
    )
}

#[actix_web::test]
async fn a_callback_that_makes_too_much_is_told_so() {
    let world = World::start().await;
    let project = world.project().await;
    let account = world.account(&project, "bamboohr", Some(SECRET)).await;
    let callback = |count: usize, padding: usize| {
        let items = vec![r#"{"id":"5"}"#; count].join(",");
        format!(r#"{{"employees":[{items}]}}{}"#, " ".repeat(padding))
    };
    let (status, _, problem) = answer(world.callback(&account, &callback(1_001, 0))).await;
    assert_eq!((status, &problem["code"]), (413, &json!("too_large")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("more than 1000 events"), "{detail}");
    assert_eq!(world.events().await, []);
    let metric = "carillon_ingest_callbacks_total{outcome=\"too_much\"}";
    assert_eq!(world.metric(metric).await, 1);
}

#[actix_web::test]
async fn events_go_without_the_callback_that_they_would_repeat_too_often() {
    let world = World::start().await;
    let project = world.project().await;
    let account = world.account(&project, "bamboohr", Some(SECRET)).await;
    let mut stored = 0;
    for (count, has_raw_event) in [(16, true), (17, false), (1_000, false)] {
        // An id of its own each time, so that none is a repeat of the time before.
        let items = vec![format!(r#"{{"id":"{count}"}}"#); count].join(",");
        let padding = " ".repeat(1_000_000);
        let body = format!(r#"{{"employees":[{items}]}}{padding}"#);
        let clock = SystemClock::new();
        assert_eq!(answer(world.callback(&account, &body)).await.0, 200);
        assert!(clock.elapsed() < Duration::from_secs(10));
        let events = world.events().await;
        let new = events.get(stored..).unwrap();
        assert_eq!(new.len(), count);
        for event in new {
            let body: serde_json::Value = serde_json::from_slice(&event.body).unwrap();
            assert_eq!(body.get("raw_event").is_some(), has_raw_event);
            assert_eq!(body["event_data"]["id"], count.to_string());
        }
        stored = events.len();
    }
}

#[actix_web::test]
async fn one_project_cannot_take_the_room_of_all() {
    let world = World::start().await;
    let (greedy, other) = (world.project().await, world.project().await);
    let bytes = 8 << 20;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut connection = Connection::open(&world.ingest.url);
        connection.send(post_events_head(&greedy, bytes)).await;
        connection.send(vec![b' '; bytes - 1]).await;
        held.push(connection);
    }
    let padded = format!("{}{}", " ".repeat(100_000), event("1"));
    let (status, _, body) = answer(world.post_events(&other, padded)).await;
    assert_eq!(status, 202, "{body}");
    let metric = "carillon_ingest_first_party_requests_total{outcome=\"project_busy\"}";
    eventually("the greedy one is refused", async || {
        world.metric(metric).await > 0
    })
    .await;
    drop(held);
}

#[actix_web::test]
async fn a_body_that_hardly_arrives_is_408() {
    let world = World::start().await;
    let project = world.project().await;
    let clock = SystemClock::new();
    let mut slow = Connection::open(&world.ingest.url);
    slow.send(post_events_head(&project, 1_000)).await;
    slow.send("[").await;
    assert_eq!(slow.status().await, 408);
    assert!(
        clock.elapsed() < Duration::from_secs(10),
        "{:?}",
        clock.elapsed()
    );
    let rest = slow.rest().await;
    assert!(rest.contains("the body arrives too slowly"), "{rest}");
}

#[actix_web::test]
async fn a_key_revoked_while_the_body_arrives_does_not_count() {
    let world = World::start().await;
    let project = world.project().await;
    let body = event("1");
    let (first, rest) = body.split_at(10);
    let mut slow = Connection::open(&world.ingest.url);
    slow.send(post_events_head(&project, body.len())).await;
    slow.send(first).await;
    // There is one thread that accepts: when this is answered, the other's head has been read.
    assert_eq!(answer(world.post_events(&project, event("2"))).await.0, 202);
    let revoke = Command::RevokeApiKey {
        project: project.id,
        id: project.key_id,
    };
    world.execute(revoke).await;
    eventually("the key is revoked", async || {
        answer(world.post_events(&project, "")).await.0 == 401
    })
    .await;
    slow.send(rest).await;
    assert_eq!(slow.status().await, 401);
    assert_eq!(world.events().await.len(), 1);
}

#[actix_web::test]
async fn an_account_deleted_while_the_body_arrives_is_404() {
    let world = World::start().await;
    let project = world.project().await;
    let account = world.account(&project, "greenhouse", Some(SECRET)).await;
    let body = r#"{"action":"job_deleted","payload":{"job":{"id":1}}}"#;
    let (first, rest) = body.split_at(10);
    let mut slow = Connection::open(&world.ingest.url);
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nSignature: sha256 {}\r\nContent-Length: {}\r\n\r\n{first}",
        account.url(""),
        sign(SECRET, body),
        body.len()
    );
    slow.send(head).await;
    assert_eq!(answer(world.callback(&account, "{}")).await.0, 200);
    let delete = Command::DeleteAccount {
        project: project.id,
        id: account.id,
        base: None,
    };
    world.execute(delete).await;
    eventually("the account is deleted", async || {
        answer(world.callback(&account, "{}")).await.0 == 404
    })
    .await;
    slow.send(rest).await;
    assert_eq!(slow.status().await, 404);
    assert_eq!(world.events().await, []);
}

/// Closing on bytes that nobody has read may reset the connection under the answer.
#[actix_web::test]
async fn a_stranger_with_a_large_body_hears_why_it_is_refused() {
    let world = World::start().await;
    let url = format!("{}/v1/events", world.ingest.url);
    for round in 0..10 {
        let request = world.http.post(&url).body(vec![b' '; 1 << 20]);
        let refused = request.bearer_auth("nonsense");
        assert_eq!(answer(refused).await.0, 401, "round {round}");
    }
}

#[actix_web::test]
async fn strangers_are_not_kept_and_nobody_is_kept_for_long() {
    let world = World::start().await;
    let project = world.project().await;
    let within = async |request: String, expected: &str, within: Duration| {
        let mut connection = Connection::open(&world.ingest.url);
        connection.send(request.clone()).await;
        let clock = SystemClock::new();
        let rest = connection.rest().await;
        assert!(rest.starts_with(expected), "{request}: {rest}");
        assert!(clock.elapsed() < within, "{request}: {:?}", clock.elapsed());
        rest
    };
    for (request, expected) in [
        ("POST /v1/events", "HTTP/1.1 401 "),
        ("GET /v1/events", "HTTP/1.1 405 "),
        ("GET /v1/native/acc_/x", "HTTP/1.1 404 "),
        ("GET /", "HTTP/1.1 404 "),
    ] {
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let rest = within(request, expected, Duration::from_secs(3)).await;
        assert!(rest.contains("connection: close"), "{rest}");
    }
    let body = event("1");
    let known = format!("{}{body}", post_events_head(&project, body.len()));
    let rest = within(known, "HTTP/1.1 202 ", Duration::from_secs(10)).await;
    assert!(!rest.contains("connection: close"), "{rest}");
}
