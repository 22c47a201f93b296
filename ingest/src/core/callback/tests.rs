use proptest::prelude::*;
use shared::connector::Connectors;
use shared::domain::account::{AccountDefinition, AccountSecrets};
use shared::ids::{AccountId, EventId, ProjectId, Sequence};

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_750_158_000_123);
const ROOMY: usize = 1 << 20;

fn account(provider: &str, signing_secret: Option<&str>) -> Account {
    Account {
        id: AccountId::from_bytes([2; 16]),
        project: ProjectId::from_bytes([1; 16]),
        definition: AccountDefinition {
            provider: provider.into(),
            name: None,
            origin_owner_id: "customer-1".into(),
            origin_owner_name: None,
            origin_username: None,
            sealed_secrets: Vec::new(),
        },
        secrets: AccountSecrets {
            ingest_key: Secret::new("key"),
            signing_secret: signing_secret.map(Secret::new),
            signing_secret_generated: false,
            credentials: None,
            settings: None,
        },
        created_at: NOW,
        updated_at: NOW,
        sequence: Sequence(1),
    }
}

fn callback(body: &[u8]) -> Callback<'_> {
    Callback {
        method: "POST",
        query: "",
        headers: &[],
        body,
    }
}

/// Runs `check` on the judgement of `body`, with random ids that count up from 1.
fn judged<R>(
    connector: &Connector,
    body: &[u8],
    max_payload: usize,
    check: impl FnOnce(Judgement) -> R,
) -> R {
    let account = Arc::new(account(connector.provider(), None));
    let mut count = 0_u8;
    let mut random = || {
        count = count.wrapping_add(1);
        [count; 10]
    };
    check(judge(
        &account,
        connector,
        &callback(body),
        NOW,
        max_payload,
        &mut random,
    ))
}

fn ids(judgement: &Judgement) -> Vec<EventId> {
    match &judgement.verdict {
        Verdict::Accept(events) => events.iter().map(|event| event.id).collect(),
        Verdict::Unmapped | Verdict::Refuse(_) => Vec::new(),
    }
}

const TWO_CHANGES: &str = r#" {"employees":[
    {"id":"5","action":"Updated","timestamp":"2025-06-17T10:00:00Z","fields":{"First name":"Tefi"}},
    {"id":"5","action":"Updated","timestamp":"2025-06-17T10:00:00Z","fields":{"First name":"Tefi"}},
    {"id":"6","action":"Deleted"}]} "#;

#[test]
fn a_callback_becomes_events_that_carry_it_whole() {
    let connectors = Connectors::embedded().unwrap();
    let bamboohr = connectors.get("bamboohr").unwrap();
    judged(bamboohr, TWO_CHANGES.as_bytes(), ROOMY, |judgement| {
        let Verdict::Accept(events) = &judgement.verdict else {
            panic!("{judgement:?}");
        };
        let [first, second, third] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert_eq!(first.event_type.as_str(), "hris_employees.updated");
        assert_eq!(first.source, Source::NativeProgrammatic);
        assert_eq!(first.occurred_at, Timestamp::from_millis(1_750_154_400_000));
        assert_eq!(first.published_at, NOW);
        assert_eq!(
            first.raw_event.as_deref().map(RawValue::get),
            Some(TWO_CHANGES.trim())
        );
        assert_eq!(first.lane(), second.lane());
        assert_ne!(first.id, second.id, "two changes, even if they look alike");
        assert_eq!(third.event_type.as_str(), "hris_employees.deleted");
        assert_eq!(third.occurred_at, NOW);
        assert_eq!(third.id.uuid().get_version_num(), 7, "nothing names it");
    });
}

#[test]
fn a_repeated_callback_gets_the_same_ids() {
    let connectors = Connectors::embedded().unwrap();
    let bamboohr = connectors.get("bamboohr").unwrap();
    let first = judged(bamboohr, TWO_CHANGES.as_bytes(), ROOMY, |judgement| {
        ids(&judgement)
    });
    let again = judged(bamboohr, TWO_CHANGES.as_bytes(), ROOMY, |judgement| {
        ids(&judgement)
    });
    assert_eq!(first.len(), 3);
    assert_eq!(first, again);
}

#[test]
fn what_means_nothing_is_told_from_what_is_broken() {
    let connectors = Connectors::embedded().unwrap();
    let bamboohr = connectors.get("bamboohr").unwrap();
    let deep = "[".repeat(100_000);
    let items = |count: usize, padding: usize| {
        let items = vec![r#"{"id":"5"}"#; count].join(",");
        format!(r#"{{"employees":[{items}]}}{}"#, " ".repeat(padding))
    };
    let sixteen = items(16, (1 << 20) - items(16, 0).len());
    for (body, expected) in [
        ("{}", "unmapped"),
        (r#"{"type":"something.else"}"#, "unmapped"),
        ("", "malformed"),
        ("no json", "malformed"),
        (deep.as_str(), "malformed"),
        (r#"{"employees":[{"id":null}]}"#, "malformed"),
        (TWO_CHANGES, "accept"),
        (items(1_000, 0).as_str(), "accept"),
        (items(1_001, 0).as_str(), "too much"),
        (items(1_000, 6_000).as_str(), "accept without raw_event"),
        (sixteen.as_str(), "accept"),
        (items(17, 1_000_000).as_str(), "accept without raw_event"),
    ] {
        let verdict = judged(
            bamboohr,
            body.as_bytes(),
            2 * ROOMY,
            |judgement| match judgement.verdict {
                Verdict::Accept(events) if events.iter().all(|event| event.raw_event.is_none()) => {
                    "accept without raw_event"
                }
                Verdict::Accept(_) => "accept",
                Verdict::Unmapped => "unmapped",
                Verdict::Refuse(MapRefusal::Malformed(_)) => "malformed",
                Verdict::Refuse(MapRefusal::TooLarge) => "too large",
                Verdict::Refuse(MapRefusal::TooMuch(_)) => "too much",
            },
        );
        assert_eq!(verdict, expected, "{}", body.get(..40).unwrap_or(body));
    }
}

#[test]
fn too_large_an_event_goes_without_its_data_or_not_at_all() {
    let connectors = Connectors::embedded().unwrap();
    let bamboohr = connectors.get("bamboohr").unwrap();
    let name = "n".repeat(10_000);
    let body = format!(
        r#"{{"employees":[{{"id":"5","timestamp":"2025-06-17T10:00:00Z","fields":{{"First name":"{name}"}}}}]}}"#
    );
    for (max_payload, expected) in [(40_000, Some(true)), (15_000, Some(false)), (9_000, None)] {
        let has_data = judged(
            bamboohr,
            body.as_bytes(),
            max_payload,
            |judgement| match judgement.verdict {
                Verdict::Accept(events) => events.first().map(|one| one.event_data.is_some()),
                Verdict::Unmapped | Verdict::Refuse(_) => None,
            },
        );
        assert_eq!(has_data, expected, "{max_payload}");
    }
}

/// Connectors are checked against the catalog when they are loaded; what passes nevertheless must
/// not cost the callback's other events.
#[test]
fn a_type_outside_the_catalog_costs_only_its_own_event() {
    let account = Arc::new(account("acme", None));
    let frame = Frame {
        account: &account,
        source: Source::NativeManual,
        raw_event: None,
        now: NOW,
        max_payload: ROOMY,
    };
    let accepted = |names: &[&str]| {
        let mapped = names.iter().map(|name| MappedEvent {
            event: (*name).into(),
            record_id: "1".into(),
            occurred_at: None,
            dedup: None,
            event_data: None,
        });
        let mut random = || [1; 10];
        let ids = MessageIds::new(account.project, "acme", NOW, &mut random);
        let mut unknown = Vec::new();
        let verdict = accept(&frame, ids, mapped.collect(), &mut unknown);
        (verdict, unknown)
    };
    let names = [
        "acme_things.created",
        "account.created",
        "hris_employees.created",
    ];
    let (verdict, unknown) = accepted(&names);
    assert_eq!(unknown, names[..2]);
    let Verdict::Accept(events) = verdict else {
        panic!("one event is known");
    };
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].source, Source::NativeManual);
    let (verdict, _) = accepted(&names[1..2]);
    assert!(matches!(verdict, Verdict::Unmapped));
}

#[test]
fn a_missing_secret_is_not_the_senders_fault() {
    let connectors = Connectors::embedded().unwrap();
    let greenhouse = connectors.get("greenhouse").unwrap();
    let check = |secret| {
        let account = account("greenhouse", secret);
        verify(&account, greenhouse, &callback(b"{}"), NOW)
    };
    assert!(matches!(check(None), Err(VerifyRefusal::Unverifiable(_))));
    assert!(matches!(
        check(Some("s")),
        Err(VerifyRefusal::BadSignature(_))
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_body_panics_and_equal_bodies_have_equal_ids(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "\\{\"(employees|type|action|payload)\":[\\[\\]{}\":,a-z0-9]{0,80}\\}"
                .prop_map(String::into_bytes),
            prop::collection::vec((0..4_u8, 0..3_u8), 0..20).prop_map(|items| {
                let items: Vec<String> = items.iter().map(|(id, at)| format!(
                    r#"{{"id":"{id}","timestamp":"2025-06-17T10:00:0{at}Z"}}"#)).collect();
                format!(r#"{{"employees":[{}]}}"#, items.join(",")).into_bytes()
            }),
        ]
    ) {
        let connectors = Connectors::embedded().unwrap();
        for connector in connectors.iter() {
            let first = judged(connector, &body, ROOMY, |judgement| ids(&judgement));
            let again = judged(connector, &body, ROOMY, |judgement| ids(&judgement));
            prop_assert_eq!(&first, &again);
            let different: std::collections::BTreeSet<_> = first.iter().collect();
            prop_assert_eq!(different.len(), first.len());
        }
    }
}
