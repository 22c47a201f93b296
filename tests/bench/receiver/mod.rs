//! The endpoints, in a process of their own: they answer 204 at once, or after a time that their
//! path names, and count what arrives. A second port tells what was counted.
//!
//! | path | |
//! | --- | --- |
//! | `/fast/{endpoint}` | an endpoint that answers at once; endpoints are numbered from 0 |
//! | `/slow/{milliseconds}` | one that takes its time, and is not counted |
//! | `/report`, `/count`, `/reset` | on the other port: everything, the number alone, from now on |

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use shared::time::SystemClock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use self::counts::Counts;
use crate::wire::{Connection, Message};

pub(crate) mod counts;
pub(crate) mod tls;

/// What the child is told by its command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) endpoints: SocketAddr,
    pub(crate) control: SocketAddr,
    pub(crate) speaks: Speaks,
}

/// What is spoken at the endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Speaks {
    Plain,
    /// HTTP/1.1 over TLS.
    Tls1,
    /// HTTP/2 over TLS.
    Tls2,
}

#[derive(Clone, Default)]
struct State {
    counts: Rc<RefCell<Counts>>,
    clock: SystemClock,
}

/// What a request is answered with.
enum Answer {
    NoContent,
    /// No content either, after a time.
    After(Duration),
    Text(String),
}

const NO_CONTENT: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// Serves until the process is killed.
pub(crate) async fn serve(plan: &Plan) -> Result<()> {
    let state = State::default();
    let endpoints = TcpListener::bind(plan.endpoints).await?;
    let control = TcpListener::bind(plan.control).await?;
    let (speaks, config) = (plan.speaks, tls::server_config(plan.speaks)?);
    tokio::try_join!(
        accept(endpoints, |stream| {
            let (state, config) = (state.clone(), config.clone());
            async move {
                match config {
                    None => exchange(stream, state).await,
                    Some(config) => tls::exchange(stream, config, speaks, state).await,
                }
            }
        }),
        accept(control, |stream| exchange(stream, state.clone())),
    )?;
    Ok(())
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + 'static,
{
    loop {
        let (stream, _) = listener.accept().await.context("accepting")?;
        stream.set_nodelay(true)?;
        // Ends with its connection. One that was cut off is its client's affair; what is missing
        // shows in the counts.
        drop(actix_rt::spawn(serve(stream)));
    }
}

/// Requests of one connection, one after the other.
async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin, state: State) -> Result<()> {
    let mut connection = Connection::new(stream);
    while let Some(answer) = connection.next(|request| state.answer(request)).await? {
        match answer {
            Answer::NoContent => connection.write(NO_CONTENT).await?,
            Answer::After(delay) => {
                sleep(delay).await;
                connection.write(NO_CONTENT).await?;
            }
            Answer::Text(text) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
                connection.write((head + &text).as_bytes()).await?;
            }
        }
    }
    Ok(())
}

impl State {
    fn answer(&self, request: Message<'_>) -> Answer {
        let path = request.path();
        let mut counts = self.counts.borrow_mut();
        if let Some(endpoint) = path.strip_prefix("/fast/") {
            counts.arrived(
                endpoint.parse().unwrap_or_default(),
                request.body,
                &self.clock,
            );
            return Answer::NoContent;
        }
        if let Some(delay) = path.strip_prefix("/slow/") {
            return Answer::After(Duration::from_millis(delay.parse().unwrap_or_default()));
        }
        match path {
            "/count" => Answer::Text(counts.distinct().to_string()),
            "/reset" => {
                *counts = Counts::default();
                Answer::NoContent
            }
            _ => Answer::Text(serde_json::to_string(&counts.report()).unwrap_or_default()),
        }
    }
}
