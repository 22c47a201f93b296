//! The API while JetStream is not there yet, goes away, or the process stops.

use std::net::TcpListener;
use std::time::Duration;

use dispatcher::Ports;
use serde_json::json;

use crate::nats_server::NatsServer;
use crate::process::Dispatcher;
use crate::slow_call::SlowCall;
use crate::support::{ADMIN, Api, eventually_ok};

#[actix_web::test]
async fn a_caller_is_told_that_jetstream_is_not_there_yet() {
    // Bound, so that nobody else is there either.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let nats_url = format!("nats://{}", nobody.local_addr().unwrap());
    let dispatcher = Dispatcher::start(nats_url, Ports::system());
    let answer = dispatcher.projects().await.expect(503);
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.body["code"], "unavailable");
    dispatcher.stop.send(()).unwrap();
    Dispatcher::ended(dispatcher.ended).await;
}

#[actix_web::test]
async fn nothing_is_decided_any_more_once_the_process_stops() {
    let nats = NatsServer::start().await;
    let dispatcher = Dispatcher::start(nats.url.clone(), Ports::system());
    eventually_ok(async || dispatcher.projects().await.status == 200).await;
    let body = json!({"name": "too late"});
    let call = SlowCall::begin(&dispatcher.address, ADMIN, "/v1/projects", &body).await;
    dispatcher.stop.send(()).unwrap();
    // It stops to listen before it waits for calls that are under way.
    let address = dispatcher.address.as_str();
    eventually_ok(async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    assert_eq!(call.finish().await, 503);
    Dispatcher::ended(dispatcher.ended).await;
    let after = Api::start(&nats).await;
    let projects = after.get(ADMIN, "/v1/projects").await.expect(200);
    assert_eq!(projects.body["items"], json!([]));
}

#[actix_web::test]
async fn a_key_that_is_revoked_while_the_body_arrives_is_refused() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let project = api.project("Acme").await;
    let body = json!({"provider": "bamboohr", "origin_owner_id": "1"});
    let begin = || SlowCall::begin(api.address(), &project.key, "/v1/accounts", &body);
    assert_eq!(begin().await.finish().await, 201);
    let call = begin().await;
    let key = format!("/v1/projects/{}/api_keys/{}", project.id, project.key_id);
    api.delete(ADMIN, &key).await.expect(204);
    assert_eq!(call.finish().await, 401);
}

#[actix_web::test]
async fn a_caller_is_told_in_time_that_a_write_is_in_doubt() {
    let mut nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    nats.kill();
    // Two tries of 2 s each, and some room for a busy machine: five would take 10 s.
    let call = api.post(ADMIN, "/v1/projects", json!({"name": "x"}));
    let answer = tokio::time::timeout(Duration::from_secs(8), call).await;
    answer.unwrap().expect(503);
}
