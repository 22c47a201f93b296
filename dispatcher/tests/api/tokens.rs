//! Tokens as credentials: they open one project, for as long as they are valid.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use shared::time::{Clock as _, SystemClock};

use crate::nats_server::NatsServer;
use crate::support::{ADMIN, Api, TOKEN_SECRET};

/// Signed by the secret that the API knows, unless another is given.
fn token(claims: &Value, secret: &str) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let message = format!(
        "{}.{}",
        part(json!({ "alg": "HS256", "typ": "JWT" }).to_string()),
        part(claims.to_string())
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let signature = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn in_seconds(seconds: i64) -> i64 {
    SystemClock::new().now().as_millis() / 1_000 + seconds
}

#[actix_web::test]
async fn a_token_opens_the_project_that_it_names_and_no_other() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let (ours, theirs) = (api.project("ours").await, api.project("theirs").await);
    let exp = in_seconds(60);
    let by_project = json!({ "exp": exp, "sub": "ada", "project": ours.id });
    let bare = ours.id.trim_start_matches("prj_");
    let by_company = json!({ "exp": exp, "companyId": bare });
    for claims in [by_project, by_company] {
        let token = token(&claims, TOKEN_SECRET);
        let body = json!({"provider": "greenhouse", "origin_owner_id": "1"});
        let made = api.post(&token, "/v1/accounts", body).await.expect(201);
        let path = format!("/v1/accounts/{}", made.text("/id"));
        api.get(&ours.key, &path).await.expect(200);
        api.get(&theirs.key, &path).await.expect(404);
        // It is no admin token, and no user name.
        api.get(&token, "/v1/projects").await.expect(401);
        let basic = api.call(Method::GET, "/v1/accounts").basic(&token);
        basic.send().await.expect(401);
    }
}

#[actix_web::test]
async fn a_token_that_does_not_hold_is_told_why() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let project = api.project("Acme").await;
    let claims = |seconds: i64| json!({ "exp": in_seconds(seconds), "project": project.id });
    let nowhere = json!({ "exp": in_seconds(60), "project": format!("prj_{}", "9".repeat(32)) });
    let refused = [
        (token(&claims(-60), TOKEN_SECRET), "expired"),
        (token(&claims(60), "another secret of tests"), "signature"),
        (token(&nowhere, TOKEN_SECRET), "valid API key or token"),
        ("a.b.c".to_owned(), "malformed"),
    ];
    for (token, why) in refused {
        let answer = api.get(&token, "/v1/accounts").await.expect(401);
        assert!(answer.text("/detail").contains(why), "{}", answer.raw);
    }
    let good = token(&claims(60), TOKEN_SECRET);
    api.get(&good, "/v1/accounts").await.expect(200);
    let path = format!("/v1/projects/{}", project.id);
    api.delete(ADMIN, &path).await.expect(204);
    api.get(&good, "/v1/accounts").await.expect(401);
}
