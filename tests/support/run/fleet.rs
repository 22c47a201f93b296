//! Several dispatchers and ingests on one server or three, each behind a network of its own if
//! that is wanted.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future;
use tempfile::TempDir;

use crate::api::Client;
use crate::cluster::Service;
use crate::nats::{NatsCluster, SyncInterval};
use crate::ports::Port;
use crate::proxy::{Network, Proxy};

/// How much of everything there is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub dispatchers: usize,
    /// Their program.
    pub dispatcher: &'static str,
    pub ingests: usize,
    /// 1 or 3; the streams have as many replicas.
    pub servers: usize,
    pub sync: SyncInterval,
    pub paths: Paths,
}

/// How the services reach the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    Direct,
    /// Each service through proxies of its own.
    Proxied,
}

/// A service and the network between it and the servers.
#[derive(Debug)]
pub struct Member {
    pub service: Service,
    proxies: Vec<Proxy>,
}

impl Member {
    /// Nothing happens to one that reaches the servers directly.
    pub fn network(&self, network: Network) {
        for proxy in &self.proxies {
            proxy.network(network);
        }
    }
}

/// All ends when it is dropped, in the order of the fields.
#[derive(Debug)]
pub struct Fleet {
    pub dispatchers: Vec<Member>,
    pub ingests: Vec<Member>,
    pub nats: NatsCluster,
    environment: Vec<(String, String)>,
    admin_token: String,
    dispatcher: &'static str,
    paths: Paths,
    folder: PathBuf,
    _temporary: TempDir,
}

impl Fleet {
    /// Starts everything and waits until it is ready.
    pub async fn start(size: &Size) -> Result<Self> {
        Self::start_with(size, &[]).await
    }

    /// With further settings of all services.
    pub async fn start_with(size: &Size, settings: &[(&str, &str)]) -> Result<Self> {
        ensure!(size.dispatchers > 0 && size.ingests > 0, "nothing to run");
        let temporary = tempfile::tempdir().context("a temporary folder")?;
        let folder = temporary.path().to_owned();
        let nats = NatsCluster::start_in(&folder, size.servers, size.sync).await?;
        let admin_token = hex::encode(shared::random::bytes::<16>());
        let ports = (0..size.ingests).map(|_| Port::claim());
        let ports = ports.collect::<Result<Vec<_>>>()?;
        let first = ports.first().context("an ingest")?;
        let public_url = format!("http://{}", first.address());
        let mut fleet = Self {
            dispatchers: Vec::new(),
            ingests: Vec::new(),
            nats,
            environment: environment(&admin_token, public_url, size.servers, settings),
            admin_token,
            dispatcher: size.dispatcher,
            paths: size.paths,
            folder,
            _temporary: temporary,
        };
        for port in ports {
            let member = fleet.member("ingest", fleet.ingests.len(), port)?;
            fleet.ingests.push(member);
        }
        for _ in 0..size.dispatchers {
            let index = fleet.dispatchers.len();
            let member = fleet.member(size.dispatcher, index, Port::claim()?)?;
            fleet.dispatchers.push(member);
        }
        let all = fleet.ingests.iter_mut().chain(&mut fleet.dispatchers);
        future::try_join_all(all.map(|member| async {
            member.service.start()?;
            member.service.wait_ready().await
        }))
        .await?;
        Ok(fleet)
    }

    /// Starts one more dispatcher, and says which.
    pub fn add_dispatcher(&mut self) -> Result<usize> {
        let index = self.dispatchers.len();
        let mut member = self.member(self.dispatcher, index, Port::claim()?)?;
        member.service.start()?;
        self.dispatchers.push(member);
        Ok(index)
    }

    /// A client with the admin token.
    pub fn admin(&self) -> Result<Client> {
        let url = |members: &[Member]| {
            let first = members.first().map(|member| member.service.http_url());
            first.unwrap_or_default()
        };
        Client::new(
            &url(&self.dispatchers),
            &url(&self.ingests),
            &self.admin_token,
        )
    }

    pub fn ingest_urls(&self) -> Vec<String> {
        let urls = self.ingests.iter().map(|member| member.service.http_url());
        urls.collect()
    }

    /// SIGTERM for all services at once; each must exit with 0.
    pub async fn stop_services(&mut self) -> Result<()> {
        let all = self.ingests.iter_mut().chain(&mut self.dispatchers);
        future::try_join_all(all.map(|member| async {
            let status = member.service.terminate().await?;
            let name = member.service.name();
            ensure!(status.success(), "{name} ended with {status} after SIGTERM");
            Ok(())
        }))
        .await?;
        Ok(())
    }

    fn member(&self, binary: &str, index: usize, http: Port) -> Result<Member> {
        let proxies = match self.paths {
            Paths::Direct => Vec::new(),
            Paths::Proxied => {
                let servers = self.nats.servers().iter();
                let proxies = servers.map(|server| Proxy::start(server.address()));
                proxies.collect::<Result<Vec<_>>>()?
            }
        };
        let urls = match self.paths {
            Paths::Direct => self.nats.urls(),
            Paths::Proxied => {
                let addresses = proxies.iter().map(Proxy::address);
                addresses
                    .map(|address| format!("nats://{address}"))
                    .collect()
            }
        };
        let name = format!("{binary}-{}", index + 1);
        let mut environment = self.environment.clone();
        environment.push(("CARILLON_NATS_URL".into(), urls.join(",")));
        let service = Service::new(binary, &name, &environment, http, &self.folder)?;
        Ok(Member { service, proxies })
    }
}

/// Of two settings of one name the later one counts.
fn environment(
    admin_token: &str,
    public_url: String,
    replicas: usize,
    settings: &[(&str, &str)],
) -> Vec<(String, String)> {
    let master_key = STANDARD.encode(shared::random::bytes::<32>());
    [
        ("CARILLON_MASTER_KEY", master_key),
        ("CARILLON_ADMIN_TOKEN", admin_token.to_owned()),
        ("CARILLON_PUBLIC_INGEST_URL", public_url),
        ("CARILLON_ENDPOINT_ALLOW_CIDRS", "127.0.0.0/8".into()),
        ("CARILLON_STREAM_REPLICAS", replicas.to_string()),
    ]
    .into_iter()
    .chain(
        settings
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    )
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
