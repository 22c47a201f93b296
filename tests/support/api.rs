//! A thin client of the management API and of ingest: one method a call of the design's table.
//! Every answer comes back as it is, so that tests can ask for refusals too.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use reqwest::{Method, RequestBuilder, redirect};
use serde_json::{Value, json};

use crate::providers::Callback;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The services close connections that were idle for 5 s; a request must not meet that.
const IDLE_WITHIN: Duration = Duration::from_secs(3);
/// Longer than any bound that the services set themselves.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A client that follows no redirect and no proxy from the environment.
pub fn http() -> Result<reqwest::Client> {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        // reqwest wants a process-wide provider even for plain http. An error means that the
        // NATS library has installed one already.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
    });
    reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_WITHIN)
        .pool_idle_timeout(IDLE_WITHIN)
        .timeout(ANSWER_WITHIN)
        .build()
        .context("building an HTTP client")
}

/// An answer: its status, and its body as JSON (null when it is none).
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub json: Value,
    pub text: String,
    request: String,
}

impl Reply {
    /// The body, if the status is the one given.
    pub fn expect(self, status: u16) -> Result<Value> {
        if self.status != status {
            bail!("{self}, expected {status}");
        }
        Ok(self.json)
    }

    /// The body, if the status is any of success.
    pub fn success(self) -> Result<Value> {
        if !(200..300).contains(&self.status) {
            bail!("{self}, expected success");
        }
        Ok(self.json)
    }

    /// The `id` of what was made, if the status is the one given.
    pub fn id(self, status: u16) -> Result<String> {
        text(&self.expect(status)?, "/id")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            request,
            status,
            text,
            ..
        } = self;
        write!(f, "{request} answered {status}: {}", text.trim())
    }
}

/// The text at a place of a JSON value.
pub fn text(value: &Value, pointer: &str) -> Result<String> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found
        .map(str::to_owned)
        .with_context(|| format!("no text at {pointer} of {value}"))
}

#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// Asked in turn.
    management: Vec<String>,
    calls: Arc<AtomicUsize>,
    ingest: String,
    token: String,
}

impl Client {
    /// URLs without a final slash; `token` is the admin token or an API key.
    pub fn new(management: &str, ingest: &str, token: &str) -> Result<Self> {
        Ok(Self {
            http: http()?,
            management: vec![management.to_owned()],
            calls: Arc::default(),
            ingest: ingest.to_owned(),
            token: token.to_owned(),
        })
    }

    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// The same client, asking these replicas in turn.
    #[must_use]
    pub fn round_robin(&self, managements: Vec<String>) -> Self {
        Self {
            management: managements,
            ..self.clone()
        }
    }

    /// A management call that has no method here.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply> {
        self.call_with(method, path, body, &[]).await
    }

    /// The same with further headers.
    pub async fn call_with(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Reply> {
        let turn = self.calls.fetch_add(1, Ordering::Relaxed) % self.management.len().max(1);
        let replica = self.management.get(turn).context("a replica to ask")?;
        let url = format!("{replica}{path}");
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        send(request).await
    }

    pub async fn create_project(&self, name: &str) -> Result<Reply> {
        self.post("/v1/projects", &json!({ "name": name })).await
    }

    pub async fn create_api_key(&self, project: &str, name: &str) -> Result<Reply> {
        let path = format!("/v1/projects/{project}/api_keys");
        self.post(&path, &json!({ "name": name })).await
    }

    pub async fn revoke_api_key(&self, project: &str, key: &str) -> Result<Reply> {
        self.delete(&format!("/v1/projects/{project}/api_keys/{key}"))
            .await
    }

    pub async fn create_account(&self, account: &Value) -> Result<Reply> {
        self.post("/v1/accounts", account).await
    }

    pub async fn get_account(&self, id: &str) -> Result<Reply> {
        self.get(&format!("/v1/accounts/{id}")).await
    }

    pub async fn list_accounts(&self) -> Result<Reply> {
        self.get("/v1/accounts").await
    }

    pub async fn patch_account(&self, id: &str, change: &Value) -> Result<Reply> {
        self.call(Method::PATCH, &format!("/v1/accounts/{id}"), Some(change))
            .await
    }

    pub async fn delete_account(&self, id: &str) -> Result<Reply> {
        self.delete(&format!("/v1/accounts/{id}")).await
    }

    pub async fn create_webhook(&self, webhook: &Value) -> Result<Reply> {
        self.post("/v1/webhooks", webhook).await
    }

    pub async fn get_webhook(&self, id: &str) -> Result<Reply> {
        self.get(&format!("/v1/webhooks/{id}")).await
    }

    /// `query` is empty or starts with `?`.
    pub async fn list_webhooks(&self, query: &str) -> Result<Reply> {
        self.get(&format!("/v1/webhooks{query}")).await
    }

    pub async fn patch_webhook(&self, id: &str, change: &Value) -> Result<Reply> {
        self.call(Method::PATCH, &format!("/v1/webhooks/{id}"), Some(change))
            .await
    }

    pub async fn delete_webhook(&self, id: &str) -> Result<Reply> {
        self.delete(&format!("/v1/webhooks/{id}")).await
    }

    pub async fn enable_webhook(&self, id: &str) -> Result<Reply> {
        self.call(Method::POST, &format!("/v1/webhooks/{id}/enable"), None)
            .await
    }

    pub async fn disable_webhook(&self, id: &str) -> Result<Reply> {
        self.call(Method::POST, &format!("/v1/webhooks/{id}/disable"), None)
            .await
    }

    /// One event or an array of them, to ingest.
    pub async fn post_events(&self, events: &Value) -> Result<Reply> {
        let url = format!("{}/v1/events", self.ingest);
        send(self.http.post(url).bearer_auth(&self.token).json(events)).await
    }

    /// A provider's callback, to the URL that the account was created with or another one.
    pub async fn callback(&self, url: &str, callback: &Callback) -> Result<Reply> {
        let mut request = self.http.post(url).body(callback.body.clone());
        for (name, value) in &callback.headers {
            request = request.header(*name, value);
        }
        send(request).await
    }

    async fn get(&self, path: &str) -> Result<Reply> {
        self.call(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn delete(&self, path: &str) -> Result<Reply> {
        self.call(Method::DELETE, path, None).await
    }
}

async fn send(request: RequestBuilder) -> Result<Reply> {
    let (client, request) = request.build_split();
    let request = request?;
    let name = format!("{} {}", request.method(), request.url());
    let answer = client
        .execute(request)
        .await
        .with_context(|| name.clone())?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let text = answer.text().await.with_context(|| name.clone())?;
    Ok(Reply {
        status,
        headers,
        json: serde_json::from_str(&text).unwrap_or_default(),
        text,
        request: name,
    })
}
