//! Replicas, the server, and what lies between them.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatcher::core::ownership::{
    Claim, Effect, Holding, Input, Living, Ownership, Predecessor, TakeFailure,
};
use shared::domain::membership::{MEMBER_TTL, Member, Renewal, Roster};
use shared::ids::{Epoch, PartitionId, ReplicaId, Sequence};
use shared::partition::{PartitionCount, owner_of};
use shared::time::Timestamp;

pub(crate) const PARTITIONS: u16 = 8;
const STEP_MS: u64 = 50;
/// How long it may take until all is well after the last fault.
const RECOVERED_WITHIN_MS: u64 = 20_000;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Start,
    Kill(usize),
    Leave(usize),
    Pause(usize, u64),
    /// From the server, in both directions.
    Cut(usize, u64),
    /// It takes nothing for so long.
    Withdraw(usize, u64),
    Outage(u64),
    Quiet(u64),
}

/// What reaches a replica, or what it gets round to, at its time.
#[derive(Clone, Copy, Debug)]
enum Event {
    RenewalAcknowledged {
        sent: Duration,
    },
    Announce(Claim),
    Confirm {
        claim: Claim,
        holding: Holding,
        term: u64,
        at_ms: u64,
    },
    Ready {
        holding: Holding,
        term: u64,
        partition: PartitionId,
    },
    Release(PartitionId),
    Prove {
        partition: PartitionId,
        term: u64,
    },
    Look(PartitionId, Epoch),
}

struct Run {
    epoch: Epoch,
    /// The lease's term in which its last stored append was made.
    proven: u64,
    proving: bool,
    releasing: bool,
}

pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    ownership: Ownership,
    roster: Roster,
    pub(crate) is_alive: bool,
    leaving: bool,
    paused_until: u64,
    cut_until: u64,
    /// Its clock is off until then.
    withdrawn_until: u64,
    renews_at: u64,
    keys_read: usize,
    epochs_read: usize,
    /// The tail of epoch entries lags, by less than a lease.
    reads_epochs_at: u64,
    events: Vec<(u64, Event)>,
    /// Taken, with the term of the epoch entry's append.
    taken: BTreeMap<PartitionId, (Holding, u64)>,
    runs: BTreeMap<PartitionId, Run>,
}

#[derive(Default)]
pub(crate) struct PartitionLog {
    epochs: Vec<ReplicaId>,
    released: Option<Epoch>,
}

pub(crate) struct World {
    now_ms: u64,
    random: u64,
    pub(crate) replicas: Vec<Replica>,
    outage_until: u64,
    /// When each key goes.
    keys: BTreeMap<ReplicaId, u64>,
    key_log: Vec<(ReplicaId, Option<Renewal>)>,
    /// Renewals on their way to the server.
    renewals: Vec<(u64, usize, Renewal)>,
    pub(crate) journal: BTreeMap<PartitionId, PartitionLog>,
    epoch_log: Vec<(PartitionId, Holding)>,
    /// Takeovers begun, by the replica's place.
    pub(crate) takes: Vec<(usize, PartitionId)>,
    /// Nothing is lost any more.
    is_calm: bool,
}

impl World {
    pub(crate) fn new(seed: u64, replicas: usize) -> Self {
        let mut world = Self {
            now_ms: 100_000,
            random: seed | 1,
            replicas: Vec::new(),
            outage_until: 0,
            keys: BTreeMap::new(),
            key_log: Vec::new(),
            renewals: Vec::new(),
            journal: (0..PARTITIONS)
                .map(|number| (PartitionId(number), PartitionLog::default()))
                .collect(),
            epoch_log: Vec::new(),
            takes: Vec::new(),
            is_calm: false,
        };
        for _ in 0..replicas {
            world.start();
        }
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms)
    }

    pub(crate) fn start(&mut self) {
        let number = self.replicas.len() as u8;
        let id = ReplicaId::from_bytes([number.wrapping_mul(37).wrapping_add(1); 16]);
        self.replicas.push(Replica {
            id,
            ownership: Ownership::new(id, PartitionCount::new(PARTITIONS).unwrap()),
            roster: Roster::new(id),
            is_alive: true,
            leaving: false,
            paused_until: 0,
            cut_until: 0,
            withdrawn_until: 0,
            renews_at: self.now_ms,
            keys_read: 0,
            epochs_read: 0,
            reads_epochs_at: 0,
            events: Vec::new(),
            taken: BTreeMap::new(),
            runs: BTreeMap::new(),
        });
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        let now_ms = self.now_ms;
        match fault {
            Fault::Start => self.start(),
            Fault::Kill(place) => self.at(place).is_alive = false,
            Fault::Leave(place) => {
                let replica = self.at(place);
                replica.leaving = true;
                replica.renews_at = now_ms;
                self.step_ownership(place % self.replicas.len(), Input::Leave);
            }
            Fault::Pause(place, ms) => self.at(place).paused_until = now_ms + ms,
            Fault::Cut(place, ms) => self.at(place).cut_until = now_ms + ms,
            Fault::Withdraw(place, ms) => self.at(place).withdrawn_until = now_ms + ms,
            Fault::Outage(ms) => self.outage_until = now_ms + ms,
            Fault::Quiet(ms) => self.run(ms),
        }
    }

    fn at(&mut self, place: usize) -> &mut Replica {
        let count = self.replicas.len();
        &mut self.replicas[place % count]
    }

    fn reaches(&self, place: usize) -> bool {
        self.now_ms >= self.outage_until.max(self.replicas[place].cut_until)
    }

    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms += STEP_MS;
            self.serve();
            for place in 0..self.replicas.len() {
                let replica = &self.replicas[place];
                if replica.is_alive && replica.paused_until <= self.now_ms {
                    self.wake(place);
                }
            }
            self.check_exclusion();
        }
    }

    /// The server's part: renewals that arrive, keys that expire.
    fn serve(&mut self) {
        if self.now_ms < self.outage_until {
            return;
        }
        let now_ms = self.now_ms;
        let expired: Vec<ReplicaId> = self
            .keys
            .iter()
            .filter(|(_, until)| **until <= now_ms)
            .map(|(id, _)| *id)
            .collect();
        for id in expired {
            self.keys.remove(&id);
            self.key_log.push((id, None));
        }
        let (due, later) = std::mem::take(&mut self.renewals)
            .into_iter()
            .partition(|(at, _, _)| *at <= now_ms);
        self.renewals = later;
        let due: Vec<(u64, usize, Renewal)> = due;
        for (_, place, renewal) in due {
            let id = self.replicas[place].id;
            self.keys.insert(id, now_ms + MEMBER_TTL.as_millis() as u64);
            self.key_log.push((id, Some(renewal)));
            let sent = Duration::from_millis(renewal.sent_ms);
            let delay = self.below(200);
            if self.is_calm || self.below(20) > 0 {
                self.later(place, delay, Event::RenewalAcknowledged { sent });
            }
        }
    }

    fn later(&mut self, place: usize, delay: u64, event: Event) {
        let at = self.now_ms + delay;
        self.replicas[place].events.push((at, event));
    }

    fn wake(&mut self, place: usize) {
        let (now_ms, now) = (self.now_ms, self.now());
        if self.replicas[place].renews_at <= now_ms && self.reaches(place) {
            let renewal = Renewal {
                member: Member {
                    codec_version: 1,
                    started_at: Timestamp::default(),
                    leaving: self.replicas[place].leaving
                        || now_ms < self.replicas[place].withdrawn_until,
                },
                sent_ms: now_ms,
            };
            self.replicas[place].renews_at = now_ms + 1_000;
            let arrives = now_ms + self.below(150);
            self.renewals.push((arrives, place, renewal));
        }
        let (due, later) = std::mem::take(&mut self.replicas[place].events)
            .into_iter()
            .partition(|(at, _)| *at <= now_ms);
        self.replicas[place].events = later;
        let mut due: Vec<(u64, Event)> = due;
        due.sort_by_key(|(at, _)| *at);
        for (_, event) in due {
            self.happen(place, event);
        }
        if self.reaches(place) && self.below(10) < 7 {
            self.read_logs(place);
        }
        self.prove(place);
        let replica = &self.replicas[place];
        let members = Input::Members {
            standing: replica.roster.standing(now),
            living: replica
                .roster
                .living()
                .map(|(replica, member)| Living {
                    replica,
                    leaving: member.leaving,
                })
                .collect(),
        };
        self.step_ownership(place, members);
        self.step_ownership(place, Input::TimePassed);
        let replica = &mut self.replicas[place];
        if replica.leaving && replica.ownership.is_empty() && replica.runs.is_empty() {
            replica.is_alive = false;
            let id = replica.id;
            self.keys.remove(&id);
            self.key_log.push((id, None));
        }
    }

    fn read_logs(&mut self, place: usize) {
        let now = self.now();
        let replica = &mut self.replicas[place];
        for (id, renewal) in &self.key_log[replica.keys_read..] {
            replica.roster.heard(*id, renewal.as_ref(), now);
        }
        replica.keys_read = self.key_log.len();
        if replica.reads_epochs_at > self.now_ms {
            return;
        }
        let epochs: Vec<_> = self.epoch_log[replica.epochs_read..].to_vec();
        let is_first = replica.epochs_read == 0;
        replica.epochs_read = self.epoch_log.len();
        let lag = self.below(1_000);
        self.replicas[place].reads_epochs_at = self.now_ms + lag;
        for (partition, holding) in epochs {
            self.step_ownership(place, Input::EpochRead { partition, holding });
        }
        if is_first {
            self.step_ownership(place, Input::EpochsRead);
        }
    }

    /// Each partition that was last appended to in an earlier term must append again.
    fn prove(&mut self, place: usize) {
        let lease = self.replicas[place].roster.lease();
        if !lease.is_live(self.now()) {
            return;
        }
        let unproven = self.replicas[place]
            .runs
            .iter_mut()
            .filter(|(_, run)| run.proven != lease.term && !run.proving);
        let partitions: Vec<PartitionId> = unproven
            .map(|(partition, run)| {
                run.proving = true;
                *partition
            })
            .collect();
        for partition in partitions {
            let delay = self.below(150);
            let term = lease.term;
            self.later(place, delay, Event::Prove { partition, term });
        }
    }

    fn is_fence(&self, partition: PartitionId, epoch: Epoch) -> bool {
        self.journal[&partition].epochs.len() as u64 == epoch.0
    }

    fn happen(&mut self, place: usize, event: Event) {
        if let Event::RenewalAcknowledged { sent } = event {
            let now = self.now();
            self.replicas[place].roster.renewed(sent, now);
            return;
        }
        if !self.reaches(place) {
            self.later(place, 200, event);
            return;
        }
        match event {
            Event::RenewalAcknowledged { .. } => {}
            Event::Announce(claim) => self.announce(place, claim),
            Event::Confirm {
                claim,
                holding,
                term,
                at_ms,
            } => {
                let suspect_lives = match claim.predecessor {
                    Predecessor::Dead(holder) => self.keys.contains_key(&holder),
                    Predecessor::None | Predecessor::Released | Predecessor::Own => false,
                };
                if suspect_lives && self.now_ms < at_ms + MEMBER_TTL.as_millis() as u64 {
                    self.later(place, 100, event);
                } else if self.below(10) == 0 {
                    let failed = failed(claim.partition, TakeFailure::Passing);
                    self.step_ownership(place, failed);
                } else {
                    let partition = claim.partition;
                    let delay = self.below(600);
                    self.later(
                        place,
                        delay,
                        Event::Ready {
                            holding,
                            term,
                            partition,
                        },
                    );
                }
            }
            Event::Ready {
                holding,
                term,
                partition,
            } => {
                self.replicas[place]
                    .taken
                    .insert(partition, (holding, term));
                self.step_ownership(place, Input::Taken { partition, holding });
            }
            Event::Release(partition) => {
                let Some(run) = self.replicas[place].runs.remove(&partition) else {
                    return;
                };
                let epoch = run.epoch;
                let input = if self.is_fence(partition, epoch) {
                    self.journal.get_mut(&partition).unwrap().released = Some(epoch);
                    Input::Released { partition, epoch }
                } else {
                    Input::Deposed { partition, epoch }
                };
                self.step_ownership(place, input);
            }
            Event::Prove { partition, term } => {
                let Some(run) = self.replicas[place].runs.get_mut(&partition) else {
                    return;
                };
                let epoch = run.epoch;
                run.proving = false;
                if self.is_fence(partition, epoch) {
                    self.replicas[place]
                        .runs
                        .get_mut(&partition)
                        .unwrap()
                        .proven = term;
                } else {
                    self.step_ownership(place, Input::Deposed { partition, epoch });
                }
            }
            Event::Look(partition, epoch) => {
                if self.journal[&partition].released == Some(epoch) {
                    self.step_ownership(place, Input::Released { partition, epoch });
                }
            }
        }
    }

    /// The epoch entry's append, whose acknowledgement may be lost.
    fn announce(&mut self, place: usize, claim: Claim) {
        let id = self.replicas[place].id;
        let log = self.journal.get_mut(&claim.partition).unwrap();
        let after = claim.after.map_or(0, |held| held.epoch.0);
        if log.epochs.len() as u64 != after {
            self.step_ownership(place, failed(claim.partition, TakeFailure::Passing));
            return;
        }
        log.epochs.push(id);
        let holding = Holding {
            epoch: Epoch(after + 1),
            owner: id,
            sequence: Sequence(self.epoch_log.len() as u64 + 1),
        };
        self.epoch_log.push((claim.partition, holding));
        if self.below(10) == 0 {
            self.step_ownership(place, failed(claim.partition, TakeFailure::Passing));
            return;
        }
        let term = self.replicas[place].roster.lease().term;
        let (delay, at_ms) = (self.below(300), self.now_ms);
        self.later(
            place,
            delay,
            Event::Confirm {
                claim,
                holding,
                term,
                at_ms,
            },
        );
    }

    fn step_ownership(&mut self, place: usize, input: Input) {
        let now = self.now();
        for effect in self.replicas[place].ownership.step(now, input) {
            match effect {
                Effect::Take(claim) => {
                    self.takes.push((place, claim.partition));
                    let delay = self.below(400);
                    self.later(place, delay, Event::Announce(claim));
                }
                Effect::Start(partition) => {
                    let replica = &mut self.replicas[place];
                    let (holding, term) = replica.taken.remove(&partition).unwrap();
                    let run = Run {
                        epoch: holding.epoch,
                        proven: term,
                        proving: false,
                        releasing: false,
                    };
                    let before = replica.runs.insert(partition, run);
                    assert!(before.is_none(), "{partition} runs twice in one replica");
                }
                Effect::Release(partition) => {
                    self.replicas[place]
                        .runs
                        .get_mut(&partition)
                        .unwrap()
                        .releasing = true;
                    let delay = self.below(1_000);
                    self.later(place, delay, Event::Release(partition));
                }
                Effect::Stop(partition) => {
                    self.replicas[place].runs.remove(&partition);
                }
                Effect::Look(partition, epoch) => {
                    let delay = self.below(100);
                    self.later(place, delay, Event::Look(partition, epoch));
                }
            }
        }
    }

    /// Who may start attempts of a partition at this moment.
    pub(crate) fn senders(&self, partition: PartitionId) -> Vec<ReplicaId> {
        let may_send = |replica: &&Replica| {
            let lease = replica.roster.lease();
            replica.is_alive
                && replica.paused_until <= self.now_ms
                && lease.is_live(self.now())
                && replica
                    .runs
                    .get(&partition)
                    .is_some_and(|run| !run.releasing && run.proven == lease.term)
        };
        let senders = self.replicas.iter().filter(may_send);
        senders.map(|replica| replica.id).collect()
    }

    fn check_exclusion(&self) {
        for partition in self.journal.keys() {
            let senders = self.senders(*partition);
            assert!(senders.len() <= 1, "{partition} is sent for by {senders:?}");
        }
    }

    /// Faults are over: each partition comes to the replica that it belongs to, and stays there.
    pub(crate) fn check_recovery(&mut self) {
        for replica in &mut self.replicas {
            replica.paused_until = 0;
            replica.cut_until = 0;
            replica.withdrawn_until = 0;
        }
        self.outage_until = 0;
        self.is_calm = true;
        let serves = |replica: &Replica| replica.is_alive && !replica.leaving;
        if !self.replicas.iter().any(serves) {
            self.start();
        }
        self.run(RECOVERED_WITHIN_MS);
        let living: Vec<ReplicaId> = self
            .replicas
            .iter()
            .filter(|replica| replica.is_alive)
            .map(|replica| replica.id)
            .collect();
        let takes = self.takes.len();
        for partition in self.journal.keys() {
            let owner = owner_of(*partition, &living);
            assert_eq!(
                self.senders(*partition).first().copied(),
                owner,
                "{partition}"
            );
        }
        self.run(5_000);
        assert_eq!(self.takes.len(), takes, "partitions still move");
        assert!(
            self.replicas
                .iter()
                .all(|replica| !replica.is_alive || replica.ownership.is_complete())
        );
    }
}

fn failed(partition: PartitionId, failure: TakeFailure) -> Input {
    Input::TakeFailed { partition, failure }
}
