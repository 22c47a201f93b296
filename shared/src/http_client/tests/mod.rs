//! Against real sockets on the loopback: each endpoint is a thread with a hand-written answer.
//! That environment proxies are ignored rests on `no_proxy()`: a test could not set them
//! without changing the environment under every other test.

mod addresses;
mod attempts;
mod tls;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use super::*;

/// Ample for an answer on the loopback, even on a busy machine.
const AMPLE: Duration = Duration::from_secs(20);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers lookups from a list, and goes on with the last answer; an empty answer is an error.
struct Lookups(Mutex<Vec<Vec<IpAddr>>>);

impl Resolve for Lookups {
    fn resolve(&self, _host: String) -> Resolving {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers.first().cloned().unwrap_or_default()
        };
        Box::pin(async move {
            if answer.is_empty() {
                return Err(io::Error::other("no such host"));
            }
            Ok(answer)
        })
    }
}

fn lookups(answers: &[&[&str]]) -> Arc<dyn Resolve> {
    let answers = answers
        .iter()
        .map(|one| one.iter().map(|ip| ip.parse().unwrap()).collect());
    Arc::new(Lookups(Mutex::new(answers.collect())))
}

fn guard(excepted: &[&str]) -> Arc<AddressGuard> {
    let excepted = excepted.iter().map(|net| net.parse().unwrap()).collect();
    Arc::new(AddressGuard::new(excepted))
}

fn client(excepted: &[&str], resolver: Arc<dyn Resolve>) -> GuardedClient {
    GuardedClient::new(guard(excepted), resolver, "Carillon/test").unwrap()
}

/// May call the loopback, and finds every name there.
fn local_client() -> GuardedClient {
    client(&["127.0.0.0/8"], lookups(&[&["127.0.0.1"]]))
}

fn url(text: &str) -> EndpointUrl {
    EndpointUrl::parse(text).unwrap()
}

async fn post(client: &GuardedClient, url: &EndpointUrl) -> AttemptResult {
    client
        .post(url, HeaderMap::new(), Bytes::from_static(b"{}"), AMPLE)
        .await
}

async fn failure(client: &GuardedClient, url: &EndpointUrl) -> AttemptError {
    post(client, url).await.unwrap_err()
}

/// An endpoint on a free port; the thread ends with `serve`.
fn endpoint(serve: impl FnOnce(TcpListener) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || serve(listener));
    address
}

/// Answers every request on every connection alike, and reports each request's text together
/// with the number of its connection.
fn answering(response: impl Into<Vec<u8>>) -> (EndpointUrl, Receiver<(usize, String)>) {
    let response = response.into();
    let (seen, requests) = channel();
    let address = endpoint(move |listener| {
        for connection in 0.. {
            let mut stream = listener.accept().unwrap().0;
            while let Some(request) = read_request(&mut stream) {
                seen.send((connection, request)).ok();
                stream.write_all(&response).ok();
            }
        }
    });
    (
        url(&format!("http://{address}/hook?token=s3cret")),
        requests,
    )
}

/// One request, head and body; `None` at the end of the connection.
fn read_request(stream: &mut impl Read) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text.into_owned());
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend(&buffer[..read]),
        }
    }
}

/// Blocks until the other side has gone.
fn wait_for_end(stream: &mut TcpStream) {
    while let Ok(1..) = stream.read(&mut [0; 4096]) {}
}

fn never_contacted(listener: &TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    listener
        .accept()
        .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
