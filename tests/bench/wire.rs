//! HTTP/1.1 as both ends of a load speak it: messages with a length, one after the other, on
//! connections that stay. As little work as possible, since it is measured with everything else.
//! Deliberately absent: chunked bodies, which neither the services nor this program send.

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const HEAD_END: &[u8] = b"\r\n\r\n";
const LENGTH: &[u8] = b"content-length: ";
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// One connection and what was read of it.
pub(crate) struct Connection<S> {
    stream: S,
    read: BytesMut,
}

/// A request or an answer, until the next one is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// First line and headers.
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            read: BytesMut::with_capacity(8 << 10),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.context("writing")
    }

    /// Reads the next message and gives it to `look`; `None` at a close between messages.
    pub(crate) async fn next<T>(
        &mut self,
        look: impl FnOnce(Message<'_>) -> T,
    ) -> Result<Option<T>> {
        let mut searched = 0;
        let head_bytes = loop {
            let unsearched = self.read.get(searched..).unwrap_or_default();
            if let Some(place) = find(unsearched, HEAD_END) {
                break searched + place + HEAD_END.len();
            }
            searched = self.read.len().saturating_sub(HEAD_END.len() - 1);
            if !self.more().await? {
                ensure!(self.read.is_empty(), "closed within a head");
                return Ok(None);
            }
        };
        let body_bytes = self.read.get(..head_bytes).map_or(Ok(0), content_length)?;
        let all_bytes = head_bytes + body_bytes;
        while self.read.len() < all_bytes {
            ensure!(self.more().await?, "closed within a body");
        }
        let (head, rest) = self.read.split_at_checked(head_bytes).context("a head")?;
        let body = rest.get(..body_bytes).context("a body")?;
        let looked = look(Message { head, body });
        self.read.advance(all_bytes);
        Ok(Some(looked))
    }

    async fn more(&mut self) -> Result<bool> {
        ensure!(self.read.len() < MESSAGE_BYTES_MAX, "too much");
        Ok(self
            .stream
            .read_buf(&mut self.read)
            .await
            .context("reading")?
            > 0)
    }
}

impl Message<'_> {
    /// Of a request.
    pub(crate) fn path(&self) -> &str {
        let mut words = self.head.split(|byte| *byte == b' ');
        let path = words.nth(1).unwrap_or_default();
        std::str::from_utf8(path).unwrap_or_default()
    }

    /// Of an answer; 0 if there is none.
    pub(crate) fn status(&self) -> u16 {
        let mut words = self.head.split(|byte| *byte == b' ');
        let status = words.nth(1).unwrap_or_default();
        let status = std::str::from_utf8(status).unwrap_or_default();
        status.parse().unwrap_or_default()
    }
}

fn content_length(head: &[u8]) -> Result<usize> {
    let Some(place) = find(head, LENGTH) else {
        return Ok(0);
    };
    let digits = head.get(place + LENGTH.len()..).unwrap_or_default();
    let digits = digits.split(|byte| *byte == b'\r').next();
    let length = std::str::from_utf8(digits.unwrap_or_default())?;
    length.parse().with_context(|| format!("length {length:?}"))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_told_apart_however_they_are_cut() {
        let text: &[u8] = b"POST /a HTTP/1.1\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 204 No\r\n\r\n";
        for cut in 0..text.len() {
            let (mut far, near) = tokio::io::duplex(256);
            let mut connection = Connection::new(near);
            let (first, second) = text.split_at(cut);
            far.write_all(first).await.unwrap();
            let read = async {
                let request = connection.next(|message| {
                    let body = message.body.to_vec();
                    (message.path().to_owned(), body)
                });
                assert_eq!(request.await.unwrap(), Some(("/a".into(), b"hi".to_vec())));
                let answer = connection.next(|message| message.status());
                assert_eq!(answer.await.unwrap(), Some(204));
                assert!(connection.next(|_| ()).await.unwrap().is_none());
            };
            let write = async {
                far.write_all(second).await.unwrap();
                drop(far);
            };
            tokio::join!(read, write);
        }
    }

    #[tokio::test]
    async fn a_message_that_is_cut_off_is_an_error() {
        for text in ["POST", "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nh"] {
            let (mut far, near) = tokio::io::duplex(256);
            far.write_all(text.as_bytes()).await.unwrap();
            drop(far);
            assert!(Connection::new(near).next(|_| ()).await.is_err(), "{text}");
        }
    }
}
