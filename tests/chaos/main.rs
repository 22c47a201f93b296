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
//!
//! Others measure what no test with few of everything shows, one dispatcher on one server:
//!
//! | scenario | what is measured |
//! | --- | --- |
//! | `hot-lane` | the other lanes of a webhook in which one record always fails |
//! | `noisy` | the latency of endpoints beside some that hang, reset and refuse |
//! | `backlog` | the memory that a million events behind a refusing endpoint take |
//! | `idle` | memory and start with a hundred thousand webhooks |
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures are what the program is for"
)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::arguments::{Arguments, Scenario, USAGE};

mod arguments;
mod chance;
mod faults;
mod outcome;
mod scale;
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
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: could not be run: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything was kept.
async fn all(arguments: &Arguments) -> Result<bool> {
    let mut is_kept = true;
    for scenario in &arguments.scenarios {
        println!("{scenario} ...");
        // Some scenarios' futures are large; this one lives as long as the program.
        let run = Box::pin(one(*scenario, arguments));
        let outcome = tokio::time::timeout(SCENARIO_WITHIN, run).await;
        is_kept &= outcome
            .context("it took too long")
            .flatten()
            .with_context(|| format!("scenario {scenario}"))?;
    }
    Ok(is_kept)
}

/// Runs it, tells of it, and says whether everything was kept.
async fn one(scenario: Scenario, arguments: &Arguments) -> Result<bool> {
    let name = scenario.to_string();
    let (is_kept, file) = match scenario {
        Scenario::Faults(scenario) => {
            let outcome = scenarios::run(scenario, arguments).await?;
            println!("{outcome}");
            (outcome.is_kept(), outcome::write(&name, &outcome)?)
        }
        Scenario::Scale(scenario) => {
            let measured = scale::run(scenario, arguments).await?;
            println!("{measured}");
            (measured.is_kept(), outcome::write(&name, &measured)?)
        }
    };
    println!("  report               {}\n", file.display());
    Ok(is_kept)
}
