//! A nats-server of one's own: free port, temporary store, gone when dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::world::eventually;

pub(crate) struct NatsServer {
    address: SocketAddr,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl NatsServer {
    pub(crate) async fn start() -> Self {
        Self::with_max_payload(1 << 20).await
    }

    pub(crate) async fn with_max_payload(max_payload: usize) -> Self {
        let mut server = Self::not_started(max_payload);
        server.restart().await;
        server
    }

    /// Its port is known and nobody listens there.
    pub(crate) fn not_started(max_payload: usize) -> Self {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let config = format!(
            "listen: \"{address}\"\nmax_payload: {max_payload}\njetstream {{ store_dir: {store:?} }}\n"
        );
        std::fs::write(dir.path().join("nats.conf"), config).unwrap();
        Self {
            address,
            dir,
            child: None,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// On the same port and store.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let child = Command::new(program())
            .arg("-c")
            .arg(self.dir.path().join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let address = self.address;
        eventually("nats-server listens", async || {
            TcpStream::connect(address).is_ok()
        })
        .await;
    }

    /// As SIGKILL does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// `STOP` and `CONT`, for a server that hangs.
    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.child.as_ref().unwrap().id(), signal);
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn send_signal(process: u32, signal: &str) {
    let status = Command::new("kill")
        .args(["-s", signal, &process.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// What the environment names, else what the script finds or downloads.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("NATS_SERVER") {
            return path.into();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/tools/nats-server");
        let output = Command::new(script)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "deploy/tools/nats-server failed");
        String::from_utf8(output.stdout).unwrap().trim_end().into()
    })
}
