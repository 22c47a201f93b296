//! A webhook's static headers: what a caller may add to each delivery.
//!
//! Values may be credentials, so that they are shown masked. The mask sent back means "as it is",
//! so that what was read can be changed and sent.

use std::collections::BTreeMap;

use reqwest::header::{HeaderName, HeaderValue};
use serde_json::Value;
use shared::limits::{STATIC_HEADER_BYTES_MAX, STATIC_HEADERS_MAX};
use shared::problem::FieldError;

use crate::api::fields::{Change, Parsed, fault, object, pointer_to};

/// What is shown in place of a value.
pub(super) const MASK: &str = "***";

/// Ours, the connection's (RFC 9110, 7.6.1), or such as would change what the body is.
const REFUSED: [&str; 15] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-hr-on-token",
    "x-stackone-signature",
];
const REFUSED_PREFIXES: [&str; 3] = ["carillon-", "proxy-", "webhook-"];

/// By lowercase name.
pub(super) type HeadersChange = BTreeMap<String, HeaderChange>;

#[derive(Clone, PartialEq, Eq)]
pub(super) enum HeaderChange {
    Set(String),
    Remove,
    /// The mask: it stays, and must be there.
    Keep,
}

/// Without the value, which may be a credential.
impl std::fmt::Debug for HeaderChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Set(_) => "Set(…)",
            Self::Remove => "Remove",
            Self::Keep => "Keep",
        })
    }
}

/// The map of a request: a value, or null for none.
pub(super) fn headers(value: Value) -> Parsed<HeadersChange> {
    let mut changes = HeadersChange::new();
    let mut faults = Vec::new();
    for (name, value) in object(value)? {
        let parsed = header(&name, &value).and_then(|(parsed_name, change)| {
            match changes.insert(parsed_name, change) {
                None => Ok(()),
                // `X-A` and `x-a` are one header.
                Some(_) => Err("is there twice".to_owned()),
            }
        });
        if let Err(detail) = parsed {
            let pointer = pointer_to(&name);
            faults.push(FieldError { pointer, detail });
        }
    }
    if faults.is_empty() {
        Ok(changes)
    } else {
        Err(faults)
    }
}

fn header(name: &str, value: &Value) -> Result<(String, HeaderChange), String> {
    let parsed_name = HeaderName::try_from(name).map_err(|_| "is no header name")?;
    let lowercase = parsed_name.as_str();
    if REFUSED.contains(&lowercase)
        || REFUSED_PREFIXES
            .iter()
            .any(|prefix| lowercase.starts_with(prefix))
    {
        return Err("is set by Carillon or by the connection".to_owned());
    }
    let change = match value {
        Value::Null => HeaderChange::Remove,
        Value::String(text) if text == MASK => HeaderChange::Keep,
        Value::String(text) => {
            check_value(lowercase, text)?;
            HeaderChange::Set(text.clone())
        }
        _ => return Err("must be text".to_owned()),
    };
    Ok((lowercase.to_owned(), change))
}

fn check_value(name: &str, value: &str) -> Result<(), String> {
    if name.len().saturating_add(value.len()) > STATIC_HEADER_BYTES_MAX {
        return Err(format!(
            "name and value may have {STATIC_HEADER_BYTES_MAX} bytes at most"
        ));
    }
    // Refuses line breaks and all else that could end the header.
    if HeaderValue::try_from(value).is_err() || !value.is_ascii() {
        return Err("must be visible ASCII, spaces and tabs".to_owned());
    }
    // RFC 9110, 5.5: such space is no part of a value, so the receiver would see another one.
    if value.trim() != value {
        return Err("must not begin or end with white space".to_owned());
    }
    Ok(())
}

/// The headers after the change, in the order of their names.
pub(super) fn changed(
    current: &[(String, String)],
    change: &Change<HeadersChange>,
) -> Parsed<Vec<(String, String)>> {
    let changes = match change {
        Change::Keep => return Ok(current.to_vec()),
        Change::Clear => return Ok(Vec::new()),
        Change::Set(changes) => changes,
    };
    let mut headers: BTreeMap<_, _> = current.iter().cloned().collect();
    for (name, change) in changes {
        match change {
            HeaderChange::Set(value) => {
                headers.insert(name.clone(), value.clone());
            }
            HeaderChange::Remove => {
                headers.remove(name);
            }
            HeaderChange::Keep if headers.contains_key(name) => {}
            HeaderChange::Keep => {
                let detail = format!("{MASK} stands for a value that is there, and there is none");
                let pointer = pointer_to(name);
                return Err(vec![FieldError { pointer, detail }]);
            }
        }
    }
    if headers.len() > STATIC_HEADERS_MAX {
        return fault(format!("may be {STATIC_HEADERS_MAX} at most"));
    }
    Ok(headers.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The headers after a PATCH with `value`, or the pointers of its faults.
    fn after(current: &[(&str, &str)], value: Value) -> Result<Vec<(String, String)>, Vec<String>> {
        let current: Vec<_> = current
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect();
        headers(value)
            .and_then(|changes| changed(&current, &Change::Set(changes)))
            .map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect())
    }

    fn pairs(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        headers
            .iter()
            .map(|(n, v)| ((*n).into(), (*v).into()))
            .collect()
    }

    #[test]
    fn headers_are_merged_by_name_in_any_case() {
        let current = [("authorization", "Bearer t"), ("x-env", "prod")];
        let patch = json!({"Authorization": "***", "X-Env": null, "X-Team": "a, b\tc"});
        assert_eq!(
            after(&current, patch),
            Ok(pairs(&[
                ("authorization", "Bearer t"),
                ("x-team", "a, b\tc")
            ]))
        );
        assert_eq!(after(&current, json!({})), Ok(pairs(&current)));
        let current = pairs(&current);
        assert_eq!(changed(&current, &Change::Keep), Ok(current.clone()));
        assert_eq!(changed(&current, &Change::Clear), Ok(Vec::new()));
    }

    #[test]
    fn ours_and_the_connections_are_refused_in_any_case() {
        for name in REFUSED {
            for name in [name.to_owned(), name.to_uppercase()] {
                assert_eq!(
                    after(&[], json!({ (name.clone()): "x" })),
                    Err(vec![pointer_to(&name)])
                );
            }
        }
        for name in ["Webhook-Id", "carillon-replay", "Proxy-Authorization"] {
            assert_eq!(
                after(&[], json!({ name: "x" })),
                Err(vec![pointer_to(name)])
            );
        }
        for name in ["authorization", "cookie", "x-webhook-id", "accept"] {
            assert!(after(&[], json!({ name: "x" })).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_could_not_be_sent_as_it_is_is_refused() {
        for (name, value) in [
            ("x a", json!("x")),
            ("", json!("x")),
            ("x:", json!("x")),
            ("x-ä", json!("x")),
            ("x-a", json!("a\r\nx-b: c")),
            ("x-a", json!("a\nb")),
            ("x-a", json!("a\0b")),
            ("x-a", json!("ä")),
            ("x-a", json!(" a")),
            ("x-a", json!("a\t")),
            ("x-a", json!(1)),
            ("x-a", json!(MASK)),
            ("x-a", json!("a".repeat(STATIC_HEADER_BYTES_MAX))),
        ] {
            assert_eq!(
                after(&[], json!({ name: value })),
                Err(vec![pointer_to(name)]),
                "{name}"
            );
        }
        assert_eq!(
            after(&[], json!({"x-a": "1", "X-A": "2"})),
            Err(vec!["/x-a".to_owned()])
        );
        let many = |count| {
            (0..count)
                .map(|n| (format!("x-{n}"), json!("v")))
                .collect::<Value>()
        };
        assert!(after(&[], many(STATIC_HEADERS_MAX)).is_ok());
        assert_eq!(
            after(&[], many(STATIC_HEADERS_MAX + 1)),
            Err(vec![String::new()])
        );
    }
}
