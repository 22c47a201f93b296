//! JSON Web Tokens (RFC 7519) as credentials of the management API: which key may have signed one,
//! and what it must say.
//!
//! HS256 goes by the configured secret alone, RS256 and ES256 by the configured key set alone, so
//! that nobody can pass a public key off as a secret. Any other algorithm is refused, `none`
//! included. Deliberately absent: a clock, and fetching keys (see `jwks`).

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as JwtResult, new_error};
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::signature::{Error as SignatureError, Verifier};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, Validation,
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use uuid::Uuid;

use crate::ids::ProjectId;
use crate::secret::Secret;
use crate::time::Timestamp;

/// Longer ones are not looked at.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// How far the issuer's clock may be off ours.
const LEEWAY_SECONDS: f64 = 10.0;
/// Of a token's subject, what the audit shows.
const SUBJECT_CHARS_MAX: usize = 128;

/// What tokens must have been signed with and say.
#[derive(Clone, Debug, Default)]
pub struct JwtRules {
    pub hs256_secret: Option<Secret>,
    /// One of a token's `aud` must be this. Without it a token that names an audience is refused,
    /// for it is meant for somebody else (RFC 7519, 4.1.3).
    pub audience: Option<String>,
    /// A token's `iss` must be this.
    pub issuer: Option<String>,
}

/// Public keys, as an issuer publishes them.
#[derive(Clone, Debug)]
pub struct KeySet(JwkSet);

/// The text is no key set of RFC 7517.
#[derive(Debug, thiserror::Error)]
#[error("not a JSON Web Key Set: {0}")]
pub struct InvalidKeySet(serde_json::Error);

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub project: ProjectId,
    /// `sub`, without control characters and cut to a line, or empty.
    pub subject: String,
    /// No longer valid from then on, leeway included.
    pub valid_until: Timestamp,
}

/// Why a token is refused. The texts are for its sender and tell nothing that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("the token is malformed")]
    Malformed,
    #[error("tokens of this algorithm are not accepted")]
    Algorithm,
    /// A later key set may have it.
    #[error("the token's key is unknown")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    TooEarly,
    #[error("the token is meant for another audience")]
    Audience,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token names no project, as project or companyId")]
    NoProject,
}

/// What is read of a token's claims beside `aud` and `iss`, which the library checks.
#[derive(Deserialize)]
struct Claims {
    /// Seconds, with or without a fraction.
    exp: f64,
    nbf: Option<f64>,
    sub: Option<String>,
    project: Option<String>,
    #[serde(rename = "companyId")]
    company_id: Option<String>,
}

impl KeySet {
    pub fn parse(text: &[u8]) -> Result<Self, InvalidKeySet> {
        serde_json::from_slice(text)
            .map(Self)
            .map_err(InvalidKeySet)
    }

    pub fn none() -> Self {
        Self(JwkSet { keys: Vec::new() })
    }

    pub fn len(&self) -> usize {
        self.0.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.keys.is_empty()
    }

    /// The one key that can have signed: that of the id, or, without one, the only one there is.
    fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Option<&Jwk> {
        let mut fitting = self.0.keys.iter().filter(|key| fits(key, algorithm));
        match id {
            Some(id) => fitting.find(|key| key.common.key_id.as_deref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

/// Whether a key is of the algorithm and meant for signatures.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let named = match algorithm {
        Algorithm::RS256 => KeyAlgorithm::RS256,
        Algorithm::ES256 => KeyAlgorithm::ES256,
        _ => return false,
    };
    let family = DecodingKey::from_jwk(key).map(|key| key.family());
    let is_of_family = matches!(
        (family, algorithm),
        (Ok(AlgorithmFamily::Rsa), Algorithm::RS256) | (Ok(AlgorithmFamily::Ec), Algorithm::ES256)
    );
    let signs = matches!(
        key.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    );
    is_of_family
        && signs
        && key
            .common
            .key_algorithm
            .is_none_or(|named_by_key| named_by_key == named)
}

/// Whether the credential has the form of a token: three parts joined by dots, which no API key
/// has.
pub fn is_token(credential: &str) -> bool {
    credential.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Checks a token at `now`.
pub fn verify(
    token: &str,
    rules: &JwtRules,
    keys: &KeySet,
    now: Timestamp,
) -> Result<Holder, JwtError> {
    install_provider();
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtError::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|error| refusal(error.kind()))?;
    let key = match header.alg {
        Algorithm::HS256 => {
            let secret = rules.hs256_secret.as_ref().ok_or(JwtError::Algorithm)?;
            DecodingKey::from_secret(secret.reveal().as_bytes())
        }
        Algorithm::RS256 | Algorithm::ES256 => {
            let key = keys.find(header.alg, header.kid.as_deref());
            DecodingKey::from_jwk(key.ok_or(JwtError::UnknownKey)?)
                .map_err(|_| JwtError::UnknownKey)?
        }
        _ => return Err(JwtError::Algorithm),
    };
    let mut validation = Validation::new(header.alg);
    // Times are checked below, by the time that was given.
    validation.validate_exp = false;
    let mut required = vec!["exp"];
    if let Some(audience) = &rules.audience {
        validation.set_audience(&[audience]);
        required.push("aud");
    }
    if let Some(issuer) = &rules.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    let claims: Claims = jsonwebtoken::decode(token, &key, &validation)
        .map_err(|error| refusal(error.kind()))?
        .claims;
    claims.check(now)
}

impl Claims {
    fn check(self, now: Timestamp) -> Result<Holder, JwtError> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "exact for the next 285,000 years"
        )]
        let seconds = now.as_millis() as f64 / 1_000.0;
        if self.exp + LEEWAY_SECONDS <= seconds {
            return Err(JwtError::Expired);
        }
        if self.nbf.is_some_and(|nbf| nbf - LEEWAY_SECONDS > seconds) {
            return Err(JwtError::TooEarly);
        }
        let named = self.project.or(self.company_id);
        let project = named
            .and_then(|text| project_id(&text))
            .ok_or(JwtError::NoProject)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "such a cast saturates, and so far off every bound is alike"
        )]
        let valid_for_ms = ((self.exp + LEEWAY_SECONDS - seconds) * 1_000.0) as i64;
        Ok(Holder {
            project,
            subject: subject(&self.sub.unwrap_or_default()),
            valid_until: now.plus_millis(valid_for_ms),
        })
    }
}

/// `prj_…`, or the bare UUID that HR-ON calls a company's id.
fn project_id(text: &str) -> Option<ProjectId> {
    let bare = || Uuid::try_parse(text).ok().map(ProjectId::from_uuid);
    text.parse().ok().or_else(bare)
}

fn subject(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(SUBJECT_CHARS_MAX)
        .collect()
}

fn refusal(kind: &ErrorKind) -> JwtError {
    match kind {
        ErrorKind::InvalidSignature => JwtError::Signature,
        ErrorKind::InvalidAudience => JwtError::Audience,
        ErrorKind::InvalidIssuer => JwtError::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => JwtError::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => JwtError::Issuer,
        ErrorKind::InvalidAlgorithm
        | ErrorKind::InvalidAlgorithmName
        | ErrorKind::UnsupportedAlgorithm => JwtError::Algorithm,
        // The library may add kinds, and most of those there are cannot come up here.
        _ => JwtError::Malformed,
    }
}

/// The library takes its cryptography from a provider for the whole process. This one is `ring`,
/// which TLS uses too, so that no second library for it is in the process.
fn install_provider() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: no_signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // An error means that somebody else has installed one, which does as well.
        PROVIDER.install_default().ok();
    });
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac)
        | (Algorithm::RS256, AlgorithmFamily::Rsa)
        | (Algorithm::ES256, AlgorithmFamily::Ec) => Ok(Box::new(RingVerifier {
            algorithm: *algorithm,
            key: key.clone(),
        })),
        _ => Err(new_error(ErrorKind::InvalidAlgorithm)),
    }
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let verified = match (self.algorithm, self.key.kind()) {
            (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) => {
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
                ring::hmac::verify(&key, message, signature)
            }
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(
                    &RSA_PKCS1_2048_8192_SHA256,
                    message,
                    signature,
                )
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            _ => return Err(SignatureError::new()),
        };
        verified.map_err(|_| SignatureError::new())
    }
}

#[cfg(test)]
mod tests;
