//! One record always fails, with many events of its own behind it: the other lanes of its webhook
//! go on at full rate, it is retried on its schedule, and once it may it drains in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use shared::domain::journal::JournalEntry;
use shared::ids::EventId;
use shared::time::{Clock as _, SystemClock, Timestamp};
use support::cluster::Cluster;
use support::eventually::eventually;
use support::receiver::Answer;
use support::receiver::recorder::{Record, Recorder};
use support::stored::Stored;

use super::measured::Measured;
use super::memory::{resident_mb, watched};
use super::order::Published;
use super::publisher::Publisher;
use super::{delivered, dispatcher, number, webhook};
use crate::arguments::Arguments;

const HOT: &str = "hot";
const OTHER_LANES: usize = 1_000;
/// Of the hot lane in the order's account.
const HOT_KEY: usize = OTHER_LANES;
/// 20 of them outlast the time for which the record fails.
const RETRY_MS: u64 = 15_000;
const RATIO_MIN: f64 = 0.8;
/// Before the record may succeed.
const REFUSALS_MIN: usize = 3;
/// A retry that is due starts within this, on a loaded machine.
const LATE_MS_MAX: i64 = 1_000;
const WITHIN: Duration = Duration::from_secs(600);
/// Bursts with and without the hot lane each; one before them warms up.
const BURSTS: usize = 3;

/// How the hot record is treated.
struct Hot {
    fails: AtomicBool,
    refused: AtomicUsize,
}

struct Stage {
    cluster: Cluster,
    recorder: Recorder,
    publisher: Publisher,
    published: Published,
    clock: SystemClock,
    burst: usize,
}

pub(super) async fn run(arguments: &Arguments, measured: &mut Measured) -> Result<()> {
    let behind = arguments.scaled(100_000, 1_000);
    let cluster = Cluster::builder()
        .setting("CARILLON_SNAPSHOT_ENTRIES", "100000")
        .start()
        .await?;
    let recorder = Recorder::start()?;
    let hot = Arc::new(Hot {
        fails: AtomicBool::new(true),
        refused: AtomicUsize::new(0),
    });
    let rule = Arc::clone(&hot);
    recorder.answer(move |arrival| {
        let is_refused = arrival.record_id == HOT && rule.fails.load(Ordering::Relaxed);
        if is_refused {
            rule.refused.fetch_add(1, Ordering::Relaxed);
        }
        Answer::status(if is_refused { 500 } else { 204 })
    });
    let tenant = cluster.tenant("Hot lane").await?;
    let policy = json!({ "retry_schedule_ms": vec![RETRY_MS; 20] });
    webhook(&tenant, &recorder, "/webhook", &policy).await?;
    let mut stage = Stage {
        publisher: Publisher::new(&cluster, &tenant)?,
        cluster,
        recorder,
        published: Published::default(),
        clock: SystemClock::new(),
        burst: arguments.scaled(30_000, OTHER_LANES),
    };
    stage.burst("warming up", 0, measured).await?;
    let without = stage.bursts("without the hot lane", 0, measured).await?;
    let process = dispatcher(&stage.cluster)?;
    let before_mb = resident_mb(process)?;
    let head = stage.publish_hot(1).await?;
    let head = head.first().copied().context("the hot lane's head")?;
    hot.refused(1).await?;
    let (_, most_mb) = watched(process, stage.publish_hot(behind)).await?;
    let beside = stage.bursts("beside the hot lane", behind + 1, measured);
    let (with, most_with_mb) = watched(process, beside).await?;
    hot.refused(REFUSALS_MIN).await?;
    measured.figure("events behind the failing one", number(behind), "events");
    measured.figure(
        "others beside it, of their rate without",
        with / without,
        "times",
    );
    measured.target(
        with / without >= RATIO_MIN,
        format!("others at {RATIO_MIN} of their rate"),
    );
    let grown = most_mb.max(most_with_mb) - before_mb;
    measured.figure("memory of the dispatcher before", before_mb, "MB");
    measured.figure("most that it grew by", grown, "MB");
    drain(&stage, &hot, measured).await?;
    judge(&stage, head, measured).await
}

impl Hot {
    /// Waits until it was refused so often.
    async fn refused(&self, count: usize) -> Result<()> {
        eventually("refusals", WITHIN, async || {
            let refused = self.refused.load(Ordering::Relaxed);
            (refused >= count)
                .then_some(())
                .ok_or_else(|| format!("{refused} of {count}"))
        })
        .await
    }
}

impl Stage {
    async fn publish_hot(&mut self, count: usize) -> Result<Vec<EventId>> {
        let records = std::iter::repeat_n(HOT.to_owned(), count);
        let ids = self.publisher.publish(records).await?;
        for id in &ids {
            self.published.add(HOT_KEY, *id);
        }
        Ok(ids)
    }

    async fn bursts(&mut self, what: &str, held: usize, measured: &mut Measured) -> Result<f64> {
        let mut sum = 0.0;
        for _ in 0..BURSTS {
            sum += self.burst(what, held, measured).await?;
        }
        Ok(sum / number(BURSTS))
    }

    /// Publishes events of the other lanes, and gives the rate at which they arrive: how many in
    /// the time from the first request to the last arrival. `held` of what was published before
    /// cannot arrive.
    async fn burst(&mut self, what: &str, held: usize, measured: &mut Measured) -> Result<f64> {
        let started = self.clock.elapsed();
        let keys = (0..self.burst).map(|number| number % OTHER_LANES);
        let records = keys.clone().map(|key| format!("record-{key}"));
        let ids = self.publisher.publish(records).await?;
        for (key, id) in keys.zip(ids) {
            self.published.add(key, id);
        }
        delivered(&self.recorder, self.published.len() - held, WITHIN).await?;
        let took = (self.clock.elapsed() - started).as_secs_f64();
        let rate = number(self.burst) / took;
        measured.figure(what, rate, "deliveries/s");
        Ok(rate)
    }
}

/// Lets the hot lane succeed.
async fn drain(stage: &Stage, hot: &Hot, measured: &mut Measured) -> Result<()> {
    hot.fails.store(false, Ordering::Relaxed);
    let waiting = stage.recorder.distinct_successes();
    eventually("the retry", WITHIN, async || {
        let succeeded = stage.recorder.distinct_successes() > waiting;
        succeeded.then_some(()).ok_or_else(|| "nothing".to_owned())
    })
    .await?;
    let started = stage.clock.elapsed();
    let process = dispatcher(&stage.cluster)?;
    let all = delivered(&stage.recorder, stage.published.len(), WITHIN);
    let ((), most_mb) = watched(process, all).await?;
    let took = (stage.clock.elapsed() - started).as_secs_f64();
    let rate = number(stage.published.len() - waiting) / took;
    measured.figure("the hot lane drains at", rate, "deliveries/s");
    measured.figure("most memory of the dispatcher meanwhile", most_mb, "MB");
    Ok(())
}

/// Whether everything arrived in order, and the failing one on its schedule.
async fn judge(stage: &Stage, head: EventId, measured: &mut Measured) -> Result<()> {
    let record = stage.recorder.record();
    let arrived = stage.published.arrived(&record);
    measured.figure("published", number(stage.published.len()), "events");
    measured.figure("lost", number(arrived.lost), "events");
    measured.figure("out of order", number(arrived.out_of_order), "events");
    measured.figure("repeated", number(arrived.repeated), "events");
    measured.target(arrived.lost == 0, "nothing lost");
    measured.target(arrived.out_of_order == 0, "each lane in order");
    let stored = Stored::connect(&stage.cluster.nats.url()).await?;
    let packs = stored.packs().await?;
    let due: Vec<Timestamp> = packs
        .iter()
        .flat_map(|pack| &pack.entries)
        .filter_map(|entry| match entry {
            JournalEntry::AttemptFailed {
                attempt, retry_at, ..
            } if attempt.event == head => Some(*retry_at),
            _ => None,
        })
        .collect();
    let late = lateness_ms(&record, head, &due);
    measured.figure("retries of the failing one", number(late.len()), "attempts");
    let earliest = late.iter().min().copied().unwrap_or_default();
    let latest = late.iter().max().copied().unwrap_or_default();
    measured.figure("earliest after its time", millis(earliest), "ms");
    measured.figure("latest after its time", millis(latest), "ms");
    measured.target(
        late.len() == due.len() && late.len() >= 2,
        "a retry for each time that was chosen, and at least two",
    );
    // The two clocks are read apart.
    measured.target(
        earliest >= -5 && latest <= LATE_MS_MAX,
        format!("each retry within {LATE_MS_MAX} ms of its time"),
    );
    Ok(())
}

/// How long after the time that was chosen each retry arrived.
fn lateness_ms(record: &Record, event: EventId, due: &[Timestamp]) -> Vec<i64> {
    let arrivals = record.requests.iter();
    let arrivals = arrivals.filter(|request| request.event == Some(event));
    let retries = arrivals.skip(1).zip(due).map(|(request, due)| {
        let since_start = i64::try_from(request.at_us / 1_000).unwrap_or(i64::MAX);
        let at = record.started_at.plus_millis(since_start);
        at.millis_since(*due)
    });
    retries.collect()
}

fn millis(ms: i64) -> f64 {
    i32::try_from(ms).map_or(f64::INFINITY, f64::from)
}
