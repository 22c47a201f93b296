//! Days that are told rather than drawn: an endpoint that is not there, a partition in which
//! nothing happens, replicas that stand still while EVENTS ages.

use shared::domain::policy::Policy;

use crate::model::Counts;
use crate::settings::{DAY, Scene, Settings};
use crate::world::{Chance, World};
use crate::{in_world, run_of};

const HOUR: i64 = DAY / 24;
const SEEDS: u64 = 4;

/// What came of it for the one webhook.
fn play(seed: u64, span_ms: i64, scene: &Scene) -> Counts {
    let ran = in_world(|| {
        let make = |traced| {
            let mut chance = Chance::new(seed);
            let settings = Settings::calm(&mut chance, span_ms, scene.clone());
            World::of(settings, chance, traced)
        };
        match run_of(|| make(false)) {
            Ok((_, world)) => Ok(world.checker.model.counts()),
            Err(_) => Err(run_of(|| make(true)).err()),
        }
    });
    ran.unwrap_or_else(|failed| {
        let (violation, trace) = failed.expect("the same again");
        for line in trace {
            eprintln!("{line}");
        }
        panic!("seed {seed}: {violation}");
    })
}

fn scene(policy: Policy, down_ms: i64, published_ms: Vec<i64>) -> Scene {
    Scene {
        policy,
        down_ms,
        stall_ms: None,
        published_ms,
    }
}

/// One each hour, from the first on.
fn hourly(days: i64) -> Vec<i64> {
    (1..=days * 24).map(|hour| hour * HOUR).collect()
}

fn patient() -> Policy {
    Policy {
        deactivate_after_failing_ms: None,
        ..Policy::default()
    }
}

/// An endpoint that is down for so many days, and events for two more.
fn down_for(days: i64, policy: &Policy) -> Vec<Counts> {
    let scene = scene(policy.clone(), days * DAY, hourly(days + 2));
    let play = |seed| play(seed, (days + 3) * DAY, &scene);
    (0..SEEDS).map(play).collect()
}

#[test]
fn what_waits_for_three_days_is_delivered() {
    for policy in [Policy::default(), patient()] {
        for counts in down_for(3, &policy) {
            assert_eq!(counts.delivered, 5 * 24, "{counts:?}");
        }
    }
}

#[test]
fn an_endpoint_that_is_down_for_six_days_is_deactivated_unless_the_policy_says_otherwise() {
    for counts in down_for(6, &Policy::default()) {
        // From the fifth day on; the rest is skipped, for nobody enables it again.
        assert!(counts.exhausted >= 5 * 24 - 2, "{counts:?}");
        assert_eq!(counts.delivered, 0, "{counts:?}");
        assert_eq!(counts.exhausted + counts.skipped, 8 * 24, "{counts:?}");
    }
    for counts in down_for(6, &patient()) {
        assert_eq!(counts.delivered, 8 * 24, "{counts:?}");
    }
}

#[test]
fn what_is_pending_when_events_would_drop_it_ends_as_expired() {
    for counts in down_for(8, &patient()) {
        // What came in the first 8 - 6.3 days, or a look before that.
        let expired = counts.exhausted;
        assert!((36..=41).contains(&expired), "{counts:?}");
        assert_eq!(counts.delivered, 10 * 24 - expired, "{counts:?}");
    }
    for counts in down_for(8, &Policy::default()) {
        assert_eq!(counts.delivered, 0, "{counts:?}");
        assert!(counts.exhausted >= 5 * 24 - 2, "{counts:?}");
    }
}

#[test]
fn what_events_drops_while_nobody_is_there_ends_all_the_same() {
    for seed in 0..SEEDS {
        let scene = Scene {
            stall_ms: Some((2 * DAY, 10 * DAY)),
            ..scene(patient(), 11 * DAY, hourly(12))
        };
        let counts = play(seed, 13 * DAY, &scene);
        // What came before the stall was accepted; what came in its first day was dropped before
        // anybody saw it; and what was pending at nine tenths of its age when somebody was there
        // again ended then.
        assert_eq!(counts.accepted, (2 + 7 + 2) * 24, "{counts:?}");
        assert_eq!(counts.delivered + counts.exhausted, counts.accepted);
        assert!(counts.exhausted > 2 * 24, "{counts:?}");
    }
}

#[test]
fn a_partition_in_which_nothing_happens_for_eight_days_goes_on() {
    for seed in 0..SEEDS {
        let published = [hourly(1), vec![9 * DAY, 9 * DAY + HOUR]].concat();
        let scene = scene(Policy::default(), 0, published);
        let counts = play(seed, 10 * DAY, &scene);
        assert_eq!(counts.delivered, 26, "{counts:?}");
    }
}
