//! A nats-server with JetStream on a free port and a store of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::eventually;

/// Stopped and its store removed when it is dropped.
pub(crate) struct NatsServer {
    child: Child,
    folder: PathBuf,
    /// `nats://` and address.
    pub(crate) url: String,
}

impl NatsServer {
    pub(crate) async fn start() -> Self {
        let unique = hex_of(&shared::random::bytes::<8>());
        let folder = std::env::temp_dir().join(format!("carillon-api-{unique}"));
        std::fs::create_dir_all(&folder).unwrap();
        let child = Command::new(nats_server())
            .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"])
            .arg(&folder)
            .arg("--ports_file_dir")
            .arg(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self {
            child,
            folder,
            url: String::new(),
        };
        server.url = eventually(|| server.url_in_ports_file()).await;
        server
    }

    fn url_in_ports_file(&self) -> Option<String> {
        let ports = files(&self.folder).into_iter().find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "ports")
        })?;
        let ports: Value = serde_json::from_slice(&std::fs::read(ports).ok()?).ok()?;
        Some(ports.pointer("/nats/0")?.as_str()?.to_owned())
    }

    /// Asserts that none of the secrets stands anywhere in what the server has stored. Streams
    /// are written in order and a little late, so `latest`, from the last message, is awaited.
    pub(crate) async fn expect_not_stored(&self, secrets: &[&str], latest: &str) {
        eventually(|| self.has_stored(latest).then_some(())).await;
        for secret in secrets {
            assert!(!self.has_stored(secret), "{secret}");
        }
    }

    fn has_stored(&self, text: &str) -> bool {
        files(&self.folder).into_iter().any(|path| {
            let stored = std::fs::read(path).unwrap_or_default();
            stored
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        })
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn nats_server() -> OsString {
    if let Some(path) = std::env::var_os("NATS_SERVER") {
        return path;
    }
    // Finds the one on PATH or in .tools/, and else downloads it.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/tools/nats-server");
    let found = Command::new(script).output().unwrap();
    assert!(
        found.status.success(),
        "{}",
        String::from_utf8_lossy(&found.stderr)
    );
    String::from_utf8(found.stdout).unwrap().trim_end().into()
}

/// All files in the folder and below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) | Err(_) => found.push(entry.path()),
        }
    }
    found
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
