//! A project's events, newest first, whatever lies between them in the stream.

use bytes::Bytes;
use shared::codec;
use shared::domain::event::{Event, EventType, Source};
use shared::ids::{AccountId, EventId, LaneHash, ProjectId};
use shared::nats::append::NewMessage;
use shared::subjects;
use shared::time::Timestamp;

use crate::nats_server::NatsServer;
use crate::support::Api;

const TYPES: [&str; 2] = ["crm_contacts.updated", "ats_jobs.created"];

/// The `number`-th event: of an account that every third has.
async fn publish(api: &Api, project: ProjectId, number: u64, body_bytes: usize) -> String {
    let event_type = TYPES[usize::try_from(number % 2).unwrap()];
    let event = Event {
        id: EventId::from_bytes(u128::from(number + 1).to_be_bytes()),
        project,
        event_type: EventType::parse(event_type).unwrap(),
        source: Source::FirstParty,
        account: number
            .is_multiple_of(3)
            .then(|| AccountId::from_bytes([3; 16])),
        provider: None,
        record_id: number.to_string().into(),
        occurred_at: Timestamp::from_millis(0),
        published_at: Timestamp::from_millis(0),
        lane: LaneHash(number),
        registry_sequence: None,
        body: Bytes::from(vec![b' '; body_bytes]),
    };
    let partition = api.nats().partitions.of(project);
    let message = NewMessage {
        subject: subjects::event(partition, project, &event.event_type),
        payload: codec::encode_event(&event),
        message_id: format!("{project}-{number}"),
        expected: None,
        never_expires: false,
    };
    api.nats().append(message).await.unwrap();
    event.id.to_string()
}

async fn listed(api: &Api, key: &str, query: &str, limit: usize) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/events?limit={limit}{query}{cursor}");
        let page = api.get(key, &path).await.expect(200);
        let items = page.body["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        ids.extend(
            items
                .iter()
                .map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        match page.body["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[actix_web::test]
async fn events_are_listed_once_newest_first_whatever_lies_between_them() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let (ours, theirs) = (api.project("ours").await, api.project("theirs").await);
    let (our_id, their_id) = (ours.id.parse().unwrap(), theirs.id.parse().unwrap());
    let mut expected = Vec::new();
    let mut number = 0;
    // Further and further apart, so that windows must grow, and then too many for one window.
    for between in [0, 1, 40, 700] {
        for _ in 0..between {
            publish(&api, their_id, number, 10).await;
            number += 1;
        }
        expected.push((number, publish(&api, our_id, number, 10).await));
        number += 1;
    }
    for _ in 0..12 {
        expected.push((number, publish(&api, our_id, number, 900_000).await));
        number += 1;
    }
    expected.reverse();
    let ids = |wanted: &dyn Fn(u64) -> bool| -> Vec<String> {
        let those = expected.iter().filter(|(number, _)| wanted(*number));
        those.map(|(_, id)| id.clone()).collect()
    };
    let account = AccountId::from_bytes([3; 16]);
    for limit in [1, 3, 100] {
        assert_eq!(
            listed(&api, &ours.key, "", limit).await,
            ids(&|_| true),
            "{limit}"
        );
        let odd = listed(&api, &ours.key, "&event_type=ats_jobs.created", limit).await;
        assert_eq!(odd, ids(&|number| number % 2 == 1), "{limit}");
        let of_account = listed(&api, &ours.key, &format!("&account={account}"), limit).await;
        assert_eq!(of_account, ids(&|number| number % 3 == 0), "{limit}");
    }
    assert_eq!(listed(&api, &theirs.key, "", 100).await.len(), 741);
    for (query, count) in [
        ("&from=2020-01-01T00:00:00Z", expected.len()),
        ("&from=2090-01-01T00:00:00Z", 0),
        ("&to=2020-01-01T00:00:00Z", 0),
        ("&to=2090-01-01T00:00:00Z", expected.len()),
    ] {
        assert_eq!(
            listed(&api, &ours.key, query, 100).await.len(),
            count,
            "{query}"
        );
    }
    // A cursor is a place in the stream, and shows nothing of others.
    let first = format!("/v1/events?limit=1&event_type={}", TYPES[0]);
    let page = api.get(&ours.key, &first).await.expect(200);
    let cursor = page.text("/next");
    let path = format!("&cursor={cursor}");
    let seen = api
        .get(&theirs.key, &format!("/v1/events?limit=100{path}"))
        .await;
    assert!(!seen.expect(200).raw.contains(&expected[0].1));
    for (query, pointer) in [
        ("account=x", "/account"),
        ("event_type=x", "/event_type"),
        ("from=x", "/from"),
    ] {
        let asked = format!("/v1/events?{query}");
        api.get(&ours.key, &asked).await.expect_invalid(&[pointer]);
    }
}

#[actix_web::test]
async fn an_event_of_another_project_or_of_none_is_not_there() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let (ours, theirs) = (api.project("ours").await, api.project("theirs").await);
    let id = publish(&api, theirs.id.parse().unwrap(), 7, 10).await;
    let unknown = EventId::from_bytes([9; 16]).to_string();
    for id in [id, unknown, "evt_x".to_owned()] {
        for hint in ["", "?at=2026-01-01T00:00:00Z"] {
            let path = format!("/v1/events/{id}{hint}");
            api.get(&ours.key, &path).await.expect(404);
        }
    }
    let path = format!("/v1/events/{}?at=x", EventId::from_bytes([9; 16]));
    api.get(&ours.key, &path).await.expect_invalid(&["/at"]);
}
