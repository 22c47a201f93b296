//! **Fence**, **Monotone** and a part of **Lease**: what JOURNAL looks like when owners keep to their turns.

use shared::ids::PartitionId;
use shared::time::Timestamp;

use super::findings::{Findings, Invariant};
use super::journal::{Fact, PackFacts};
use super::records::{JournalContent, JournalLine};
use super::world::{Partition, World, first_occurrences};

pub(super) fn check(world: &World<'_>, findings: &mut Findings) {
    for (id, partition) in &world.partitions {
        fenced(*id, partition, findings);
        monotone(*id, partition, findings);
    }
}

fn fenced(id: PartitionId, partition: &Partition<'_>, findings: &mut Findings) {
    let mut epoch = None;
    let mut since = Timestamp::default();
    let mut number = 0;
    let mut was_released = false;
    for line in &partition.lines {
        let at = line.sequence;
        match &line.content {
            JournalContent::Epoch(entry) => {
                if epoch.is_some_and(|epoch| entry.epoch.0 != epoch + 1) {
                    let detail = format!("{id:?}: epoch {} at {at} after {epoch:?}", entry.epoch.0);
                    findings.add(Invariant::Fence, detail);
                }
                epoch = Some(entry.epoch.0);
                since = entry.at;
                number = 0;
                was_released = false;
            }
            JournalContent::Pack(pack) => {
                let (of, next) = (pack.epoch, pack.number);
                if epoch != Some(of) {
                    let detail = format!("{id:?}: a pack of epoch {of} at {at}, within {epoch:?}");
                    findings.add(Invariant::Fence, detail);
                    continue;
                }
                // A repeat is what a lost acknowledgement leads to, and counts once.
                if next <= number {
                    continue;
                }
                if next != number + 1 {
                    let detail =
                        format!("{id:?}: pack {next} of epoch {of} at {at}, after {number}");
                    findings.add(Invariant::Fence, detail);
                }
                if was_released {
                    let detail = format!("{id:?}: a pack at {at} after the release of {of}");
                    findings.add(Invariant::Fence, detail);
                }
                number = next;
                for fact in &pack.facts {
                    if was_released {
                        let detail = format!("{id:?}: {fact:?} at {at} after the release of {of}");
                        findings.add(Invariant::Fence, detail);
                    }
                    was_released |= *fact == Fact::Released;
                    early(id, since, fact, findings);
                }
            }
        }
    }
}

/// **Lease**, in part: an owner sends nothing before it announced itself.
fn early(id: PartitionId, since: Timestamp, fact: &Fact, findings: &mut Findings) {
    if let Fact::Attempted(attempt) = fact
        && attempt.started_at < since
    {
        let (webhook, sequence, at) = (attempt.webhook, attempt.sequence, attempt.started_at);
        let detail = format!("{id:?}: {webhook} {sequence} at {at}, owned since {since}");
        findings.add(Invariant::Lease, detail);
    }
}

fn monotone(id: PartitionId, partition: &Partition<'_>, findings: &mut Findings) {
    let mut last: Option<&PackFacts> = None;
    // What a pack says holds once its last counts are there.
    let whole = first_occurrences(partition).filter(|(_, pack)| !pack.counts_continue);
    for (line, pack) in whole {
        if let Some(last) = last {
            went_back(id, line, last, pack, findings);
        }
        last = Some(pack);
    }
}

fn went_back(
    id: PartitionId,
    line: &JournalLine,
    last: &PackFacts,
    pack: &PackFacts,
    findings: &mut Findings,
) {
    let at = line.sequence;
    if pack.classified < last.classified {
        let (then, now) = (last.classified, pack.classified);
        let detail = format!("{id:?} at {at}: classified through {now} after {then}");
        findings.add(Invariant::Monotone, detail);
    }
    if pack.at < last.at {
        let detail = format!("{id:?} at {at}: {} after {}", pack.at, last.at);
        findings.add(Invariant::Monotone, detail);
    }
}
