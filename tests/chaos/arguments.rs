//! The command line.

use std::fmt;
use std::str::FromStr;

use crate::scale;
use crate::scenarios;

pub(crate) const USAGE: &str = "\
usage: chaos [--scenario NAME] [--dispatchers N] [--servers 1|3] [--projects N] [--webhooks N]
             [--scale FACTOR] [--seed N]

  --scenario NAME   storm, takeover, leader, rolling, cuts, single or stale, which make faults, or
                    hot-lane, noisy, backlog or idle, which measure; without it all of them
  --dispatchers N   dispatchers at the start (3)
  --servers 1|3     nats-servers, and replicas of each stream (3; `single` has 1 whatever is said)
  --projects N      projects (20)
  --webhooks N      webhooks of each project (10)
  --scale FACTOR    of events, ordering keys and faults (1: 20,000 events with 2,000 keys; of what
                    is measured: 1,000,000 events in a backlog, 100,000 idle webhooks)
  --seed N          order and length of the faults (1)

Exit status: 0 if nothing was lost, out of order, unfenced or unbalanced and every time is within
its target, 1 if anything was not, 2 if it could not be run. A report of each scenario lies in
chaos-reports below the target folder. What measures runs one dispatcher and one server whatever is
said.";

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Makes faults, and has the logs checked.
    Faults(scenarios::Scenario),
    /// Measures.
    Scale(scale::Scenario),
}

impl Scenario {
    fn all() -> Vec<Self> {
        let faults = scenarios::Scenario::ALL.into_iter().map(Self::Faults);
        let measured = scale::Scenario::ALL.into_iter().map(Self::Scale);
        faults.chain(measured).collect()
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faults(scenario) => scenario.fmt(f),
            Self::Scale(scenario) => scenario.fmt(f),
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::all().into_iter();
        let found = all.find(|one| one.to_string() == text);
        found.ok_or_else(|| format!("no scenario is called {text:?}"))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Arguments {
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) dispatchers: usize,
    pub(crate) servers: usize,
    pub(crate) projects: usize,
    pub(crate) webhooks: usize,
    pub(crate) scale: f64,
    pub(crate) seed: u64,
    pub(crate) help: bool,
}

impl Arguments {
    pub(crate) fn parse() -> Result<Self, lexopt::Error> {
        use lexopt::Arg::{Long, Short};
        use lexopt::ValueExt as _;
        let mut parser = lexopt::Parser::from_env();
        let mut parsed = Self {
            scenarios: Scenario::all(),
            dispatchers: 3,
            servers: 3,
            projects: 20,
            webhooks: 10,
            scale: 1.0,
            seed: 1,
            help: false,
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Long("scenario") => parsed.scenarios = vec![parser.value()?.parse()?],
                Long("dispatchers") => parsed.dispatchers = parser.value()?.parse()?,
                Long("servers") => parsed.servers = parser.value()?.parse()?,
                Long("projects") => parsed.projects = parser.value()?.parse()?,
                Long("webhooks") => parsed.webhooks = parser.value()?.parse()?,
                Long("scale") => parsed.scale = parser.value()?.parse()?,
                Long("seed") => parsed.seed = parser.value()?.parse()?,
                Long("help") | Short('h') => parsed.help = true,
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(parsed)
    }

    /// `full` of something, scaled, and at least `least`.
    pub(crate) fn scaled(&self, full: u32, least: usize) -> usize {
        let scaled = (f64::from(full) * self.scale).round().clamp(0.0, 1e9);
        // The standard library has no checked conversion; the clamp makes this one exact.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to what fits"
        )]
        let scaled = scaled as usize;
        scaled.max(least)
    }
}
