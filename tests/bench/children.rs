//! The processes beside the services: receiver, load and bare loop are this program again, so that
//! each one's CPU time is its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use support::eventually::eventually;
use support::ports::Port;
use support::process::Process;
use tokio::net::TcpStream;

use crate::load::Done;
use crate::receiver::counts::Report;
use crate::receiver::{self, Speaks};
use crate::wire::Connection;

const STARTED_WITHIN: Duration = Duration::from_secs(10);
/// Far above any load's own limit.
const DONE_WITHIN: Duration = Duration::from_secs(300);

/// Starts this program in another role.
fn spawn(role: &str, plan: &impl Serialize, folder: &Path) -> Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(role).arg(serde_json::to_string(plan)?);
    Process::spawn(role, command, &folder.join(format!("{role}.log")))
}

/// A load under way.
pub(crate) struct Loading {
    process: Process,
    result: PathBuf,
}

impl Loading {
    /// `plan` makes the role's plan of the path that its result goes to.
    pub(crate) fn start<P: Serialize>(
        role: &str,
        folder: &Path,
        plan: impl FnOnce(PathBuf) -> P,
    ) -> Result<Self> {
        let result = folder.join(format!("{role}-{}.json", shared::random::number()));
        Ok(Self {
            process: spawn(role, &plan(result.clone()), folder)?,
            result,
        })
    }

    pub(crate) async fn done(mut self) -> Result<Done> {
        let status = self.process.finished(DONE_WITHIN).await?;
        ensure!(
            status.success(),
            "the load ended with {status}:\n{}",
            self.process.log_tail()
        );
        Ok(serde_json::from_slice(&std::fs::read(&self.result)?)?)
    }
}

/// The receiver's process.
pub(crate) struct Receiver {
    process: Process,
    speaks: Speaks,
    endpoints: Port,
    control: Port,
}

impl Receiver {
    pub(crate) async fn start(speaks: Speaks, folder: &Path) -> Result<Self> {
        let (endpoints, control) = (Port::claim()?, Port::claim()?);
        let plan = receiver::Plan {
            endpoints: endpoints.address(),
            control: control.address(),
            speaks,
        };
        let receiver = Self {
            process: spawn("receive", &plan, folder)?,
            speaks,
            endpoints,
            control,
        };
        eventually("the receiver", STARTED_WITHIN, async || {
            let both = [receiver.address(), receiver.control()];
            for address in both {
                let connected = TcpStream::connect(address).await;
                connected.map_err(|error| error.to_string())?;
            }
            Ok(())
        })
        .await?;
        Ok(receiver)
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoints.address()
    }

    pub(crate) fn control(&self) -> SocketAddr {
        self.control.address()
    }

    /// `path` starts with a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = match self.speaks {
            Speaks::Plain => "http",
            Speaks::Tls1 | Speaks::Tls2 => "https",
        };
        format!("{scheme}://{}{path}", self.address())
    }

    /// Forgets everything so far.
    pub(crate) async fn reset(&self) -> Result<()> {
        self.ask("/reset").await.map(drop)
    }

    pub(crate) async fn report(&self) -> Result<Report> {
        Ok(serde_json::from_str(&self.ask("/report").await?)?)
    }

    /// Waits until so many pairs of event and endpoint have arrived.
    pub(crate) async fn wait_for(&self, count: u64, within: Duration) -> Result<()> {
        eventually("deliveries", within, async || {
            let text = self
                .ask("/count")
                .await
                .map_err(|error| error.to_string())?;
            let arrived: u64 = text.parse().map_err(|_| text.clone())?;
            (arrived >= count)
                .then_some(())
                .ok_or_else(|| format!("{arrived} of {count}"))
        })
        .await
    }

    async fn ask(&self, path: &str) -> Result<String> {
        let mut connection = Connection::new(TcpStream::connect(self.control()).await?);
        let request = format!("GET {path} HTTP/1.1\r\n\r\n");
        connection.write(request.as_bytes()).await?;
        let answer = connection.next(|answer| String::from_utf8_lossy(answer.body).into_owned());
        answer.await?.context("the receiver is gone")
    }
}
