//! A run: some dispatchers, ingests and nats-servers, projects with webhooks, a load, faults, and
//! in the end the records that the checker judges.

mod fleet;
mod load;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::future;
use serde_json::{Value, json};
use shared::codec;
use shared::ids::{ProjectId, ReplicaId, WebhookId};
use shared::partition::PartitionCount;
use shared::subjects;
use shared::time::{Clock as _, SystemClock, Timestamp};

pub use self::fleet::{Fleet, Member, Paths, Size};
pub use self::load::{Load, Plan, Progress};

use crate::api::{self, Client};
use crate::checker::{ClientAnswer, Fault, FaultKind, Records, State, ToldLedger, collect};
use crate::cluster::Tenant;
use crate::eventually::eventually;
use crate::receiver::recorder::{Record, Recorder};

pub const STREAMS: [&str; 3] = [subjects::EVENTS, subjects::REGISTRY, subjects::JOURNAL];

const OWNED_WITHIN: Duration = Duration::from_secs(30);
/// An outcome's way into JOURNAL, on a busy machine.
const COMMITTED_WITHIN: Duration = Duration::from_secs(10);

/// Who is sent to.
#[derive(Clone, Debug)]
pub struct Audience {
    pub projects: usize,
    /// Of each project; each takes everything.
    pub webhooks: usize,
    pub policy: Value,
}

/// A project, and a client with its key.
#[derive(Clone, Debug)]
pub struct Target {
    pub project: ProjectId,
    pub tenant: Tenant,
}

/// Everything that runs. The services go before the recorder, so that they never meet a closed
/// port.
pub struct Run {
    pub fleet: Fleet,
    pub recorder: Recorder,
    pub targets: Vec<Target>,
    webhooks_each: usize,
    endpoints: HashMap<String, WebhookId>,
    faults: RefCell<Vec<Fault>>,
    clock: SystemClock,
}

impl Run {
    /// Starts the processes and makes the projects.
    pub async fn start(size: &Size, audience: &Audience) -> Result<Self> {
        let mut run = Self {
            fleet: Fleet::start(size).await?,
            recorder: Recorder::start()?,
            targets: Vec::new(),
            webhooks_each: audience.webhooks,
            endpoints: HashMap::new(),
            faults: RefCell::new(Vec::new()),
            clock: SystemClock::new(),
        };
        let admin = run.fleet.admin()?;
        let made =
            (0..audience.projects).map(|number| make(&admin, &run.recorder, number, audience));
        for (target, endpoints) in future::try_join_all(made).await? {
            run.targets.push(target);
            run.endpoints.extend(endpoints);
        }
        Ok(run)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A load of this run, which needs nothing of it any more.
    pub fn load(&self, plan: Plan) -> Result<Load> {
        Load::new(&self.targets, &self.fleet.ingest_urls(), plan)
    }

    /// Which dispatcher owns the partition of a project, by JOURNAL and by the dispatchers' logs.
    pub async fn owner_of(&self, target: usize) -> Result<usize> {
        let target = self
            .targets
            .get(target)
            .context("there is no such project")?;
        let subject = subjects::journal_epoch(PartitionCount::DEFAULT.of(target.project));
        eventually("an owner that runs", OWNED_WITHIN, async || {
            let owner = self
                .owner(&subject)
                .await
                .map_err(|error| format!("{error:#}"))?;
            let mut dispatchers = self.fleet.dispatchers.iter();
            dispatchers
                .position(|member| member.service.replica() == Some(owner))
                .ok_or_else(|| format!("{owner} is none of the dispatchers"))
        })
        .await
    }

    async fn owner(&self, subject: &str) -> Result<ReplicaId> {
        let context = self.fleet.nats.context();
        let journal = context.get_stream_no_info(subjects::JOURNAL).await?;
        let last = journal.get_last_raw_message_by_subject(subject).await?;
        Ok(codec::decode_epoch(&last.payload)?.owner)
    }

    /// Notes a fault that begins now; its place is for [`Self::undone`].
    pub fn fault(&self, kind: FaultKind, what: &str, replica: Option<ReplicaId>) -> usize {
        let mut faults = self.faults.borrow_mut();
        faults.push(Fault {
            kind,
            what: what.to_owned(),
            replica,
            at: self.now(),
            until: None,
        });
        faults.len() - 1
    }

    pub fn undone(&self, place: usize) {
        if let Some(fault) = self.faults.borrow_mut().get_mut(place) {
            fault.until = Some(self.clock.now());
        }
    }

    pub fn faults(&self) -> Vec<Fault> {
        self.faults.borrow().clone()
    }

    /// Waits until each event that was accepted was taken by each webhook. Not to come to that is
    /// no error: the checker says what is lost.
    pub async fn delivered(&self, accepted: usize, within: Duration) -> bool {
        let expected = accepted * self.webhooks_each;
        let all = eventually("deliveries", within, async || {
            let taken = self.recorder.distinct_successes();
            (taken >= expected)
                .then_some(())
                .ok_or_else(|| format!("{taken} of {expected}"))
        });
        all.await.is_ok()
    }

    /// Stops the services, so that all they know is in the logs, and collects the records. An exit
    /// other than 0 is an error.
    pub async fn records(&mut self, client: Vec<ClientAnswer>, state: State) -> Result<Records> {
        // While deliveries end, what the API says and what is read later are of two times.
        let told = match state {
            State::Quiet => self.told().await,
            State::Running => Vec::new(),
        };
        self.fleet.stop_services().await?;
        let logs = collect::logs(self.fleet.nats.context()).await?;
        Ok(Records {
            events: logs.events,
            registry: logs.registry,
            journal: logs.journal,
            client,
            endpoints: self.endpoints.clone(),
            receiver: self.recorder.record(),
            faults: self.faults(),
            told,
            state,
        })
    }

    /// Each webhook's ledger by the API, where it can tell. An endpoint has its answer a little
    /// before JOURNAL has the outcome, which alone the API tells of: a webhook with something
    /// pending, or of whose successes some are not told yet, is asked again, for as long as that
    /// may take.
    async fn told(&self) -> Vec<ToldLedger> {
        let taken = successes(&self.recorder.record());
        let mut told = Vec::new();
        // Whom a target was created through may have been killed since.
        let living = self.fleet.dispatchers.iter();
        let urls: Vec<_> = living.map(|member| member.service.http_url()).collect();
        for target in &self.targets {
            let client = target.tenant.client.round_robin(urls.clone());
            let prefix = format!("/{}/", target.project);
            let of_target = self
                .endpoints
                .iter()
                .filter(|(path, _)| path.starts_with(&prefix));
            for (endpoint, webhook) in of_target {
                let taken = taken.get(endpoint).copied().unwrap_or_default();
                let path = format!("/v1/webhooks/{webhook}/overview");
                let mut last = None;
                let at_rest = eventually("the last commit", COMMITTED_WITHIN, async || {
                    let asked = client.call(reqwest::Method::GET, &path, None);
                    let reply = asked.await.map_err(|error| error.to_string())?;
                    last = ledger(*webhook, &reply.json);
                    match &last {
                        Some(told) if told.pending > 0 || told.delivered < taken => {
                            Err(format!("{told:?} of {taken}"))
                        }
                        Some(_) | None => Ok(()),
                    }
                });
                // What never comes to rest, the checker judges.
                at_rest.await.ok();
                told.extend(last);
            }
        }
        told
    }
}

/// By path, how many events were taken there.
fn successes(record: &Record) -> HashMap<String, u64> {
    let taken: HashSet<_> = record
        .requests
        .iter()
        .filter(|request| request.succeeded())
        .filter_map(|request| Some((request.path, request.event?)))
        .collect();
    let mut counts = HashMap::new();
    for (path, _) in taken {
        if let Some(path) = record.paths.get(path) {
            *counts.entry(path.clone()).or_default() += 1;
        }
    }
    counts
}

fn ledger(webhook: WebhookId, overview: &Value) -> Option<ToldLedger> {
    let ledger = overview.get("ledger")?;
    let count = |field| ledger.get(field).and_then(Value::as_u64);
    Some(ToldLedger {
        webhook,
        accepted: count("accepted")?,
        delivered: count("delivered")?,
        pending: count("pending")?,
        exhausted: count("exhausted")?,
        skipped: count("skipped")?,
        gap: ledger.get("gap")?.as_i64()?,
    })
}

async fn make(
    admin: &Client,
    recorder: &Recorder,
    number: usize,
    audience: &Audience,
) -> Result<(Target, Vec<(String, WebhookId)>)> {
    let tenant = Tenant::create(admin, &format!("Project {number}")).await?;
    let project: ProjectId = tenant.project.parse()?;
    let mut endpoints = Vec::new();
    for number in 0..audience.webhooks {
        let path = format!("/{project}/{number}");
        let webhook = json!({
            "url": recorder.url(&path),
            "events": ["*"],
            "policy": audience.policy,
        });
        let created = tenant.client.create_webhook(&webhook).await?.expect(201)?;
        let id = api::text(&created, "/id")?;
        endpoints.push((path, id.parse().context("a webhook's id")?));
    }
    if endpoints.is_empty() {
        bail!("a project without webhooks proves nothing");
    }
    Ok((Target { project, tenant }, endpoints))
}
