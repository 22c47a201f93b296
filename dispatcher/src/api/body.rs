//! Request bodies: read by the handler after the caller is known, within bounds of size and time;
//! and since that can take long, the caller is looked at once more afterwards.

use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{FromRequest, HttpRequest};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use serde_json::Value;
use shared::limits::API_BODY_BYTES_MAX;
use shared::problem::Problem;

use super::auth::Caller;
use super::error::ApiError;
use super::fields::Fields;
use super::open_app::OpenApp;

/// For the whole body; a slower sender holds a connection for nothing.
const BODY_WITHIN: Duration = Duration::from_secs(30);

/// A body that has not been read yet: an extractor that read it would do so before, or beside,
/// the check of who asks.
pub(crate) struct Body {
    payload: Payload,
    is_json: bool,
}

impl FromRequest for Body {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        ready(Ok(Self {
            payload: payload.take(),
            is_json: is_json(request),
        }))
    }
}

impl Body {
    /// The fields of the JSON object that the body is. 400 when it is none, 413 above 256 KiB,
    /// 401 and 503 when it arrived after the caller's key was revoked, or while we are stopping.
    pub(crate) async fn fields(
        self,
        caller: &impl Caller,
        app: &OpenApp,
    ) -> Result<Fields, ApiError> {
        object(parse(&self.bytes(caller, app).await?)?)
    }

    /// The same of a body that may also be missing, which says as much as an empty object.
    pub(crate) async fn fields_if_any(
        self,
        caller: &impl Caller,
        app: &OpenApp,
    ) -> Result<Fields, ApiError> {
        let body = self.bytes(caller, app).await?;
        if body.is_empty() {
            return Ok(Fields::new(serde_json::Map::new()));
        }
        object(parse(&body)?)
    }

    /// The elements of the JSON array that the body is. Errors as of [`Self::fields`].
    pub(crate) async fn elements(
        self,
        caller: &impl Caller,
        app: &OpenApp,
    ) -> Result<Vec<Value>, ApiError> {
        match parse(&self.bytes(caller, app).await?)? {
            Value::Array(elements) => Ok(elements),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => Err(ApiError::bad_request("the body must be a JSON array")),
        }
    }

    async fn bytes(self, caller: &impl Caller, app: &OpenApp) -> Result<BytesMut, ApiError> {
        if !self.is_json {
            return Err(ApiError::bad_request("the body must be application/json"));
        }
        let body = tokio::time::timeout(BODY_WITHIN, read(self.payload))
            .await
            .map_err(|_| ApiError::bad_request("the body did not arrive within 30 s"))??;
        app.check_still_open()?;
        caller.recheck(app)?;
        Ok(body)
    }
}

fn parse(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("the body is no JSON: {error}")))
}

fn object(value: Value) -> Result<Fields, ApiError> {
    match value {
        Value::Object(members) => Ok(Fields::new(members)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(ApiError::bad_request("the body must be a JSON object"))
        }
    }
}

async fn read(mut payload: Payload) -> Result<BytesMut, ApiError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| ApiError::bad_request("the body did not arrive whole"))?;
        if body.len().saturating_add(chunk.len()) > API_BODY_BYTES_MAX {
            let detail = format!("a body may have at most {API_BODY_BYTES_MAX} bytes");
            return Err(ApiError::Refused(Problem::too_large(detail)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A body without a type is taken for JSON; one that says something else is not.
fn is_json(request: &HttpRequest) -> bool {
    let Some(content_type) = request.headers().get(CONTENT_TYPE) else {
        return true;
    };
    let essence = content_type.to_str().unwrap_or_default().split(';').next();
    essence.is_some_and(|essence| {
        let essence = essence.trim().to_ascii_lowercase();
        essence == "application/json"
            || (essence.starts_with("application/") && essence.ends_with("+json"))
    })
}
