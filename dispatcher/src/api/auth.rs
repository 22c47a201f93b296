//! Who asks: the operator with the admin token, or a project with one of its API keys.
//!
//! A handler can name a project only through a [`Principal`], so that it cannot forget the check.

use std::future::{Ready, ready};
use std::pin::Pin;

use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, dev::Payload, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use shared::ids::ProjectId;
use shared::secret::{Secret, hash_key};

use super::error::ApiError;
use crate::app::App;

/// What entries made by the operator are signed with in the audit.
pub(crate) const ADMIN: &str = "admin";

const NO_KEY: ApiError =
    ApiError::Unauthorized("send a valid API key as Authorization: Bearer, or as Basic user name");

/// The operator, by the admin token. An API key is no credential here, and the reverse.
pub(crate) struct Admin;

/// A caller who may see and change what is the project's.
pub(crate) struct Principal {
    pub(crate) project: ProjectId,
    /// The key's id, for the audit.
    pub(crate) by: String,
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
        let (app, credential) = (app(request), credential(request));
        Box::pin(async move { principal(&*app?, credential).await })
    }
}

fn admin(request: &HttpRequest) -> Result<Admin, ApiError> {
    let app = app(request)?;
    match credential(request) {
        Some(Credential::Bearer(token)) if app.admin_token.matches(token.reveal()) => {}
        Some(Credential::Bearer(_) | Credential::BasicUser(_)) | None => {
            return Err(ApiError::Unauthorized(
                "send the admin token as Authorization: Bearer",
            ));
        }
    }
    check_current(&app)?;
    Ok(Admin)
}

/// `protocol.md`, rule 4: before a key is called unknown, the projection is brought up to date.
async fn principal(app: &App, credential: Option<Credential>) -> Result<Principal, ApiError> {
    let (Credential::Bearer(key) | Credential::BasicUser(key)) = credential.ok_or(NO_KEY)?;
    // Without this a revoked key could pass for as long as JetStream is away.
    check_current(app)?;
    let hash = hash_key(key.reveal());
    let look = || app.view.read(|state| state.api_key(&hash));
    let found = match look() {
        Some(found) => Some(found),
        None => {
            app.view.catch_up().await?;
            look()
        }
    };
    let (project, key) = found.ok_or(NO_KEY)?;
    Ok(Principal {
        project,
        by: key.to_string(),
    })
}

fn check_current(app: &App) -> Result<(), ApiError> {
    if app.view.is_current() {
        return Ok(());
    }
    let error = "the registry view was not confirmed for 5 s";
    Err(ApiError::Unavailable(error.to_owned()))
}

fn app(request: &HttpRequest) -> Result<web::Data<App>, ApiError> {
    let app = request.app_data::<web::Data<App>>();
    app.cloned()
        .ok_or_else(|| ApiError::internal("the listener has no app"))
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
