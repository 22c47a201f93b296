//! The API on a nats-server of the test's own, and a small client.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use dispatcher::api::{self, trials::Trials};
use dispatcher::app::{App, AppSlot};
use dispatcher::applied::Applied;
use dispatcher::tokens::Tokens;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use shared::address_guard::AddressGuard;
use shared::connector::Connectors;
use shared::http_client::{GuardedClient, SystemResolver};
use shared::jwt::JwtRules;
use shared::nats::key_usage::KeyUsage;
use shared::nats::registry_view::RegistryView;
use shared::nats::topology::{self, TopologySettings};
use shared::nats::{self, Nats, NatsSettings};
use shared::partition::PartitionCount;
use shared::secret::{MasterKeys, Secret};
use shared::time::{Clock, SystemClock};
use tokio::sync::mpsc;

use crate::delay;
use crate::nats_server::NatsServer;

pub(crate) const ADMIN: &str = "an-admin-token-of-tests";
/// What tokens are signed with.
pub(crate) const TOKEN_SECRET: &str = "what-tokens-of-tests-are-signed-with";
pub(crate) const MASTER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
/// Ample, even on a busy machine.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

fn token_rules() -> JwtRules {
    JwtRules {
        hs256_secret: Some(Secret::new(TOKEN_SECRET)),
        ..JwtRules::default()
    }
}

/// Waits for a condition that has to be asked for.
pub(crate) async fn eventually_ok(condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, wait).await.unwrap();
}

/// Waits for a condition.
pub(crate) async fn eventually<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, wait).await.unwrap()
}

/// Whether somebody plays the owners, and at once applies what the registry says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    Present,
    Absent,
}

/// One replica's API.
pub(crate) struct Api {
    base: String,
    client: Client,
    handle: ServerHandle,
    view: RegistryView,
    nats: Nats,
}

/// A project with a key.
pub(crate) struct Project {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) key_id: String,
}

impl Api {
    pub(crate) async fn start(nats: &NatsServer) -> Self {
        Self::with(nats, &[], Owners::Present).await
    }

    /// A replica that hears of everything a little later than others.
    pub(crate) async fn lagging(nats: &NatsServer) -> Self {
        let address = nats.url.trim_start_matches("nats://").to_owned();
        let proxy = delay::in_front_of(address);
        Self::at(format!("nats://{proxy}"), &[], Owners::Present).await
    }

    /// `allowed` are the networks that endpoints may lie in besides the public ones.
    pub(crate) async fn with(server: &NatsServer, allowed: &[&str], owners: Owners) -> Self {
        Self::at(server.url.clone(), allowed, owners).await
    }

    async fn at(nats_url: String, allowed: &[&str], owners: Owners) -> Self {
        let settings = NatsSettings {
            urls: vec![nats_url],
            ..NatsSettings::default()
        };
        let topology = TopologySettings {
            replicas: 1,
            partitions: PartitionCount::DEFAULT,
        };
        let client = nats::connect(&settings).await.unwrap();
        let nats = topology::ensure(&client, &topology).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let master_keys = MasterKeys::new(MASTER_KEY, &[]).unwrap();
        let applied = Arc::new(Applied::new(nats.partitions));
        let (follower, mut changes) = mpsc::unbounded_channel();
        let view = RegistryView::start(
            nats.clone(),
            master_keys.clone(),
            Arc::clone(&clock),
            Some(follower),
        );
        let (partitions, marked) = (nats.partitions, Arc::clone(&applied));
        actix_rt::spawn(async move {
            while let Some(change) = changes.recv().await {
                if owners == Owners::Present {
                    marked.mark(partitions.of(change.project), change.sequence);
                }
            }
        });
        let guard = AddressGuard::new(allowed.iter().map(|net| net.parse().unwrap()).collect());
        let resolver = Arc::new(SystemResolver);
        let client = GuardedClient::new(Arc::new(guard), resolver, "Carillon/test").unwrap();
        let tokens = Tokens::new(token_rules(), None, Arc::clone(&clock)).unwrap();
        let app = App {
            key_usage: KeyUsage::new(nats.clone(), Arc::clone(&clock)),
            view: view.clone(),
            nats: nats.clone(),
            clock,
            admin_token: Secret::new(ADMIN),
            tokens,
            master_keys,
            public_ingest_url: "https://in.example".to_owned(),
            connectors: Arc::new(Connectors::embedded().unwrap()),
            client,
            applied,
            trials: Trials::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let slot = AppSlot::default();
        slot.open(Arc::new(app));
        let server = api::serve(listener, Arc::new(slot)).unwrap();
        let handle = server.handle();
        actix_rt::spawn(server);
        eventually(|| view.is_current().then_some(())).await;
        Self {
            base,
            client: Client::builder().no_proxy().build().unwrap(),
            handle,
            view,
            nats,
        }
    }

    pub(crate) fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub(crate) fn view(&self) -> &RegistryView {
        &self.view
    }

    pub(crate) fn nats(&self) -> &Nats {
        &self.nats
    }

    pub(crate) fn call(&self, method: Method, path: &str) -> Call {
        Call(self.client.request(method, format!("{}{path}", self.base)))
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> Answer {
        self.call(Method::GET, path).by(key).send().await
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path)
            .by(key)
            .json(&body)
            .send()
            .await
    }

    pub(crate) async fn patch(&self, key: &str, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path)
            .by(key)
            .json(&body)
            .send()
            .await
    }

    pub(crate) async fn delete(&self, key: &str, path: &str) -> Answer {
        self.call(Method::DELETE, path).by(key).send().await
    }

    pub(crate) async fn project(&self, name: &str) -> Project {
        let created = self
            .post(ADMIN, "/v1/projects", json!({ "name": name }))
            .await;
        let id = created.expect(201).text("/id");
        let path = format!("/v1/projects/{id}/api_keys");
        let key = self
            .post(ADMIN, &path, json!({ "name": "first" }))
            .await
            .expect(201);
        Project {
            id,
            key: key.text("/key"),
            key_id: key.text("/id"),
        }
    }

    /// Follows `next` to the end.
    pub(crate) async fn all_pages(&self, key: &str, path: &str, limit: usize) -> Vec<Value> {
        let mut items = Vec::new();
        let mut query = format!("?limit={limit}");
        loop {
            let page = self.get(key, &format!("{path}{query}")).await.expect(200);
            let on_page = page.body["items"].as_array().unwrap().clone();
            assert!(on_page.len() <= limit);
            items.extend(on_page);
            match page.body["next"].as_str() {
                Some(next) => query = format!("?limit={limit}&cursor={next}"),
                None => return items,
            }
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

/// A request that is being put together.
pub(crate) struct Call(reqwest::RequestBuilder);

impl Call {
    pub(crate) fn new(request: reqwest::RequestBuilder) -> Self {
        Self(request)
    }

    pub(crate) fn by(self, key: &str) -> Self {
        Self(self.0.bearer_auth(key))
    }

    pub(crate) fn basic(self, user: &str) -> Self {
        Self(self.0.basic_auth(user, Some("anything")))
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        Self(self.0.header(name, value))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        Self(self.0.json(body))
    }

    pub(crate) fn raw(self, body: impl Into<reqwest::Body>) -> Self {
        Self(self.0.body(body))
    }

    pub(crate) async fn send(self) -> Answer {
        let response = self.0.timeout(WITHIN).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        Answer {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            raw: text,
        }
    }
}

/// What came back; `body` is null where it was no JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) raw: String,
}

impl Answer {
    /// Every error is a problem with its own status in it, and nothing may be cached.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.raw);
        if status >= 400 {
            assert_eq!(self.header("content-type"), "application/problem+json");
            assert_eq!(self.body["status"], status);
            assert!(self.body["code"].is_string(), "{}", self.raw);
        }
        self
    }

    /// A 422 whose faults have these places.
    pub(crate) fn expect_invalid(self, pointers: &[&str]) -> Self {
        let answer = self.expect(422);
        let errors = answer.body["errors"].as_array().unwrap();
        let seen: Vec<_> = errors
            .iter()
            .map(|error| error["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(seen, pointers, "{}", answer.raw);
        answer
    }

    pub(crate) fn text(&self, pointer: &str) -> String {
        let value = self.body.pointer(pointer).and_then(Value::as_str);
        value
            .unwrap_or_else(|| panic!("{pointer} in {}", self.raw))
            .to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .unwrap_or_else(|| panic!("no {name}"))
            .to_str()
            .unwrap()
    }
}
