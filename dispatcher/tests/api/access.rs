//! Who may do what, and what every answer has in common.

use reqwest::Method;
use serde_json::{Value, json};
use shared::ids::WebhookId;

use crate::nats_server::NatsServer;
use crate::support::{ADMIN, Answer, Api, Owners, Project};

/// Whoever may ask for it is told by the owner that it is not there.
const REPLAY: &str = "rpl_01980000000070008000000000000001";

/// Every route, given a project with its key, the id of an account and a webhook as it was made.
fn routes(project: &Project, account: &str, webhook: &Answer) -> Vec<(Method, String, Route)> {
    let key = &project.key_id;
    let project = format!("/v1/projects/{}", project.id);
    let account = format!("/v1/accounts/{account}");
    let secret = webhook.text("/signing_secrets/0/id");
    let webhook = format!("/v1/webhooks/{}", webhook.text("/id"));
    let secrets = format!("{webhook}/signing_secrets");
    vec![
        (Method::GET, "/v1/event_types".into(), Route::Catalog),
        (Method::GET, "/v1/connectors".into(), Route::Catalog),
        (
            Method::GET,
            "/v1/connectors/bamboohr".into(),
            Route::Catalog,
        ),
        (Method::POST, format!("{webhook}/enable"), Route::Thing),
        (Method::POST, format!("{webhook}/disable"), Route::Thing),
        (Method::POST, format!("{webhook}/verify"), Route::Thing),
        (Method::POST, format!("{webhook}/events"), Route::Thing),
        (Method::GET, secrets.clone(), Route::Thing),
        (Method::POST, secrets.clone(), Route::Thing),
        (Method::DELETE, format!("{secrets}/{secret}"), Route::Thing),
        (
            Method::POST,
            format!("{secrets}/{secret}/activate"),
            Route::Thing,
        ),
        (Method::POST, "/hr-on/v1/webhooks".into(), Route::Collection),
        (Method::GET, "/v1/projects".into(), Route::Admin),
        (Method::POST, "/v1/projects".into(), Route::Admin),
        (Method::GET, project.clone(), Route::Admin),
        (Method::DELETE, project.clone(), Route::Admin),
        (Method::GET, format!("{project}/api_keys"), Route::Admin),
        (Method::POST, format!("{project}/api_keys"), Route::Admin),
        (
            Method::DELETE,
            format!("{project}/api_keys/{key}"),
            Route::Admin,
        ),
        (Method::GET, "/v1/accounts".into(), Route::Collection),
        (Method::POST, "/v1/accounts".into(), Route::Collection),
        (Method::GET, account.clone(), Route::Thing),
        (Method::PATCH, account.clone(), Route::Thing),
        (Method::DELETE, account, Route::Thing),
        (Method::GET, "/v1/events".into(), Route::Collection),
        (Method::GET, "/v1/webhooks".into(), Route::Collection),
        (Method::POST, "/v1/webhooks".into(), Route::Collection),
        (Method::GET, webhook.clone(), Route::Thing),
        (Method::GET, format!("{webhook}/overview"), Route::Thing),
        (Method::GET, format!("{webhook}/replays"), Route::Thing),
        (Method::POST, format!("{webhook}/replays"), Route::Thing),
        (
            Method::GET,
            format!("{webhook}/replays/{REPLAY}"),
            Route::Thing,
        ),
        (
            Method::POST,
            format!("{webhook}/replays/{REPLAY}/cancel"),
            Route::Thing,
        ),
        (Method::GET, format!("{webhook}/attempts"), Route::Thing),
        (Method::PATCH, webhook.clone(), Route::Thing),
        (Method::DELETE, webhook, Route::Thing),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    Admin,
    /// The same for every project.
    Catalog,
    /// Of the caller's project, whichever that is.
    Collection,
    Thing,
}

async fn account(api: &Api, key: &str) -> Answer {
    let body = json!({"provider": "greenhouse", "origin_owner_id": "1"});
    api.post(key, "/v1/accounts", body).await.expect(201)
}

async fn webhook(api: &Api, key: &str) -> Answer {
    let body = json!({"url": "http://127.0.0.1:9/?token=t", "events": ["*"]});
    api.post(key, "/v1/webhooks", body).await.expect(201)
}

#[actix_web::test]
async fn nobody_reads_or_writes_what_is_another_projects() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, &["127.0.0.0/8"], Owners::Present).await;
    let (ours, theirs) = (api.project("ours").await, api.project("theirs").await);
    let account = account(&api, &theirs.key).await;
    let webhook = webhook(&api, &theirs.key).await;
    for (method, path, route) in routes(&theirs, &account.text("/id"), &webhook) {
        let call = api.call(method.clone(), &path).by(&ours.key);
        let answer = call.json(&json!({"name": "x"})).send().await;
        match route {
            Route::Admin => answer.expect(401),
            Route::Thing => answer.expect(404),
            Route::Collection if method == Method::GET => {
                assert_eq!(answer.expect(200).body["items"], json!([]), "{path}");
                continue;
            }
            Route::Collection | Route::Catalog => continue,
        };
    }
    let path = format!("/v1/webhooks/{}", webhook.text("/id"));
    api.patch(&ours.key, &path, json!({"description": "x"}))
        .await
        .expect(404);
    // A fault of the endpoint would tell that the webhook is there.
    api.patch(&ours.key, &path, json!({"url": "https://10.0.0.1"}))
        .await
        .expect(404);
    api.get(&theirs.key, &path).await.expect(200);
    for path in [
        "/v1/webhooks/wh_1",
        "/v1/webhooks/x",
        "/v1/accounts/acc_%00",
        "/v1/accounts/-",
    ] {
        api.get(&ours.key, path).await.expect(404);
    }
}

#[actix_web::test]
async fn ids_are_asked_for_in_the_form_that_they_are_told_in() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, &["127.0.0.0/8"], Owners::Present).await;
    let project = api.project("Acme").await;
    let account = account(&api, &project.key).await.text("/id");
    let webhook = webhook(&api, &project.key).await;
    let secret = webhook.text("/signing_secrets/0/id");
    let webhook = webhook.text("/id");
    let hr_on = json!({
        "endpoint": "http://127.0.0.1:9/", "token": "t", "eventNames": ["EmployeeCreated"],
    });
    let hr_on = api.post(&project.key, "/hr-on/v1/webhooks", hr_on).await;
    let hr_on = hr_on.expect(200).text("/item/id");
    let prefixed = WebhookId::from_bare(&hr_on).unwrap().to_string();
    let unprefixed = |id: &str| {
        let (_, digits) = id.split_once('_').unwrap();
        let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
        parts.map(|part| digits.get(part).unwrap()).join("-")
    };
    let bare = unprefixed(&webhook);
    assert_eq!(unprefixed(&prefixed), hr_on);
    for (path, status) in [
        (format!("/v1/accounts/{account}"), 200),
        (format!("/v1/accounts/{}", unprefixed(&account)), 404),
        // A webhook answers to both, whichever dialect it speaks.
        (format!("/v1/webhooks/{webhook}"), 200),
        (format!("/v1/webhooks/{bare}"), 200),
        (format!("/v1/webhooks/{bare}/signing_secrets"), 200),
        (format!("/v1/webhooks/{prefixed}"), 200),
        (format!("/v1/webhooks/{hr_on}"), 200),
        // HR-ON's own API knows bare ids alone, and its own webhooks.
        (format!("/hr-on/v1/webhooks/{prefixed}"), 404),
        (format!("/hr-on/v1/webhooks/{webhook}"), 404),
        (format!("/hr-on/v1/webhooks/{bare}"), 404),
    ] {
        api.get(&project.key, &path).await.expect(status);
    }
    let secrets = format!("/v1/webhooks/{bare}/signing_secrets");
    for (secret, status) in [(unprefixed(&secret), 404), (secret, 200)] {
        let path = format!("{secrets}/{secret}/activate");
        let answer = api.post(&project.key, &path, Value::Null).await;
        answer.expect(status);
    }
    for (id, status) in [(unprefixed(&project.id), 404), (project.id.clone(), 200)] {
        let path = format!("/v1/projects/{id}");
        api.get(ADMIN, &path).await.expect(status);
    }
}

#[actix_web::test]
async fn every_route_asks_for_its_own_kind_of_credential() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, &["127.0.0.0/8"], Owners::Present).await;
    let project = api.project("Acme").await;
    let account = account(&api, &project.key).await;
    let webhook = webhook(&api, &project.key).await;
    for (method, path, route) in routes(&project, &account.text("/id"), &webhook) {
        let other_kind = match route {
            Route::Admin => project.key.as_str(),
            Route::Catalog | Route::Collection | Route::Thing => ADMIN,
        };
        let call = || api.call(method.clone(), &path).json(&json!({"name": "x"}));
        for call in [
            call(),
            call().by(other_kind),
            call().by("ck_x"),
            call().basic("nobody"),
        ] {
            let refused = call.send().await.expect(401);
            assert!(refused.header("www-authenticate").starts_with("Bearer"));
        }
    }
    api.get(
        &project.key,
        &format!("/v1/accounts/{}", account.text("/id")),
    )
    .await
    .expect(200);
    let basic = api
        .call(Method::GET, "/v1/webhooks")
        .basic(&project.key)
        .send()
        .await;
    assert_eq!(basic.expect(200).body["items"].as_array().unwrap().len(), 1);
}

#[actix_web::test]
async fn what_one_replica_made_another_knows_at_once() {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, &["127.0.0.0/8"], Owners::Present).await;
    let replica = Api::with(&nats, &["127.0.0.0/8"], Owners::Present).await;
    let project = api.project("Acme").await;
    let webhook = webhook(&api, &project.key).await;
    let path = format!("/v1/webhooks/{}", webhook.text("/id"));
    let mut read = replica.get(&project.key, &path).await.expect(200);
    read.body["applied"] = json!(true);
    assert_eq!(read.body, webhook.body);

    // And one that starts anew reads the same from the log.
    let paths = [
        path,
        "/v1/webhooks".into(),
        "/v1/accounts".into(),
        format!(
            "/v1/accounts/{}",
            account(&api, &project.key).await.text("/id")
        ),
    ];
    let restarted = Api::start(&nats).await;
    for path in &paths {
        let before = api.get(&project.key, path).await.expect(200);
        let after = restarted.get(&project.key, path).await.expect(200);
        assert_eq!(before.body, after.body, "{path}");
        assert_eq!(before.headers.get("etag"), after.headers.get("etag"));
    }
    for path in [
        "/v1/projects",
        &format!("/v1/projects/{}/api_keys", project.id),
    ] {
        let before = api.get(ADMIN, path).await.expect(200);
        assert_eq!(
            before.body,
            restarted.get(ADMIN, path).await.expect(200).body
        );
    }
}

#[actix_web::test]
async fn what_a_lagging_replica_does_not_know_yet_it_finds_out() {
    let nats = NatsServer::start().await;
    let (api, late) = (Api::start(&nats).await, Api::lagging(&nats).await);
    for round in 0..5 {
        // That it has just looked for something else must not hide what was made since.
        let unknown = late.get("ck_unknown", "/v1/webhooks").await;
        unknown.expect(401);
        let project = api.project(&format!("round {round}")).await;
        late.get(&project.key, "/v1/webhooks").await.expect(200);
        let account = account(&api, &project.key).await;
        let path = format!("/v1/accounts/{}", account.text("/id"));
        let read = late.get(&project.key, &path).await.expect(200);
        assert_eq!(read.body, account.body);
    }
}

#[actix_web::test]
async fn requests_that_are_not_understood_are_told_so() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let key = api.project("Acme").await.key;
    let post = || api.call(Method::POST, "/v1/webhooks").by(&key);
    for body in ["", "{", "[]", "1", "{\"url\":", "\u{feff}{}", "{}{}"] {
        let answer = post()
            .header("content-type", "application/json")
            .raw(body)
            .send()
            .await;
        assert_eq!(answer.expect(400).body["code"], "bad_request", "{body}");
    }
    let form = post().header("content-type", "application/x-www-form-urlencoded");
    form.raw("{}").send().await.expect(400);
    post()
        .raw("{}")
        .send()
        .await
        .expect_invalid(&["/url", "/events"]);
    let json = post().header("content-type", "application/json; charset=utf-8");
    json.raw("{}").send().await.expect(422);
    for bytes in [256 << 10, 8 << 20] {
        let large = json!({"url": "x".repeat(bytes)});
        let refused = post().json(&large).send().await.expect(413);
        assert_eq!(refused.body["code"], "too_large");
    }

    let unknown = api.get(&key, "/v1/nothing").await.expect(404);
    assert_eq!(unknown.body["code"], "not_found");
    api.get(&key, "/").await.expect(404);
    let refused = api
        .call(Method::PUT, "/v1/webhooks")
        .by(&key)
        .send()
        .await
        .expect(405);
    assert_eq!(refused.body["code"], "method_not_allowed");
    let allowed = refused.header("allow");
    assert!(
        allowed.contains("GET") && allowed.contains("POST"),
        "{allowed}"
    );
}

#[actix_web::test]
async fn without_jetstream_nobody_is_answered_from_memory() {
    let mut nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let project = api.project("Acme").await;
    nats.kill();
    // Those who ask at once share one question to the server, and its failure.
    let asks = (0..50).map(|_| api.get("ck_unknown", "/v1/webhooks"));
    for answer in futures_util::future::join_all(asks).await {
        answer.expect(503);
    }
    crate::support::eventually(|| (!api.view().is_current()).then_some(())).await;
    let admin = api.get(ADMIN, "/v1/projects").await;
    let known = api.get(&project.key, "/v1/webhooks").await;
    let unknown = api.get("ck_unknown", "/v1/webhooks").await;
    for answer in [admin, known, unknown] {
        let answer = answer.expect(503);
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(answer.body["code"], "unavailable");
    }
    let none: Value = api
        .call(Method::GET, "/v1/projects")
        .send()
        .await
        .expect(401)
        .body;
    assert_eq!(none["code"], "unauthorized");
}
