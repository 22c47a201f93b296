//! One nats-server with JetStream, on a port and a store of its own.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::ports::Port;
use crate::process::Process;
use crate::tools;

/// Recovering a store of a few thousand messages takes far less, on a busy machine too.
const START_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct NatsServer {
    process: Process,
    port: Port,
    binary: PathBuf,
    folder: PathBuf,
    _temporary: Option<TempDir>,
}

impl NatsServer {
    /// In a temporary folder that goes when the server does.
    pub async fn start() -> Result<Self> {
        let temporary = tempfile::tempdir().context("a temporary folder")?;
        let folder = temporary.path().to_owned();
        Self::start_with(folder, Some(temporary)).await
    }

    /// In a folder that stays: the store and the server's log.
    pub async fn start_in(folder: &Path) -> Result<Self> {
        Self::start_with(folder.to_owned(), None).await
    }

    async fn start_with(folder: PathBuf, temporary: Option<TempDir>) -> Result<Self> {
        let binary = tools::nats_server()?;
        let port = Port::claim()?;
        let mut server = Self {
            process: spawn(&binary, &folder, &port)?,
            port,
            binary,
            folder,
            _temporary: temporary,
        };
        server.accepts().await?;
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.port.address())
    }

    /// Where everything that the server keeps lies.
    pub fn store_dir(&self) -> PathBuf {
        store(&self.folder)
    }

    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port and store, after a kill or instead of what runs.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        self.process = spawn(&self.binary, &self.folder, &self.port)?;
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

fn spawn(binary: &Path, folder: &Path, port: &Port) -> Result<Process> {
    let mut command = Command::new(binary);
    command
        .env_clear()
        .arg("-js")
        .arg("-sd")
        .arg(store(folder))
        .args(["-a", "127.0.0.1", "-p"])
        .arg(port.number().to_string());
    Process::spawn("nats-server", command, &folder.join("nats-server.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_killed_server_comes_back_with_what_it_had_acknowledged() {
        let mut server = NatsServer::start().await.unwrap();
        let connect =
            async |url| async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
        let before = connect(server.url()).await;
        let stream = async_nats::jetstream::stream::Config {
            name: "S".into(),
            ..Default::default()
        };
        before.create_stream(stream).await.unwrap();
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
}
