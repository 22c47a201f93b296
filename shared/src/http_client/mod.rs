//! The one HTTP client that calls subscribers' endpoints.
//!
//! Every connection that it opens goes to an address that the guard permits: literals are checked
//! before each request, names at each lookup, and what was looked up is what is connected to.
//! An attempt is one POST. It follows no redirect, uses no proxy (the environment's included),
//! keeps no cookies and decompresses nothing. Its outcome is fixed at the response head.
//!
//! Deliberately absent: signing, retry decisions, what counts as success (the dialect's), and a
//! clock; the caller takes the time when [`GuardedClient::send`] returns.

mod classify;
mod resolver;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::time::timeout;

use self::resolver::{GuardedResolver, RefusedAddress};
use crate::address_guard::AddressGuard;
use crate::domain::delivery::FailureKind;
use crate::domain::endpoint_url::{EndpointHost, EndpointUrl};
use crate::limits::ANSWER_BYTES_MAX;
use crate::retry_after;
use crate::time::Timestamp;

pub use self::resolver::{Resolve, Resolving, SystemResolver};

/// Resolving a new endpoint's name. The person who creates the webhook is waiting.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Reading an answer's body. The outcome is already fixed; what the wait buys is a connection to
/// use again and a receiver that is not cut off in mid-answer.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// Of a body, at most this is read. Above it a new connection is cheaper.
const BODY_BYTES_MAX: usize = 64 << 10;
/// `Retry-After` and `Date`: a number or a date of 29 characters. Longer ones count as absent.
const HEADER_CHARS_MAX: usize = 128;
/// Idle connections are closed before most servers and middleboxes do: a request that meets such
/// a close is a failed attempt. Many endpoints also mean many descriptors.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections kept for one host. Many webhooks may share one, so this is more than all
/// attempts that are being sent at once: with less, a busy host's connections were closed and
/// opened for every third attempt, at twice the CPU time for each delivery.
const IDLE_PER_HOST_MAX: usize = 256;
/// HTTP/2 windows bound what a peer can make us buffer. The defaults (2 and 5 MiB) are for
/// downloads; here answers are small.
const H2_STREAM_WINDOW_BYTES: u32 = 64 << 10;
const H2_CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Posts to endpoints, to permitted addresses only. Clones share the connections.
#[derive(Clone)]
pub struct GuardedClient {
    client: reqwest::Client,
    guard: Arc<AddressGuard>,
    resolver: Arc<dyn Resolve>,
}

/// Whether an endpoint may be plain http.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpsRule {
    /// https, unless the allow list names every address of the endpoint (`stackone`).
    RequiredUnlessExcepted,
    /// http will do (`hr-on`).
    Any,
}

/// Why a URL may not become an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointRefused {
    /// `address` is for logs. The message leaves it out, because it would tell a tenant how names
    /// resolve inside our network.
    #[error("{host} is, or resolves to, an address that is not public")]
    RefusedAddress { host: String, address: IpAddr },
    #[error("the endpoint must use https")]
    HttpsRequired,
    #[error("the host name {host} does not resolve")]
    Unresolvable { host: String },
}

/// What one POST came to.
pub type AttemptResult = Result<ResponseHead, AttemptError>;

/// An endpoint's answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: u16,
    /// The first [`ANSWER_BYTES_MAX`] bytes of the body, or what of them came in time. Empty for
    /// 2xx.
    pub answer: Bytes,
}

/// An attempt without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct AttemptError {
    /// Never [`FailureKind::Status`]: a status is an answer.
    pub kind: FailureKind,
    /// One bounded line for people. Of the request it names the host at most.
    pub detail: String,
}

/// The client could not be set up: the system has no root certificates, or an extra one or the
/// user agent is malformed.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the http client")]
pub struct ClientSetupError(#[from] reqwest::Error);

impl GuardedClient {
    /// Trusts the system's root certificates.
    pub fn new(
        guard: Arc<AddressGuard>,
        resolver: Arc<dyn Resolve>,
        user_agent: &str,
    ) -> Result<Self, ClientSetupError> {
        Self::with_extra_roots(guard, resolver, user_agent, &[])
    }

    /// Trusts `extra_roots` (DER) besides the system's.
    pub fn with_extra_roots(
        guard: Arc<AddressGuard>,
        resolver: Arc<dyn Resolve>,
        user_agent: &str,
        extra_roots: &[Vec<u8>],
    ) -> Result<Self, ClientSetupError> {
        install_crypto_provider();
        let roots = extra_roots
            .iter()
            .map(|der| reqwest::Certificate::from_der(der))
            .collect::<Result<Vec<_>, _>>()?;
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        // What is not switched off here is not compiled in: cookies and decompression are
        // features of reqwest that the workspace does not enable. Its default retry stays: it
        // repeats only what the peer declares unprocessed (RFC 9113, 8.7), which is no second
        // POST to the receiver.
        let client = reqwest::Client::builder()
            .user_agent(user_agent)
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            // Also ignores HTTP_PROXY and its kin. Through a proxy the guard would judge the
            // proxy's address and not the endpoint's.
            .no_proxy()
            .dns_resolver(GuardedResolver {
                guard: Arc::clone(&guard),
                resolver: Arc::clone(&resolver),
            })
            .tls_certs_merge(roots)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .http2_initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
            .build()?;
        Ok(Self {
            client,
            guard,
            resolver,
        })
    }

    /// Whether a webhook may be created with this URL. Every address counts: one that is refused
    /// refuses the endpoint. Takes at most 5 s.
    pub async fn check_endpoint(
        &self,
        url: &EndpointUrl,
        https: HttpsRule,
    ) -> Result<(), EndpointRefused> {
        let addresses = self.addresses(url.host()).await?;
        if let Some(refused) = addresses.iter().find(|a| !self.guard.permits(**a)) {
            return Err(EndpointRefused::RefusedAddress {
                host: url.host().to_string(),
                address: *refused,
            });
        }
        let plain_will_do = match https {
            HttpsRule::Any => true,
            HttpsRule::RequiredUnlessExcepted => {
                addresses.iter().all(|a| self.guard.is_excepted(*a))
            }
        };
        if url.scheme_is_https() || plain_will_do {
            Ok(())
        } else {
            Err(EndpointRefused::HttpsRequired)
        }
    }

    /// Never empty.
    async fn addresses(&self, host: EndpointHost<'_>) -> Result<Vec<IpAddr>, EndpointRefused> {
        let name = match host {
            EndpointHost::Ip(address) => return Ok(vec![address]),
            EndpointHost::Name(name) => name,
        };
        match timeout(CHECK_TIMEOUT, self.resolver.resolve(name.to_owned())).await {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            Ok(Ok(_) | Err(_)) | Err(_) => Err(EndpointRefused::Unresolvable {
                host: name.to_owned(),
            }),
        }
    }

    /// One POST with what follows of the answer: [`Self::send`], then the body, kept for other
    /// statuses than 2xx and dropped for those. Returns at most 1 s after the response head.
    pub async fn post(
        &self,
        url: &EndpointUrl,
        headers: HeaderMap,
        body: Bytes,
        head_within: Duration,
    ) -> AttemptResult {
        let answer = self.send(url, headers, body, head_within).await?;
        Ok(if (200..300).contains(&answer.status()) {
            answer.discard().await
        } else {
            answer.keep().await
        })
    }

    /// One POST up to the response head, where its outcome is fixed. `head_within` covers lookup,
    /// connection and head together.
    pub async fn send(
        &self,
        url: &EndpointUrl,
        headers: HeaderMap,
        body: Bytes,
        head_within: Duration,
    ) -> Result<Answer, AttemptError> {
        // A literal never comes to the resolver.
        if let EndpointHost::Ip(address) = url.host()
            && !self.guard.permits(address)
        {
            let host = address.to_string();
            return Err(AttemptError {
                kind: FailureKind::RefusedAddress,
                detail: RefusedAddress { host, address }.to_string(),
            });
        }
        let mut request = reqwest::Request::new(reqwest::Method::POST, url.url().clone());
        *request.headers_mut() = headers;
        *request.body_mut() = Some(body.into());
        match timeout(head_within, self.client.execute(request)).await {
            Ok(Ok(response)) => Ok(Answer { response }),
            Ok(Err(error)) => Err(classify::attempt_error(error)),
            Err(_) => Err(AttemptError {
                kind: FailureKind::Timeout,
                detail: format!("no response head within {} ms", head_within.as_millis()),
            }),
        }
    }
}

/// A response head whose body is still to be read. Dropping it closes the connection, so one of
/// the two ends is worth its wait. No `Debug`: the response would print the URL with its query.
pub struct Answer {
    response: reqwest::Response,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// How long the endpoint asks to be left alone, in milliseconds, at most 24 h. Of 429 and 503
    /// alone (`protocol.md`, rule 16): elsewhere the header means something else, or nothing.
    /// `now` is the time of the head's arrival.
    pub fn retry_after_ms(&self, now: Timestamp) -> Option<u64> {
        let asks_for_rest = matches!(
            self.response.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        if !asks_for_rest {
            return None;
        }
        let value = self.short_header(&header::RETRY_AFTER)?;
        retry_after::parse_ms(value, self.short_header(&header::DATE), now)
    }

    /// Keeps the first [`ANSWER_BYTES_MAX`] bytes of the body.
    pub async fn keep(self) -> ResponseHead {
        self.finish(ANSWER_BYTES_MAX).await
    }

    /// Keeps nothing of the body.
    pub async fn discard(self) -> ResponseHead {
        self.finish(0).await
    }

    /// The body, to its end; `None` if it is larger or breaks off. The caller bounds the time.
    pub async fn whole(mut self, bytes_max: usize) -> Option<Bytes> {
        let mut body = Vec::new();
        while let Some(chunk) = self.response.chunk().await.ok()? {
            if body.len().saturating_add(chunk.len()) > bytes_max {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        Some(body.into())
    }

    async fn finish(self, kept_bytes_max: usize) -> ResponseHead {
        ResponseHead {
            status: self.status(),
            answer: read_body(self.response, kept_bytes_max).await,
        }
    }

    fn short_header(&self, name: &HeaderName) -> Option<&str> {
        let text = self.response.headers().get(name)?.to_str().ok()?;
        (text.len() <= HEADER_CHARS_MAX).then_some(text)
    }
}

/// Reads to the end within the bounds, so that the connection can be used again; past them the
/// response is dropped and its connection with it. An error here changes nothing any more.
async fn read_body(mut response: reqwest::Response, kept_bytes_max: usize) -> Bytes {
    // Copied rather than sliced: a slice would hold on to the whole read buffer.
    let mut kept = Vec::new();
    let read_all = async {
        let mut read_bytes = 0_usize;
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = kept_bytes_max.saturating_sub(kept.len());
            kept.extend(chunk.iter().take(room));
            read_bytes = read_bytes.saturating_add(chunk.len());
            if read_bytes > BODY_BYTES_MAX {
                break;
            }
        }
    };
    timeout(BODY_TIMEOUT, read_all).await.unwrap_or_default();
    kept.into()
}

/// reqwest takes the process's provider, and panics where there is none.
pub fn install_crypto_provider() {
    let ring = rustls::crypto::ring::default_provider();
    // An error means that one is installed already, by an earlier client or the NATS library.
    ring.install_default().ok();
}
