//! A small run that is right, and one planted fault after the other.

use shared::domain::filter::{Pattern, Selection, Selector};
use shared::domain::journal::{ExhaustReason, SkipReason, UnsentEnd};
use shared::domain::registry::RegistryEntry;
use shared::domain::webhook::Status;
use shared::ids::{PartitionId, ReplicaId};

use self::sample::*;
use super::*;

mod entries;
mod sample;

#[track_caller]
fn check_planted(invariant: Invariant, what: &str, plant: impl FnOnce(&mut Records)) {
    let mut records = sample();
    plant(&mut records);
    let report = check(&records);
    assert!(
        report.counts.contains_key(&invariant),
        "{what}: {invariant:?} is not among {:#?}",
        report.violations
    );
}

#[track_caller]
fn check_clean(what: &str, change: impl FnOnce(&mut Records)) -> Report {
    let mut records = sample();
    change(&mut records);
    let report = check(&records);
    assert!(report.is_clean(), "{what}: {:#?}", report.violations);
    report
}

#[test]
fn a_right_run_is_clean_and_counted() {
    let report = check_clean("the sample", |_| {});
    let figures = report.figures;
    assert_eq!(
        (figures.events, figures.accepted, figures.delivered),
        (4, 4, 4)
    );
    assert_eq!(
        (figures.lost, figures.pending, figures.ledger_gap_max),
        (0, 0, 0)
    );
    assert_eq!((figures.arrivals, figures.duplicates), (6, 1));
    assert_eq!(
        (figures.epochs, figures.packs, figures.failed_attempts),
        (2, 4, 1)
    );
    assert_eq!(figures.duplicates_of_one_loss_max, 1);
    check_clean("counts told", |records| {
        records.told = vec![told(4, 4, 0)];
        pack_at(records, 1).classified = 3;
        pack_at(records, 1).counted = vec![(webhook(), None, 3)];
        pack_at(records, 2).classified = 3;
        pack_at(records, 4).counted = vec![(webhook(), None, 1)];
    });
    check_clean("a pack stored twice", |records| {
        let again = records.journal[2].content.clone();
        records.journal.insert(3, line(3, 201, again));
    });
    check_clean("still running", |records| {
        records.state = State::Running;
        records.journal.truncate(5);
        records.receiver.requests.truncate(4);
    });
}

#[test]
fn takeovers_run_from_the_fault_to_the_next_delivery() {
    let takeovers = takeovers(&sample());
    let millis: Vec<_> = takeovers.iter().map(Takeover::millis).collect();
    assert_eq!(millis, [1_202]);
    let mut of_another = sample();
    of_another.faults[0].replica = Some(ReplicaId::from_bytes([2; 16]));
    assert!(super::takeovers(&of_another).is_empty());
}

#[test]
fn stored() {
    let check = |what, plant: fn(&mut Records)| check_planted(Invariant::Stored, what, plant);
    check("lost by EVENTS", |records| {
        records.events.remove(0);
    });
    check("stored twice", |records| {
        let mut again = records.events[0].clone();
        again.sequence = 9;
        records.events.push(again);
    });
    check("two tuples, one message", |records| {
        records.client[1].id = event_id(1);
    });
    check("one tuple, two ids", |records| {
        records.client[1].idempotency_key = "key 1".into();
    });
    check("stored for another project", |records| {
        records.client[0].project = project(2);
    });
}

#[test]
fn classified_once() {
    let check =
        |what, plant: fn(&mut Records)| check_planted(Invariant::ClassifiedOnce, what, plant);
    check("sent though not wanted", |records| {
        records.registry[0] = registry(
            7,
            match created() {
                RegistryEntry::WebhookCreated {
                    from,
                    mut definition,
                } => {
                    let pattern = Pattern::Resource("ats_jobs".into());
                    let selector = Selector {
                        pattern,
                        providers: vec![],
                        sources: vec![],
                    };
                    definition.selection = Selection::new(vec![selector]).unwrap();
                    RegistryEntry::WebhookCreated { from, definition }
                }
                other => other,
            },
        );
    });
    check("applied from elsewhere than created", |records| {
        pack_at(records, 1).facts = vec![applied(7, 2)];
        pack_at(records, 4).facts = vec![applied(7, 2)];
    });
    check("applied again from elsewhere", |records| {
        pack_at(records, 4).facts = vec![applied(7, 3)];
    });
    check("applied to what was classified", |records| {
        records.registry.push(registry(
            8,
            RegistryEntry::WebhookUpdated(definition(Status::Enabled)),
        ));
        pack_at(records, 4).facts = vec![applied(7, 1), applied(8, 4)];
    });
    check("another event's id", |records| {
        let Fact::Attempted(attempt) = &mut pack_at(records, 2).facts[0] else {
            panic!("an attempt");
        };
        attempt.event = event_id(4);
    });
    check("another type of event", |records| {
        let Fact::Attempted(attempt) = &mut pack_at(records, 2).facts[0] else {
            panic!("an attempt");
        };
        attempt.event_type.0 ^= 1;
    });
}

#[test]
fn single_end_and_ledger_and_nothing_vanishes() {
    check_planted(Invariant::SingleEnd, "delivered twice", |records| {
        pack_at(records, 5).facts.push(delivered(1, 1, 9_150));
    });
    check_planted(Invariant::SingleEnd, "skipped after delivery", |records| {
        pack_at(records, 5).facts.push(Fact::Ended {
            webhook: webhook(),
            sequence: 1,
            end: UnsentEnd::Skipped(SkipReason::Deleted),
        });
    });
    check_planted(Invariant::Ledger, "an end of nothing owed", |records| {
        pack_at(records, 5).facts.push(delivered(9, 1, 9_150));
    });
    check_planted(Invariant::Ledger, "an end before its count", |records| {
        pack_at(records, 2).classified = 2;
        pack_at(records, 1).classified = 2;
    });
    check_planted(Invariant::Ledger, "packs that count too much", |records| {
        pack_at(records, 2).counted = vec![(webhook(), None, 1)];
    });
    check_planted(
        Invariant::Ledger,
        "packs that count too little",
        |records| {
            pack_at(records, 1).counted = vec![(webhook(), None, 3)];
        },
    );
    check_planted(Invariant::Ledger, "an API that counts wrongly", |records| {
        records.told = vec![told(5, 4, 0)];
    });
    check_planted(Invariant::Ledger, "an API that tells of a gap", |records| {
        records.told = vec![told(4, 4, 1)];
    });
    check_planted(Invariant::NothingVanishes, "no end", |records| {
        pack_at(records, 5).facts.pop();
        records.receiver.requests.pop();
    });
    let mut lost = sample();
    pack_at(&mut lost, 5).facts.pop();
    lost.receiver.requests.pop();
    assert_eq!(check(&lost).figures.lost, 1);
}

#[test]
fn delivered_is_true() {
    let check =
        |what, plant: fn(&mut Records)| check_planted(Invariant::DeliveredIsTrue, what, plant);
    check("never arrived", |records| {
        records.receiver.requests.pop();
    });
    check("refused by the endpoint", |records| {
        records.receiver.requests[5] = arrival(4, 9_102, 500);
    });
    check("answered too late", |records| {
        let answered = records.receiver.requests[5].answered.as_mut().unwrap();
        answered.at_us += 11_000_000;
    });
    check("arrived at another time", |records| {
        records.receiver.requests[5].at_us += 500_000;
    });
    check("other bytes", |records| {
        records.receiver.requests[5].body += 1;
    });
}

#[test]
fn lane_order_and_exclusion() {
    check_planted(Invariant::LaneOrder, "4 before 3", |records| {
        records.receiver.requests.insert(0, arrival(4, 90, 204));
    });
    check_planted(Invariant::LaneOrder, "2 before 1", |records| {
        records.receiver.requests[0].at_us = 160_000;
        records.receiver.requests.swap(0, 2);
    });
    check_planted(Invariant::LaneExclusion, "4 beside 3", |records| {
        records.receiver.requests[5].at_us = 9_003_000;
    });
    check_planted(Invariant::LaneExclusion, "three at once", |records| {
        for sequence in [5, 6, 7] {
            records
                .events
                .push(event(sequence, &format!("record {sequence}")));
            records
                .receiver
                .requests
                .push(arrival(sequence, 9_300, 204));
        }
    });
}

#[test]
fn duplicates() {
    let check = |what, plant: fn(&mut Records)| check_planted(Invariant::Duplicates, what, plant);
    check("without a loss", |records| {
        records.receiver.requests.push(arrival(4, 9_300, 204));
    });
    check("long before the loss", |records| {
        records.receiver.requests.insert(3, arrival(2, 3_000, 204));
    });
    check("though committed", |records| {
        pack_at(records, 2).facts.push(delivered(2, 1, 145));
        pack_at(records, 5).facts.remove(0);
    });
    check("though committed by the same owner", |records| {
        records.receiver.requests.insert(4, arrival(2, 6_000, 204));
    });
    check("after a release", |records| {
        pack_at(records, 2).facts.push(Fact::Released);
    });
    check("more than one loss explains", |records| {
        let again = std::iter::repeat_n(arrival(2, 5_202, 204), 1_010);
        records.receiver.requests.splice(3..3, again);
    });
    check_clean("from a process that was paused", |records| {
        records.faults.push(Fault {
            kind: FaultKind::DispatcherPaused,
            what: "dispatcher-1".into(),
            replica: None,
            at: at(4_000),
            until: Some(at(9_250)),
        });
        records.receiver.requests.push(arrival(4, 9_300, 204));
    });
}

#[test]
fn fence() {
    let check = |what, plant: fn(&mut Records)| check_planted(Invariant::Fence, what, plant);
    check("a pack of the deposed owner", |records| {
        let stale = pack((1, 3), 5_050, 4, Vec::new());
        records.journal.insert(4, line(4, 5_050, stale));
    });
    check("a missing pack", |records| {
        pack_at(records, 2).number = 3;
    });
    check("a missing epoch", |records| {
        records.journal[3] = line(4, 5_000, epoch(3, 5_000));
        pack_at(records, 4).epoch = 3;
        pack_at(records, 5).epoch = 3;
    });
    check("a pack before any epoch", |records| {
        records.journal.remove(0);
    });
    check("a pack after the release", |records| {
        pack_at(records, 1).facts.push(Fact::Released);
    });
    check("an entry after the release", |records| {
        pack_at(records, 5).facts.insert(1, Fact::Released);
    });
}

#[test]
fn lease() {
    check_planted(Invariant::Lease, "sent before the epoch", |records| {
        pack_at(records, 5).facts[0] = delivered(2, 1, 4_990);
    });
}

#[test]
fn monotone() {
    check_planted(Invariant::Monotone, "classified", |records| {
        pack_at(records, 4).classified = 3;
    });
    check_planted(Invariant::Monotone, "now", |records| {
        pack_at(records, 4).at = at(199);
    });
}

#[test]
fn schedule() {
    let check = |what, plant: fn(&mut Records)| check_planted(Invariant::Schedule, what, plant);
    check("too early by its own word", |records| {
        pack_at(records, 2).facts[1] = failed(3, 1, 100, 9_001);
    });
    check("too early by the receiver's", |records| {
        records.receiver.requests.insert(4, arrival(3, 8_000, 500));
    });
    check("a number left out", |records| {
        pack_at(records, 5).facts[1] = delivered(3, 3, 9_000);
    });
    check("a number again", |records| {
        pack_at(records, 5).facts[1] = delivered(3, 1, 9_000);
    });
    check("given up early", |records| {
        let reason = ExhaustReason::Schedule;
        pack_at(records, 5).facts[2] = attempted(4, 1, 9_100, Outcome::Exhausted { reason });
    });
}

#[test]
fn quiet() {
    let disable = |records: &mut Records, status| {
        records.registry.push(registry(
            8,
            RegistryEntry::WebhookUpdated(definition(status)),
        ));
        let quiet = pack((2, 3), 9_300, 4, vec![applied(8, 5)]);
        records.journal.push(line(7, 9_300, quiet));
        records.events.push(event(5, "c"));
        records.receiver.requests.push(arrival(5, 11_000, 204));
    };
    check_planted(Invariant::Quiet, "disabled", |records| {
        disable(records, Status::Disabled);
    });
    check_planted(Invariant::Quiet, "deactivated", |records| {
        disable(records, Status::Deactivated);
    });
    check_planted(Invariant::Quiet, "deleted", |records| {
        disable(records, Status::Disabled);
        records.registry[1] = registry(8, RegistryEntry::WebhookDeleted);
    });
}

#[test]
fn isolation() {
    let check = |what, plant: fn(&mut Records)| check_planted(Invariant::Isolation, what, plant);
    check("another project's event", |records| {
        records.events[3].event.project = project(2);
    });
    check("an event that nobody knows", |records| {
        records.receiver.requests.push(arrival(77, 9_300, 204));
    });
    check("no webhook's path", |records| {
        records.endpoints.clear();
    });
    check("told of in another partition", |records| {
        records.journal.push(JournalLine {
            partition: PartitionId(4),
            ..records.journal[0].clone()
        });
        records.journal.push(JournalLine {
            partition: PartitionId(4),
            ..records.journal[1].clone()
        });
    });
}
