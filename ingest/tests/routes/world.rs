//! A nats-server, an ingest before it, and a registry with projects and accounts in it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_web::rt::task::JoinHandle;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use shared::config::{LogFormat, Service, Settings};
use shared::domain::account::{AccountDefinition, AccountSecrets};
use shared::domain::event::Event;
use shared::domain::registry::{Command, SEALED_ACCOUNT, SEALED_DATA_KEY, seal_context};
use shared::ids::{AccountId, KeyId, ProjectId, Sequence};
use shared::nats::read::read_all;
use shared::nats::registry_view::RegistryView;
use shared::nats::topology::{self, TopologySettings};
use shared::nats::{Nats, NatsSettings};
use shared::partition::PartitionCount;
use shared::secret::{DataKey, MasterKeys, Secret, hash_key};
use shared::time::{Clock as _, SystemClock, Timestamp};
use shared::{codec, random, subjects};
use tokio::sync::oneshot;

use crate::nats_server::NatsServer;

/// Of every project.
const DATA_KEY: [u8; 32] = [7; 32];
pub(crate) const MASTER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Waits for a condition, 15 s at most.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let clock = SystemClock::new();
    while !holds().await {
        assert!(
            clock.elapsed() < Duration::from_secs(15),
            "not within 15 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) struct World {
    pub(crate) server: NatsServer,
    pub(crate) ingest: Ingest,
    pub(crate) http: reqwest::Client,
    pub(crate) log: Nats,
    registry: RegistryView,
}

/// A project with an API key.
pub(crate) struct TestProject {
    pub(crate) id: ProjectId,
    pub(crate) key_id: KeyId,
    pub(crate) key: String,
}

pub(crate) struct TestAccount {
    pub(crate) id: AccountId,
    pub(crate) project: ProjectId,
    pub(crate) provider: &'static str,
    pub(crate) ingest_key: String,
    pub(crate) signing_secret: Option<String>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::over(NatsServer::start().await).await
    }

    /// Returns when ingest is ready.
    pub(crate) async fn over(server: NatsServer) -> Self {
        let ingest = Ingest::start(&server.url());
        let settings = nats_settings(&server.url());
        let client = shared::nats::connect(&settings).await.unwrap();
        let mut log = None;
        eventually("the streams are there", async || {
            log = topology::ensure(&client, &topology_settings()).await.ok();
            log.is_some()
        })
        .await;
        let log = log.unwrap();
        let clock = Arc::new(SystemClock::new());
        let world = Self {
            registry: RegistryView::start(log.clone(), master_keys(), clock, None),
            http: http(),
            server,
            ingest,
            log,
        };
        world.until_ready().await;
        world
    }

    pub(crate) async fn until_ready(&self) {
        eventually("ingest is ready", async || self.ready().await).await;
    }

    pub(crate) async fn ready(&self) -> bool {
        let answer = self
            .http
            .get(format!("{}/readyz", self.ingest.ops))
            .send()
            .await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let answer = self
            .http
            .get(format!("{}/metrics", self.ingest.ops))
            .send()
            .await;
        let text = answer.unwrap().text().await.unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in:\n{text}"))
            .parse()
            .unwrap()
    }

    pub(crate) async fn execute(&self, command: Command) {
        self.registry.execute(command, "test", now()).await.unwrap();
    }

    pub(crate) async fn project(&self) -> TestProject {
        let id = ProjectId::new(now(), &random::bytes());
        let key_id = KeyId::new(now(), &random::bytes());
        let key = hex::encode(random::bytes::<16>());
        let context = seal_context(SEALED_DATA_KEY, id, &id.to_string());
        let create = Command::CreateProject {
            id,
            name: "test".into(),
            sealed_data_key: master_keys().seal(&DATA_KEY, &context, &random::bytes()),
        };
        self.execute(create).await;
        let add_key = Command::CreateApiKey {
            project: id,
            id: key_id,
            name: "test".into(),
            hash: hash_key(&key),
        };
        self.execute(add_key).await;
        TestProject { id, key_id, key }
    }

    pub(crate) async fn account(
        &self,
        project: &TestProject,
        provider: &'static str,
        signing_secret: Option<&str>,
    ) -> TestAccount {
        let account = TestAccount {
            id: AccountId::new(now(), &random::bytes()),
            project: project.id,
            provider,
            ingest_key: hex::encode(random::bytes::<16>()),
            signing_secret: signing_secret.map(Into::into),
        };
        let create = Command::CreateAccount {
            project: project.id,
            id: account.id,
            definition: account.definition(),
        };
        self.execute(create).await;
        account
    }

    pub(crate) async fn set_signing_secret(&self, account: &mut TestAccount, secret: &str) {
        account.signing_secret = Some(secret.into());
        let base = self
            .registry
            .read(|state| state.account(account.id).unwrap().sequence);
        let update = Command::UpdateAccount {
            project: account.project,
            id: account.id,
            definition: account.definition(),
            base,
        };
        self.execute(update).await;
    }

    /// Everything in EVENTS, in its order.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        let all = read_all(
            &self.log.events,
            subjects::EVENTS_ALL,
            Sequence(0),
            |message| {
                let event = codec::decode_event(&message.payload).unwrap();
                let partition = self.log.partitions.of(event.project);
                let subject = subjects::event(partition, event.project, &event.event_type);
                assert_eq!(message.subject, subject);
                assert_eq!(message.message_id, Some(event.id.to_string()));
                events.push(event);
            },
        );
        all.await.unwrap();
        events
    }

    /// A signed callback, as the provider sends it.
    pub(crate) fn callback(&self, account: &TestAccount, body: &str) -> reqwest::RequestBuilder {
        let secret = account.signing_secret.as_deref().unwrap_or_default();
        let request = self
            .http
            .post(account.url(&self.ingest.url))
            .body(body.to_owned());
        match account.provider {
            "bamboohr" => request.header("X-BambooHR-Timestamp", "1750158000").header(
                "X-BambooHR-Signature",
                sign(secret, &format!("{body}1750158000")),
            ),
            "greenhouse" => request.header("Signature", format!("sha256 {}", sign(secret, body))),
            other => panic!("no such provider: {other}"),
        }
    }

    pub(crate) fn post_events(
        &self,
        project: &TestProject,
        body: impl Into<reqwest::Body>,
    ) -> reqwest::RequestBuilder {
        let url = format!("{}/v1/events", self.ingest.url);
        self.http.post(url).bearer_auth(&project.key).body(body)
    }
}

impl TestAccount {
    pub(crate) fn url(&self, ingest: &str) -> String {
        format!("{ingest}/v1/native/{}/{}", self.id, self.ingest_key)
    }

    fn definition(&self) -> AccountDefinition {
        let secrets = AccountSecrets {
            ingest_key: Secret::new(self.ingest_key.as_str()),
            signing_secret: self.signing_secret.as_deref().map(Secret::new),
            signing_secret_generated: false,
            credentials: None,
            settings: None,
        };
        let context = seal_context(SEALED_ACCOUNT, self.project, &self.id.to_string());
        let plain = serde_json::to_vec(&secrets).unwrap();
        AccountDefinition {
            provider: self.provider.into(),
            name: None,
            origin_owner_id: "customer-1".into(),
            origin_owner_name: Some("Acme".into()),
            origin_username: None,
            sealed_secrets: DataKey::new(&DATA_KEY).seal(&plain, &context, &random::bytes()),
        }
    }
}

/// `ingest::run` in this process.
pub(crate) struct Ingest {
    pub(crate) url: String,
    pub(crate) ops: String,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ingest::RunError>>,
}

impl Ingest {
    pub(crate) fn start(nats_url: &str) -> Self {
        Self::with(nats_url, |_| {})
    }

    pub(crate) fn with_keys(nats_url: &str, master_keys: MasterKeys) -> Self {
        Self::with(nats_url, |settings| settings.master_keys = master_keys)
    }

    pub(crate) fn with(nats_url: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners = ingest::Listeners {
            http: listener(),
            ops: listener(),
        };
        let (http_addr, ops_addr) = (
            listeners.http.local_addr().unwrap(),
            listeners.ops.local_addr().unwrap(),
        );
        let mut settings = Settings {
            snapshot_entries: 50_000,
            publish_batches: false,
            service: Service::Ingest,
            nats: nats_settings(nats_url),
            topology: topology_settings(),
            http_addr,
            ops_addr,
            public_ingest_url: format!("http://{http_addr}"),
            master_keys: master_keys(),
            admin_token: None,
            jwt: Default::default(),
            jwt_jwks_url: None,
            endpoint_allow_cidrs: Vec::new(),
            connectors_dir: None,
            log: "info".into(),
            log_format: LogFormat::Text,
        };
        change(&mut settings);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { drop(stopped.await) };
        Self {
            url: format!("http://{http_addr}"),
            ops: format!("http://{ops_addr}"),
            stop: Some(stop),
            task: actix_web::rt::spawn(ingest::run(settings, listeners, shutdown)),
        }
    }

    pub(crate) fn ask_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> Result<(), ingest::RunError> {
        (&mut self.task).await.unwrap()
    }
}

pub(crate) fn master_keys() -> MasterKeys {
    MasterKeys::new(MASTER_KEY, &[]).unwrap()
}

fn nats_settings(url: &str) -> NatsSettings {
    NatsSettings {
        urls: vec![url.into()],
        client_name: "ingest tests".into(),
        ..NatsSettings::default()
    }
}

fn topology_settings() -> TopologySettings {
    TopologySettings {
        replicas: 1,
        partitions: PartitionCount::DEFAULT,
    }
}

pub(crate) fn http() -> reqwest::Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        // An error means that somebody else in this process was first.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
    });
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(crate) fn now() -> Timestamp {
    SystemClock::new().now()
}

/// Hex HMAC-SHA256, computed apart from the code under test.
pub(crate) fn sign(secret: &str, message: &str) -> String {
    let mut hmac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    hmac.update(message.as_bytes());
    hex::encode(hmac.finalize().into_bytes())
}

/// Status, `Retry-After`, and the JSON body, which is a problem unless it is a success.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, Option<String>, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = |name: &str| {
        let value = response.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let retry_after = text("retry-after");
    let content_type = text("content-type");
    let body = response.bytes().await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !status.is_success() {
        assert_eq!(
            content_type.as_deref(),
            Some("application/problem+json"),
            "{body}"
        );
        assert_eq!(body["status"], status.as_u16());
    }
    (status.as_u16(), retry_after, body)
}

/// A connection whose bytes are the test's own, for what no HTTP client would send.
pub(crate) struct Connection {
    stream: Arc<TcpStream>,
}

impl Connection {
    pub(crate) fn open(url: &str) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        Self {
            stream: Arc::new(stream),
        }
    }

    /// What the server no longer reads is let pass: it may have answered already.
    pub(crate) async fn send(&mut self, bytes: impl Into<Vec<u8>>) {
        let (stream, bytes) = (self.stream.clone(), bytes.into());
        blocking(move || stream.as_ref().write_all(&bytes).ok()).await;
    }

    /// Of the next answer.
    pub(crate) async fn status(&mut self) -> u16 {
        let stream = self.stream.clone();
        let head = blocking(move || {
            let mut head = [0; 12];
            stream.as_ref().read_exact(&mut head).map(|()| head)
        });
        let head = String::from_utf8(head.await.unwrap().to_vec()).unwrap();
        head.trim_start_matches("HTTP/1.1 ").parse().unwrap()
    }

    /// Until the server closes.
    pub(crate) async fn rest(&mut self) -> String {
        let stream = self.stream.clone();
        let rest = blocking(move || {
            let mut rest = Vec::new();
            stream.as_ref().read_to_end(&mut rest).map(|_| rest)
        });
        String::from_utf8(rest.await.unwrap()).unwrap()
    }
}

async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    actix_web::rt::task::spawn_blocking(work).await.unwrap()
}
