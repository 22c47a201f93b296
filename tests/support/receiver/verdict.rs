//! Both signatures of a delivery, checked by code that is not ours or of no use to the services.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use standardwebhooks::Webhook;

/// What came of checking a delivery; an error says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The webhook's secret is not known yet.
    Unknown,
    Checked {
        standard_webhooks: Result<(), String>,
        stackone: Result<(), String>,
    },
}

/// A check of headers and body by one secret.
type Check = fn(&str, &BTreeMap<String, String>, &[u8]) -> Result<(), String>;

impl Verdict {
    /// Any of the secrets will do, as while they are rotated.
    pub fn of(secrets: &[String], headers: &BTreeMap<String, String>, body: &[u8]) -> Self {
        let Some((first, others)) = secrets.split_first() else {
            return Self::Unknown;
        };
        let check = |by: Check| {
            others
                .iter()
                .fold(by(first, headers, body), |verdict, secret| {
                    verdict.or_else(|_| by(secret, headers, body))
                })
        };
        Self::Checked {
            standard_webhooks: check(standard_webhooks),
            stackone: check(stackone),
        }
    }

    pub fn verified(&self) -> bool {
        matches!(
            self,
            Self::Checked {
                standard_webhooks: Ok(()),
                stackone: Ok(())
            }
        )
    }
}

/// By the official crate, which also refuses a time more than 5 minutes off.
fn standard_webhooks(
    secret: &str,
    headers: &BTreeMap<String, String>,
    body: &[u8],
) -> Result<(), String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
        let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
        map.insert(name, value);
    }
    Webhook::new(secret)
        .and_then(|webhook| webhook.verify(body, &map))
        .map_err(|error| error.to_string())
}

/// Unpadded base64url of an HMAC-SHA256 of the body, keyed with the whole text of the secret.
fn stackone(secret: &str, headers: &BTreeMap<String, String>, body: &[u8]) -> Result<(), String> {
    let given = headers
        .get("x-stackone-signature")
        .ok_or("no x-stackone-signature")?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|error| error.to_string())?;
    mac.update(body);
    let expected = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    if *given == expected {
        Ok(())
    } else {
        Err(format!(
            "x-stackone-signature is {given}, expected {expected}"
        ))
    }
}
