//! A host name that was public when its webhook was created and is private when it is called.
//! The dispatcher runs in this process, since only there can it be given a resolver of ours.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dispatcher::{Listeners, Ports};
use serde_json::json;
use shared::config::{LogFormat, Service, Settings};
use shared::http_client::{Resolve, Resolving};
use shared::nats::NatsSettings;
use shared::nats::topology::TopologySettings;
use shared::partition::PartitionCount;
use shared::secret::{MasterKeys, Secret};
use support::api::{self, Client};
use support::eventually::eventually;
use support::nats::NatsServer;
use tokio::sync::oneshot;

const ADMIN_TOKEN: &str = "a token for the test alone";
const MASTER_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const WITHIN: Duration = Duration::from_secs(20);

/// Answers with a public address until it is told to turn private.
#[derive(Default)]
struct Rebinding {
    is_private: AtomicBool,
}

impl Resolve for Rebinding {
    fn resolve(&self, _: String) -> Resolving {
        let address = if self.is_private.load(Ordering::SeqCst) {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::new(203, 0, 114, 1)
        };
        Box::pin(async move { Ok(vec![IpAddr::V4(address)]) })
    }
}

fn settings(nats: &NatsServer) -> Settings {
    let any = "127.0.0.1:0".parse().unwrap();
    Settings {
        snapshot_entries: 50_000,
        publish_batches: false,
        service: Service::Dispatcher,
        nats: NatsSettings {
            urls: vec![nats.url()],
            ..NatsSettings::default()
        },
        topology: TopologySettings {
            replicas: 1,
            partitions: PartitionCount::new(4).unwrap(),
        },
        http_addr: any,
        ops_addr: any,
        public_ingest_url: "http://127.0.0.1:1".into(),
        master_keys: MasterKeys::new(MASTER_KEY, &[]).unwrap(),
        admin_token: Some(Secret::new(ADMIN_TOKEN)),
        jwt: Default::default(),
        jwt_jwks_url: None,
        endpoint_allow_cidrs: Vec::new(),
        connectors_dir: None,
        log: "off".into(),
        log_format: LogFormat::Text,
    }
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn a_name_that_turns_private_later_is_refused_at_connect_time() {
    let nats = NatsServer::start().await.unwrap();
    let (http, management) = listener();
    let (ops, ops_url) = listener();
    let (inside, inside_url) = listener();
    inside.set_nonblocking(true).unwrap();
    let resolver = Arc::new(Rebinding::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let settings = settings(&nats);
    let resolve = Arc::clone(&resolver);
    let dispatcher = std::thread::spawn(move || {
        actix_rt::System::new().block_on(async move {
            let listeners = Listeners { http, ops };
            let shutdown = async { drop(stopped.await) };
            let ports = Ports {
                resolver: resolve,
                ..Ports::system()
            };
            Box::pin(dispatcher::run(settings, listeners, ports, shutdown)).await
        })
    });
    let client = api::http().unwrap();
    let get = async |path: &str| -> reqwest::Result<String> {
        let answer = client.get(format!("{ops_url}{path}")).send().await?;
        answer.error_for_status()?.text().await
    };
    eventually("the dispatcher is ready", WITHIN, async || {
        get("/readyz").await.map_err(|error| error.to_string())
    })
    .await
    .unwrap();

    let admin = Client::new(&management, "http://127.0.0.1:1", ADMIN_TOKEN).unwrap();
    let project = admin.create_project("P").await.unwrap().id(201).unwrap();
    let key = admin.create_api_key(&project, "k").await.unwrap();
    let key = key.expect(201).unwrap()["key"].as_str().unwrap().to_owned();
    let client = admin.with_token(&key);
    let port = inside_url.rsplit(':').next().unwrap();
    let webhook = json!({
        "url": format!("https://rebinding.example:{port}/"),
        "events": ["account.created"],
    });
    client
        .create_webhook(&webhook)
        .await
        .unwrap()
        .id(201)
        .unwrap();

    resolver.is_private.store(true, Ordering::SeqCst);
    let again = client.create_webhook(&webhook).await.unwrap();
    assert_eq!(again.status, 422, "{again}");
    let account = json!({ "provider": "bamboohr", "origin_owner_id": "customer" });
    client
        .create_account(&account)
        .await
        .unwrap()
        .id(201)
        .unwrap();

    let refused = "carillon_dispatcher_failed_attempts_total{kind=\"refused_address\"} 1";
    eventually("the attempt is refused", WITHIN, async || {
        let metrics = get("/metrics").await.map_err(|error| error.to_string())?;
        let counted = metrics.lines().find(|line| *line == refused);
        counted.map(drop).ok_or(metrics)
    })
    .await
    .unwrap();
    let connected = inside.accept().map_err(|error| error.kind());
    assert_eq!(connected.err(), Some(std::io::ErrorKind::WouldBlock));
    stop.send(()).unwrap();
    dispatcher.join().unwrap().unwrap();
}
