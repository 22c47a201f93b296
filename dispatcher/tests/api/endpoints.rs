//! Which endpoints may be called.

use serde_json::json;

use crate::nats_server::NatsServer;
use crate::support::{Api, Owners};

#[actix_web::test]
async fn endpoints_that_are_not_public_are_refused() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let key = api.project("Acme").await.key;
    let body = json!({"url": "https://1.1.1.1/hook", "events": ["*"]});
    let public = api.post(&key, "/v1/webhooks", body).await.expect(201);
    let path = format!("/v1/webhooks/{}", public.text("/id"));
    for url in [
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://localhost/",
        "https://2130706433/",
        "http://127.0.0.1/",
        "http://1.1.1.1/",
        "https://no-such-host.invalid/",
        "https://user@1.1.1.1/",
        "ftp://1.1.1.1/",
    ] {
        let body = json!({"url": url, "events": ["*"]});
        let refused = api
            .post(&key, "/v1/webhooks", body)
            .await
            .expect_invalid(&["/url"]);
        assert!(!refused.text("/errors/0/detail").is_empty());
        api.patch(&key, &path, json!({"url": url}))
            .await
            .expect_invalid(&["/url"]);
    }
    assert_eq!(api.all_pages(&key, "/v1/webhooks", 100).await.len(), 1);
    assert_eq!(
        api.get(&key, &path).await.text("/url"),
        "https://1.1.1.1/hook"
    );
}

#[actix_web::test]
async fn the_refusal_says_what_is_wrong_and_no_address_behind_a_name() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let key = api.project("Acme").await.key;
    for (url, detail) in [
        (
            "https://localhost/",
            "localhost is, or resolves to, an address that is not public",
        ),
        ("http://1.1.1.1/", "the endpoint must use https"),
    ] {
        let body = json!({"url": url, "events": ["*"]});
        let refused = api.post(&key, "/v1/webhooks", body).await.expect(422);
        assert_eq!(refused.text("/errors/0/detail"), detail);
    }
}

#[actix_web::test]
async fn networks_of_the_allow_list_are_accepted_with_http_too() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, &["127.0.0.0/8"], Owners::Present).await;
    let key = api.project("Acme").await.key;
    for url in [
        "http://127.0.0.1/",
        "http://127.0.0.1:9999/x",
        "https://127.8.8.8/",
    ] {
        let body = json!({"url": url, "events": ["*"]});
        assert_eq!(
            api.post(&key, "/v1/webhooks", body)
                .await
                .expect(201)
                .text("/url"),
            url
        );
    }
    for url in ["http://10.0.0.1/", "http://[::1]/"] {
        let body = json!({"url": url, "events": ["*"]});
        api.post(&key, "/v1/webhooks", body)
            .await
            .expect_invalid(&["/url"]);
    }
}
