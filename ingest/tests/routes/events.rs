//! `POST /v1/events`.

use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::event::Source;
use shared::domain::registry::Command;

use crate::world::{Ingest, World, answer, eventually};

fn event(record: &str) -> Value {
    json!({"event": "ats_jobs.updated", "record_id": record})
}

fn keyed(record: &str, key: &str) -> Value {
    json!({"event": "ats_jobs.updated", "record_id": record, "idempotency_key": key})
}

#[actix_web::test]
async fn one_object_or_many_become_events() {
    let world = World::start().await;
    let project = world.project().await;
    let account = world.account(&project, "bamboohr", None).await;
    let one = format!(
        r#"{{"event":"EmployeeCreated","account_id":"{}","record_id":"42",
            "data":{{ "b" : 1.0, "a":"\u003c" }},"occurred_at":"2025-06-17T13:00:00+02:00"}}"#,
        account.id
    );
    let (status, _, body) = answer(world.post_events(&project, one)).await;
    assert_eq!(status, 202);
    let id = body["items"][0]["id"].as_str().unwrap().to_owned();
    let two = json!([event("1"), event("2")]).to_string();
    let basic = world
        .post_events(&project, two)
        .basic_auth(&project.key, Some(""));
    let (status, _, body) = answer(basic).await;
    assert_eq!((status, body["items"].as_array().unwrap().len()), (202, 2));

    let events = world.events().await;
    assert_eq!(events.len(), 3);
    let event = events
        .iter()
        .find(|event| event.id.to_string() == id)
        .unwrap();
    assert_eq!(event.source, Source::FirstParty);
    assert_eq!(
        (event.project, event.account),
        (project.id, Some(account.id))
    );
    assert_eq!(event.provider.as_deref(), Some("bamboohr"));
    assert_eq!(event.event_type.as_str(), "hris_employees.created");
    let text = std::str::from_utf8(&event.body).unwrap();
    assert!(
        text.contains(r#""event_data":{ "b" : 1.0, "a":"\u003c" }}"#),
        "{text}"
    );
    let body: Value = serde_json::from_str(text).unwrap();
    assert_eq!(body["event"], "hris_employees.created");
    assert_eq!(body["event_date"], "2025-06-17T11:00:00.000Z");
    assert_eq!(body["account_id"], account.id.to_string());
    assert_eq!(body["record_type"], "employees");
    assert!(body.get("raw_event").is_none());
}

#[actix_web::test]
async fn only_a_valid_key_opens() {
    let world = World::start().await;
    let project = world.project().await;
    let url = format!("{}/v1/events", world.ingest.url);
    let body = event("1").to_string();
    let request = || world.http.post(&url).body(body.clone());
    for refused in [
        request(),
        request().bearer_auth("nonsense"),
        request().basic_auth("nonsense", None::<&str>),
        request().header("Authorization", project.key.as_str()),
    ] {
        let (status, _, problem) = answer(refused).await;
        assert_eq!((status, &problem["code"]), (401, &json!("unauthorized")));
    }
    // A key that was made after it was asked for in vain is known.
    let later = world.project().await;
    assert_eq!(answer(request().bearer_auth(&later.key)).await.0, 202);
    let revoke = Command::RevokeApiKey {
        project: later.id,
        id: later.key_id,
    };
    world.execute(revoke).await;
    crate::world::eventually("the key is revoked", async || {
        answer(request().bearer_auth(&later.key)).await.0 == 401
    })
    .await;
    assert_eq!(answer(request().bearer_auth(&project.key)).await.0, 202);
}

#[actix_web::test]
async fn a_repeated_key_gets_the_first_id_within_its_project() {
    let world = World::start().await;
    let (ours, theirs) = (world.project().await, world.project().await);
    let body = keyed("1", "order-1").to_string();
    let mut ids = Vec::new();
    for project in [&ours, &theirs, &ours, &theirs] {
        let (status, _, answer) = answer(world.post_events(project, body.clone())).await;
        assert_eq!(status, 202);
        ids.push(answer["items"][0]["id"].clone());
    }
    assert_eq!((&ids[0], &ids[1]), (&ids[2], &ids[3]));
    assert_ne!(ids[0], ids[1]);
    let events = world.events().await;
    let stored: Vec<_> = events.iter().map(|event| event.project).collect();
    assert_eq!(stored, [ours.id, theirs.id], "both, and each once");
    let metric = "carillon_ingest_first_party_items_total{outcome=\"repeated\"}";
    assert_eq!(world.metric(metric).await, 2);
}

#[actix_web::test]
async fn invalid_and_repeated_items_are_answered_in_their_places() {
    let world = World::start().await;
    let (project, other) = (world.project().await, world.project().await);
    let own = world.account(&project, "bamboohr", None).await;
    let foreign = world.account(&other, "bamboohr", None).await;
    let of_account =
        |id: &str| json!({"event": "ats_jobs.created", "record_id": "9", "account_id": id});
    let large =
        json!({"event": "ats_jobs.created", "record_id": "1", "data": "x".repeat(256 << 10)});
    let items = json!([
        keyed("1", "a"),
        {"event": "ats_jobs.hired", "record_id": "1"},
        keyed("1", "a"),
        {"event": "account.created", "record_id": "1"},
        of_account(&foreign.id.to_string()),
        of_account(&own.id.to_string()),
        large,
        {"event": "ats_jobs.created", "record_id": "1", "surprise": true},
        keyed("1", "b"),
        keyed("2", "a"),
    ]);
    let (status, _, body) = answer(world.post_events(&project, items.to_string())).await;
    assert_eq!(status, 202);
    let items = body["items"].as_array().unwrap();
    let codes: Vec<&str> = items
        .iter()
        .map(|item| item["error"]["code"].as_str().unwrap_or("ok"))
        .collect();
    let (ok, invalid) = ("ok", "invalid");
    assert_eq!(
        codes,
        [
            ok,
            invalid,
            ok,
            invalid,
            invalid,
            ok,
            "too_large",
            invalid,
            ok,
            ok
        ],
        "{body}"
    );
    assert_eq!(items[4]["error"]["pointer"], "/4/account_id");
    assert_eq!(items[0]["id"], items[2]["id"]);
    let events = world.events().await;
    assert_eq!(events.len(), 4);
    let stored: std::collections::HashSet<_> =
        events.iter().map(|event| event.id.to_string()).collect();
    for item in items.iter().filter_map(|item| item["id"].as_str()) {
        assert!(stored.contains(item));
    }
}

#[actix_web::test]
async fn a_request_without_a_valid_item_is_422() {
    let world = World::start().await;
    let project = world.project().await;
    let items = json!([{"event": "x", "record_id": "1"}, {"event": "ats_jobs.created"}]);
    let (status, _, problem) = answer(world.post_events(&project, items.to_string())).await;
    assert_eq!((status, &problem["code"]), (422, &json!("invalid")));
    let pointers: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["pointer"])
        .collect();
    assert_eq!(pointers, ["/0/event", "/1"]);
    assert_eq!(
        problem["items"][1]["error"]["detail"],
        "missing field `record_id`"
    );
    assert_eq!(world.events().await, []);
}

#[actix_web::test]
async fn records_keep_the_order_of_the_request() {
    let world = World::start().await;
    let project = world.project().await;
    for batch in 0..2 {
        let items: Vec<Value> = (0..1_000)
            .map(|n| {
                let (record, n) = (n % 13, batch * 1_000 + n);
                json!({"event": "ats_jobs.updated", "record_id": record.to_string(), "data": n})
            })
            .collect();
        let body = serde_json::to_string(&items).unwrap();
        let (status, _, body) = answer(world.post_events(&project, body)).await;
        assert_eq!(status, 202);
        assert!(
            body["items"]
                .as_array()
                .unwrap()
                .iter()
                .all(|item| item["id"].is_string())
        );
    }
    let events = world.events().await;
    assert_eq!(events.len(), 2_000);
    for record in 0..13 {
        let of_record = events
            .iter()
            .filter(|event| *event.record_id == record.to_string());
        let numbers: Vec<u64> = of_record
            .map(|event| {
                let body: Value = serde_json::from_slice(&event.body).unwrap();
                body["event_data"].as_u64().unwrap()
            })
            .collect();
        assert!(numbers.is_sorted(), "record {record}: {numbers:?}");
    }
}

#[actix_web::test]
async fn batches_hold_each_event_once_and_in_order_with_repeats_among_them() {
    let world = World::start().await;
    let project = world.project().await;
    let mut batching = Ingest::with(&world.server.url(), |settings| {
        settings.publish_batches = true;
    });
    let url = format!("{}/v1/events", batching.url);
    let post = async |items: &[Value]| {
        let request = world.http.post(&url).bearer_auth(&project.key);
        let (status, _, body) = answer(request.body(json!(items).to_string())).await;
        assert_eq!(status, 202, "{body}");
        let ids = body["items"].as_array().unwrap().iter();
        ids.map(|item| item["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let wait = async || {
        let opened = world.http.post(&url).bearer_auth(&project.key);
        answer(opened.body(event("0").to_string())).await.0 == 202
    };
    eventually("it takes events", wait).await;
    // Known ids lie in the batches of the later requests, so that these are refused whole.
    let known: Vec<Value> = (0..100).map(|n| keyed(&n.to_string(), "k")).collect();
    let first = post(&known).await;
    let of_request = |request: usize| -> Vec<Value> {
        let own = (0..300).map(|n| keyed(&(n % 60).to_string(), &format!("{request}-{n}")));
        known.iter().cloned().chain(own).collect()
    };
    let requests: Vec<_> = (0..4).map(of_request).collect();
    let answered = futures_util::future::join_all(requests.iter().map(|items| post(items))).await;
    for ids in &answered {
        assert_eq!(ids[..100], first[..]);
    }
    let stored: Vec<String> = world
        .events()
        .await
        .iter()
        .map(|event| event.id.to_string())
        .collect();
    let unique: std::collections::HashSet<_> = stored.iter().collect();
    assert_eq!(unique.len(), stored.len());
    let place = |id: &String| stored.iter().position(|stored| stored == id).unwrap();
    for ids in &answered {
        // Every sixtieth is of the same record.
        for lane in 0..60 {
            let places: Vec<_> = ids[100..]
                .iter()
                .skip(lane)
                .step_by(60)
                .map(place)
                .collect();
            assert_eq!(places.len(), 5);
            assert!(places.is_sorted(), "{places:?}");
        }
    }
    let mut in_batches = 0;
    for sequence in 1..=stored.len() {
        let sequence = u64::try_from(sequence).unwrap();
        let message = world.log.events.get_raw_message(sequence).await.unwrap();
        in_batches += usize::from(message.headers.get("Nats-Batch-Id").is_some());
    }
    assert!(in_batches >= 100, "{in_batches} of {}", stored.len());
    batching.ask_to_stop();
    batching.ended().await.unwrap();
}

#[actix_web::test]
async fn what_is_no_request_is_a_problem() {
    let world = World::start().await;
    let project = world.project().await;
    let padded = |bytes: usize| {
        let event = event("1").to_string();
        format!("{}{event}", " ".repeat(bytes - event.len())).into_bytes()
    };
    let many = |count: usize| json!(vec![event("1"); count]).to_string().into_bytes();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("empty", Vec::new(), 400),
        ("no JSON", b"{".to_vec(), 400),
        ("no UTF-8", b"{\"event\":\"\xff\"}".to_vec(), 400),
        ("deep", vec![b'['; 1 << 20], 400),
        (
            "deep data",
            [b"{\"data\":".as_slice(), &[b'['; 200], &[b']'; 200], b"}"].concat(),
            400,
        ),
        ("none", b"[]".to_vec(), 400),
        ("1,000", many(1_000), 202),
        ("1,001", many(1_001), 413),
        ("8 MiB", padded(8 << 20), 202),
        ("more than 8 MiB", padded((8 << 20) + 1), 413),
    ];
    for (name, body, expected) in cases {
        let (status, _, body) = answer(world.post_events(&project, body)).await;
        assert_eq!(status, expected, "{name}: {body}");
    }
}

#[actix_web::test]
async fn other_methods_are_405() {
    let world = World::start().await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let url = format!("{}/v1/events", world.ingest.url);
        let response = world.http.request(method, url).send().await.unwrap();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()["allow"], "POST");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
    }
}
