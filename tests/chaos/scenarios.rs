//! What is done while events go through, and what has to hold besides the invariants.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use shared::subjects;
use shared::time::{Clock as _, SystemClock, Timestamp};
use support::checker::{FaultKind, Records, State, check, takeovers};
use support::eventually::eventually;
use support::nats::SyncInterval;
use support::proxy::{Network, Silence};
use support::receiver::Answer;
use support::run::{Audience, Paths, Plan, Progress, Run, STREAMS, Size};
use tokio::time::sleep;

use crate::arguments::Arguments;
use crate::chance::Chance;
use crate::faults::{self, Target};
use crate::outcome::{Outcome, Times};

/// Longer than the membership of 3 s.
const PAUSE_MS: (u64, u64) = (4_000, 8_000);
/// Membership and takeover, with time to deliver again.
const TAKEN_OVER: Duration = Duration::from_secs(8);
const TAKEOVER_MS_MAX: i64 = 5_000;
const LEADER_MS_MAX: i64 = 2_000;
/// A former owner that wakes has outcomes to journal at once.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);
const AGAIN_WITHIN: Duration = Duration::from_secs(60);
/// Everything delivered after the last fault, however much it is.
const DELIVERED_WITHIN: Duration = Duration::from_secs(240);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Storm,
    Takeover,
    Leader,
    Rolling,
    Cuts,
    Single,
    Stale,
}

impl Scenario {
    pub(crate) const ALL: [Self; 7] = [
        Self::Storm,
        Self::Takeover,
        Self::Leader,
        Self::Rolling,
        Self::Cuts,
        Self::Single,
        Self::Stale,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Storm => "storm",
            Self::Takeover => "takeover",
            Self::Leader => "leader",
            Self::Rolling => "rolling",
            Self::Cuts => "cuts",
            Self::Single => "single",
            Self::Stale => "stale",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is measured while it happens.
#[derive(Default)]
struct Measured {
    /// When a stream took publishes again.
    publishes_again: Vec<Timestamp>,
    /// Packs of former owners that JOURNAL refused.
    packs_refused: u64,
}

pub(crate) async fn run(scenario: Scenario, arguments: &Arguments) -> Result<Outcome> {
    let clock = SystemClock::new();
    let size = Size {
        dispatchers: arguments.dispatchers,
        dispatcher: match scenario {
            Scenario::Stale => "dispatcher-no-lease",
            _ => "dispatcher",
        },
        ingests: 2,
        servers: match scenario {
            Scenario::Single => 1,
            _ => arguments.servers,
        },
        sync: SyncInterval::Default,
        paths: match scenario {
            Scenario::Cuts => Paths::Proxied,
            _ => Paths::Direct,
        },
    };
    let audience = Audience {
        projects: arguments.projects,
        webhooks: arguments.webhooks,
        // Short waits, so that a run in which some attempts fail comes to its end.
        policy: json!({ "retry_schedule_ms": vec![1_000; 20] }),
    };
    let mut run = Run::start(&size, &audience).await?;
    misbehave(&run, scenario);
    let load = run.load(plan(scenario, arguments))?;
    let progress = Progress::default();
    let mut measured = Measured::default();
    let (sent, done) = tokio::join!(load.send(&progress), async {
        let done = act(scenario, arguments, &mut run, &progress, &mut measured).await;
        if scenario != Scenario::Storm || done.is_err() {
            progress.stop();
        }
        done
    });
    sent?;
    done?;
    let all_delivered = run.delivered(progress.accepted(), DELIVERED_WITHIN).await;
    let refused_requests = progress.refused();
    let records = run.records(progress.answers(), State::Quiet).await?;
    let mut outcome = Outcome {
        scenario: scenario.to_string(),
        seed: arguments.seed,
        dispatchers: size.dispatchers,
        servers: size.servers,
        projects: arguments.projects,
        webhooks_each: arguments.webhooks,
        seconds: clock.elapsed().as_secs_f64(),
        faults: summary(&records),
        refused_requests,
        checked: check(&records),
        times: Vec::new(),
        packs_refused: None,
        missed: Vec::new(),
    };
    if !all_delivered {
        outcome
            .missed
            .push("not everything was delivered in time".into());
    }
    judge(scenario, &records, &measured, &mut outcome);
    Ok(outcome)
}

/// The storm has a fixed number of events; elsewhere they go on for as long as the faults do.
fn plan(scenario: Scenario, arguments: &Arguments) -> Plan {
    match scenario {
        Scenario::Storm => Plan {
            events: arguments.scaled(1_000, 20),
            keys: arguments.scaled(100, 5),
            batch: 10,
            pace: Duration::from_millis(800),
        },
        Scenario::Takeover
        | Scenario::Leader
        | Scenario::Rolling
        | Scenario::Cuts
        | Scenario::Single
        | Scenario::Stale => Plan {
            events: 20_000,
            keys: 10,
            batch: 1,
            pace: Duration::from_millis(250),
        },
    }
}

/// Some requests fail and some take their time, but in a rolling restart nothing is repeated.
fn misbehave(run: &Run, scenario: Scenario) {
    let mut chance = Chance::new(7);
    let fails = scenario != Scenario::Rolling;
    run.recorder.answer(move |arrival| {
        // A former owner is to have something under way when it wakes.
        let delay = match scenario {
            Scenario::Stale => chance.millis(200, 600),
            _ => chance.millis(0, 10),
        };
        let status = match arrival.number == 1 && fails && chance.below(100) == 0 {
            true => 500,
            false => 204,
        };
        Answer::status(status).after(delay)
    });
}

async fn act(
    scenario: Scenario,
    arguments: &Arguments,
    run: &mut Run,
    progress: &Progress,
    measured: &mut Measured,
) -> Result<()> {
    let mut chance = Chance::new(arguments.seed);
    match scenario {
        Scenario::Storm => storm(arguments, run, progress, &mut chance).await,
        Scenario::Takeover => takeover(arguments, run, &mut chance).await,
        Scenario::Leader => leader(arguments, run, progress, measured).await,
        Scenario::Rolling => rolling(arguments, run).await,
        Scenario::Cuts => cuts(arguments, run, &mut chance).await,
        Scenario::Single => single(arguments, run, &mut chance).await,
        Scenario::Stale => stale(arguments, run, measured).await,
    }
}

#[derive(Clone, Copy)]
enum Blow {
    KillDispatcher,
    PauseDispatcher,
    AddDispatcher,
    KillLeader(&'static str),
    PauseServer,
    KillIngest,
    PauseIngest,
}

/// Each blow at least once, and for as long as events are sent.
async fn storm(
    arguments: &Arguments,
    run: &mut Run,
    progress: &Progress,
    chance: &mut Chance,
) -> Result<()> {
    let total = plan(Scenario::Storm, arguments).events * arguments.projects;
    let mut rounds = 0;
    while rounds == 0 || progress.accepted() < total {
        let mut blows = vec![
            Blow::KillDispatcher,
            Blow::PauseDispatcher,
            Blow::KillDispatcher,
            Blow::KillIngest,
            Blow::PauseIngest,
        ];
        if arguments.servers == 3 {
            let of_leaders = [subjects::EVENTS, subjects::JOURNAL].map(Blow::KillLeader);
            blows.extend(of_leaders);
            blows.push(Blow::PauseServer);
        }
        if rounds == 0 && arguments.dispatchers > 1 {
            blows.push(Blow::AddDispatcher);
        }
        chance.shuffle(&mut blows);
        for blow in blows {
            sleep(chance.millis(500, 2_000)).await;
            strike(run, blow, chance).await?;
        }
        rounds += 1;
        if rounds > 20 {
            bail!(
                "{} of {total} events after {rounds} rounds",
                progress.accepted()
            );
        }
    }
    Ok(())
}

async fn strike(run: &mut Run, blow: Blow, chance: &mut Chance) -> Result<()> {
    let dispatcher = Target::Dispatcher(chance.below(run.fleet.dispatchers.len()));
    let ingest = Target::Ingest(chance.below(run.fleet.ingests.len()));
    let down = chance.millis(0, 5_000);
    match blow {
        Blow::KillDispatcher => faults::kill(run, dispatcher, down).await,
        Blow::PauseDispatcher => {
            let stopped = chance.millis(PAUSE_MS.0, PAUSE_MS.1);
            faults::pause(run, dispatcher, stopped).await
        }
        Blow::AddDispatcher => faults::add_dispatcher(run).await,
        Blow::KillLeader(stream) => {
            let server = faults::kill_leader(run, stream).await?;
            sleep(chance.millis(3_000, 8_000)).await;
            faults::restart_server(run, server).await
        }
        Blow::PauseServer => {
            let server = chance.below(run.fleet.nats.len());
            faults::pause_server(run, server, chance.millis(1_000, 4_000)).await
        }
        Blow::KillIngest => faults::kill(run, ingest, chance.millis(0, 2_000)).await,
        Blow::PauseIngest => faults::pause(run, ingest, chance.millis(1_000, 4_000)).await,
    }
}

/// Ten times the owner of some project's partition.
async fn takeover(arguments: &Arguments, run: &mut Run, chance: &mut Chance) -> Result<()> {
    let down = match arguments.dispatchers {
        1 => Duration::ZERO,
        _ => TAKEN_OVER,
    };
    for _ in 0..arguments.scaled(10, 2) {
        sleep(chance.millis(2_000, 3_000)).await;
        let owner = run.owner_of(chance.below(arguments.projects)).await?;
        faults::kill(run, Target::Dispatcher(owner), down).await?;
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_secs(2)).await;
    Ok(())
}

async fn leader(
    arguments: &Arguments,
    run: &mut Run,
    progress: &Progress,
    measured: &mut Measured,
) -> Result<()> {
    if arguments.servers != 3 {
        bail!("a stream without replicas has no other leader: use --servers 3");
    }
    let streams = [subjects::EVENTS, subjects::JOURNAL].into_iter().cycle();
    for stream in streams.take(arguments.scaled(4, 1)) {
        sleep(Duration::from_secs(2)).await;
        let killed = faults::kill_leader(run, stream).await?;
        let before = progress.accepted();
        eventually("publishes after the election", AGAIN_WITHIN, async || {
            for stream in STREAMS {
                let leader = run.fleet.nats.leader_of(stream).await;
                if leader.is_none_or(|leader| leader == killed) {
                    return Err(format!("{stream} is led by {leader:?}"));
                }
            }
            (progress.accepted() > before)
                .then_some(())
                .ok_or_else(|| "nothing is accepted".to_owned())
        })
        .await?;
        measured.publishes_again.push(run.now());
        sleep(Duration::from_secs(4)).await;
        faults::restart_server(run, killed).await?;
    }
    Ok(())
}

async fn rolling(arguments: &Arguments, run: &mut Run) -> Result<()> {
    for _ in 0..arguments.scaled(2, 1) {
        let dispatchers = (0..run.fleet.dispatchers.len()).map(Target::Dispatcher);
        let ingests = (0..run.fleet.ingests.len()).map(Target::Ingest);
        for target in dispatchers.chain(ingests) {
            sleep(Duration::from_secs(1)).await;
            faults::roll(run, target).await?;
        }
    }
    sleep(Duration::from_secs(1)).await;
    Ok(())
}

async fn cuts(arguments: &Arguments, run: &mut Run, chance: &mut Chance) -> Result<()> {
    let networks = [
        Network::Cut,
        Network::Silent(Silence::Both),
        Network::Silent(Silence::ToServer),
        Network::Silent(Silence::ToClient),
        Network::Slow(Duration::from_millis(100)),
    ];
    for _ in 0..arguments.scaled(1, 1) {
        for network in networks {
            for target in [
                Target::Dispatcher(chance.below(run.fleet.dispatchers.len())),
                Target::Ingest(chance.below(run.fleet.ingests.len())),
            ] {
                sleep(chance.millis(1_000, 2_000)).await;
                faults::network(run, target, network, chance.millis(2_000, 7_000)).await?;
            }
        }
    }
    Ok(())
}

async fn single(arguments: &Arguments, run: &mut Run, chance: &mut Chance) -> Result<()> {
    for _ in 0..arguments.scaled(3, 1) {
        sleep(chance.millis(2_000, 4_000)).await;
        run.fault(FaultKind::Other, "the server killed", None);
        run.fleet.nats.server(0)?.kill();
        sleep(chance.millis(0, 3_000)).await;
        run.fleet.nats.server(0)?.restart().await?;
        sleep(chance.millis(2_000, 4_000)).await;
        faults::pause_server(run, 0, chance.millis(1_000, 4_000)).await?;
        let dispatcher = chance.below(run.fleet.dispatchers.len());
        faults::kill(run, Target::Dispatcher(dispatcher), Duration::ZERO).await?;
    }
    sleep(Duration::from_secs(1)).await;
    Ok(())
}

/// Owners without a lease are stopped until others have taken their partitions, and go on: only
/// the log is there to refuse them.
async fn stale(arguments: &Arguments, run: &mut Run, measured: &mut Measured) -> Result<()> {
    if arguments.dispatchers == 1 {
        bail!("one dispatcher alone has no successor: use --dispatchers 3");
    }
    for round in 0..arguments.scaled(3, 1) {
        sleep(Duration::from_secs(3)).await;
        let owner = run.owner_of(round % arguments.projects).await?;
        let before = packs_refused(run, owner).await?;
        faults::pause(run, Target::Dispatcher(owner), TAKEN_OVER).await?;
        // Not to come to it is no error of the run: it is judged with the rest.
        let refused = eventually("a pack is refused", REFUSED_WITHIN, async || {
            let refused = packs_refused(run, owner).await.unwrap_or(before);
            (refused > before)
                .then_some(refused - before)
                .ok_or_else(|| "none is".to_owned())
        });
        measured.packs_refused += refused.await.unwrap_or_default();
        sleep(Duration::from_secs(4)).await;
    }
    Ok(())
}

async fn packs_refused(run: &Run, dispatcher: usize) -> Result<u64> {
    let member = run.fleet.dispatchers.get(dispatcher);
    let page = member
        .context("there is no such dispatcher")?
        .service
        .metrics()
        .await?;
    let mut lines = page.lines();
    let value =
        lines.find_map(|line| line.strip_prefix("carillon_dispatcher_packs_refused_total "));
    // What never happened may not be listed.
    Ok(value
        .and_then(|value| value.parse().ok())
        .unwrap_or_default())
}

/// Each fault by kind, with how often it was done.
fn summary(records: &Records) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for fault in &records.faults {
        *counts.entry(&fault.what).or_default() += 1;
    }
    let listed = counts.into_iter().map(|(what, count)| match count {
        1 => what.to_owned(),
        _ => format!("{what} {count} times"),
    });
    listed.collect()
}

/// Times, and what is promised besides the invariants.
fn judge(scenario: Scenario, records: &Records, measured: &Measured, outcome: &mut Outcome) {
    let figures = &outcome.checked.figures;
    if figures.lost > 0 || figures.exhausted > 0 || figures.skipped > 0 {
        outcome.missed.push("not everything was delivered".into());
    }
    if scenario == Scenario::Rolling && figures.arrivals != figures.accepted {
        let (arrivals, owed) = (figures.arrivals, figures.accepted);
        let missed = format!("{arrivals} arrivals for {owed} deliveries in a clean restart");
        outcome.missed.push(missed);
    }
    if scenario == Scenario::Stale {
        outcome.packs_refused = Some(measured.packs_refused);
        if measured.packs_refused == 0 {
            outcome.missed.push("no former owner was refused".into());
        }
    }
    // All partitions of a lost owner must be back.
    let mut of_faults: BTreeMap<Timestamp, i64> = BTreeMap::new();
    for takeover in takeovers(records) {
        let longest = of_faults.entry(takeover.fault_at).or_default();
        *longest = takeover.millis().max(*longest);
    }
    if let Some(times) = Times::of("takeover", of_faults.into_values().collect()) {
        // One alone is back when it has started again, which is not promised.
        if scenario == Scenario::Takeover
            && outcome.dispatchers > 1
            && times.median_ms > TAKEOVER_MS_MAX
        {
            outcome
                .missed
                .push(format!("takeover within {TAKEOVER_MS_MAX} ms"));
        }
        outcome.times.push(times);
    }
    let after_leaders = measured.publishes_again.iter();
    let millis = after_leaders.filter_map(|again| delivered_after(records, *again));
    if let Some(times) = Times::of("after a leader", millis.collect()) {
        if times.max_ms > LEADER_MS_MAX {
            let missed = format!("deliveries within {LEADER_MS_MAX} ms of publishes");
            outcome.missed.push(missed);
        }
        outcome.times.push(times);
    }
}

/// How long after `again` the first event that was stored since then arrived.
fn delivered_after(records: &Records, again: Timestamp) -> Option<i64> {
    let stored = records.events.iter().filter(|line| line.stored_at >= again);
    let ids: std::collections::HashSet<_> = stored.map(|line| line.event.id).collect();
    let mut requests = records.receiver.requests.iter();
    let first = requests.find(|request| request.event.is_some_and(|event| ids.contains(&event)))?;
    let since_start = i64::try_from(first.at_us / 1_000).ok()?;
    let at = records.receiver.started_at.plus_millis(since_start);
    Some(at.millis_since(again))
}
