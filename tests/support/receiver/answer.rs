//! What a rule is asked, and what it can answer.

use std::time::Duration;

/// A request, for a rule to judge.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub path: String,
    /// `webhook-id`.
    pub id: String,
    pub event: String,
    pub record_id: String,
    /// 1 for the first arrival of this id.
    pub number: usize,
    /// As text; a recorder does not keep it.
    pub body: String,
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) end: End,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
    pub(super) delay: Duration,
}

/// How a request ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Status(u16),
    /// The connection is closed without an answer.
    Closed,
    /// The connection is reset without an answer.
    Reset,
}

impl Answer {
    /// A status without a body, at once.
    pub fn status(status: u16) -> Self {
        Self {
            end: End::Status(status),
            headers: Vec::new(),
            body: String::new(),
            delay: Duration::ZERO,
        }
    }

    /// Closes the connection.
    pub fn drop_connection() -> Self {
        Self {
            end: End::Closed,
            ..Self::status(0)
        }
    }

    /// Resets the connection.
    pub fn reset_connection() -> Self {
        Self {
            end: End::Reset,
            ..Self::status(0)
        }
    }

    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    #[must_use]
    pub fn with_body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }
}
