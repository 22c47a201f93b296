//! Answers what others ask of a partition, for as long as it is owned here.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use shared::ids::Sequence;
use shared::nats::requests::{self, Questions};
use tokio::sync::Semaphore;

use super::replays::{self, Declined, Owned};
use super::shared_state::Replica;
use crate::owner::{Answer, Question};

/// Questions of one partition that are answered at the same time; more wait with the client.
const ANSWERS_AT_ONCE: usize = 64;
/// How long an asker waits for the registry, or for what it asked about (rules 11 and 12).
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(500);

/// Answers until it is aborted.
pub(crate) async fn answer_all(replica: Rc<Replica>, owned: Owned) {
    let partition = owned.log.partition;
    let turns = Arc::new(Semaphore::new(ANSWERS_AT_ONCE));
    loop {
        match Questions::of(&replica.nats, partition).await {
            Ok(mut questions) => {
                while let Ok(turn) = Arc::clone(&turns).acquire_owned().await
                    && let Some(question) = questions.next().await
                {
                    let (replica, owned) = (Rc::clone(&replica), owned.clone());
                    actix_rt::spawn(async move {
                        answer(&replica, &owned, question).await;
                        drop(turn);
                    });
                }
            }
            Err(error) => tracing::warn!(%partition, %error, "nobody hears questions"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn answer(replica: &Replica, owned: &Owned, question: requests::Question) {
    let Ok(asked) = serde_json::from_slice::<Question>(question.body()) else {
        // A later release asks what this one does not know.
        question.decline("the question is not understood").await;
        return;
    };
    if replica
        .view
        .wait_for(question.seen, ANSWER_WITHIN)
        .await
        .is_err()
    {
        question.decline("the registry lags behind").await;
        return;
    }
    let answer = match asked {
        Question::Applied { through } => {
            let through = Sequence(through);
            let applied = &replica.applied;
            let partition = owned.log.partition;
            let is_reached = applied.wait(partition, through, ANSWER_WITHIN).await;
            Answer::Applied { is_reached }
        }
        Question::Replay {
            webhook,
            question: asked,
        } => match replays::answer(replica, owned, webhook, asked).await {
            Ok(answer) => Answer::Replay(answer),
            Err(Declined(reason)) => {
                question.decline(reason).await;
                return;
            }
        },
    };
    match serde_json::to_vec(&answer) {
        Ok(body) => question.answer(body.into()).await,
        Err(error) => question.decline(&error.to_string()).await,
    }
}
