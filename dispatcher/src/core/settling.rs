//! How far all of a webhook's deliveries have ended, said in a way that a new owner can begin
//! from: see [`shared::domain::state::WebhookState`].

use std::collections::{BTreeSet, HashSet};

use shared::domain::journal::{JournalEntry, LanesSettled};
use shared::domain::state::WebhookState;
use shared::ids::{LaneHash, Sequence, WebhookId};

use super::lanes::Lanes;

/// What can be said now, if it is news. `moved` are lanes that are behind and in which something
/// ended.
pub fn settled(
    webhook: WebhookId,
    state: &WebhookState,
    lanes: &Lanes,
    read: Sequence,
    moved: &BTreeSet<LaneHash>,
) -> Option<JournalEntry> {
    let resolved = resolved(state, lanes, read).max(state.resolved);
    let failing: HashSet<LaneHash> = state
        .failing
        .range(..=resolved)
        .map(|(_, failing)| failing.lane)
        .collect();
    let moves: Vec<(LaneHash, Option<Sequence>)> = moved
        .iter()
        .filter(|lane| state.behind.contains_key(lane))
        .map(|lane| {
            // What was forgotten to be read on from `read` is neither remembered nor marked.
            let next = lowest_unknown(state, lanes, *lane)
                .map_or(read.next(), |next| next.min(read.next()));
            let next = Some(next).filter(|next| *next <= resolved);
            // A lane stays marked for as long as it has a known failure, which its mark covers
            // what comes after by.
            let stays = next.is_some() || failing.contains(lane);
            (*lane, stays.then(|| next.unwrap_or(resolved.next())))
        })
        .collect();
    if resolved == state.resolved && moves.is_empty() {
        return None;
    }
    Some(JournalEntry::Settled {
        webhook,
        resolved,
        lanes: LanesSettled::Some(moves),
    })
}

/// The last sequence below everything pending that only this memory knows of.
fn resolved(state: &WebhookState, lanes: &Lanes, read: Sequence) -> Sequence {
    let mut covered: HashSet<LaneHash> = HashSet::new();
    let is_covered = |covered: &HashSet<LaneHash>, lane| {
        state.behind.contains_key(&lane) || covered.contains(&lane)
    };
    let mut first_unknown = read.next();
    for (sequence, pending) in lanes.iter() {
        if sequence >= first_unknown {
            break;
        }
        if is_covered(&covered, pending.lane) {
            continue;
        }
        let forgot_lower = lanes
            .unremembered_from(pending.lane)
            .is_some_and(|from| from < sequence);
        let is_told = state.failing.contains_key(&sequence);
        if is_told && !forgot_lower {
            // The journal takes what lies behind it for pending; one that was kept alone while
            // others ended says nothing of what lies behind.
            if sequence > state.resolved {
                covered.insert(pending.lane);
            }
        } else if !is_told {
            first_unknown = sequence;
        }
    }
    for (from, lane) in lanes.all_unremembered() {
        if from >= first_unknown {
            break;
        }
        if !is_covered(&covered, lane) {
            first_unknown = from;
        }
    }
    first_unknown.previous()
}

/// The lowest of the lane that may be pending without the journal's naming it.
fn lowest_unknown(state: &WebhookState, lanes: &Lanes, lane: LaneHash) -> Option<Sequence> {
    let remembered = lanes
        .iter()
        .find(|(sequence, pending)| pending.lane == lane && !state.failing.contains_key(sequence))
        .map(|(sequence, _)| sequence);
    let forgotten = lanes.unremembered_from(lane);
    match (remembered, forgotten) {
        (Some(remembered), Some(forgotten)) => Some(remembered.min(forgotten)),
        (remembered, forgotten) => remembered.or(forgotten),
    }
}
