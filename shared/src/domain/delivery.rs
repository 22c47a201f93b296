//! What an attempt can come to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why an attempt failed. The names are the `error` of the attempts API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// No response head within the webhook's timeout, connecting included.
    Timeout,
    /// No TCP connection.
    Connect,
    /// No TLS session, or the endpoint's certificate is not trusted.
    Tls,
    /// The host name resolves to nothing.
    Dns,
    /// The host is, or by now resolves to, an address that may not be called.
    RefusedAddress,
    /// The connection ended before the response head.
    Reset,
    /// The endpoint answered, with a status that is no success.
    Status,
    /// The endpoint's answer is not HTTP.
    Protocol,
}

impl FailureKind {
    /// The name on the wire, and a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::RefusedAddress => "refused_address",
            Self::Reset => "reset",
            Self::Status => "status",
            Self::Protocol => "protocol",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_kinds_are_named_as_the_api_names_them() {
        let cases = [
            (FailureKind::Timeout, "timeout"),
            (FailureKind::Connect, "connect"),
            (FailureKind::Tls, "tls"),
            (FailureKind::Dns, "dns"),
            (FailureKind::RefusedAddress, "refused_address"),
            (FailureKind::Reset, "reset"),
            (FailureKind::Status, "status"),
            (FailureKind::Protocol, "protocol"),
        ];
        for (kind, name) in cases {
            assert_eq!(kind.as_str(), name);
            assert_eq!(serde_json::to_value(kind).unwrap(), name);
            assert_eq!(
                serde_json::from_value::<FailureKind>(name.into()).unwrap(),
                kind
            );
        }
    }
}
