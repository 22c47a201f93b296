//! `/v1`: one file a resource, request and answer types side by side with the handlers.

use actix_web::web::{self, ServiceConfig};
use utoipa::OpenApi;

mod account_secrets;
mod accounts;
mod api_keys;
mod attempt_resource;
mod attempts;
mod audit;
mod connectors;
mod endpoint_headers;
mod event;
mod event_types;
mod events;
mod overview;
mod projects;
mod replays;
mod signing_secrets;
mod trigger;
mod webhook_request;
mod webhook_resource;
mod webhooks;

#[derive(OpenApi)]
#[openapi(paths(
    projects::list,
    projects::create,
    projects::get,
    projects::delete,
    api_keys::list,
    api_keys::create,
    api_keys::delete,
    event_types::list,
    connectors::list,
    connectors::get,
    accounts::list,
    accounts::create,
    accounts::get,
    accounts::patch,
    accounts::delete,
    events::list,
    event::get,
    audit::list,
    webhooks::list,
    webhooks::create,
    webhooks::get,
    webhooks::patch,
    webhooks::delete,
    overview::get,
    attempts::list,
    replays::list,
    replays::create,
    replays::get,
    replays::cancel,
    webhooks::enable,
    webhooks::disable,
    webhooks::verify,
    trigger::trigger,
    signing_secrets::list,
    signing_secrets::add,
    signing_secrets::delete,
    signing_secrets::activate,
))]
struct Documented;

pub(super) fn document() -> utoipa::openapi::OpenApi {
    Documented::openapi()
}

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/projects")
                .get(projects::list)
                .post(projects::create),
        )
        .service(
            web::resource("/projects/{id}")
                .get(projects::get)
                .delete(projects::delete),
        )
        .service(
            web::resource("/projects/{id}/api_keys")
                .get(api_keys::list)
                .post(api_keys::create),
        )
        .service(web::resource("/projects/{id}/api_keys/{key}").delete(api_keys::delete))
        .service(web::resource("/event_types").get(event_types::list))
        .service(web::resource("/connectors").get(connectors::list))
        .service(web::resource("/connectors/{provider}").get(connectors::get))
        .service(
            web::resource("/accounts")
                .get(accounts::list)
                .post(accounts::create),
        )
        .service(
            web::resource("/accounts/{id}")
                .get(accounts::get)
                .patch(accounts::patch)
                .delete(accounts::delete),
        )
        .service(web::resource("/events").get(events::list))
        .service(web::resource("/events/{id}").get(event::get))
        .service(web::resource("/audit").get(audit::list))
        .service(
            web::resource("/webhooks")
                .get(webhooks::list)
                .post(webhooks::create),
        )
        .service(
            web::resource("/webhooks/{id}")
                .get(webhooks::get)
                .patch(webhooks::patch)
                .delete(webhooks::delete),
        )
        .service(web::resource("/webhooks/{id}/overview").get(overview::get))
        .service(web::resource("/webhooks/{id}/attempts").get(attempts::list))
        .service(web::resource("/webhooks/{id}/enable").post(webhooks::enable))
        .service(web::resource("/webhooks/{id}/disable").post(webhooks::disable))
        .service(web::resource("/webhooks/{id}/verify").post(webhooks::verify))
        .service(web::resource("/webhooks/{id}/events").post(trigger::trigger))
        .service(
            web::resource("/webhooks/{id}/replays")
                .get(replays::list)
                .post(replays::create),
        )
        .service(web::resource("/webhooks/{id}/replays/{replay}").get(replays::get))
        .service(web::resource("/webhooks/{id}/replays/{replay}/cancel").post(replays::cancel))
        .configure(signing_secrets);
}

fn signing_secrets(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/webhooks/{id}/signing_secrets")
                .get(signing_secrets::list)
                .post(signing_secrets::add),
        )
        .service(
            web::resource("/webhooks/{id}/signing_secrets/{secret}")
                .delete(signing_secrets::delete),
        )
        .service(
            web::resource("/webhooks/{id}/signing_secrets/{secret}/activate")
                .post(signing_secrets::activate),
        );
}
