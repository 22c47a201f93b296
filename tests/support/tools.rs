//! Programs that are not ours: where they are, and how to get them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// The workspace's folder.
pub fn workspace() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// What the Makefile says in the environment, else what is on PATH, else the copy in `.tools/`.
pub fn nats_server() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("NATS_SERVER").filter(|given| !given.is_empty()) {
        let path = PathBuf::from(given);
        ensure!(
            path.is_file(),
            "NATS_SERVER is {}, which is no file",
            path.display()
        );
        return Ok(path);
    }
    if let Some(found) = on_path("nats-server") {
        return Ok(found);
    }
    let copy = workspace().join(".tools/nats-server");
    if copy.is_file() {
        return Ok(copy);
    }
    bail!(
        "no nats-server: not named by NATS_SERVER, not on PATH, not at {}; \
         run `make test` or `make demo`, or deploy/tools/nats-server, which fetches it",
        copy.display()
    )
}

/// A Python that has the official verifier.
pub fn python() -> Result<PathBuf> {
    let path = workspace().join(".tools/python/bin/python3");
    ensure!(
        path.is_file(),
        "{} is missing; run `make test`, or deploy/tools/verifiers, which makes it",
        path.display()
    );
    Ok(path)
}

/// A Python that has schemathesis.
pub fn schemathesis() -> Result<PathBuf> {
    let path = workspace().join(".tools/schemathesis/bin/python3");
    ensure!(
        path.is_file(),
        "{} is missing; run `make api-fuzz`, or deploy/tools/schemathesis, which makes it",
        path.display()
    );
    Ok(path)
}

/// Node, and the folder that has the official verifier in its `node_modules`.
pub fn node() -> Result<(PathBuf, PathBuf)> {
    let Some(node) = on_path("node") else {
        bail!("node (20 or later) is not on PATH");
    };
    let modules = workspace().join(".tools/node");
    ensure!(
        modules.join("node_modules/standardwebhooks").is_dir(),
        "{} lacks standardwebhooks; run `make test`, or deploy/tools/verifiers, which installs it",
        modules.display()
    );
    Ok((node, modules))
}

/// What counts instructions, if there is one: as the Makefile says, else what is on PATH.
pub fn valgrind() -> Option<PathBuf> {
    let given = std::env::var_os("VALGRIND").filter(|given| !given.is_empty());
    given.map(PathBuf::from).or_else(|| on_path("valgrind"))
}

/// A binary of this workspace, beside the running one.
pub fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("the path of the running program")?;
    let mut folder = own
        .parent()
        .context("the running program lies in a folder")?;
    // Tests run from `deps/`, a level below the binaries.
    if folder.file_name() == Some(OsStr::new("deps")) {
        folder = folder.parent().unwrap_or(folder);
    }
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is not built; run `make test`, or `cargo build --workspace --bins` for the same target folder",
        path.display()
    );
    Ok(path)
}

/// Standard output of a program that must succeed.
pub fn output_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_owned();
    let output = command
        .output()
        .with_context(|| format!("starting {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} ended with {}\n{}{}",
        program.display(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
