//! A signing secret is changed while events flow, as StackOne's guide says: the receiver accepts
//! the old and the new one, and never meets a signature of neither.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use support::api::{Client, text};
use support::receiver::{Delivery, Verdict};
use tokio::time::MissedTickBehavior;

use crate::pair::Pair;
use crate::stage::{SOON, event, post_all};

const PATH: &str = "/rotating";
/// 50 a second.
const PACE: Duration = Duration::from_millis(20);
/// Between two steps.
const EVENTS_A_STEP: usize = 60;
const ROTATIONS: usize = 3;

/// Posts events until it is dropped.
pub(crate) async fn flow(client: Client) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0.. {
        pace.tick().await;
        let record = format!("record-{}", number % 20);
        post_all(&client, &[event(&record, number)]).await;
    }
}

/// How many signatures each carries.
fn signatures(deliveries: &[Delivery]) -> Vec<usize> {
    let headers = deliveries
        .iter()
        .map(|one| &one.headers["webhook-signature"]);
    headers.map(|header| header.split(' ').count()).collect()
}

/// Waits until so many more have come, and gives those.
async fn more(pair: &Pair) -> Vec<Delivery> {
    let before = pair.receiver.count();
    let wait = pair.receiver.wait_for("more deliveries", SOON, |all| {
        all.len() >= before + EVENTS_A_STEP
    });
    wait.await.unwrap();
    pair.receiver.deliveries().split_off(before)
}

/// What arrives from now on was begun after the step: those that were under way have come.
async fn after_the_step(pair: &Pair) -> Vec<Delivery> {
    more(pair).await;
    more(pair).await
}

fn verified_by(secret: &str, deliveries: &[Delivery]) -> bool {
    let secrets = [secret.to_owned()];
    let verdicts = deliveries
        .iter()
        .map(|one| Verdict::of(&secrets, &one.headers, &one.body));
    verdicts.into_iter().all(|verdict| verdict.verified())
}

async fn rotate(pair: &Pair, secrets: &str, old: &Value) -> Value {
    let (old_id, old_secret) = (text(old, "/id").unwrap(), text(old, "/secret").unwrap());
    let new = pair.call(Method::POST, secrets, None, 201).await;
    let (new_id, new_secret) = (text(&new, "/id").unwrap(), text(&new, "/secret").unwrap());
    pair.receiver.trust(PATH, &new_secret);
    let added = after_the_step(pair).await;
    assert!(verified_by(&old_secret, &added));

    let path = format!("{secrets}/{new_id}/activate");
    let activated = pair.call(Method::POST, &path, None, 200).await;
    assert_eq!(activated["active"], true);
    assert_eq!(activated["applied"], true);
    let both = after_the_step(pair).await;
    assert!(verified_by(&new_secret, &both));
    assert!(signatures(&both).iter().all(|count| *count == 2));

    let path = format!("{secrets}/{new_id}");
    pair.call(Method::DELETE, &path, None, 409).await;
    let path = format!("{secrets}/{old_id}");
    pair.call(Method::DELETE, &path, None, 204).await;
    let alone = after_the_step(pair).await;
    assert!(verified_by(&new_secret, &alone));
    assert!(signatures(&alone).iter().all(|count| *count == 1));
    let path = format!("{secrets}/{old_id}/activate");
    pair.call(Method::POST, &path, None, 404).await;
    new
}

#[tokio::test]
async fn no_signature_is_ever_bad_while_secrets_are_rotated() {
    let pair = Pair::start().await;
    let webhook = json!({"url": pair.receiver.url(PATH), "events": ["*"]});
    let created = pair
        .call(Method::POST, "/v1/webhooks", Some(&webhook), 201)
        .await;
    let mut secret = created["signing_secrets"][0].clone();
    pair.receiver
        .trust(PATH, &text(&secret, "/secret").unwrap());
    let secrets = format!(
        "/v1/webhooks/{}/signing_secrets",
        text(&created, "/id").unwrap()
    );
    let rotating = async {
        more(&pair).await;
        for _ in 0..ROTATIONS {
            secret = rotate(&pair, &secrets, &secret).await;
        }
    };
    tokio::select! {
        () = rotating => {}
        () = flow(pair.tenant.client.clone()) => {}
    }
    pair.receiver.all_verified().unwrap();
    assert!(pair.receiver.count() >= ROTATIONS * 6 * EVENTS_A_STEP);
}
