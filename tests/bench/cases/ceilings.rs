//! What driver, receiver and HTTP client can do with nothing between them.

use anyhow::Result;

use crate::children::{Loading, Receiver};
use crate::figures::Round;
use crate::load::request::{Shape, Target};
use crate::load::{Pace, Plan, Until, bare};
use crate::number;
use crate::receiver::Speaks;
use crate::stage::{CONNECTIONS, EVENT_BYTES};
use crate::usage;

const CASE: &str = "ceilings";
const SECONDS: f64 = 4.0;
/// A body as it is delivered.
const BODY_BYTES: usize = EVENT_BYTES + 300;

pub(super) async fn run(scale: f64, round: &mut Round) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::start(Speaks::Plain, folder.path()).await?;
    let seconds = SECONDS * scale;
    for (name, role) in [("direct", "drive"), ("bare loop", "post")] {
        receiver.reset().await?;
        let before = usage::cpu_seconds(receiver.process_id())?;
        let loading = if role == "drive" {
            let target = Target {
                path: "/fast/0".into(),
                secret: String::new(),
            };
            Loading::start(role, folder.path(), |result| Plan {
                address: receiver.address(),
                targets: vec![target],
                shape: Shape::Delivery,
                event_bytes: BODY_BYTES,
                batch: 1,
                keys: CONNECTIONS,
                connections: CONNECTIONS,
                pace: Pace::AsAnswered,
                until: Until::Seconds(seconds),
                ahead: None,
                result,
            })?
        } else {
            Loading::start(role, folder.path(), |result| bare::Plan {
                receiver: receiver.address(),
                body_bytes: BODY_BYTES,
                in_flight: CONNECTIONS,
                seconds,
                result,
            })?
        };
        let done = loading.done().await?;
        let thousands = number(done.events) / 1_000.0;
        let received = usage::cpu_seconds(receiver.process_id())? - before;
        let mut add =
            |what: &str, value, unit| round.add(CASE, format!("{name}: {what}"), value, unit);
        add("requests", number(done.events) / done.seconds, "requests/s");
        add("CPU of it", done.cpu_seconds / thousands, "s/1,000");
        add("CPU of receiver", received / thousands, "s/1,000");
        let report = receiver.report().await?;
        if report.distinct != done.events || done.refused_requests > 0 {
            let fault = format!("{CASE}, {name}: {report:?} of {done:?}");
            round.faults.push(fault);
        }
    }
    Ok(())
}
