//! `/hr-on/v1`: HR-ON's published management API, field for field.
//!
//! Its words live here and nowhere else: ids are bare UUIDs, a project is a company, success is 200
//! and says so. What is done is done by `api::webhooks`, as in `/v1`.

use actix_web::Error;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::{self, ServiceConfig};
use serde::Serialize;
use shared::problem::Problem;
use utoipa::{OpenApi, ToSchema};

mod query;
mod request;
mod resource;
mod webhooks;

#[derive(OpenApi)]
#[openapi(paths(
    webhooks::list,
    webhooks::create,
    webhooks::get,
    webhooks::update,
    webhooks::delete,
    webhooks::verify,
    webhooks::trigger,
))]
struct Documented;

pub(super) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Documented::openapi();
    // One handler, two operations: each has a name of its own.
    for item in document.paths.paths.values_mut() {
        if let (Some(put), Some(_)) = (&mut item.put, &item.patch) {
            put.operation_id = put.operation_id.take().map(|id| format!("{id}_by_put"));
        }
    }
    document
}

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/webhooks")
                .get(webhooks::list)
                .post(webhooks::create),
        )
        .service(
            web::resource("/webhooks/{id}")
                .get(webhooks::get)
                .put(webhooks::update)
                .patch(webhooks::update)
                .delete(webhooks::delete),
        )
        .service(web::resource("/webhooks/{id}/verify").post(webhooks::verify))
        .service(web::resource("/webhooks/{id}/trigger").post(webhooks::trigger))
        .default_service(web::to(super::not_found));
}

/// What every answer of HR-ON's has besides.
#[derive(Serialize, ToSchema)]
#[schema(as = HrOnOutcome)]
struct Outcome<'a> {
    success: bool,
    message: &'a str,
}

#[derive(Serialize)]
struct Refusal<'a> {
    #[serde(flatten)]
    outcome: Outcome<'a>,
    #[serde(flatten)]
    problem: &'a Problem,
}

/// Has problems carry `success` and `message` too.
pub(super) async fn speak(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let response = next.call(request).await?.map_into_boxed_body();
    let problem = response.response().extensions().get::<Problem>().cloned();
    let Some(problem) = problem else {
        return Ok(response);
    };
    let refusal = Refusal {
        outcome: Outcome {
            success: false,
            message: &problem.detail,
        },
        problem: &problem,
    };
    let body = serde_json::to_vec(&refusal).unwrap_or_default();
    Ok(response.map_body(|_, _| BoxBody::new(body)))
}
