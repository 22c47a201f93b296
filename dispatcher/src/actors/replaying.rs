//! The actor of a webhook at work on its replays: carries out what the core asks for.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use actix::{AsyncContext as _, Context, Handler};
use shared::ids::ReplayId;
use shared::nats::Unavailable;
use tokio::sync::oneshot;

use super::backlog::READ_RETRY;
use super::log::PartitionLog;
use super::webhook::{Sending, WebhookActor};
use crate::core::delivery::{Input, ReplayEffect, ReplayInput, ReplayTurn, Replayed};
use crate::core::replay::Selector;
use crate::io::replays::{self, Place};
use crate::io::sender::Sent;

/// How often it is looked whether the log has come so far.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Somebody asks for a replay, or wants no more of it. The reply is the ordinal in the log of
/// everything that came of it.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct ReplayAsked {
    pub input: ReplayInput,
    pub reply: oneshot::Sender<u64>,
}

#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct ReplayAttemptDone {
    turn: ReplayTurn,
    sent: Sent,
}

/// A count or a read has ended.
#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct ReplayRead(ReplayInput);

impl WebhookActor {
    pub(super) fn perform_replay(&mut self, effect: ReplayEffect, ctx: &mut Context<Self>) {
        match effect {
            ReplayEffect::Attempt(turn) => {
                let sending = Sending {
                    sequence: turn.sequence,
                    replay: Some(turn.replay),
                    body: None,
                };
                self.run(sending, ctx, move |sent, _| ReplayAttemptDone {
                    turn,
                    sent,
                });
            }
            ReplayEffect::Count(replay) => {
                let (replica, place) = (Rc::clone(&self.replica), self.place());
                self.look_up(replay, ctx, async move |selector| {
                    let matched = replays::count(&replica, place, &selector).await?;
                    Ok(ReplayInput::Counted { replay, matched })
                });
            }
            ReplayEffect::Read { replay, after } => {
                let (replica, place) = (Rc::clone(&self.replica), self.place());
                self.look_up(replay, ctx, async move |selector| {
                    let (found, through) = replays::read(&replica, place, &selector, after).await?;
                    Ok(ReplayInput::Read {
                        replay,
                        found,
                        through,
                    })
                });
            }
        }
    }

    fn place(&self) -> Place {
        Place {
            partition: self.partition(),
            project: self.webhook.project,
        }
    }

    fn look_up<F>(
        &self,
        replay: ReplayId,
        ctx: &mut Context<Self>,
        look: impl FnOnce(Selector) -> F + 'static,
    ) where
        F: Future<Output = Result<ReplayInput, Unavailable>> + 'static,
    {
        let active = self.core.replay().filter(|active| active.id == replay);
        let selector =
            active.map(|active| Selector::of(self.webhook.id, self.history.clone(), active));
        let (own, log, pushed) = (ctx.address(), Rc::clone(&self.log), self.pushed);
        actix_rt::spawn(async move {
            // What was exhausted a moment ago is looked for in JOURNAL.
            stored(&log, pushed).await;
            let looked = match selector {
                Some(selector) => look(selector).await,
                None => Err(Unavailable("the replay has ended".into())),
            };
            let input = match looked {
                Ok(input) => input,
                Err(error) => {
                    tracing::debug!(%error, "what a replay matches was not read");
                    tokio::time::sleep(READ_RETRY).await;
                    ReplayInput::ReadFailed(replay)
                }
            };
            #[expect(clippy::disallowed_methods, reason = "a reply; one look-up at a time")]
            own.do_send(ReplayRead(input));
        });
    }
}

/// Resolves once the log is stored through `ordinal`, or is another owner's.
pub(super) async fn stored(log: &PartitionLog, ordinal: u64) {
    while log.stored() < ordinal && !log.is_deposed() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Handler<ReplayAsked> for WebhookActor {
    type Result = ();

    fn handle(&mut self, asked: ReplayAsked, ctx: &mut Self::Context) {
        self.received += 1;
        self.step(Input::Replay(asked.input), ctx);
        // Whoever asked may have given up.
        let _gone = asked.reply.send(self.log.pushed()).is_err();
    }
}

impl Handler<ReplayAttemptDone> for WebhookActor {
    type Result = ();

    fn handle(&mut self, done: ReplayAttemptDone, ctx: &mut Self::Context) {
        let replayed = Replayed {
            turn: done.turn,
            started_at: done.sent.started_at,
            latency_ms: u32::try_from(done.sent.latency.as_millis()).unwrap_or(u32::MAX),
            outcome: done.sent.outcome,
        };
        self.step(Input::Replay(ReplayInput::Finished(replayed)), ctx);
    }
}

impl Handler<ReplayRead> for WebhookActor {
    type Result = ();

    fn handle(&mut self, ReplayRead(input): ReplayRead, ctx: &mut Self::Context) {
        self.step(Input::Replay(input), ctx);
    }
}
