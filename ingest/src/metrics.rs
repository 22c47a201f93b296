//! Every metric of ingest.

use metrics::{Counter, Histogram};
use shared::domain::event::Source;
use shared::telemetry::metrics::{Labels, Registry};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything is stored.
    Accepted,
    /// A callback that no event stands for.
    Unmapped,
    /// Some of it is stored.
    Partial,
    /// A request of which no item is valid.
    Invalid,
    BadSignature,
    /// There is no usable secret to check the callback with.
    Unverifiable,
    /// Unknown account, ingest key or API key.
    Unknown,
    Malformed,
    TooLarge,
    /// A callback that makes more events, or more of them, than one may.
    TooMuch,
    /// The body did not arrive in time.
    TooSlow,
    /// As many bytes as may be are held already.
    Busy,
    /// As many as the project may.
    ProjectBusy,
    Unavailable,
}

/// One counter an outcome.
pub(crate) struct Outcomes {
    accepted: Counter,
    unmapped: Counter,
    partial: Counter,
    invalid: Counter,
    bad_signature: Counter,
    unverifiable: Counter,
    unknown: Counter,
    malformed: Counter,
    too_large: Counter,
    too_much: Counter,
    too_slow: Counter,
    busy: Counter,
    project_busy: Counter,
    unavailable: Counter,
}

impl Outcomes {
    fn new(registry: &Registry, name: &'static str, help: &'static str) -> Self {
        let counter = |labels: Labels| registry.counter(name, help, labels);
        Self {
            accepted: counter(&[("outcome", "accepted")]),
            unmapped: counter(&[("outcome", "unmapped")]),
            partial: counter(&[("outcome", "partial")]),
            invalid: counter(&[("outcome", "invalid")]),
            bad_signature: counter(&[("outcome", "bad_signature")]),
            unverifiable: counter(&[("outcome", "unverifiable")]),
            unknown: counter(&[("outcome", "unknown")]),
            malformed: counter(&[("outcome", "malformed")]),
            too_large: counter(&[("outcome", "too_large")]),
            too_much: counter(&[("outcome", "too_much")]),
            too_slow: counter(&[("outcome", "too_slow")]),
            busy: counter(&[("outcome", "busy")]),
            project_busy: counter(&[("outcome", "project_busy")]),
            unavailable: counter(&[("outcome", "unavailable")]),
        }
    }

    pub(crate) fn count(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Accepted => &self.accepted,
            Outcome::Unmapped => &self.unmapped,
            Outcome::Partial => &self.partial,
            Outcome::Invalid => &self.invalid,
            Outcome::BadSignature => &self.bad_signature,
            Outcome::Unverifiable => &self.unverifiable,
            Outcome::Unknown => &self.unknown,
            Outcome::Malformed => &self.malformed,
            Outcome::TooLarge => &self.too_large,
            Outcome::TooMuch => &self.too_much,
            Outcome::TooSlow => &self.too_slow,
            Outcome::Busy => &self.busy,
            Outcome::ProjectBusy => &self.project_busy,
            Outcome::Unavailable => &self.unavailable,
        };
        counter.increment(1);
    }
}

pub(crate) struct IngestMetrics {
    pub(crate) callbacks: Outcomes,
    pub(crate) first_party_requests: Outcomes,
    pub(crate) items_stored: Counter,
    pub(crate) items_repeated: Counter,
    pub(crate) items_invalid: Counter,
    pub(crate) items_too_large: Counter,
    pub(crate) items_unavailable: Counter,
    /// A connector emitted a type that the catalog does not have.
    pub(crate) unknown_event_types: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) publish: Histogram,
    pub(crate) publish_unavailable: Counter,
    pub(crate) publish_too_large: Counter,
    /// First tries whose acknowledgement did not come, and which were repeated.
    pub(crate) publish_repeated: Counter,
    events_native_programmatic: Counter,
    events_native_manual: Counter,
    events_synthetic: Counter,
    events_first_party: Counter,
}

impl IngestMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let items = |labels: Labels| {
            let help = "Items of POST /v1/events, each once";
            registry.counter("carillon_ingest_first_party_items_total", help, labels)
        };
        let events = |labels: Labels| {
            let help = "Events stored, repeats not counted";
            registry.counter("carillon_ingest_events_total", help, labels)
        };
        let failures = |labels: Labels| {
            let help = "Events that could not be stored, as far as is known";
            registry.counter("carillon_ingest_publish_failures_total", help, labels)
        };
        Self {
            callbacks: Outcomes::new(
                registry,
                "carillon_ingest_callbacks_total",
                "Callbacks of providers by how they ended",
            ),
            first_party_requests: Outcomes::new(
                registry,
                "carillon_ingest_first_party_requests_total",
                "POST /v1/events by how they ended",
            ),
            items_stored: items(&[("outcome", "stored")]),
            items_repeated: items(&[("outcome", "repeated")]),
            items_invalid: items(&[("outcome", "invalid")]),
            items_too_large: items(&[("outcome", "too_large")]),
            items_unavailable: items(&[("outcome", "unavailable")]),
            unknown_event_types: registry.counter(
                "carillon_ingest_unknown_event_types_total",
                "Events whose type the catalog lacks: a connector's mistake",
                &[],
            ),
            duplicates: registry.counter(
                "carillon_ingest_duplicates_total",
                "Events that were stored before, under the same id",
                &[],
            ),
            publish: registry.seconds(
                "carillon_ingest_publish_seconds",
                "From an event's turn to its acknowledgement",
                &[],
            ),
            publish_unavailable: failures(&[("reason", "unavailable")]),
            publish_too_large: failures(&[("reason", "too_large")]),
            publish_repeated: registry.counter(
                "carillon_ingest_publish_repeats_total",
                "Publishes repeated because no acknowledgement came",
                &[],
            ),
            events_native_programmatic: events(&[("source", "native_programmatic")]),
            events_native_manual: events(&[("source", "native_manual")]),
            events_synthetic: events(&[("source", "synthetic")]),
            events_first_party: events(&[("source", "first_party")]),
        }
    }

    /// Counts an event that was not there before.
    pub(crate) fn event_stored(&self, source: Source) {
        match source {
            Source::NativeProgrammatic => self.events_native_programmatic.increment(1),
            Source::NativeManual => self.events_native_manual.increment(1),
            Source::Synthetic => self.events_synthetic.increment(1),
            Source::FirstParty => self.events_first_party.increment(1),
            // The dispatcher's own.
            Source::Account | Source::Test => {}
        }
    }
}
