//! The kinds of work.

use std::hint::black_box;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use dispatcher::core::delivery::{
    AttemptOutcome, Beginning, Context, Deliveries, Effect, Finished, Input, Match, Offer, Rules,
};
use dispatcher::core::lanes::Bounds;
use serde_json::value::RawValue;
use shared::codec;
use shared::connector::{Callback, Connectors};
use shared::dialect::stackone::{Envelope, render};
use shared::domain::event::{Event, EventType, Source};
use shared::domain::journal::{AttemptEntry, JournalEntry, Links, Pack};
use shared::domain::policy::Policy;
use shared::domain::state::WebhookState;
use shared::domain::webhook::{Dialect, Status};
use shared::ids::{
    Epoch, EventId, EventTypeHash, LaneHash, Position, ProjectId, Sequence, WebhookId,
};
use shared::secret::new_signing_secret;
use shared::signing::{Signer, Signers};
use shared::time::Timestamp;
use support::providers;

type Work = Box<dyn FnMut() -> Result<()>>;

const AT: Timestamp = Timestamp::from_millis(1_750_158_000_123);
const WEBHOOK: WebhookId = WebhookId::from_bytes([4; 16]);
const EVENT: EventId = EventId::from_bytes([3; 16]);
const EVENT_TYPE: EventTypeHash = EventTypeHash(5);
const LANES: u64 = 50;
const PACK_ENTRIES: u64 = 50;
const BODY_BYTES: usize = 1_024;

/// One repetition of the work of this name.
pub(crate) fn prepare(name: &str) -> Result<Work> {
    Ok(match name {
        "step" => step()?,
        "encode-event" => {
            let event = event()?;
            Box::new(move || {
                black_box(codec::encode_event(black_box(&event)));
                Ok(())
            })
        }
        "decode-event" => {
            let bytes = codec::encode_event(&event()?);
            Box::new(move || {
                black_box(codec::decode_event(black_box(&bytes))?);
                Ok(())
            })
        }
        "encode-pack" => {
            let pack = pack();
            Box::new(move || {
                black_box(codec::encode_pack(black_box(&pack)));
                Ok(())
            })
        }
        "decode-pack" => {
            let bytes = codec::encode_pack(&pack());
            Box::new(move || {
                black_box(codec::decode_pack(black_box(&bytes))?);
                Ok(())
            })
        }
        "sign" => sign()?,
        "map" => map()?,
        "render" => rendering()?,
        _ => bail!("no work is called {name}"),
    })
}

/// From an event's offer to its delivery.
fn step() -> Result<Work> {
    let mut deliveries = Deliveries::new(Beginning {
        webhook: WEBHOOK,
        generation: 1,
        rules: Rules {
            policy: Policy::default(),
            dialect: Dialect::Stackone,
            status: Status::Enabled,
            lifts: false,
        },
        state: WebhookState::default(),
        idle_through: None,
        hold_ends_until: Timestamp::default(),
        bounds: Bounds::default(),
    });
    let context = Context {
        now: AT,
        jitter: 7,
        allowance: 32,
    };
    let mut effects = Vec::new();
    let mut sequence = 0;
    Ok(Box::new(move || {
        sequence += 1;
        let offer = Offer {
            after: Sequence(sequence - 1),
            through: Sequence(sequence),
            matches: vec![Match {
                sequence: Sequence(sequence),
                event: EVENT,
                event_type: EVENT_TYPE,
                lane: LaneHash(sequence % LANES),
                skipped: None,
            }],
        };
        deliveries.step(Input::Offered(offer), &context, &mut effects);
        let attempted = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Attempt(_)));
        ensure!(attempted, "event {sequence} is not attempted: {effects:?}");
        effects.clear();
        let finished = Finished {
            sequence: Sequence(sequence),
            started_at: AT,
            latency_ms: 1,
            outcome: AttemptOutcome::Delivered { status: 204 },
        };
        deliveries.step(Input::Finished(finished), &context, &mut effects);
        let journaled = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Journal(_)));
        ensure!(journaled, "event {sequence} is not delivered: {effects:?}");
        effects.clear();
        Ok(())
    }))
}

fn event() -> Result<Event> {
    Ok(Event {
        id: EVENT,
        project: ProjectId::from_bytes([1; 16]),
        event_type: EventType::parse("crm_contacts.updated")?,
        source: Source::FirstParty,
        account: None,
        provider: None,
        record_id: "42".into(),
        occurred_at: AT,
        published_at: AT,
        lane: LaneHash(7),
        registry_sequence: None,
        body: Bytes::from(vec![b'x'; BODY_BYTES]),
    })
}

fn pack() -> Pack {
    let position = |sequence| Position {
        generation: 1,
        sequence: Sequence(sequence),
    };
    let entries = (1..=PACK_ENTRIES).map(|sequence| JournalEntry::Delivered {
        attempt: AttemptEntry {
            webhook: WEBHOOK,
            position: position(sequence),
            event: EVENT,
            event_type: EVENT_TYPE,
            lane: LaneHash(u64::MAX / sequence),
            number: 1,
            started_at: AT,
            latency_ms: 12,
            previous: Links::default(),
        },
        status: 204,
    });
    Pack {
        epoch: Epoch(3),
        number: 8,
        at: AT,
        classified: position(PACK_ENTRIES),
        checkpoint: None,
        counted: Vec::new(),
        counts_continue: false,
        entries: entries.collect(),
    }
}

/// Both signatures of a delivery.
fn sign() -> Result<Work> {
    let signers = Signers {
        active: Signer::new(&new_signing_secret(&[7; 32]))?,
        previous: None,
    };
    let body = vec![b'x'; BODY_BYTES];
    Ok(Box::new(move || {
        let body = black_box(&body);
        black_box(signers.standard(EVENT, AT, body));
        black_box(signers.active.stackone(body));
        Ok(())
    }))
}

/// A provider's callback, verified and mapped.
fn map() -> Result<Work> {
    const SECRET: &str = "secret";
    let connectors = Connectors::embedded()?;
    let sent = providers::greenhouse(
        SECRET,
        providers::greenhouse_candidate_updated(7, "Ada"),
        "callback-1",
    );
    let headers: Vec<(String, String)> = sent
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect();
    Ok(Box::new(move || {
        let connector = connectors.get("greenhouse").context("the connector")?;
        let callback = Callback {
            method: "POST",
            query: "",
            headers: &headers,
            body: black_box(&sent.body),
        };
        connector.verify(&callback, Some(SECRET), AT)?;
        ensure!(connector.map(&callback)?.len() == 1, "one event");
        Ok(())
    }))
}

/// An event's body.
fn rendering() -> Result<Work> {
    let padding = "x".repeat(BODY_BYTES - 100);
    let data = RawValue::from_string(format!(r#"{{"padding":"{padding}"}}"#))?;
    let event_type = EventType::parse("crm_contacts.updated")?;
    Ok(Box::new(move || {
        let envelope = Envelope {
            id: EVENT,
            project: ProjectId::from_bytes([1; 16]),
            event_type: &event_type,
            occurred_at: AT,
            sent_at: AT,
            record_id: "42",
            account: None,
            raw_event: None,
            event_data: Some(&data),
        };
        black_box(render(black_box(&envelope)));
        Ok(())
    }))
}
