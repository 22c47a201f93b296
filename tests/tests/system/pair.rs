//! Two dispatcher replicas behind a client that asks them in turn.

use std::cell::Cell;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use support::api::{Client, Reply};
use support::cluster::Tenant;
use support::eventually::eventually;
use support::nats::SyncInterval;
use support::receiver::Receiver;
use support::run::{Fleet, Paths, Size};

/// What is written through one replica is seen through the other.
pub(crate) const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// The services go before the receiver, so that they never meet a closed port.
pub(crate) struct Pair {
    fleet: Fleet,
    pub(crate) receiver: Receiver,
    pub(crate) tenant: Tenant,
    /// Writes so far.
    written: Cell<usize>,
}

/// What was written through one replica, and who asks that one and the other.
pub(crate) struct Written {
    pub(crate) reply: Reply,
    here: Client,
    there: Client,
}

impl Written {
    /// The replica that has answered shows at once what holds, the other within a second.
    pub(crate) async fn is_seen(&self, path: &str, holds: impl Fn(&Reply) -> bool) {
        let own = self.here.call(Method::GET, path, None).await.unwrap();
        assert!(holds(&own), "not read what was written: {own}");
        eventually(path, SEEN_WITHIN, async || {
            let other = self.there.call(Method::GET, path, None).await.unwrap();
            holds(&other).then_some(()).ok_or_else(|| other.to_string())
        })
        .await
        .unwrap();
    }

    /// It shows nothing there.
    pub(crate) async fn is_gone(&self, path: &str) {
        self.is_seen(path, |reply| reply.status == 404).await;
    }
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let size = Size {
            dispatcher: "dispatcher",
            dispatchers: 2,
            ingests: 1,
            servers: 1,
            sync: SyncInterval::Default,
            paths: Paths::Direct,
        };
        let fleet = Fleet::start(&size).await.unwrap();
        let admin = fleet.admin().unwrap();
        let mut tenant = Tenant::create(&admin, "System test").await.unwrap();
        tenant.client = tenant.client.round_robin(urls(&fleet));
        Self {
            fleet,
            receiver: Receiver::start().unwrap(),
            tenant,
            written: Cell::default(),
        }
    }

    /// A client with the admin token, asking both in turn.
    pub(crate) fn admin(&self) -> Client {
        self.fleet.admin().unwrap().round_robin(urls(&self.fleet))
    }

    /// Of each replica.
    pub(crate) fn urls(&self) -> Vec<String> {
        urls(&self.fleet)
    }

    /// A call in the name of `client`, through each replica in turn.
    pub(crate) async fn write(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Written {
        let mut urls = urls(&self.fleet);
        let turn = self.written.replace(self.written.get() + 1) % urls.len();
        let here = client.round_robin(vec![urls.remove(turn)]);
        Written {
            reply: here.call_with(method, path, body, headers).await.unwrap(),
            here,
            there: client.round_robin(urls),
        }
    }

    /// A call that must be answered with this status.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        status: u16,
    ) -> Value {
        let answer = self.tenant.client.call(method, path, body).await;
        answer.unwrap().expect(status).unwrap()
    }

    /// Waits until each replica shows what holds, within a second.
    pub(crate) async fn shown(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for url in urls(&self.fleet) {
            let replica = self.replica(url);
            last = eventually(path, SEEN_WITHIN, async || {
                let answer = replica.call(Method::GET, path, None).await.unwrap();
                let shown = answer.expect(200).unwrap();
                if holds(&shown) {
                    Ok(shown)
                } else {
                    Err(shown.to_string())
                }
            })
            .await
            .unwrap();
        }
        last
    }

    fn replica(&self, url: String) -> Client {
        self.tenant.client.round_robin(vec![url])
    }
}

fn urls(fleet: &Fleet) -> Vec<String> {
    let members = fleet.dispatchers.iter();
    members.map(|member| member.service.http_url()).collect()
}
