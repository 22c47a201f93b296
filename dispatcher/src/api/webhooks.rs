//! What both dialects' calls do with webhooks.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use shared::domain::endpoint_url::EndpointUrl;
use shared::domain::filter::Selection;
use shared::domain::policy::Policy;
use shared::domain::registry::{
    Command, RegistryState, SEALED_ENDPOINT, UrlChange, seal_context, signing_secret_context,
};
use shared::domain::webhook::{Dialect, Endpoint, Status, Webhook, WebhookDefinition};
use shared::http_client::{EndpointRefused, HttpsRule};
use shared::ids::{Position, ProjectId, SecretId, Sequence, WebhookId};
use shared::problem::Problem;
use shared::random;
use shared::secret::{Secret, new_signing_secret};

use super::auth::{Caller as _, Principal};
use super::error::ApiError;
use super::etag::IfMatch;
use super::fields::Digest;
use super::idempotency::IdempotencyKey;
use super::open_app::OpenApp;
use super::{data_key, find, make, owner};
use crate::app::App;
use crate::io::handshake;
use crate::owner::{Answer, Question};

/// As text, 64 ASCII characters.
const CHALLENGE_BYTES: usize = 48;
/// How long an answer waits for the owner.
const APPLIED_WITHIN: Duration = Duration::from_secs(1);

/// A webhook that is asked for, its address judged.
pub(crate) struct Draft {
    pub(crate) dialect: Dialect,
    pub(crate) endpoint: Endpoint,
    pub(crate) selection: Selection,
    pub(crate) description: Option<String>,
    pub(crate) verification_required: bool,
    pub(crate) policy: Policy,
}

/// What a verification came to.
pub(crate) enum Verification {
    /// With the sequence of its entry.
    Passed(Sequence),
    /// Why not, in words for the one who asked.
    Failed(String),
}

pub(crate) async fn webhook(
    app: &App,
    project: ProjectId,
    id: WebhookId,
) -> Result<Arc<Webhook>, ApiError> {
    find(app, |state| state.webhook_of(project, id).cloned()).await
}

/// The new webhook, and whether its owner has confirmed it; or that which an earlier call with the
/// same key and body has made.
pub(crate) async fn create(
    app: &App,
    caller: &Principal,
    draft: Draft,
    (key, body): (&IdempotencyKey, Digest),
) -> Result<(Arc<Webhook>, bool), ApiError> {
    let (project, now) = (caller.project, app.clock.now());
    let fresh = WebhookId::new(now, &random::for_id());
    let owner = project.to_string();
    let id = key.id(app, (&owner, "webhook"), body, fresh).await?;
    let secret = SecretId::new(now, &random::for_id());
    let must_verify = match draft.dialect {
        Dialect::HrOn => true,
        Dialect::Stackone => draft.verification_required,
    };
    let definition = WebhookDefinition {
        dialect: draft.dialect,
        sealed_endpoint: seal_endpoint(app, project, id, &draft.endpoint)?,
        selection: draft.selection,
        description: draft.description,
        verification_required: must_verify,
        verified_at: None,
        policy: draft.policy,
        status: if must_verify {
            Status::PendingVerification
        } else {
            Status::Enabled
        },
        status_reason: None,
        active_secret: secret,
        previous_secret: None,
    };
    let command = Command::CreateWebhook {
        project,
        id,
        from: next_event(app).await?,
        definition,
        sealed_secret: seal_secret(app, project, secret, &new_signing_secret(&random::bytes()))?,
    };
    let is_made = |state: &RegistryState| state.webhook_of(project, id).is_some();
    let made = make(app, command, &caller.by, is_made).await?;
    let webhook = webhook(app, project, id).await?;
    let applied = applied(app, project, made.unwrap_or(webhook.sequence)).await;
    Ok((webhook, applied))
}

/// The command that gives `current` this definition and, unless it stays, this endpoint.
pub(crate) fn update(
    app: &App,
    current: &Webhook,
    endpoint: Option<&Endpoint>,
    definition: WebhookDefinition,
) -> Result<Command, ApiError> {
    let (project, id) = (current.project, current.id);
    let is_moved = endpoint.is_some_and(|endpoint| endpoint.url != current.endpoint.url);
    let sealed_endpoint = match endpoint {
        Some(endpoint) => seal_endpoint(app, project, id, endpoint)?,
        None => current.definition.sealed_endpoint.clone(),
    };
    Ok(Command::UpdateWebhook {
        project,
        id,
        definition: WebhookDefinition {
            sealed_endpoint,
            ..definition
        },
        url: if is_moved {
            UrlChange::Moved
        } else {
            UrlChange::Same
        },
        base: current.sequence,
    })
}

/// Has the endpoint prove that it wants our events, which takes up to 10 s. One that was changed
/// meanwhile has proved nothing.
pub(crate) async fn verify(
    app: &OpenApp,
    caller: &Principal,
    id: WebhookId,
    if_match: &IfMatch,
) -> Result<Verification, ApiError> {
    // Before it is counted: nobody uses up what is another project's.
    webhook(app, caller.project, id).await?;
    let _turn = app.trials.verification(id, app.clock.now())?;
    // What was changed through another replica a moment ago is what is to be verified.
    app.view.catch_up().await?;
    let webhook = webhook(app, caller.project, id).await?;
    if_match.check(webhook.sequence)?;
    let challenge = Secret::new(URL_SAFE_NO_PAD.encode(random::bytes::<CHALLENGE_BYTES>()));
    let shaken = handshake::shake(&app.client, app.clock.as_ref(), &webhook, &challenge).await;
    if let Err(reason) = shaken {
        return Ok(Verification::Failed(reason));
    }
    app.check_still_open()?;
    caller.recheck(app)?;
    let command = Command::VerifyWebhook {
        project: caller.project,
        id,
        base: webhook.sequence,
    };
    let verified = app.view.execute(command, &caller.by, app.clock.now());
    Ok(Verification::Passed(verified.await?))
}

/// `failed` of each, as its owner knows it. 503 when nobody owns the partition for longer.
pub(crate) async fn consecutive_failures(
    app: &App,
    project: ProjectId,
    webhooks: Vec<WebhookId>,
) -> Result<Vec<u32>, ApiError> {
    if webhooks.is_empty() {
        return Ok(Vec::new());
    }
    let question = Question::ConsecutiveFailures { webhooks };
    let Answer::ConsecutiveFailures { counts } = owner::ask(app, project, question).await? else {
        return Err(owner::answered_otherwise());
    };
    Ok(counts)
}

/// Whether the owner applied the registry through `sequence` within a second (`protocol.md`,
/// rule 11). It holds either way.
pub(crate) async fn applied(app: &App, project: ProjectId, sequence: Sequence) -> bool {
    let partition = app.nats.partitions.of(project);
    app.applied
        .confirm(&app.nats, partition, sequence, APPLIED_WITHIN)
        .await
}

/// 422 at `pointer` for an address that may not be sent to.
pub(crate) async fn check_endpoint(
    app: &App,
    url: &EndpointUrl,
    dialect: Dialect,
    pointer: &str,
) -> Result<(), ApiError> {
    let rule = match dialect {
        Dialect::Stackone => HttpsRule::RequiredUnlessExcepted,
        // Its guide says so.
        Dialect::HrOn => HttpsRule::Any,
    };
    let checked = app.client.check_endpoint(url, rule).await;
    checked.map_err(|refused| {
        match &refused {
            EndpointRefused::RefusedAddress { host, address } => {
                tracing::info!(%host, %address, "an endpoint's address is refused");
            }
            EndpointRefused::HttpsRequired | EndpointRefused::Unresolvable { .. } => {}
        }
        ApiError::Refused(Problem::invalid_field(pointer, refused.to_string()))
    })
}

/// Rule 11: creation alone reaches back. Read before the append, so that whatever is published
/// after the caller has our answer is classified.
async fn next_event(app: &App) -> Result<Position, ApiError> {
    Ok(Position {
        generation: app.nats.generation,
        sequence: app.nats.events_last().await?.next(),
    })
}

pub(crate) fn seal_secret(
    app: &App,
    project: ProjectId,
    id: SecretId,
    secret: &Secret,
) -> Result<Vec<u8>, ApiError> {
    Ok(data_key(app, project)?.seal(
        secret.reveal().as_bytes(),
        &signing_secret_context(project, id),
        &random::bytes(),
    ))
}

fn seal_endpoint(
    app: &App,
    project: ProjectId,
    id: WebhookId,
    endpoint: &Endpoint,
) -> Result<Vec<u8>, ApiError> {
    let plain = serde_json::to_vec(endpoint).map_err(ApiError::internal)?;
    let context = seal_context(SEALED_ENDPOINT, project, &id.to_string());
    Ok(data_key(app, project)?.seal(&plain, &context, &random::bytes()))
}
