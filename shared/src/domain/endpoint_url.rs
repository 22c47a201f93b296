//! The URL of a subscriber's endpoint.
//!
//! Parsed once, at the edge. What a parsed value holds: scheme http or https, a host that is an
//! address or a plain DNS name, a port other than 0, no user info, no fragment, at most
//! [`EndpointUrl::BYTES_MAX`]. Which addresses may be called is `address_guard`'s question, and
//! whether http will do is the dialect's.
//!
//! The query is kept as it was given: some receivers authenticate by a token there, so it is
//! never printed. [`EndpointUrl::as_str`] and serialization alone show the whole.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use url::{Host, Url};

/// A URL that deliveries may be posted to, normalized as WHATWG says.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointUrl(Url);

/// Where an endpoint is, before any name is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointHost<'a> {
    /// A literal, in whatever notation it was written: `0x7f.1` and `2130706433` are 127.0.0.1.
    Ip(IpAddr),
    /// A DNS name, lowercase, internationalized parts in punycode.
    Name(&'a str),
}

/// Why a text is no endpoint URL. Names no part of the text that could hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpointUrl {
    #[error("the url is longer than {} bytes", EndpointUrl::BYTES_MAX)]
    TooLong,
    #[error("the url contains white space or control characters")]
    ForbiddenCharacter,
    #[error("not an absolute url: {0}")]
    Syntax(#[from] url::ParseError),
    #[error("the url's scheme is neither https nor http")]
    Scheme,
    #[error("the url's host is neither an address nor a dns name")]
    Host,
    #[error("port 0 cannot be called")]
    PortZero,
    #[error("the url carries a user name or password")]
    UserInfo,
    #[error("the url has a fragment, which is never sent")]
    Fragment,
}

impl EndpointUrl {
    /// Holds before and after normalization, which may lengthen a text threefold.
    pub const BYTES_MAX: usize = 2048;

    pub fn parse(text: &str) -> Result<Self, InvalidEndpointUrl> {
        if text.len() > Self::BYTES_MAX {
            return Err(InvalidEndpointUrl::TooLong);
        }
        // The parser would drop these silently, and what is stored should be what was sent.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidEndpointUrl::ForbiddenCharacter);
        }
        let url = Url::parse(text)?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(InvalidEndpointUrl::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidEndpointUrl::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(InvalidEndpointUrl::Fragment);
        }
        if url.port() == Some(0) {
            return Err(InvalidEndpointUrl::PortZero);
        }
        match url.host() {
            Some(Host::Ipv4(_) | Host::Ipv6(_)) => {}
            Some(Host::Domain(name)) if is_dns_name(name) => {}
            Some(Host::Domain(_)) | None => return Err(InvalidEndpointUrl::Host),
        }
        if url.as_str().len() > Self::BYTES_MAX {
            return Err(InvalidEndpointUrl::TooLong);
        }
        Ok(Self(url))
    }

    /// The whole URL, its query included. For sending and storing, never for printing.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The whole URL, its query included. For sending, never for printing.
    pub const fn url(&self) -> &Url {
        &self.0
    }

    pub fn scheme_is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    pub fn host(&self) -> EndpointHost<'_> {
        match self.0.host() {
            Some(Host::Ipv4(address)) => EndpointHost::Ip(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => EndpointHost::Ip(IpAddr::V6(address)),
            Some(Host::Domain(name)) => EndpointHost::Name(name),
            // `parse` lets no URL without a host through; the empty name resolves to nothing.
            None => EndpointHost::Name(""),
        }
    }

    /// The port to connect to: the URL's, else the scheme's.
    pub fn port(&self) -> u16 {
        let default = if self.scheme_is_https() { 443 } else { 80 };
        self.0.port().unwrap_or(default)
    }
}

/// WHATWG lets quotes and braces pass in a host. No DNS name has them, and the HTTP library
/// refuses them, at the first delivery instead of here.
fn is_dns_name(name: &str) -> bool {
    name.bytes()
        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}

impl fmt::Display for EndpointHost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The URL with its query masked.
impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str().split_once('?') {
            Some((before, _query)) => write!(f, "{before}?***"),
            None => f.write_str(self.0.as_str()),
        }
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The whole URL: this is what the registry stores and the owner's API shows.
impl Serialize for EndpointUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for EndpointUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> EndpointUrl {
        EndpointUrl::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[test]
    fn parses_and_normalizes() {
        let cases = [
            ("https://example.com", "https://example.com/", 443),
            ("HTTP://Example.COM:80/a/../b", "http://example.com/b", 80),
            (
                "https://example.com:8443/h?token=a%20b&x=/?",
                "https://example.com:8443/h?token=a%20b&x=/?",
                8443,
            ),
            (
                "https://bücher.example/ä",
                "https://xn--bcher-kva.example/%C3%A4",
                443,
            ),
            ("http://[::1]:8080/", "http://[::1]:8080/", 8080),
            ("https://a_b.example./x", "https://a_b.example./x", 443),
        ];
        for (text, normalized, port) in cases {
            let url = parsed(text);
            assert_eq!(url.as_str(), normalized);
            assert_eq!(url.port(), port, "{text}");
            assert_eq!(url.scheme_is_https(), normalized.starts_with("https:"));
            assert_eq!(
                parsed(url.as_str()),
                url,
                "normalizing twice changes nothing"
            );
        }
    }

    #[test]
    fn every_notation_of_an_address_is_seen_as_that_address() {
        let cases = [
            ("http://127.0.0.1/", "127.0.0.1"),
            ("http://127.1/", "127.0.0.1"),
            ("http://0x7f.1/", "127.0.0.1"),
            ("http://0x7f000001/", "127.0.0.1"),
            ("http://2130706433/", "127.0.0.1"),
            ("http://0177.0.0.01/", "127.0.0.1"),
            ("http://127.0.0.1./", "127.0.0.1"),
            ("http://%31%32%37.0.0.1/", "127.0.0.1"),
            ("http://１２７.０.０.１/", "127.0.0.1"),
            ("http://127。0。0。1/", "127.0.0.1"),
            ("http:\\\\127.0.0.1\\", "127.0.0.1"),
            ("http:127.0.0.1", "127.0.0.1"),
            ("http://0/", "0.0.0.0"),
            ("http://[::ffff:10.0.0.1]/", "::ffff:10.0.0.1"),
            ("http://[0:0:0:0:0:ffff:0a00:0001]/", "::ffff:10.0.0.1"),
            ("http://[::1]/", "::1"),
        ];
        for (text, address) in cases {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(parsed(text).host(), EndpointHost::Ip(address), "{text}");
        }
        for name in [
            "localhost",
            "127.0.0.1.example",
            "1.2.3.4a",
            "xn--bcher-kva.example",
        ] {
            let url = parsed(&format!("http://{name}/"));
            assert_eq!(url.host(), EndpointHost::Name(name));
        }
    }

    #[test]
    fn refuses_what_cannot_be_called_or_hides_something() {
        let long = format!("https://example.com/{}", "a".repeat(EndpointUrl::BYTES_MAX));
        let long_once_encoded = format!("https://example.com/{}", "ä".repeat(400));
        let cases = [
            ("ftp://example.com/", InvalidEndpointUrl::Scheme),
            ("file:///etc/passwd", InvalidEndpointUrl::Scheme),
            ("javascript:alert(1)", InvalidEndpointUrl::Scheme),
            ("https://user@example.com/", InvalidEndpointUrl::UserInfo),
            (
                "https://user:password@example.com/",
                InvalidEndpointUrl::UserInfo,
            ),
            (
                "https://:password@example.com/",
                InvalidEndpointUrl::UserInfo,
            ),
            ("https://example.com/#part", InvalidEndpointUrl::Fragment),
            ("https://example.com/#", InvalidEndpointUrl::Fragment),
            ("https://example.com:0/", InvalidEndpointUrl::PortZero),
            ("https://exa\"mple.com/", InvalidEndpointUrl::Host),
            ("https://a{b}.example/", InvalidEndpointUrl::Host),
            (
                " https://example.com/",
                InvalidEndpointUrl::ForbiddenCharacter,
            ),
            (
                "https://example.com/a b",
                InvalidEndpointUrl::ForbiddenCharacter,
            ),
            (
                "https://exam\nple.com/",
                InvalidEndpointUrl::ForbiddenCharacter,
            ),
            (
                "https://example.com/\u{0}",
                InvalidEndpointUrl::ForbiddenCharacter,
            ),
            (
                "https://example.com/\u{85}",
                InvalidEndpointUrl::ForbiddenCharacter,
            ),
            (
                "",
                InvalidEndpointUrl::Syntax(url::ParseError::RelativeUrlWithoutBase),
            ),
            (
                "example.com/hook",
                InvalidEndpointUrl::Syntax(url::ParseError::RelativeUrlWithoutBase),
            ),
            (
                "https://",
                InvalidEndpointUrl::Syntax(url::ParseError::EmptyHost),
            ),
            (
                "https://1.2.3.256/",
                InvalidEndpointUrl::Syntax(url::ParseError::InvalidIpv4Address),
            ),
            (
                "https://[fe80::1%25eth0]/",
                InvalidEndpointUrl::Syntax(url::ParseError::InvalidIpv6Address),
            ),
            (&long, InvalidEndpointUrl::TooLong),
            (&long_once_encoded, InvalidEndpointUrl::TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(EndpointUrl::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn the_query_is_stored_whole_and_never_printed() {
        let text = "https://example.com:8443/hook?token=s3cret&again=?s3cret";
        let url = parsed(text);
        assert_eq!(url.to_string(), "https://example.com:8443/hook?***");
        assert_eq!(format!("{url:?}"), "https://example.com:8443/hook?***");
        let json = serde_json::to_string(&url).unwrap();
        assert_eq!(json, format!("{text:?}"));
        assert_eq!(serde_json::from_str::<EndpointUrl>(&json).unwrap(), url);
        let error = serde_json::from_str::<EndpointUrl>("\"ftp://x/?s3cret\"").unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert_eq!(
            parsed("https://example.com/a").to_string(),
            "https://example.com/a"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_parsed_to_a_fixed_point(
            text in "(https?://)?[a-z0-9.:@\\[\\]%{}_-]{0,20}(/[ -~ä]{0,20})?"
        ) {
            if let Ok(url) = EndpointUrl::parse(&text) {
                prop_assert!(url.as_str().len() <= EndpointUrl::BYTES_MAX);
                prop_assert_eq!(EndpointUrl::parse(url.as_str()), Ok(url.clone()));
                // An address that looked like a name would pass by the resolver's check.
                if let EndpointHost::Name(name) = url.host() {
                    prop_assert!(name.parse::<IpAddr>().is_err());
                }
            }
        }
    }
}
