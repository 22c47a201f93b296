//! Ports on 127.0.0.1 that stay ours while a process is killed and started again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Result, bail};

/// Below what systems hand out for outgoing connections, so that none of those takes a port
/// whose process is down for a moment.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A TCP port. The UDP port of the same number is held as its claim, which other test processes
/// respect, for they claim theirs in the same way.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: UdpSocket,
}

impl Port {
    pub fn claim() -> Result<Self> {
        let start = u16::try_from(shared::random::number() % u64::from(COUNT))?;
        for step in 0..COUNT {
            let address = local(FIRST + (start + step) % COUNT);
            let Ok(claim) = UdpSocket::bind(address) else {
                continue;
            };
            if TcpListener::bind(address).is_ok() {
                return Ok(Self {
                    number: address.port(),
                    _claim: claim,
                });
            }
        }
        bail!("no port from {FIRST} to {} is free", FIRST + COUNT - 1)
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn address(&self) -> SocketAddr {
        local(self.number)
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
