//! HTTP/1.1, as far as a receiver of webhooks needs it, and simple enough to close a connection
//! at any point. Deliberately absent: chunked bodies, which no sender of ours makes.

use std::collections::BTreeMap;
use std::net::TcpListener;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::Answer;
use super::answer::End;

const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 16 << 20;

/// What records requests and answers them.
pub(super) trait Endpoint: Clone + 'static {
    /// Records a request, and says what to answer and which number the record has.
    fn arrived(&self, request: Request) -> (usize, Answer);
    /// The answer is about to be written.
    fn answered(&self, index: usize, status: u16);
    /// The connection has taken the whole answer.
    fn written(&self, index: usize);
}

pub(super) struct Request {
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// Serves until it is told to stop, or nobody is left who could tell it.
pub(super) fn serve(
    listener: TcpListener,
    endpoint: impl Endpoint,
    stopped: oneshot::Receiver<()>,
) {
    let accept = async move {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
            return;
        };
        while let Ok((stream, _)) = listener.accept().await {
            // Ends with its connection, or with the system around it.
            actix_rt::spawn(connection(stream, endpoint.clone()));
        }
    };
    actix_rt::System::new().block_on(async {
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    });
}

/// Requests of one connection, one after the other. Whatever is wrong with one ends it.
async fn connection(mut stream: TcpStream, endpoint: impl Endpoint) {
    let mut buffer = Vec::new();
    while let Ok(Some(request)) = read_request(&mut stream, &mut buffer).await {
        let (index, answer) = endpoint.arrived(request);
        if !answer.delay.is_zero() {
            sleep(answer.delay).await;
        }
        let status = match answer.end {
            End::Status(status) => status,
            End::Closed => return,
            End::Reset => {
                // What is closed with nothing to linger for is reset.
                stream.set_zero_linger().ok();
                return;
            }
        };
        // Noted first: once the sender has the answer, what it leads to may be looked for.
        endpoint.answered(index, status);
        if stream.write_all(&written(status, &answer)).await.is_err() {
            return;
        }
        endpoint.written(index);
    }
}

/// `None` at a close between requests. What follows the request stays in `buffer`.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Request>> {
    let head_bytes = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(buffer.len() < HEAD_BYTES_MAX, "the head is too large");
        if stream.read_buf(buffer).await? == 0 {
            ensure!(buffer.is_empty(), "closed within a head");
            return Ok(None);
        }
    };
    let head: Vec<u8> = buffer.drain(..head_bytes).collect();
    let (path, headers) = parse_head(std::str::from_utf8(&head)?)?;
    ensure!(
        !headers.contains_key("transfer-encoding"),
        "chunked bodies are not read"
    );
    let length = headers
        .get("content-length")
        .map_or(Ok(0), |length| length.parse())?;
    ensure!(length <= BODY_BYTES_MAX, "the body is too large");
    while buffer.len() < length {
        ensure!(stream.read_buf(buffer).await? > 0, "closed within a body");
    }
    let body = buffer.drain(..length).collect();
    Ok(Some(Request {
        path,
        headers,
        body,
    }))
}

fn parse_head(head: &str) -> Result<(String, BTreeMap<String, String>)> {
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let mut request = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (request.next(), request.next());
    ensure!(method == Some("POST"), "not a POST");
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect::<Result<_>>()?;
    Ok((path.context("no path")?.to_owned(), headers))
}

fn written(status: u16, answer: &Answer) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Told\r\n");
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    // A 204 has no body, and no length either (RFC 9110, 8.6).
    if status == 204 {
        head.push_str("\r\n");
        return head.into_bytes();
    }
    head.push_str(&format!(
        "content-length: {}\r\n\r\n{}",
        answer.body.len(),
        answer.body
    ));
    head.into_bytes()
}
