//! What the pure work on an event may cost. Counts, not times: they are the same on a busy machine.
//! Of this profile, which `make test` has built anyway; what is slower here is slower when deployed.
//!
//! A count above its limit is a regression, or a cost that a change is worth, in which case its
//! author raises the limit. One far below it means that the limit guards nothing any more.

use std::process::Command;

use support::tools;

/// Per repetition.
struct Limits {
    work: &'static str,
    allocations: u64,
    instructions: u64,
}

/// A tenth and some above what was counted.
const LIMITS: [Limits; 8] = [
    limits("step", 2, 31_900),
    limits("encode-event", 2, 13_900),
    limits("decode-event", 2, 35_900),
    limits("encode-pack", 6, 634_000),
    limits("decode-pack", 1, 1_480_000),
    limits("sign", 7, 169_000),
    limits("map", 930, 1_030_000),
    limits("render", 5, 21_900),
];
/// Two runs differ by this many repetitions, so that start and end cancel out.
const REPETITIONS: u64 = 50;
const FEW: u64 = 10;
/// Of a limit, in percent.
const LEAST: u64 = 70;

const fn limits(work: &'static str, allocations: u64, instructions: u64) -> Limits {
    Limits {
        work,
        allocations,
        instructions,
    }
}

fn check(work: &str, what: &str, count: u64, limit: u64) -> Result<(), String> {
    let least = limit * LEAST / 100;
    if (least..=limit).contains(&count) {
        return Ok(());
    }
    Err(format!(
        "{work}: {count} {what}, where {least} to {limit} are expected"
    ))
}

#[test]
fn allocations_stay_within_their_limits() {
    let costs = tools::built("costs").unwrap();
    let found: Vec<String> = LIMITS
        .iter()
        .filter_map(|limits| {
            let mut command = Command::new(&costs);
            let counted = tools::output_of(command.args([limits.work, "allocations"])).unwrap();
            let count = counted.trim().parse().unwrap();
            check(limits.work, "allocations", count, limits.allocations).err()
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn instructions_stay_within_their_limits() {
    // The limits are of this profile and instruction set; where nothing counts instructions,
    // `make test` has said so.
    let is_counted = cfg!(all(debug_assertions, target_arch = "x86_64"));
    let Some(valgrind) = tools::valgrind().filter(|_| is_counted) else {
        return;
    };
    let costs = tools::built("costs").unwrap();
    let instructions = |work: &str, times: u64| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("callgrind.out");
        let mut command = Command::new(&valgrind);
        command
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(&costs)
            .args([work, &times.to_string()]);
        tools::output_of(&mut command).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        total.unwrap().trim().parse::<u64>().unwrap()
    };
    let found: Vec<String> = LIMITS
        .iter()
        .filter_map(|limits| {
            let [few, many] =
                [FEW, FEW + REPETITIONS].map(|times| instructions(limits.work, times));
            let count = (many - few) / REPETITIONS;
            check(limits.work, "instructions", count, limits.instructions).err()
        })
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
