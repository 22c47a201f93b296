//! What the pure work on an event costs, counted instead of timed: allocations by a counting
//! allocator, instructions by running this program under callgrind for two numbers of repetitions.
//! The test `costs` runs it and holds the counts against its table.
//!
//! `costs WORK allocations` prints how many allocations one repetition makes; `costs WORK TIMES`
//! does the work so often and prints nothing.
#![expect(clippy::print_stdout, reason = "the count is what the program is for")]

use anyhow::{Context as _, Result, bail};

mod work;

/// Enough that what grows now and then, a table or a buffer, is spread over them.
const REPETITIONS: u64 = 256;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(name), Some(what)) = (words.next(), words.next()) else {
        bail!("usage: costs WORK (allocations | TIMES)");
    };
    let mut work = work::prepare(&name)?;
    if what == "allocations" {
        // The first ones make what is kept.
        repeat(work.as_mut(), REPETITIONS)?;
        let mut outcome = Ok(());
        let counted = allocation_counter::measure(|| outcome = repeat(work.as_mut(), REPETITIONS));
        outcome?;
        println!("{}", counted.count_total / REPETITIONS);
        return Ok(());
    }
    repeat(work.as_mut(), what.parse().context("how often")?)
}

fn repeat(work: &mut dyn FnMut() -> Result<()>, times: u64) -> Result<()> {
    for _ in 0..times {
        work()?;
    }
    Ok(())
}
