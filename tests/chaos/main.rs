//! Proof on real processes: dispatchers, ingests and nats-servers are killed, paused and cut off
//! while events go through them, and an independent checker reads the real logs and the receiver's
//! record. `make chaos` runs every scenario; `chaos --help` tells of the knobs.
//!
//! | scenario | what is done |
//! | --- | --- |
//! | `storm` | everything at once: kills and pauses of all kinds, a dispatcher more, leaders lost |
//! | `takeover` | the owner of a partition is killed, again and again |
//! | `leader` | the leader of a stream is killed, again and again |
//! | `rolling` | every service is stopped and started again, one after the other |
//! | `cuts` | the network between services and servers is cut, silent one way or both, and slow |
//! | `single` | one server, killed and paused |
//! | `stale` | an owner without a lease is paused until others own its partitions, and goes on |
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures are what the program is for"
)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::arguments::{Arguments, USAGE};
use crate::outcome::Outcome;
use crate::scenarios::Scenario;

mod arguments;
mod chance;
mod faults;
mod outcome;
mod scenarios;

/// No scenario takes longer, whatever goes wrong.
const SCENARIO_WITHIN: Duration = Duration::from_secs(15 * 60);

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(arguments) if arguments.help => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("chaos: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcomes = runtime
        .context("starting the runtime")
        .and_then(|runtime| runtime.block_on(all(&arguments)));
    match outcomes {
        Ok(outcomes) if outcomes.iter().all(Outcome::is_kept) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: could not be run: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn all(arguments: &Arguments) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for scenario in &arguments.scenarios {
        let outcome = one(*scenario, arguments).await?;
        println!("{outcome}");
        let file = outcome.write()?;
        println!("  report               {}\n", file.display());
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

async fn one(scenario: Scenario, arguments: &Arguments) -> Result<Outcome> {
    println!("{scenario} ...");
    // Some scenarios' futures are large; this one lives as long as the program.
    let run = Box::pin(scenarios::run(scenario, arguments));
    let outcome = tokio::time::timeout(SCENARIO_WITHIN, run).await;
    outcome
        .context("it took too long")
        .flatten()
        .with_context(|| format!("scenario {scenario}"))
}
