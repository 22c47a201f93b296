//! The command line.

use crate::scenarios::Scenario;

pub(crate) const USAGE: &str = "\
usage: chaos [--scenario NAME] [--dispatchers N] [--servers 1|3] [--projects N] [--webhooks N]
             [--scale FACTOR] [--seed N]

  --scenario NAME   storm, takeover, leader, rolling, cuts, single or stale; without it all
  --dispatchers N   dispatchers at the start (3)
  --servers 1|3     nats-servers, and replicas of each stream (3; `single` has 1 whatever is said)
  --projects N      projects (20)
  --webhooks N      webhooks of each project (10)
  --scale FACTOR    of events, ordering keys and faults (1: 20,000 events with 2,000 keys)
  --seed N          order and length of the faults (1)

Exit status: 0 if nothing was lost, out of order, unfenced or unbalanced and every time is within
its target, 1 if anything was not, 2 if it could not be run. A report of each scenario lies in
chaos-reports below the target folder.";

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
            scenarios: Scenario::ALL.to_vec(),
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
