//! A nats-server, an ingest and a dispatcher, as processes of their own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future;
use shared::ids::ReplicaId;
use tempfile::TempDir;

use crate::api::{self, Client};
use crate::eventually::eventually;
use crate::nats::NatsServer;
use crate::ports::Port;
use crate::process::Process;
use crate::tools;

/// Debug builds on a busy machine, reading back a few thousand messages.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// What the services promise for SIGTERM, and a little for the machine.
const STOP_WITHIN: Duration = Duration::from_secs(32);

/// One of the two services. Its ports stay the same from start to start.
#[derive(Debug)]
pub struct Service {
    name: String,
    binary: PathBuf,
    environment: Vec<(String, String)>,
    http: Port,
    ops: Port,
    log: PathBuf,
    process: Option<Process>,
}

impl Service {
    /// `binary` is `ingest` or `dispatcher`; `name` tells it apart from others of its kind.
    pub(crate) fn new(
        binary: &str,
        name: &str,
        environment: &[(String, String)],
        http: Port,
        folder: &Path,
    ) -> Result<Self> {
        let ops = Port::claim()?;
        let mut environment = environment.to_vec();
        environment.push(("CARILLON_HTTP_ADDR".into(), http.address().to_string()));
        environment.push(("CARILLON_OPS_ADDR".into(), ops.address().to_string()));
        Ok(Self {
            name: name.to_owned(),
            binary: tools::built(binary)?,
            environment,
            http,
            ops,
            log: folder.join(format!("{name}.log")),
            process: None,
        })
    }

    /// Without a final slash.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.http.address())
    }

    pub fn ops_url(&self) -> String {
        format!("http://{}", self.ops.address())
    }

    /// Where the process's output goes, from start to start.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of that.
    pub fn log_tail(&self) -> String {
        self.process
            .as_ref()
            .map(Process::log_tail)
            .unwrap_or_default()
    }

    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Changes a setting from the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the process, without waiting until it is ready.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.env_clear().env("RUST_BACKTRACE", "1");
        for name in ["PATH", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::spawn(&self.name, command, &self.log)?);
        Ok(())
    }

    /// Runs its program once more beside it, with its settings and these arguments, and gives what
    /// that printed.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.env_clear().args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // What the caller does beside it goes on meanwhile.
        tokio::task::spawn_blocking(move || tools::output_of(&mut command)).await?
    }

    /// Waits until `/readyz` says so. A process that ends instead is an error at once.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let url = format!("{}/readyz", self.ops_url());
        let http = api::http()?;
        let (name, process) = (&self.name, self.process.as_mut());
        let process = process.with_context(|| format!("{name} was not started"))?;
        let what = format!("{name} ready");
        let ready = eventually(&what, READY_WITHIN, async || {
            if let Some(status) = process.ended() {
                return Ok(Err(status));
            }
            match http.get(&url).send().await {
                Ok(answer) if answer.status() == 200 => Ok(Ok(())),
                Ok(answer) => Err(answer.text().await.unwrap_or_default().trim().to_owned()),
                Err(error) => Err(format!("{error:?}")),
            }
        })
        .await;
        let reason = match ready {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(status)) => format!("{name} ended with {status}"),
            Err(error) => format!("{error:#}"),
        };
        bail!("{reason}; end of its log:\n{}", process.log_tail())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// SIGSTOP.
    pub fn pause(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::pause)
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::resume)
    }

    /// The id that the running dispatcher has given itself, by the last line of its log that
    /// names one as its own.
    pub fn replica(&self) -> Option<ReplicaId> {
        let log = std::fs::read(&self.log).ok()?;
        let log = String::from_utf8_lossy(&log);
        let own = log
            .lines()
            .rev()
            .find(|line| line.contains("dispatcher is ready"))?;
        let (_, id) = own.split_once(ReplicaId::PREFIX)?;
        format!("{}{}", ReplicaId::PREFIX, id.get(..32)?)
            .parse()
            .ok()
    }

    /// SIGTERM, and the status that it exits with.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        let process = self
            .process
            .as_mut()
            .context("the service was not started")?;
        process.terminate(STOP_WITHIN).await
    }

    /// Starts it again, after its end or instead of what runs, and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.start()?;
        self.wait_ready().await
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> Result<String> {
        let url = format!("{}/metrics", self.ops_url());
        Ok(api::http()?
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .text()
            .await?)
    }
}

/// How a [`Cluster`] differs from the usual one.
#[derive(Debug, Default)]
pub struct ClusterBuilder {
    endpoint_allow_cidrs: Option<String>,
    environment: Vec<(String, String)>,
    folder: Option<PathBuf>,
}

impl ClusterBuilder {
    /// Networks that endpoints may lie in; the usual cluster allows 127.0.0.0/8.
    #[must_use]
    pub fn endpoint_allow_cidrs(mut self, cidrs: &str) -> Self {
        self.endpoint_allow_cidrs = Some(cidrs.to_owned());
        self
    }

    /// A further setting of both services.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A folder that stays, for the store and the logs.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Starts all three and waits until they are ready.
    pub async fn start(self) -> Result<Cluster> {
        let (folder, temporary) = match self.folder {
            Some(folder) => (folder, None),
            None => {
                let temporary = tempfile::tempdir().context("a temporary folder")?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let nats = NatsServer::start_in(&folder).await?;
        let ingest_http = Port::claim()?;
        let admin_token = hex::encode(shared::random::bytes::<16>());
        let cidrs = self
            .endpoint_allow_cidrs
            .unwrap_or_else(|| "127.0.0.0/8".into());
        let public_url = format!("http://{}", ingest_http.address());
        let mut environment: Vec<(String, String)> = [
            ("CARILLON_NATS_URL", nats.url()),
            (
                "CARILLON_MASTER_KEY",
                STANDARD.encode(shared::random::bytes::<32>()),
            ),
            ("CARILLON_ADMIN_TOKEN", admin_token.clone()),
            ("CARILLON_PUBLIC_INGEST_URL", public_url),
            ("CARILLON_ENDPOINT_ALLOW_CIDRS", cidrs),
            // Low, so that restarts begin from snapshots.
            ("CARILLON_SNAPSHOT_ENTRIES", "300".into()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        environment.extend(self.environment);
        let mut cluster = Cluster {
            ingest: Service::new("ingest", "ingest", &environment, ingest_http, &folder)?,
            dispatcher: Service::new(
                "dispatcher",
                "dispatcher",
                &environment,
                Port::claim()?,
                &folder,
            )?,
            nats,
            admin_token,
            _temporary: temporary,
        };
        cluster.ingest.start()?;
        cluster.dispatcher.start()?;
        future::try_join(cluster.ingest.wait_ready(), cluster.dispatcher.wait_ready()).await?;
        Ok(cluster)
    }
}

/// All ends when it is dropped, in the order of the fields.
#[derive(Debug)]
pub struct Cluster {
    pub ingest: Service,
    pub dispatcher: Service,
    pub nats: NatsServer,
    admin_token: String,
    _temporary: Option<TempDir>,
}

impl Cluster {
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// A client with the admin token.
    pub fn admin(&self) -> Result<Client> {
        Client::new(
            &self.dispatcher.http_url(),
            &self.ingest.http_url(),
            &self.admin_token,
        )
    }

    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// A new project with an API key.
    pub async fn tenant(&self, name: &str) -> Result<Tenant> {
        Tenant::create(&self.admin()?, name).await
    }

    /// Of everything that was started.
    pub fn process_ids(&self) -> Vec<u32> {
        let services = [self.ingest.process_id(), self.dispatcher.process_id()];
        services
            .into_iter()
            .flatten()
            .chain([self.nats.process_id()])
            .collect()
    }

    /// SIGTERM for everything; an exit other than 0 of one of the services is an error.
    pub async fn stop(mut self) -> Result<()> {
        for service in [&mut self.ingest, &mut self.dispatcher] {
            let status = service.terminate().await?;
            let name = &service.name;
            ensure!(status.success(), "{name} ended with {status} after SIGTERM");
        }
        self.nats.stop().await
    }
}

/// A project and a client with its API key.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub project: String,
    pub key_id: String,
    pub key: String,
    pub client: Client,
}

impl Tenant {
    /// By a client with the admin token.
    pub async fn create(admin: &Client, name: &str) -> Result<Self> {
        let project = admin.create_project(name).await?.id(201)?;
        let key = admin.create_api_key(&project, "tests").await?.expect(201)?;
        let text = |pointer| api::text(&key, pointer);
        Ok(Self {
            client: admin.with_token(&text("/key")?),
            project,
            key_id: text("/id")?,
            key: text("/key")?,
        })
    }
}
