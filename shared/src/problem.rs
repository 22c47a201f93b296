//! `application/problem+json` (RFC 9457) with a stable `code`: what both services answer errors
//! with. What is logged is separate, and may say more.

use serde::Serialize;

pub const CONTENT_TYPE: &str = "application/problem+json";

/// An error as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub status: u16,
    /// Stable; what programs branch on.
    pub code: &'static str,
    pub title: &'static str,
    pub detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// What is wrong with one place of the request body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer into the body.
    pub pointer: String,
    pub detail: String,
}

impl Problem {
    fn new(
        status: u16,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            title,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// Not understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, "bad_request", "Not understood", detail)
    }

    pub fn unauthorized() -> Self {
        Self::new(
            401,
            "unauthorized",
            "No valid credentials",
            "send a valid API key",
        )
    }

    pub fn bad_signature() -> Self {
        Self::new(
            401,
            "bad_signature",
            "Signature not valid",
            "the callback's signature does not match its body",
        )
    }

    /// Not there, or not the caller's: alike on purpose.
    pub fn not_found() -> Self {
        Self::new(404, "not_found", "Not found", "there is no such thing here")
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "method_not_allowed",
            "Method not allowed",
            "see the documentation",
        )
    }

    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(
            409,
            "conflict",
            "In conflict with the current state",
            detail,
        )
    }

    /// The `If-Match` header names an older version.
    pub fn stale() -> Self {
        Self::new(
            412,
            "stale",
            "Changed meanwhile",
            "read the current version and try again",
        )
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(413, "too_large", "Too large", detail)
    }

    /// The key stands for another request.
    pub fn idempotency_mismatch() -> Self {
        Self::new(
            422,
            "idempotency_mismatch",
            "Understood but invalid",
            "an earlier call with this Idempotency-Key had another body",
        )
    }

    /// Understood but invalid.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", only.pointer, only.detail),
            _ => format!("{} fields are invalid", errors.len()),
        };
        Self {
            errors,
            ..Self::new(422, "invalid", "Understood but invalid", detail)
        }
    }

    pub fn invalid_field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError {
            pointer: pointer.into(),
            detail: detail.into(),
        }])
    }

    /// More calls of this kind than are taken in a while.
    pub fn too_many(detail: impl Into<String>) -> Self {
        Self::new(429, "too_many", "Too many calls", detail)
    }

    /// The endpoint did not echo what it was sent.
    pub fn not_verified(detail: impl Into<String>) -> Self {
        Self::new(409, "not_verified", "Not verified", detail)
    }

    /// Whether it holds is unknown: look, or repeat.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(503, "unavailable", "Not available at the moment", detail)
    }
}
