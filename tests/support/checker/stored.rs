//! **Stored**: what ingest answered success for is in EVENTS, once a dedup window.

use std::collections::HashMap;

use shared::ids::EventId;

use super::findings::{Findings, Invariant};
use super::world::World;

const DEDUP_WINDOW_MS: i64 = 10 * 60 * 1_000;

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    answered(world, findings);
    once(world, findings);
}

fn answered(world: &World<'_>, findings: &mut Findings) {
    let mut by_tuple: HashMap<_, EventId> = HashMap::new();
    let mut by_id = HashMap::new();
    for answer in &world.records.client {
        let tuple = (answer.project, &answer.idempotency_key);
        let id = answer.id;
        let named = *by_tuple.entry(tuple).or_insert(id);
        if named != id {
            let detail = format!("{tuple:?} was answered {named} and {id}");
            findings.add(Invariant::Stored, detail);
        }
        let first = *by_id.entry(id).or_insert(tuple);
        if first != tuple {
            let detail = format!("{first:?} and {tuple:?} share {id}");
            findings.add(Invariant::Stored, detail);
        }
        let lines = world.by_id.get(&id).map_or(&[][..], Vec::as_slice);
        if lines.is_empty() {
            let detail = format!("{id} ({tuple:?}) was answered and is not in EVENTS");
            findings.add(Invariant::Stored, detail);
        }
        for line in lines {
            let event = &line.event;
            if event.project != answer.project || *event.record_id != *answer.record_id {
                let detail = format!("{id} is stored as another: {}", event.record_id);
                findings.add(Invariant::Stored, detail);
            }
        }
    }
    findings.figures.events = by_id.len();
}

fn once(world: &World<'_>, findings: &mut Findings) {
    for (id, lines) in &world.by_id {
        for (one, next) in lines.iter().zip(lines.iter().skip(1)) {
            if next.stored_at.millis_since(one.stored_at) < DEDUP_WINDOW_MS {
                let (one, next) = (one.sequence, next.sequence);
                let detail = format!("{id} is in EVENTS at {one} and at {next}");
                findings.add(Invariant::Stored, detail);
            }
        }
    }
}
