//! What the values of `shared` look like in JSON. `shared` itself knows nothing of documents; that
//! these are true is what the tests below and in `tests/openapi.rs` are for.

#![expect(dead_code, reason = "read by the derive alone")]

use serde::Serialize;
use utoipa::ToSchema;

/// A time by RFC 3339, in UTC, with milliseconds.
#[derive(ToSchema)]
#[schema(format = DateTime, example = "2026-01-31T12:00:00.000Z")]
pub(crate) struct Time(String);

#[derive(ToSchema)]
#[schema(
    pattern = "^prj_[0-9a-f]{32}$",
    example = "prj_0192f0c1d2e374a5b6c7d8e9fa0b1c2d"
)]
pub(crate) struct ProjectId(String);

#[derive(ToSchema)]
#[schema(
    pattern = "^key_[0-9a-f]{32}$",
    example = "key_0192f0c1d2e374a5b6c7d8e9fa0b1c2d"
)]
pub(crate) struct KeyId(String);

#[derive(ToSchema)]
#[schema(
    pattern = "^acc_[0-9a-f]{32}$",
    example = "acc_0192f0c1d2e374a5b6c7d8e9fa0b1c2d"
)]
pub(crate) struct AccountId(String);

/// With a prefix, or the bare UUID that the `hr-on` dialect prints.
#[derive(ToSchema)]
#[schema(
    pattern = "^(wh_[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$",
    example = "wh_0192f0c1d2e374a5b6c7d8e9fa0b1c2d"
)]
pub(crate) struct WebhookId(String);

/// As HR-ON prints ids.
#[derive(ToSchema)]
#[schema(
    pattern = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    example = "0192f0c1-d2e3-74a5-b6c7-d8e9fa0b1c2d"
)]
pub(crate) struct BareId(String);

#[derive(ToSchema)]
#[schema(
    pattern = "^sec_[0-9a-f]{32}$",
    example = "sec_0192f0c1d2e374a5b6c7d8e9fa0b1c2d"
)]
pub(crate) struct SecretId(String);

#[derive(ToSchema)]
#[schema(
    pattern = "^rpl_[0-9a-f]{32}$",
    example = "rpl_0192f0c1d2e374a5b6c7d8e9fa0b1c2d"
)]
pub(crate) struct ReplayId(String);

#[derive(ToSchema)]
#[schema(
    pattern = "^evt_[0-9a-f]{32}$",
    example = "evt_0192f0c1d2e374a5b6c7d8e9fa0b1c2d"
)]
pub(crate) struct EventId(String);

/// What a webhook speaks.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
pub(crate) enum Dialect {
    Stackone,
    HrOn,
}

/// Events are sent to a webhook that is `enabled`, and to no other.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Status {
    PendingVerification,
    Enabled,
    Disabled,
    Deactivated,
    Quarantined,
}

/// `per_record`: one lane for each ordering key; `strict`: one for all; `none`: no order.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Ordering {
    PerRecord,
    Strict,
    None,
}

/// How a webhook is delivered to.
#[derive(ToSchema)]
pub(crate) struct Policy {
    ordering: Ordering,
    /// Attempts under way at once.
    #[schema(minimum = 1, maximum = 256)]
    max_in_flight: u16,
    /// For connection and response head together.
    #[schema(minimum = 1000, maximum = 30000)]
    timeout_ms: u32,
    /// Attempts a second; null means no limit.
    #[schema(required, minimum = 1, maximum = 100_000)]
    rate_limit_per_second: Option<u32>,
    /// Waits between attempts, 7 days in all at most. Empty means one attempt.
    #[schema(value_type = Vec<Wait>, max_items = 20)]
    retry_schedule_ms: Vec<u64>,
    /// Null means never.
    #[schema(required, minimum = 1)]
    deactivate_after_consecutive_failures: Option<u32>,
    /// Of nothing but failure; null means never.
    #[schema(required, minimum = 1)]
    deactivate_after_failing_ms: Option<u64>,
}

/// Milliseconds.
#[derive(ToSchema)]
#[schema(minimum = 1, maximum = 604_800_000)]
pub(crate) struct Wait(u64);

/// The policy's fields, any of them. On creation missing ones take their defaults.
#[derive(ToSchema)]
pub(crate) struct PolicyChange {
    #[schema(nullable = false)]
    ordering: Option<Ordering>,
    /// Attempts under way at once; 32 by default.
    #[schema(minimum = 1, maximum = 256, nullable = false, example = 32)]
    max_in_flight: Option<u16>,
    /// For connection and response head together; 10,000 by default.
    #[schema(minimum = 1000, maximum = 30000, nullable = false, example = 10_000)]
    timeout_ms: Option<u32>,
    /// Attempts a second; null, which is the default, means no limit.
    #[schema(minimum = 1, maximum = 100_000, example = 50)]
    rate_limit_per_second: Option<u32>,
    /// Waits between attempts, 7 days in all at most. Empty means one attempt.
    #[schema(value_type = Option<Vec<Wait>>, max_items = 20, nullable = false, example = json!([5000, 30000]))]
    retry_schedule_ms: Option<Vec<u64>>,
    /// Null, which is the default, means never.
    #[schema(minimum = 1, example = 1000)]
    deactivate_after_consecutive_failures: Option<u32>,
    /// Of nothing but failure; 5 days by default, null means never.
    #[schema(minimum = 1, example = 432_000_000)]
    deactivate_after_failing_ms: Option<u64>,
}

/// Which events: a type of the catalog, `*`, or `<resource>.*`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Selector {
    /// A pattern.
    Pattern(String),
    Narrowed(NarrowedSelector),
}

/// A pattern, and from whom. Left out or empty means any.
#[derive(Serialize, ToSchema)]
pub(crate) struct NarrowedSelector {
    #[schema(example = "hris_employees.*")]
    event: String,
    /// Connector keys.
    #[schema(max_items = 100, nullable = false, example = json!(["bamboohr"]))]
    providers: Option<Vec<String>>,
    #[schema(nullable = false, example = json!(["native"]))]
    sources: Option<Vec<SourceFilter>>,
}

/// A source, or `native` for both native ones.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SourceFilter {
    Native,
    NativeProgrammatic,
    NativeManual,
    Synthetic,
    Account,
    FirstParty,
}

/// Where an event comes from.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Source {
    NativeProgrammatic,
    NativeManual,
    Synthetic,
    Account,
    FirstParty,
    Test,
}

/// Who makes the secret that a provider signs with: `generated` by us, or `given` by it.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum SigningSecretSource {
    Generated,
    Given,
}

/// Why an attempt failed.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum FailureKind {
    Timeout,
    Connect,
    Tls,
    Dns,
    RefusedAddress,
    Reset,
    Status,
    Protocol,
}

/// Why a delivery ended undelivered.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum ExhaustReason {
    Schedule,
    Expired,
    Deactivated,
}

/// Why an event that was accepted is not sent.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum SkipReason {
    Disabled,
    Deactivated,
    Unverified,
    Deleted,
    Erased,
    Undecodable,
}

/// The length of a bucket.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Grain {
    Minute,
    Hour,
}

/// What happened, counted.
#[derive(ToSchema)]
pub(crate) struct Sums {
    delivered: u64,
    /// Requests that failed, probes included.
    failed_attempts: u64,
    exhausted: u64,
    skipped: u64,
}

/// An error, by RFC 9457.
#[derive(ToSchema)]
pub(crate) struct Problem {
    status: u16,
    /// Stable; what programs branch on.
    code: String,
    title: String,
    detail: String,
    /// What is wrong with which place of the request, where that is known.
    #[schema(nullable = false)]
    errors: Option<Vec<FieldError>>,
}

/// What is wrong with one place of the request.
#[derive(ToSchema)]
pub(crate) struct FieldError {
    /// JSON pointer into the body, or `/` and the name of a parameter.
    pointer: String,
    detail: String,
}

/// What HR-ON's clients find in a problem besides.
#[derive(ToSchema)]
pub(crate) struct Refusal {
    /// False.
    success: bool,
    /// The problem's `detail`.
    message: String,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};
    use shared::domain::{delivery, event, filter, journal, policy, webhook};
    use shared::{connector, problem};
    use utoipa::PartialSchema;

    use super::*;

    fn schema<T: PartialSchema>() -> Value {
        serde_json::to_value(T::schema()).unwrap()
    }

    /// serde tells all names of an enum when it is given another one.
    #[track_caller]
    fn check_names<Real: DeserializeOwned + std::fmt::Debug, Term: PartialSchema>() {
        let error = serde_json::from_value::<Real>(json!("?"))
            .unwrap_err()
            .to_string();
        let names: BTreeSet<_> = error.split('`').skip(3).step_by(2).collect();
        let schema = schema::<Term>();
        let documented = schema["enum"].as_array().unwrap().iter();
        let documented: BTreeSet<_> = documented.map(|name| name.as_str().unwrap()).collect();
        assert!(!names.is_empty(), "{error}");
        assert_eq!(documented, names);
    }

    #[track_caller]
    fn check_fields<Term: PartialSchema>(real: impl Serialize) {
        let real = serde_json::to_value(real).unwrap();
        let real: BTreeSet<_> = real.as_object().unwrap().keys().cloned().collect();
        let schema = schema::<Term>();
        let documented = schema["properties"].as_object().unwrap().keys().cloned();
        assert_eq!(documented.collect::<BTreeSet<_>>(), real);
    }

    #[test]
    fn names_are_those_that_are_sent() {
        check_names::<webhook::Dialect, Dialect>();
        check_names::<webhook::Status, Status>();
        check_names::<policy::Ordering, Ordering>();
        check_names::<filter::SourceFilter, SourceFilter>();
        check_names::<event::Source, Source>();
        check_names::<connector::SigningSecretSource, SigningSecretSource>();
        check_names::<delivery::FailureKind, FailureKind>();
        check_names::<journal::ExhaustReason, ExhaustReason>();
        check_names::<journal::SkipReason, SkipReason>();
        check_names::<crate::core::overview::Grain, Grain>();
    }

    #[test]
    fn fields_are_those_that_are_sent() {
        check_fields::<Policy>(policy::Policy::default());
        check_fields::<PolicyChange>(policy::Policy::default());
        check_fields::<Sums>(crate::core::overview::Sums::default());
        let problem = problem::Problem::invalid_field("/url", "is required");
        check_fields::<FieldError>(&problem.errors[0]);
        check_fields::<Problem>(problem);
    }
}
