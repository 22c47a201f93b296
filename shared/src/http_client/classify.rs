//! What went wrong with an attempt, found by walking the error's causes.
//!
//! Types and `io::ErrorKind` decide, never an error's text. The text is kept only as detail,
//! from the innermost cause: the outer ones say "error sending request", and could name the URL.

use std::error::Error;
use std::io;

use super::AttemptError;
use super::resolver::RefusedAddress;
use crate::domain::delivery::FailureKind;

/// Characters of an error's text that are kept. Certificates can make it arbitrarily long.
const DETAIL_CHARS_MAX: usize = 200;

pub(super) fn attempt_error(error: reqwest::Error) -> AttemptError {
    let error = error.without_url();
    let kind = if causes(&error).any(|cause| cause.is::<RefusedAddress>()) {
        FailureKind::RefusedAddress
    } else if error.is_dns() {
        // Before the causes speak: a resolver's timeout or reset is a DNS failure all the same.
        FailureKind::Dns
    } else if let Some(kind) = kind_by_cause(&error, Phase::of(&error)) {
        kind
    } else if error.is_connect() {
        FailureKind::Connect
    } else if error.is_timeout() {
        FailureKind::Timeout
    } else {
        FailureKind::Protocol
    };
    AttemptError {
        kind,
        detail: detail(&error),
    }
}

/// When it happened: the end of the stream means something else during a TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Exchanging,
}

impl Phase {
    fn of(error: &reqwest::Error) -> Self {
        if error.is_connect() {
            Self::Connecting
        } else {
            Self::Exchanging
        }
    }
}

/// The outermost cause that settles it.
fn kind_by_cause(error: &(dyn Error + 'static), phase: Phase) -> Option<FailureKind> {
    causes(error).find_map(|cause| {
        if cause.is::<rustls::Error>() {
            Some(FailureKind::Tls)
        } else if let Some(hyper) = cause.downcast_ref::<hyper::Error>() {
            kind_of_hyper(hyper)
        } else if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            kind_of_h2(h2)
        } else if let Some(io) = cause.downcast_ref::<io::Error>() {
            kind_of_io(io, phase)
        } else {
            None
        }
    })
}

fn kind_of_hyper(error: &hyper::Error) -> Option<FailureKind> {
    if error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || error.is_body_write_aborted()
    {
        Some(FailureKind::Reset)
    } else if error.is_parse() {
        Some(FailureKind::Protocol)
    } else {
        None
    }
}

fn kind_of_h2(error: &h2::Error) -> Option<FailureKind> {
    if error.is_io() {
        None
    } else if error.is_remote() {
        // RST_STREAM or GOAWAY by the peer: it ended the exchange, as a reset connection does.
        Some(FailureKind::Reset)
    } else {
        Some(FailureKind::Protocol)
    }
}

fn kind_of_io(error: &io::Error, phase: Phase) -> Option<FailureKind> {
    match (error.kind(), phase) {
        (io::ErrorKind::TimedOut, _) => Some(FailureKind::Timeout),
        (
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe,
            _,
        ) => Some(FailureKind::Reset),
        // A TCP handshake knows no end of stream, so it was the TLS one that was cut short.
        (io::ErrorKind::UnexpectedEof, Phase::Connecting) => Some(FailureKind::Tls),
        (io::ErrorKind::UnexpectedEof, Phase::Exchanging) => Some(FailureKind::Reset),
        _ => None,
    }
}

/// The error and all that caused it, outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| cause_of(*error))
}

fn cause_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    // `io::Error::source` passes over the error that it wraps, which is where rustls puts its own.
    if let Some(io) = error.downcast_ref::<io::Error>()
        && let Some(wrapped) = io.get_ref()
    {
        return Some(wrapped);
    }
    // `h2::Error` reports no source at all.
    if let Some(h2) = error.downcast_ref::<h2::Error>()
        && let Some(io) = h2.get_io()
    {
        return Some(io);
    }
    error.source()
}

fn detail(error: &(dyn Error + 'static)) -> String {
    let innermost = causes(error).last().unwrap_or(error);
    innermost
        .to_string()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(DETAIL_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_errors_are_told_apart_by_kind_and_phase() {
        use io::ErrorKind as Io;
        let cases = [
            (
                Io::ConnectionReset,
                Phase::Exchanging,
                Some(FailureKind::Reset),
            ),
            (
                Io::ConnectionAborted,
                Phase::Exchanging,
                Some(FailureKind::Reset),
            ),
            (Io::BrokenPipe, Phase::Exchanging, Some(FailureKind::Reset)),
            (
                Io::UnexpectedEof,
                Phase::Exchanging,
                Some(FailureKind::Reset),
            ),
            (Io::UnexpectedEof, Phase::Connecting, Some(FailureKind::Tls)),
            (
                Io::ConnectionReset,
                Phase::Connecting,
                Some(FailureKind::Reset),
            ),
            (Io::TimedOut, Phase::Connecting, Some(FailureKind::Timeout)),
            (Io::ConnectionRefused, Phase::Connecting, None),
            (Io::NetworkUnreachable, Phase::Connecting, None),
        ];
        for (kind, phase, expected) in cases {
            let error = io::Error::other(io::Error::from(kind));
            assert_eq!(kind_by_cause(&error, phase), expected, "{kind:?} {phase:?}");
        }
    }

    #[test]
    fn a_tls_error_is_found_inside_an_io_error() {
        let tls = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        let error = io::Error::new(io::ErrorKind::InvalidData, tls);
        let kind = kind_by_cause(&error, Phase::Connecting);
        assert_eq!(kind, Some(FailureKind::Tls));
        assert!(detail(&error).contains("Expired"), "{}", detail(&error));
    }

    #[test]
    fn detail_is_one_bounded_line() {
        let error = io::Error::other(format!("a\r\nb{}", "x".repeat(1_000)));
        let detail = detail(&error);
        assert!(detail.starts_with("a  bx"));
        assert_eq!(detail.chars().count(), DETAIL_CHARS_MAX);
    }

    /// HTTP/2 runs over TLS only, so its failures are made on a pipe, by real peers.
    #[tokio::test]
    async fn h2_streams_reset_by_the_peer_and_lost_connections_are_resets() {
        for peer_resets in [true, false] {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let peer = async move {
                let mut connection = h2::server::handshake(theirs).await.unwrap();
                let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
                if peer_resets {
                    respond.send_reset(h2::Reason::INTERNAL_ERROR);
                    std::future::poll_fn(|ctx| connection.poll_closed(ctx))
                        .await
                        .ok();
                }
            };
            let client = async move {
                let (send, connection) = h2::client::handshake(ours).await.unwrap();
                let exchange = async move {
                    let mut send = send.ready().await.unwrap();
                    let request = hyper::Request::post("https://endpoint.test/");
                    let request = request.body(()).unwrap();
                    let (response, _stream) = send.send_request(request, true).unwrap();
                    response.await.unwrap_err()
                };
                let (error, _closed) = tokio::join!(exchange, connection);
                error
            };
            let ((), error) = tokio::join!(peer, client);
            let kind = kind_by_cause(&error, Phase::Exchanging);
            assert_eq!(kind, Some(FailureKind::Reset), "{error:?}");
        }
    }
}
