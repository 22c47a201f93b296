//! Outbound signatures. Keyed HMAC states are prepared once for each secret, since setting up the
//! key costs two of the compressions that a small body's signature takes.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::ids::EventId;
use crate::secret::Secret;
use crate::time::Timestamp;

/// The text is no signing secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a signing secret must be whsec_ and base64 of 24 to 64 bytes")]
pub struct InvalidSigningSecret;

/// One signing secret, ready to sign.
#[derive(Clone)]
pub struct Signer {
    /// Keyed with the decoded bytes, as Standard Webhooks has it.
    standard: Hmac<Sha256>,
    /// Keyed with the whole text, `whsec_` included, as StackOne's samples have it.
    stackone: Hmac<Sha256>,
}

impl Signer {
    pub fn new(secret: &Secret) -> Result<Self, InvalidSigningSecret> {
        let text = secret.reveal();
        let bytes = text
            .strip_prefix("whsec_")
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .filter(|bytes| (24..=64).contains(&bytes.len()))
            .ok_or(InvalidSigningSecret)?;
        let keyed = |key: &[u8]| Hmac::new_from_slice(key).map_err(|_| InvalidSigningSecret);
        Ok(Self {
            standard: keyed(&bytes)?,
            stackone: keyed(text.as_bytes())?,
        })
    }

    /// One `v1,<base64>` over `id.timestamp.body` (Standard Webhooks; unix seconds).
    pub fn standard(&self, id: &str, at: Timestamp, body: &[u8]) -> String {
        let mut mac = self.standard.clone();
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(at.as_seconds().to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// `x-stackone-signature`: unpadded base64url over the body (`dialects.md`, 1.4).
    pub fn stackone(&self, body: &[u8]) -> String {
        let mut mac = self.stackone.clone();
        mac.update(body);
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(…)")
    }
}

/// The secret that signs, and while it still exists the one that signed before it.
#[derive(Clone, Debug)]
pub struct Signers {
    pub active: Signer,
    pub previous: Option<Signer>,
}

impl Signers {
    /// The value of `webhook-signature`: one signature a secret, the active one first.
    pub fn standard(&self, id: EventId, at: Timestamp, body: &[u8]) -> String {
        let id = id.to_string();
        let mut value = self.active.standard(&id, at, body);
        if let Some(previous) = &self.previous {
            value.push(' ');
            value.push_str(&previous.standard(&id, at, body));
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::new_signing_secret;

    #[test]
    fn standard_signature_matches_the_published_vector() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature = Signer::new(&secret).unwrap().standard(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            Timestamp::from_millis(1_614_265_330_999),
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn stackone_signature_is_keyed_with_the_whole_text() {
        // Recomputed with Node: createHmac('sha256', secret).update(body).digest('base64url').
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature = Signer::new(&secret)
            .unwrap()
            .stackone(br#"{"test": 2432232314}"#);
        assert_eq!(signature, "gOyKic480iEzoQZsrstNBP6nRnZXyFFNcX7ELDilyUw");
        assert_eq!(signature.len(), 43);
    }

    #[test]
    fn rotation_signs_with_both_active_first() {
        let signer = |byte| Signer::new(&new_signing_secret(&[byte; 32])).unwrap();
        let signers = Signers {
            active: signer(1),
            previous: Some(signer(2)),
        };
        let (id, at) = (EventId::from_bytes([0; 16]), Timestamp::from_millis(0));
        let expected = format!(
            "{} {}",
            signer(1).standard(&id.to_string(), at, b"x"),
            signer(2).standard(&id.to_string(), at, b"x")
        );
        assert_eq!(signers.standard(id, at, b"x"), expected);
    }

    #[test]
    fn other_texts_are_no_secrets() {
        for text in [
            "",
            "whsec_",
            "whsec_AAAA",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ] {
            assert!(Signer::new(&Secret::new(text)).is_err(), "{text:?}");
        }
    }
}
