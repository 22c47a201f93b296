//! The issuer's public keys: fetched from a URL or read from a file, kept, and asked for again when
//! they are old or a token names one that is not among them.
//!
//! An issuer that is away costs nothing while its keys are younger than [`KEPT_FOR`]. Whoever sends
//! tokens with unknown keys cannot make us ask more often than [`ASKED_EVERY`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use url::Url;

use crate::http_client::{ClientSetupError, install_crypto_provider};
use crate::jwt::KeySet;
use crate::time::Clock;

/// After that the keys are asked for again, so that one which was withdrawn stops counting.
pub const FRESH_FOR: Duration = Duration::from_secs(5 * 60);
/// How long keys count while the issuer does not answer.
pub const KEPT_FOR: Duration = Duration::from_secs(60 * 60);
/// Between two questions, whatever tokens come.
pub const ASKED_EVERY: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const KEY_SET_BYTES_MAX: usize = 256 << 10;

/// Nobody knows the issuer's keys at the moment. For logs.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no keys of the tokens' issuer: {0}")]
pub struct NoKeys(String);

/// An issuer's keys. Cheap to share behind an `Arc`.
pub struct Jwks {
    source: Source,
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
}

enum Source {
    Url(Box<reqwest::Client>, Url),
    File(PathBuf),
}

struct Kept {
    /// `None` before the first answer.
    keys: Option<Arc<KeySet>>,
    /// Times are of [`Clock::elapsed`].
    fetched_at: Duration,
    /// `None` before the first question.
    asked_at: Option<Duration>,
    fault: String,
}

impl Jwks {
    /// `url` is http, https or file; the operator's own, so that it may lie in a private network.
    pub fn new(url: &Url, clock: Arc<dyn Clock>) -> Result<Self, ClientSetupError> {
        install_crypto_provider();
        let source = match url.to_file_path() {
            Ok(path) if url.scheme() == "file" => Source::File(path),
            Ok(_) | Err(()) => {
                let client = reqwest::Client::builder()
                    .redirect(reqwest::redirect::Policy::none())
                    .referer(false)
                    .no_proxy()
                    .timeout(ANSWER_WITHIN)
                    .build()?;
                Source::Url(Box::new(client), url.clone())
            }
        };
        Ok(Self {
            source,
            clock,
            kept: Mutex::new(Kept {
                keys: None,
                fetched_at: Duration::ZERO,
                asked_at: None,
                fault: String::new(),
            }),
        })
    }

    /// The keys, asked for again if they are old. One question serves all who wait.
    pub async fn keys(&self) -> Result<Arc<KeySet>, NoKeys> {
        let mut kept = self.kept.lock().await;
        let is_fresh = kept.keys.is_some() && self.since(kept.fetched_at) < FRESH_FOR;
        if !is_fresh {
            self.ask(&mut kept).await;
        }
        self.known(&kept)
    }

    /// Keys that are newer than those, if there are any: what to try a token with whose key was not
    /// among them.
    pub async fn newer_than(&self, seen: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let mut kept = self.kept.lock().await;
        let is_newer = |kept: &Kept| {
            let keys = kept.keys.as_ref();
            keys.is_some_and(|keys| !Arc::ptr_eq(keys, seen))
        };
        if !is_newer(&kept) {
            self.ask(&mut kept).await;
        }
        is_newer(&kept).then(|| kept.keys.clone()).flatten()
    }

    fn known(&self, kept: &Kept) -> Result<Arc<KeySet>, NoKeys> {
        match &kept.keys {
            Some(keys) if self.since(kept.fetched_at) < KEPT_FOR => Ok(Arc::clone(keys)),
            Some(_) | None => Err(NoKeys(kept.fault.clone())),
        }
    }

    async fn ask(&self, kept: &mut Kept) {
        let is_too_soon = |asked_at| self.since(asked_at) < ASKED_EVERY;
        if kept.asked_at.is_some_and(is_too_soon) {
            return;
        }
        kept.asked_at = Some(self.clock.elapsed());
        let fetched = match self.fetch().await {
            Ok(text) => KeySet::parse(&text).map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match fetched {
            Ok(keys) => {
                tracing::debug!(keys = keys.len(), "the tokens' issuer told its keys");
                kept.keys = Some(Arc::new(keys));
                kept.fetched_at = self.clock.elapsed();
            }
            Err(fault) => {
                tracing::warn!(error = %fault, "the keys of the tokens' issuer were not read");
                kept.fault = fault;
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<u8>, String> {
        match &self.source {
            Source::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path));
                read.await.map_err(|error| error.to_string())?
            }
            Source::Url(client, url) => {
                // Without the URL, whose query may be a credential.
                let fault = |error: reqwest::Error| error.without_url().to_string();
                let mut answer = client.get(url.clone()).send().await.map_err(fault)?;
                if answer.status() != reqwest::StatusCode::OK {
                    return Err(format!("answered {}", answer.status().as_u16()));
                }
                let mut text = Vec::new();
                while let Some(chunk) = answer.chunk().await.map_err(fault)? {
                    if text.len().saturating_add(chunk.len()) > KEY_SET_BYTES_MAX {
                        return Err(too_large());
                    }
                    text.extend_from_slice(&chunk);
                }
                Ok(text)
            }
        }
    }

    fn since(&self, at: Duration) -> Duration {
        self.clock.elapsed().saturating_sub(at)
    }
}

fn read_file(path: &std::path::Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    let limit = u64::try_from(KEY_SET_BYTES_MAX).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1))
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() > KEY_SET_BYTES_MAX {
        return Err(too_large());
    }
    Ok(text)
}

fn too_large() -> String {
    format!("a key set of more than {KEY_SET_BYTES_MAX} bytes")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Mutex as StdMutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::time::Timestamp;

    #[derive(Default)]
    struct TestClock(StdMutex<Duration>);

    impl TestClock {
        fn pass(&self, passed: Duration) {
            *self.0.lock().unwrap() += passed;
        }
    }

    impl Clock for TestClock {
        fn now(&self) -> Timestamp {
            Timestamp::default()
        }

        fn elapsed(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn uptime(&self) -> Duration {
            self.elapsed()
        }
    }

    /// Answers each connection with what was set last, and counts.
    #[derive(Default)]
    struct Issuer {
        answer: StdMutex<String>,
        asked: AtomicUsize,
    }

    fn key_set(keys: usize) -> String {
        let key = r#"{"kty":"RSA","n":"AAAA","e":"AQAB"}"#;
        format!("{{\"keys\":[{}]}}", vec![key; keys].join(","))
    }

    fn ok(body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
    }

    fn issuer() -> (Arc<Issuer>, Url) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let issuer = Arc::new(Issuer::default());
        let answering = Arc::clone(&issuer);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut request = [0; 4_096];
                let read = connection.read(&mut request).unwrap();
                assert!(read > 0);
                answering.asked.fetch_add(1, Ordering::SeqCst);
                let answer = answering.answer.lock().unwrap().clone();
                connection.write_all(answer.as_bytes()).unwrap();
            }
        });
        (issuer, Url::parse(&url).unwrap())
    }

    impl Issuer {
        fn answers(&self, answer: String) {
            *self.answer.lock().unwrap() = answer;
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn keys_are_kept_refreshed_and_outlive_an_absent_issuer() {
        let (issuer, url) = issuer();
        let clock = Arc::new(TestClock::default());
        let jwks = Jwks::new(&url, clock.clone()).unwrap();
        issuer.answers("HTTP/1.1 500 no\r\nconnection: close\r\n\r\n".to_owned());
        let fault = jwks.keys().await.unwrap_err();
        assert!(fault.to_string().contains("500"), "{fault}");
        issuer.answers(ok(&key_set(1)));
        // Too soon to ask again.
        jwks.keys().await.unwrap_err();
        assert_eq!(issuer.asked(), 1);
        clock.pass(ASKED_EVERY);
        assert_eq!(jwks.keys().await.unwrap().len(), 1);
        clock.pass(FRESH_FOR - Duration::from_secs(1));
        issuer.answers(ok(&key_set(2)));
        assert_eq!(jwks.keys().await.unwrap().len(), 1);
        assert_eq!(issuer.asked(), 2);
        clock.pass(Duration::from_secs(1));
        assert_eq!(jwks.keys().await.unwrap().len(), 2);
        for bad in [
            ok("{}"),
            ok(&"x".repeat(300 << 10)),
            "HTTP/1.1 404 no\r\n\r\n".into(),
        ] {
            issuer.answers(bad);
            clock.pass(FRESH_FOR);
            assert_eq!(jwks.keys().await.unwrap().len(), 2);
        }
        clock.pass(KEPT_FOR);
        jwks.keys().await.unwrap_err();
    }

    #[tokio::test]
    async fn a_key_that_is_unknown_is_asked_for_but_not_at_every_token() {
        let (issuer, url) = issuer();
        let clock = Arc::new(TestClock::default());
        let jwks = Jwks::new(&url, clock.clone()).unwrap();
        issuer.answers(ok(&key_set(1)));
        let first = jwks.keys().await.unwrap();
        issuer.answers(ok(&key_set(2)));
        for _ in 0..10 {
            assert!(jwks.newer_than(&first).await.is_none());
        }
        assert_eq!(issuer.asked(), 1);
        clock.pass(ASKED_EVERY);
        let asks = (0..10).map(|_| jwks.newer_than(&first));
        let rotated = futures_util::future::join_all(asks).await;
        assert!(rotated.iter().all(|keys| keys.as_ref().unwrap().len() == 2));
        assert_eq!(issuer.asked(), 2);
    }

    #[tokio::test]
    async fn a_file_does_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let url = Url::from_file_path(&path).unwrap();
        let clock = Arc::new(TestClock::default());
        let jwks = Jwks::new(&url, clock.clone()).unwrap();
        jwks.keys().await.unwrap_err();
        std::fs::write(&path, key_set(3)).unwrap();
        clock.pass(ASKED_EVERY);
        assert_eq!(jwks.keys().await.unwrap().len(), 3);
    }
}
