//! A dispatcher as its process runs it, in this one.

use std::net::TcpListener;

use dispatcher::error::DispatchError;
use dispatcher::{Listeners, Ports};
use reqwest::{Client, Method};
use serde_json::Value;
use shared::config::{LogFormat, Service, Settings};
use shared::nats::NatsSettings;
use shared::nats::topology::TopologySettings;
use shared::partition::PartitionCount;
use shared::secret::{MasterKeys, Secret};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{ADMIN, Answer, Call, MASTER_KEY, WITHIN};

pub(crate) const PARTITIONS: u16 = 2;

/// A whole dispatcher, as its process runs it.
pub(crate) struct Dispatcher {
    pub(crate) address: String,
    client: Client,
    ops: String,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<Result<(), DispatchError>>,
}

impl Dispatcher {
    pub(crate) fn start(nats_url: String, ports: Ports) -> Self {
        let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners = Listeners {
            http: listener(),
            ops: listener(),
        };
        let address = listeners.http.local_addr().unwrap();
        let ops = listeners.ops.local_addr().unwrap().to_string();
        let settings = Settings {
            snapshot_entries: 50_000,
            publish_batches: false,
            service: Service::Dispatcher,
            nats: NatsSettings {
                urls: vec![nats_url],
                ..NatsSettings::default()
            },
            topology: TopologySettings {
                replicas: 1,
                partitions: PartitionCount::new(PARTITIONS).unwrap(),
            },
            http_addr: address,
            ops_addr: listeners.ops.local_addr().unwrap(),
            public_ingest_url: "https://in.example".to_owned(),
            master_keys: MasterKeys::new(MASTER_KEY, &[]).unwrap(),
            admin_token: Some(Secret::new(ADMIN)),
            jwt: Default::default(),
            jwt_jwks_url: None,
            endpoint_allow_cidrs: vec!["127.0.0.0/8".parse().unwrap()],
            connectors_dir: None,
            log: String::new(),
            log_format: LogFormat::Text,
        };
        // The dispatcher does so too, perhaps after the client below is built.
        shared::http_client::install_crypto_provider();
        let (stop, stopped) = oneshot::channel();
        let ended = actix_rt::spawn(async move {
            let shutdown = async {
                stopped.await.ok();
            };
            Box::pin(dispatcher::run(settings, listeners, ports, shutdown)).await
        });
        Self {
            address: address.to_string(),
            client: Client::builder().no_proxy().build().unwrap(),
            ops,
            stop,
            ended,
        }
    }

    /// Status and text of what the ops listener answers.
    pub(crate) async fn ops(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.ops);
        let answer = self.client.get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.ops("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: Value) -> Answer {
        let url = format!("http://{}{path}", self.address);
        let call = Call::new(self.client.request(Method::POST, url));
        call.by(key).json(&body).send().await
    }

    #[cfg(feature = "test-panics")]
    pub(crate) async fn get(&self, key: &str, path: &str) -> Answer {
        let url = format!("http://{}{path}", self.address);
        let call = Call::new(self.client.request(Method::GET, url));
        call.by(key).send().await
    }

    pub(crate) async fn projects(&self) -> Answer {
        let url = format!("http://{}/v1/projects", self.address);
        let call = Call::new(self.client.request(Method::GET, url));
        call.by(ADMIN).send().await
    }

    pub(crate) async fn ended(ended: JoinHandle<Result<(), DispatchError>>) {
        let ended = tokio::time::timeout(WITHIN, ended).await.unwrap();
        ended.unwrap().unwrap();
    }
}
