//! Subscribers' endpoints: how they answer, by time, key and chance.

use dispatcher::core::delivery::AttemptOutcome;
use shared::domain::delivery::FailureKind;
use shared::domain::journal::Failure;

use crate::replica::Wake;
use crate::world::{Chance, World};

#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    manner: Manner,
    /// Of the lanes, the one that always fails.
    poison: Option<u64>,
    /// Chance of a failure, in thousandths.
    failing: u64,
    answer_bytes: usize,
    recovered: bool,
}

#[derive(Clone, Copy, Debug)]
enum Manner {
    Well,
    Hangs,
    SuccessThenReset,
    Status(u16, Option<u64>),
    /// Not there until then.
    Down(i64),
    /// Answers within 9.9 or 10.1 s.
    Slow,
}

impl Endpoint {
    pub(crate) fn draw(world: &mut World) -> Self {
        let (now, span) = (world.now, world.settings.span_ms);
        let failing = world.settings.failing;
        let lanes = world.settings.lanes;
        if let Some(scene) = &world.settings.scene {
            return Self {
                manner: Manner::Down(now + scene.down_ms),
                poison: None,
                failing: 0,
                answer_bytes: 4,
                recovered: false,
            };
        }
        let chance = &mut world.chance;
        let poison = chance.per_mille(300).then(|| chance.below(lanes));
        Self {
            manner: manner(chance, now, span),
            poison,
            failing,
            answer_bytes: world.settings.answer_bytes,
            recovered: false,
        }
    }

    /// It behaves otherwise from now on.
    pub(crate) fn change(&mut self, chance: &mut Chance, now: i64, span: i64) {
        if !self.recovered {
            self.manner = manner(chance, now, span);
        }
    }

    pub(crate) fn recover(&mut self) {
        self.recovered = true;
        self.manner = Manner::Well;
        self.poison = None;
        self.failing = 0;
    }

    /// When the answer leaves and what it is; `None` is silence.
    fn answer(&self, chance: &mut Chance, now: i64, lane: u64) -> (i64, Option<Answer>) {
        let soon = chance.within(1, 300);
        if self.poison == Some(lane) {
            return (soon, Some(Answer::Status(500, None)));
        }
        match self.manner {
            Manner::Down(until) if now < until => (1, Some(Answer::Reset)),
            Manner::Well | Manner::Down(_) => {
                if chance.per_mille(self.failing) {
                    let failures = [
                        (soon, Some(Answer::Status(500, None))),
                        (soon, Some(Answer::Status(301, None))),
                        (soon, Some(Answer::Reset)),
                        (0, None),
                    ];
                    *chance.pick(&failures)
                } else {
                    (soon, Some(Answer::Success))
                }
            }
            Manner::Hangs => (0, None),
            // Head and body are there; that the connection breaks then changes nothing, unless it
            // breaks before the head.
            Manner::SuccessThenReset => {
                let lost = chance.per_mille(500);
                (
                    soon,
                    Some(if lost {
                        Answer::LostSuccess
                    } else {
                        Answer::Success
                    }),
                )
            }
            Manner::Status(status, retry_after) => {
                (soon, Some(Answer::Status(status, retry_after)))
            }
            Manner::Slow => {
                let after = *chance.pick(&[9_900, 10_100]);
                (after, Some(Answer::Success))
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Success,
    /// It did what it was asked, and the answer got lost.
    LostSuccess,
    Reset,
    Status(u16, Option<u64>),
}

fn manner(chance: &mut Chance, now: i64, span: i64) -> Manner {
    match chance.below(14) {
        0 => Manner::Hangs,
        1 => Manner::SuccessThenReset,
        2 => Manner::Status(429, Some(chance.below(20_000))),
        3 => Manner::Status(503, Some(*chance.pick(&[0, 30_000, 3_600_000]))),
        4 => Manner::Status(503, None),
        5 if chance.per_mille(300) => Manner::Status(410, None),
        6 | 7 => Manner::Down(now + chance.within(0, span)),
        8 => Manner::Slow,
        _ => Manner::Well,
    }
}

/// The request reaches its receiver.
pub(crate) fn arrives(world: &mut World, index: usize) {
    let now = world.now;
    let post = &mut world.posts[index];
    post.arrived_at = Some(now);
    let (webhook, lane, process) = (post.webhook, post.lane.0, post.process);
    crate::checker::Checker::arrived(world, index);
    let Some(endpoint) = world.endpoints.get(&webhook) else {
        return;
    };
    let (after, answer) = endpoint.answer(&mut world.chance, now, lane);
    let failed = |kind, status, retry_after_ms| AttemptOutcome::Failed {
        failure: Failure {
            kind,
            status,
            sealed_answer: vec![7; endpoint.answer_bytes],
        },
        retry_after_ms,
    };
    let outcome = match answer {
        None => return,
        Some(Answer::Success) => AttemptOutcome::Delivered { status: 200 },
        Some(Answer::LostSuccess | Answer::Reset) => failed(FailureKind::Reset, None, None),
        Some(Answer::Status(status, retry_after)) => {
            failed(FailureKind::Status, Some(status), retry_after)
        }
    };
    if matches!(answer, Some(Answer::Success)) {
        world.posts[index].succeeded_at = Some(now + after);
    }
    world.note(|| format!("endpoint of {webhook} answers {answer:?} in {after}"));
    let back = world.chance.within(0, 3);
    world.wake(process, after + back, Wake::PostEnded(index, outcome));
}
