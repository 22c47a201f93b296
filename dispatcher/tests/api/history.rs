//! What is asked of the past is understood or refused before anybody is asked for it.

use serde_json::json;

use crate::nats_server::NatsServer;
use crate::support::{Api, Owners};

#[actix_web::test]
async fn ranges_and_filters_that_mean_nothing_are_told_by_their_place() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, &["127.0.0.0/8"], Owners::Present).await;
    let project = api.project("ours").await;
    let body = json!({"url": "http://127.0.0.1:9/", "events": ["*"]});
    let webhook = api.post(&project.key, "/v1/webhooks", body).await;
    let path = format!("/v1/webhooks/{}", webhook.expect(201).text("/id"));
    let (later, earlier) = ("2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z");
    let backwards = format!("from={later}&to={earlier}");
    for (route, query, pointers) in [
        ("overview", "from=yesterday", vec!["/from"]),
        ("overview", "from=x&to=y", vec!["/from", "/to"]),
        ("overview", &backwards, vec!["/from"]),
        ("overview", "from=2020-01-01T00:00:00Z", vec!["/from"]),
        (
            "overview",
            "to=2099-01-01T00:00:00Z&from=2098-01-01T00:00:00Z",
            vec!["/to"],
        ),
        ("attempts", "outcome=skipped", vec!["/outcome"]),
        ("attempts", "event_type=no.such_type", vec!["/event_type"]),
        ("attempts", "to=tomorrow", vec!["/to"]),
        ("attempts", &backwards, vec!["/from"]),
    ] {
        let asked = format!("{path}/{route}?{query}");
        api.get(&project.key, &asked)
            .await
            .expect_invalid(&pointers);
    }
    for (route, query) in [
        ("attempts", "limit=0"),
        ("attempts", "limit=101"),
        ("attempts", "cursor=x"),
        ("overview", "from=1&from=2"),
    ] {
        let asked = format!("{path}/{route}?{query}");
        api.get(&project.key, &asked).await.expect(400);
    }
}

#[actix_web::test]
async fn nobody_to_ask_is_503_and_not_an_empty_past() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, &["127.0.0.0/8"], Owners::Absent).await;
    let project = api.project("ours").await;
    let body = json!({"url": "http://127.0.0.1:9/", "events": ["*"]});
    let webhook = api.post(&project.key, "/v1/webhooks", body).await;
    let path = format!("/v1/webhooks/{}", webhook.expect(201).text("/id"));
    for route in ["overview", "attempts"] {
        let answer = api
            .get(&project.key, &format!("{path}/{route}"))
            .await
            .expect(503);
        assert_eq!(answer.header("retry-after"), "1", "{route}");
    }
}
