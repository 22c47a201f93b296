//! Errors of the management API: what the client sees, and apart from it what is logged.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use shared::domain::registry::CommandError;
use shared::nats::Unavailable;
use shared::nats::registry_view::ExecuteError;
use shared::problem::{self, Problem};

use super::trials;

/// JetStream is mostly back within seconds; an earlier retry finds it away still.
const RETRY_AFTER_SECONDS: &str = "1";

/// Why a call was not carried out. `Display` is for logs; clients get a [`Problem`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The caller's to mend, and told whole.
    #[error("{}: {}", .0.code, .0.detail)]
    Refused(Problem),
    /// With what to send instead.
    #[error("no valid credentials")]
    Unauthorized(Cow<'static, str>),
    /// The thing changed between reading and appending. Handlers try again on it.
    #[error("changed meanwhile")]
    MovedOn,
    /// Nothing was done, and this replica can do nothing at the moment.
    #[error("{0}")]
    Closed(&'static str),
    /// Whether it holds is unknown.
    #[error("{0}")]
    Unavailable(String),
    /// A broken invariant of ours.
    #[error("{0}")]
    Internal(String),
}

impl ApiError {
    pub(crate) fn not_found() -> Self {
        Self::Refused(Problem::not_found())
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::Refused(Problem::bad_request(detail))
    }

    pub(crate) fn stale() -> Self {
        Self::Refused(Problem::stale())
    }

    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }

    fn problem(&self) -> Problem {
        match self {
            Self::Refused(problem) => problem.clone(),
            Self::Unauthorized(instead) => Problem {
                detail: instead.clone().into_owned(),
                ..Problem::unauthorized()
            },
            Self::MovedOn => Problem::conflict("others keep changing it; try again"),
            Self::Closed(detail) => Problem::unavailable(*detail),
            Self::Unavailable(_) => Problem::unavailable(
                "what the answer depends on cannot be reached; look whether it holds, or repeat",
            ),
            Self::Internal(_) => Problem {
                status: 500,
                code: "internal",
                title: "An error of ours",
                detail: "the log has the details".to_owned(),
                errors: Vec::new(),
            },
        }
    }
}

impl From<Unavailable> for ApiError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error.0)
    }
}

impl From<ExecuteError> for ApiError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Refused(CommandError::NotFound) => Self::not_found(),
            ExecuteError::Refused(CommandError::Stale) => Self::MovedOn,
            ExecuteError::Refused(
                refused @ (CommandError::LimitReached { .. }
                | CommandError::Unverified
                | CommandError::ActiveSecret),
            ) => Self::Refused(Problem::conflict(refused.to_string())),
            ExecuteError::Unavailable(detail) => Self::Unavailable(detail),
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        status(&self.problem())
    }

    /// Called once for each failed call, so the log is written here.
    fn error_response(&self) -> HttpResponse {
        match self {
            Self::Unavailable(error) => tracing::warn!(%error, "management call not answered"),
            Self::Internal(error) => tracing::error!(%error, "management call failed"),
            Self::Refused(_) | Self::Unauthorized(_) | Self::MovedOn | Self::Closed(_) => {}
        }
        respond(&self.problem())
    }
}

/// The problem with the headers that its status calls for.
pub(crate) fn respond(problem: &Problem) -> HttpResponse {
    let mut response = HttpResponse::build(status(problem));
    response.insert_header((CONTENT_TYPE, problem::CONTENT_TYPE));
    match problem.status {
        401 => {
            // Basic is understood too, but a challenge for it would open a browser's dialog.
            response.insert_header((WWW_AUTHENTICATE, "Bearer realm=\"carillon\""));
        }
        429 => {
            response.insert_header((RETRY_AFTER, trials::RETRY_AFTER_SECONDS));
        }
        503 => {
            response.insert_header((RETRY_AFTER, RETRY_AFTER_SECONDS));
        }
        _ => {}
    }
    let mut response = response.body(serde_json::to_vec(problem).unwrap_or_default());
    // For a dialect that says it in its own words besides.
    response.extensions_mut().insert(problem.clone());
    response
}

fn status(problem: &Problem) -> StatusCode {
    StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
