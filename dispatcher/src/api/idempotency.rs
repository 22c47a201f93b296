//! `Idempotency-Key`: a creation that is repeated with the same key within a day makes one thing,
//! and is answered with that.
//!
//! What is kept of a call is the id that it chose, before it makes anything, and a hash of its
//! body. So whoever repeats a call goes on with the id of the first: a call that was cut off
//! anywhere is finished, not repeated, and nothing that it answered need be stored.

use std::fmt::Display;
use std::future::{Ready, ready};
use std::str::FromStr;

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use serde::{Deserialize, Serialize};
use shared::nats::idempotency::{Claim, claim};
use shared::problem::Problem;
use shared::secret::hash_bytes;
use utoipa::IntoParams;

use super::error::ApiError;
use super::fields::Digest;
use crate::app::App;

const KEY_BYTES_MAX: usize = 255;

/// The header in documents.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "read by the derive alone")]
pub(crate) struct IdempotencyHeader {
    /// Visible ASCII. A call that is repeated with the same key and body within 24 hours makes one
    /// thing, and is answered with that.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[ -~]+$",
        nullable = false
    )]
    key: Option<String>,
}

/// The header, if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdempotencyKey(Option<String>);

/// What is kept of the first call with a key.
#[derive(Serialize, Deserialize)]
struct Kept {
    body: String,
    id: String,
}

impl IdempotencyKey {
    /// The id of what is to be made: `fresh`, or that which an earlier call with the key chose.
    /// `owner` and `kind` keep apart whose key it is, and for what. 422 when the earlier call had
    /// another body.
    pub(crate) async fn id<I: Display + FromStr>(
        &self,
        app: &App,
        (owner, kind): (&str, &str),
        body: Digest,
        fresh: I,
    ) -> Result<I, ApiError> {
        let Some(key) = &self.0 else {
            return Ok(fresh);
        };
        let parts = [owner.as_bytes(), kind.as_bytes(), key.as_bytes()];
        let body = hex::encode(body.0);
        let kept = Kept {
            body: body.clone(),
            id: fresh.to_string(),
        };
        let kept = serde_json::to_vec(&kept).map_err(ApiError::internal)?;
        match claim(&app.nats, &hash_bytes(&parts), kept.into()).await? {
            Claim::First => Ok(fresh),
            Claim::Earlier(kept) => {
                let kept: Kept = serde_json::from_slice(&kept).map_err(ApiError::internal)?;
                if kept.body != body {
                    return Err(ApiError::Refused(Problem::idempotency_mismatch()));
                }
                kept.id
                    .parse()
                    .map_err(|_| ApiError::internal("an id that was kept is no id"))
            }
        }
    }

    fn parse(header: Option<&[u8]>) -> Result<Self, ApiError> {
        let Some(bytes) = header else {
            return Ok(Self(None));
        };
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let is_plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if text.is_empty() || text.len() > KEY_BYTES_MAX || !is_plain {
            let detail = "Idempotency-Key must be 1 to 255 visible ASCII characters";
            return Err(ApiError::bad_request(detail));
        }
        Ok(Self(Some(text.to_owned())))
    }
}

impl FromRequest for IdempotencyKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let header = request.headers().get("idempotency-key");
        ready(Self::parse(header.map(|value| value.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_lines_of_visible_ascii() {
        assert_eq!(IdempotencyKey::parse(None).unwrap(), IdempotencyKey(None));
        for (header, valid) in [
            ("a", true),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", true),
            ("", false),
            ("ä", false),
            ("a\tb", false),
            (&"x".repeat(255), true),
            (&"x".repeat(256), false),
        ] {
            let parsed = IdempotencyKey::parse(Some(header.as_bytes()));
            assert_eq!(parsed.is_ok(), valid, "{header}");
        }
    }
}
