//! Virtual time: one queue, one source of chance, one thread. What happens at the same moment
//! happens in the order in which it was asked for.

use std::collections::{BTreeMap, VecDeque};

use dispatcher::core::delivery::ReplayTurn;
use shared::domain::replay::ReplaySelection;
use shared::ids::{LaneHash, ReplayId, WebhookId};

use crate::checker::Checker;
use crate::endpoint::Endpoint;
use crate::replica::{Process, Wake};
use crate::settings::{Plant, Settings};
use crate::streams::{Append, Appended, Events, Journal, Refused, Registry, Snapshots, Subject};
use crate::workload::Workload;

/// Chance, reproducible by its seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0, below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// From `low` through `high`.
    pub(crate) fn within(&mut self, low: i64, high: i64) -> i64 {
        let span = u64::try_from(high - low + 1).unwrap();
        low + i64::try_from(self.below(span)).unwrap()
    }

    pub(crate) fn per_mille(&mut self, of: u64) -> bool {
        self.below(1_000) < of
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// What is to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    Publish,
    Command,
    Replay,
    /// A registry append that was decided before.
    Decided(usize),
    Fault,
    FaultsEnd,
    /// An append reaches the server; whoever waits for the answer, under which token.
    Arrives(Append, Option<(usize, u64)>),
    PostArrives(usize),
    Process(usize, Wake),
    /// A new process starts.
    Start,
    /// All processes stand still for so long.
    Stall(i64),
    Look,
}

/// One POST, from the sender's and the receiver's side.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    pub(crate) process: usize,
    pub(crate) epoch: u64,
    pub(crate) webhook: WebhookId,
    pub(crate) incarnation: u64,
    pub(crate) sequence: u64,
    pub(crate) replay: Option<ReplayTurn>,
    pub(crate) lane: LaneHash,
    pub(crate) sent_at: i64,
    pub(crate) timeout_ms: i64,
    pub(crate) arrived_at: Option<i64>,
    /// When a success was on its way back.
    pub(crate) succeeded_at: Option<i64>,
    /// When the sender knew how it ended, and whether that was success.
    pub(crate) ended: Option<(i64, bool)>,
}

pub(crate) struct World {
    pub(crate) chance: Chance,
    /// Milliseconds.
    pub(crate) now: i64,
    queue: BTreeMap<(i64, u64), Happening>,
    asked: u64,
    pub(crate) settings: Settings,
    pub(crate) faulty: bool,
    pub(crate) events: Events,
    pub(crate) journal: Journal,
    pub(crate) registry: Registry,
    pub(crate) snapshots: Snapshots,
    pub(crate) endpoints: BTreeMap<WebhookId, Endpoint>,
    pub(crate) workload: Workload,
    pub(crate) replays_asked: Vec<(WebhookId, ReplayId, ReplaySelection)>,
    pub(crate) posts: Vec<Post>,
    pub(crate) checker: Checker,
    /// One is taken out while it acts.
    processes: Vec<Option<Process>>,
    /// Times during which JetStream's logs take nothing, and membership cannot be renewed.
    pub(crate) log_outages: Vec<(i64, i64)>,
    pub(crate) membership_outages: Vec<(i64, i64)>,
    /// When the last pause of a process ends.
    pub(crate) stood_still_until: i64,
    trace: Option<VecDeque<String>>,
}

const TRACE_LINES: usize = 160;
/// Virtual time begins here, so that nothing is before 1970.
pub(crate) const START_MS: i64 = 1_750_000_000_000;
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
/// After the faults have ended, all is delivered, skipped or exhausted within this: the longest
/// `Retry-After` and the longest wait of a schedule, jitter included.
const LIVENESS_MS: i64 = 60 * HOUR;

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Plant>, traced: bool) -> Self {
        let mut chance = Chance::new(seed);
        let settings = Settings::draw(&mut chance, plant);
        Self::of(settings, chance, traced)
    }

    pub(crate) fn of(settings: Settings, mut chance: Chance, traced: bool) -> Self {
        let workload = Workload::draw(&mut chance, &settings);
        let mut world = Self {
            chance,
            now: START_MS,
            queue: BTreeMap::new(),
            asked: 0,
            faulty: true,
            events: Events::new(settings.age_max_ms),
            journal: Journal::new(settings.refuses_before_duplicates),
            registry: Registry::default(),
            snapshots: Snapshots::default(),
            endpoints: BTreeMap::new(),
            workload,
            replays_asked: Vec::new(),
            posts: Vec::new(),
            checker: Checker::default(),
            processes: Vec::new(),
            log_outages: Vec::new(),
            membership_outages: Vec::new(),
            stood_still_until: 0,
            trace: traced.then(VecDeque::new),
            settings,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for _ in 0..self.settings.processes {
            self.at(0, Happening::Start);
        }
        let span = self.settings.span_ms;
        for _ in 0..self.settings.webhooks {
            let is_drawn = self.settings.scene.is_none();
            let at = self.chance.within(0, if is_drawn { span / 8 } else { 0 });
            self.at(at, Happening::Command);
        }
        let commands = self.settings.commands;
        for _ in 0..commands {
            let at = self.chance.within(0, span);
            self.at(at, Happening::Command);
        }
        if let Some(scene) = self.settings.scene.clone() {
            for at in scene.published_ms {
                self.at(at, Happening::Publish);
            }
            if let Some((from, until)) = scene.stall_ms {
                self.at(from, Happening::Stall(until - from));
            }
        }
        let replays = self.settings.replays;
        for _ in 0..replays {
            let at = self.chance.within(span / 8, span);
            self.at(at, Happening::Replay);
        }
        let events = self.settings.events;
        let mut at = 0;
        for _ in 0..events {
            // Bursts, and pauses between them.
            if self.chance.per_mille(250) {
                at = self.chance.within(0, span);
            }
            self.at(at, Happening::Publish);
        }
        for _ in 0..self.settings.faults {
            let at = self.chance.within(0, span);
            self.at(at, Happening::Fault);
        }
        self.at(span, Happening::FaultsEnd);
    }

    pub(crate) fn at(&mut self, in_ms: i64, what: Happening) {
        self.asked += 1;
        self.queue.insert((self.now + in_ms, self.asked), what);
    }

    pub(crate) fn wake(&mut self, process: usize, in_ms: i64, wake: Wake) {
        self.at(in_ms, Happening::Process(process, wake));
    }

    pub(crate) fn traces(&self) -> bool {
        self.trace.is_some()
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        let at = self.now - START_MS;
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_LINES {
                trace.pop_front();
            }
            trace.push_back(format!("{at:>12} {}", line()));
        }
    }

    pub(crate) fn trace(&self) -> impl Iterator<Item = &String> {
        self.trace.iter().flatten()
    }

    /// A chance that comes true only while faults are composed.
    pub(crate) fn misfortune(&mut self, per_mille: u64) -> bool {
        self.faulty && self.chance.per_mille(per_mille)
    }

    /// Takes the next step; `false` when all has come to rest.
    pub(crate) fn step(&mut self) -> bool {
        let Some(((at, _), what)) = self.queue.pop_first() else {
            assert!(
                self.has_come_to_rest(),
                "nothing happens any more: {}",
                self.unrest()
            );
            return false;
        };
        self.now = at;
        self.events.age(at);
        Checker::time_passed(self);
        match what {
            Happening::Publish => Workload::publish(self),
            Happening::Command => Workload::command(self),
            Happening::Replay => crate::replaying::command(self),
            Happening::Decided(index) => Workload::decided(self, index),
            Happening::Fault => crate::faults::happen(self),
            Happening::FaultsEnd => self.end_faults(),
            Happening::Arrives(append, reply) => self.arrives(&append, reply),
            Happening::PostArrives(post) => crate::endpoint::arrives(self, post),
            Happening::Process(index, wake) => self.process(index, wake),
            Happening::Start => self.start(),
            Happening::Stall(length) => crate::faults::stall(self, length),
            Happening::Look => return self.look(),
        }
        true
    }

    fn process(&mut self, index: usize, wake: Wake) {
        let Some(mut process) = self.processes[index].take() else {
            return;
        };
        if process.is_alive() {
            if let Some(until) = process.paused_until(self.now) {
                self.wake(index, until - self.now, wake);
            } else {
                process.handle(wake, self);
            }
        }
        self.processes[index] = Some(process);
    }

    pub(crate) fn start(&mut self) {
        let index = self.processes.len();
        let process = Process::start(index, self);
        self.processes.push(Some(process));
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().flatten()
    }

    pub(crate) fn process_mut(&mut self, index: usize) -> Option<&mut Process> {
        self.processes[index].as_mut()
    }

    /// Indexes of those that have not ended, the acting one included.
    pub(crate) fn alive(&self) -> Vec<usize> {
        let is_alive = |process: &Option<Process>| process.as_ref().is_none_or(Process::is_alive);
        (0..self.processes.len())
            .filter(|index| is_alive(&self.processes[*index]))
            .collect()
    }

    /// Whether some process stood still since.
    pub(crate) fn has_paused(&self, since: i64) -> bool {
        self.stood_still_until > since
    }

    pub(crate) fn logs_are_away(&self) -> bool {
        within(&self.log_outages, self.now)
    }

    fn arrives(&mut self, append: &Append, reply: Option<(usize, u64)>) {
        if self.logs_are_away() {
            return;
        }
        let busy = self.settings.busy;
        let outcome = if self.misfortune(busy) {
            Err(Refused::Busy)
        } else {
            self.journal.append(self.now, append)
        };
        self.note(|| format!("journal {}: {outcome:?}", append.id));
        if let Ok(Appended {
            sequence,
            is_duplicate: false,
        }) = outcome
        {
            Checker::stored(self, sequence);
            self.stored_wakes(append);
        }
        let Some((process, token)) = reply else {
            return;
        };
        let lost = self.settings.ack_lost;
        if !self.misfortune(lost) {
            let in_ms = self.chance.within(0, 4);
            self.wake(process, in_ms, Wake::AppendAnswered(token, outcome));
        }
    }

    /// What somebody waits for may be in the log now.
    fn stored_wakes(&mut self, append: &Append) {
        if append.may_release || append.subject == Subject::Epoch {
            for index in self.alive() {
                let in_ms = self.chance.within(10, 1_000);
                self.wake(index, in_ms, Wake::Ownership);
            }
        }
    }

    fn end_faults(&mut self) {
        self.note(|| "faults end".into());
        self.faulty = false;
        let now = self.now;
        for outage in self
            .log_outages
            .iter_mut()
            .chain(&mut self.membership_outages)
        {
            outage.1 = outage.1.min(now);
        }
        for process in self.processes.iter_mut().flatten() {
            process.end_faults(now);
        }
        for endpoint in self.endpoints.values_mut() {
            endpoint.recover();
        }
        if self.alive().is_empty() {
            self.start();
        }
        Workload::verify_all(self);
        for index in self.alive() {
            for seconds in [1, 5, 40] {
                self.wake(index, seconds * SECOND, Wake::Ownership);
                self.wake(index, seconds * SECOND, Wake::Registry);
                self.wake(index, seconds * SECOND, Wake::Tail);
            }
        }
        self.at(MINUTE, Happening::Look);
    }

    fn look(&mut self) -> bool {
        if self.has_come_to_rest() {
            Checker::at_rest(self);
            return false;
        }
        let since = self.now - START_MS - self.settings.span_ms;
        assert!(
            since < LIVENESS_MS,
            "does not come to rest: {}",
            self.unrest()
        );
        self.at(MINUTE.max(since / 2), Happening::Look);
        true
    }

    fn has_come_to_rest(&self) -> bool {
        let owners = self.processes().filter(|process| process.owns()).count();
        owners == 1
            && self
                .processes()
                .all(|process| process.has_come_to_rest(self))
            && self.checker.pending() == 0
            && self.checker.replays_at_work(&self.registry) == 0
            && self.checker.knows_all(&self.registry)
    }

    fn unrest(&self) -> String {
        let owners: Vec<String> = self.processes().filter_map(Process::describe).collect();
        format!(
            "{} pending, replays {:?}, classified {} of {}, knows all {}, owners {owners:?}",
            self.checker.describe_pending(),
            self.checker.describe_replays(),
            self.checker.classified(),
            self.events.last_ours(),
            self.checker.knows_all(&self.registry),
        )
    }
}

pub(crate) fn within(times: &[(i64, i64)], now: i64) -> bool {
    times
        .iter()
        .any(|(from, until)| (*from..*until).contains(&now))
}
