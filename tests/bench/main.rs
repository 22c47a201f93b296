//! How fast it is: load, receiver and services as processes of their own, and ceilings measured in
//! the same round. `make bench` runs it; `bench --help` tells of the knobs.
//!
//! | case | what goes through |
//! | --- | --- |
//! | `ceilings` | requests from the load to the receiver, and from a bare reqwest loop |
//! | `one`, `ten`, `projects` | first-party events for 1 webhook, for 10, for 100 projects of 1 |
//! | `native` | callbacks of a provider for 1 webhook |
//! | `drain` | what was stored while no dispatcher ran |
//! | `noisy` | a little for a fast endpoint, beside much for another project's slow one |
//! | `tls1`, `tls2` | to 1 webhook over TLS, HTTP/1.1 and HTTP/2 |
//! | `always`, `three` | on a server that syncs each write, and on three such |
//! | `control` | no events: 10,000 webhooks of one project are made and listed |
//! | `curve-…` | with growing numbers of something that should not matter |
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures are what the program is for"
)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::arguments::{Arguments, USAGE};
use crate::figures::Round;

mod arguments;
mod cases;
mod children;
mod figures;
mod load;
mod mark;
mod percentiles;
mod receiver;
mod report;
mod stage;
mod svg;
mod usage;
mod wire;

/// No case takes longer, whatever goes wrong.
const CASE_WITHIN: Duration = Duration::from_secs(5 * 60);

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if let (Some(role), Some(plan)) = (words.next(), words.next())
        && !role.starts_with('-')
    {
        return finished(actix_rt::System::new().block_on(as_child(&role, &plan)));
    }
    let arguments = match Arguments::parse() {
        Ok(arguments) if arguments.help => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("bench: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    finished(actix_rt::System::new().block_on(all(&arguments)))
}

fn finished(result: Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("bench: could not be run: {error:#}");
        ExitCode::from(2)
    })
}

/// What this program does when it has started itself.
async fn as_child(role: &str, plan: &str) -> Result<ExitCode> {
    match role {
        "receive" => receiver::serve(&serde_json::from_str(plan)?).await?,
        "drive" => load::drive(&serde_json::from_str(plan)?).await?,
        "post" => load::bare::post(&serde_json::from_str(plan)?).await?,
        _ => bail!("{role} is nothing that this program does"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn all(arguments: &Arguments) -> Result<ExitCode> {
    let machine = report::Machine::look()?;
    let mut rounds = Vec::new();
    for number in 1..=arguments.rounds {
        let mut round = Round::default();
        for case in &arguments.cases {
            println!("round {number}: {} ...", case.as_str());
            let run = Box::pin(cases::run(*case, arguments.scale, &mut round));
            let ran = tokio::time::timeout(CASE_WITHIN, run).await;
            ran.context("it took too long")
                .flatten()
                .with_context(|| format!("case {}", case.as_str()))?;
        }
        cases::compare(&mut round);
        rounds.push(round);
    }
    let report = report::Report::new(machine, arguments, &rounds);
    println!("{}", report.markdown());
    let folder = report.write()?;
    println!(
        "bench.json, bench.md and bench.svg lie in {}",
        folder.display()
    );
    Ok(ExitCode::from(u8::from(!report.faults.is_empty())))
}

/// A count as a figure.
fn number(count: u64) -> f64 {
    // Exact below 2^53, far above anything counted here.
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let number = count as f64;
    number
}
