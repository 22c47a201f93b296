//! How far EVENTS is about to be dropped by age (`protocol.md`, rule 21): looked at once for all
//! partitions of the replica.

use std::rc::Rc;
use std::time::Duration;

use shared::nats::Unavailable;
use shared::nats::retention::{last_before, retained};
use shared::subjects;

use super::shared_state::Replica;

/// Of its age, what an event may reach while it is pending.
const PARTS_PENDING: u32 = 9;
const PARTS: u32 = 10;
/// Looks while an event ages from nothing to its end: what is pending ends a hundredth of that
/// late, with nine left before it is dropped.
const LOOKS: u32 = 100;
const LOOK_MIN: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(60 * 60);
const RETRY: Duration = Duration::from_secs(1);

/// Keeps [`Replica::horizon`] until it is aborted.
pub(crate) async fn follow(replica: Rc<Replica>) {
    loop {
        let wait = look(&replica).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "nobody knows how old EVENTS is");
            RETRY
        });
        tokio::time::sleep(wait).await;
    }
}

/// Gives how long it may be until the next look.
async fn look(replica: &Replica) -> Result<Duration, Unavailable> {
    // By the server's clock, which it drops by: this replica's own may be days off.
    let Some(now) = replica.membership.server_time() else {
        return Ok(RETRY);
    };
    let events = &replica.nats.events;
    let retained = retained(events).await?;
    let Some(age_max) = retained.age_max else {
        return Ok(LOOK_MAX);
    };
    let pending_max = age_max / PARTS * PARTS_PENDING;
    let pending_max_ms = i64::try_from(pending_max.as_millis()).unwrap_or(i64::MAX);
    let at = now.plus_millis(pending_max_ms.saturating_neg());
    let through = last_before(events, subjects::EVENTS_ALL, &retained, at).await?;
    let known = replica.horizon.get();
    replica.horizon.set(known.max(through));
    Ok((age_max / LOOKS).clamp(LOOK_MIN, LOOK_MAX))
}
