//! A seeded simulator: the core and its ports under virtual time, with faults composed at random,
//! and a checker of what must hold. One seed is one world, and always the same one.
//!
//! `CARILLON_SIM_SEED=n` runs one seed and prints the end of what happened when it fails;
//! `CARILLON_SIM_SEEDS=n` runs the seeds below n.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may fail loudly"
)]

mod checker;
mod child;
mod endpoint;
mod faults;
mod model;
mod owner;
mod replaying;
mod replica;
mod scenes;
mod settings;
mod streams;
mod workload;
mod world;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use settings::Plant;
use world::World;

/// Enough for a run of all tests; a soak names its own number.
const SEEDS: u64 = 2_000;
/// Worlds are small: one that has not ended by then never will.
const STEPS_MAX: u64 = 200_000;
const THREADS: usize = 2;

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What was violated, and the end of the trace if it was asked for.
fn run(seed: u64, plant: Option<Plant>, traced: bool) -> Result<u64, (String, Vec<String>)> {
    run_of(|| World::new(seed, plant, traced)).map(|(steps, _)| steps)
}

/// The steps that it took, and the world as it came to rest.
fn run_of(make: impl FnOnce() -> World) -> Result<(u64, World), (String, Vec<String>)> {
    quiet_panics();
    let made = catch_unwind(AssertUnwindSafe(make));
    let mut world = made.map_err(|_| (PANIC.take(), Vec::new()))?;
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut steps = 0;
        while world.step() {
            steps += 1;
            assert!(steps < STEPS_MAX, "the world does not end");
        }
        steps
    }));
    match ran {
        Ok(steps) => Ok((steps, world)),
        Err(_) => Err((PANIC.take(), world.trace().cloned().collect())),
    }
}

/// A violation is a panic; it is told once, by who ran the seed.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let text = panic.to_string();
            PANIC.with(|last| last.replace(text));
            if std::thread::current()
                .name()
                .is_some_and(|name| name != "world")
            {
                usual(panic);
            }
        }));
    });
}

/// Runs in a thread of that name, whose panics are told here only.
fn in_world<T: Send>(what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("world".into());
        thread.spawn_scoped(scope, what).unwrap().join().unwrap()
    })
}

#[expect(clippy::disallowed_methods, reason = "a test's own switch")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

fn fail(seed: u64) -> ! {
    let (violation, trace) = in_world(|| run(seed, None, true)).expect_err("the same again");
    for line in trace {
        eprintln!("{line}");
    }
    panic!("seed {seed}: {violation}\nreproduce: make simulate SEED={seed}");
}

#[test]
fn no_seed_violates_an_invariant() {
    if let Some(seed) = number("CARILLON_SIM_SEED") {
        if in_world(|| run(seed, None, false)).is_err() {
            fail(seed);
        }
        return;
    }
    let seeds = number("CARILLON_SIM_SEEDS").unwrap_or(SEEDS);
    let (next, steps, lowest) = (
        AtomicU64::new(0),
        AtomicU64::new(0),
        AtomicU64::new(u64::MAX),
    );
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let thread = std::thread::Builder::new().name("world".into());
            let work = || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || lowest.load(Ordering::Relaxed) < seed {
                        return;
                    }
                    match run(seed, None, false) {
                        Ok(taken) => _ = steps.fetch_add(taken, Ordering::Relaxed),
                        Err(_) => _ = lowest.fetch_min(seed, Ordering::Relaxed),
                    }
                }
            };
            thread.spawn_scoped(scope, work).unwrap();
        }
    });
    let lowest = lowest.into_inner();
    if lowest < u64::MAX {
        fail(lowest);
    }
    eprintln!("{seeds} seeds, {} steps", steps.into_inner());
}

/// The checker finds what is planted, within so many seeds, and for one of the reasons that it
/// is a fault for.
fn goes_red(plant: Plant, within: u64, reasons: &[&str]) {
    let found = (0..within).find_map(|seed| {
        let (violation, _) = in_world(|| run(seed, Some(plant), false)).err()?;
        let is_meant = reasons.iter().any(|reason| violation.contains(reason));
        is_meant.then_some((seed, violation))
    });
    let (seed, violation) = found.unwrap_or_else(|| panic!("{plant:?} is not found"));
    eprintln!("{plant:?} is found by seed {seed}: {violation}");
}

#[test]
fn a_missing_fence_is_found() {
    goes_red(Plant::NoFence, 4_000, &["a pack of a deposed owner"]);
}

#[test]
fn a_lane_check_that_is_off_is_found() {
    goes_red(Plant::LaneCheckOff, 4_000, &["two attempts of a lane"]);
}

#[test]
fn a_fold_that_stops_before_the_epoch_is_found() {
    goes_red(
        Plant::FoldStoppedBeforeEpoch,
        4_000,
        &["is not the replayed one"],
    );
}

#[test]
fn a_position_taken_from_the_api_is_found() {
    goes_red(
        Plant::PositionFromApi,
        4_000,
        &["what pack", "a configuration reaches back"],
    );
}

#[test]
fn offer_ranges_that_nobody_checks_is_found() {
    goes_red(
        Plant::OfferRangesUnchecked,
        4_000,
        &["has ended", "come to rest"],
    );
}

#[test]
fn a_404_taken_for_expired_is_found() {
    goes_red(
        Plant::NotFoundTakenForExpired,
        4_000,
        &["EVENTS still has it"],
    );
}

#[test]
fn probes_counted_as_attempts_is_found() {
    goes_red(
        Plant::ProbesCountedAsAttempts,
        4_000,
        &[
            "counts while the breaker is open",
            "numbers have no gap",
            "before its time",
        ],
    );
}

#[test]
fn a_snapshot_with_uncommitted_outcomes_is_found() {
    goes_red(
        Plant::SnapshotWithUncommitted,
        4_000,
        &["than the log", "is not the replayed one"],
    );
}

#[test]
fn a_pack_sent_before_the_one_before_is_stored_is_found() {
    goes_red(Plant::PackSentAhead, 4_000, &["pack numbers of epoch"]);
}

#[test]
fn a_lease_that_nobody_looks_at_is_found() {
    goes_red(Plant::NoLease, 4_000, &["sent outside of the lease"]);
}

#[test]
fn pending_deliveries_that_nobody_ends_before_they_are_dropped_are_found() {
    let reasons = ["come to rest", "the world does not end"];
    goes_red(Plant::NothingExpires, 4_000, &reasons);
}

#[test]
fn a_replay_that_takes_what_is_pending_is_found() {
    goes_red(
        Plant::ReplayOfPending,
        4_000,
        &["matches", "touches", "whether its delivery has ended"],
    );
}

#[test]
fn a_replay_that_begins_from_the_start_is_found() {
    goes_red(
        Plant::ReplayFromTheStart,
        4_000,
        &["twice", "left something out", "is_success"],
    );
}
