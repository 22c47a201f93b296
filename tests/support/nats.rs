//! nats-servers with JetStream, each on a port and a store of its own: one alone, or three that
//! hold each other's streams.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use async_nats::jetstream::stream::Info;
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::ports::Port;
use crate::process::Process;
use crate::tools;

/// Recovering a store of a few thousand messages takes far less, on a busy machine too.
const START_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Elections take up to 9 s, and a store that was left behind is caught up after that.
const CURRENT_WITHIN: Duration = Duration::from_secs(60);
/// Of one question about a stream; without a leader nobody answers.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// When what is stored is synced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncInterval {
    /// The server's own, every two minutes: what is acknowledged outlives a killed process.
    Default,
    /// Before it is acknowledged: it outlives a machine that loses its power.
    Always,
}

#[derive(Debug)]
pub struct NatsServer {
    process: Process,
    port: Port,
    binary: PathBuf,
    folder: PathBuf,
    /// What a server alone is started without.
    arguments: Vec<String>,
    _temporary: Option<TempDir>,
}

impl NatsServer {
    /// In a temporary folder that goes when the server does.
    pub async fn start() -> Result<Self> {
        let temporary = tempfile::tempdir().context("a temporary folder")?;
        let folder = temporary.path().to_owned();
        let mut server = Self::spawn(folder, Vec::new())?;
        server._temporary = Some(temporary);
        server.accepts().await?;
        Ok(server)
    }

    /// In a folder that stays: the store and the server's log.
    pub async fn start_in(folder: &Path) -> Result<Self> {
        let mut server = Self::spawn(folder.to_owned(), Vec::new())?;
        server.accepts().await?;
        Ok(server)
    }

    fn spawn(folder: PathBuf, arguments: Vec<String>) -> Result<Self> {
        let binary = tools::nats_server()?;
        let port = Port::claim()?;
        Ok(Self {
            process: spawn(&binary, &folder, &port, &arguments)?,
            port,
            binary,
            folder,
            arguments,
            _temporary: None,
        })
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.port.address())
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.port.address()
    }

    /// Where everything that the server keeps lies.
    pub fn store_dir(&self) -> PathBuf {
        store(&self.folder)
    }

    /// How often the bytes lie in the store's files.
    pub fn occurrences(&self, bytes: &[u8]) -> Result<usize> {
        ensure!(!bytes.is_empty(), "nothing to look for");
        let mut folders = vec![self.store_dir()];
        let mut count = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                match std::fs::read(&path) {
                    Ok(file) => {
                        count += file.windows(bytes.len()).filter(|at| *at == bytes).count()
                    }
                    // The server makes and drops files as it goes.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(count)
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP.
    pub fn pause(&mut self) -> Result<()> {
        self.process.pause()
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.process.resume()
    }

    /// Starts it again on the same port and store, after a kill or instead of what runs.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.process = spawn(&self.binary, &self.folder, &self.port, &self.arguments)?;
        self.accepts().await
    }

    /// SIGTERM, so that the store is left synced.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.terminate(STOP_WITHIN).await?;
        Ok(())
    }

    /// It listens once JetStream has recovered its streams.
    async fn accepts(&mut self) -> Result<()> {
        let started = eventually("nats-server listening", START_WITHIN, async || {
            if let Some(status) = self.process.ended() {
                return Ok(Err(status));
            }
            match TcpStream::connect(self.port.address()) {
                Ok(_) => Ok(Ok(())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        started.map_err(|status| {
            let log = self.process.log_tail();
            anyhow::anyhow!("nats-server ended with {status}; its log:\n{log}")
        })
    }
}

fn store(folder: &Path) -> PathBuf {
    folder.join("jetstream-store")
}

fn spawn(binary: &Path, folder: &Path, port: &Port, arguments: &[String]) -> Result<Process> {
    let mut command = Command::new(binary);
    command
        .env_clear()
        .arg("-js")
        .arg("-sd")
        .arg(store(folder))
        .args(["-a", "127.0.0.1", "-p"])
        .arg(port.number().to_string())
        .args(arguments);
    Process::spawn("nats-server", command, &folder.join("nats-server.log"))
}

/// One server, or several that route to each other.
#[derive(Debug)]
pub struct NatsCluster {
    servers: Vec<NatsServer>,
    _route_ports: Vec<Port>,
    context: jetstream::Context,
}

impl NatsCluster {
    /// `count` servers (1 or 3), each with its store and log in a folder of its own below
    /// `folder`. They accept streams when this returns.
    pub async fn start_in(folder: &Path, count: usize, sync: SyncInterval) -> Result<Self> {
        ensure!(
            matches!(count, 1 | 3),
            "{count} servers have no quorum of use"
        );
        let routes = (0..count)
            .map(|_| Port::claim())
            .collect::<Result<Vec<_>>>()?;
        let mut servers = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let own = folder.join(name(index));
            std::fs::create_dir_all(&own)?;
            let mut arguments = match count {
                1 => Vec::new(),
                _ => arguments(index, route, &routes),
            };
            if sync == SyncInterval::Always {
                // There is no flag for it.
                let file = own.join("nats-server.conf");
                std::fs::write(&file, "jetstream { sync_interval: always }\n")?;
                arguments.extend(["-c".to_owned(), file.display().to_string()]);
            }
            servers.push(NatsServer::spawn(own, arguments)?);
        }
        for server in &mut servers {
            server.accepts().await?;
        }
        let urls: Vec<String> = servers.iter().map(NatsServer::url).collect();
        let cluster = Self {
            context: connect(&urls).await?,
            servers,
            _route_ports: routes,
        };
        // Until the servers have a leader of their own, no stream can be made.
        eventually("JetStream of the cluster", CURRENT_WITHIN, async || {
            let account = cluster.context.query_account().await;
            account.map_err(|error| error.to_string())
        })
        .await?;
        Ok(cluster)
    }

    pub fn len(&self) -> usize {
        self.servers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Of all servers.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// One of them, from 0.
    pub fn server(&mut self, index: usize) -> Result<&mut NatsServer> {
        let server = self.servers.get_mut(index);
        server.with_context(|| format!("there is no server {index}"))
    }

    pub fn servers(&self) -> &[NatsServer] {
        &self.servers
    }

    /// Over all servers, for reading streams.
    pub fn context(&self) -> &jetstream::Context {
        &self.context
    }

    /// Which server leads the stream, if one does and says so in time.
    pub async fn leader_of(&self, stream: &str) -> Option<usize> {
        let info = self.info(stream).await?;
        let Some(cluster) = info.cluster else {
            return Some(0);
        };
        let leader = cluster.leader?;
        (0..self.len()).find(|index| name(*index) == leader)
    }

    /// Waits until each stream has a leader and all its replicas are caught up, so that the loss
    /// of any one server is the loss of one only.
    pub async fn wait_current(&self, streams: &[&str]) -> Result<()> {
        for stream in streams {
            let what = format!("replicas of {stream} caught up");
            eventually(&what, CURRENT_WITHIN, async || {
                let info = self.info(stream).await.ok_or("no answer")?;
                let Some(cluster) = info.cluster else {
                    return Ok(());
                };
                let current = cluster.replicas.iter().filter(|peer| peer.current);
                let all = cluster.leader.is_some() && current.count() + 1 == self.len();
                all.then_some(()).ok_or_else(|| format!("{cluster:?}"))
            })
            .await?;
        }
        Ok(())
    }

    async fn info(&self, stream: &str) -> Option<Info> {
        let asked = async {
            let stream = self.context.get_stream_no_info(stream).await.ok()?;
            stream.get_info().await.ok()
        };
        tokio::time::timeout(ANSWER_WITHIN, asked).await.ok()?
    }

    pub async fn stop(&mut self) -> Result<()> {
        for server in &mut self.servers {
            server.stop().await?;
        }
        Ok(())
    }
}

fn name(index: usize) -> String {
    format!("nats-{}", index + 1)
}

/// Clients are told of no other server: those that go through a proxy would pass it by.
fn arguments(index: usize, route: &Port, routes: &[Port]) -> Vec<String> {
    let url = |port: &Port| format!("nats://{}", port.address());
    let all: Vec<_> = routes.iter().map(url).collect();
    [
        ("--name", name(index)),
        ("--cluster_name", "carillon-tests".into()),
        ("--cluster", url(route)),
        ("--routes", all.join(",")),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .chain(["--no_advertise=true".to_owned()])
    .collect()
}

async fn connect(urls: &[String]) -> Result<jetstream::Context> {
    let addresses: Vec<async_nats::ServerAddr> = urls
        .iter()
        .map(|url| url.parse())
        .collect::<Result<_, _>>()?;
    let client = async_nats::ConnectOptions::new()
        .retry_on_initial_connect()
        .connection_timeout(ANSWER_WITHIN)
        // A paused server answers nobody; the others do.
        .ping_interval(Duration::from_secs(1))
        .reconnect_delay_callback(|_| Duration::from_millis(50))
        .connect(addresses)
        .await?;
    Ok(jetstream::new(client))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(replicas: usize) -> jetstream::stream::Config {
        jetstream::stream::Config {
            name: "S".into(),
            num_replicas: replicas,
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn a_killed_server_comes_back_with_what_it_had_acknowledged() {
        let mut server = NatsServer::start().await.unwrap();
        let connect =
            async |url| async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
        let before = connect(server.url()).await;
        before.create_stream(stream(1)).await.unwrap();
        before
            .publish("S", "kept".into())
            .await
            .unwrap()
            .await
            .unwrap();
        server.kill();
        assert!(TcpStream::connect(server.port.address()).is_err());
        server.restart().await.unwrap();
        let stream = connect(server.url()).await.get_stream("S").await.unwrap();
        assert_eq!(
            &stream.get_raw_message(1).await.unwrap().payload[..],
            b"kept"
        );
        assert!(server.store_dir().is_dir());
        server.stop().await.unwrap();
    }

    #[tokio::test]
    async fn a_cluster_elects_another_leader_and_takes_the_killed_one_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = NatsCluster::start_in(folder.path(), 3, SyncInterval::Default)
            .await
            .unwrap();
        eventually("a stream of three", CURRENT_WITHIN, async || {
            let made = cluster.context().create_stream(stream(3)).await;
            made.map(drop).map_err(|error| error.to_string())
        })
        .await
        .unwrap();
        cluster.wait_current(&["S"]).await.unwrap();
        let led = cluster.leader_of("S").await.unwrap();
        cluster.server(led).unwrap().kill();
        eventually("another leader", CURRENT_WITHIN, async || {
            let leader = cluster.leader_of("S").await;
            let other = leader.filter(|leader| *leader != led);
            other.ok_or_else(|| format!("{leader:?}"))
        })
        .await
        .unwrap();
        cluster.server(led).unwrap().restart().await.unwrap();
        cluster.wait_current(&["S"]).await.unwrap();
        cluster.stop().await.unwrap();
    }
}
