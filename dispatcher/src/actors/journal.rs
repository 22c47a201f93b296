//! The committer of one partition: one pack under way, the next one gathering meanwhile.

use std::rc::Rc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Recipient, WrapFuture as _,
};
use shared::ids::Sequence;

use super::log::{EncodedPack, PartitionLog};
use super::shared_state::Replica;
use crate::io::journal::{Committed, commit};

/// Wakes come from every webhook of the partition; one that finds no room changes nothing.
const MAILBOX: usize = 16;
/// While as many packs of other partitions are under way, entries gather for a while: each pack
/// costs the server and this thread as much as several deliveries do. With few busy partitions
/// the pack under way is wait enough.
const PACKS_AT_ONCE: usize = 4;
/// Well below what an unjournaled outcome may take (rule 19), and what nobody notices who waits
/// for one.
const LINGER: Duration = Duration::from_millis(40);

pub(crate) struct JournalActor {
    replica: Rc<Replica>,
    log: Rc<PartitionLog>,
    fence: Sequence,
    owner: Recipient<Progress>,
    /// Entries gather until a time.
    lingers: bool,
}

/// There are entries to commit.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Entries;

/// The log has moved on, or is lost to another owner.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Progress;

impl JournalActor {
    pub(crate) fn new(
        replica: Rc<Replica>,
        log: Rc<PartitionLog>,
        fence: Sequence,
        owner: Recipient<Progress>,
    ) -> Self {
        Self {
            replica,
            log,
            fence,
            owner,
            lingers: false,
        }
    }

    /// Starts the next pack at once, or a little later when many are under way.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        if self.lingers {
            return;
        }
        if self.replica.packs.count() < PACKS_AT_ONCE {
            return self.commit(ctx);
        }
        self.lingers = true;
        ctx.run_later(LINGER, |actor, ctx| {
            actor.lingers = false;
            actor.commit(ctx);
        });
    }

    /// Starts the next pack, unless one is under way.
    fn commit(&mut self, ctx: &mut Context<Self>) {
        if self.log.is_deposed() {
            return;
        }
        let Some(pack) = self.log.next_pack() else {
            return;
        };
        let entries = u64::try_from(pack.entries).unwrap_or(0);
        let started = self.replica.clock.elapsed();
        let stored = commit_pack(
            Rc::clone(&self.replica),
            Rc::clone(&self.log),
            self.fence,
            pack,
        );
        let done = stored
            .into_actor(self)
            .map(move |committed, actor, ctx| actor.committed(committed, entries, started, ctx));
        ctx.spawn(done);
    }

    fn committed(
        &mut self,
        committed: Committed,
        entries: u64,
        started: Duration,
        ctx: &mut Context<Self>,
    ) {
        let metrics = &self.replica.metrics;
        match committed {
            Committed::Stored(at) => {
                self.log.pack_stored(at);
                metrics.packs.increment(1);
                metrics.pack_entries.increment(entries);
                let took = self.replica.clock.elapsed().saturating_sub(started);
                metrics.commit_seconds.record(took.as_secs_f64());
                self.pump(ctx);
            }
            Committed::Deposed => {
                // The last guard: the lease should have kept this replica from coming so far.
                metrics.packs_refused.increment(1);
                let partition = self.log.partition;
                tracing::warn!(%partition, "JOURNAL refused a pack of a former owner");
                self.log.depose();
            }
        }
        // A full mailbox: the partition looks at its next tick.
        let _full = self.owner.try_send(Progress).is_err();
    }
}

async fn commit_pack(
    replica: Rc<Replica>,
    log: Rc<PartitionLog>,
    fence: Sequence,
    pack: EncodedPack,
) -> Committed {
    let _under_way = replica.packs.begin();
    commit(&replica.nats, &replica.metrics, log.partition, fence, &pack).await
}

impl Actor for JournalActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.pump(ctx);
    }
}

impl Handler<Entries> for JournalActor {
    type Result = ();

    fn handle(&mut self, _: Entries, ctx: &mut Self::Context) {
        self.pump(ctx);
    }
}
