//! Tells others what a partition's journal says of its webhooks, once it is stored: decisions go
//! into REGISTRY (`protocol.md`, rule 10), transitions into EVENTS.
//!
//! Nothing here holds anything up: what was decided holds from its journal entry on. Events of a
//! partition are published one after the other, so that nobody hears of a recovery before the
//! failure. Deliberately absent: telling of a breaker's transition again after a takeover, since
//! the state does not say where it is journaled. A deactivation is told again.

use std::rc::Rc;
use std::time::Duration;

use shared::domain::journal::EntryPlace;
use shared::domain::webhook::Webhook;
use shared::ids::{Sequence, WebhookId};
use tokio::sync::mpsc;

use super::log::PartitionLog;
use super::shared_state::Replica;
use crate::core::commits::Told;
use crate::io::decisions::{self, OwedDecision};
use crate::io::{events, webhook_events};

/// Events of a partition that may wait to be published.
const WAITING_MAX: usize = 10_000;
/// Within EVENTS' dedup window, telling again changes nothing.
const TOLD_AGAIN_MS: i64 = 9 * 60 * 1_000;
/// Between two tries to read a decision's entry.
const READ_RETRY: Duration = Duration::from_millis(500);

/// The announcer of one partition; what waits ends with it.
pub(crate) struct Announcer {
    replica: Rc<Replica>,
    log: Rc<PartitionLog>,
    events: mpsc::Sender<Told>,
}

/// A decision that the journal says holds.
struct Held {
    webhook: WebhookId,
    place: EntryPlace,
}

impl Announcer {
    /// Begins with what an owner before may have left untold.
    pub(crate) fn start(replica: Rc<Replica>, log: Rc<PartitionLog>) -> Self {
        let (events, waiting) = mpsc::channel(WAITING_MAX);
        let publisher = publish_all(Rc::clone(&replica), Rc::clone(&log), waiting);
        actix_rt::spawn(publisher);
        let announcer = Self {
            replica,
            log,
            events,
        };
        announcer.tell_again();
        announcer
    }

    /// Tells of what was stored.
    pub(crate) fn tell(&self, told: Vec<Told>) {
        for told in told {
            self.record(&told);
            tell_event(&self.replica, &self.events, told);
        }
    }

    fn record(&self, told: &Told) {
        let Some(owed) = owed_decision(&self.replica, &self.log, told) else {
            return;
        };
        let (replica, log) = (Rc::clone(&self.replica), Rc::clone(&self.log));
        // Beside the others: one that cannot be recorded yet does not hold them up.
        actix_rt::spawn(async move { record(&replica, &log, &owed).await });
    }

    /// One after the other, beside everything else: there may be thousands.
    fn tell_again(&self) {
        let held = self.untold();
        let (replica, log) = (Rc::clone(&self.replica), Rc::clone(&self.log));
        let events = self.events.clone();
        actix_rt::spawn(async move {
            for held in held {
                let Some(told) = read_told(&replica, &log, &held).await else {
                    continue;
                };
                let recent = replica.clock.now().plus_millis(-TOLD_AGAIN_MS);
                if told.occurred_at > recent {
                    tell_event(&replica, &events, told.clone());
                }
                if let Some(owed) = owed_decision(&replica, &log, &told) {
                    record(&replica, &log, &owed).await;
                }
            }
        });
    }

    /// Decisions that the registry does not show, or has shown for a moment only.
    fn untold(&self) -> Vec<Held> {
        let recent = self.replica.clock.now().plus_millis(-TOLD_AGAIN_MS);
        let is_shown = |webhook: &Webhook, place| {
            let shown = webhook.decided.is_some_and(|shown| shown.place == place);
            webhook.deleted || (shown && webhook.updated_at < recent)
        };
        self.log.look(|commits| {
            self.replica.view.read(|registry| {
                let webhooks = commits.state().webhooks.iter();
                let held = webhooks.filter_map(|(id, webhook)| {
                    let place = webhook.decided?;
                    let known = registry.webhook(*id)?;
                    (!is_shown(known, place)).then_some(Held {
                        webhook: *id,
                        place,
                    })
                });
                held.collect()
            })
        })
    }
}

/// Waits until JOURNAL can be read. `None` if it no longer has the entry.
async fn read_told(replica: &Replica, log: &PartitionLog, held: &Held) -> Option<Told> {
    while !log.is_deposed() {
        match decisions::entry_at(&replica.nats, held.place).await {
            Ok(Some((at, entry))) => {
                return log.look(|commits| Told::of(&entry, at, commits.state()));
            }
            Ok(None) => {
                tracing::error!(
                    webhook.id = %held.webhook,
                    "JOURNAL no longer says why the webhook is not sent to"
                );
                return None;
            }
            Err(error) => {
                tracing::warn!(webhook.id = %held.webhook, %error, "a decision waits");
                tokio::time::sleep(READ_RETRY).await;
            }
        }
    }
    None
}

/// What is owed to the registry, if the entry is a decision that holds still.
fn owed_decision(replica: &Replica, log: &PartitionLog, told: &Told) -> Option<OwedDecision> {
    let decision = told.entry.decision()?;
    let seen = log.look(|commits| -> Option<Sequence> {
        let state = commits.state().webhooks.get(&told.webhook)?;
        let holds = state.decided == Some(told.at.place);
        holds.then(|| state.latest().unwrap_or_default())
    })?;
    let project = replica
        .view
        .read(|registry| Some(registry.webhook(told.webhook)?.project))?;
    Some(OwedDecision {
        partition: log.partition,
        project,
        webhook: told.webhook,
        decision,
        decided: told.at,
        seen,
    })
}

async fn record(replica: &Replica, log: &PartitionLog, owed: &OwedDecision) {
    let clock = replica.clock.as_ref();
    decisions::record(&replica.view, clock, owed, || log.is_deposed()).await;
}

fn tell_event(replica: &Replica, events: &mpsc::Sender<Told>, told: Told) {
    if let Err(refused) = events.try_send(told) {
        replica.metrics.webhook_events_dropped.increment(1);
        tracing::error!(error = %refused, "an event about a webhook is given up");
    }
}

async fn publish_all(
    replica: Rc<Replica>,
    log: Rc<PartitionLog>,
    mut waiting: mpsc::Receiver<Told>,
) {
    while let Some(told) = waiting.recv().await {
        let project = replica
            .view
            .read(|registry| Some(registry.webhook(told.webhook)?.project));
        let now = replica.clock.now();
        let event = project
            .and_then(|project| webhook_events::webhook_event(log.partition, project, &told, now));
        if let Some(event) = event {
            events::publish(&replica.nats, log.partition, &event).await;
            replica.metrics.webhook_events.increment(1);
        }
    }
}
