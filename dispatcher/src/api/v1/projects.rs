//! Projects, the operator's to make and delete.

use actix_web::HttpResponse;
use actix_web::http::header::LOCATION;
use actix_web::web::Path;
use serde::Serialize;
use shared::domain::project::Project;
use shared::domain::registry::{Command, RegistryState, SEALED_DATA_KEY, seal_context};
use shared::ids::ProjectId;
use shared::limits::NAME_BYTES_MAX;
use shared::random;
use shared::time::Timestamp;
use utoipa::ToSchema;

use crate::api::auth::{ADMIN, Admin};
use crate::api::body::Body;
use crate::api::error::ApiError;
use crate::api::fields::line;
use crate::api::idempotency::{IdempotencyHeader, IdempotencyKey};
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::page::{List, Page, PageQuery};
use crate::api::{find, id, make};

#[derive(Serialize, ToSchema)]
#[schema(as = Project)]
struct ProjectResource {
    #[schema(value_type = terms::ProjectId)]
    id: ProjectId,
    name: String,
    #[schema(value_type = terms::Time)]
    created_at: Timestamp,
}

/// What is sent to make a project.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by the derive alone")]
pub(super) struct CreateProject {
    /// Up to 512 bytes, no control characters.
    #[schema(
        min_length = 1,
        max_length = 512,
        pattern = "^\\P{Cc}+$",
        example = "Acme"
    )]
    name: String,
}

impl From<&Project> for ProjectResource {
    fn from(project: &Project) -> Self {
        Self {
            id: project.id,
            name: project.name.clone(),
            created_at: project.created_at,
        }
    }
}

#[utoipa::path(
    post,
    path = "/projects",
    operation_id = "create_project",
    summary = "Create a project",
    tag = "Projects",
    params(IdempotencyHeader),
    request_body = CreateProject,
    responses(
        (status = 201, description = "The project", body = ProjectResource, headers(("Location" = String))),
        (status = 409),
    ),
    security(("admin_token" = [])),
)]
pub(super) async fn create(
    caller: Admin,
    app: OpenApp,
    key: IdempotencyKey,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let mut fields = body.fields(&caller, &app).await?;
    let digest = fields.digest();
    let name = fields.required("name", line(NAME_BYTES_MAX));
    let name = fields.finish(name)?;
    let now = app.clock.now();
    let fresh = ProjectId::new(now, &random::for_id());
    let id = key.id(&app, (ADMIN, "project"), digest, fresh).await?;
    let context = seal_context(SEALED_DATA_KEY, id, &id.to_string());
    let key = app
        .master_keys
        .seal(&random::bytes::<32>(), &context, &random::bytes());
    let command = Command::CreateProject {
        id,
        name,
        sealed_data_key: key,
    };
    make(&app, command, ADMIN, |state| project(state, id).is_some()).await?;
    let created = find(&app, |state| project(state, id).map(ProjectResource::from)).await?;
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, format!("/v1/projects/{id}")))
        .json(created))
}

#[utoipa::path(
    get,
    path = "/projects",
    operation_id = "list_projects",
    summary = "List projects",
    tag = "Projects",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of projects, oldest first", body = List<ProjectResource>),
    ),
    security(("admin_token" = [])),
)]
pub(super) async fn list(
    _: Admin,
    app: OpenApp,
    page: Page<ProjectId>,
) -> Result<HttpResponse, ApiError> {
    let list = app.view.read(|state| {
        let mut projects: Vec<_> = state
            .projects()
            .filter(|project| project.is_made())
            .collect();
        projects.sort_unstable_by_key(|project| project.id);
        page.cut(projects.into_iter(), |project| project.id)
            .map(ProjectResource::from)
    });
    Ok(HttpResponse::Ok().json(list))
}

#[utoipa::path(
    get,
    path = "/projects/{id}",
    operation_id = "get_project",
    summary = "Get a project",
    tag = "Projects",
    params(("id" = terms::ProjectId, Path)),
    responses(
        (status = 200, description = "The project", body = ProjectResource),
    ),
    security(("admin_token" = [])),
)]
pub(super) async fn get(
    _: Admin,
    app: OpenApp,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = id(&path)?;
    let found = find(&app, |state| project(state, id).map(ProjectResource::from)).await?;
    Ok(HttpResponse::Ok().json(found))
}

/// A tombstone: from here on nothing of the project is to be seen, and its keys open nothing.
#[utoipa::path(
    delete,
    path = "/projects/{id}",
    operation_id = "delete_project",
    summary = "Delete a project and all that is in it",
    tag = "Projects",
    params(("id" = terms::ProjectId, Path)),
    responses(
        (status = 204, description = "It is deleted"),
        (status = 409),
    ),
    security(("admin_token" = [])),
)]
pub(super) async fn delete(
    _: Admin,
    app: OpenApp,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let id = id(&path)?;
    find(&app, |state| project(state, id).map(|_| ())).await?;
    let command = Command::DeleteProject { id };
    app.view.execute(command, ADMIN, app.clock.now()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `None` also between a project's two first entries, of which the first is its data key.
pub(super) fn project(state: &RegistryState, id: ProjectId) -> Option<&Project> {
    state.project(id).filter(|project| project.is_made())
}
