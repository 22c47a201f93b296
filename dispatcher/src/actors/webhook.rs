//! The actor of one webhook: decode, step the core, carry out effects. It decides nothing.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorContext as _, AsyncContext as _, Context, Handler, Recipient, SpawnHandle,
};
use shared::domain::event::Event;
use shared::domain::webhook::Webhook;
use shared::ids::{PartitionId, ReplayId, Sequence, WebhookId};
use shared::subjects;

use super::backlog::{READ_RETRY, read_backlog};
use super::children::Ended;
use super::log::{GateOpened, PartitionLog};
use super::shared_state::{FRESH, Replica};
use crate::core::classify::ConfigHistory;
use crate::core::commits::Owed;
use crate::core::delivery::{
    Attempt, AttemptOutcome, Context as StepContext, Deliveries, Effect, Finished, Input, Offer,
    ReplayInput, Rules,
};
use crate::core::partition::{Stretch, owed};
use crate::io::events::{self, Fetched};
use crate::io::sender::{self, Sent};

/// Offers that may wait; beyond, the webhook reads the stream.
const MAILBOX: usize = 32;
/// How often an actor looks whether it has had nothing to do since the last time.
const REST_LOOK: Duration = Duration::from_secs(20);

pub(crate) struct WebhookActor {
    pub(super) replica: Rc<Replica>,
    pub(super) log: Rc<PartitionLog>,
    pub(super) webhook: Arc<Webhook>,
    pub(super) history: ConfigHistory,
    pub(super) core: Deliveries,
    /// Of live events that wait for their first attempt, within the replica's budget.
    bodies: HashMap<Sequence, Arc<Event>>,
    wake: Option<SpawnHandle>,
    waits_for_gate: bool,
    effects: Vec<Effect>,
    incarnation: u64,
    /// Attempts of this incarnation, which may outlive it.
    under_way: Rc<Cell<usize>>,
    /// Messages from the partition.
    pub(super) received: u64,
    /// How many there were at the last look.
    received_at_look: u64,
    /// Ordinal of the last entry that was pushed.
    pub(super) pushed: u64,
    rested: Recipient<Rested>,
    ended: Recipient<Ended>,
}

/// What an actor begins with.
pub(crate) struct Start {
    pub replica: Rc<Replica>,
    pub log: Rc<PartitionLog>,
    pub webhook: Arc<Webhook>,
    pub history: ConfigHistory,
    pub core: Deliveries,
    pub incarnation: u64,
    pub under_way: Rc<Cell<usize>>,
    pub rested: Recipient<Rested>,
    pub ended: Recipient<Ended>,
}

/// What the partition's scan found for the webhook.
#[derive(Clone, Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Offered {
    pub offer: Offer,
    pub events: Vec<Arc<Event>>,
    /// The configuration that classified it.
    pub registry_sequence: Option<Sequence>,
}

/// The configuration as it now stands, and how far the stream is known to reach.
#[derive(Clone, Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Update {
    pub webhook: Arc<Webhook>,
    pub history: ConfigHistory,
    pub rules: Rules,
    /// What is pending is to end.
    pub owed: Option<Owed>,
    pub known: Sequence,
}

/// The actor has nothing to do and may be let go.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Rested {
    pub webhook: WebhookId,
    pub incarnation: u64,
    /// Messages that had come by then.
    pub received: u64,
    /// What it pushed lies at or below.
    pub pushed: u64,
}

/// The partition is no longer run here. What came before is still handled.
#[derive(Clone, Copy, Debug, actix::Message)]
#[rtype(result = "()")]
pub(crate) struct Halt;

#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
pub(super) struct AttemptDone {
    sequence: Sequence,
    pub(super) sent: Sent,
    /// Of the event that was sent, for the end-to-end latency.
    pub(super) published_at: Option<shared::time::Timestamp>,
}

#[derive(Debug, actix::Message)]
#[rtype(result = "()")]
struct ReadDone(Option<Stretch>, Purpose);

/// What an attempt sends.
pub(super) struct Sending {
    pub sequence: Sequence,
    pub replay: Option<ReplayId>,
    /// Otherwise it is read now.
    pub body: Option<Arc<Event>>,
}

/// Which of the core's two reads.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Backlog,
    Again,
}

impl WebhookActor {
    pub(crate) fn new(start: Start) -> Self {
        Self {
            replica: start.replica,
            log: start.log,
            webhook: start.webhook,
            history: start.history,
            core: start.core,
            bodies: HashMap::new(),
            wake: None,
            waits_for_gate: false,
            effects: Vec::new(),
            incarnation: start.incarnation,
            under_way: start.under_way,
            received: 0,
            received_at_look: 0,
            pushed: 0,
            rested: start.rested,
            ended: start.ended,
        }
    }

    pub(super) fn step(&mut self, input: Input, ctx: &mut Context<Self>) {
        let now = self.log.now();
        let before = self.core.in_flight();
        let gate_is_open = self.log.gate_is_open(now) && !self.replica.draining.get();
        let context = StepContext {
            now,
            jitter: shared::random::number(),
            allowance: if gate_is_open {
                // What this input frees is free for its successor.
                let freed = usize::from(matches!(
                    input,
                    Input::Finished(_) | Input::Replay(ReplayInput::Finished(_))
                ));
                self.replica.slots.allowance(before.saturating_sub(freed))
            } else {
                0
            },
        };
        let mut effects = std::mem::take(&mut self.effects);
        self.core.step(input, &context, &mut effects);
        self.replica.slots.moved(before, self.core.in_flight());
        for effect in effects.drain(..) {
            self.perform(effect, context.now, ctx);
        }
        self.effects = effects;
        if gate_is_open {
            self.waits_for_gate = false;
        } else if !self.waits_for_gate && self.core.wants_more(context.now) {
            self.waits_for_gate = true;
            self.replica.metrics.gate_closed.increment(1);
            self.log.wait_for_gate(ctx.address().recipient());
        }
    }

    fn perform(&mut self, effect: Effect, now: shared::time::Timestamp, ctx: &mut Context<Self>) {
        match effect {
            Effect::Attempt(attempt) => self.attempt(attempt, ctx),
            Effect::Journal(entry) => {
                self.count_entry(&entry);
                self.pushed = self.log.push(entry);
            }
            Effect::ReadBacklog { after, known } => self.read(after, known, Purpose::Backlog, ctx),
            Effect::ReadAgain { after, through } => self.read(after, through, Purpose::Again, ctx),
            Effect::Replay(effect) => self.perform_replay(effect, ctx),
            Effect::WakeAt(at) => {
                if let Some(handle) = self.wake.take() {
                    ctx.cancel_future(handle);
                }
                let wait = u64::try_from(at.millis_since(now)).unwrap_or(0);
                self.wake = Some(ctx.run_later(Duration::from_millis(wait), |actor, ctx| {
                    actor.wake = None;
                    actor.step(Input::Tick, ctx);
                }));
            }
        }
    }

    /// Runs beside the actor, not in its context, which would poll every attempt at each wake.
    fn attempt(&mut self, attempt: Attempt, ctx: &mut Context<Self>) {
        let sequence = attempt.sequence;
        let sending = Sending {
            sequence,
            replay: None,
            body: self.take_body(sequence),
        };
        self.run(sending, ctx, move |sent, published_at| AttemptDone {
            sequence,
            sent,
            published_at,
        });
    }

    pub(super) fn run<M>(
        &self,
        sending: Sending,
        ctx: &mut Context<Self>,
        done: impl FnOnce(Sent, Option<shared::time::Timestamp>) -> M + 'static,
    ) where
        Self: Handler<M>,
        M: actix::Message<Result = ()> + Send + 'static,
    {
        let replica = Rc::clone(&self.replica);
        let webhook = Arc::clone(&self.webhook);
        // Held by the attempt alone: an actor that held itself would never end.
        let own = ctx.address();
        let log = Rc::clone(&self.log);
        let under_way = Rc::clone(&self.under_way);
        replica.metrics.attempts_in_flight.increment(1.0);
        under_way.set(under_way.get() + 1);
        log.attempts_moved(0, 1);
        actix_rt::spawn(async move {
            let (sent, published_at) = run_attempt(&replica, &log, &webhook, sending).await;
            replica.metrics.attempts_in_flight.decrement(1.0);
            under_way.set(under_way.get().saturating_sub(1));
            #[expect(
                clippy::disallowed_methods,
                reason = "a reply; bounded by max_in_flight"
            )]
            own.do_send(done(sent, published_at));
            // Only now: whoever waits for the last attempt waits for its outcome.
            log.attempts_moved(1, 0);
        });
    }

    fn read(
        &mut self,
        after: Sequence,
        known: Sequence,
        purpose: Purpose,
        ctx: &mut Context<Self>,
    ) {
        let replica = Rc::clone(&self.replica);
        let filter = subjects::events_of_project(self.partition(), self.webhook.project);
        let own = ctx.address();
        let (log, webhook) = (Rc::clone(&self.log), self.webhook.id);
        replica.metrics.backlog_reads.increment(1);
        actix_rt::spawn(async move {
            let stretch = read_backlog(&replica, &log, webhook, &filter, (after, known)).await;
            #[expect(clippy::disallowed_methods, reason = "a reply; one read at a time")]
            own.do_send(ReadDone(stretch, purpose));
        });
    }

    fn keep_bodies(&mut self, offer: &Offer, events: Vec<Arc<Event>>) {
        #[cfg(feature = "test-panics")]
        crate::panics::look_at(self.webhook.id, &events);
        for (owed, event) in offer.matches.iter().zip(events) {
            let bytes = event.body.len();
            if owed.skipped.is_none() && self.replica.bodies.take(owed.sequence, bytes) {
                let replaced = self.bodies.insert(owed.sequence, event);
                self.give_back(replaced.map(|event| (owed.sequence, event)));
            }
        }
    }

    fn take_body(&mut self, sequence: Sequence) -> Option<Arc<Event>> {
        let event = self.bodies.remove(&sequence)?;
        self.replica.bodies.give_back(sequence, event.body.len());
        Some(event)
    }

    fn give_back(&self, events: impl IntoIterator<Item = (Sequence, Arc<Event>)>) {
        for (sequence, event) in events {
            self.replica.bodies.give_back(sequence, event.body.len());
        }
    }

    /// Bodies of what the core did not take: they would be held for nothing.
    fn drop_unwanted_bodies(&mut self) {
        let unwanted: Vec<Sequence> = self
            .bodies
            .keys()
            .filter(|sequence| !self.core.holds(**sequence))
            .copied()
            .collect();
        for sequence in unwanted {
            self.take_body(sequence);
        }
    }

    pub(super) fn partition(&self) -> PartitionId {
        self.log.partition
    }

    /// Says that it may be let go, if nothing has happened since the last look.
    fn look_for_rest(&mut self, ctx: &mut Context<Self>) {
        let is_quiet = self.received == self.received_at_look && self.core.is_idle();
        self.received_at_look = self.received;
        if !is_quiet {
            return;
        }
        self.step(Input::Rest, ctx);
        let rested = Rested {
            webhook: self.webhook.id,
            incarnation: self.incarnation,
            received: self.received,
            pushed: self.pushed,
        };
        // A partition that is busy is told at the next look.
        let _full = self.rested.try_send(rested).is_err();
    }
}

/// One attempt with the body at hand, or with one that is read now.
async fn run_attempt(
    replica: &Replica,
    log: &PartitionLog,
    webhook: &Webhook,
    sending: Sending,
) -> (Sent, Option<shared::time::Timestamp>) {
    let unsent = |outcome| Sent {
        started_at: replica.clock.now(),
        latency: Duration::ZERO,
        outcome,
    };
    let event = match sending.body {
        Some(event) => event,
        None => {
            replica.metrics.events_fetched.increment(1);
            match events::fetch(&replica.nats, sending.sequence).await {
                Ok(Fetched::Event(event)) => event,
                Ok(Fetched::Gone(end)) => return (unsent(AttemptOutcome::Gone(end)), None),
                Err(error) => {
                    log.note(&error);
                    tracing::debug!(%error, "an event was not read");
                    tokio::time::sleep(READ_RETRY).await;
                    return (unsent(AttemptOutcome::NotStarted), None);
                }
            }
        }
    };
    // Closed never: the replica holds it.
    let turn = replica.fresh_turns.acquire().await;
    let data_key = || {
        replica.view.read(|state| {
            let project = state.project(webhook.project)?;
            project.data_key.clone()
        })
    };
    // Reading the event, or the wait, may have taken longer than the lease had left.
    if !log.is_ours() {
        return (unsent(AttemptOutcome::NotStarted), None);
    }
    if webhook.signers.is_none() {
        tokio::time::sleep(READ_RETRY).await;
        return (unsent(AttemptOutcome::NotStarted), None);
    }
    let clock = replica.clock.as_ref();
    let replay = sending.replay;
    let send = sender::send(&replica.client, clock, webhook, data_key, &event, replay);
    let mut send = std::pin::pin!(send);
    let sent = match tokio::time::timeout(FRESH, &mut send).await {
        Ok(sent) => sent,
        Err(_) => {
            drop(turn);
            send.await
        }
    };
    (sent, Some(event.published_at))
}

impl Actor for WebhookActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.replica.metrics.webhooks.increment(1.0);
        ctx.run_interval(REST_LOOK, Self::look_for_rest);
        // What was due while nobody owned the partition.
        self.step(Input::Tick, ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.replica.metrics.webhooks.decrement(1.0);
        let held = std::mem::take(&mut self.bodies);
        self.give_back(held);
        self.replica.slots.moved(self.core.in_flight(), 0);
        if std::thread::panicking() {
            self.replica.metrics.webhook_panics.increment(1);
            tracing::error!(
                webhook.id = %self.webhook.id,
                "the webhook's actor ended by a panic; it begins again from the log"
            );
            let ended = Ended {
                webhook: self.webhook.id,
                incarnation: self.incarnation,
            };
            self.ended.do_send(ended);
        }
    }
}

impl Handler<Offered> for WebhookActor {
    type Result = ();

    fn handle(&mut self, message: Offered, ctx: &mut Self::Context) {
        self.received += 1;
        // Classified by a configuration that has not arrived here: read it from the stream later.
        if message.registry_sequence > self.history.latest() {
            return;
        }
        self.keep_bodies(&message.offer, message.events);
        let offered: Vec<Sequence> = message
            .offer
            .matches
            .iter()
            .map(|owed| owed.sequence)
            .collect();
        self.step(Input::Offered(message.offer), ctx);
        // What the core has no room for, or will read again, is not held meanwhile.
        for sequence in offered {
            if !self.core.holds(sequence) {
                self.take_body(sequence);
            }
        }
    }
}

impl Handler<Update> for WebhookActor {
    type Result = ();

    fn handle(&mut self, message: Update, ctx: &mut Self::Context) {
        self.received += 1;
        let is_news = message.history.latest() > self.history.latest();
        // Before anything else: another input could start one more attempt.
        if let Some(owed) = message.owed {
            self.step(Input::EndPending(owed.through, owed.end), ctx);
            self.drop_unwanted_bodies();
        }
        let lifts = self.history.is_lifted_by(&message.history);
        // What an owner decided is no news of the registry's, and the core may have decided it
        // itself: what is read from here on is classified by it all the same.
        self.history = message.history;
        self.webhook = message.webhook;
        if is_news || self.core.status() != message.rules.status {
            let rules = Rules {
                lifts,
                ..message.rules
            };
            self.step(Input::Configured(rules), ctx);
        }
        let nudge = Offer {
            after: message.known,
            through: message.known,
            matches: Vec::new(),
        };
        self.step(Input::Offered(nudge), ctx);
    }
}

impl Handler<Halt> for WebhookActor {
    type Result = ();

    fn handle(&mut self, _: Halt, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<AttemptDone> for WebhookActor {
    type Result = ();

    fn handle(&mut self, message: AttemptDone, ctx: &mut Self::Context) {
        self.count_attempt(&message);
        let finished = Finished {
            sequence: message.sequence,
            started_at: message.sent.started_at,
            latency_ms: u32::try_from(message.sent.latency.as_millis()).unwrap_or(u32::MAX),
            outcome: message.sent.outcome,
        };
        let has_failed = matches!(finished.outcome, AttemptOutcome::Failed { .. });
        self.step(Input::Finished(finished), ctx);
        // A read beside the attempt may have brought the body once more; what waits for its retry
        // is read again when it is due, and a failure makes its lane forget others too.
        self.take_body(message.sequence);
        if has_failed {
            self.drop_unwanted_bodies();
        }
    }
}

impl Handler<ReadDone> for WebhookActor {
    type Result = ();

    fn handle(&mut self, ReadDone(stretch, purpose): ReadDone, ctx: &mut Self::Context) {
        let Some(stretch) = stretch else {
            self.step(Input::ReadFailed, ctx);
            return;
        };
        let (matches, events): (Vec<_>, Vec<_>) = stretch
            .events
            .into_iter()
            .filter_map(|(sequence, event)| {
                owed(&self.history, sequence, &event).map(|owed| (owed, event))
            })
            .unzip();
        let offer = Offer {
            after: stretch.after,
            through: stretch.through,
            matches,
        };
        self.keep_bodies(&offer, events);
        let input = match purpose {
            Purpose::Backlog => Input::BacklogRead(offer),
            Purpose::Again => Input::ReadAgain(offer),
        };
        self.step(input, ctx);
        self.drop_unwanted_bodies();
    }
}

impl Handler<GateOpened> for WebhookActor {
    type Result = ();

    fn handle(&mut self, _: GateOpened, ctx: &mut Self::Context) {
        self.waits_for_gate = false;
        self.step(Input::Tick, ctx);
    }
}
