//! HR-ON's management API, as far as one replica goes; its deliveries are the system's tests'.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use shared::ids::{ProjectId, WebhookId};
use shared::nats::requests::Questions;
use shared::problem;

use crate::endpoint::{Endpoint, Manner};
use crate::nats_server::NatsServer;
use crate::support::{Answer, Api, Owners};

const LOOPBACK: &[&str] = &["127.0.0.0/8"];
const WEBHOOKS: &str = "/hr-on/v1/webhooks";
const FAILED: u32 = 7;

struct Scene {
    _nats: NatsServer,
    api: Api,
    endpoint: Endpoint,
    project: ProjectId,
    key: String,
}

async fn scene() -> Scene {
    let nats = NatsServer::start().await;
    let api = Api::with(&nats, LOOPBACK, Owners::Present).await;
    let project = api.project("Acme").await;
    let id = project.id.parse().unwrap();
    own(&api, id).await;
    Scene {
        endpoint: Endpoint::start(),
        project: id,
        key: project.key,
        _nats: nats,
        api,
    }
}

/// Plays the partition's owner: of every webhook so many attempts have failed.
async fn own(api: &Api, project: ProjectId) {
    let partition = api.nats().partitions.of(project);
    let mut questions = Questions::of(api.nats(), partition).await.unwrap();
    actix_rt::spawn(async move {
        while let Some(question) = questions.next().await {
            let asked: Value = serde_json::from_slice(question.body()).unwrap();
            let webhooks = &asked["consecutive_failures"]["webhooks"];
            let count = webhooks.as_array().map_or(0, Vec::len);
            let answer = json!({"consecutive_failures": {"counts": vec![FAILED; count]}});
            question.answer(answer.to_string().into()).await;
        }
    });
}

/// HR-ON says itself whether it was a success.
fn refused(answer: Answer, status: u16) -> Answer {
    let answer = answer.expect(status);
    assert_eq!(answer.header("content-type"), problem::CONTENT_TYPE);
    assert_eq!(answer.body["success"], false);
    assert!(!answer.text("/message").is_empty());
    answer
}

impl Scene {
    async fn create(&self, names: &[&str]) -> String {
        let body = json!({"endpoint": self.endpoint.url, "eventNames": names, "token": "t-0ken"});
        let created = self.api.post(&self.key, WEBHOOKS, body).await.expect(200);
        assert_eq!(created.body["success"], true);
        created.text("/item/id")
    }

    async fn call(&self, method: Method, path: &str) -> Answer {
        let path = format!("{WEBHOOKS}/{path}");
        self.api.call(method, &path).by(&self.key).send().await
    }

    async fn item(&self, id: &str) -> Value {
        let got = self.call(Method::GET, id).await.expect(200);
        assert_eq!(
            got.body["pageInfo"],
            json!({"size": 1, "offset": 0, "total": 1})
        );
        let items = got.body["items"].as_array().unwrap();
        assert_eq!(items.len(), 1);
        items[0].clone()
    }

    async fn verify(&self, id: &str) -> Answer {
        let verified = self.call(Method::POST, &format!("{id}/verify")).await;
        verified.expect(200)
    }

    async fn status(&self, id: &str) -> String {
        let shown = self.api.get(&self.key, &format!("/v1/webhooks/{id}")).await;
        shown.expect(200).text("/status")
    }
}

#[actix_web::test]
async fn a_webhook_has_the_fields_of_the_guide_and_no_others() {
    let scene = scene().await;
    let id = scene.create(&["EmployeeUpdated", "DocumentUploaded"]).await;
    assert!(WebhookId::from_bare(&id).is_some());
    let item = scene.item(&id).await;
    let mut names: Vec<_> = item.as_object().unwrap().keys().cloned().collect();
    names.sort();
    let fields = "companyId createdAt endpoint events failed id token updatedAt verifiedAt";
    assert_eq!(names.join(" "), fields);
    assert_eq!(item["companyId"], scene.project.uuid().to_string());
    assert_eq!(item["endpoint"], scene.endpoint.url);
    assert_eq!(item["token"], "t-0ken");
    assert_eq!(item["verifiedAt"], Value::Null);
    assert_eq!(item["failed"], FAILED);
    assert_eq!(
        item["events"],
        json!([
            {"name": "EmployeeUpdated", "description": "An employee has been updated"},
            {"name": "DocumentUploaded", "description": "A document has been uploaded"},
        ])
    );
    let other = scene
        .api
        .get(&scene.key, &format!("/v1/webhooks/{id}"))
        .await;
    let other = other.expect(200);
    assert_eq!(other.text("/id"), id);
    assert_eq!(other.text("/dialect"), "hr-on");
    assert_eq!(other.text("/status"), "pending_verification");
    assert_eq!(other.body["events"][0], "hris_employees.updated");
    assert!(
        other
            .text("/signing_secrets/0/secret")
            .starts_with("whsec_")
    );
}

#[actix_web::test]
async fn lists_are_in_parts_and_by_event() {
    let scene = scene().await;
    let stackone = json!({"url": scene.endpoint.url, "events": ["*"]});
    let stackone = scene.api.post(&scene.key, "/v1/webhooks", stackone).await;
    let stackone = stackone.expect(201).text("/id");
    let mut ids = Vec::new();
    for number in 0..5 {
        let name = ["EmployeeCreated", "DepartmentDeleted"][number % 2];
        ids.push(scene.create(&[name]).await);
    }
    for (query, expected, info) in [
        ("", &ids[..], json!({"size": 20, "offset": 0, "total": 5})),
        (
            "?size=2&offset=3",
            &ids[3..],
            json!({"size": 2, "offset": 3, "total": 5}),
        ),
        (
            "?size=1&offset=9",
            &[],
            json!({"size": 1, "offset": 9, "total": 5}),
        ),
    ] {
        let path = format!("{WEBHOOKS}{query}");
        let list = scene.api.get(&scene.key, &path).await.expect(200);
        let items = list.body["items"].as_array().unwrap();
        let listed: Vec<_> = items
            .iter()
            .map(|item| item["id"].as_str().unwrap())
            .collect();
        assert_eq!(listed, expected, "{query}");
        assert_eq!(list.body["pageInfo"], info);
    }
    let path = format!("{WEBHOOKS}?eventName=DepartmentDeleted");
    let list = scene.api.get(&scene.key, &path).await.expect(200);
    assert_eq!(list.body["pageInfo"]["total"], 2);
    let path = format!("{WEBHOOKS}?size=101");
    refused(scene.api.get(&scene.key, &path).await, 400);
    // Webhooks of the other dialect are not there.
    let bare: WebhookId = stackone.parse().unwrap();
    for id in [bare.uuid().to_string(), stackone] {
        refused(scene.call(Method::GET, &id).await, 404);
        refused(scene.call(Method::DELETE, &id).await, 404);
    }
}

#[actix_web::test]
async fn it_is_verified_updated_and_verified_again() {
    let scene = scene().await;
    let id = scene.create(&["EmployeeUpdated"]).await;
    scene
        .endpoint
        .answers(Manner::Says(200, "hello".to_owned()));
    let failed = scene.verify(&id).await;
    assert_eq!(failed.body["success"], false);
    assert!(!failed.text("/message").is_empty());
    scene.endpoint.answers(Manner::Echoes(200));
    let verified = scene.verify(&id).await;
    assert_eq!(verified.body["success"], true);
    assert!(scene.item(&id).await["verifiedAt"].is_string());
    assert_eq!(scene.status(&id).await, "enabled");
    let seen = scene.endpoint.seen().pop().unwrap();
    assert_eq!(seen.headers["x-hr-on-token"], "t-0ken");
    assert_eq!(seen.headers["content-type"], "text/plain");

    for (method, body) in [
        (Method::PUT, json!({"token": "other"})),
        (Method::PATCH, json!({"eventNames": ["DepartmentCreated"]})),
        (
            Method::PUT,
            json!({"endpoint": format!("{}?x=1", scene.endpoint.url)}),
        ),
        (Method::PATCH, json!({})),
    ] {
        let path = format!("{WEBHOOKS}/{id}");
        let call = scene.api.call(method, &path).by(&scene.key).json(&body);
        let updated = call.send().await.expect(200);
        assert_eq!(updated.body["success"], true);
        assert_eq!(updated.body["item"]["verifiedAt"], Value::Null, "{body}");
        assert_eq!(scene.status(&id).await, "pending_verification");
        assert_eq!(scene.verify(&id).await.body["success"], true);
    }
    let item = scene.item(&id).await;
    assert_eq!(item["token"], "other");
    assert_eq!(item["events"][0]["name"], "DepartmentCreated");
    assert_eq!(item["endpoint"], format!("{}?x=1", scene.endpoint.url));
    // Through the other door, too.
    let patch = json!({"description": "x"});
    let path = format!("/v1/webhooks/{id}");
    let patched = scene.api.patch(&scene.key, &path, patch).await.expect(200);
    assert_eq!(patched.text("/status"), "pending_verification");
    let patch = json!({"events": ["hris_employees.*"]});
    let patched = scene.api.patch(&scene.key, &path, patch).await;
    patched.expect_invalid(&["/events"]);

    let deleted = scene.call(Method::DELETE, &id).await.expect(200);
    assert_eq!(deleted.body["success"], true);
    refused(scene.call(Method::GET, &id).await, 404);
    refused(scene.call(Method::POST, &format!("{id}/verify")).await, 404);
}

#[actix_web::test]
async fn a_change_is_made_of_the_version_that_it_names() {
    let scene = scene().await;
    let id = scene.create(&["EmployeeUpdated"]).await;
    scene.endpoint.answers(Manner::Echoes(200));
    let call = async |method, path: &str, tag: &str| {
        let path = format!("{WEBHOOKS}/{path}");
        let call = scene.api.call(method, &path).by(&scene.key);
        call.header("if-match", tag).json(&json!({})).send().await
    };
    let verify = format!("{id}/verify");
    let shown = format!("/v1/webhooks/{id}");
    let old = scene
        .api
        .get(&scene.key, &shown)
        .await
        .expect(200)
        .header("etag")
        .to_owned();
    let updated = call(Method::PUT, &id, &old).await.expect(200);
    let tag = updated.header("etag").to_owned();
    assert_ne!(tag, old);
    refused(call(Method::PATCH, &id, &old).await, 412);
    refused(call(Method::POST, &verify, &old).await, 412);
    refused(call(Method::DELETE, &id, &old).await, 412);
    assert!(scene.endpoint.seen().is_empty());
    let verified = call(Method::POST, &verify, &tag).await.expect(200);
    assert_eq!(verified.body["success"], true);
    refused(call(Method::DELETE, &id, &tag).await, 412);
    call(Method::DELETE, &id, "*").await.expect(200);
}

#[actix_web::test]
async fn an_echo_after_ten_seconds_is_none() {
    let scene = scene().await;
    let id = scene.create(&["EmployeeUpdated"]).await;
    scene
        .endpoint
        .answers(Manner::EchoesAfter(Duration::from_secs(11)));
    let failed = scene.verify(&id).await;
    assert_eq!(failed.body["success"], false);
    assert_eq!(scene.status(&id).await, "pending_verification");
}

#[actix_web::test]
async fn a_trigger_answers_with_what_it_sent_and_sends_nothing_unverified() {
    let scene = scene().await;
    let id = scene.create(&["DocumentDeleted", "EmployeeCreated"]).await;
    let trigger = async |body: Value| {
        let path = format!("{WEBHOOKS}/{id}/trigger");
        scene.api.post(&scene.key, &path, body).await
    };
    refused(trigger(json!({"eventName": "EmployeeCreated"})).await, 409);
    assert_eq!(scene.endpoint.seen().len(), 0);
    scene.verify(&id).await;
    refused(trigger(json!({"eventName": "EmployeeUpdated"})).await, 400);
    for (body, name, field) in [
        (
            json!({"eventName": "EmployeeCreated"}),
            "EmployeeCreated",
            "employeeId",
        ),
        (json!({}), "DocumentDeleted", "documentId"),
    ] {
        let sent = trigger(body).await.expect(200);
        let seen = scene.endpoint.seen().pop().unwrap();
        assert_eq!(sent.raw.as_bytes(), seen.body);
        assert_eq!(seen.headers["x-hr-on-token"], "t-0ken");
        assert_eq!(sent.text("/eventName"), name);
        assert!(WebhookId::from_bare(&sent.text(&format!("/{field}"))).is_some());
        assert_eq!(sent.body.as_object().unwrap().len(), 4);
    }
    // Without a body, as the guide's sample of a call has none.
    let sent = scene.call(Method::POST, &format!("{id}/trigger")).await;
    assert_eq!(sent.expect(200).text("/eventName"), "DocumentDeleted");
    // An endpoint that fails is not told of: it knows.
    scene.endpoint.answers(Manner::Says(500, String::new()));
    trigger(json!({})).await.expect(200);
}

#[actix_web::test]
async fn refusals_are_problems_that_also_speak_hr_on() {
    let scene = scene().await;
    let stranger = scene.api.project("Other").await.key;
    let id = scene.create(&["EmployeeUpdated"]).await;
    let path = format!("{WEBHOOKS}/{id}");
    refused(scene.api.get(&stranger, &path).await, 404);
    refused(scene.api.delete(&stranger, &path).await, 404);
    refused(scene.api.get("ck_unknown", &path).await, 401);
    refused(scene.api.get(&scene.key, "/hr-on/v1/unknown").await, 404);
    refused(scene.api.delete(&scene.key, WEBHOOKS).await, 405);
    let invalid = scene.api.post(&scene.key, WEBHOOKS, json!({})).await;
    let invalid = refused(invalid, 422);
    assert_eq!(invalid.text("/code"), "invalid");
    invalid.expect_invalid(&["/endpoint", "/eventNames", "/token"]);
    let private = json!({"endpoint": "http://10.0.0.1/", "eventNames": ["EmployeeUpdated"],
        "token": "t"});
    let private = scene.api.post(&scene.key, WEBHOOKS, private).await;
    refused(private, 422).expect_invalid(&["/endpoint"]);
    for call in ["verify", "trigger"] {
        let path = format!("{path}/{call}");
        refused(scene.api.post(&stranger, &path, json!({})).await, 404);
    }
    assert_eq!(scene.endpoint.seen().len(), 0);
}
