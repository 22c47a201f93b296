//! Which dispatchers live and for how long each may act, as far as that can be told from the
//! renewals of their keys (`protocol.md`, rule 5).
//!
//! A key goes 3 s after its last renewal. A replica's own lease ends before its key can: it runs
//! from the sending of a renewal, on a clock that counts suspension. So whoever sees a key gone
//! knows that its replica sends nothing any more.
//!
//! The keys are read in the order of their renewals, the own ones among them. What was read
//! counts up to the last own renewal in it: had a peer renewed before that, its renewal would
//! have come first.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::ReplicaId;
use crate::time::Timestamp;

/// How long a key outlives its last renewal; whole seconds, as the server counts.
pub const MEMBER_TTL: Duration = Duration::from_secs(3);
/// How long a renewal lets its replica act. The rest covers clocks that run at different rates,
/// and what is between looking at the lease and a request's first byte.
pub const LEASE: Duration = Duration::from_millis(2_500);

/// How far a wall clock may be off the server's: beyond, a replica takes no partition (rule 22).
pub const CLOCK_OFFSET_MS_MAX: i64 = 60_000;

/// What a replica says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The highest codec version that it reads: nobody writes above the lowest (rule 26).
    pub codec_version: u8,
    pub started_at: Timestamp,
    /// It gives its partitions away, to whoever may have them, and takes no more.
    pub leaving: bool,
}

/// A key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    pub member: Member,
    /// Uptime of the replica itself, in milliseconds, when it sent this; means nothing to others.
    pub sent_ms: u64,
}

/// For how long this replica may act. Times are those of `Clock::uptime`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Counts the times that it began anew after it had lapsed; 0 before the first renewal.
    pub term: u64,
    /// When the term's first renewal was sent.
    since: Duration,
    until: Duration,
}

/// What this replica may conclude from the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its lease has lapsed, or it has not yet seen who else lives.
    Lapsed,
    /// It may act; that a peer's key is not there says nothing yet.
    Live,
    /// It has renewed without a gap for a full TTL: who is absent is dead.
    Certain,
}

/// The living replicas, as the tail shows them, and the own lease.
#[derive(Clone, Debug)]
pub struct Roster {
    me: ReplicaId,
    lease: Lease,
    seen: BTreeMap<ReplicaId, Seen>,
    /// When the last own renewal was sent that came through the tail.
    echo: Option<Duration>,
    server: Option<ServerTime>,
}

/// The server's time at which an own renewal was stored that was sent at `sent`.
#[derive(Clone, Copy, Debug)]
struct ServerTime {
    sent: Duration,
    stored_at: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    member: Member,
    at: Duration,
}

impl Lease {
    pub fn is_live(self, uptime: Duration) -> bool {
        uptime < self.until
    }

    /// A renewal that was sent at `sent` turned out at `uptime` to be acknowledged.
    #[must_use]
    pub fn renewed(self, sent: Duration, uptime: Duration) -> Self {
        let until = sent.saturating_add(LEASE);
        if until <= self.until {
            return self;
        }
        if self.is_live(uptime) {
            return Self { until, ..self };
        }
        Self {
            term: self.term + 1,
            since: sent,
            until,
        }
    }
}

impl Roster {
    pub fn new(me: ReplicaId) -> Self {
        Self {
            me,
            lease: Lease::default(),
            seen: BTreeMap::new(),
            echo: None,
            server: None,
        }
    }

    pub fn me(&self) -> ReplicaId {
        self.me
    }

    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// When the last own renewal was sent that was read back.
    pub fn echo(&self) -> Option<Duration> {
        self.echo
    }

    /// The own renewal of `sent` was stored at this time of the server's, as turned out at
    /// `uptime`. One that was long under way says too little of the time.
    pub fn stored(&mut self, sent: Duration, stored_at: Timestamp, uptime: Duration) {
        if uptime.saturating_sub(sent) <= MEMBER_TTL {
            self.server = Some(ServerTime { sent, stored_at });
        }
    }

    /// The server's time, at most [`MEMBER_TTL`] too late: it runs from the sending of the last
    /// own renewal. `None` before the first one was read back.
    pub fn server_time(&self, uptime: Duration) -> Option<Timestamp> {
        let server = self.server?;
        let passed = uptime.saturating_sub(server.sent).as_millis();
        let passed_ms = i64::try_from(passed).unwrap_or(i64::MAX);
        Some(server.stored_at.plus_millis(passed_ms))
    }

    /// Milliseconds that a wall clock which reads `wall` is ahead of the server's; negative when it
    /// is behind. `None` before the first own renewal was read back.
    pub fn clock_offset_ms(&self, wall: Timestamp, uptime: Duration) -> Option<i64> {
        Some(wall.millis_since(self.server_time(uptime)?))
    }

    /// Whether the wall clock is known to be near enough to the server's.
    pub fn is_on_time(&self, wall: Timestamp, uptime: Duration) -> bool {
        self.clock_offset_ms(wall, uptime)
            .is_some_and(|offset| offset.abs() <= CLOCK_OFFSET_MS_MAX)
    }

    /// This replica too, once it has seen itself.
    pub fn living(&self) -> impl Iterator<Item = (ReplicaId, Member)> {
        self.seen.iter().map(|(id, seen)| (*id, seen.member))
    }

    pub fn standing(&self, uptime: Duration) -> Standing {
        let Some(echo) = self.echo.filter(|echo| *echo >= self.lease.since) else {
            return Standing::Lapsed;
        };
        if !self.lease.is_live(uptime) {
            Standing::Lapsed
        } else if echo.saturating_sub(self.lease.since) >= MEMBER_TTL
            && uptime.saturating_sub(echo) <= MEMBER_TTL
        {
            Standing::Certain
        } else {
            Standing::Live
        }
    }

    /// A renewal that was sent at `sent` turned out at `uptime` to be acknowledged.
    pub fn renewed(&mut self, sent: Duration, uptime: Duration) {
        self.lease = self.lease.renewed(sent, uptime);
    }

    /// A key's last message came through the tail; `None` when that says that the key is gone.
    pub fn heard(&mut self, replica: ReplicaId, renewal: Option<&Renewal>, uptime: Duration) {
        let Some(renewal) = renewal else {
            self.seen.remove(&replica);
            return;
        };
        let seen = Seen {
            member: renewal.member,
            at: uptime,
        };
        self.seen.insert(replica, seen);
        if replica == self.me {
            let sent = Duration::from_millis(renewal.sent_ms);
            self.echo = self.echo.max(Some(sent));
            // What the server said of its key may have been missed, but not that it renewed.
            self.seen
                .retain(|id, seen| *id == self.me || seen.at.saturating_add(MEMBER_TTL) >= sent);
        }
    }

    /// What others wait for a change of.
    pub fn outline(&self) -> (u64, bool, Vec<(ReplicaId, bool)>) {
        let living = self.living();
        (
            self.lease.term,
            self.echo >= Some(self.lease.since),
            living.map(|(id, member)| (id, member.leaving)).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaId = ReplicaId::from_bytes([1; 16]);
    const PEER: ReplicaId = ReplicaId::from_bytes([2; 16]);
    const MEMBER: Member = Member {
        codec_version: 1,
        started_at: Timestamp::from_millis(0),
        leaving: false,
    };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn renewal(sent_ms: u64) -> Renewal {
        Renewal {
            member: MEMBER,
            sent_ms,
        }
    }

    #[test]
    fn a_lease_runs_from_the_sending_of_the_last_renewal() {
        let lease = Lease::default();
        assert!(!lease.is_live(at(0)));
        let first = lease.renewed(at(1_000), at(1_100));
        assert!(first.is_live(at(3_499)) && !first.is_live(at(3_500)));
        let second = first.renewed(at(2_000), at(3_400));
        assert_eq!(second.term, first.term);
        // Acknowledged in another order than sent.
        assert_eq!(second.renewed(at(1_500), at(3_450)), second);
        // One that turns out too late begins a new term: it had lapsed in between.
        let third = second.renewed(at(4_400), at(4_500));
        assert_eq!(third.term, second.term + 1);
        assert!(third.is_live(at(6_899)));
        let late = third.renewed(at(6_000), at(60_000));
        assert!(!late.is_live(at(60_000)));
    }

    #[test]
    fn absence_counts_after_a_full_ttl_without_a_gap() {
        let mut roster = Roster::new(ME);
        let renew = |roster: &mut Roster, ms: u64| {
            roster.renewed(at(ms), at(ms + 1));
            roster.heard(ME, Some(&renewal(ms)), at(ms + 2));
            roster.standing(at(ms + 2))
        };
        assert_eq!(roster.standing(at(0)), Standing::Lapsed);
        let expected = [
            (10_000, Standing::Live),
            (11_000, Standing::Live),
            (12_000, Standing::Live),
            (13_000, Standing::Certain),
            (14_000, Standing::Certain),
            // A gap, and all begins anew.
            (17_000, Standing::Live),
            (19_000, Standing::Live),
            (20_000, Standing::Certain),
        ];
        for (ms, standing) in expected {
            assert_eq!(renew(&mut roster, ms), standing, "{ms}");
        }
        assert_eq!(roster.standing(at(22_600)), Standing::Lapsed);
    }

    #[test]
    fn a_replica_whose_tail_is_behind_concludes_nothing() {
        let mut roster = Roster::new(ME);
        for ms in (10_000..=20_000).step_by(1_000) {
            roster.renewed(at(ms), at(ms));
        }
        assert_eq!(roster.standing(at(20_000)), Standing::Lapsed);
        roster.heard(ME, Some(&renewal(13_000)), at(20_000));
        assert_eq!(roster.standing(at(20_000)), Standing::Live);
        roster.heard(ME, Some(&renewal(17_000)), at(20_000));
        assert_eq!(roster.standing(at(20_000)), Standing::Certain);
    }

    #[test]
    fn a_clock_is_measured_by_renewals_that_came_back_soon() {
        let mut roster = Roster::new(ME);
        let wall = Timestamp::from_millis;
        assert!(!roster.is_on_time(wall(0), at(0)), "nothing is known yet");
        // Stored at 500,000 by the server's clock.
        roster.stored(at(10_000), wall(500_000), at(10_200));
        for (now_ms, uptime_ms, offset_ms, is_on_time) in [
            (500_200, 10_200, 0, true),
            (560_200, 10_200, 60_000, true),
            (560_201, 10_200, 60_001, false),
            (440_200, 10_200, -60_000, true),
            (440_199, 10_200, -60_001, false),
            // Both clocks go on.
            (590_000, 100_000, 0, true),
        ] {
            let (now, uptime) = (wall(now_ms), at(uptime_ms));
            assert_eq!(roster.clock_offset_ms(now, uptime), Some(offset_ms));
            assert_eq!(roster.is_on_time(now, uptime), is_on_time, "{now_ms}");
        }
        // Read back after more than a TTL, it may have been stored at any time in between.
        roster.stored(at(20_000), wall(900_000), at(23_001));
        assert_eq!(roster.clock_offset_ms(wall(513_001), at(23_001)), Some(0));
    }

    #[test]
    fn a_peer_goes_by_the_servers_word_or_when_it_has_not_renewed() {
        let mut roster = Roster::new(ME);
        let is_there = |roster: &Roster| roster.living().any(|(id, _)| id == PEER);
        roster.heard(PEER, Some(&renewal(77)), at(10_000));
        assert!(is_there(&roster));
        roster.heard(PEER, None, at(10_500));
        assert!(!is_there(&roster));
        roster.heard(PEER, Some(&renewal(78)), at(11_000));
        roster.heard(ME, Some(&renewal(14_000)), at(20_000));
        assert!(is_there(&roster), "it may have renewed before 14,000");
        roster.heard(ME, Some(&renewal(14_001)), at(20_000));
        assert!(!is_there(&roster));
    }
}
