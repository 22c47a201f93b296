//! From a provider's callback to events.
//!
//! Invariant: the same callback of the same account gives the same events under the same ids,
//! those aside whose source gives nothing to tell a repeat by.

use std::borrow::Cow;

use serde_json::value::RawValue;
use shared::connector::{Callback, Connector, MapError, MappedEvent, SigningSecretSource};
use shared::domain::account::Account;
use shared::domain::catalog;
use shared::domain::event::{EventType, Source};
use shared::secret::Secret;
use shared::time::Timestamp;
use shared::verify::VerifyError;

use super::message_id::{MessageIds, NewRandom};
use super::render::{Fit, UnrenderedEvent};

/// Why a callback is not the provider's, as far as we can tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyRefusal {
    #[error("{0}")]
    BadSignature(VerifyError),
    /// Ours or our customer's to repair: there is no usable secret to check it with.
    #[error("{0}")]
    Unverifiable(VerifyError),
}

/// What a callback that is the provider's comes to.
#[derive(Debug)]
pub(crate) enum Verdict<'a> {
    /// At least one event.
    Accept(Vec<UnrenderedEvent<'a>>),
    /// Nothing that any event stands for.
    Unmapped,
    Refuse(MapRefusal),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MapRefusal {
    Malformed(MapError),
    TooLarge,
}

/// A verdict, and what it passed over.
#[derive(Debug)]
pub(crate) struct Judgement<'a> {
    pub(crate) verdict: Verdict<'a>,
    /// Names that the connector emits although the catalog has no such type: the connector's
    /// mistake, which must not cost the callback's other events.
    pub(crate) unknown_events: Vec<String>,
}

/// To be asked before [`judge`].
pub(crate) fn verify(
    account: &Account,
    connector: &Connector,
    callback: &Callback<'_>,
    now: Timestamp,
) -> Result<(), VerifyRefusal> {
    let secret = account.secrets.signing_secret.as_ref().map(Secret::reveal);
    connector
        .verify(callback, secret, now)
        .map_err(|error| match error {
            VerifyError::NoSecret | VerifyError::UnusableSecret => {
                VerifyRefusal::Unverifiable(error)
            }
            VerifyError::MissingHeader(_)
            | VerifyError::RepeatedHeader(_)
            | VerifyError::MalformedHeader(_)
            | VerifyError::Mismatch
            | VerifyError::OutsideWindow => VerifyRefusal::BadSignature(error),
        })
}

/// What a verified callback comes to. `max_payload` is the server's: an event that exceeds it
/// goes without its data, and if one is still too large the whole callback is refused, since its
/// sender can do nothing with half an answer.
pub(crate) fn judge<'a>(
    account: &'a Account,
    connector: &'a Connector,
    callback: &Callback<'a>,
    now: Timestamp,
    max_payload: usize,
    new_random: NewRandom<'_>,
) -> Judgement<'a> {
    let mut unknown_events = Vec::new();
    let verdict = match connector.map(callback) {
        Ok(mapped) => {
            let ids = MessageIds::new(account.project, connector.provider(), now, new_random);
            let frame = Frame {
                account,
                source: source(connector),
                raw_event: serde_json::from_slice(callback.body).ok(),
                now,
                max_payload,
            };
            accept(&frame, ids, mapped, &mut unknown_events)
        }
        Err(MapError::TooLarge | MapError::TooMuch) => Verdict::Refuse(MapRefusal::TooLarge),
        Err(
            error @ (MapError::NotJson
            | MapError::Failed
            | MapError::RecordId { .. }
            | MapError::InvalidOutput(_)),
        ) => Verdict::Refuse(MapRefusal::Malformed(error)),
    };
    Judgement {
        verdict,
        unknown_events,
    }
}

/// What the events of one callback share.
struct Frame<'a> {
    account: &'a Account,
    source: Source,
    /// The body as it arrived, white space around it aside. `None` only if it is no JSON, and
    /// then the connector has mapped it to nothing.
    raw_event: Option<&'a RawValue>,
    now: Timestamp,
    max_payload: usize,
}

fn accept<'a>(
    frame: &Frame<'a>,
    mut ids: MessageIds<'_>,
    mapped: Vec<MappedEvent>,
    unknown_events: &mut Vec<String>,
) -> Verdict<'a> {
    let mut events = Vec::with_capacity(mapped.len());
    for one in mapped {
        // A provider can no more speak for the platform than for a type that does not exist.
        let known = catalog::resolve(&one.event).filter(|known| !catalog::is_reserved(known));
        let Some(event_type) = known else {
            unknown_events.push(one.event);
            continue;
        };
        let mut event = frame.event(&mut ids, event_type, one);
        match event.fit(frame.max_payload) {
            Fit::Whole => {}
            Fit::WithoutData => event.event_data = None,
            Fit::TooLarge => return Verdict::Refuse(MapRefusal::TooLarge),
        }
        events.push(event);
    }
    if events.is_empty() {
        Verdict::Unmapped
    } else {
        Verdict::Accept(events)
    }
}

impl<'a> Frame<'a> {
    fn event(
        &self,
        ids: &mut MessageIds<'_>,
        event_type: EventType,
        mapped: MappedEvent,
    ) -> UnrenderedEvent<'a> {
        let account = self.account;
        UnrenderedEvent {
            id: ids.distinct(
                mapped.dedup.as_deref(),
                Some(account.id),
                &event_type,
                &mapped.record_id,
            ),
            project: account.project,
            event_type,
            source: self.source,
            account: Some((account.id, &account.definition)),
            record_id: Cow::Owned(mapped.record_id),
            occurred_at: mapped.occurred_at.unwrap_or(self.now),
            published_at: self.now,
            raw_event: self.raw_event,
            event_data: mapped.event_data.map(Cow::Owned),
        }
    }
}

/// A secret of our making is typed in by a person, who then makes the subscription too; one that
/// the provider gives comes back from a subscription made by program.
fn source(connector: &Connector) -> Source {
    match connector.signing_secret() {
        SigningSecretSource::Generated => Source::NativeManual,
        SigningSecretSource::Given => Source::NativeProgrammatic,
    }
}

#[cfg(test)]
mod tests {
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
        check: impl FnOnce(Judgement<'_>) -> R,
    ) -> R {
        let account = account(connector.provider(), None);
        let mut count = 0;
        let mut random = || {
            count += 1;
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

    fn ids(judgement: &Judgement<'_>) -> Vec<EventId> {
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
            assert_eq!(first.raw_event.map(RawValue::get), Some(TWO_CHANGES.trim()));
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
        for (body, expected) in [
            ("{}", "unmapped"),
            (r#"{"type":"something.else"}"#, "unmapped"),
            ("", "malformed"),
            ("no json", "malformed"),
            (deep.as_str(), "malformed"),
            (r#"{"employees":[{"id":null}]}"#, "malformed"),
            (TWO_CHANGES, "accept"),
        ] {
            let verdict = judged(
                bamboohr,
                body.as_bytes(),
                ROOMY,
                |judgement| match judgement.verdict {
                    Verdict::Accept(_) => "accept",
                    Verdict::Unmapped => "unmapped",
                    Verdict::Refuse(MapRefusal::Malformed(_)) => "malformed",
                    Verdict::Refuse(MapRefusal::TooLarge) => "too large",
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
        for (max_payload, expected) in [(40_000, Some(true)), (15_000, Some(false)), (9_000, None)]
        {
            let has_data =
                judged(
                    bamboohr,
                    body.as_bytes(),
                    max_payload,
                    |judgement| match judgement.verdict {
                        Verdict::Accept(events) => {
                            events.first().map(|one| one.event_data.is_some())
                        }
                        Verdict::Unmapped | Verdict::Refuse(_) => None,
                    },
                );
            assert_eq!(has_data, expected, "{max_payload}");
        }
    }

    #[test]
    fn a_type_outside_the_catalog_costs_only_its_own_event() {
        let connector = Connector::parse(
            "acme",
            r#"
            provider = "acme"
            name = "Acme"
            signing_secret = "generated"
            events = ["acme_things.created", "account.created", "hris_employees.created"]
            [verification.hmac]
            algorithm = "sha256"
            message = ["body"]
            signature = { header = "signature", encoding = "hex" }
            [mapping]
            program = '.body[] | {event: ., record_id: "1"}'
            "#,
        )
        .unwrap();
        let body = br#"["acme_things.created", "account.created", "hris_employees.created"]"#;
        judged(&connector, body, ROOMY, |judgement| {
            assert_eq!(
                judgement.unknown_events,
                ["acme_things.created", "account.created"]
            );
            let Verdict::Accept(events) = judgement.verdict else {
                panic!("one event is known");
            };
            assert_eq!(events.len(), 1);
            assert_eq!(
                events.first().map(|one| one.source),
                Some(Source::NativeManual)
            );
        });
        judged(&connector, br#"["account.created"]"#, ROOMY, |judgement| {
            assert!(matches!(judgement.verdict, Verdict::Unmapped));
        });
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
}
