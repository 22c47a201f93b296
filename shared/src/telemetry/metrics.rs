//! The process's metrics: a recorder without globals, and how to declare what it records.

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

/// From half a millisecond to the longest timeout, in seconds.
const SECONDS_BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    300.0,
];

/// Declares metrics and renders them. Names are `carillon_<service>_<thing>_<unit>`.
pub struct Registry {
    recorder: PrometheusRecorder,
}

/// Label names and values; values come from enums, never from outside.
pub type Labels = &'static [(&'static str, &'static str)];

impl Registry {
    #[expect(clippy::expect_used, reason = "the buckets are a non-empty constant")]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
            .expect("there are buckets")
            .build_recorder();
        Self { recorder }
    }

    pub fn handle(&self) -> PrometheusHandle {
        self.recorder.handle()
    }

    /// A counter; its name ends in `_total`. It shows at once, as 0.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: Labels) -> Counter {
        self.recorder
            .describe_counter(KeyName::from_const_str(name), None, help.into());
        let counter = self
            .recorder
            .register_counter(&key(name, labels), &METADATA);
        counter.absolute(0);
        counter
    }

    pub fn gauge(&self, name: &'static str, help: &'static str, labels: Labels) -> Gauge {
        self.recorder
            .describe_gauge(KeyName::from_const_str(name), None, help.into());
        let gauge = self.recorder.register_gauge(&key(name, labels), &METADATA);
        gauge.set(0.0);
        gauge
    }

    /// A histogram in seconds; its name ends in `_seconds`.
    pub fn seconds(&self, name: &'static str, help: &'static str, labels: Labels) -> Histogram {
        self.recorder
            .describe_histogram(KeyName::from_const_str(name), None, help.into());
        self.recorder
            .register_histogram(&key(name, labels), &METADATA)
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

static METADATA: Metadata<'static> = Metadata::new("carillon", Level::INFO, None);

fn key(name: &'static str, labels: Labels) -> Key {
    let labels: Vec<Label> = labels
        .iter()
        .map(|(name, value)| Label::from_static_parts(name, value))
        .collect();
    Key::from_parts(name, labels)
}
