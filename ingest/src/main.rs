//! The `ingest` binary: settings, logs, listeners, run.

use std::io::Write as _;
use std::net::TcpListener;

use anyhow::{Context as _, anyhow};
use shared::config::{Arguments, Service, Settings};
use shared::{shutdown, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse(Service::Ingest, std::env::args_os().skip(1))?;
    let settings = Settings::load(Service::Ingest, arguments.config)?;
    if arguments.check_config {
        writeln!(std::io::stdout(), "{settings}")?;
        return Ok(());
    }
    telemetry::install_logs(&settings.log, settings.log_format)
        .map_err(|error| anyhow!("setting log (CARILLON_LOG): {error}"))?;
    let bind =
        |address| TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"));
    let listeners = ingest::Listeners {
        http: bind(settings.http_addr)?,
        ops: bind(settings.ops_addr)?,
    };
    actix_rt::System::new().block_on(async {
        let shutdown = async {
            if let Err(error) = shutdown::requested().await {
                tracing::error!(%error, "signals cannot be received");
            }
        };
        ingest::run(settings, listeners, shutdown).await?;
        Ok(())
    })
}
