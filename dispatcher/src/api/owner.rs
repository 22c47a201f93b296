//! What only the owner of the project's partition can tell.

use std::time::Duration;

use shared::ids::ProjectId;

use super::error::ApiError;
use crate::app::App;
use crate::owner::{Answer, Question, ask_until};

/// A partition that changes its owner is asked again; longer than that nobody waits.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// The owner has seen of the registry what this replica has.
pub(crate) async fn ask(
    app: &App,
    project: ProjectId,
    question: Question,
) -> Result<Answer, ApiError> {
    let partition = app.nats.partitions.of(project);
    let seen = app.view.read(|state| state.applied());
    ask_until(&app.nats, partition, seen, &question, ANSWERED_WITHIN)
        .await
        .map_err(|error| {
            tracing::warn!(%partition, %error, "an owner was asked in vain");
            ApiError::Closed("the owner of the project's partition does not answer; try again")
        })
}

/// What no owner does.
pub(crate) fn answered_otherwise() -> ApiError {
    ApiError::internal("the owner answered another question")
}
