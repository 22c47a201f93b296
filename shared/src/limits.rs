//! Every bound that is not configurable, with its reason.

/// A callback's body, decompressed. Larger ones get 413.
pub const CALLBACK_BODY_BYTES_MAX: usize = 1 << 20;
/// A `POST /v1/events` request: 1,000 events of a usual size fit well within.
pub const EVENTS_REQUEST_BYTES_MAX: usize = 8 << 20;
/// One first-party event's `data` and fields.
pub const EVENT_BYTES_MAX: usize = 256 << 10;
/// Items of one `POST /v1/events`.
pub const EVENTS_PER_REQUEST_MAX: usize = 1_000;
/// A management request's body.
pub const API_BODY_BYTES_MAX: usize = 256 << 10;
/// Record ids, idempotency keys and other identifiers chosen outside.
pub const OUTSIDE_ID_BYTES_MAX: usize = 512;
/// Names and descriptions.
pub const NAME_BYTES_MAX: usize = 512;
/// An event type's name.
pub const EVENT_TYPE_BYTES_MAX: usize = 128;
/// Selectors of one webhook.
pub const SELECTORS_MAX: usize = 200;
/// Providers or sources named by one selector.
pub const SELECTOR_NAMES_MAX: usize = 100;
/// Signing secrets of one webhook: a rotation takes two.
pub const SIGNING_SECRETS_MAX: usize = 10;
/// Static headers of one webhook.
pub const STATIC_HEADERS_MAX: usize = 20;
/// Name and value of one static header, together.
pub const STATIC_HEADER_BYTES_MAX: usize = 4 << 10;
/// Credentials and settings of one account, as JSON.
pub const ACCOUNT_JSON_BYTES_MAX: usize = 64 << 10;
/// A pack in JOURNAL (`protocol.md`, rule 8).
pub const PACK_BYTES_MAX: usize = 256 << 10;
/// A snapshot of one partition; a large one is a fifth of it.
pub const SNAPSHOT_BYTES_MAX: usize = 256 << 20;
/// Outcomes not yet journaled, a partition (rule 19).
pub const UNJOURNALED_MAX: usize = 1_000;
/// Age of the oldest outcome not yet journaled, above which no attempt starts (rule 19).
pub const UNJOURNALED_AGE_MS_MAX: i64 = 2_000;
/// What is kept of a failed attempt's answer.
pub const ANSWER_BYTES_MAX: usize = 1 << 10;
/// How long an endpoint's `Retry-After` is honoured (`protocol.md`, rule 16).
pub const RETRY_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Pending deliveries that one webhook holds in memory, those of waiting lanes aside; what is
/// beyond waits in the stream.
pub const WINDOW_MAX: usize = 4_096;
/// The same while nothing is sent, because the endpoint is down or the status forbids it: heads to
/// probe with.
pub const NARROW_WINDOW_MAX: usize = 32;
/// Of these, what one lane may take; what is beyond is read again when its turn is near.
pub const LANE_MAX: usize = 512;
/// Deliveries of a webhook that end before JOURNAL is told how far all have ended: what ended since
/// is remembered one by one.
pub const SETTLE_AFTER_ENDS: usize = 256;
/// What a lane keeps in memory whose head waits for its retry.
pub const PARKED_LANE_MAX: usize = 8;
/// Lanes of one webhook that wait for a retry (`protocol.md`, the model).
pub const PARKED_LANES_MAX: usize = 100_000;
/// JOURNAL keeps entries for 14 days. What is younger than this is certainly still told of there;
/// what EVENTS keeps is younger yet.
pub const JOURNAL_CERTAIN_MS: i64 = 13 * 24 * 60 * 60 * 1_000;
/// Registry versions older than this can no longer classify a retained event.
pub const VERSION_HISTORY_MS: i64 = 15 * 24 * 60 * 60 * 1_000;
/// A decoded message of our own; anything larger is not ours.
pub const DECODE_BYTES_MAX: usize = 16 << 20;
/// An encoded state of one partition, as snapshots hold it. 100,000 idle webhooks take 11 MiB; the rest is room for
/// what their endpoints' failures make them remember.
pub const STATE_BYTES_MAX: usize = 256 << 20;
/// Webhooks of one project.
pub const WEBHOOKS_PER_PROJECT_MAX: usize = 100_000;
/// Events that one replay may name.
pub const REPLAY_EVENT_IDS_MAX: usize = 1_000;
/// Replays of one webhook that have not ended; each remembers what had ended when it began.
pub const REPLAYS_ACTIVE_MAX: usize = 4;
/// Replays of one webhook that can be asked for, those that have ended included.
pub const REPLAYS_KEPT_MAX: usize = 100;
/// How long one that has ended can be asked for.
pub const REPLAYS_KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1_000;
/// Events of a replay that are held in memory, at about 50 bytes each; what is beyond is read again.
pub const REPLAY_WINDOW_MAX: usize = 10_000;
/// Deactivations of one webhook whose deliveries a replay can still find.
pub const DEACTIVATIONS_KEPT_MAX: usize = 4;
/// Configurations of one webhook that are remembered though nothing pending was accepted by them:
/// a replay finds what was owed by these.
pub const APPLIED_KEPT_MAX: usize = 16;
