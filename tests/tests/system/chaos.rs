//! A small storm on three servers, judged by the checker, so that both stay alive. `make chaos`
//! runs the large ones.

use std::time::Duration;

use serde_json::json;
use shared::time::{Clock as _, SystemClock};
use support::checker::{FaultKind, State, check};
use support::nats::SyncInterval;
use support::receiver::Answer;
use support::run::{Audience, Paths, Plan, Progress, Run, Size};
use tokio::time::sleep;

use crate::stage::IN_A_WHILE;

const KILLS: usize = 2;
const BETWEEN: Duration = Duration::from_millis(700);

#[tokio::test]
async fn the_checker_finds_nothing_wrong_when_a_dispatcher_is_killed_twice_on_three_servers() {
    let clock = SystemClock::new();
    let size = Size {
        dispatchers: 1,
        dispatcher: "dispatcher",
        ingests: 1,
        servers: 3,
        sync: SyncInterval::Default,
        paths: Paths::Direct,
    };
    let audience = Audience {
        projects: 3,
        webhooks: 2,
        policy: json!({ "retry_schedule_ms": vec![500; 20] }),
    };
    let mut run = Run::start(&size, &audience).await.unwrap();
    let started = clock.elapsed();
    run.recorder.answer(|arrival| {
        // A few fail at first, so that retries lie in the log when its owner is killed.
        let fails = arrival.number == 1 && arrival.id.ends_with('0');
        Answer::status(if fails { 500 } else { 204 }).after(Duration::from_millis(5))
    });
    let plan = Plan {
        events: 150,
        keys: 15,
        batch: 5,
        pace: Duration::from_millis(100),
    };
    let load = run.load(plan).unwrap();
    let progress = Progress::default();
    let (sent, ()) = tokio::join!(load.send(&progress), async {
        for _ in 0..KILLS {
            sleep(BETWEEN).await;
            let service = &mut run.fleet.dispatchers[0].service;
            let replica = service.replica();
            service.kill();
            let fault = run.fault(FaultKind::DispatcherKilled, "dispatcher-1", replica);
            run.fleet.dispatchers[0].service.restart().await.unwrap();
            run.undone(fault);
        }
    });
    sent.unwrap();
    assert_eq!(progress.accepted(), plan.events * audience.projects);
    let all_delivered = run.delivered(progress.accepted(), IN_A_WHILE).await;
    let records = run.records(progress.answers(), State::Quiet).await.unwrap();
    let report = check(&records);
    assert!(report.is_clean(), "{:#?}", report.violations);
    assert!(all_delivered, "{:#?}", report.figures);
    let owed = plan.events * audience.projects * audience.webhooks;
    let figures = report.figures;
    assert_eq!((figures.delivered, figures.lost), (owed, 0));
    assert!(figures.failed_attempts > 0 && figures.epochs > KILLS);
    #[expect(
        clippy::print_stdout,
        reason = "figures for whoever reads the test's output"
    )]
    {
        println!(
            "started in {started:?}, over in {:?}: {figures:#?}",
            clock.elapsed()
        );
    }
}
