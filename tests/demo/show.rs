//! The show: each act with what came in, what was stored and what was delivered.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::eventually::eventually;
use support::receiver::Delivery;
use support::stored::StoredEvent;
use tokio::time::{Instant, interval};

use crate::acts::{self, Act};
use crate::page::Page;
use crate::scene::Scene;

/// For everything together.
const SHOWN_WITHIN: Duration = Duration::from_secs(30);

/// One act on one line.
pub(crate) struct Row {
    pub(crate) came_in: &'static str,
    pub(crate) answered: u16,
    /// In EVENTS.
    pub(crate) stored: u64,
    pub(crate) event: &'static str,
    /// From the request to the delivery.
    pub(crate) took: Duration,
    pub(crate) verified: bool,
}

/// An error unless everything was delivered and verified in time.
pub(crate) async fn all(scene: &Scene, page: &Page) -> Result<()> {
    let deadline = Instant::now() + SHOWN_WITHIN;
    let left = || deadline.saturating_duration_since(Instant::now());
    let acts = acts::all(scene);
    let mut rows = Vec::with_capacity(acts.len());
    for (number, act) in (1..).zip(&acts) {
        page.title(number, act.title);
        let sent_at = scene.receiver.elapsed();
        let status = act.send(scene).await?;
        page.came_in(act, status);
        let delivery = delivered(scene, act.event, &act.record_id, left()).await?;
        let stored = stored(scene, act, &delivery).await?;
        page.stored(&stored);
        let took = delivery.at.saturating_sub(sent_at);
        page.delivered(&delivery, took);
        rows.push(Row {
            came_in: act.source,
            answered: status,
            stored: stored.sequence,
            event: act.event,
            took,
            verified: delivery.verdict.verified(),
        });
        ensure!(
            delivery.verdict.verified(),
            "the delivery of {} is not verified",
            act.event
        );
    }
    let mut told = Vec::new();
    for account in [&scene.bamboohr, &scene.greenhouse] {
        let delivery = delivered(scene, "account.created", &account.id, left()).await?;
        told.push((account, delivery));
    }
    page.accounts_created(&told);
    page.glance(&rows);
    scene.receiver.all_verified()?;
    let count = acts.len() + told.len();
    page.verdict(&format!("All {count} events were delivered and verified."));
    Ok(())
}

/// Prints a line for whatever else arrives.
pub(crate) async fn follow(scene: &Scene, page: &Page) {
    let mut known = scene.receiver.count();
    let mut often = interval(Duration::from_millis(200));
    loop {
        often.tick().await;
        let deliveries = scene.receiver.deliveries();
        for delivery in deliveries.iter().skip(known) {
            page.arrived(delivery);
        }
        known = deliveries.len();
    }
}

async fn delivered(
    scene: &Scene,
    event: &str,
    record_id: &str,
    within: Duration,
) -> Result<Delivery> {
    let what = format!("delivery of {event} {record_id}");
    eventually(&what, within, async || {
        let of_record = scene.receiver.of_record(record_id);
        of_record
            .into_iter()
            .find(|delivery| delivery.event() == event && delivery.succeeded())
            .ok_or_else(|| format!("{} other deliveries arrived", scene.receiver.count()))
    })
    .await
}

/// The same event as it lies in EVENTS, read back from the server.
async fn stored(scene: &Scene, act: &Act, delivery: &Delivery) -> Result<StoredEvent> {
    let events = scene.stored.events().await?;
    let found = events
        .into_iter()
        .find(|stored| stored.event.id.to_string() == delivery.id());
    let stored = found.with_context(|| format!("{} is not in EVENTS", delivery.id()))?;
    ensure!(
        stored.event.event_type.as_str() == act.event && *stored.event.record_id == *act.record_id,
        "{} in EVENTS is another event",
        delivery.id()
    );
    Ok(stored)
}
