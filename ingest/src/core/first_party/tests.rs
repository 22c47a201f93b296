use proptest::prelude::*;
use shared::domain::account::{AccountDefinition, AccountSecrets};
use shared::ids::{EventId, Sequence};
use shared::secret::Secret;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_750_158_000_123);
const ACCOUNT: &str = "acc_02020202020202020202020202020202";

type Results<'a> = Vec<Result<UnrenderedEvent<'a>, ItemError>>;

/// Runs `check` on what the body's items come to, in a project that has [`ACCOUNT`].
fn built<R>(project: u8, body: &str, check: impl FnOnce(Results<'_>) -> R) -> R {
    let id: AccountId = ACCOUNT.parse().unwrap();
    let project = ProjectId::from_bytes([project; 16]);
    let account = Account {
        id,
        project,
        definition: AccountDefinition {
            provider: "bamboohr".into(),
            name: None,
            origin_owner_id: "customer-1".into(),
            origin_owner_name: None,
            origin_username: None,
            sealed_secrets: Vec::new(),
        },
        secrets: AccountSecrets {
            ingest_key: Secret::new("key"),
            signing_secret: None,
            signing_secret_generated: false,
            credentials: None,
            settings: None,
        },
        created_at: NOW,
        updated_at: NOW,
        sequence: Sequence(1),
    };
    let accounts = HashMap::from([(id, Arc::new(account))]);
    let request = Request {
        project,
        accounts: &accounts,
        now: NOW,
        max_payload: 1 << 20,
    };
    let mut count = 0;
    let mut random = || {
        count += 1;
        [count; 10]
    };
    check(events(
        parse(body.as_bytes()).unwrap(),
        &request,
        &mut random,
    ))
}

#[test]
fn an_item_becomes_an_event_whose_data_goes_out_as_it_came() {
    let body = format!(
        r#" {{"event":"EmployeeUpdated","account_id":"{ACCOUNT}","record_id":"4\u0032",
            "data":{{ "a" : 1.0 }},"idempotency_key":"k","occurred_at":"2025-06-17T13:00:00+02:00"}} "#
    );
    built(1, &body, |events| {
        let [Ok(event)] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert_eq!(event.event_type.as_str(), "hris_employees.updated");
        assert_eq!(event.source, Source::FirstParty);
        assert_eq!(event.record_id, "42");
        assert_eq!(event.occurred_at, Timestamp::from_millis(1_750_158_000_000));
        assert_eq!(event.published_at, NOW);
        assert_eq!(event.event_data.as_ref().unwrap().get(), r#"{ "a" : 1.0 }"#);
        assert!(event.raw_event.is_none());
        let account = event
            .account
            .as_ref()
            .map(|account| (account.id, account.definition.provider.as_str()));
        assert_eq!(account, Some((ACCOUNT.parse().unwrap(), "bamboohr")));
        assert_eq!(event.id.uuid().get_version_num(), 8);
    });
}

#[test]
fn the_least_item_is_an_event_of_now_with_a_random_id() {
    built(
        1,
        r#"{"event":"ats_jobs.created","record_id":"1","data":null}"#,
        |events| {
            let [Ok(event)] = events.as_slice() else {
                panic!("{events:?}");
            };
            assert_eq!(event.occurred_at, NOW);
            assert_eq!(event.id, EventId::new(NOW, &[1; 10]));
            assert_eq!(event.event_data.as_ref().unwrap().get(), "null");
        },
    );
}

#[test]
fn errors_stand_at_their_items_index_and_name_the_field() {
    let large = "x".repeat(EVENT_BYTES_MAX);
    let long = "x".repeat(513);
    let cases = [
        (r#"{"event":"ats_jobs.created","record_id":"1"}"#.to_owned(), None),
        ("5".into(), Some((ItemErrorCode::Invalid, ""))),
        (r#"{"record_id":"1"}"#.into(), Some((ItemErrorCode::Invalid, ""))),
        (
            r#"{"event":"ats_jobs.created","record_id":"1","surprise":1}"#.into(),
            Some((ItemErrorCode::Invalid, "")),
        ),
        (
            r#"{"event":"ats_jobs.created","record_id":5}"#.into(),
            Some((ItemErrorCode::Invalid, "")),
        ),
        (
            r#"{"event":"ats_jobs.created","record_id":""}"#.into(),
            Some((ItemErrorCode::Invalid, "/record_id")),
        ),
        (
            format!(r#"{{"event":"ats_jobs.created","record_id":"{long}"}}"#),
            Some((ItemErrorCode::Invalid, "/record_id")),
        ),
        (
            r#"{"event":"ats_jobs.hired","record_id":"1"}"#.into(),
            Some((ItemErrorCode::Invalid, "/event")),
        ),
        (
            r#"{"event":"account.created","record_id":"1"}"#.into(),
            Some((ItemErrorCode::Invalid, "/event")),
        ),
        (
            r#"{"event":"webhook.failing","record_id":"1"}"#.into(),
            Some((ItemErrorCode::Invalid, "/event")),
        ),
        (
            r#"{"event":"ats_jobs.created","record_id":"1","account_id":"acc_1"}"#.into(),
            Some((ItemErrorCode::Invalid, "/account_id")),
        ),
        (
            r#"{"event":"ats_jobs.created","record_id":"1","account_id":"acc_03030303030303030303030303030303"}"#.into(),
            Some((ItemErrorCode::Invalid, "/account_id")),
        ),
        (
            r#"{"event":"ats_jobs.created","record_id":"1","occurred_at":"yesterday"}"#.into(),
            Some((ItemErrorCode::Invalid, "/occurred_at")),
        ),
        (
            r#"{"event":"ats_jobs.created","record_id":"1","idempotency_key":""}"#.into(),
            Some((ItemErrorCode::Invalid, "/idempotency_key")),
        ),
        (
            r#"{"event":"ats_jobs.created","record_id":"1","data":{"a":"\ud83d\ude00"}}"#.into(),
            None,
        ),
        (
            r#"{"event":"ats_jobs.created","record_id":"1","data":{"a":"\ud800"}}"#.into(),
            Some((ItemErrorCode::Invalid, "/data")),
        ),
        (
            format!(r#"{{"event":"ats_jobs.created","record_id":"1","data":"{large}"}}"#),
            Some((ItemErrorCode::TooLarge, "")),
        ),
    ];
    let bodies: Vec<&str> = cases.iter().map(|(body, _)| body.as_str()).collect();
    built(1, &format!("[{}]", bodies.join(",")), |events| {
        assert_eq!(events.len(), cases.len());
        for (index, (event, (body, expected))) in events.iter().zip(&cases).enumerate() {
            let body = body.get(..100).unwrap_or(body);
            match (event, expected) {
                (Ok(_), None) => {}
                (Err(error), Some((code, field))) => {
                    assert_eq!(error.code, *code, "{body}: {error:?}");
                    assert_eq!(error.pointer, format!("/{index}{field}"), "{body}");
                }
                (event, expected) => panic!("{body}: {event:?}, expected {expected:?}"),
            }
        }
    });
}

#[test]
fn an_item_alone_is_pointed_at_without_an_index() {
    built(1, r#"{"event":"nonsense","record_id":"1"}"#, |events| {
        assert_eq!(events[0].as_ref().unwrap_err().pointer, "/event");
    });
    built(1, r#"{"event":1,"record_id":"1"}"#, |events| {
        let error = events[0].as_ref().unwrap_err();
        assert_eq!(error.detail, "invalid type: integer `1`, expected a string");
    });
}

#[test]
fn what_is_no_request_is_refused_whole() {
    let cases: [(&[u8], &str); 9] = [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"[{},]", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[]", "no event"),
        (&[b'['; 500_000], "too deep"),
        (&b"[{\"data\":".repeat(200), "too deep"),
        (
            &[b"[0".as_slice(), &b",0".repeat(1_000), b"]"].concat(),
            "more than 1000",
        ),
    ];
    for (body, expected) in cases {
        let error = parse(body).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(
        parse(&[b"[0".as_slice(), &b",0".repeat(999), b"]"].concat())
            .unwrap()
            .items
            .len(),
        1_000
    );
}

#[test]
fn an_idempotency_key_counts_within_its_project_type_and_record() {
    let id = |project, event: &str, record: &str, key: &str| {
        let body =
            format!(r#"{{"event":"{event}","record_id":"{record}","idempotency_key":"{key}"}}"#);
        built(project, &body, |events| events[0].as_ref().unwrap().id)
    };
    let base = id(1, "ats_jobs.created", "1", "k");
    assert_eq!(base, id(1, "ats_jobs.created", "1", "k"));
    for other in [
        id(2, "ats_jobs.created", "1", "k"),
        id(1, "ats_jobs.updated", "1", "k"),
        id(1, "ats_jobs.created", "2", "k"),
        id(1, "ats_jobs.created", "1", "l"),
    ] {
        assert_ne!(base, other);
    }
}

proptest! {
    #[test]
    fn no_body_panics(body in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "[\\[\\]{}\":,\\\\a-z0-9 ]{0,100}".prop_map(String::into_bytes),
        "\\{\"(event|record_id|data|x)\":[\\[\\]{}\":,\\\\a-z0-9]{0,60}\\}".prop_map(String::into_bytes),
    ]) {
        if let Ok(items) = parse(&body) {
            prop_assert!(!items.items.is_empty());
        }
    }

    #[test]
    fn data_goes_out_as_it_came(data in "(\"[^\"\\\\\\x00-\\x1f]{0,20}\"|-?[1-9][0-9]{0,30}|\\[ ?\\]|\\{ ?\\})") {
        let body = format!(r#"[{{"event":"ats_jobs.created","record_id":"1","data":{data}}}]"#);
        built(1, &body, |events| {
            let event = events[0].as_ref().unwrap();
            assert_eq!(event.event_data.as_ref().unwrap().get(), data);
        });
    }
}
