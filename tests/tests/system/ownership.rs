//! Several dispatchers divide the partitions, and hand them over: in good order, and when one of
//! them dies or hangs.

use std::time::Duration;

use serde_json::json;
use support::api::Client;
use support::checker::{FaultKind, Report, State, check, takeovers};
use support::nats::SyncInterval;
use support::receiver::Answer;
use support::run::{Audience, Paths, Plan, Progress, Run, Size};
use tokio::time::sleep;

use crate::stage::IN_A_WHILE;

/// Of a TTL of 3 s, and what a debug build on a busy machine needs besides.
const TAKEN_WITHIN_MS: i64 = 6_000;
/// Longer than any lease.
const PAUSE: Duration = Duration::from_secs(8);
/// Before the first fault, so that there is a load that meets it.
const LOADED: Duration = Duration::from_secs(2);

const PLAN: Plan = Plan {
    events: 200,
    keys: 10,
    batch: 5,
    pace: Duration::from_millis(250),
};
/// Long enough for a rolling restart, which waits for each to be ready.
const LONG_PLAN: Plan = Plan {
    events: 500,
    pace: Duration::from_millis(300),
    ..PLAN
};

async fn run_of(dispatchers: usize) -> Run {
    let size = Size {
        dispatcher: "dispatcher",
        dispatchers,
        ingests: 1,
        servers: 1,
        sync: SyncInterval::Default,
        paths: Paths::Direct,
    };
    let audience = Audience {
        projects: 8,
        webhooks: 1,
        policy: json!({ "retry_schedule_ms": vec![500; 20] }),
    };
    let run = Run::start(&size, &audience).await.unwrap();
    run.recorder
        .answer(|_| Answer::status(204).after(Duration::from_millis(10)));
    run
}

/// Ends the run and has it judged: nothing lost, nothing out of order.
async fn judged(mut run: Run, progress: Progress) -> (Report, Vec<i64>) {
    let accepted = progress.accepted();
    let all_delivered = run.delivered(accepted, IN_A_WHILE).await;
    let records = run.records(progress.answers(), State::Quiet).await.unwrap();
    let report = check(&records);
    assert!(report.is_clean(), "{:#?}", report.violations);
    assert!(all_delivered, "{:#?}", report.figures);
    assert_eq!(report.figures.lost, 0, "{:#?}", report.figures);
    assert_eq!(report.figures.order_violations, 0, "{:#?}", report.figures);
    let took = takeovers(&records);
    let mut millis: Vec<i64> = took.iter().map(|takeover| takeover.millis()).collect();
    millis.sort_unstable();
    (report, millis)
}

async fn partitions_owned(run: &Run) -> Vec<u64> {
    let mut owned = Vec::new();
    for member in &run.fleet.dispatchers {
        let metrics = member.service.metrics().await.unwrap();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("carillon_dispatcher_partitions_owned "));
        owned.push(line.unwrap().parse().unwrap());
    }
    owned
}

#[expect(
    clippy::print_stdout,
    reason = "figures for whoever reads the test's output"
)]
fn print(what: &str, report: &Report, millis: &[i64]) {
    let figures = &report.figures;
    println!(
        "{what}: {} delivered, {} duplicates, {} epochs; without deliveries for {millis:?} ms",
        figures.delivered, figures.duplicates, figures.epochs
    );
}

#[tokio::test]
async fn two_dispatchers_divide_the_partitions_and_deliver_everything_once() {
    let run = run_of(2).await;
    let owned = partitions_owned(&run).await;
    assert_eq!(owned.iter().sum::<u64>(), 64, "{owned:?}");
    assert!(owned.iter().all(|count| *count > 15), "{owned:?}");
    let load = run.load(PLAN).unwrap();
    let progress = Progress::default();
    load.send(&progress).await.unwrap();
    let (report, millis) = judged(run, progress).await;
    assert_eq!(report.figures.duplicates, 0, "{:#?}", report.figures);
    print("two", &report, &millis);
}

#[tokio::test]
async fn a_change_made_through_any_replica_is_confirmed_by_the_owner() {
    let mut run = run_of(2).await;
    // Each project's webhooks are managed through both replicas, of which one is not the owner.
    let ingest = run.fleet.ingest_urls().remove(0);
    for target in &run.targets {
        for member in &run.fleet.dispatchers {
            let url = member.service.http_url();
            let client = Client::new(&url, &ingest, &target.tenant.key).unwrap();
            let webhook = json!({ "url": run.recorder.url("/more"), "events": ["ats_jobs.*"] });
            let created = client.create_webhook(&webhook).await.unwrap();
            let created = created.expect(201).unwrap();
            assert_eq!(created["applied"], true, "{created}");
            let id = created["id"].as_str().unwrap();
            client
                .delete_webhook(id)
                .await
                .unwrap()
                .expect(204)
                .unwrap();
        }
    }
    run.fleet.stop_services().await.unwrap();
}

#[tokio::test]
async fn the_others_take_over_from_one_that_is_killed() {
    let mut run = run_of(3).await;
    let load = run.load(PLAN).unwrap();
    let progress = Progress::default();
    let (sent, ()) = tokio::join!(load.send(&progress), async {
        sleep(LOADED).await;
        let victim = run.owner_of(0).await.unwrap();
        let service = &mut run.fleet.dispatchers[victim].service;
        let replica = service.replica();
        service.kill();
        run.fault(FaultKind::DispatcherKilled, "a dispatcher", replica);
        sleep(Duration::from_secs(6)).await;
        run.fleet.dispatchers.remove(victim);
    });
    sent.unwrap();
    let (report, millis) = judged(run, progress).await;
    print("killed", &report, &millis);
    assert!(!millis.is_empty());
    assert!(
        millis.iter().all(|millis| *millis < TAKEN_WITHIN_MS),
        "{millis:?}"
    );
}

#[tokio::test]
async fn one_that_hangs_for_long_comes_back_without_sending_what_is_not_its_own() {
    let mut run = run_of(2).await;
    let load = run.load(PLAN).unwrap();
    let progress = Progress::default();
    let (sent, ()) = tokio::join!(load.send(&progress), async {
        sleep(LOADED).await;
        let victim = run.owner_of(0).await.unwrap();
        let service = &mut run.fleet.dispatchers[victim].service;
        let replica = service.replica();
        service.pause().unwrap();
        let fault = run.fault(FaultKind::DispatcherPaused, "a dispatcher", replica);
        sleep(PAUSE).await;
        // What it was about to send comes at once when it goes on, before a command returns.
        run.undone(fault);
        run.fleet.dispatchers[victim].service.resume().unwrap();
        let service = &mut run.fleet.dispatchers[victim].service;
        service.wait_ready().await.unwrap();
    });
    sent.unwrap();
    let owned = partitions_owned(&run).await;
    assert_eq!(owned.iter().sum::<u64>(), 64, "{owned:?}");
    let (report, millis) = judged(run, progress).await;
    print("paused", &report, &millis);
    assert!(
        millis.iter().all(|millis| *millis < TAKEN_WITHIN_MS),
        "{millis:?}"
    );
}

#[tokio::test]
async fn a_rolling_restart_under_load_repeats_and_loses_nothing() {
    let mut run = run_of(3).await;
    let load = run.load(LONG_PLAN).unwrap();
    let progress = Progress::default();
    let (sent, ()) = tokio::join!(load.send(&progress), async {
        for place in 0..run.fleet.dispatchers.len() {
            sleep(LOADED).await;
            let service = &mut run.fleet.dispatchers[place].service;
            let status = service.terminate().await.unwrap();
            assert!(status.success(), "{status}");
            service.restart().await.unwrap();
        }
        progress.stop();
    });
    sent.unwrap();
    let (report, millis) = judged(run, progress).await;
    print("rolling", &report, &millis);
    assert_eq!(report.figures.duplicates, 0, "{:#?}", report.figures);
}
