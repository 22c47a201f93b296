//! What owners decide, count back, settle and probe, and faults planted in it.

use shared::domain::journal::{ExhaustReason, LanesSettled, SkipReason, UnsentEnd};
use shared::domain::registry::RegistryEntry;
use shared::domain::webhook::Status;
use shared::ids::Sequence;

use super::sample::*;
use super::{Fact, Invariant, Outcome, Records, Report, check_clean, check_planted};

const DEACTIVATED: UnsentEnd = UnsentEnd::Exhausted(ExhaustReason::Deactivated);

/// After the sample, 5 fails and its failure deactivates the webhook; 6 is skipped.
fn deactivate(records: &mut Records) {
    records.events.extend([event(5, "c"), event(6, "c")]);
    let retried = vec![failed(5, 1, 9_250, 99_000)];
    let packs = [
        counting(1, pack((2, 3), 9_300, 5, retried)),
        pack(
            (2, 4),
            9_400,
            5,
            vec![deactivated(6), pending_ended(5, DEACTIVATED, 1, &[])],
        ),
        pack((2, 5), 9_500, 6, Vec::new()),
    ];
    for (sequence, content) in (7..).zip(packs) {
        records.journal.push(line(sequence, 9_500, content));
    }
    pack_at(records, 8).counted = vec![(webhook(), Some(SkipReason::Deactivated), 1)];
    records.receiver.requests.push(arrival(5, 9_252, 500));
}

/// Somebody enables it again, and 7 is delivered.
fn enable(records: &mut Records, applied: Fact) {
    deactivate(records);
    let enabled = RegistryEntry::WebhookUpdated(definition(Status::Enabled));
    records.registry.push(registry(8, enabled));
    records.events.push(event(7, "c"));
    let facts = vec![applied, delivered(7, 1, 9_700)];
    let content = counting(1, pack((2, 6), 9_750, 7, facts));
    records.journal.push(line(10, 9_750, content));
    records.receiver.requests.push(arrival(7, 9_702, 204));
}

/// 5 is under way when the others end, and fails then.
fn keep(records: &mut Records) {
    deactivate(records);
    pack_at(records, 7).facts[1] = pending_ended(5, DEACTIVATED, 0, &[5]);
    pack_at(records, 6).facts.clear();
    let reason = ExhaustReason::Deactivated;
    let exhausted = attempted(5, 1, 9_250, Outcome::Exhausted { reason });
    pack_at(records, 8).facts.push(exhausted);
}

#[test]
fn a_deactivated_webhook_is_judged_by_what_its_owner_decided() {
    let ends = |report: Report| (report.figures.exhausted, report.figures.skipped);
    assert_eq!(ends(check_clean("deactivated", deactivate)), (1, 1));
    assert_eq!(ends(check_clean("one is kept", keep)), (1, 1));
    let enabled = check_clean("enabled", |records| enable(records, lifted(8, 7)));
    assert_eq!(enabled.figures.delivered, 5);
    check_clean("quarantined", |records| {
        pack_at(records, 5).facts.push(quarantined(5));
        records.events.push(event(5, "c"));
        let content = counting(1, pack((2, 3), 9_300, 5, Vec::new()));
        records.journal.push(line(7, 9_300, content));
        records.state = super::State::Running;
    });
    let check = |invariant, what, plant: fn(&mut Records)| {
        check_planted(invariant, what, |records| {
            deactivate(records);
            plant(records);
        });
    };
    check(Invariant::Ledger, "more than was pending", |records| {
        pack_at(records, 7).facts[1] = pending_ended(5, DEACTIVATED, 2, &[]);
    });
    check(Invariant::Ledger, "less than was pending", |records| {
        pack_at(records, 7).facts[1] = pending_ended(4, DEACTIVATED, 1, &[]);
    });
    check(Invariant::Ledger, "kept without need", |records| {
        pack_at(records, 7).facts[1] = pending_ended(5, DEACTIVATED, 1, &[4]);
    });
    check(Invariant::Ledger, "accepted nevertheless", |records| {
        pack_at(records, 8).counted = vec![(webhook(), None, 1)];
    });
    check(Invariant::Ledger, "for another reason", |records| {
        pack_at(records, 8).counted = vec![(webhook(), Some(SkipReason::Disabled), 1)];
    });
    check(Invariant::Schedule, "ended without reason", |records| {
        pack_at(records, 7).facts.remove(0);
    });
    check(Invariant::ClassifiedOnce, "decided too late", |records| {
        pack_at(records, 7).facts[0] = deactivated(5);
    });
    check(Invariant::SingleEnd, "ended again", |records| {
        pack_at(records, 8).facts.push(delivered(5, 2, 9_350));
    });
    check(Invariant::SingleEnd, "failed after its end", |records| {
        pack_at(records, 8).facts.push(failed(5, 2, 9_350, 99_000));
    });
    check(Invariant::Quiet, "sent nevertheless", |records| {
        records.receiver.requests.push(arrival(6, 11_000, 204));
    });
    check_planted(Invariant::Ledger, "enabled, but not lifted", |records| {
        enable(records, applied(8, 7));
    });
    check_planted(Invariant::Schedule, "given up while enabled", |records| {
        keep(records);
        pack_at(records, 7).facts.clear();
    });
}

#[test]
fn a_creation_that_reaches_back_is_counted_once() {
    let reach_back = |records: &mut Records, accepted| {
        pack_at(records, 1).counted.clear();
        pack_at(records, 1).facts = vec![reaching_back(7, 1, 4)];
        pack_at(records, 2).facts.insert(0, counted_back(accepted));
        pack_at(records, 4).facts.clear();
    };
    check_clean("counted back", |records| reach_back(records, 4));
    check_planted(Invariant::Ledger, "too little", |records| {
        reach_back(records, 3);
    });
    check_planted(Invariant::Ledger, "twice", |records| {
        reach_back(records, 4);
        pack_at(records, 4).facts.push(counted_back(4));
    });
    check_planted(Invariant::Ledger, "live as well", |records| {
        reach_back(records, 4);
        pack_at(records, 1).counted = vec![(webhook(), None, 4)];
    });
    check_planted(Invariant::Ledger, "never", |records| {
        reach_back(records, 4);
        pack_at(records, 2).facts.remove(0);
    });
}

#[test]
fn counts_that_span_packs_hold_together_or_not_at_all() {
    let span = |records: &mut Records, first, second| {
        pack_at(records, 1).number = 2;
        pack_at(records, 1).counted = vec![(webhook(), None, second)];
        pack_at(records, 2).number = 3;
        let content = counting(first, pack((1, 1), 40, 4, Vec::new()));
        records.journal.insert(1, line(2, 40, content));
        pack_at(records, 1).counts_continue = true;
    };
    check_clean("both", |records| span(records, 1, 3));
    check_clean("begun by an owner that is gone", |records| {
        let content = counting(1, pack((1, 3), 250, 5, Vec::new()));
        records.journal.insert(3, line(3, 250, content));
        pack_at(records, 3).counts_continue = true;
    });
    check_planted(Invariant::Ledger, "too many", |records| span(records, 2, 3));
}

#[test]
fn a_status_that_is_set_classifies_like_one_that_is_defined() {
    let disable = |records: &mut Records, reason| {
        let disabled = RegistryEntry::WebhookStatusSet {
            status: Status::Disabled,
            reason: None,
            decided: None,
        };
        records.registry.push(registry(8, disabled));
        records.events.push(event(5, "c"));
        let content = pack((2, 3), 9_300, 5, vec![lifted(8, 5)]);
        records.journal.push(line(7, 9_300, content));
        pack_at(records, 6).counted = vec![(webhook(), reason, 1)];
    };
    let report = check_clean("disabled", |records| {
        disable(records, Some(SkipReason::Disabled));
    });
    assert_eq!(report.figures.skipped, 1);
    check_planted(Invariant::Ledger, "accepted nevertheless", |records| {
        disable(records, None);
    });
}

#[test]
fn what_is_settled_hides_nothing_that_is_pending() {
    let one = |lane_of: &str, from: Option<u64>| {
        LanesSettled::Some(vec![(lane(lane_of), from.map(Sequence))])
    };
    let none = || LanesSettled::Some(Vec::new());
    // 3 has failed, so that 4 lies behind it.
    let settle = |records: &mut Records, entries: Vec<Fact>| {
        let facts = &mut pack_at(records, 5).facts;
        facts.splice(1..1, entries);
    };
    check_clean("with a failing lane", |records| {
        settle(records, vec![settled(4, none())]);
    });
    check_clean("with its lane moved on", |records| {
        let moved = vec![settled(4, none()), settled(4, one("b", Some(4)))];
        settle(records, moved);
    });
    check_planted(Invariant::NothingVanishes, "too far", |records| {
        pack_at(records, 2).facts.push(settled(2, none()));
    });
    for (what, lanes) in [
        ("with all lanes", LanesSettled::All),
        ("without its lane", one("b", None)),
        ("with its lane moved on too far", one("b", Some(5))),
    ] {
        check_planted(Invariant::NothingVanishes, what, |records| {
            settle(records, vec![settled(4, lanes)]);
        });
    }
    check_planted(Invariant::Monotone, "back", |records| {
        settle(records, vec![settled(4, none()), settled(3, none())]);
    });
}

#[test]
fn breaker() {
    // Opened by 3's failure, probed by it in vain and again with success.
    let probe = |records: &mut Records| {
        pack_at(records, 2).facts.push(opened(250));
        let facts = &mut pack_at(records, 5).facts;
        facts[1] = delivered(3, 2, 6_000);
        facts.insert(2, closed(6_010));
        facts.insert(1, attempted(3, 1, 5_300, Outcome::ProbeFailed));
        records.receiver.requests[4] = arrival(3, 6_002, 204);
        records.receiver.requests.insert(4, arrival(3, 5_302, 500));
    };
    check_clean("probed", probe);
    let check = |invariant, what, plant: fn(&mut Records)| {
        check_planted(invariant, what, |records| {
            probe(records);
            plant(records);
        });
    };
    check(Invariant::Breaker, "probed though closed", |records| {
        pack_at(records, 2).facts.pop();
    });
    check(Invariant::Schedule, "too early though closed", |records| {
        pack_at(records, 2).facts.pop();
    });
    check(Invariant::Breaker, "two at once", |records| {
        let second = attempted(4, 0, 5_305, Outcome::ProbeFailed);
        pack_at(records, 5).facts.insert(2, second);
    });
    check(Invariant::Breaker, "opened again", |records| {
        pack_at(records, 4).facts.push(opened(5_050));
    });
    check(Invariant::Breaker, "a probe that counts", |records| {
        let Fact::Attempted(probe) = &mut pack_at(records, 5).facts[1] else {
            panic!("a probe");
        };
        probe.counts = true;
    });
    check(
        Invariant::Schedule,
        "a probe that is an attempt",
        |records| {
            let Fact::Attempted(probe) = &mut pack_at(records, 5).facts[1] else {
                panic!("a probe");
            };
            probe.number = 2;
        },
    );
}
