//! Counting what a new webhook's creation reaches back to (`protocol.md`, rule 11). Until that is
//! journaled the webhook has no actor: nothing may end that was not counted.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use actix::{ActorFutureExt as _, AsyncContext as _, Context, WrapFuture as _};
use shared::domain::journal::{JournalEntry, SkipReason};
use shared::domain::webhook::Webhook;
use shared::ids::{Sequence, WebhookId};
use shared::subjects;

use super::log::PartitionLog;
use super::partition::{PartitionActor, read_stretch};
use super::shared_state::Replica;
use crate::core::classify::{Class, ConfigHistory};

struct CountedBack {
    webhook: WebhookId,
    accepted: u64,
    skipped: HashMap<SkipReason, u64>,
}

impl PartitionActor {
    pub(super) fn count_back(
        &mut self,
        webhook: &Arc<Webhook>,
        from: Sequence,
        through: Sequence,
        ctx: &mut Context<Self>,
    ) {
        let Some(history) = self.core.history(webhook.id).cloned() else {
            return;
        };
        if !self.counting.insert(webhook.id) {
            return;
        }
        let filter = subjects::events_of_project(self.id, webhook.project);
        let logged = (Rc::clone(&self.replica), Rc::clone(&self.log));
        let done = count(logged, filter, history, webhook.id, (from, through))
            .into_actor(self)
            .map(|counted, actor, ctx| actor.counted_back(counted, ctx));
        ctx.spawn(done);
    }

    fn counted_back(&mut self, counted: CountedBack, ctx: &mut Context<Self>) {
        // Deleted meanwhile.
        if !self.counting.remove(&counted.webhook) {
            return;
        }
        let mut skipped: Vec<(SkipReason, u64)> = counted.skipped.into_iter().collect();
        skipped.sort_unstable();
        self.log.push(JournalEntry::CountedBack {
            webhook: counted.webhook,
            accepted: counted.accepted,
            skipped,
        });
        let id = counted.webhook;
        self.owe_what_may_not_wait(id);
        if let Some(webhook) = self.replica.view.read(|state| state.webhook(id).cloned()) {
            self.wake(&webhook, None, ctx);
            self.update(&webhook);
        }
    }
}

async fn count(
    (replica, log): (Rc<Replica>, Rc<PartitionLog>),
    filter: String,
    history: ConfigHistory,
    webhook: WebhookId,
    (from, through): (Sequence, Sequence),
) -> CountedBack {
    let mut counted = CountedBack {
        webhook,
        accepted: 0,
        skipped: HashMap::new(),
    };
    let mut after = from.previous();
    while after < through {
        // One that fails has waited before it says so.
        let read = read_stretch(Rc::clone(&replica), filter.clone(), after, through).await;
        let stretch = match read {
            Ok(stretch) => stretch,
            Err(error) => {
                log.note(&error);
                continue;
            }
        };
        for (sequence, event) in &stretch.events {
            match history.classify(*sequence, event) {
                Class::NotWanted => {}
                Class::Accepted => counted.accepted += 1,
                Class::Skipped(reason) => *counted.skipped.entry(reason).or_default() += 1,
            }
        }
        after = stretch.through;
    }
    counted
}
