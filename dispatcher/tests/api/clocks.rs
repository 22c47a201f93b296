//! A replica whose wall clock is far off JetStream's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use dispatcher::Ports;
use shared::time::{Clock, SystemClock, Timestamp};

use crate::nats_server::NatsServer;
use crate::process::Dispatcher;
use crate::support::eventually_ok;

const MINUTE_MS: i64 = 60_000;

struct SkewedClock {
    system: SystemClock,
    ahead_ms: AtomicI64,
}

impl SkewedClock {
    fn ahead_by(ms: i64) -> Arc<Self> {
        Arc::new(Self {
            system: SystemClock::new(),
            ahead_ms: AtomicI64::new(ms),
        })
    }

    fn set(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Timestamp {
        let ahead_ms = self.ahead_ms.load(Ordering::Relaxed);
        self.system.now().plus_millis(ahead_ms)
    }

    fn elapsed(&self) -> Duration {
        self.system.elapsed()
    }

    fn uptime(&self) -> Duration {
        self.system.uptime()
    }
}

fn start(nats: &NatsServer, clock: &Arc<SkewedClock>) -> Dispatcher {
    let clock: Arc<dyn Clock> = Arc::<SkewedClock>::clone(clock);
    let ports = Ports {
        clock,
        ..Ports::system()
    };
    Dispatcher::start(nats.url.clone(), ports)
}

async fn is_off(dispatcher: &Dispatcher) -> bool {
    let (status, reason) = dispatcher.ops("/readyz").await;
    status == 503 && reason.contains("wall clock")
}

async fn offset(dispatcher: &Dispatcher) -> f64 {
    let name = "carillon_dispatcher_clock_offset_seconds";
    dispatcher.metric(name).await.unwrap_or_default()
}

async fn owned(dispatcher: &Dispatcher) -> f64 {
    let name = "carillon_dispatcher_partitions_owned";
    dispatcher.metric(name).await.unwrap_or_default()
}

#[actix_web::test]
async fn a_replica_whose_clock_is_off_is_not_ready_and_takes_no_partition() {
    let nats = NatsServer::start().await;
    let clock = SkewedClock::ahead_by(-2 * MINUTE_MS);
    let replica = start(&nats, &clock);
    eventually_ok(async || is_off(&replica).await).await;
    assert!((offset(&replica).await + 120.0).abs() < 10.0);
    // Longer than it takes to take them.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(owned(&replica).await, 0.0);
    clock.set(0);
    eventually_ok(async || replica.ops("/readyz").await.0 == 200).await;
    assert_eq!(owned(&replica).await, 2.0);
    // Alone, it keeps what nobody else could have, and says so.
    clock.set(2 * MINUTE_MS);
    eventually_ok(async || is_off(&replica).await).await;
    assert!((offset(&replica).await - 120.0).abs() < 10.0);
    let other_clock = SkewedClock::ahead_by(0);
    let other = start(&nats, &other_clock);
    // To one whose clock is right it gives them.
    eventually_ok(async || owned(&other).await == 2.0).await;
    eventually_ok(async || owned(&replica).await == 0.0).await;
    assert!(is_off(&replica).await);
    eventually_ok(async || other.ops("/readyz").await.0 == 200).await;
    for dispatcher in [replica, other] {
        dispatcher.stop.send(()).unwrap();
        Dispatcher::ended(dispatcher.ended).await;
    }
}
