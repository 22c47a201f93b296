//! What only the owner of the project's partition can tell.

use std::time::Duration;

use shared::ids::ProjectId;

use super::error::ApiError;
use crate::app::App;
use crate::owner::{Answer, Question, ask_until};

/// Longer than a partition takes to change its owner in good order; shorter than callers wait.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// An answer of another kind than the question's: a fault of ours.
pub(crate) fn another_question() -> ApiError {
    ApiError::internal("the owner answered another question")
}

/// The owner has seen of the registry what this replica has.
pub(crate) async fn ask(
    app: &App,
    project: ProjectId,
    question: Question,
) -> Result<Answer, ApiError> {
    let partition = app.nats.partitions.of(project);
    let seen = app.view.read(|state| state.applied());
    ask_until(&app.nats, partition, seen, question, ANSWERED_WITHIN)
        .await
        .map_err(|error| {
            tracing::warn!(%partition, %error, "an owner was asked in vain");
            ApiError::Closed("the owner of the project's partition does not answer; try again")
        })
}
