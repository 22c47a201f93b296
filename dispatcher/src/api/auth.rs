//! Who asks: the operator with the admin token, or a project with one of its API keys or with a
//! token of its issuer.
//!
//! A handler can name a project only through a [`Principal`], so that it cannot forget the check.

use std::future::{Ready, ready};
use std::pin::Pin;

use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, dev::Payload};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shared::domain::project::Project;
use shared::ids::{KeyId, ProjectId};
use shared::jwt;
use shared::secret::{Secret, hash_key};
use shared::time::Timestamp;

use super::error::ApiError;
use super::open_app::OpenApp;
use crate::app::App;
use crate::tokens::TokenError;

/// What entries made by the operator are signed with in the audit.
pub(crate) const ADMIN: &str = "admin";

/// What entries made with a token are signed with, before its subject.
const BY_TOKEN: &str = "jwt:";

const NO_KEY: ApiError = ApiError::Unauthorized(std::borrow::Cow::Borrowed(
    "send a valid API key or token as Authorization: Bearer, or a key as Basic user name",
));

/// The operator, by the admin token. An API key is no credential here, and the reverse.
pub(crate) struct Admin;

/// A caller who may see and change what is the project's.
pub(crate) struct Principal {
    pub(crate) project: ProjectId,
    /// The key's id or the token's subject, for the audit.
    pub(crate) by: String,
    proof: Proof,
}

/// What lets a caller in.
enum Proof {
    Key { id: KeyId, hash: [u8; 32] },
    Token { valid_until: Timestamp },
}

/// Somebody whose right to call was checked, and can be checked again after a wait.
pub(crate) trait Caller {
    /// From memory. Must be asked once a body has been read: that can take longer than the 5 s
    /// within which a revocation holds.
    fn recheck(&self, app: &App) -> Result<(), ApiError>;
}

impl Caller for Admin {
    fn recheck(&self, app: &App) -> Result<(), ApiError> {
        check_current(app)
    }
}

impl Caller for Principal {
    fn recheck(&self, app: &App) -> Result<(), ApiError> {
        check_current(app)?;
        let still_opens = match &self.proof {
            Proof::Key { id, hash } => {
                let holder = app.view.read(|state| state.api_key(hash));
                holder == Some((self.project, *id))
            }
            Proof::Token { valid_until } => {
                app.clock.now() < *valid_until && has_project(app, self.project)
            }
        };
        if still_opens { Ok(()) } else { Err(NO_KEY) }
    }
}

impl FromRequest for Admin {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(admin(request))
    }
}

impl FromRequest for Principal {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let (app, credential) = (OpenApp::of(request), credential(request));
        Box::pin(async move { principal(&*app?, credential).await })
    }
}

fn admin(request: &HttpRequest) -> Result<Admin, ApiError> {
    let app = OpenApp::of(request)?;
    match credential(request) {
        Some(Credential::Bearer(token)) if is_same(&token, &app.admin_token) => {}
        Some(Credential::Bearer(_) | Credential::BasicUser(_)) | None => {
            return Err(ApiError::Unauthorized(
                "send the admin token as Authorization: Bearer".into(),
            ));
        }
    }
    check_current(&app)?;
    Ok(Admin)
}

/// Compares hashes, which are of one length: comparing the texts, of which only those of equal
/// length take their time, would tell the token's length.
fn is_same(given: &Secret, token: &Secret) -> bool {
    let hash = |secret: &Secret| STANDARD.encode(hash_key(secret.reveal()));
    Secret::new(hash(token)).matches(&hash(given))
}

async fn principal(app: &App, credential: Option<Credential>) -> Result<Principal, ApiError> {
    let credential = credential.ok_or(NO_KEY)?;
    // Without this a revoked key could pass for as long as JetStream is away.
    check_current(app)?;
    match credential {
        Credential::Bearer(token) if jwt::is_token(token.reveal()) => by_token(app, &token).await,
        Credential::Bearer(key) | Credential::BasicUser(key) => by_key(app, &key).await,
    }
}

/// `protocol.md`, rule 4: before a key is called unknown, the projection is brought up to date.
async fn by_key(app: &App, key: &Secret) -> Result<Principal, ApiError> {
    let hash = hash_key(key.reveal());
    let look = || app.view.read(|state| state.api_key(&hash));
    let found = match look() {
        Some(found) => Some(found),
        None => {
            app.view.catch_up().await?;
            look()
        }
    };
    let (project, id) = found.ok_or(NO_KEY)?;
    app.key_usage.used(id);
    Ok(Principal {
        project,
        by: id.to_string(),
        proof: Proof::Key { id, hash },
    })
}

/// A token for a project that is not there is no credential: it would else tell which are.
async fn by_token(app: &App, token: &Secret) -> Result<Principal, ApiError> {
    let holder = match app.tokens.check(token.reveal()).await {
        Ok(holder) => holder,
        Err(TokenError::Refused(refused)) => {
            return Err(ApiError::Unauthorized(refused.to_string().into()));
        }
        Err(TokenError::NoKeys(error)) => return Err(ApiError::Unavailable(error.to_string())),
    };
    let project = holder.project;
    if !has_project(app, project) {
        app.view.catch_up().await?;
        if !has_project(app, project) {
            return Err(NO_KEY);
        }
    }
    Ok(Principal {
        project,
        by: format!("{BY_TOKEN}{}", holder.subject),
        proof: Proof::Token {
            valid_until: holder.valid_until,
        },
    })
}

fn has_project(app: &App, project: ProjectId) -> bool {
    app.view
        .read(|state| state.project(project).is_some_and(Project::is_made))
}

fn check_current(app: &App) -> Result<(), ApiError> {
    if app.view.is_current() {
        return Ok(());
    }
    let error = "the registry view was not confirmed for 5 s";
    Err(ApiError::Unavailable(error.to_owned()))
}

enum Credential {
    Bearer(Secret),
    /// StackOne's clients send the key so, with any password.
    BasicUser(Secret),
}

fn credential(request: &HttpRequest) -> Option<Credential> {
    parse(request.headers().get(AUTHORIZATION)?.to_str().ok()?)
}

fn parse(header: &str) -> Option<Credential> {
    let (scheme, rest) = header.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Credential::Bearer(Secret::new(rest)));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
    let (user, _password) = decoded.split_once(':')?;
    Some(Credential::BasicUser(Secret::new(user)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_admin_token_itself_is_the_same() {
        let token = Secret::new("0123456789abcdef");
        for (given, same) in [
            ("0123456789abcdef", true),
            ("0123456789abcdeF", false),
            ("0123456789abcde", false),
            ("0123456789abcdef0", false),
            ("", false),
        ] {
            assert_eq!(is_same(&Secret::new(given), &token), same, "{given}");
        }
    }

    #[test]
    fn credentials_come_as_bearer_or_as_basic_user() {
        let basic = |text: &str| format!("basic {}", STANDARD.encode(text));
        let cases = [
            ("Bearer ck_1".to_owned(), Some(("bearer", "ck_1"))),
            ("bearer  ck_1 ".to_owned(), Some(("bearer", "ck_1"))),
            (basic("ck_1:"), Some(("basic", "ck_1"))),
            (basic("ck_1:pass:word"), Some(("basic", "ck_1"))),
            (basic("ck_1"), None),
            ("Basic %".to_owned(), None),
            ("Digest ck_1".to_owned(), None),
            ("ck_1".to_owned(), None),
        ];
        for (header, expected) in cases {
            let parsed = parse(&header);
            let shown = parsed.as_ref().map(|credential| match credential {
                Credential::Bearer(key) => ("bearer", key.reveal()),
                Credential::BasicUser(key) => ("basic", key.reveal()),
            });
            assert_eq!(shown, expected, "{header}");
        }
    }
}
