//! Ending what is pending before EVENTS drops it (`protocol.md`, rule 21): one webhook of a
//! partition after the other is counted, and then told, if it is awake, like any other end that it
//! is owed.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use shared::ids::{ProjectId, Sequence, WebhookId};
use shared::nats::bounds;
use shared::subjects;
use shared::time::Timestamp;

use super::log::PartitionLog;
use super::partition::{PartitionActor, read_stretch};
use super::shared_state::Replica;
use crate::core::classify::ConfigHistory;
use crate::core::commits::Expiry;
use crate::core::partition::owed;
use crate::io::events::ReadError;

const RETRY: Duration = Duration::from_millis(500);

/// Between two looks at the same horizon: a count may have been given up, and a webhook may come
/// to owe what lies below it.
const LOOK_AGAIN_MS: i64 = 1_000;

/// What a partition has to do about it.
#[derive(Debug, Default)]
pub(crate) struct Expiring {
    /// Webhooks that are to be counted, by the horizon that was looked at last.
    waiting: VecDeque<WebhookId>,
    through: Sequence,
    looked_at: Option<Timestamp>,
    is_counting: bool,
}

/// One webhook's count.
struct Count {
    webhook: WebhookId,
    project: ProjectId,
    history: ConfigHistory,
    through: Sequence,
    hold_ends_until: Timestamp,
}

impl PartitionActor {
    /// Looks now and again which webhooks are to be counted.
    pub(super) fn consider_expiry(&mut self, ctx: &mut Context<Self>) {
        let (horizon, now) = (self.replica.horizon.get(), self.log.now());
        let expiring = &mut self.expiring;
        let has_moved = expiring.through < horizon;
        let is_due = expiring
            .looked_at
            .is_none_or(|at| now.millis_since(at) >= LOOK_AGAIN_MS);
        if horizon > Sequence(0) && expiring.waiting.is_empty() && (has_moved || is_due) {
            expiring.looked_at = Some(now);
            expiring.through = horizon;
            expiring.waiting = self.log.look(|commits| commits.expirable(horizon)).into();
        }
        self.begin_count(ctx);
    }

    fn begin_count(&mut self, ctx: &mut Context<Self>) {
        if self.expiring.is_counting {
            return;
        }
        let Some(count) = self.next_count() else {
            return;
        };
        self.expiring.is_counting = true;
        let (replica, log) = (Rc::clone(&self.replica), Rc::clone(&self.log));
        let done = count_all(replica, log, count)
            .into_actor(self)
            .map(|(), actor, ctx| {
                actor.expiring.is_counting = false;
                actor.begin_count(ctx);
            });
        ctx.spawn(done);
    }

    fn next_count(&mut self) -> Option<Count> {
        let through = self.expiring.through;
        loop {
            let webhook = self.expiring.waiting.pop_front()?;
            let known = self
                .replica
                .view
                .read(|state| state.webhook(webhook).cloned());
            if let (Some(known), Some(history)) = (known, self.core.history(webhook)) {
                return Some(Count {
                    webhook,
                    project: known.project,
                    history: history.clone(),
                    through,
                    hold_ends_until: self.hold_ends_until,
                });
            }
        }
    }
}

/// Ends early if the webhook is deleted or the partition is lost.
async fn count_all(replica: Rc<Replica>, log: Rc<PartitionLog>, count: Count) {
    while !log.is_deposed() {
        match count_once(&replica, &log, &count).await {
            Ok(()) => return,
            Err(error) => {
                log.note(&error);
                tracing::debug!(webhook.id = %count.webhook, %error, "a count waits");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn count_once(
    replica: &Rc<Replica>,
    log: &PartitionLog,
    count: &Count,
) -> Result<(), ReadError> {
    let webhook = count.webhook;
    let events = &replica.nats.events;
    let (first, _) = bounds(events).await?;
    // What was erased meanwhile is below the horizon too.
    replica
        .horizon
        .set(replica.horizon.get().max(first.previous()));
    let horizon = count.through.max(first.previous());
    log.begin_expiring(webhook, horizon, first);
    while let Expiry::Read { after, through } = log.look(|commits| commits.expiry(webhook)) {
        let filter = subjects::events_of_project(log.partition, count.project);
        // Closed never: the replica holds it.
        let _turn = replica.backlog_turns.acquire().await;
        let stretch = read_stretch(Rc::clone(replica), filter, after, through).await?;
        let matches: Vec<_> = stretch
            .events
            .iter()
            .filter_map(|(sequence, event)| owed(&count.history, *sequence, event))
            .collect();
        log.read_expiring(webhook, &matches, stretch.through);
    }
    // Nothing is passed over while a predecessor's attempt may still arrive (rule 9).
    let is_held =
        || log.now() < count.hold_ends_until && log.look(|commits| commits.expiring(webhook)) > 0;
    while is_held() {
        tokio::time::sleep(RETRY).await;
    }
    if log.look(|commits| commits.expiry(webhook)) == Expiry::Check {
        let (first, _) = bounds(events).await?;
        log.counted_expiring(webhook, first);
    }
    Ok(())
}
