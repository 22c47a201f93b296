//! Carillon end to end, on one machine: a provider's callback comes in, lies in JetStream and
//! arrives, signed, at a receiver that verifies it. Everything runs as in production, as
//! processes of their own; everything ends with this one, however it ends.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "showing is what the demo is for"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::arguments::{Arguments, USAGE};
use crate::page::Page;
use crate::scene::Scene;

mod acts;
mod arguments;
mod fields;
mod page;
mod record;
mod scene;
mod show;

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(arguments) if arguments.help => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("demo: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .context("starting the runtime")
        .and_then(|runtime| runtime.block_on(demo(&arguments)));
    outcome.unwrap_or_else(|error| {
        eprintln!("\ndemo: failed: {error:#}");
        ExitCode::FAILURE
    })
}

async fn demo(arguments: &Arguments) -> Result<ExitCode> {
    let mut stop = StopSignals::new()?;
    let folder = Folder::new(arguments)?;
    let page = Page::new();
    let scene = tokio::select! {
        scene = Scene::set(&folder.path, &page) => scene?,
        () = stop.received() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let shown = tokio::select! {
        shown = show(&scene, &page, arguments) => shown,
        () = stop.received() => {
            end(scene, &page, &mut stop).await?;
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    if let Err(error) = shown {
        page.logs(&scene.cluster);
        return Err(error);
    }
    if !arguments.once {
        page.try_next(&scene);
        tokio::select! {
            () = show::follow(&scene, &page) => {}
            () = stop.received() => {}
        }
    }
    end(scene, &page, &mut stop).await?;
    if folder.is_kept() {
        page.line(
            "",
            &format!("The store is kept in {}", folder.path.display()),
        );
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(scene: &Scene, page: &Page, arguments: &Arguments) -> Result<()> {
    page.scene(scene);
    if let Some(file) = &arguments.report {
        record::report(scene, file)?;
    }
    show::all(scene, page).await?;
    if let Some(file) = &arguments.capture {
        record::capture(scene, file)?;
    }
    Ok(())
}

/// Services drain on SIGTERM; who cannot wait for that says so by a second signal.
async fn end(scene: Scene, page: &Page, stop: &mut StopSignals) -> Result<()> {
    page.line("\n", "Stopping.");
    tokio::select! {
        ended = scene.cluster.stop() => ended,
        () = stop.received() => Ok(()),
    }
}

/// Where the store and the logs lie.
struct Folder {
    path: PathBuf,
    /// Removed with everything in it when it is dropped.
    temporary: Option<TempDir>,
}

impl Folder {
    fn new(arguments: &Arguments) -> Result<Self> {
        if let Some(path) = &arguments.store {
            return Self::given(path);
        }
        let temporary = tempfile::Builder::new()
            .prefix("carillon-demo-")
            .tempdir()
            .context("a temporary folder")?;
        Ok(if arguments.keep_store {
            Self {
                path: temporary.keep(),
                temporary: None,
            }
        } else {
            Self {
                path: temporary.path().to_owned(),
                temporary: Some(temporary),
            }
        })
    }

    /// Each run seals with a master key of its own, so that an old store would be of no use.
    fn given(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        let mut entries = path.read_dir()?;
        ensure!(entries.next().is_none(), "{} is not empty", path.display());
        Ok(Self {
            path: path.canonicalize()?,
            temporary: None,
        })
    }

    fn is_kept(&self) -> bool {
        self.temporary.is_none()
    }
}

/// Ctrl-C, SIGTERM, and the terminal's end.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl StopSignals {
    fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
