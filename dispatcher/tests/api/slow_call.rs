//! A call whose body arrives in two parts, so that something can happen between them.

use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::WITHIN;

/// Its head and half of its body are sent.
pub(crate) struct SlowCall {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl SlowCall {
    /// Sends what the server needs to have checked who asks, and waits until it has: it says so
    /// by `100 Continue`, when the handler asks for the body.
    pub(crate) async fn begin(address: &str, key: &str, path: &str, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\
             expect: 100-continue\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let stream = TcpStream::connect(address).await.unwrap();
        let mut call = Self { stream, rest: body };
        call.send(head.as_bytes()).await;
        let answered = call.read(b"\r\n\r\n").await;
        assert!(answered.starts_with("HTTP/1.1 100"), "{answered}");
        let rest = call.rest.split_off(call.rest.len() / 2);
        let first = std::mem::replace(&mut call.rest, rest);
        call.send(&first).await;
        call
    }

    /// Sends the rest, and gives the status of the answer.
    pub(crate) async fn finish(mut self) -> u16 {
        let rest = std::mem::take(&mut self.rest);
        self.send(&rest).await;
        let answer = self.read(b"\r\n").await;
        let status = answer.split(' ').nth(1).unwrap();
        status.parse().unwrap()
    }

    async fn send(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.stream.writable().await.unwrap();
            if let Ok(written) = self.stream.try_write(bytes) {
                bytes = &bytes[written..];
            }
        }
    }

    /// What arrives, through `end` or to the connection's end.
    async fn read(&self, end: &[u8]) -> String {
        let mut read = Vec::new();
        let arrive = async {
            while !read.ends_with(end) {
                self.stream.readable().await.unwrap();
                let mut byte = [0];
                match self.stream.try_read(&mut byte) {
                    Ok(0) => break,
                    Ok(_) => read.push(byte[0]),
                    Err(_) => {}
                }
            }
        };
        tokio::time::timeout(WITHIN, arrive).await.unwrap();
        String::from_utf8(read).unwrap()
    }
}
