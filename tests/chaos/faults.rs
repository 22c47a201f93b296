//! One fault each: done, noted, and undone before the next.

use std::time::Duration;

use anyhow::{Context as _, Result};
use support::checker::FaultKind;
use support::eventually::eventually;
use support::proxy::Network;
use support::run::{Run, STREAMS};
use tokio::time::sleep;

/// Election and recovery of a loaded machine.
const LEADER_WITHIN: Duration = Duration::from_secs(60);

/// A service by kind and place.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Dispatcher(usize),
    Ingest(usize),
}

/// SIGKILL, and a new start after `down`.
pub(crate) async fn kill(run: &mut Run, target: Target, down: Duration) -> Result<()> {
    let replica = match target {
        Target::Dispatcher(_) => member(run, target)?.service.replica(),
        Target::Ingest(_) => None,
    };
    let kind = match target {
        Target::Dispatcher(_) => FaultKind::DispatcherKilled,
        Target::Ingest(_) => FaultKind::Other,
    };
    let name = member(run, target)?.service.name().to_owned();
    let fault = run.fault(kind, &format!("{name} killed"), replica);
    member(run, target)?.service.kill();
    sleep(down).await;
    member(run, target)?.service.restart().await?;
    run.undone(fault);
    Ok(())
}

/// SIGSTOP, and SIGCONT after `stopped`.
pub(crate) async fn pause(run: &mut Run, target: Target, stopped: Duration) -> Result<()> {
    let (kind, replica) = match target {
        Target::Dispatcher(_) => {
            let replica = member(run, target)?.service.replica();
            (FaultKind::DispatcherPaused, replica)
        }
        Target::Ingest(_) => (FaultKind::Other, None),
    };
    let name = member(run, target)?.service.name().to_owned();
    let fault = run.fault(kind, &format!("{name} paused"), replica);
    member(run, target)?.service.pause()?;
    sleep(stopped).await;
    member(run, target)?.service.resume()?;
    run.undone(fault);
    Ok(())
}

/// SIGTERM, which must end with 0, and a new start.
pub(crate) async fn roll(run: &mut Run, target: Target) -> Result<()> {
    let kind = match target {
        Target::Dispatcher(_) => FaultKind::DispatcherStopped,
        Target::Ingest(_) => FaultKind::Other,
    };
    let name = member(run, target)?.service.name().to_owned();
    let fault = run.fault(kind, &format!("{name} stopped"), None);
    let status = member(run, target)?.service.terminate().await?;
    anyhow::ensure!(status.success(), "{name} ended with {status} after SIGTERM");
    member(run, target)?.service.restart().await?;
    run.undone(fault);
    Ok(())
}

/// A bad network for one service, for so long.
pub(crate) async fn network(
    run: &mut Run,
    target: Target,
    network: Network,
    lasts: Duration,
) -> Result<()> {
    let (kind, replica) = match (target, network) {
        (Target::Dispatcher(_), Network::Cut | Network::Silent(_)) => {
            let replica = member(run, target)?.service.replica();
            (FaultKind::DispatcherCutOff, replica)
        }
        (Target::Dispatcher(_), Network::Open | Network::Slow(_) | Network::Gone)
        | (Target::Ingest(_), _) => (FaultKind::Other, None),
    };
    let name = member(run, target)?.service.name().to_owned();
    let fault = run.fault(kind, &format!("{name} {network:?}"), replica);
    member(run, target)?.network(network);
    sleep(lasts).await;
    member(run, target)?.network(Network::Open);
    run.undone(fault);
    Ok(())
}

/// One more dispatcher.
pub(crate) async fn add_dispatcher(run: &mut Run) -> Result<()> {
    let index = run.fleet.add_dispatcher()?;
    let target = Target::Dispatcher(index);
    let name = member(run, target)?.service.name().to_owned();
    run.fault(FaultKind::DispatcherAdded, &format!("{name} added"), None);
    member(run, target)?.service.wait_ready().await
}

/// SIGKILL of the server that leads the stream, once all replicas are caught up, so that no more
/// than one of them is away. Says which server it was.
pub(crate) async fn kill_leader(run: &mut Run, stream: &str) -> Result<usize> {
    run.fleet.nats.wait_current(&STREAMS).await?;
    let leader = eventually("a leader", LEADER_WITHIN, async || {
        let leader = run.fleet.nats.leader_of(stream).await;
        leader.ok_or_else(|| format!("{stream} has none"))
    })
    .await?;
    run.fault(
        FaultKind::Other,
        &format!("leader of {stream} killed"),
        None,
    );
    run.fleet.nats.server(leader)?.kill();
    Ok(leader)
}

/// Starts a killed server again and waits until it has caught up.
pub(crate) async fn restart_server(run: &mut Run, index: usize) -> Result<()> {
    run.fleet.nats.server(index)?.restart().await?;
    run.fleet.nats.wait_current(&STREAMS).await
}

/// SIGSTOP of a server, and SIGCONT after `stopped`.
pub(crate) async fn pause_server(run: &mut Run, index: usize, stopped: Duration) -> Result<()> {
    run.fleet.nats.wait_current(&STREAMS).await?;
    let fault = run.fault(
        FaultKind::Other,
        &format!("server {} paused", index + 1),
        None,
    );
    run.fleet.nats.server(index)?.pause()?;
    sleep(stopped).await;
    run.fleet.nats.server(index)?.resume()?;
    run.undone(fault);
    run.fleet.nats.wait_current(&STREAMS).await
}

fn member(run: &mut Run, target: Target) -> Result<&mut support::run::Member> {
    let member = match target {
        Target::Dispatcher(index) => run.fleet.dispatchers.get_mut(index),
        Target::Ingest(index) => run.fleet.ingests.get_mut(index),
    };
    member.with_context(|| format!("there is no {target:?}"))
}
