//! A hundred thousand webhooks, most of which have nothing to do: what they take in memory, and how
//! soon a dispatcher is ready that begins from snapshots, without and with a long journal behind
//! them.

use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future;
use shared::ids::ProjectId;
use shared::random;
use shared::secret::MasterKeys;
use shared::time::{Clock as _, SystemClock};
use support::api;
use support::cluster::{Cluster, Tenant};
use support::eventually::eventually;
use support::receiver::recorder::Recorder;
use tokio::time::sleep;

use super::measured::Measured;
use super::memory::{resident_mb, watched};
use super::publisher::Publisher;
use super::registry::Writer;
use super::{delivered, dispatcher, metric, number};
use crate::arguments::Arguments;

const PROJECTS: usize = 100;
const MEMORY_MB_MAX: f64 = 400.0;
const READY_SECONDS_MAX: f64 = 10.0;
const READY_BEHIND_SECONDS_MAX: f64 = 20.0;
/// Starts that begin from the same snapshots.
const STARTS: usize = 2;
/// Projects whose events make the journal long, and how many each has.
const BUSY_PROJECTS: usize = 10;
const BUSY_EVENTS: usize = 100;
const WITHIN: Duration = Duration::from_secs(700);
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks at what is to stand still.
const SETTLED: Duration = Duration::from_secs(3);
/// A partition's entries after which it stores a snapshot: few are left behind the last one.
const FEW_ENTRIES: &str = "50";
/// More than are written.
const MANY_ENTRIES: &str = "1000000000";

pub(super) async fn run(arguments: &Arguments, measured: &mut Measured) -> Result<()> {
    let webhooks_each = arguments.scaled(1_000, 10);
    let webhooks = PROJECTS * webhooks_each;
    let master_key = STANDARD.encode(random::bytes::<32>());
    let mut cluster = Cluster::builder()
        .setting("CARILLON_MASTER_KEY", &master_key)
        .setting("CARILLON_SNAPSHOT_ENTRIES", FEW_ENTRIES)
        .start()
        .await?;
    let recorder = Recorder::start()?;
    let mut tenants = Vec::new();
    for number in 0..PROJECTS {
        tenants.push(cluster.tenant(&format!("Project {number}")).await?);
    }
    stop(&mut cluster).await?;
    let keys = MasterKeys::new(&master_key, &[])?;
    write(&cluster, &recorder, keys, &tenants, webhooks_each).await?;
    measured.figure("webhooks", number(webhooks), "");

    let first = start(&mut cluster).await?;
    measured.figure("ready for the first time after", first, "s");
    taken_up(&cluster, webhooks).await?;
    measured.figure(
        "memory after taking them up",
        resident_mb(dispatcher(&cluster)?)?,
        "MB",
    );

    cluster
        .dispatcher
        .set("CARILLON_SNAPSHOT_ENTRIES", MANY_ENTRIES);
    for _ in 0..STARTS {
        stop(&mut cluster).await?;
        let (seconds, most_mb, settled_mb) = measured_start(&mut cluster).await?;
        measured.figure("ready from snapshots after", seconds, "s");
        measured.figure("memory, idle", settled_mb, "MB");
        measured.figure("most memory of the start", most_mb, "MB");
        measured.target(
            seconds <= READY_SECONDS_MAX,
            format!("ready within {READY_SECONDS_MAX} s"),
        );
        measured.target(
            settled_mb < MEMORY_MB_MAX,
            format!("less than {MEMORY_MB_MAX} MB"),
        );
    }

    let deliveries = fill_journal(&cluster, &recorder, &tenants, webhooks_each);
    let (entries, most_mb) = watched(dispatcher(&cluster)?, deliveries).await?;
    measured.figure("journal entries behind the snapshots", entries, "");
    measured.figure("most memory while they were written", most_mb, "MB");
    stop(&mut cluster).await?;
    let (seconds, most_mb, settled_mb) = measured_start(&mut cluster).await?;
    measured.figure("ready with them behind the snapshots after", seconds, "s");
    measured.figure("memory then", settled_mb, "MB");
    measured.figure("most memory of that start", most_mb, "MB");
    measured.target(
        seconds <= READY_BEHIND_SECONDS_MAX,
        format!("ready within {READY_BEHIND_SECONDS_MAX} s with a long journal"),
    );
    Ok(())
}

async fn write(
    cluster: &Cluster,
    recorder: &Recorder,
    keys: MasterKeys,
    tenants: &[Tenant],
    webhooks_each: usize,
) -> Result<()> {
    let now = SystemClock::new().now();
    let writer = Writer::connect(&cluster.nats.url(), keys, now).await?;
    let mut endpoints = Vec::new();
    for tenant in tenants {
        let project: ProjectId = tenant.project.parse()?;
        let urls = (0..webhooks_each).map(|place| recorder.url(&format!("/{project}/{place}")));
        endpoints.extend(urls.map(|url| (project, url)));
    }
    writer.webhooks(endpoints.into_iter()).await
}

async fn stop(cluster: &mut Cluster) -> Result<()> {
    let status = cluster.dispatcher.terminate().await?;
    ensure!(status.success(), "the dispatcher ended with {status}");
    Ok(())
}

/// Starts the dispatcher, and says how many seconds later it was ready.
async fn start(cluster: &mut Cluster) -> Result<f64> {
    let clock = SystemClock::new();
    let began = clock.elapsed();
    cluster.dispatcher.start()?;
    let url = format!("{}/readyz", cluster.dispatcher.ops_url());
    let http = api::http()?;
    eventually("ready", READY_WITHIN, async || {
        match http.get(&url).send().await {
            Ok(answer) if answer.status() == 200 => Ok(()),
            Ok(answer) => Err(answer.text().await.unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    Ok((clock.elapsed() - began).as_secs_f64())
}

/// Seconds to readiness, the most memory of the time until then and shortly after, and what is
/// held in the end.
async fn measured_start(cluster: &mut Cluster) -> Result<(f64, f64, f64)> {
    let seconds = start(cluster).await?;
    let process = dispatcher(cluster)?;
    let ((), most_mb) = watched(process, async {
        sleep(SETTLED).await;
        Ok(())
    })
    .await?;
    Ok((seconds, most_mb, resident_mb(process)?))
}

/// Waits until each webhook's configuration is journaled, and no snapshot is due any more.
async fn taken_up(cluster: &Cluster, webhooks: usize) -> Result<()> {
    let entries = "carillon_dispatcher_pack_entries_total";
    eventually("configurations", WITHIN, async || {
        let journaled = metric(cluster, entries).await.unwrap_or_default();
        (journaled >= number(webhooks))
            .then_some(())
            .ok_or_else(|| format!("{journaled} of {webhooks}"))
    })
    .await?;
    let stored = "carillon_dispatcher_snapshots_total";
    let mut before = metric(cluster, stored).await?;
    eventually("snapshots", WITHIN, async || {
        sleep(SETTLED).await;
        let now = metric(cluster, stored).await.unwrap_or_default();
        let stands = std::mem::replace(&mut before, now) >= now && now > 0.0;
        stands.then_some(()).ok_or_else(|| format!("{now} so far"))
    })
    .await
}

/// Delivers so much that the journal is long, and gives the number of entries.
async fn fill_journal(
    cluster: &Cluster,
    recorder: &Recorder,
    tenants: &[Tenant],
    webhooks_each: usize,
) -> Result<f64> {
    let busy = tenants.iter().take(BUSY_PROJECTS);
    let published = busy.map(async |tenant| {
        let records = (0..BUSY_EVENTS).map(|number| format!("record-{number}"));
        let publisher = Publisher::new(cluster, tenant)?;
        publisher.publish(records).await
    });
    let events: usize = future::try_join_all(published)
        .await?
        .iter()
        .map(Vec::len)
        .sum();
    delivered(recorder, events * webhooks_each, WITHIN).await?;
    sleep(SETTLED).await;
    metric(cluster, "carillon_dispatcher_pack_entries_total").await
}
