//! Whatever a pack or a state may hold is read as it was written, and a state has one encoding.

mod replays;

use proptest::collection::{btree_map, hash_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use shared::codec;
use shared::domain::delivery::FailureKind;
use shared::domain::journal::{
    AttemptEntry, Checkpoint, Counted, DeactivateReason, EntryPlace, ExhaustReason, Failure,
    FailureWeight, JournalEntry, Kept, LanesSettled, Links, Pack, SkipReason, UnsentEnd,
};
use shared::domain::state::totals::{Row, Tally, Totals, TypeTotals, WebhookTotals};
use shared::domain::state::{
    Applied, Breaker, Failing, Health, Ledger, PartitionState, Rule, WebhookState,
};
use shared::ids::*;
use shared::limits::{STATE_BYTES_MAX, WEBHOOKS_PER_PROJECT_MAX};
use shared::time::Timestamp;

fn webhook_id() -> impl Strategy<Value = WebhookId> {
    any::<[u8; 16]>().prop_map(WebhookId::from_bytes)
}

fn event_id() -> impl Strategy<Value = EventId> {
    any::<[u8; 16]>().prop_map(EventId::from_bytes)
}

fn sequence() -> impl Strategy<Value = Sequence> {
    any::<u64>().prop_map(Sequence)
}

fn lane() -> impl Strategy<Value = LaneHash> {
    any::<u64>().prop_map(LaneHash)
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_millis)
}

fn position() -> impl Strategy<Value = Position> {
    (any::<u32>(), sequence()).prop_map(|(generation, sequence)| Position {
        generation,
        sequence,
    })
}

fn place() -> impl Strategy<Value = EntryPlace> {
    (sequence(), any::<u16>()).prop_map(|(pack, index)| EntryPlace { pack, index })
}

fn links() -> impl Strategy<Value = Links> {
    (of(place()), of(place())).prop_map(|(entry, failure)| Links { entry, failure })
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    (position(), event_id()).prop_map(|(position, event)| Checkpoint { position, event })
}

fn skip_reason() -> impl Strategy<Value = SkipReason> {
    select(SkipReason::ALL.to_vec())
}

fn exhaust_reason() -> impl Strategy<Value = ExhaustReason> {
    select(ExhaustReason::ALL.to_vec())
}

fn unsent_end() -> impl Strategy<Value = UnsentEnd> {
    prop_oneof![
        skip_reason().prop_map(UnsentEnd::Skipped),
        exhaust_reason().prop_map(UnsentEnd::Exhausted),
    ]
}

fn event_type() -> impl Strategy<Value = EventTypeHash> {
    any::<u32>().prop_map(EventTypeHash)
}

fn attempt() -> impl Strategy<Value = AttemptEntry> {
    let event = (webhook_id(), position(), event_id(), event_type(), lane());
    (event, any::<u32>(), time(), any::<u32>(), links()).prop_map(
        |(
            (webhook, position, event, event_type, lane),
            number,
            started_at,
            latency_ms,
            previous,
        )| {
            AttemptEntry {
                webhook,
                position,
                event,
                event_type,
                lane,
                number,
                started_at,
                latency_ms,
                previous,
            }
        },
    )
}

fn failure() -> impl Strategy<Value = Failure> {
    let kinds = vec![
        FailureKind::Timeout,
        FailureKind::Connect,
        FailureKind::Tls,
        FailureKind::Dns,
        FailureKind::RefusedAddress,
        FailureKind::Reset,
        FailureKind::Status,
        FailureKind::Protocol,
    ];
    (select(kinds), of(any::<u16>()), vec(any::<u8>(), 0..40)).prop_map(
        |(kind, status, sealed_answer)| Failure {
            kind,
            status,
            sealed_answer,
        },
    )
}

fn weight() -> impl Strategy<Value = FailureWeight> {
    (any::<bool>(), any::<bool>(), of(time())).prop_map(|(counts, is_spread, pause_until)| {
        FailureWeight {
            counts,
            is_spread,
            pause_until,
        }
    })
}

fn attempt_entry() -> impl Strategy<Value = JournalEntry> {
    let failed = || (attempt(), failure(), weight());
    prop_oneof![
        (attempt(), any::<u16>())
            .prop_map(|(attempt, status)| JournalEntry::Delivered { attempt, status }),
        (failed(), time()).prop_map(|((attempt, failure, weight), retry_at)| {
            JournalEntry::AttemptFailed {
                attempt,
                failure,
                retry_at,
                weight,
            }
        }),
        (failed(), exhaust_reason()).prop_map(|((attempt, failure, weight), reason)| {
            JournalEntry::Exhausted {
                attempt,
                failure,
                reason,
                weight,
            }
        }),
        (attempt(), unsent_end()).prop_map(|(attempt, end)| JournalEntry::Ended { attempt, end }),
        (failed(), time()).prop_map(|((attempt, failure, weight), next_probe_at)| {
            JournalEntry::ProbeFailed {
                attempt,
                failure,
                next_probe_at,
                weight,
            }
        }),
    ]
}

fn ending_entry() -> impl Strategy<Value = JournalEntry> {
    let kept = (sequence(), event_id(), event_type(), lane(), any::<u32>()).prop_map(
        |(sequence, event, event_type, lane, attempts)| Kept {
            sequence,
            event,
            event_type,
            lane,
            attempts,
        },
    );
    let lanes = prop_oneof![
        Just(LanesSettled::All),
        vec((lane(), of(sequence())), 0..4).prop_map(LanesSettled::Some),
    ];
    prop_oneof![
        (
            webhook_id(),
            sequence(),
            unsent_end(),
            any::<u64>(),
            vec(kept, 0..4)
        )
            .prop_map(|(webhook, through, end, count, kept)| {
                JournalEntry::PendingEnded {
                    webhook,
                    through,
                    end,
                    count,
                    kept,
                }
            }),
        (webhook_id(), sequence(), lanes).prop_map(|(webhook, resolved, lanes)| {
            JournalEntry::Settled {
                webhook,
                resolved,
                lanes,
            }
        }),
        (
            webhook_id(),
            any::<u64>(),
            vec((skip_reason(), any::<u64>()), 0..7)
        )
            .prop_map(|(webhook, accepted, skipped)| JournalEntry::CountedBack {
                webhook,
                accepted,
                skipped,
            }),
    ]
}

fn decision_entry() -> impl Strategy<Value = JournalEntry> {
    let reason = select(vec![
        DeactivateReason::Gone,
        DeactivateReason::ConsecutiveFailures,
        DeactivateReason::FailingTooLong,
    ]);
    let applied = (sequence(), position(), of(sequence()), any::<bool>());
    prop_oneof![
        (webhook_id(), applied).prop_map(
            |(webhook, (registry_sequence, from, back_through, lifts))| {
                JournalEntry::ConfigApplied {
                    webhook,
                    registry_sequence,
                    from,
                    back_through,
                    lifts,
                }
            }
        ),
        (webhook_id(), time(), time()).prop_map(|(webhook, at, next_probe_at)| {
            JournalEntry::BreakerOpened {
                webhook,
                at,
                next_probe_at,
            }
        }),
        (webhook_id(), time())
            .prop_map(|(webhook, at)| JournalEntry::BreakerClosed { webhook, at }),
        (webhook_id(), reason, time(), position()).prop_map(|(webhook, reason, at, from)| {
            JournalEntry::Deactivated {
                webhook,
                reason,
                at,
                from,
            }
        }),
        (webhook_id(), time(), position())
            .prop_map(|(webhook, at, from)| JournalEntry::Quarantined { webhook, at, from }),
        sequence()
            .prop_map(|registry_sequence| JournalEntry::AccountsProjected { registry_sequence }),
        Just(JournalEntry::Released),
    ]
}

fn pack() -> impl Strategy<Value = Pack> {
    let counted =
        (webhook_id(), of(skip_reason()), any::<u64>()).prop_map(|(webhook, skipped, count)| {
            Counted {
                webhook,
                skipped,
                count,
            }
        });
    let entry = prop_oneof![
        attempt_entry(),
        ending_entry(),
        decision_entry(),
        replays::replay_entry()
    ];
    let head = (any::<u64>(), any::<u64>(), time(), position());
    let counts = (vec(counted, 0..4), any::<bool>());
    (head, of(checkpoint()), counts, vec(entry, 0..8)).prop_map(
        |((epoch, number, at, classified), checkpoint, (counted, counts_continue), entries)| Pack {
            epoch: Epoch(epoch),
            number,
            at,
            classified,
            checkpoint,
            counted,
            counts_continue,
            entries,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    prop_oneof![
        (sequence(), any::<bool>())
            .prop_map(|(sequence, lifts)| Rule::Registry { sequence, lifts }),
        Just(Rule::Deactivated),
        Just(Rule::Quarantined),
    ]
}

fn health() -> impl Strategy<Value = Health> {
    let breaker = prop_oneof![
        Just(Breaker::Closed),
        any::<u32>().prop_map(|successes| Breaker::Ramping { successes }),
        (any::<u32>(), time(), sequence()).prop_map(|(probes, next_probe_at, last_probed)| {
            Breaker::Open {
                probes,
                next_probe_at,
                last_probed,
            }
        }),
    ];
    let times = (of(time()), of(time()), of(time()), of(time()));
    (any::<u32>(), any::<u32>(), times, breaker).prop_map(
        |(consecutive_failures, spread_failures, times, breaker)| Health {
            consecutive_failures,
            last_failure_at: times.0,
            failing_since: times.1,
            spread_failures,
            last_spread_at: times.2,
            paused_until: times.3,
            breaker,
        },
    )
}

fn webhook_state() -> impl Strategy<Value = WebhookState> {
    let applied = (position(), rule()).prop_map(|(from, rule)| Applied { from, rule });
    let ledger: BoxedStrategy<(u64, u64, [u64; 3], [u64; 6])> =
        any::<(u64, u64, [u64; 3], [u64; 6])>().boxed();
    let ledger = ledger.prop_map(|(accepted, delivered, exhausted, skipped)| Ledger {
        accepted,
        delivered,
        exhausted,
        skipped,
    });
    let failing = (event_id(), event_type(), lane(), any::<u32>(), time()).prop_map(
        |(event, event_type, lane, attempts, retry_at)| Failing {
            event,
            event_type,
            lane,
            attempts,
            retry_at,
        },
    );
    let pending = (
        of((sequence(), sequence())),
        sequence(),
        btree_map(sequence(), lane(), 0..4),
        btree_map(sequence(), failing, 0..4),
        btree_map(lane(), sequence(), 0..4),
    );
    let rest = (health(), links(), of(place()), replays::replays());
    (vec(applied, 0..4), ledger, pending, rest).prop_map(
        |(applied, ledger, pending, (health, links, decided, replays))| WebhookState {
            applied,
            ledger,
            uncounted: pending.0,
            resolved: pending.1,
            ended: pending.2,
            failing: pending.3,
            behind: pending.4,
            health,
            links,
            decided,
            replays,
        },
    )
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let tally = any::<(u32, u32, u32, u32)>().prop_map(
        |(delivered, failed_attempts, exhausted, skipped)| Tally {
            delivered,
            failed_attempts,
            exhausted,
            skipped,
        },
    );
    vec(
        (any::<u32>(), tally).prop_map(|(slot, tally)| Row { slot, tally }),
        0..4,
    )
}

fn totals() -> impl Strategy<Value = Totals> {
    let of_type = (rows(), rows()).prop_map(|(minutes, hours)| TypeTotals { minutes, hours });
    let of_webhook = btree_map(of(event_type()), of_type, 0..4);
    let of_webhook = of_webhook.prop_map(|types| WebhookTotals { types });
    hash_map(webhook_id(), of_webhook, 0..4).prop_map(|webhooks| Totals { webhooks })
}

fn state() -> impl Strategy<Value = PartitionState> {
    let last = of((any::<u64>().prop_map(Epoch), any::<u64>()));
    let head = (last, sequence(), of(position()), of(checkpoint()), time());
    let webhooks = hash_map(webhook_id(), webhook_state(), 0..6);
    let webhooks = (webhooks, totals());
    (head, webhooks, sequence(), any::<bool>()).prop_map(
        |(
            (last, journal, classified, checkpoint, now),
            (webhooks, totals),
            projected,
            released,
        )| {
            PartitionState {
                last,
                journal,
                classified,
                checkpoint,
                now,
                webhooks,
                totals,
                projected,
                released,
                counts_begun: Vec::new(),
            }
        },
    )
}

proptest! {
    #[test]
    fn packs_are_read_as_they_were_written(pack in pack()) {
        prop_assert_eq!(codec::decode_pack(&codec::encode_pack(&pack)), Ok(pack));
    }

    #[test]
    fn states_are_read_as_they_were_written_and_have_one_encoding(state in state()) {
        let bytes = codec::encode_state(&state);
        let read = codec::decode_state(&bytes).unwrap();
        prop_assert_eq!(&read, &state);
        // Another map, with another seed and another order of insertion.
        let mut webhooks: Vec<_> = state.webhooks.into_iter().collect();
        webhooks.reverse();
        let again = PartitionState {
            webhooks: webhooks.into_iter().collect(),
            ..read
        };
        prop_assert_eq!(codec::encode_state(&again), bytes);
    }

    #[test]
    fn folding_on_from_a_snapshot_gives_the_bytes_of_folding_all(
        packs in vec(pack(), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let packs: Vec<Pack> = (1..).zip(packs).map(|(number, pack)| Pack {
            epoch: Epoch(1),
            number,
            ..pack
        }).collect();
        let fold = |mut state: PartitionState, packs: &[Pack]| {
            for pack in packs {
                state.apply(Sequence(pack.number), pack).unwrap();
            }
            state
        };
        let (before, after) = packs.split_at(cut.index(packs.len()));
        let snapshot = codec::encode_state(&fold(PartitionState::default(), before));
        let resumed = fold(codec::decode_state(&snapshot).unwrap(), after);
        let whole = fold(PartitionState::default(), &packs);
        prop_assert_eq!(codec::encode_state(&resumed), codec::encode_state(&whole));
    }
}

/// A webhook that has delivered for years and has nothing to do.
fn idle() -> WebhookState {
    let place = EntryPlace {
        pack: Sequence(9_000_000_000),
        index: 700,
    };
    let registry = Applied {
        from: Position {
            generation: 2,
            sequence: Sequence(8_000_000_000),
        },
        rule: Rule::Registry {
            sequence: Sequence(5_000_000),
            lifts: false,
        },
    };
    WebhookState {
        applied: vec![registry],
        ledger: Ledger {
            accepted: 6_000_000_000,
            delivered: 5_999_999_900,
            exhausted: [100, 0, 0],
            ..Ledger::default()
        },
        resolved: Sequence(9_000_000_000),
        links: Links {
            entry: Some(place),
            failure: Some(place),
        },
        ..WebhookState::default()
    }
}

#[test]
fn an_idle_webhook_takes_about_a_hundred_bytes() {
    let mut state = PartitionState::default();
    let empty = codec::encode_state(&state).len();
    state
        .webhooks
        .insert(WebhookId::from_bytes([0xff; 16]), idle());
    let taken = codec::encode_state(&state).len() - empty;
    assert!(taken < 120, "{taken}");
}

#[test]
fn a_state_of_as_many_webhooks_as_a_project_may_have_is_read_again() {
    let webhooks = (0..u128::try_from(WEBHOOKS_PER_PROJECT_MAX).unwrap())
        .map(|id| (WebhookId::from_bytes(id.to_be_bytes()), idle()));
    let state = PartitionState {
        webhooks: webhooks.collect(),
        ..PartitionState::default()
    };
    let bytes = codec::encode_state(&state);
    assert!(bytes.len() < 12 << 20, "{}", bytes.len());
    assert!(codec::decode_state(&bytes) == Ok(state));
}

#[test]
fn what_is_longer_than_a_state_may_be_is_refused() {
    let mut bytes = vec![0; STATE_BYTES_MAX + 1];
    *bytes.first_mut().unwrap() = 1;
    assert_eq!(
        codec::decode_state(&bytes).unwrap_err().to_string(),
        "malformed: longer than a state may be"
    );
}
