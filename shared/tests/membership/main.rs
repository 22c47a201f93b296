//! Keys of replicas against a real nats-server: they expire, they go, and they expire again.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers; clippy.toml allows these only inside test functions"
)]

#[path = "../snapshots/nats_server.rs"]
mod nats_server;

use std::sync::Arc;
use std::time::Duration;

use shared::domain::membership::{MEMBER_TTL, Member, Roster, Standing};
use shared::ids::{ReplicaId, Sequence};
use shared::nats::membership::Membership;
use shared::nats::{self, Nats, NatsSettings};
use shared::subjects;
use shared::time::{Clock, SystemClock, Timestamp};

use crate::nats_server::NatsServer;

const WITHIN: Duration = Duration::from_secs(20);
const ME: ReplicaId = ReplicaId::from_bytes([1; 16]);
const PEER: ReplicaId = ReplicaId::from_bytes([2; 16]);

fn join(nats: Nats, clock: &Arc<dyn Clock>, id: ReplicaId) -> Membership {
    let member = Member {
        codec_version: 1,
        started_at: Timestamp::from_millis(0),
        leaving: false,
    };
    Membership::join(nats, Arc::clone(clock), id, member)
}

async fn until(membership: &Membership, holds: impl FnMut(&Roster) -> bool) {
    let mut roster = membership.roster();
    let reached = tokio::time::timeout(WITHIN, roster.wait_for(holds)).await;
    reached.unwrap().unwrap();
}

fn has(roster: &Roster, id: ReplicaId) -> bool {
    roster.living().any(|(living, _)| living == id)
}

/// A replica in a runtime of its own, which ends with it: as one that is killed. It runs until
/// the returned sender is dropped.
fn killable(
    url: String,
    id: ReplicaId,
) -> (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (alive, killed) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let settings = NatsSettings {
                urls: vec![url],
                ..NatsSettings::default()
            };
            let client = nats::connect(&settings).await.unwrap();
            let topology = nats::topology::TopologySettings {
                replicas: 1,
                partitions: shared::partition::PartitionCount::DEFAULT,
            };
            let nats = nats::topology::ensure(&client, &topology).await.unwrap();
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
            let _membership = join(nats, &clock, id);
            let ended = tokio::task::spawn_blocking(move || killed.recv().is_err());
            assert!(ended.await.unwrap());
        });
    });
    (alive, thread)
}

#[tokio::test]
async fn a_dead_replicas_key_expires_each_time_and_one_that_leaves_goes_at_once() {
    let server = NatsServer::start().await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let me = join(server.nats.clone(), &clock, ME);
    until(&me, |roster| has(roster, ME)).await;
    let info = server.nats.client.server_info();
    let url = format!("nats://{}:{}", info.host, info.port);
    // The second time, its key is made anew over what the server left of the first.
    for _ in 0..2 {
        let (alive, thread) = killable(url.clone(), PEER);
        until(&me, |roster| has(roster, PEER)).await;
        assert!(!me.is_gone(PEER).await.unwrap());
        drop(alive);
        thread.join().unwrap();
        let died = clock.elapsed();
        until(&me, |roster| !has(roster, PEER)).await;
        // An own renewal may show that the peer has not renewed before the server, whose timers are
        // a quarter of a second late, drops the key. Both are within the same bound.
        while !me.is_gone(PEER).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let took = clock.elapsed().saturating_sub(died);
        assert!(took <= MEMBER_TTL + Duration::from_secs(1), "{took:?}");
    }
    assert!(me.lease().is_live(clock.uptime()));
    assert_eq!(me.lease().term, 1, "it never lapsed");
    let standing = me.roster().borrow().standing(clock.uptime());
    assert_eq!(standing, Standing::Certain);

    let other = join(server.nats.clone(), &clock, PEER);
    until(&me, |roster| has(roster, PEER)).await;
    other.begin_leaving();
    until(&me, |roster| {
        roster
            .living()
            .any(|(id, member)| id == PEER && member.leaving)
    })
    .await;
    let left = clock.elapsed();
    other.leave().await;
    until(&me, |roster| !has(roster, PEER)).await;
    assert!(clock.elapsed().saturating_sub(left) < Duration::from_secs(1));
    assert!(!other.lease().is_live(clock.uptime() + MEMBER_TTL));
}

#[tokio::test]
async fn questions_reach_the_owner_alone_and_nobody_is_told_at_once() {
    use shared::ids::PartitionId;
    use shared::nats::requests::{Questions, ask};

    let server = NatsServer::start().await;
    let nats = &server.nats;
    let clock = SystemClock::new();
    let (owned, other) = (PartitionId(1), PartitionId(2));
    let seen = Sequence(7);
    let mut questions = Questions::of(nats, owned).await.unwrap();
    nats.client.flush().await.unwrap();
    let answers = async {
        let first = questions.next().await.unwrap();
        assert_eq!((first.seen, &first.body()[..]), (seen, &b"ping"[..]));
        first.answer("pong".into()).await;
        questions.next().await.unwrap().decline("not now").await;
    };
    let asks = async {
        let answer = ask(nats, owned, seen, "ping".into(), WITHIN).await;
        assert_eq!(&answer.unwrap()[..], b"pong");
        let declined = ask(nats, owned, seen, "ping".into(), WITHIN).await;
        assert_eq!(declined.unwrap_err().0, "not now");
    };
    tokio::join!(answers, asks);
    let asked = clock.elapsed();
    assert!(ask(nats, other, seen, "ping".into(), WITHIN).await.is_err());
    assert!(clock.elapsed().saturating_sub(asked) < Duration::from_secs(5));
    assert_eq!(subjects::owner(other), "owner.2");
}
