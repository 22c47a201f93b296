//! The binary.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use crate::nats_server::{NatsServer, send_signal};
use crate::world::{MASTER_KEY, eventually, http};

fn ingest() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingest"));
    command
        .env_clear()
        .env("CARILLON_MASTER_KEY", MASTER_KEY)
        .stdin(Stdio::null());
    command
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn effective_settings_are_printed_with_secrets_masked() {
    let output = ingest().arg("--check-config").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("http_addr = \"127.0.0.1:8081\""), "{text}");
    assert!(!text.contains(MASTER_KEY), "{text}");
    let output = ingest().env("CARILLON_NONSENSE", "1").output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("nonsense"), "{text}");
}

#[actix_web::test]
async fn sigterm_ends_it_with_0_and_it_writes_to_stderr_alone() {
    let server = NatsServer::start().await;
    let (http_addr, ops_addr) = (free_address(), free_address());
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| File::create(dir.path().join(name)).unwrap();
    let mut process = Process(
        ingest()
            .env("CARILLON_NATS_URL", server.url())
            .env("CARILLON_HTTP_ADDR", &http_addr)
            .env("CARILLON_OPS_ADDR", &ops_addr)
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap(),
    );
    eventually("it is ready", async || {
        let answer = http().get(format!("http://{ops_addr}/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    send_signal(process.0.id(), "TERM");
    let mut status = None;
    eventually("it has ended", async || {
        status = process.0.try_wait().unwrap();
        status.is_some()
    })
    .await;
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let log = read("stderr");
    assert_eq!(status.unwrap().code(), Some(0), "{log}");
    assert_eq!(read("stdout"), "");
    let listening = format!("listening http={http_addr} ops={ops_addr}");
    assert!(log.contains(&listening), "{log}");
}

/// Ends with the test, however that ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}
