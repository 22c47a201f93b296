//! This replica's key among those of the living, and the tail that shows theirs
//! (`protocol.md`, rule 5). What may be concluded from it says [`Roster`].
//!
//! Deliberately absent: the client's key-value watch, which follows by an ordered consumer, and
//! its `create_with_ttl`, which over an expired key makes one that never expires.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::read::{StoredMessage, last_matching};
use super::tail::Tail;
use super::{Nats, Unavailable};
use crate::domain::membership::{Lease, MEMBER_TTL, Member, Renewal, Roster};
use crate::ids::{ReplicaId, Sequence};
use crate::subjects;
use crate::time::{Clock, Timestamp};

const RENEW_EVERY: Duration = Duration::from_secs(1);
/// After a renewal that failed: a replica whose lease lapsed delivers nothing.
const RENEW_RETRY: Duration = Duration::from_millis(200);
/// Without an own renewal in the tail for this long, it is begun anew from the first key: the
/// bucket may have been made anew, with lower sequences.
const TAIL_STALLED: Duration = Duration::from_secs(9);
/// The header by which clients tell a removed key.
const OPERATION_HEADER: &str = "KV-Operation";

/// This replica's place among the living. Cheap to clone.
#[derive(Clone)]
pub struct Membership {
    inner: Arc<Inner>,
}

struct Inner {
    nats: Nats,
    clock: Arc<dyn Clock>,
    me: ReplicaId,
    member: Member,
    roster: watch::Sender<Roster>,
    leaving: AtomicBool,
    renew_now: Notify,
    stop: Notify,
    stopped: watch::Sender<bool>,
}

impl Membership {
    /// Takes a place and keeps it until [`Self::leave`], or until the runtime ends.
    pub fn join(nats: Nats, clock: Arc<dyn Clock>, me: ReplicaId, member: Member) -> Self {
        let membership = Self {
            inner: Arc::new(Inner {
                nats,
                clock,
                me,
                member,
                roster: watch::Sender::new(Roster::new(me)),
                leaving: AtomicBool::new(member.leaving),
                renew_now: Notify::new(),
                stop: Notify::new(),
                stopped: watch::Sender::new(false),
            }),
        };
        spawn(membership.clone().renew());
        spawn(membership.clone().follow());
        membership
    }

    pub fn me(&self) -> ReplicaId {
        self.inner.me
    }

    /// Who lives. Receivers are told when somebody comes, goes or begins to leave, and when the
    /// lease begins anew; not of each renewal.
    pub fn roster(&self) -> watch::Receiver<Roster> {
        self.inner.roster.subscribe()
    }

    pub fn lease(&self) -> Lease {
        self.inner.roster.borrow().lease()
    }

    /// The server's time: see [`Roster::server_time`].
    pub fn server_time(&self) -> Option<Timestamp> {
        let uptime = self.inner.clock.uptime();
        self.inner.roster.borrow().server_time(uptime)
    }

    /// Whether `peer` has no key, by the leader's word.
    pub async fn is_gone(&self, peer: ReplicaId) -> Result<bool, Unavailable> {
        let last = last_matching(&self.inner.nats.members, &subjects::member(peer)).await?;
        Ok(last.is_none_or(|message| message.payload.is_empty()))
    }

    /// Tells the others that this replica gives its partitions away.
    pub fn begin_leaving(&self) {
        self.inner.leaving.store(true, Ordering::Release);
        self.inner.renew_now.notify_one();
    }

    /// Gives the place up: from now on the others may take what this replica still owns. A server
    /// that does not answer will drop the key by itself.
    pub async fn leave(&self) {
        self.inner.stop.notify_one();
        let mut stopped = self.inner.stopped.subscribe();
        // The sender lives as long as `self`.
        let _stopped = stopped.wait_for(|stopped| *stopped).await.is_ok();
        let message = PublishMessage::build()
            .header(OPERATION_HEADER, "DEL")
            .ttl(MEMBER_TTL);
        if let Err(error) = self.append(message).await {
            tracing::warn!(%error, "the replica's key is left to expire");
        }
    }

    async fn renew(self) {
        let mut acknowledgements = FuturesUnordered::new();
        let mut due = Instant::now();
        loop {
            tokio::select! {
                () = self.inner.stop.notified() => break,
                () = self.inner.renew_now.notified() => due = Instant::now(),
                () = tokio::time::sleep_until(due) => {
                    due = Instant::now() + RENEW_EVERY;
                    // Else they would queue up in the client, to be sent when they mean nothing.
                    if self.inner.nats.is_connected() {
                        acknowledgements.push(self.renew_once());
                    } else {
                        due = Instant::now() + RENEW_RETRY;
                    }
                }
                Some((sent, acknowledged)) = acknowledgements.next() => match acknowledged {
                    Ok(()) => self.update(|roster, uptime| roster.renewed(sent, uptime)),
                    Err(error) => {
                        tracing::warn!(%error, "the replica's key is not renewed");
                        due = due.min(Instant::now() + RENEW_RETRY);
                    }
                },
            }
        }
        self.inner.stopped.send_replace(true);
    }

    /// When it was sent, and whether the server has it.
    async fn renew_once(&self) -> (Duration, Result<(), Unavailable>) {
        let (sent, wall) = (self.inner.clock.uptime(), self.inner.clock.now());
        // One whose clock is off, or not known yet, is given nothing: whatever belongs to it would
        // wait for it.
        let is_on_time = self.inner.roster.borrow().is_on_time(wall, sent);
        let renewal = Renewal {
            member: Member {
                leaving: !is_on_time || self.inner.leaving.load(Ordering::Acquire),
                ..self.inner.member
            },
            sent_ms: u64::try_from(sent.as_millis()).unwrap_or(u64::MAX),
        };
        let payload = serde_json::to_vec(&renewal).unwrap_or_default();
        let message = PublishMessage::build()
            .payload(Bytes::from(payload))
            .ttl(MEMBER_TTL);
        (sent, self.append(message).await)
    }

    /// Unconditional, for nobody else writes this key.
    async fn append(&self, message: PublishMessage) -> Result<(), Unavailable> {
        let context = &self.inner.nats.context;
        let subject = subjects::member(self.inner.me);
        context
            .send_publish(subject, message)
            .await
            .map_err(Unavailable::new)?
            .await
            .map_err(Unavailable::new)?;
        Ok(())
    }

    async fn follow(self) {
        let begin = || {
            let stream = self.inner.nats.members.clone();
            Tail::new(stream, subjects::MEMBERS_ALL, Sequence(0))
        };
        let mut tail = begin();
        let mut stopped = self.inner.stopped.subscribe();
        let mut look = tokio::time::interval(TAIL_STALLED);
        let mut echo_before = None;
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return,
                batch = tail.next() => {
                    let knew_the_time = self.server_time().is_some();
                    self.update(|roster, uptime| {
                        for message in &batch.messages {
                            hear(roster, message, uptime);
                        }
                    });
                    if !knew_the_time && self.server_time().is_some() {
                        self.inner.renew_now.notify_one();
                    }
                }
                _ = look.tick() => {
                    let echo = self.inner.roster.borrow().echo();
                    if echo.is_some() && echo == echo_before {
                        tail = begin();
                    }
                    echo_before = echo;
                }
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut Roster, Duration)) {
        let uptime = self.inner.clock.uptime();
        self.inner.roster.send_if_modified(|roster| {
            let before = roster.outline();
            change(roster, uptime);
            before != roster.outline()
        });
    }
}

fn hear(roster: &mut Roster, message: &StoredMessage, uptime: Duration) {
    let Some(replica) = subjects::replica_of_member(&message.subject) else {
        return;
    };
    // The server's note of an expiry, and a removal, have no payload.
    if message.payload.is_empty() {
        roster.heard(replica, None, uptime);
        return;
    }
    let renewal = serde_json::from_slice(&message.payload).unwrap_or_else(|error| {
        tracing::error!(%replica, %error, "a replica's key is not readable");
        // Somebody lives there, to whom nothing can be given.
        Renewal {
            member: Member {
                codec_version: 0,
                started_at: Timestamp::default(),
                leaving: true,
            },
            sent_ms: 0,
        }
    });
    roster.heard(replica, Some(&renewal), uptime);
    if replica == roster.me() {
        let sent = Duration::from_millis(renewal.sent_ms);
        roster.stored(sent, message.stored_at, uptime);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tasks end when the replica leaves, or with the runtime"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    let _detached = tokio::spawn(task);
}
