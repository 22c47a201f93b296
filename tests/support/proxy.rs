//! A TCP proxy that can be told to be a bad network.
//!
//! It stands before one server, on a port of its own, and carries bytes until it is told
//! otherwise. What a silent direction holds back is delivered when it is healed, as TCP does after
//! a short partition; a cut loses it.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::ports::Port;

const BUFFER_BYTES: usize = 64 << 10;
const BIND_AGAIN: Duration = Duration::from_millis(20);

/// What the network does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    #[default]
    Open,
    /// Each piece of data comes later by this.
    Slow(Duration),
    /// Nothing comes through, and nobody is told.
    Silent(Silence),
    /// Live connections are reset, and new ones refused.
    Cut,
    /// The proxy ends.
    Gone,
}

/// Which way nothing comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    ToServer,
    ToClient,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Network {
    fn holds_back(self, direction: Direction) -> bool {
        match self {
            Self::Open | Self::Slow(_) | Self::Cut | Self::Gone => false,
            Self::Silent(Silence::Both) => true,
            Self::Silent(Silence::ToServer) => direction == Direction::ToServer,
            Self::Silent(Silence::ToClient) => direction == Direction::ToClient,
        }
    }

    fn ends_connections(self) -> bool {
        matches!(self, Self::Cut | Self::Gone)
    }
}

/// It runs on a thread of its own and ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    network: watch::Sender<Network>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(target: SocketAddr) -> Result<Self> {
        let port = Port::claim()?;
        let (network, told) = watch::channel(Network::Open);
        let address = port.address();
        let listener = std::net::TcpListener::bind(address).context("the proxy's port")?;
        listener.set_nonblocking(true)?;
        let thread = std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || actix_rt::System::new().block_on(serve(listener, target, told)))?;
        Ok(Self {
            port,
            network,
            thread: Some(thread),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// From now on.
    pub fn network(&self, network: Network) {
        self.network.send_replace(network);
    }

    pub fn heal(&self) {
        self.network(Network::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network(Network::Gone);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn serve(
    first: std::net::TcpListener,
    target: SocketAddr,
    mut network: watch::Receiver<Network>,
) {
    let address = first.local_addr();
    let mut listener = TcpListener::from_std(first).ok();
    loop {
        let now = *network.borrow_and_update();
        match now {
            Network::Gone => return,
            Network::Cut => listener = None,
            Network::Open | Network::Slow(_) | Network::Silent(_) => {}
        }
        if now.ends_connections() {
            // A sender that is gone is a proxy that is gone.
            if network.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Some(listening) = &listener else {
            if let Ok(address) = address {
                listener = TcpListener::bind(address).await.ok();
            }
            if listener.is_none() {
                sleep(BIND_AGAIN).await;
            }
            continue;
        };
        tokio::select! {
            changed = network.changed() => if changed.is_err() { return },
            accepted = listening.accept() => if let Ok((client, _)) = accepted {
                // Ends with its connection, by a cut, or with the system around it.
                actix_rt::spawn(connection(client, target, network.clone()));
            },
        }
    }
}

async fn connection(
    mut client: TcpStream,
    target: SocketAddr,
    mut network: watch::Receiver<Network>,
) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        reset(client);
        return;
    };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let was_cut = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let (up, down) = (network.clone(), network.clone());
        tokio::select! {
            () = carry(client_reads, server_writes, Direction::ToServer, up) => false,
            () = carry(server_reads, client_writes, Direction::ToClient, down) => false,
            _ = network.wait_for(|network| network.ends_connections()) => true,
        }
    };
    if was_cut {
        reset(client);
        reset(server);
    }
}

/// Closes with a reset instead of an end.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().ok();
}

/// Carries bytes one way until either end closes.
async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut network: watch::Receiver<Network>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await;
        // An end is held back as well: whoever is behind a silence does not learn of it.
        let Ok(now) = network
            .wait_for(|network| !network.holds_back(direction))
            .await
            .map(|network| *network)
        else {
            return;
        };
        if let Network::Slow(delay) = now {
            sleep(delay).await;
        }
        let Some(bytes) = read.ok().and_then(|count| buffer.get(..count)) else {
            return;
        };
        if bytes.is_empty() || to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const NOTHING: Duration = Duration::from_millis(200);

    /// A server that answers each byte with the next one, and a proxy before it.
    fn echo() -> Proxy {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while let Ok(1) = stream.read(&mut byte) {
                        byte[0] += 1;
                        if stream.write_all(&byte).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        proxy
    }

    fn client(proxy: &Proxy) -> net::TcpStream {
        let stream = net::TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    fn asks(stream: &mut net::TcpStream, byte: u8) -> std::io::Result<u8> {
        stream.write_all(&[byte])?;
        answer(stream, SOON)
    }

    fn answer(stream: &mut net::TcpStream, within: Duration) -> std::io::Result<u8> {
        stream.set_read_timeout(Some(within)).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    #[test]
    fn bytes_come_through_at_once_or_later() {
        let proxy = echo();
        let mut stream = client(&proxy);
        assert_eq!(asks(&mut stream, 1).unwrap(), 2);
        let delay = Duration::from_millis(100);
        proxy.network(Network::Slow(delay));
        stream.write_all(&[5]).unwrap();
        let early = answer(&mut stream, delay);
        assert!(
            early.is_err(),
            "{early:?} came before the delay of both ways"
        );
        assert_eq!(answer(&mut stream, SOON).unwrap(), 6);
    }

    #[test]
    fn a_cut_resets_what_is_open_and_refuses_what_comes_until_it_is_healed() {
        let proxy = echo();
        let mut stream = client(&proxy);
        assert_eq!(asks(&mut stream, 1).unwrap(), 2);
        proxy.network(Network::Cut);
        let lost = answer(&mut stream, SOON).unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::ConnectionReset);
        // The listener closes beside the connections, not before them.
        let connect = || net::TcpStream::connect(proxy.address());
        let mut tries = std::iter::repeat_with(connect);
        let refused = tries.find_map(Result::err).unwrap();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        proxy.heal();
        let mut stream = tries.find_map(Result::ok).unwrap();
        assert_eq!(asks(&mut stream, 3).unwrap(), 4);
    }

    #[test]
    fn a_silent_direction_holds_back_and_says_nothing() {
        for silence in [Silence::ToServer, Silence::ToClient, Silence::Both] {
            let proxy = echo();
            let mut stream = client(&proxy);
            assert_eq!(asks(&mut stream, 1).unwrap(), 2);
            proxy.network(Network::Silent(silence));
            stream.write_all(&[7]).unwrap();
            let nothing = answer(&mut stream, NOTHING).unwrap_err();
            assert!(
                matches!(nothing.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
                "{silence:?}: {nothing}"
            );
            let mut other = client(&proxy);
            other.write_all(&[1]).unwrap();
            assert!(answer(&mut other, NOTHING).is_err(), "{silence:?}");
            proxy.heal();
            assert_eq!(answer(&mut stream, SOON).unwrap(), 8, "{silence:?}");
            assert_eq!(answer(&mut other, SOON).unwrap(), 2, "{silence:?}");
        }
    }
}
