//! What is known of providers, as their connectors' files say it. The same for every project.

use actix_web::HttpResponse;
use actix_web::web::Path;
use serde::Serialize;
use shared::connector::{Connector, SigningSecretSource};
use shared::verify::Scheme;
use utoipa::ToSchema;

use crate::api::auth::Principal;
use crate::api::error::ApiError;
use crate::api::open_app::OpenApp;
use crate::api::openapi::terms;
use crate::api::page::List;

#[derive(Serialize, ToSchema)]
#[schema(as = Connector)]
struct ConnectorResource<'a> {
    provider: &'a str,
    name: &'a str,
    /// What callbacks are answered with.
    success_status: u16,
    /// Whether we make the secret that the provider signs with, or it does.
    #[schema(value_type = terms::SigningSecretSource)]
    signing_secret: SigningSecretSource,
    /// How callbacks are verified.
    #[schema(value_type = Object)]
    verification: &'a Scheme,
    events: &'a [String],
}

impl<'a> From<&'a Connector> for ConnectorResource<'a> {
    fn from(connector: &'a Connector) -> Self {
        Self {
            provider: connector.provider(),
            name: connector.name(),
            success_status: connector.success_status(),
            signing_secret: connector.signing_secret(),
            verification: connector.verification(),
            events: connector.events(),
        }
    }
}

/// All of them on one page: there are as many as there are files.
#[utoipa::path(
    get,
    path = "/connectors",
    operation_id = "list_connectors",
    summary = "List connectors",
    tag = "Catalog",
    responses(
        (status = 200, description = "All connectors", body = List<ConnectorResource<'static>>),
    ),
)]
pub(super) async fn list(_: Principal, app: OpenApp) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(List {
        items: app.connectors.iter().map(ConnectorResource::from).collect(),
        next: None,
    }))
}

#[utoipa::path(
    get,
    path = "/connectors/{provider}",
    operation_id = "get_connector",
    summary = "Get a connector",
    tag = "Catalog",
    params(("provider" = String, Path, description = "The connector's key", example = "bamboohr")),
    responses(
        (status = 200, description = "The connector", body = ConnectorResource<'static>),
    ),
)]
pub(super) async fn get(
    _: Principal,
    app: OpenApp,
    path: Path<String>,
) -> Result<HttpResponse, ApiError> {
    let connector = app.connectors.get(&path).ok_or_else(ApiError::not_found)?;
    Ok(HttpResponse::Ok().json(ConnectorResource::from(connector)))
}
