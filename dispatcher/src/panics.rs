//! For tests of supervision alone: a webhook's actor panics on an event whose record id is
//! `panic-` and the webhook's id, as often as the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use shared::domain::event::Event;
use shared::ids::WebhookId;

static LEFT: AtomicU32 = AtomicU32::new(0);

/// From now on there are so many panics, and then none.
pub fn panic_times(times: u32) {
    LEFT.store(times, Ordering::SeqCst);
}

#[expect(clippy::panic, reason = "this is what it is for")]
pub(crate) fn look_at(webhook: WebhookId, events: &[Arc<Event>]) {
    let poison = format!("panic-{webhook}");
    let is_poisoned = events.iter().any(|event| *event.record_id == *poison);
    let take_one = |left: u32| left.checked_sub(1);
    if is_poisoned
        && LEFT
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one)
            .is_ok()
    {
        panic!("the test asks for it");
    }
}
