//! The life of a webhook as HR-ON's guide tells it, step by step, with two dispatchers.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use support::receiver::{Answer, Delivery};

use crate::pair::Pair;
use crate::stage::{SOON, post_all};

const WEBHOOKS: &str = "/hr-on/v1/webhooks";
const PATH: &str = "/hr-on-hook";
const TOKEN: &str = "your_unique_token_here";
/// HR-ON's; the tenth deactivates.
const FAILURES_MAX: usize = 10;

/// How the endpoint answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verifications {
    Echoed,
    Wrong,
    Slow,
}

struct Manner {
    verifications: Verifications,
    /// What events are answered.
    events: u16,
}

struct Walk {
    pair: Pair,
    manner: Arc<Mutex<Manner>>,
    /// Its path.
    webhook: String,
    id: String,
}

impl Walk {
    async fn start() -> Self {
        let pair = Pair::start().await;
        let manner = Arc::new(Mutex::new(Manner {
            verifications: Verifications::Echoed,
            events: 200,
        }));
        let told = Arc::clone(&manner);
        pair.receiver.answer(move |arrival| {
            let manner = told.lock().unwrap();
            if !arrival.event.is_empty() {
                return Answer::status(manner.events);
            }
            let echo = Answer::status(200).with_body(&arrival.body);
            match manner.verifications {
                Verifications::Echoed => echo,
                Verifications::Wrong => Answer::status(200).with_body("something else"),
                Verifications::Slow => echo.after(Duration::from_millis(10_500)),
            }
        });
        let body = json!({
            "endpoint": pair.receiver.url(PATH),
            "eventNames": ["EmployeeCreated", "EmployeeUpdated"],
            "token": TOKEN,
        });
        let created = pair.call(Method::POST, WEBHOOKS, Some(&body), 200).await;
        assert_eq!(created["success"], true);
        let item = &created["item"];
        assert_eq!(item["endpoint"], body["endpoint"]);
        assert_eq!(item["token"], TOKEN);
        assert_eq!(item["verifiedAt"], Value::Null);
        assert_eq!(item["failed"], 0);
        let id = item["id"].as_str().unwrap().to_owned();
        Self {
            webhook: format!("{WEBHOOKS}/{id}"),
            id,
            pair,
            manner,
        }
    }

    fn set(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.manner.lock().unwrap());
    }

    async fn post(&self, event: &str, record: &str) {
        let event = json!({"event": event, "record_id": record});
        post_all(&self.pair.tenant.client, &[event]).await;
    }

    /// Events that came, in order.
    fn events(&self) -> Vec<Delivery> {
        let all = self.pair.receiver.to_path(PATH).into_iter();
        all.filter(|one| !one.event().is_empty()).collect()
    }

    async fn arrives(&self, record: &str) -> Delivery {
        let is_there = |all: &[Delivery]| {
            all.iter()
                .any(|one| one.record_id() == record && one.answered.is_some())
        };
        let wait = self.pair.receiver.wait_for(record, SOON, is_there);
        wait.await.unwrap();
        self.pair.receiver.of_record(record).remove(0)
    }

    async fn verify(&self) -> Value {
        let path = format!("{}/verify", self.webhook);
        self.pair.call(Method::POST, &path, None, 200).await
    }

    async fn trigger(&self, body: &Value, status: u16) -> Value {
        let path = format!("{}/trigger", self.webhook);
        self.pair
            .call(Method::POST, &path, Some(body), status)
            .await
    }

    /// Waits until both replicas say so of the webhook.
    async fn shows(&self, failed: usize, is_verified: bool) {
        let holds = |shown: &Value| {
            let item = &shown["items"][0];
            item["failed"] == failed && item["verifiedAt"].is_string() == is_verified
        };
        self.pair.shown(&self.webhook, holds).await;
    }

    async fn status(&self, status: &str) {
        let path = format!("/v1/webhooks/{}", self.id);
        self.pair
            .shown(&path, |shown| shown["status"] == status)
            .await;
    }
}

#[tokio::test]
async fn the_guide_is_walked_from_creation_to_deletion() {
    let walk = Walk::start().await;
    walk.shows(0, false).await;
    walk.status("pending_verification").await;
    // Any update has it verified again, so the schedule comes first: one attempt is enough here.
    let policy = json!({"policy": {"retry_schedule_ms": [600_000]}});
    let path = format!("/v1/webhooks/{}", walk.id);
    walk.pair
        .call(Method::PATCH, &path, Some(&policy), 200)
        .await;

    not_verified_it_is_sent_nothing(&walk).await;
    verified_it_is_sent_tests_and_events(&walk).await;
    updated_it_has_to_be_verified_again(&walk).await;
    nine_failures_and_a_success_are_forgotten(&walk).await;
    ten_failures_deactivate_it(&walk).await;

    let deleted = walk
        .pair
        .call(Method::DELETE, &walk.webhook, None, 200)
        .await;
    assert_eq!(deleted["success"], true);
    let gone = walk.pair.call(Method::GET, &walk.webhook, None, 404).await;
    assert_eq!(gone["success"], false);
    let records: Vec<_> = walk
        .events()
        .iter()
        .map(|one| one.record_id().to_owned())
        .collect();
    let unwanted = ["early", "unverified", "deactivated", "other"];
    assert!(
        unwanted
            .iter()
            .all(|record| !records.contains(&(*record).to_owned()))
    );
    let mut distinct = records.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), records.len(), "{records:?}");
}

async fn not_verified_it_is_sent_nothing(walk: &Walk) {
    walk.post("EmployeeUpdated", "early").await;
    let refused = walk
        .trigger(&json!({"eventName": "EmployeeCreated"}), 409)
        .await;
    assert_eq!(refused["success"], false);
    assert!(refused["message"].is_string());
    assert_eq!(walk.pair.receiver.count(), 0);

    walk.set(|manner| manner.verifications = Verifications::Wrong);
    let wrong = walk.verify().await;
    assert_eq!(wrong["success"], false, "{wrong}");
    walk.set(|manner| manner.verifications = Verifications::Slow);
    let slow = walk.verify().await;
    assert_eq!(slow["success"], false, "{slow}");
    walk.shows(0, false).await;
    walk.set(|manner| manner.verifications = Verifications::Echoed);
    assert!(walk.events().is_empty());
}

async fn verified_it_is_sent_tests_and_events(walk: &Walk) {
    let verified = walk.verify().await;
    assert_eq!(verified["success"], true, "{verified}");
    assert!(verified["message"].is_string());
    walk.shows(0, true).await;
    walk.status("enabled").await;
    let challenge = walk.pair.receiver.to_path(PATH).pop().unwrap();
    assert_eq!(challenge.body.len(), 64);
    assert!(challenge.body.is_ascii());
    assert_eq!(challenge.headers["x-hr-on-token"], TOKEN);

    walk.trigger(&json!({"eventName": "EmployeeDeleted"}), 400)
        .await;
    let sent = walk
        .trigger(&json!({"eventName": "EmployeeUpdated"}), 200)
        .await;
    let test = walk.arrives(sent["employeeId"].as_str().unwrap()).await;
    assert_eq!(test.json, sent);

    // By the type's other name, and by one that it has not subscribed to.
    walk.post("EmployeeDeleted", "other").await;
    walk.post("hris_employees.updated", "employee-1").await;
    let real = walk.arrives("employee-1").await;
    assert_eq!(real.headers["x-hr-on-token"], TOKEN);
    assert_eq!(real.headers["content-type"], "application/json");
    assert!(!real.headers.contains_key("x-stackone-signature"));
    assert_eq!(real.text("message"), "An employee has been updated");
    assert_eq!(real.text("eventName"), "EmployeeUpdated");
    let sent_at = real.text("sentAt");
    assert!(sent_at.len() == 24 && sent_at.ends_with('Z'), "{sent_at}");
    assert_eq!(real.json.as_object().unwrap().len(), 4);
}

async fn updated_it_has_to_be_verified_again(walk: &Walk) {
    let update = json!({"token": "another_token"});
    let updated = walk
        .pair
        .call(Method::PUT, &walk.webhook, Some(&update), 200)
        .await;
    assert_eq!(updated["success"], true);
    assert_eq!(updated["item"]["verifiedAt"], Value::Null);
    walk.shows(0, false).await;
    walk.post("EmployeeUpdated", "unverified").await;
    walk.trigger(&json!({}), 409).await;
    assert_eq!(walk.verify().await["success"], true);
    walk.shows(0, true).await;
    walk.post("EmployeeUpdated", "employee-2").await;
    let real = walk.arrives("employee-2").await;
    assert_eq!(real.headers["x-hr-on-token"], "another_token");
}

async fn nine_failures_and_a_success_are_forgotten(walk: &Walk) {
    for number in 1..FAILURES_MAX {
        // Only 200 is a success.
        let status = [204, 201, 302, 404, 500][number % 5];
        walk.set(|manner| manner.events = status);
        let record = format!("nine-{number}");
        walk.post("EmployeeUpdated", &record).await;
        walk.arrives(&record).await;
        walk.shows(number, true).await;
    }
    walk.set(|manner| manner.events = 200);
    walk.post("EmployeeUpdated", "employee-3").await;
    walk.arrives("employee-3").await;
    walk.shows(0, true).await;
    walk.status("enabled").await;
}

async fn ten_failures_deactivate_it(walk: &Walk) {
    walk.set(|manner| manner.events = 500);
    for number in 1..=FAILURES_MAX {
        let record = format!("ten-{number}");
        walk.post("EmployeeUpdated", &record).await;
        walk.arrives(&record).await;
        walk.shows(number, number < FAILURES_MAX).await;
    }
    walk.status("deactivated").await;
    walk.set(|manner| manner.events = 200);
    walk.post("EmployeeUpdated", "deactivated").await;
    walk.trigger(&json!({}), 409).await;
    let enable = format!("/v1/webhooks/{}/enable", walk.id);
    walk.pair.call(Method::POST, &enable, None, 409).await;
    assert_eq!(walk.verify().await["success"], true);
    walk.shows(0, true).await;
    walk.status("enabled").await;
    walk.post("EmployeeUpdated", "employee-4").await;
    walk.arrives("employee-4").await;
}
