//! Tokens as credentials: the issuer's keys found, fetched anew where a token names one that is
//! not known.

use std::sync::Arc;

use shared::http_client::ClientSetupError;
use shared::jwks::{Jwks, NoKeys};
use shared::jwt::{self, Holder, JwtError, JwtRules, KeySet};
use shared::time::Clock;
use url::Url;

/// What tokens are checked by.
pub struct Tokens {
    rules: JwtRules,
    jwks: Option<Jwks>,
    clock: Arc<dyn Clock>,
}

/// Why a token does not open anything.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    Refused(#[from] JwtError),
    /// Whether it is good is unknown.
    #[error(transparent)]
    NoKeys(#[from] NoKeys),
}

impl Tokens {
    pub fn new(
        rules: JwtRules,
        jwks_url: Option<&Url>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientSetupError> {
        let jwks = jwks_url
            .map(|url| Jwks::new(url, Arc::clone(&clock)))
            .transpose()?;
        Ok(Self { rules, jwks, clock })
    }

    /// Asks the issuer for its keys at most once, and not for each token.
    pub(crate) async fn check(&self, token: &str) -> Result<Holder, TokenError> {
        let verify = |keys: &KeySet| jwt::verify(token, &self.rules, keys, self.clock.now());
        // HS256 needs no key set, and must not wait for one.
        let without = verify(&KeySet::none());
        let (Some(jwks), Err(JwtError::UnknownKey)) = (&self.jwks, &without) else {
            return Ok(without?);
        };
        let keys = jwks.keys().await?;
        match verify(&keys) {
            Err(JwtError::UnknownKey) => {}
            known => return Ok(known?),
        }
        match jwks.newer_than(&keys).await {
            Some(newer) => Ok(verify(&newer)?),
            None => Err(JwtError::UnknownKey.into()),
        }
    }
}
