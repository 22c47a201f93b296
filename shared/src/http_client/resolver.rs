//! Names to addresses, with the guard between the answer and the connection.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name};

use crate::address_guard::AddressGuard;

/// The answer to one lookup. An empty list means the same as an error.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Resolves host names. A port, so that a test can let a name turn private between two lookups.
pub trait Resolve: Send + Sync + 'static {
    fn resolve(&self, host: String) -> Resolving;
}

/// The system's resolver, with its hosts file and search domains; nothing is cached here.
///
/// A lookup occupies a thread of the runtime's blocking pool until the system gives up, also
/// after its caller has. The pool's own bound (tokio's default: 512 threads) is the limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: String) -> Resolving {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((host, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// No address of the host may be called. The address is for logs: printed to a tenant, it would
/// tell how names resolve inside our network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} is, or resolves to, an address that is not public")]
pub(super) struct RefusedAddress {
    pub(super) host: String,
    pub(super) address: IpAddr,
}

/// What reqwest resolves names with.
pub(super) struct GuardedResolver {
    pub(super) guard: Arc<AddressGuard>,
    pub(super) resolver: Arc<dyn Resolve>,
}

impl reqwest::dns::Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> reqwest::dns::Resolving {
        let guard = Arc::clone(&self.guard);
        let host = name.as_str().to_owned();
        let answer = self.resolver.resolve(host.clone());
        Box::pin(async move {
            let permitted = keep_permitted(&guard, host, answer.await?)?;
            // Port 0 stands for the URL's.
            let addresses = permitted.into_iter().map(|ip| SocketAddr::new(ip, 0));
            let addresses: Addrs = Box::new(addresses);
            Ok(addresses)
        })
    }
}

/// Drops what may not be called, and refuses the host when nothing is left. The connection goes
/// to one of the returned addresses and to no other, so a mixed answer is safe; refusing it whole
/// would let one stray record (a private AAAA beside a public A) stop a running endpoint's
/// deliveries. At creation a mixed answer is refused, because there somebody can still mend it.
fn keep_permitted(
    guard: &AddressGuard,
    host: String,
    mut addresses: Vec<IpAddr>,
) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
    let Some(&address) = addresses.first() else {
        return Err("the name has no address".into());
    };
    addresses.retain(|address| guard.permits(*address));
    if addresses.is_empty() {
        return Err(Box::new(RefusedAddress { host, address }));
    }
    Ok(addresses)
}
