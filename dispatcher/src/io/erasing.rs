//! Finishes erasures that others began (`protocol.md`, rule 28).
//!
//! A call that deletes a secret, or a webhook with its secrets, erases them right after. One that is
//! cut off in between leaves that to whoever sees it; a project's deletion always does.

use std::sync::Arc;
use std::time::Duration;

use shared::domain::registry::Command;
use shared::nats::registry_view::RegistryView;
use shared::time::Clock;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Who erases, in the audit.
const BY: &str = "carillon";

/// Looks for ever. Replicas that do so at the same time append once: the server checks.
pub(crate) async fn erase_what_is_left(view: RegistryView, clock: Arc<dyn Clock>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // One that is behind sees erasures left that are long done.
        if !view.is_current() {
            continue;
        }
        let left: Vec<_> = view.read(|state| state.erasable_secrets().collect());
        for id in left {
            let command = Command::EraseSigningSecret { id };
            if let Err(error) = view.execute(command, BY, clock.now()).await {
                tracing::warn!(%error, "a deleted signing secret is not erased yet");
                break;
            }
        }
    }
}
