//! What goes wrong by itself, at random moments: so a crash or a pause lies between any two
//! effects of some seed.

use crate::replica::Wake;
use crate::world::{Happening, World};

const SECOND: i64 = 1_000;

pub(crate) fn happen(world: &mut World) {
    if !world.faulty {
        return;
    }
    match world.chance.below(12) {
        0..=3 => crash(world),
        4 | 5 => pause(world),
        6 => {
            let length = world.chance.within(1, 9) * SECOND;
            outage(world, length);
        }
        7 => {
            let (now, length) = (world.now, world.chance.within(1, 9) * SECOND);
            world.note(|| format!("membership is away for {length}"));
            world.membership_outages.push((now, now + length));
            look_around(world, length);
        }
        8 => cut(world),
        9 => release(world),
        10 => {
            let jump = *world
                .chance
                .pick(&[-3_600_000, -5_000, 500, 3_600_000, 172_800_000]);
            if let Some(index) = pick(world) {
                if let Some(process) = world.process_mut(index) {
                    process.set_clock(jump);
                }
                world.note(|| format!("clock of process {index} jumps by {jump}"));
            }
        }
        _ => {
            let (now, span) = (world.now, world.settings.span_ms);
            let chance = &mut world.chance;
            for endpoint in world.endpoints.values_mut() {
                endpoint.change(chance, now, span);
            }
            world.note(|| "endpoints change".into());
        }
    }
}

fn pick(world: &mut World) -> Option<usize> {
    let alive = world.alive();
    (!alive.is_empty()).then(|| *world.chance.pick(&alive))
}

fn crash(world: &mut World) {
    let Some(index) = pick(world) else {
        return;
    };
    world.note(|| format!("process {index} is killed"));
    let now = world.now;
    if let Some(process) = world.process_mut(index) {
        process.kill(now);
    }
    let in_ms = if world.chance.per_mille(500) {
        world.chance.within(0, 3_000)
    } else {
        world.chance.within(0, 60_000)
    };
    world.at(in_ms, Happening::Start);
    look_around(world, 0);
}

fn pause(world: &mut World) {
    let Some(index) = pick(world) else {
        return;
    };
    let half = 1_500;
    let lengths = [half, 2 * half, 6 * half, 60 * SECOND, 2 * 3_600 * SECOND];
    let length = *world.chance.pick(&lengths) + world.chance.within(-200, 200);
    pause_one(world, index, length);
}

/// All stand still.
pub(crate) fn stall(world: &mut World, length: i64) {
    for index in world.alive() {
        pause_one(world, index, length);
    }
}

fn pause_one(world: &mut World, index: usize, length: i64) {
    world.note(|| format!("process {index} stands still for {length}"));
    let now = world.now;
    if let Some(process) = world.process_mut(index) {
        process.pause(now, now + length);
    }
    world.stood_still_until = world.stood_still_until.max(now + length);
    world.wake(index, length, Wake::Ownership);
    look_around(world, 0);
}

fn outage(world: &mut World, length: i64) {
    let now = world.now;
    world.note(|| format!("the logs are away for {length}"));
    world.log_outages.push((now, now + length));
}

/// One process alone cannot renew its membership.
fn cut(world: &mut World) {
    let Some(index) = pick(world) else {
        return;
    };
    let (now, length) = (world.now, world.chance.within(1, 20) * SECOND);
    world.note(|| format!("process {index} cannot renew for {length}"));
    if let Some(process) = world.process_mut(index) {
        process.cut(now, now + length);
    }
    world.wake(index, length, Wake::Ownership);
    look_around(world, 0);
}

fn release(world: &mut World) {
    for index in world.alive() {
        world.wake(index, 0, Wake::Release);
    }
}

/// Whoever lives looks again when keys have expired.
fn look_around(world: &mut World, from: i64) {
    for index in world.alive() {
        for after in [3_200, 4_500, 7_000, 20_000] {
            let jitter = world.chance.within(0, 900);
            world.wake(index, from + after + jitter, Wake::Ownership);
        }
    }
}
