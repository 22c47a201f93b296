//! Providers' inbound signature schemes, as a connector states them.
//!
//! Invariants: nothing here parses the body, which is signed as it arrived (Greenhouse escapes
//! characters before it signs, so re-serialised JSON would not verify); whatever is derived from
//! the secret is compared in constant time; a header that is part of a scheme and arrives twice is
//! refused, since two readers could pick different ones. Deliberately absent: "no verification",
//! which no present connector needs, SHA-1, which only superseded schemes use, and signatures that
//! do not cover the body.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};
use subtle::ConstantTimeEq as _;

use crate::time::Timestamp;

/// How a provider proves that a callback is its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// A keyed hash over the body and more, in a header.
    Hmac(HmacScheme),
    /// A header that holds the secret itself.
    Token(TokenScheme),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HmacScheme {
    pub algorithm: Algorithm,
    /// How the text of the secret becomes the key.
    #[serde(default)]
    pub key: KeyDecoding,
    /// What is signed, concatenated without separators.
    pub message: Vec<Part>,
    pub signature: SignatureForm,
    /// Absent: no replay window.
    pub timestamp: Option<TimestampWindow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TokenScheme {
    pub header: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    Sha256,
    Sha512,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyDecoding {
    /// The bytes of the text.
    #[default]
    Utf8,
    Hex,
    /// Standard alphabet, padded or not.
    Base64,
}

/// A piece of the signed message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The body's bytes as they arrived.
    Body,
    /// A header's value as it arrived.
    Header(String),
    Literal(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureForm {
    pub header: String,
    /// Text in front of the signature, `sha256=` for instance.
    #[serde(default)]
    pub prefix: String,
    pub encoding: Encoding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    Hex,
    /// Standard alphabet, padded or not.
    Base64,
    /// URL-safe alphabet, padded or not.
    Base64url,
}

/// How far a callback's own time may lie from ours, in either direction.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TimestampWindow {
    pub header: String,
    pub unit: TimestampUnit,
    pub max_age_seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampUnit {
    Seconds,
    Millis,
    Rfc3339,
}

/// Why a callback is not accepted as the provider's. Holds no part of the callback or the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Ours to repair: the account has no signing secret yet.
    #[error("the account has no signing secret")]
    NoSecret,
    /// Ours to repair: the secret does not decode as the connector says it does.
    #[error("the account's signing secret cannot be decoded into a key")]
    UnusableSecret,
    #[error("header {0} is missing")]
    MissingHeader(String),
    #[error("header {0} is there more than once")]
    RepeatedHeader(String),
    /// Wrong prefix or encoding.
    #[error("header {0} is malformed")]
    MalformedHeader(String),
    #[error("the signature does not match")]
    Mismatch,
    /// Older, or further ahead, than the scheme's window.
    #[error("the callback's timestamp is outside the window")]
    OutsideWindow,
}

/// A scheme that cannot be meant: the field, relative to the scheme, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidScheme {
    pub field: &'static str,
    pub detail: &'static str,
}

impl Scheme {
    /// Checks what the types cannot say. Call it once, when the scheme is loaded.
    pub fn validate(&self) -> Result<(), InvalidScheme> {
        match self {
            Self::Hmac(scheme) => scheme.validate(),
            Self::Token(scheme) => valid_header("token.header", &scheme.header),
        }
    }

    /// `headers` carries names in lower case, `body` the bytes as they arrived.
    pub fn verify(
        &self,
        headers: &[(String, String)],
        body: &[u8],
        secret: Option<&str>,
        now: Timestamp,
    ) -> Result<(), VerifyError> {
        // An empty key or token would be one that everybody knows.
        let secret = secret
            .filter(|text| !text.is_empty())
            .ok_or(VerifyError::NoSecret)?;
        match self {
            Self::Hmac(scheme) => scheme.verify(headers, body, secret, now),
            Self::Token(scheme) => {
                let given = header(headers, &scheme.header)?;
                // Hashes are compared, so that not even the token's length shows in the time taken.
                let equal = Sha256::digest(given)
                    .as_slice()
                    .ct_eq(Sha256::digest(secret).as_slice());
                if equal.into() {
                    Ok(())
                } else {
                    Err(VerifyError::Mismatch)
                }
            }
        }
    }
}

impl HmacScheme {
    fn validate(&self) -> Result<(), InvalidScheme> {
        let invalid = |field, detail| Err(InvalidScheme { field, detail });
        if !self.message.contains(&Part::Body) {
            return invalid(
                "hmac.message",
                "must contain \"body\", or the body could be exchanged",
            );
        }
        for part in &self.message {
            if let Part::Header(name) = part {
                valid_header("hmac.message", name)?;
            }
        }
        valid_header("hmac.signature.header", &self.signature.header)?;
        let Some(window) = &self.timestamp else {
            return Ok(());
        };
        valid_header("hmac.timestamp.header", &window.header)?;
        if !self.message.contains(&Part::Header(window.header.clone())) {
            return invalid(
                "hmac.timestamp.header",
                "must be part of hmac.message to prove anything",
            );
        }
        if window.max_age_seconds == 0 {
            return invalid("hmac.timestamp.max_age_seconds", "must be at least 1");
        }
        Ok(())
    }

    fn verify(
        &self,
        headers: &[(String, String)],
        body: &[u8],
        secret: &str,
        now: Timestamp,
    ) -> Result<(), VerifyError> {
        let key = self
            .key
            .decode(secret)
            .filter(|key| !key.is_empty())
            .ok_or(VerifyError::UnusableSecret)?;
        let signature = self.signature.read(headers)?;
        let mut message = Vec::with_capacity(self.message.len());
        for part in &self.message {
            message.push(match part {
                Part::Body => body,
                Part::Header(name) => header(headers, name)?.as_bytes(),
                Part::Literal(text) => text.as_bytes(),
            });
        }
        let genuine = match self.algorithm {
            Algorithm::Sha256 => genuine::<Hmac<Sha256>>(&key, &message, &signature),
            Algorithm::Sha512 => genuine::<Hmac<Sha512>>(&key, &message, &signature),
        };
        if !genuine {
            return Err(VerifyError::Mismatch);
        }
        self.timestamp
            .as_ref()
            .map_or(Ok(()), |window| window.check(headers, now))
    }
}

/// `verify_slice` compares in constant time.
fn genuine<M: Mac + KeyInit>(key: &[u8], message: &[&[u8]], signature: &[u8]) -> bool {
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else {
        return false;
    };
    for part in message {
        mac.update(part);
    }
    mac.verify_slice(signature).is_ok()
}

impl KeyDecoding {
    fn decode(self, secret: &str) -> Option<Vec<u8>> {
        match self {
            Self::Utf8 => Some(secret.as_bytes().to_vec()),
            Self::Hex => hex::decode(secret).ok(),
            Self::Base64 => BASE64.decode(secret).ok(),
        }
    }
}

impl SignatureForm {
    fn read(&self, headers: &[(String, String)]) -> Result<Vec<u8>, VerifyError> {
        let malformed = || VerifyError::MalformedHeader(self.header.clone());
        let text = header(headers, &self.header)?
            .strip_prefix(&self.prefix)
            .ok_or_else(malformed)?;
        match self.encoding {
            Encoding::Hex => hex::decode(text).ok(),
            Encoding::Base64 => BASE64.decode(text).ok(),
            Encoding::Base64url => BASE64_URL.decode(text).ok(),
        }
        .ok_or_else(malformed)
    }
}

impl TimestampWindow {
    fn check(&self, headers: &[(String, String)], now: Timestamp) -> Result<(), VerifyError> {
        let text = header(headers, &self.header)?;
        let at = match self.unit {
            TimestampUnit::Seconds => {
                whole_number(text).map(|s| Timestamp::from_millis(s.saturating_mul(1_000)))
            }
            TimestampUnit::Millis => whole_number(text).map(Timestamp::from_millis),
            TimestampUnit::Rfc3339 => Timestamp::parse_rfc3339(text).ok(),
        }
        .ok_or_else(|| VerifyError::MalformedHeader(self.header.clone()))?;
        let window_ms = i64::from(self.max_age_seconds).saturating_mul(1_000);
        if now.millis_since(at).saturating_abs() > window_ms {
            return Err(VerifyError::OutsideWindow);
        }
        Ok(())
    }
}

/// Digits only: `parse` alone would take a sign too.
fn whole_number(text: &str) -> Option<i64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Result<&'a str, VerifyError> {
    let mut found = headers.iter().filter(|(given, _)| given == name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Ok(value),
        (None, _) => Err(VerifyError::MissingHeader(name.to_owned())),
        (Some(_), Some(_)) => Err(VerifyError::RepeatedHeader(name.to_owned())),
    }
}

/// Header names arrive in lower case; one that is written otherwise would never be found.
fn valid_header(field: &'static str, name: &str) -> Result<(), InvalidScheme> {
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
    };
    if name.is_empty() || !name.bytes().all(fits) {
        return Err(InvalidScheme {
            field,
            detail: "must be a header name in lower case",
        });
    }
    Ok(())
}

/// Providers differ in whether they pad; the decoded bytes are what is compared.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scheme(text: &str) -> Scheme {
        let scheme: Scheme = toml::from_str(text).unwrap();
        assert_eq!(scheme.validate(), Ok(()), "{text}");
        scheme
    }

    fn headers(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    const GITHUB: &str = r#"[hmac]
        algorithm = "sha256"
        message = ["body"]
        signature = { header = "x-hub-signature-256", prefix = "sha256=", encoding = "hex" }"#;
    const SLACK: &str = r#"[hmac]
        algorithm = "sha256"
        message = [{ literal = "v0:" }, { header = "x-slack-request-timestamp" }, { literal = ":" }, "body"]
        signature = { header = "x-slack-signature", prefix = "v0=", encoding = "hex" }
        timestamp = { header = "x-slack-request-timestamp", unit = "seconds", max_age_seconds = 300 }"#;
    const BOX: &str = r#"[hmac]
        algorithm = "sha256"
        message = ["body", { header = "box-delivery-timestamp" }]
        signature = { header = "box-signature-primary", encoding = "base64" }
        timestamp = { header = "box-delivery-timestamp", unit = "rfc3339", max_age_seconds = 600 }"#;
    const BAMBOOHR: &str = r#"[hmac]
        algorithm = "sha256"
        message = ["body", { header = "x-bamboohr-timestamp" }]
        signature = { header = "x-bamboohr-signature", encoding = "hex" }"#;
    const STANDARD_WEBHOOKS: &str = r#"[hmac]
        algorithm = "sha256"
        key = "base64"
        message = [{ header = "webhook-id" }, { literal = "." }, { header = "webhook-timestamp" }, { literal = "." }, "body"]
        signature = { header = "webhook-signature", prefix = "v1,", encoding = "base64" }"#;
    const TOKEN: &str = r#"token = { header = "x-gitlab-token" }"#;

    const SLACK_BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const BOX_BODY: &str = r#"{"type":"webhook_event","webhook":{"id":"1234567890"},"trigger":"FILE.UPLOADED","source":{"id":"1234567890","type":"file","name":"Test.txt"}}"#;
    const BAMBOOHR_BODY: &str = r#"{"employees":[{"changedFields":["First name"],"fields":{"Employee #":{"value":"300"},"First name":{"value":"Tefi"},"Last name":{"value":"Adams"}},"id":"5"}]}"#;

    struct Vector {
        scheme: &'static str,
        secret: &'static str,
        /// The signature's header comes first.
        headers: &'static [(&'static str, &'static str)],
        body: &'static str,
        now: i64,
    }

    /// The known answers of `reference/providers.md`, section 4, that this vocabulary covers.
    const VECTORS: &[Vector] = &[
        Vector {
            scheme: GITHUB,
            secret: "It's a Secret to Everybody",
            headers: &[(
                "x-hub-signature-256",
                "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            )],
            body: "Hello, World!",
            now: 0,
        },
        Vector {
            scheme: SLACK,
            secret: "8f742231b10e8888abcd99yyyzzz85a5",
            headers: &[
                (
                    "x-slack-signature",
                    "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
                ),
                ("x-slack-request-timestamp", "1531420618"),
            ],
            body: SLACK_BODY,
            now: 1_531_420_918,
        },
        Vector {
            scheme: BOX,
            secret: "SamplePrimaryKey",
            headers: &[
                (
                    "box-signature-primary",
                    "6TfeAW3A1PASkgboxxA5yqHNKOwFyMWuEXny/FPD5hI=",
                ),
                ("box-delivery-timestamp", "2020-01-01T00:00:00-07:00"),
            ],
            body: BOX_BODY,
            now: 1_577_862_000,
        },
        Vector {
            scheme: BOX,
            secret: "SampleSecondaryKey",
            headers: &[
                (
                    "box-signature-primary",
                    "v+1CD1Jdo3muIcbpv5lxxgPglOqMfsNHPV899xWYydo=",
                ),
                ("box-delivery-timestamp", "2020-01-01T00:00:00-07:00"),
            ],
            body: BOX_BODY,
            now: 1_577_862_000,
        },
        Vector {
            scheme: BAMBOOHR,
            secret: "123b929362d51613054f71e5e5d4bf2c",
            headers: &[
                (
                    "x-bamboohr-signature",
                    "56491dd9c2b352bc5f4fc627159aae20ddff9c8cb19f239a6de6771dc5310bac",
                ),
                ("x-bamboohr-timestamp", "1658248023"),
            ],
            body: BAMBOOHR_BODY,
            now: 1_800_000_000,
        },
        Vector {
            scheme: STANDARD_WEBHOOKS,
            secret: "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            headers: &[
                (
                    "webhook-signature",
                    "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
                ),
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
            ],
            body: r#"{"test": 2432232314}"#,
            now: 0,
        },
        Vector {
            scheme: TOKEN,
            secret: "s3cret",
            headers: &[("x-gitlab-token", "s3cret")],
            body: "",
            now: 0,
        },
    ];

    #[test]
    fn known_answers_verify_and_nothing_near_them_does() {
        for vector in VECTORS {
            let now = Timestamp::from_millis(vector.now * 1_000);
            let given = headers(vector.headers);
            let check = |headers: &[(String, String)], body: &str, secret: Option<&str>| {
                scheme(vector.scheme).verify(headers, body.as_bytes(), secret, now)
            };
            let name = vector.headers[0].0;
            assert_eq!(
                check(&given, vector.body, Some(vector.secret)),
                Ok(()),
                "{name}"
            );
            assert_eq!(
                check(&given, vector.body, None),
                Err(VerifyError::NoSecret),
                "{name}"
            );
            assert_eq!(
                check(&given, vector.body, Some("")),
                Err(VerifyError::NoSecret),
                "{name}"
            );
            let wrong = format!("{}BBBB", vector.secret);
            assert_eq!(
                check(&given, vector.body, Some(&wrong)),
                Err(VerifyError::Mismatch),
                "{name}"
            );
            if vector.scheme != TOKEN {
                let longer = format!("{} ", vector.body);
                assert_eq!(
                    check(&given, &longer, Some(vector.secret)),
                    Err(VerifyError::Mismatch),
                    "{name}"
                );
            }
            for (index, (name, value)) in vector.headers.iter().enumerate() {
                let mut changed = given.clone();
                changed[index].1 = format!("{value}0");
                assert!(
                    check(&changed, vector.body, Some(vector.secret)).is_err(),
                    "{name}"
                );
                let mut missing = given.clone();
                missing.remove(index);
                let expected = Err(VerifyError::MissingHeader((*name).to_owned()));
                assert_eq!(check(&missing, vector.body, Some(vector.secret)), expected);
                let mut repeated = given.clone();
                repeated.push(given[index].clone());
                let expected = Err(VerifyError::RepeatedHeader((*name).to_owned()));
                assert_eq!(check(&repeated, vector.body, Some(vector.secret)), expected);
            }
        }
    }

    #[test]
    fn a_timestamp_is_held_to_its_window_in_both_directions() {
        let slack = &VECTORS[1];
        for (now, expected) in [
            (1_531_420_618 + 300, Ok(())),
            (1_531_420_618 - 300, Ok(())),
            (1_531_420_618 + 301, Err(VerifyError::OutsideWindow)),
            (1_531_420_618 - 301, Err(VerifyError::OutsideWindow)),
        ] {
            let now = Timestamp::from_millis(now * 1_000);
            let given = headers(slack.headers);
            let result =
                scheme(SLACK).verify(&given, slack.body.as_bytes(), Some(slack.secret), now);
            assert_eq!(result, expected);
        }
    }

    #[test]
    fn a_prefix_is_required_and_hex_may_be_in_either_case() {
        let vector = &VECTORS[0];
        let signature = vector.headers[0].1;
        let upper = signature.to_uppercase().replace("SHA256", "sha256");
        for (value, good) in [
            (signature, true),
            (&upper, true),
            (signature.trim_start_matches("sha256="), false),
            (signature.trim_end_matches("17"), false),
            ("sha256=", false),
            ("", false),
        ] {
            let given = headers(&[("x-hub-signature-256", value)]);
            let result = scheme(GITHUB).verify(
                &given,
                vector.body.as_bytes(),
                Some(vector.secret),
                Timestamp::default(),
            );
            assert_eq!(result.is_ok(), good, "{value}");
        }
    }

    #[test]
    fn schemes_that_cannot_be_meant_are_refused() {
        let form = r#"algorithm = "sha256"
            signature = { header = "sig", encoding = "hex" }"#;
        for (text, field) in [
            (format!("[hmac]\n{form}\nmessage = []"), "hmac.message"),
            (
                format!("[hmac]\n{form}\nmessage = [{{ header = \"a\" }}]"),
                "hmac.message",
            ),
            (
                format!("[hmac]\n{form}\nmessage = [\"body\", {{ header = \"A\" }}]"),
                "hmac.message",
            ),
            (
                format!(
                    "[hmac]\n{form}\nmessage = [\"body\"]\ntimestamp = {{ header = \"t\", unit = \"seconds\", max_age_seconds = 1 }}"
                ),
                "hmac.timestamp.header",
            ),
            (
                format!(
                    "[hmac]\n{form}\nmessage = [\"body\", {{ header = \"t\" }}]\ntimestamp = {{ header = \"t\", unit = \"seconds\", max_age_seconds = 0 }}"
                ),
                "hmac.timestamp.max_age_seconds",
            ),
            ("[token]\nheader = \"X-Token\"".to_owned(), "token.header"),
        ] {
            let scheme: Scheme = toml::from_str(&text).unwrap();
            assert_eq!(
                scheme.validate().map_err(|invalid| invalid.field),
                Err(field),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(
            values in prop::collection::vec(".{0,80}", 3),
            body in prop::collection::vec(any::<u8>(), 0..200),
            secret in prop::option::of(".{0,20}"),
            now in any::<i64>(),
        ) {
            for vector in VECTORS {
                let given: Vec<_> = vector
                    .headers
                    .iter()
                    .zip(&values)
                    .map(|((name, _), value)| ((*name).to_owned(), value.clone()))
                    .collect();
                let now = Timestamp::from_millis(now);
                let result = scheme(vector.scheme).verify(&given, &body, secret.as_deref(), now);
                let forged = result.is_ok() && vector.scheme != TOKEN;
                prop_assert!(!forged);
            }
        }
    }
}
