//! Why a request is refused: what its sender sees. What is logged is logged where it happens, and
//! may say more.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use shared::problem::{self, Problem};

use crate::core::first_party::BodyError;
use crate::memory::Exhausted;
use crate::metrics::Outcome;

/// JetStream elects a new leader, or a restarted server reads its streams, in about this time.
const RETRY_AFTER_SECONDS: u32 = 5;
/// Requests in progress end sooner.
const RETRY_AFTER_BUSY_SECONDS: u32 = 1;
/// A person has to type something in.
const RETRY_AFTER_UNVERIFIABLE_SECONDS: u32 = 60;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IngestError {
    #[error("no valid API key")]
    Unauthorized,
    /// Unknown account or wrong ingest key, alike on purpose.
    #[error("unknown account or ingest key")]
    UnknownAccount,
    #[error("the signature is not valid")]
    BadSignature,
    #[error("the account has no usable signing secret")]
    Unverifiable,
    #[error("not understood: {0}")]
    Malformed(Cow<'static, str>),
    /// Signed, and yet nothing that the connector can read.
    #[error("the callback cannot be mapped: {0}")]
    Unmappable(String),
    #[error("too large: {0}")]
    TooLarge(Cow<'static, str>),
    /// A callback that makes more than one may.
    #[error("too much: {0}")]
    TooMuch(String),
    #[error("{0}")]
    TooSlow(&'static str),
    #[error("too many bytes are held already")]
    Busy,
    #[error("the project holds too many bytes already")]
    ProjectBusy,
    #[error("not available: {0}")]
    Unavailable(&'static str),
}

impl IngestError {
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Unauthorized | Self::UnknownAccount => Outcome::Unknown,
            Self::BadSignature => Outcome::BadSignature,
            Self::Unverifiable => Outcome::Unverifiable,
            Self::Malformed(_) | Self::Unmappable(_) => Outcome::Malformed,
            Self::TooLarge(_) => Outcome::TooLarge,
            Self::TooMuch(_) => Outcome::TooMuch,
            Self::TooSlow(_) => Outcome::TooSlow,
            Self::Busy => Outcome::Busy,
            Self::ProjectBusy => Outcome::ProjectBusy,
            Self::Unavailable(_) => Outcome::Unavailable,
        }
    }

    fn problem(&self) -> Problem {
        match self {
            Self::Unauthorized => Problem::unauthorized(),
            Self::UnknownAccount => Problem::not_found(),
            Self::BadSignature => Problem::bad_signature(),
            Self::Unverifiable => Problem::unavailable("the account has no usable signing secret"),
            Self::Malformed(detail) => Problem::bad_request(detail.clone()),
            Self::Unmappable(detail) => Problem::invalid_field("", detail.clone()),
            Self::TooLarge(detail) => Problem::too_large(detail.clone()),
            Self::TooMuch(detail) => Problem::too_large(detail.clone()),
            Self::TooSlow(detail) => Problem {
                status: StatusCode::REQUEST_TIMEOUT.as_u16(),
                code: "request_timeout",
                title: "Request timeout",
                detail: (*detail).into(),
                errors: Vec::new(),
            },
            Self::Busy => Problem::unavailable("too many requests are in progress"),
            Self::ProjectBusy => {
                Problem::unavailable("too many requests of this project are in progress")
            }
            Self::Unavailable(detail) => Problem::unavailable(*detail),
        }
    }
}

impl ResponseError for IngestError {
    fn status_code(&self) -> StatusCode {
        status(&self.problem())
    }

    fn error_response(&self) -> HttpResponse {
        let problem = self.problem();
        let mut response = response(&problem);
        match self {
            Self::Unauthorized => {
                response.insert_header((WWW_AUTHENTICATE, "Bearer, Basic realm=\"carillon\""));
            }
            Self::Unverifiable => {
                response.insert_header((RETRY_AFTER, RETRY_AFTER_UNVERIFIABLE_SECONDS));
            }
            Self::Busy | Self::ProjectBusy => {
                response.insert_header((RETRY_AFTER, RETRY_AFTER_BUSY_SECONDS));
            }
            Self::UnknownAccount
            | Self::BadSignature
            | Self::Malformed(_)
            | Self::Unmappable(_)
            | Self::TooLarge(_)
            | Self::TooMuch(_)
            | Self::TooSlow(_)
            | Self::Unavailable(_) => {}
        }
        response.json(problem)
    }
}

/// An answer with the problem's status and type, to be given a body. One of 503 says when to come
/// again. One to somebody who has not proved anything ends the connection: kept open, a few
/// thousand strangers could hold all that there are.
pub(crate) fn response(problem: &Problem) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status(problem));
    response.content_type(problem::CONTENT_TYPE);
    match status(problem) {
        StatusCode::SERVICE_UNAVAILABLE => {
            response.insert_header((RETRY_AFTER, RETRY_AFTER_SECONDS));
        }
        StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            response.force_close();
        }
        _ => {}
    }
    response
}

fn status(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl From<BodyError> for IngestError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::NotUtf8 | BodyError::NotJson(_) | BodyError::TooDeep | BodyError::Empty => {
                Self::Malformed(error.to_string().into())
            }
            BodyError::TooMany => Self::TooLarge(error.to_string().into()),
        }
    }
}

impl From<Exhausted> for IngestError {
    fn from(exhausted: Exhausted) -> Self {
        match exhausted {
            Exhausted::Everybody => Self::Busy,
            Exhausted::Project => Self::ProjectBusy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_may_pass_says_when_to_come_again() {
        for (error, status, retry_after) in [
            (IngestError::Unauthorized, 401, None),
            (IngestError::UnknownAccount, 404, None),
            (IngestError::BadSignature, 401, None),
            (IngestError::Unverifiable, 503, Some("60")),
            (IngestError::Malformed("x".into()), 400, None),
            (IngestError::Unmappable("x".into()), 422, None),
            (IngestError::TooLarge("x".into()), 413, None),
            (IngestError::TooMuch("x".into()), 413, None),
            (IngestError::TooSlow("x"), 408, None),
            (IngestError::Busy, 503, Some("1")),
            (IngestError::ProjectBusy, 503, Some("1")),
            (IngestError::Unavailable("x"), 503, Some("5")),
        ] {
            let response = error.error_response();
            assert_eq!(response.status().as_u16(), status, "{error}");
            assert_eq!(error.status_code().as_u16(), status, "{error}");
            let headers = response.headers();
            let retry = headers
                .get(RETRY_AFTER)
                .map(|value| value.to_str().unwrap());
            assert_eq!(retry, retry_after, "{error}");
            let closes = !response.head().keep_alive();
            assert_eq!(closes, matches!(status, 401 | 404), "{error}");
            assert_eq!(headers.get("content-type").unwrap(), problem::CONTENT_TYPE);
        }
    }
}
