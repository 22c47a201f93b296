//! What a partition is asked about its webhooks' replays. What is answered is what is stored.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Addr, Handler, Message, ResponseFuture};
use shared::domain::journal::JournalEntry;
use shared::domain::replay::{ReplaySelection, ReplayStep};
use shared::domain::state::{Extent, Replays};
use shared::domain::webhook::Webhook;
use shared::ids::{ReplayId, Sequence, WebhookId};
use shared::limits::REPLAYS_ACTIVE_MAX;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::log::PartitionLog;
use super::partition::PartitionActor;
use super::replaying::{ReplayAsked, stored};
use super::shared_state::Replica;
use crate::core::delivery::ReplayInput;
use crate::core::replay::Selector;
use crate::io::replays::{self, Place};
use crate::owner::{REPLAY_ANSWER_WITHIN, ReplayAnswer, ReplayQuestion, ReplayShown};

/// What was begun is mostly counted by then; its answer does not wait longer.
const COUNTED_WITHIN: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// An owned partition, as whoever answers for it sees it.
#[derive(Clone)]
pub(crate) struct Owned {
    pub address: Addr<PartitionActor>,
    pub log: Rc<PartitionLog>,
}

/// The input is to reach the webhook's core. Gives the ordinal in the log of what came of it;
/// `None` if nothing could.
#[derive(Debug, Message)]
#[rtype(result = "Option<u64>")]
pub(crate) struct StepReplay {
    pub webhook: WebhookId,
    pub input: ReplayInput,
}

/// What a replay that began now would select, and the ordinal in the log that it takes. `None` if
/// the webhook is not known here.
#[derive(Debug, Message)]
#[rtype(result = "Option<(Selector, u64)>")]
pub(crate) struct PlanReplay {
    pub webhook: WebhookId,
    pub selection: ReplaySelection,
}

/// Why there is no answer; the asker may try again.
#[derive(Debug)]
pub(crate) struct Declined(pub &'static str);

/// Answers a question about the replays of `webhook`, within [`REPLAY_ANSWER_WITHIN`].
pub(crate) async fn answer(
    replica: &Replica,
    owned: &Owned,
    webhook: WebhookId,
    question: ReplayQuestion,
) -> Result<ReplayAnswer, Declined> {
    let until = Instant::now() + REPLAY_ANSWER_WITHIN;
    let answered = async {
        match question {
            ReplayQuestion::Begin { replay, selection } => {
                begin(owned, webhook, replay, selection).await
            }
            ReplayQuestion::DryRun { selection } => {
                dry_run(replica, owned, webhook, selection).await
            }
            ReplayQuestion::Cancel { replay } => cancel(owned, webhook, replay).await,
            ReplayQuestion::Get { replay } => Ok(shown(owned, webhook, replay)),
            ReplayQuestion::List => {
                let known = stored_replays(owned, webhook, |replays| {
                    let known = replays.known.iter();
                    known
                        .map(|(id, known)| ReplayShown::of(*id, known))
                        .collect()
                });
                Ok(ReplayAnswer::List(known.unwrap_or_default()))
            }
        }
    };
    timeout_at(until, answered)
        .await
        .unwrap_or(Err(Declined("it takes too long at the moment")))
}

async fn begin(
    owned: &Owned,
    webhook: WebhookId,
    replay: ReplayId,
    selection: ReplaySelection,
) -> Result<ReplayAnswer, Declined> {
    let fingerprint = selection.fingerprint();
    let input = ReplayInput::Begin { replay, selection };
    // Whatever is known of the id already, this changes nothing of it.
    step(owned, webhook, input).await?;
    let found = stored_replays(owned, webhook, |replays| {
        let is_full = replays.active.len() >= REPLAYS_ACTIVE_MAX;
        (replays.known.get(&replay).copied(), is_full)
    });
    match found {
        Some((Some(known), _)) if known.fingerprint != fingerprint => Ok(ReplayAnswer::Conflict(
            "the id is that of a replay with another selection".into(),
        )),
        Some((Some(_), _)) => {
            let counted = async {
                while is_being_counted(owned, webhook, replay) {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            // If it takes longer, the answer says so.
            let _late = tokio::time::timeout(COUNTED_WITHIN, counted).await.is_err();
            Ok(shown(owned, webhook, replay))
        }
        Some((None, true)) => Ok(ReplayAnswer::Conflict(format!(
            "the webhook has {REPLAYS_ACTIVE_MAX} replays that have not ended"
        ))),
        Some((None, false)) => Ok(ReplayAnswer::Conflict("the webhook is not enabled".into())),
        None => Ok(ReplayAnswer::Unknown),
    }
}

async fn dry_run(
    replica: &Replica,
    owned: &Owned,
    webhook: WebhookId,
    selection: ReplaySelection,
) -> Result<ReplayAnswer, Declined> {
    let plan = PlanReplay { webhook, selection };
    let planned = owned.address.send(plan).await;
    let Some((selector, ordinal)) = planned.map_err(|_| Declined("the partition is given up"))?
    else {
        return Ok(ReplayAnswer::Unknown);
    };
    stored(&owned.log, ordinal).await;
    let project = replica
        .view
        .read(|state| state.webhook(webhook).map(|webhook| webhook.project));
    let Some(project) = project else {
        return Ok(ReplayAnswer::Unknown);
    };
    let partition = owned.log.partition;
    let place = Place { partition, project };
    match replays::count(replica, place, &selector).await {
        Ok(matched) => Ok(ReplayAnswer::Matched(matched)),
        Err(error) => {
            tracing::debug!(%error, "what a replay would match was not read");
            Err(Declined("the streams cannot be read at the moment"))
        }
    }
}

async fn cancel(
    owned: &Owned,
    webhook: WebhookId,
    replay: ReplayId,
) -> Result<ReplayAnswer, Declined> {
    step(owned, webhook, ReplayInput::Cancel(replay)).await?;
    Ok(shown(owned, webhook, replay))
}

/// Returns once what came of the input is stored.
async fn step(owned: &Owned, webhook: WebhookId, input: ReplayInput) -> Result<(), Declined> {
    let asked = StepReplay { webhook, input };
    let ordinal = owned.address.send(asked).await;
    let ordinal = ordinal.map_err(|_| Declined("the partition is given up"))?;
    let ordinal = ordinal.ok_or(Declined("the webhook is busy"))?;
    stored(&owned.log, ordinal).await;
    if owned.log.stored() < ordinal {
        return Err(Declined("another replica owns the partition"));
    }
    Ok(())
}

fn shown(owned: &Owned, webhook: WebhookId, replay: ReplayId) -> ReplayAnswer {
    let known = stored_replays(owned, webhook, |replays| {
        replays.known.get(&replay).copied()
    });
    known.flatten().map_or(ReplayAnswer::Unknown, |known| {
        ReplayAnswer::Replay(ReplayShown::of(replay, &known))
    })
}

fn is_being_counted(owned: &Owned, webhook: WebhookId, replay: ReplayId) -> bool {
    let is_counting = stored_replays(owned, webhook, |replays| {
        let known = replays.known.get(&replay);
        known.is_some_and(|known| !known.is_counted && known.ended_at.is_none())
    });
    is_counting.unwrap_or(false) && !owned.log.is_deposed()
}

/// Looks at a webhook's replays as far as they are stored.
fn stored_replays<R>(
    owned: &Owned,
    webhook: WebhookId,
    look: impl FnOnce(&Replays) -> R,
) -> Option<R> {
    owned.log.look(|commits| {
        let webhook = commits.state().webhooks.get(&webhook)?;
        Some(look(&webhook.replays))
    })
}

impl PartitionActor {
    fn webhook(&self, id: WebhookId) -> Option<Arc<Webhook>> {
        self.replica.view.read(|state| state.webhook(id).cloned())
    }

    /// How far everything has ended, if nothing is pending.
    pub(super) fn idle_through(&self, webhook: WebhookId) -> Option<Sequence> {
        let is_idle = self.log.look(|commits| commits.pending(webhook)) == 0;
        is_idle.then(|| self.core.classified().position.sequence)
    }
}

impl Handler<StepReplay> for PartitionActor {
    type Result = ResponseFuture<Option<u64>>;

    fn handle(&mut self, asked: StepReplay, ctx: &mut Self::Context) -> Self::Result {
        let StepReplay { webhook: id, input } = asked;
        if let Some(webhook) = self.webhook(id) {
            let idle_through = self.idle_through(id);
            self.begin(&webhook, idle_through, ctx);
        }
        let (reply, told) = oneshot::channel();
        let asked = ReplayAsked {
            input: input.clone(),
            reply,
        };
        match self.children.send(id, asked) {
            Some(true) => Box::pin(async { told.await.ok() }),
            Some(false) => Box::pin(async { None }),
            None => {
                // Without an actor nothing is under way, and nothing begins.
                if let ReplayInput::Cancel(replay) = input {
                    let at = self.log.now();
                    self.log.push(JournalEntry::Replay {
                        webhook: id,
                        replay,
                        step: ReplayStep::Cancelled { at },
                    });
                }
                let pushed = self.log.pushed();
                Box::pin(async move { Some(pushed) })
            }
        }
    }
}

impl Handler<PlanReplay> for PartitionActor {
    type Result = Option<(Selector, u64)>;

    fn handle(&mut self, plan: PlanReplay, _: &mut Self::Context) -> Self::Result {
        let history = self.core.history(plan.webhook)?.clone();
        let state = self
            .log
            .look(|commits| commits.pushed_state(plan.webhook))?;
        let extent = match self.idle_through(plan.webhook) {
            Some(through) => Extent::whole(through),
            None => {
                let last = state.ended.keys().next_back().copied();
                Extent::of(&state, state.resolved.max(last.unwrap_or_default()))
            }
        };
        let deactivations = match &plan.selection {
            ReplaySelection::ExhaustedSince(since) => state.replays.deactivations_since(*since),
            ReplaySelection::Events(_) | ReplaySelection::Published { .. } => Vec::new(),
        };
        let selection = &plan.selection;
        let selector = Selector::new(plan.webhook, history, selection, extent, deactivations);
        Some((selector, self.log.pushed()))
    }
}
