//! The sealed part of an account: what a request changes of it.
//!
//! `signing_secret` is taken out of `credentials` and stored apart, because ingest needs it alone.
//! Where the connector has us make one, there always is one: clearing a given one makes a new one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use shared::connector::SigningSecretSource;
use shared::domain::account::AccountSecrets;
use shared::limits::ACCOUNT_JSON_BYTES_MAX;
use shared::problem::Problem;
use shared::secret::Secret;

use crate::api::error::ApiError;
use crate::api::fields::{Change, Parsed, fault, fault_at, line, object};

/// A key in PEM fits; providers' secrets are far shorter.
const SIGNING_SECRET_BYTES_MAX: usize = 4 << 10;
/// Shorter ones can be guessed, and no provider gives them.
const SIGNING_SECRET_BYTES_MIN: usize = 8;
const SIGNING_SECRET: &str = "signing_secret";

/// `credentials` as a request gives them.
#[derive(Clone)]
pub(super) struct Credentials {
    signing_secret: Change<Secret>,
    rest: Map<String, Value>,
}

/// What a request changes; objects are merged as RFC 7396 says.
#[derive(Clone)]
pub(super) struct SecretsChange {
    pub(super) credentials: Change<Credentials>,
    pub(super) settings: Change<Map<String, Value>>,
}

/// Randomness for what is made here.
pub(super) struct Randomness {
    pub(super) ingest_key: [u8; 32],
    pub(super) signing_secret: [u8; 32],
}

pub(super) fn credentials(value: Value) -> Parsed<Credentials> {
    let mut rest = object(value)?;
    let signing_secret = match rest.remove(SIGNING_SECRET) {
        None => Change::Keep,
        Some(Value::Null) => Change::Clear,
        Some(value) => match line(SIGNING_SECRET_BYTES_MAX)(value).and_then(long_enough) {
            Ok(text) => Change::Set(Secret::new(text)),
            Err(faults) => {
                let detail = faults.into_iter().next().map(|fault| fault.detail);
                return fault_at(format!("/{SIGNING_SECRET}"), detail.unwrap_or_default());
            }
        },
    };
    Ok(Credentials {
        signing_secret,
        rest,
    })
}

fn long_enough(secret: String) -> Parsed<String> {
    // Blanks around it come of copying, and are no part of its strength.
    if secret.trim().len() < SIGNING_SECRET_BYTES_MIN {
        return fault(format!("must be at least {SIGNING_SECRET_BYTES_MIN} bytes"));
    }
    Ok(secret)
}

impl SecretsChange {
    pub(super) fn is_keep(&self) -> bool {
        self.credentials.is_keep() && self.settings.is_keep()
    }

    /// The secrets of a new account, or those after the change.
    pub(super) fn apply(
        &self,
        current: Option<&AccountSecrets>,
        source: SigningSecretSource,
        random: &Randomness,
    ) -> Result<AccountSecrets, ApiError> {
        let generate = || Secret::new(URL_SAFE_NO_PAD.encode(random.signing_secret));
        let given = current.filter(|secrets| !secrets.signing_secret_generated);
        let given = given.and_then(|secrets| secrets.signing_secret.as_ref());
        let given = match &self.credentials {
            Change::Keep => given.cloned(),
            Change::Clear => None,
            Change::Set(credentials) => credentials.signing_secret.apply(given),
        };
        let generated = current.filter(|secrets| secrets.signing_secret_generated);
        let generated = generated.and_then(|secrets| secrets.signing_secret.clone());
        let (signing_secret, signing_secret_generated) = match (given, source) {
            (Some(given), _) => (Some(given), false),
            (None, SigningSecretSource::Generated) => {
                (Some(generated.unwrap_or_else(generate)), true)
            }
            (None, SigningSecretSource::Given) => (None, false),
        };
        let rest = match &self.credentials {
            Change::Keep => Change::Keep,
            Change::Clear => Change::Clear,
            Change::Set(credentials) => Change::Set(credentials.rest.clone()),
        };
        let old = |field: fn(&AccountSecrets) -> Option<&RawValue>| current.and_then(field);
        let (old_credentials, old_settings) = (
            old(|old| old.credentials.as_deref()),
            old(|old| old.settings.as_deref()),
        );
        let credentials = merged(old_credentials, &rest)?;
        let settings = merged(old_settings, &self.settings)?;
        self.check_size(credentials.as_deref(), settings.as_deref())?;
        Ok(AccountSecrets {
            ingest_key: match current {
                Some(secrets) => secrets.ingest_key.clone(),
                None => Secret::new(URL_SAFE_NO_PAD.encode(random.ingest_key)),
            },
            signing_secret,
            signing_secret_generated,
            credentials,
            settings,
        })
    }

    /// 422 when what is kept of the account would be too large. Blames what the request changed.
    fn check_size(
        &self,
        credentials: Option<&RawValue>,
        settings: Option<&RawValue>,
    ) -> Result<(), ApiError> {
        let bytes = |json: Option<&RawValue>| json.map_or(0, |json| json.get().len());
        let (credentials, settings) = (bytes(credentials), bytes(settings));
        if credentials.saturating_add(settings) <= ACCOUNT_JSON_BYTES_MAX {
            return Ok(());
        }
        let pointer = if self.settings.is_keep() || credentials > ACCOUNT_JSON_BYTES_MAX {
            "/credentials"
        } else {
            "/settings"
        };
        let detail = format!(
            "credentials and settings may have {ACCOUNT_JSON_BYTES_MAX} bytes of JSON together"
        );
        Err(ApiError::Refused(Problem::invalid_field(pointer, detail)))
    }
}

/// The object after the change, as it is stored.
fn merged(
    current: Option<&RawValue>,
    change: &Change<Map<String, Value>>,
) -> Result<Option<Box<RawValue>>, ApiError> {
    let change = match change {
        Change::Keep => return Ok(current.map(ToOwned::to_owned)),
        Change::Clear => return Ok(None),
        Change::Set(change) => change,
    };
    let mut members: Map<String, Value> = match current {
        Some(current) => serde_json::from_str(current.get()).map_err(ApiError::internal)?,
        None => Map::new(),
    };
    merge(&mut members, change);
    to_raw_value(&members).map(Some).map_err(ApiError::internal)
}

/// RFC 7396. The recursion is as deep as the request, which the parser bounds at 128.
fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(patch) => {
                let member = target.entry(name).or_insert(Value::Null);
                if !member.is_object() {
                    *member = Value::Object(Map::new());
                }
                if let Value::Object(member) = member {
                    merge(member, patch);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::SigningSecretSource::{Generated, Given};
    use super::*;

    fn change(body: &Value) -> SecretsChange {
        let field = |name: &str| match body.get(name) {
            None => Change::Keep,
            Some(Value::Null) => Change::Clear,
            Some(value) => Change::Set(value.clone()),
        };
        SecretsChange {
            credentials: match field("credentials") {
                Change::Set(value) => Change::Set(credentials(value).ok().unwrap()),
                Change::Keep => Change::Keep,
                Change::Clear => Change::Clear,
            },
            settings: match field("settings") {
                Change::Set(value) => Change::Set(object(value).unwrap()),
                Change::Keep => Change::Keep,
                Change::Clear => Change::Clear,
            },
        }
    }

    /// The secrets after these bodies, each drawing other random bytes.
    fn after(source: SigningSecretSource, bodies: &[Value]) -> AccountSecrets {
        let mut secrets: Option<AccountSecrets> = None;
        for (n, body) in (1..).zip(bodies) {
            let random = Randomness {
                ingest_key: [n; 32],
                signing_secret: [100 + n; 32],
            };
            secrets = Some(
                change(body)
                    .apply(secrets.as_ref(), source, &random)
                    .unwrap(),
            );
        }
        secrets.unwrap()
    }

    fn generated(n: u8) -> String {
        URL_SAFE_NO_PAD.encode([100 + n; 32])
    }

    #[test]
    fn there_is_a_signing_secret_wherever_we_are_the_ones_to_make_it() {
        let given = json!({"credentials": {"signing_secret": "given-one"}});
        let cleared = json!({"credentials": {"signing_secret": null}});
        let all_cleared = json!({"credentials": null});
        let other = json!({"credentials": {"token": "x"}});
        let cases = [
            (Given, vec![json!({})], None, false),
            (
                Given,
                vec![given.clone()],
                Some("given-one".to_owned()),
                false,
            ),
            (
                Given,
                vec![json!({}), given.clone()],
                Some("given-one".to_owned()),
                false,
            ),
            (
                Given,
                vec![given.clone(), other.clone()],
                Some("given-one".to_owned()),
                false,
            ),
            (Given, vec![given.clone(), cleared.clone()], None, false),
            (Given, vec![given.clone(), all_cleared.clone()], None, false),
            (Generated, vec![json!({})], Some(generated(1)), true),
            (Generated, vec![json!({}), other], Some(generated(1)), true),
            (
                Generated,
                vec![json!({}), cleared.clone()],
                Some(generated(1)),
                true,
            ),
            (
                Generated,
                vec![json!({}), all_cleared],
                Some(generated(1)),
                true,
            ),
            (
                Generated,
                vec![json!({}), given.clone()],
                Some("given-one".to_owned()),
                false,
            ),
            (Generated, vec![given, cleared], Some(generated(2)), true),
        ];
        for (source, bodies, secret, is_generated) in cases {
            let secrets = after(source, &bodies);
            let now = secrets.signing_secret.as_ref().map(Secret::reveal);
            assert_eq!(now, secret.as_deref(), "{source:?} {bodies:?}");
            assert_eq!(secrets.signing_secret_generated, is_generated, "{bodies:?}");
            assert_eq!(secrets.ingest_key.reveal(), URL_SAFE_NO_PAD.encode([1; 32]));
        }
    }

    #[test]
    fn objects_are_merged_and_the_signing_secret_stands_apart() {
        let created = json!({
            "credentials": {"token": "t", "signing_secret": "sign-with-me", "login": {"user": "u"}},
            "settings": {"region": "eu", "list": [1, 2]},
        });
        let patched = json!({
            "credentials": {"token": null, "login": {"password": "p", "user": null}},
            "settings": {"list": [3], "region": {"name": "us"}},
        });
        let secrets = after(Given, &[created.clone(), patched]);
        assert_eq!(
            secrets.credentials.unwrap().get(),
            r#"{"login":{"password":"p"}}"#
        );
        assert_eq!(
            secrets.settings.unwrap().get(),
            r#"{"list":[3],"region":{"name":"us"}}"#
        );
        let cleared = json!({"credentials": null, "settings": null});
        let secrets = after(Given, &[created, cleared]);
        assert!(secrets.credentials.is_none() && secrets.settings.is_none());
    }

    #[test]
    fn what_is_no_credential_is_refused_with_its_place() {
        for (value, pointer) in [
            (json!([]), ""),
            (json!({"signing_secret": 1}), "/signing_secret"),
            (json!({"signing_secret": ""}), "/signing_secret"),
            (json!({"signing_secret": "1234567"}), "/signing_secret"),
            (json!({"signing_secret": "          "}), "/signing_secret"),
            (json!({"signing_secret": " 1234567 "}), "/signing_secret"),
        ] {
            let faults = credentials(value).err().unwrap();
            assert_eq!(faults[0].pointer, pointer);
        }
        assert!(credentials(json!({"signing_secret": "12345678"})).is_ok());
    }

    #[test]
    fn what_is_kept_of_an_account_is_bounded_in_all() {
        let text = |bytes: usize| "a".repeat(bytes);
        let all = ACCOUNT_JSON_BYTES_MAX;
        let random = Randomness {
            ingest_key: [0; 32],
            signing_secret: [0; 32],
        };
        for (body, pointer) in [
            (json!({"settings": {"a": text(all - 10)}}), None),
            (json!({"settings": {"a": text(all)}}), Some("/settings")),
            (
                json!({"credentials": {"a": text(all)}}),
                Some("/credentials"),
            ),
            (
                json!({"credentials": {"a": text(all / 2)}, "settings": {"a": text(all / 2)}}),
                Some("/settings"),
            ),
        ] {
            let refused = match change(&body).apply(None, Given, &random) {
                Ok(_) => None,
                Err(ApiError::Refused(problem)) => Some(problem.errors[0].pointer.clone()),
                Err(other) => panic!("{other}"),
            };
            assert_eq!(refused.as_deref(), pointer);
        }
    }
}
