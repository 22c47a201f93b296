//! The dispatcher's process: settings, logs, sockets, signals.

use std::net::TcpListener;

use anyhow::Context as _;
use dispatcher::{Listeners, Ports};
use shared::config::{Arguments, Service, Settings};
use shared::{shutdown, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse(Service::Dispatcher, std::env::args_os().skip(1))
        .context("usage: dispatcher [--config FILE] [--check-config | --reseal]")?;
    let settings = Settings::load(Service::Dispatcher, arguments.config)?;
    if arguments.check_config {
        use std::io::Write as _;
        return Ok(writeln!(std::io::stdout(), "{settings}")?);
    }
    telemetry::install_logs(&settings.log, settings.log_format).map_err(anyhow::Error::msg)?;
    if arguments.reseal {
        return reseal(settings);
    }
    let bind = |address| TcpListener::bind(address).with_context(|| format!("binding {address}"));
    let listeners = Listeners {
        http: bind(settings.http_addr)?,
        ops: bind(settings.ops_addr)?,
    };
    actix_rt::System::new().block_on(async {
        let requested = shutdown::requested();
        let requested = async {
            if let Err(error) = requested.await {
                tracing::error!(%error, "signals are not heard");
                std::future::pending::<()>().await;
            }
            tracing::info!("stopping");
        };
        let ports = Ports::system();
        // Boxed: the whole service is one future of many kilobytes.
        Box::pin(dispatcher::run(settings, listeners, ports, requested)).await
    })?;
    Ok(())
}

/// Fails while anything is left that a former master key has sealed.
fn reseal(settings: Settings) -> anyhow::Result<()> {
    use std::io::Write as _;
    let resealed = actix_rt::System::new().block_on(Box::pin(dispatcher::reseal(settings)))?;
    Ok(writeln!(
        std::io::stdout(),
        "data keys: {}, sealed anew: {}, former entries overwritten: {}",
        resealed.data_keys,
        resealed.resealed,
        resealed.overwritten,
    )?)
}
