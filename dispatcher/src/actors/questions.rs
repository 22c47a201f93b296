//! Answers what others ask of a partition, for as long as it is owned here.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use shared::ids::Sequence;
use shared::nats::requests::{self, Questions};
use tokio::sync::Semaphore;

use super::replays::{self, Declined, Owned};
use super::shared_state::Replica;
use super::told::{overview, standings};
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
    let log = &owned.log;
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
    // Whoever lost the partition would tell of a state that others have added to.
    if asked.is_of_the_state() && !log.is_ours() {
        question
            .decline("the partition may have another owner")
            .await;
        return;
    }
    let answer = match asked {
        Question::Applied { through } => {
            let through = Sequence(through);
            let applied = &replica.applied;
            let is_reached = applied.wait(log.partition, through, ANSWER_WITHIN).await;
            Answer::Applied { is_reached }
        }
        Question::Overview { webhook, span } => {
            Answer::Overview(Box::new(overview(replica, log, webhook, span).await))
        }
        Question::LastAttempt { webhook } => {
            let links = log.look(|commits| {
                let told = commits.state().webhooks.get(&webhook);
                told.map(|told| told.links).unwrap_or_default()
            });
            Answer::LastAttempt(links.into())
        }
        Question::Standings { project, sequence } => {
            match standings(replica, log, project, Sequence(sequence)).await {
                Ok(standings) => Answer::Standings(standings),
                Err(error) => {
                    tracing::debug!(%error, "an event's deliveries are not told");
                    question.decline("the event cannot be read").await;
                    return;
                }
            }
        }
        Question::ConsecutiveFailures { webhooks } => {
            let counts = log.look(|commits| {
                let known = &commits.state().webhooks;
                let failures = |id| {
                    known
                        .get(id)
                        .map_or(0, |one| one.health.consecutive_failures)
                };
                webhooks.iter().map(failures).collect()
            });
            Answer::ConsecutiveFailures { counts }
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
