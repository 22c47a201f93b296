//! `ANY /v1/native/{account_id}/{ingest_key}`.

use reqwest::Method;
use serde_json::{Value, json};
use shared::domain::event::Source;

use crate::nats_server::NatsServer;
use crate::world::{Connection, World, answer, sign};

const SECRET: &str = "hush";
const CREATED: &str = r#"{ "type":"employee.created","timestamp":"2025-06-17T10:00:00Z","data":{"companyId":"c","employeeId":"42"} }"#;

#[actix_web::test]
async fn a_signed_callback_is_stored_once_however_often_it_comes() {
    let world = World::start().await;
    let project = world.project().await;
    let account = world.account(&project, "bamboohr", Some(SECRET)).await;
    for _ in 0..3 {
        let (status, _, body) = answer(world.callback(&account, CREATED)).await;
        assert_eq!((status, body), (200, Value::Null));
    }
    let events = world.events().await;
    let [event] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(event.event_type.as_str(), "hris_employees.created");
    assert_eq!(event.source, Source::NativeProgrammatic);
    assert_eq!(event.account, Some(account.id));
    assert_eq!(event.provider.as_deref(), Some("bamboohr"));
    assert_eq!(&*event.record_id, "42");
    let text = std::str::from_utf8(&event.body).unwrap();
    let raw = format!(r#""raw_event":{CREATED},"#);
    assert!(text.contains(&raw), "byte for byte: {text}");
    let body: Value = serde_json::from_str(text).unwrap();
    assert_eq!(body["id"], event.id.to_string());
    assert_eq!(body["project_id"], project.id.to_string());
    assert_eq!(body["event_date"], "2025-06-17T10:00:00.000Z");
    assert_eq!(body["sent_at"], event.published_at.to_string());
    assert_eq!(body["origin_owner_name"], "Acme");
    assert_eq!(body["event_data"]["id"], "42");
    let metric = "carillon_ingest_events_total{source=\"native_programmatic\"}";
    assert_eq!(world.metric(metric).await, 1);
    assert_eq!(world.metric("carillon_ingest_duplicates_total").await, 2);
}

#[actix_web::test]
async fn one_byte_changed_is_401_and_counted() {
    let world = World::start().await;
    let project = world.project().await;
    let account = world.account(&project, "greenhouse", Some(SECRET)).await;
    let body = r#"{"action":"job_deleted","payload":{"job":{"id":1}}}"#;
    let changed = body.replace(":1", ":2");
    let signature = format!("sha256 {}", sign(SECRET, body));
    let request = world
        .http
        .post(account.url(&world.ingest.url))
        .body(changed);
    let (status, _, problem) = answer(request.header("Signature", signature)).await;
    assert_eq!((status, &problem["code"]), (401, &json!("bad_signature")));
    let unsigned = world.http.post(account.url(&world.ingest.url)).body(body);
    assert_eq!(answer(unsigned).await.0, 401);
    assert_eq!(world.events().await, []);
    let metric = "carillon_ingest_callbacks_total{outcome=\"bad_signature\"}";
    assert_eq!(world.metric(metric).await, 2);
    assert_eq!(answer(world.callback(&account, body)).await.0, 200);
    let events = world.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].source, Source::NativeManual);
}

#[actix_web::test]
async fn whatever_is_unknown_gets_the_same_404() {
    let world = World::start().await;
    let project = world.project().await;
    let account = world.account(&project, "bamboohr", Some(SECRET)).await;
    let known = account.url("");
    let unknown = known.replace(
        &account.id.to_string(),
        "acc_01977d8bbffb70000000000000000000",
    );
    let mut answers = Vec::new();
    for (method, path) in [
        (Method::POST, unknown),
        (Method::POST, format!("{known}0")),
        (Method::GET, known.replace(&account.ingest_key, "x")),
        (Method::POST, "/v1/native/nonsense/%00".to_owned()),
        (Method::POST, "/v1/native/acc_/%ff".to_owned()),
        (Method::DELETE, "/v1/nothing".to_owned()),
        (Method::POST, "/".to_owned()),
    ] {
        let request = world
            .http
            .request(method, format!("{}{path}", world.ingest.url));
        let response = request.body(CREATED).send().await.unwrap();
        let mut headers = response.headers().clone();
        headers.remove("date");
        headers.remove("connection");
        answers.push((response.status(), headers, response.text().await.unwrap()));
    }
    assert_eq!(answers[0].0, 404);
    assert_eq!(answers[0].1["content-type"], "application/problem+json");
    for other in &answers {
        assert_eq!(other, &answers[0]);
    }
    let metric = "carillon_ingest_callbacks_total{outcome=\"unknown\"}";
    assert_eq!(world.metric(metric).await, 5);
}

#[actix_web::test]
async fn an_account_made_a_moment_ago_is_known() {
    let world = World::start().await;
    let project = world.project().await;
    let nobody = format!("{}/v1/native/acc_/x", world.ingest.url);
    for round in 0..30 {
        // What was unknown a moment ago must not stand for what is.
        assert_eq!(answer(world.http.post(&nobody)).await.0, 404);
        let account = world.account(&project, "bamboohr", Some(SECRET)).await;
        let (status, ..) = answer(world.callback(&account, CREATED)).await;
        assert_eq!(status, 200, "round {round}");
    }
    assert_eq!(world.events().await.len(), 30, "one for each account");
}

#[actix_web::test]
async fn a_callback_that_is_earlier_than_its_secret_is_asked_to_come_again() {
    let world = World::start().await;
    let project = world.project().await;
    let mut account = world.account(&project, "bamboohr", None).await;
    let (status, retry_after, _) = answer(world.callback(&account, CREATED)).await;
    assert_eq!((status, retry_after.as_deref()), (503, Some("60")));
    for secret in ["one", "two", "three"] {
        world.set_signing_secret(&mut account, secret).await;
        assert_eq!(
            answer(world.callback(&account, CREATED)).await.0,
            200,
            "{secret}"
        );
    }
    assert_eq!(world.events().await.len(), 1);
}

#[actix_web::test]
async fn what_means_nothing_is_success_and_what_cannot_be_read_is_not() {
    let world = World::start().await;
    let project = world.project().await;
    let account = world.account(&project, "greenhouse", Some(SECRET)).await;
    for (body, expected, outcome) in [
        (
            r#"{"action":"ping","payload":{"web_hook_id":1}}"#,
            200,
            "unmapped",
        ),
        ("{}", 200, "unmapped"),
        ("no json", 422, "malformed"),
        ("", 422, "malformed"),
        (&"[".repeat(100_000), 422, "malformed"),
        (
            r#"{"action":"job_deleted","payload":{"job":{"id":null}}}"#,
            422,
            "malformed",
        ),
    ] {
        let metric = format!("carillon_ingest_callbacks_total{{outcome=\"{outcome}\"}}");
        let before = world.metric(&metric).await;
        let (status, ..) = answer(world.callback(&account, body)).await;
        assert_eq!(status, expected, "{}", body.get(..40).unwrap_or(body));
        assert_eq!(world.metric(&metric).await, before + 1);
    }
    assert_eq!(world.events().await, []);
}

#[actix_web::test]
async fn the_events_of_a_lane_keep_their_order() {
    let world = World::start().await;
    let project = world.project().await;
    let account = world.account(&project, "bamboohr", Some(SECRET)).await;
    let changes: Vec<Value> = (0..300)
        .map(|n| json!({"id": (n % 7).to_string(), "action": "Updated", "timestamp": time(n)}))
        .collect();
    let body = json!({ "employees": changes }).to_string();
    assert_eq!(answer(world.callback(&account, &body)).await.0, 200);
    let events = world.events().await;
    assert_eq!(events.len(), 300);
    for record in 0..7 {
        let of_record = events
            .iter()
            .filter(|event| *event.record_id == record.to_string());
        let times: Vec<String> = of_record
            .map(|event| event.occurred_at.to_string())
            .collect();
        let expected: Vec<String> = (0..300).filter(|n| n % 7 == record).map(time).collect();
        assert_eq!(times, expected, "record {record}");
    }
}

fn time(n: u32) -> String {
    format!("2025-06-17T10:{:02}:{:02}.000Z", n / 60, n % 60)
}

#[actix_web::test]
async fn a_body_is_at_most_a_mebibyte_compressed_or_not() {
    let world = World::start().await;
    let project = world.project().await;
    let account = world.account(&project, "bamboohr", Some(SECRET)).await;
    let padded = |bytes: usize| format!("{}{CREATED}", " ".repeat(bytes - CREATED.len()));
    for (bytes, expected) in [(1 << 20, 200), ((1 << 20) + 1, 413)] {
        let body = padded(bytes);
        let plain = world.callback(&account, &body);
        assert_eq!(answer(plain).await.0, expected, "{bytes} plain");
        let signature = sign(SECRET, &format!("{body}1750158000"));
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: x\r\nX-BambooHR-Timestamp: 1750158000\r\n\
             X-BambooHR-Signature: {signature}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            account.url(""),
            body.len()
        );
        let mut connection = Connection::open(&world.ingest.url);
        connection.send(format!("{head}{body}\r\n0\r\n\r\n")).await;
        assert_eq!(
            connection.status().await,
            expected,
            "{bytes} without a length"
        );
        let compressed = world
            .callback(&account, &body)
            .body(stored_gzip(body.as_bytes()));
        let compressed = compressed.header("Content-Encoding", "gzip");
        assert_eq!(answer(compressed).await.0, expected, "{bytes} compressed");
    }
    assert_eq!(world.events().await.len(), 1, "the same change each time");
}

/// gzip that stores instead of compressing.
fn stored_gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    let mut blocks = bytes.chunks(65_535).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap();
        gzip.push(u8::from(blocks.peek().is_none()));
        gzip.extend(length.to_le_bytes());
        gzip.extend((!length).to_le_bytes());
        gzip.extend(block);
    }
    let crc = !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 * (crc & 1))
        })
    });
    gzip.extend(crc.to_le_bytes());
    gzip.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    gzip
}

#[actix_web::test]
async fn an_event_that_the_server_does_not_take_whole_goes_without_its_data() {
    let world = World::over(NatsServer::with_max_payload(64 << 10).await).await;
    let project = world.project().await;
    let account = world.account(&project, "bamboohr", Some(SECRET)).await;
    for (name_bytes, expected) in [(20_000, 200), (40_000, 200), (65_000, 413)] {
        let change = json!({
            "id": name_bytes.to_string(),
            "timestamp": "2025-06-17T10:00:00Z",
            "fields": {"First name": "n".repeat(name_bytes)},
        });
        let body =
            json!({ "employees": [{"id": "1", "timestamp": "2025-06-17T10:00:00Z"}, change] });
        let (status, ..) = answer(world.callback(&account, &body.to_string())).await;
        assert_eq!(status, expected, "{name_bytes}");
    }
    let events = world.events().await;
    let has_data = |record: &str| {
        let event = events.iter().find(|event| &*event.record_id == record)?;
        let body: Value = serde_json::from_slice(&event.body).unwrap();
        assert!(body["raw_event"]["employees"].is_array());
        Some(body.get("event_data").is_some())
    };
    assert_eq!(has_data("20000"), Some(true));
    assert_eq!(has_data("40000"), Some(false));
    assert_eq!(has_data("65000"), None);
    assert_eq!(
        events
            .iter()
            .filter(|event| &*event.record_id == "1")
            .count(),
        1
    );
}
