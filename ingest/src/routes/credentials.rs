//! Who asks: an account by its ingest key, a project by its API key.
//!
//! Invariant: what is not found looks and lasts the same, whichever part of it is unknown.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shared::domain::account::Account;
use shared::ids::{AccountId, ProjectId};
use shared::secret::hash_key;
use subtle::ConstantTimeEq as _;

use crate::app::Store;
use crate::error::IngestError;

/// What keys of unknown accounts are compared with. No key has the empty hash.
const NO_KEY: &str = "";

/// The account of a callback's path.
pub(super) async fn account(
    store: &Store,
    request: &HttpRequest,
) -> Result<Arc<Account>, IngestError> {
    let part = |name| request.match_info().get(name).unwrap_or_default();
    // A malformed id takes the same way as an unknown one.
    let id: Option<AccountId> = part("account_id").parse().ok();
    let given = hash_key(part("ingest_key"));
    let found = store.find(|registry| {
        let account = id.and_then(|id| registry.account(id));
        let expected = account.map_or(NO_KEY, |account| account.secrets.ingest_key.reveal());
        // Hashes are compared, so that not even the key's length shows in the time taken.
        let equal: bool = hash_key(expected).ct_eq(&given).into();
        account.filter(|_| equal).cloned()
    });
    found.await?.ok_or(IngestError::UnknownAccount)
}

/// The project of a request's API key.
pub(super) async fn project(
    store: &Store,
    request: &HttpRequest,
) -> Result<ProjectId, IngestError> {
    let header = request.headers().get(AUTHORIZATION);
    let header = header.and_then(|value| value.to_str().ok());
    let key = header.and_then(api_key).ok_or(IngestError::Unauthorized)?;
    // The hash is the index; nothing but a whole key leads to an entry, however long it takes.
    let hash = hash_key(&key);
    let found = store.find(|registry| registry.api_key(&hash)).await?;
    let (project, key) = found.ok_or(IngestError::Unauthorized)?;
    store.key_usage.used(key);
    Ok(project)
}

/// The key of `Bearer <key>`, or the user name of `Basic <base64>`; its password is not looked at.
fn api_key(header: &str) -> Option<String> {
    let (scheme, rest) = header.split_once(' ')?;
    let rest = rest.trim();
    let key = if scheme.eq_ignore_ascii_case("bearer") {
        rest.to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
        decoded.split(':').next()?.to_owned()
    } else {
        return None;
    };
    (!key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_as_bearer_or_as_basic_user_name() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (header, expected) in [
            ("Bearer k1".to_owned(), Some("k1")),
            ("bearer  k1 ".to_owned(), Some("k1")),
            (basic("k1:"), Some("k1")),
            (basic("k1:password:more"), Some("k1")),
            (basic("k1"), Some("k1")),
            (basic(":password"), None),
            ("Basic k1".to_owned(), None),
            ("Bearer ".to_owned(), None),
            ("Bearer".to_owned(), None),
            ("k1".to_owned(), None),
            ("Digest k1".to_owned(), None),
        ] {
            assert_eq!(api_key(&header).as_deref(), expected, "{header}");
        }
    }
}
