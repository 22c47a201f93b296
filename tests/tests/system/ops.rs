//! The ops listener: alive, ready, and metrics that name no customer.

use serde_json::json;
use support::api;
use support::cluster::Service;
use support::eventually::eventually;
use support::receiver::Answer;

use crate::stage::{SOON, Stage, event, post_all};

/// What only ids and secrets start with.
const NEVER_IN_LABELS: [&str; 8] = [
    "prj_",
    "acc_",
    "wh_",
    "evt_",
    "ck_",
    "whsec_",
    "127.0.0.1",
    "http",
];

async fn status(service: &Service, path: &str) -> u16 {
    let url = format!("{}{path}", service.ops_url());
    let answer = api::http().unwrap().get(url).send().await.unwrap();
    answer.status().as_u16()
}

/// Samples of the text format: name with labels, and value.
fn samples(text: &str) -> Vec<(&str, f64)> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name, value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn metrics_count_and_name_nobody() {
    let stage = Stage::start().await;
    let id = stage.post(event("record", 1)).await;
    stage.receiver.wait_for_id(&id, SOON).await.unwrap();
    for (service, prefix) in [
        (&stage.cluster.ingest, "carillon_ingest_"),
        (&stage.cluster.dispatcher, "carillon_dispatcher_"),
    ] {
        let text = service.metrics().await.unwrap();
        let samples = samples(&text);
        assert!(!samples.is_empty());
        for (name, _) in &samples {
            assert!(name.starts_with(prefix), "{name}");
            for part in NEVER_IN_LABELS {
                let labels = name.split_once('{').map_or("", |(_, labels)| labels);
                assert!(!labels.contains(part), "{name} names {part}");
            }
        }
        assert!(samples.iter().any(|(_, value)| *value > 0.0), "{text}");
    }
    // Counted once the attempt is over, which may be a moment after the receiver has answered.
    eventually(
        "the latency from publication to delivery",
        SOON,
        async || {
            let text = stage.cluster.dispatcher.metrics().await.unwrap();
            let counted = samples(&text).into_iter().any(|(name, count)| {
                name.contains("end_to_end") && name.contains("_seconds_count") && count > 0.0
            });
            counted.then_some(()).ok_or(text)
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn without_nats_services_are_alive_but_not_ready() {
    let mut stage = Stage::without_webhook().await;
    stage.cluster.nats.kill();
    let services = [&stage.cluster.ingest, &stage.cluster.dispatcher];
    for service in services {
        eventually("not ready", SOON, async || {
            match status(service, "/readyz").await {
                503 => Ok(()),
                other => Err(format!("/readyz answers {other}")),
            }
        })
        .await
        .unwrap();
        assert_eq!(status(service, "/livez").await, 200);
    }
    stage.cluster.nats.restart().await.unwrap();
    stage.cluster.ingest.wait_ready().await.unwrap();
    stage.cluster.dispatcher.wait_ready().await.unwrap();
}

#[tokio::test]
async fn an_exhausted_delivery_is_counted_and_its_record_goes_on() {
    let stage = Stage::with_policy(json!({ "retry_schedule_ms": [50, 50] })).await;
    stage.receiver.answer(|arrival| {
        Answer::status(if arrival.record_id == "poison" {
            500
        } else {
            204
        })
    });
    let poison = event("poison", 1);
    let ids = post_all(&stage.tenant.client, &[poison]).await;
    let poisoned = ids[0].clone();
    let dispatcher = &stage.cluster.dispatcher;
    let expected = [
        (
            "carillon_dispatcher_deliveries_total{outcome=\"exhausted\"}",
            1.0,
        ),
        (
            "carillon_dispatcher_deliveries_total{outcome=\"delivered\"}",
            0.0,
        ),
        (
            "carillon_dispatcher_failed_attempts_total{kind=\"status\"}",
            3.0,
        ),
    ];
    eventually("the end without success", SOON, async || {
        let text = dispatcher.metrics().await.unwrap();
        let samples = samples(&text);
        let holds = expected.iter().all(|sample| samples.contains(sample));
        holds.then_some(()).ok_or(text)
    })
    .await
    .unwrap();
    // Three attempts and no more; what comes next of the record is not held up.
    stage.receiver.answer(|_| Answer::status(204));
    let next = stage.post(event("poison", 2)).await;
    stage.receiver.wait_for_id(&next, SOON).await.unwrap();
    assert_eq!(stage.receiver.of_id(&poisoned).len(), 3);
}
