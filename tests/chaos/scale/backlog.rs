//! A million events behind an endpoint that refuses them: the dispatcher's memory hardly grows, and
//! when the endpoint recovers everything arrives, each key in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use shared::time::{Clock as _, SystemClock};
use support::cluster::Cluster;
use support::receiver::Answer;
use support::receiver::recorder::Recorder;
use tokio::time::sleep;

use super::measured::Measured;
use super::memory::{resident_mb, watched};
use super::order::Published;
use super::publisher::Publisher;
use super::{delivered, dispatcher, metric, number, webhook};
use crate::arguments::Arguments;

const KEYS: usize = 2_000;
const GROWTH_MB_MAX: f64 = 10.0;
const WITHIN: Duration = Duration::from_secs(780);
/// For what is under way when nothing new comes.
const SETTLED: Duration = Duration::from_secs(3);

pub(super) async fn run(arguments: &Arguments, measured: &mut Measured) -> Result<()> {
    let cluster = Cluster::builder()
        .setting("CARILLON_SNAPSHOT_ENTRIES", "100000")
        .start()
        .await?;
    let recorder = Recorder::start()?;
    let refuses = Arc::new(AtomicBool::new(false));
    let rule = Arc::clone(&refuses);
    recorder.answer(move |_| {
        let status = if rule.load(Ordering::Relaxed) {
            503
        } else {
            204
        };
        Answer::status(status)
    });
    let tenant = cluster.tenant("Backlog").await?;
    // Probes follow the schedule.
    let policy = json!({ "retry_schedule_ms": vec![2_000; 20] });
    webhook(&tenant, &recorder, "/webhook", &policy).await?;
    let publisher = Publisher::new(&cluster, &tenant)?;
    let mut published = Published::default();
    let process = dispatcher(&cluster)?;
    let clock = SystemClock::new();

    let warm_up = arguments.scaled(100_000, 2_000);
    let work = async {
        publish(&publisher, &mut published, warm_up).await?;
        delivered(&recorder, published.len(), WITHIN).await
    };
    let ((), most_before_mb) = watched(process, work).await?;
    sleep(SETTLED).await;
    let before_mb = resident_mb(process)?;
    let rate = number(warm_up) / clock.elapsed().as_secs_f64();
    measured.figure(
        "warming up, with the endpoint healthy",
        rate,
        "deliveries/s",
    );

    refuses.store(true, Ordering::Relaxed);
    let started = clock.elapsed();
    let backlog = arguments.scaled(1_000_000, 10_000);
    let work = publish(&publisher, &mut published, backlog);
    let ((), most_mb) = watched(process, work).await?;
    let took = (clock.elapsed() - started).as_secs_f64();
    let (_, settled_mb) = watched(process, async {
        sleep(SETTLED).await;
        Ok(())
    })
    .await?;
    let after_mb = resident_mb(process)?;
    measured.figure(
        "events behind the refusing endpoint",
        number(backlog),
        "events",
    );
    measured.figure("published at", number(backlog) / took, "events/s");
    measured.figure("memory before", before_mb, "MB");
    measured.figure("memory after", after_mb, "MB");
    measured.figure("most before", most_before_mb, "MB");
    measured.figure("most while it refuses", most_mb.max(settled_mb), "MB");
    let grown = (after_mb - before_mb).max(most_mb.max(settled_mb) - most_before_mb);
    measured.figure("growth", grown, "MB");
    measured.target(
        grown < GROWTH_MB_MAX,
        format!("growth of less than {GROWTH_MB_MAX} MB"),
    );
    let probes = recorder.count() - recorder.distinct_successes();
    measured.figure("attempts and probes refused", number(probes), "requests");

    refuses.store(false, Ordering::Relaxed);
    let started = clock.elapsed();
    let all = delivered(&recorder, published.len(), WITHIN);
    let ((), most_mb) = watched(process, all).await?;
    let took = (clock.elapsed() - started).as_secs_f64();
    measured.figure("drained at", number(backlog) / took, "deliveries/s");
    measured.figure("most memory meanwhile", most_mb, "MB");
    let arrived = published.arrived(&recorder.record());
    measured.figure("lost", number(arrived.lost), "events");
    measured.figure("out of order", number(arrived.out_of_order), "events");
    measured.figure("repeated", number(arrived.repeated), "events");
    for name in ["backlog_reads_total", "events_fetched_total", "packs_total"] {
        let value = metric(&cluster, &format!("carillon_dispatcher_{name}")).await?;
        measured.figure(name, value, "");
    }
    measured.target(arrived.lost == 0, "nothing lost");
    measured.target(arrived.out_of_order == 0, "each key in order");
    Ok(())
}

async fn publish(publisher: &Publisher, published: &mut Published, count: usize) -> Result<()> {
    let keys = (0..count).map(|number| number % KEYS);
    let records = keys.clone().map(|key| format!("record-{key}"));
    let ids = publisher.publish(records).await?;
    for (key, id) in keys.zip(ids) {
        published.add(key, id);
    }
    Ok(())
}
