//! The shell of one webhook: what its actor does with its mailbox, its reads and its attempts.

use std::collections::VecDeque;
use std::sync::Arc;

use dispatcher::core::classify::ConfigHistory;
use dispatcher::core::commits::Owed;
use dispatcher::core::delivery::{
    Attempt, AttemptOutcome, Context, Deliveries, Effect, Finished, Input, Offer, ReplayInput,
    ReplayTurn, Replayed, Rules,
};
use dispatcher::core::partition::{Stretch, owed};
use shared::domain::delivery::FailureKind;
use shared::domain::journal::{ExhaustReason, Failure, UnsentEnd};
use shared::domain::webhook::Webhook;
use shared::ids::{ReplayId, Sequence};
use shared::time::Timestamp;

use crate::checker::Checker;
use crate::owner::{Owner, read};
use crate::replica::{Host, OwnerWake, Wake};
use crate::settings::Plant;
use crate::world::{Happening, Post, World};

pub(crate) const READ_RETRY_MS: i64 = 500;
const REST_LOOK_MS: i64 = 20_000;
/// Attempts that may start in one step.
const ALLOWANCE: usize = 8;

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Offered {
        offer: Offer,
        registry_sequence: Option<Sequence>,
    },
    Update {
        webhook: Arc<Webhook>,
        history: ConfigHistory,
        rules: Rules,
        owed: Option<Owed>,
        known: Sequence,
    },
    GateOpened,
    Replay(ReplayInput),
}

#[derive(Clone, Debug)]
pub(crate) enum ChildWake {
    Mailbox,
    Started,
    Timer(u64),
    RestLook(u64),
    Read(Purpose, Sequence, Sequence),
    ReadFailed,
    Send(Attempt, Option<ReplayTurn>),
    NotSent(Attempt, Option<ReplayTurn>, AttemptOutcome),
    /// Counts what a replay matches or reads it from there on, once the log is stored so far.
    Look(ReplayId, Option<Sequence>, u64),
    Looked(ReplayInput),
}

/// Which of the core's two reads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    Backlog,
    Again,
}

pub(crate) struct Child {
    pub(crate) webhook: Arc<Webhook>,
    pub(crate) history: ConfigHistory,
    pub(crate) core: Deliveries,
    pub(crate) incarnation: u64,
    mailbox: VecDeque<Message>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) pushed: u64,
    timer: u64,
    waits_for_gate: bool,
    rest_looks: u64,
    rest_asked: bool,
    /// Says that it may be let go.
    pub(crate) has_rested: bool,
}

impl Child {
    pub(crate) fn new(
        webhook: Arc<Webhook>,
        history: ConfigHistory,
        core: Deliveries,
        incarnation: u64,
    ) -> Self {
        Self {
            webhook,
            history,
            core,
            incarnation,
            mailbox: VecDeque::new(),
            sent: 0,
            received: 0,
            pushed: 0,
            timer: 0,
            waits_for_gate: false,
            rest_looks: 0,
            rest_asked: false,
            has_rested: false,
        }
    }

    pub(crate) fn start(&mut self, owner: &Owner, host: &Host, world: &mut World) {
        let id = self.webhook.id;
        world.note(|| format!("{id} wakes"));
        self.ask(0, ChildWake::Started, owner, host, world);
    }

    pub(crate) fn has_mail(&self) -> bool {
        !self.mailbox.is_empty()
    }

    /// Whether there was room.
    pub(crate) fn receive(&mut self, message: Message, world: &World) -> bool {
        let has_room = self.mailbox.len() < world.settings.mailbox;
        if has_room {
            self.mailbox.push_back(message);
        }
        has_room
    }

    pub(crate) fn ask(
        &self,
        in_ms: i64,
        wake: ChildWake,
        owner: &Owner,
        host: &Host,
        world: &mut World,
    ) {
        let wake = OwnerWake::Child(self.webhook.id, self.incarnation, wake);
        world.wake(host.index, in_ms, Wake::Owner(owner.epoch, wake));
    }

    pub(crate) fn handle(
        &mut self,
        wake: ChildWake,
        owner: &mut Owner,
        host: &mut Host,
        world: &mut World,
    ) {
        match wake {
            ChildWake::Mailbox => {
                if let Some(message) = self.mailbox.pop_front() {
                    self.message(message, owner, host, world);
                }
            }
            ChildWake::Started => self.step(Input::Tick, owner, host, world),
            ChildWake::Timer(number) => {
                if number == self.timer {
                    self.step(Input::Tick, owner, host, world);
                }
            }
            ChildWake::RestLook(received) => self.look_for_rest(received, owner, host, world),
            ChildWake::Read(purpose, after, known) => {
                let stretch = read(world, (after, known), Some(self.webhook.project));
                self.was_read(purpose, stretch, owner, host, world);
            }
            ChildWake::ReadFailed => self.step(Input::ReadFailed, owner, host, world),
            ChildWake::Send(attempt, turn) => self.send(attempt, turn, owner, host, world),
            ChildWake::NotSent(attempt, turn, outcome) => {
                owner.under_way = owner.under_way.saturating_sub(1);
                let finished = Finished {
                    sequence: attempt.sequence,
                    started_at: host.wall(world),
                    latency_ms: 0,
                    outcome,
                };
                self.step(ended(finished, turn), owner, host, world);
            }
            ChildWake::Look(replay, after, pushed) => {
                self.look(replay, after, pushed, owner, host, world);
            }
            ChildWake::Looked(input) => self.step(Input::Replay(input), owner, host, world),
        }
        self.ask_for_rest(owner, host, world);
    }

    fn message(&mut self, message: Message, owner: &mut Owner, host: &mut Host, world: &mut World) {
        match message {
            Message::Replay(input) => {
                self.received += 1;
                self.step(Input::Replay(input), owner, host, world);
            }
            Message::GateOpened => {
                self.waits_for_gate = false;
                self.step(Input::Tick, owner, host, world);
            }
            Message::Offered {
                mut offer,
                registry_sequence,
            } => {
                self.received += 1;
                if registry_sequence > self.history.latest() {
                    return;
                }
                if world.settings.plants(Plant::OfferRangesUnchecked) {
                    offer.after = Sequence(0);
                }
                self.step(Input::Offered(offer), owner, host, world);
            }
            Message::Update {
                webhook,
                history,
                rules,
                owed,
                known,
            } => {
                self.received += 1;
                let is_news = history.latest() > self.history.latest();
                if let Some(owed) = owed {
                    let input = Input::EndPending(owed.through, owed.end);
                    self.step(input, owner, host, world);
                }
                let lifts = self.history.is_lifted_by(&history);
                self.history = history;
                self.webhook = webhook;
                if is_news || self.core.status() != rules.status {
                    let rules = Rules { lifts, ..rules };
                    self.step(Input::Configured(rules), owner, host, world);
                }
                let nudge = Offer {
                    after: known,
                    through: known,
                    matches: Vec::new(),
                };
                self.step(Input::Offered(nudge), owner, host, world);
            }
        }
    }

    fn step(&mut self, input: Input, owner: &mut Owner, host: &mut Host, world: &mut World) {
        let now = owner.now(host, world);
        let gate_is_open = owner.gate_is_open(host, world);
        let context = Context {
            now,
            jitter: world.chance.number(),
            allowance: if gate_is_open { ALLOWANCE } else { 0 },
        };
        let mut effects = Vec::new();
        self.core.step(input, &context, &mut effects);
        for effect in effects {
            self.perform(effect, now, owner, host, world);
        }
        if gate_is_open {
            self.waits_for_gate = false;
        } else if !self.waits_for_gate && self.core.wants_more(now) {
            self.waits_for_gate = true;
            owner.waiting.insert(self.webhook.id);
        }
    }

    fn perform(
        &mut self,
        effect: Effect,
        now: Timestamp,
        owner: &mut Owner,
        host: &mut Host,
        world: &mut World,
    ) {
        match effect {
            Effect::Attempt(attempt) => {
                owner.under_way += 1;
                let in_ms = if world.misfortune(100) {
                    world.chance.within(0, 3_000)
                } else {
                    world.chance.within(0, 3)
                };
                let is_probe = self.core.health().is_open();
                Checker::decided(
                    world,
                    owner.epoch,
                    self.webhook.id,
                    attempt,
                    (now, is_probe),
                );
                self.ask(in_ms, ChildWake::Send(attempt, None), owner, host, world);
            }
            Effect::Replay(effect) => self.perform_replay(effect, now, owner, host, world),
            Effect::Journal(entry) => self.pushed = owner.push(entry, host, world),
            Effect::ReadBacklog { after, known } => {
                let in_ms = world.chance.within(1, 60);
                let wake = ChildWake::Read(Purpose::Backlog, after, known);
                self.ask(in_ms, wake, owner, host, world);
            }
            Effect::ReadAgain { after, through } => {
                let in_ms = world.chance.within(1, 60);
                let wake = ChildWake::Read(Purpose::Again, after, through);
                self.ask(in_ms, wake, owner, host, world);
            }
            Effect::WakeAt(at) => {
                self.timer += 1;
                let in_ms = at.millis_since(now).max(0);
                self.ask(in_ms, ChildWake::Timer(self.timer), owner, host, world);
            }
        }
    }

    fn was_read(
        &mut self,
        purpose: Purpose,
        stretch: Option<Stretch>,
        owner: &mut Owner,
        host: &mut Host,
        world: &mut World,
    ) {
        let first = Sequence(world.events.first());
        let owes = owner.commits.pending(self.webhook.id) > 0;
        // What is pending in what was dropped must end before it is passed over.
        let stretch = stretch.filter(|read| first <= read.after.next() || !owes);
        let Some(stretch) = stretch else {
            self.ask(READ_RETRY_MS, ChildWake::ReadFailed, owner, host, world);
            return;
        };
        let history = &self.history;
        let matches = stretch.events.iter();
        let offer = Offer {
            after: stretch.after,
            through: stretch.through,
            matches: matches
                .filter_map(|(sequence, event)| owed(history, *sequence, event))
                .collect(),
        };
        let input = match purpose {
            Purpose::Backlog => Input::BacklogRead(offer),
            Purpose::Again => Input::ReadAgain(offer),
        };
        self.step(input, owner, host, world);
    }

    /// The last look before a POST: whether the event is there, and whether it may be sent.
    fn send(
        &mut self,
        attempt: Attempt,
        turn: Option<ReplayTurn>,
        owner: &mut Owner,
        host: &mut Host,
        world: &mut World,
    ) {
        let lags = world.settings.fetch_lags;
        let unsent = if world.logs_are_away() {
            Some((READ_RETRY_MS, AttemptOutcome::NotStarted))
        } else if world.events.fetch(attempt.sequence.0).is_none()
            || (world.misfortune(lags) && world.settings.plants(Plant::NotFoundTakenForExpired))
        {
            let gone = UnsentEnd::Exhausted(ExhaustReason::Expired);
            Some((0, AttemptOutcome::Gone(gone)))
        } else if !owner.may_send(host, world) {
            Some((0, AttemptOutcome::NotStarted))
        } else {
            None
        };
        if let Some((in_ms, outcome)) = unsent {
            self.ask(
                in_ms,
                ChildWake::NotSent(attempt, turn, outcome),
                owner,
                host,
                world,
            );
            return;
        }
        let event = world
            .events
            .fetch(attempt.sequence.0)
            .expect("it was there a moment ago");
        assert_eq!(event.id, attempt.event, "another event than was decided");
        let post = Post {
            process: host.index,
            epoch: owner.epoch,
            webhook: self.webhook.id,
            incarnation: self.incarnation,
            sequence: attempt.sequence.0,
            replay: turn,
            lane: event.lane,
            sent_at: world.now,
            timeout_ms: i64::from(self.webhook.definition.policy.timeout_ms),
            arrived_at: None,
            succeeded_at: None,
            ended: None,
        };
        let timeout_ms = post.timeout_ms;
        let index = world.posts.len();
        world.posts.push(post);
        Checker::sent(world, index, host);
        let (reaches, slow) = (!world.misfortune(30), world.misfortune(50));
        if reaches {
            let most = if slow { timeout_ms - 1 } else { 30 };
            let in_ms = world.chance.within(1, most);
            world.at(in_ms, Happening::PostArrives(index));
        }
        let timeout = AttemptOutcome::Failed {
            failure: Failure {
                kind: FailureKind::Timeout,
                status: None,
                sealed_answer: Vec::new(),
            },
            retry_after_ms: None,
        };
        world.wake(host.index, timeout_ms, Wake::PostEnded(index, timeout));
    }

    pub(crate) fn finished(
        &mut self,
        post: usize,
        outcome: AttemptOutcome,
        owner: &mut Owner,
        host: &mut Host,
        world: &mut World,
    ) {
        let (sequence, sent_at) = (world.posts[post].sequence, world.posts[post].sent_at);
        let latency = world.now - sent_at;
        let finished = Finished {
            sequence: Sequence(sequence),
            started_at: host.wall(world).plus_millis(-latency),
            latency_ms: u32::try_from(latency).unwrap(),
            outcome,
        };
        let turn = world.posts[post].replay;
        self.step(ended(finished, turn), owner, host, world);
        self.ask_for_rest(owner, host, world);
    }

    fn ask_for_rest(&mut self, owner: &Owner, host: &Host, world: &mut World) {
        if !self.rest_asked && self.core.is_idle() {
            self.rest_asked = true;
            self.rest_looks += 1;
            let wake = ChildWake::RestLook(self.received);
            self.ask(REST_LOOK_MS, wake, owner, host, world);
        }
    }

    fn look_for_rest(
        &mut self,
        received: u64,
        owner: &mut Owner,
        host: &mut Host,
        world: &mut World,
    ) {
        self.rest_asked = false;
        if self.received == received && self.core.is_idle() {
            self.step(Input::Rest, owner, host, world);
            self.has_rested = true;
        }
    }
}

/// The end of an attempt, as the core is told of it.
fn ended(finished: Finished, turn: Option<ReplayTurn>) -> Input {
    match turn {
        Some(turn) => Input::Replay(ReplayInput::Finished(Replayed {
            turn,
            started_at: finished.started_at,
            latency_ms: finished.latency_ms,
            outcome: finished.outcome,
        })),
        None => Input::Finished(finished),
    }
}
