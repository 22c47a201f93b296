//! A nats-server of one's own, connected to: free port, temporary store, gone when dropped.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use shared::nats::topology::{self, TopologySettings};
use shared::nats::{self, Nats, NatsSettings};
use shared::partition::PartitionCount;
use shared::time::{Clock as _, SystemClock};

pub(crate) struct NatsServer {
    child: Child,
    pub(crate) nats: Nats,
    _dir: tempfile::TempDir,
}

impl NatsServer {
    pub(crate) async fn start() -> Self {
        Self::with_max_payload(1 << 20).await
    }

    pub(crate) async fn with_max_payload(max_payload: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let config = format!(
            "listen: \"{address}\"\nmax_payload: {max_payload}\njetstream {{ store_dir: {store:?} }}\n"
        );
        let file = dir.path().join("nats.conf");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(program())
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let clock = SystemClock::new();
        while TcpStream::connect(address).is_err() {
            assert!(clock.elapsed() < Duration::from_secs(15), "it listens");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let settings = NatsSettings {
            urls: vec![format!("nats://{address}")],
            client_name: "test".into(),
            ..NatsSettings::default()
        };
        let client = nats::connect(&settings).await.unwrap();
        client.flush().await.unwrap();
        let settings = TopologySettings {
            replicas: 1,
            partitions: PartitionCount::DEFAULT,
        };
        Self {
            child,
            nats: topology::ensure(&client, &settings).await.unwrap(),
            _dir: dir,
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What the environment names, else what the script finds or downloads.
fn program() -> PathBuf {
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
}
