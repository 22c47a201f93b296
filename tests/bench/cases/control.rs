//! A project with very many webhooks: how fast they are made, and how long a page of them takes.
//! Nothing is sent to them.

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use shared::time::{Clock as _, SystemClock};
use support::api::Client;
use support::cluster::Tenant;

use crate::figures::Round;
use crate::mark::now_us;
use crate::number;
use crate::percentiles::Samples;
use crate::stage::{Setup, Stage};

const CASE: &str = "control";
const WEBHOOKS: f64 = 10_000.0;
/// Calls that wait for their answers at once.
const CALLERS: usize = 16;
const PAGE: usize = 100;
/// Each reads the whole list, by one caller.
const LISTINGS: usize = 3;

pub(super) async fn run(scale: f64, round: &mut Round) -> Result<()> {
    let stage = Stage::start(Setup::default()).await?;
    let tenant = Tenant::create(&stage.fleet.admin()?, "Control").await?;
    // Counts here are small and whole.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small"
    )]
    let webhooks = (WEBHOOKS * scale) as usize;
    let url = |number| stage.receiver.url(&format!("/fast/{number}"));
    let clock = SystemClock::new();
    let made = (0..webhooks).map(|number| create(&tenant.client, &clock, url(number)));
    let made: Vec<Made> = stream::iter(made)
        .buffer_unordered(CALLERS)
        .try_collect()
        .await?;
    let rate = number(u64::try_from(made.len())?) / clock.elapsed().as_secs_f64();
    round.add(CASE, "created", rate, "webhooks/s");
    let unconfirmed = made.iter().filter(|made| !made.is_applied).count();
    if unconfirmed > 0 {
        let fault = format!("{CASE}: {unconfirmed} not confirmed by the owner in time");
        round.faults.push(fault);
    }
    let mut samples = Samples::default();
    made.iter()
        .for_each(|made| samples.add_us(made.from_us, made.to_us));
    add(round, "create", &samples)?;

    let mut samples = Samples::default();
    for _ in 0..LISTINGS {
        let listed = list(&tenant.client, &clock, &mut samples).await?;
        ensure!(listed == webhooks, "{listed} of {webhooks} are listed");
    }
    add(round, "page of 100", &samples)?;
    stage.memory(CASE, round)
}

struct Made {
    from_us: u64,
    to_us: u64,
    is_applied: bool,
}

async fn create(client: &Client, clock: &SystemClock, url: String) -> Result<Made> {
    let webhook = json!({ "url": url, "events": ["*"] });
    let from_us = now_us(clock);
    let created = client.create_webhook(&webhook).await?.expect(201)?;
    Ok(Made {
        from_us,
        to_us: now_us(clock),
        is_applied: created.get("applied") == Some(&Value::Bool(true)),
    })
}

/// Every page, as it arrives; gives how many webhooks they hold.
async fn list(client: &Client, clock: &SystemClock, samples: &mut Samples) -> Result<usize> {
    let (mut listed, mut cursor) = (0, String::new());
    loop {
        let path = format!("/v1/webhooks?limit={PAGE}{cursor}");
        let from_us = now_us(clock);
        let reply = client.call(Method::GET, &path, None).await?;
        samples.add_us(from_us, now_us(clock));
        let page = reply.expect(200)?;
        listed += items(&page).context("a page")?.len();
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(listed),
        }
    }
}

fn items(page: &Value) -> Option<&Vec<Value>> {
    page.get("items")?.as_array()
}

fn add(round: &mut Round, what: &str, samples: &Samples) -> Result<()> {
    let percentiles = samples.percentiles().context("nothing was measured")?;
    for (name, value) in [
        ("p50", percentiles.p50),
        ("p95", percentiles.p95),
        ("p99", percentiles.p99),
    ] {
        round.add(CASE, format!("{what}: {name}"), value, "ms");
    }
    Ok(())
}
