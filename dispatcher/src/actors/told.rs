//! What an owner tells of its webhooks, from the state that its stored packs fold to.

use std::rc::Rc;
use std::sync::Arc;

use shared::domain::webhook::Webhook;
use shared::ids::{PartitionId, ProjectId, Sequence, WebhookId};
use shared::nats::{Unavailable, bounds};
use shared::subjects;

use super::log::PartitionLog;
use super::shared_state::Replica;
use crate::core::classify::ConfigHistory;
use crate::core::overview::{Overview, Recount, Span};
use crate::core::standing::Standing;
use crate::io::events::{self, Fetched};

/// An answer is one message.
const STANDINGS_MAX: usize = 1_000;

/// An overview whose pending deliveries are counted once more, if that takes one read of EVENTS.
pub(super) async fn overview(
    replica: &Replica,
    log: &Rc<PartitionLog>,
    webhook: WebhookId,
    span: Span,
) -> Overview {
    // Both from one state: nothing may be stored in between.
    let (mut overview, recount) = log.look(|commits| {
        let state = commits.state();
        let overview = Overview::of(state, webhook, span);
        (overview, recount(replica, state, webhook))
    });
    let Some(recount) = recount else {
        return overview;
    };
    match count(replica, log.partition, webhook, recount).await {
        Ok(Some(pending)) => overview.recounted(pending),
        Ok(None) => {}
        Err(error) => tracing::debug!(webhook.id = %webhook, %error, "pending is not recounted"),
    }
    if overview.account.gap() != 0 {
        replica.metrics.ledger_gaps.increment(1);
        tracing::error!(
            webhook.id = %webhook,
            gap = overview.account.gap(),
            "a webhook's account does not add up"
        );
    }
    overview
}

/// How the deliveries of the event at `sequence` stand; those of webhooks that never wanted it are
/// not there.
pub(super) async fn standings(
    replica: &Replica,
    log: &Rc<PartitionLog>,
    project: ProjectId,
    sequence: Sequence,
) -> Result<Vec<(WebhookId, Standing)>, Unavailable> {
    let event = match events::fetch(&replica.nats, sequence).await? {
        Fetched::Event(event) if event.project == project => event,
        Fetched::Event(_) | Fetched::Gone(_) => return Ok(Vec::new()),
    };
    let webhooks: Vec<_> = replica.view.read(|state| {
        let ids = state.project(project).map(|project| &project.webhooks);
        let known = ids.into_iter().flatten();
        known.filter_map(|id| state.webhook(*id).cloned()).collect()
    });
    Ok(log.look(|commits| {
        let state = commits.state();
        let standing = |webhook: Arc<Webhook>| {
            let told = state.webhooks.get(&webhook.id)?;
            let history = ConfigHistory::restored(&told.applied, &webhook);
            let standing = Standing::of(told, &history, sequence, &event)?;
            Some((webhook.id, standing))
        };
        let standings = webhooks.into_iter().filter_map(standing);
        standings.take(STANDINGS_MAX).collect()
    }))
}

fn recount(
    replica: &Replica,
    state: &shared::domain::state::PartitionState,
    webhook: WebhookId,
) -> Option<Recount> {
    let told = state.webhooks.get(&webhook)?;
    let classified = state.classified?.sequence;
    let known = replica.view.read(|state| state.webhook(webhook).cloned())?;
    let history = ConfigHistory::restored(&told.applied, &known);
    Recount::new(told, history, classified)
}

/// `None` when one read does not reach that far, or EVENTS has forgotten something of it.
async fn count(
    replica: &Replica,
    partition: PartitionId,
    webhook: WebhookId,
    mut recount: Recount,
) -> Result<Option<u64>, Unavailable> {
    let (after, through) = recount.range();
    if after < through {
        let known = replica.view.read(|state| state.webhook(webhook).cloned());
        let Some(project) = known.map(|known| known.project) else {
            return Ok(None);
        };
        // Beside the reads that deliveries wait for, not instead of them.
        let Ok(_turn) = replica.recount_turn.try_acquire() else {
            return Ok(None);
        };
        let filter = subjects::events_of_project(partition, project);
        let read = events::stretch(&replica.nats, &replica.metrics, &filter, after, through);
        let stretch = read.await?;
        // Afterwards, since events expire meanwhile too.
        let (first, _) = bounds(&replica.nats.events).await?;
        if stretch.through < through || first > after.next() {
            return Ok(None);
        }
        for (sequence, event) in &stretch.events {
            recount.take(*sequence, event);
        }
    }
    Ok(Some(recount.pending()))
}
