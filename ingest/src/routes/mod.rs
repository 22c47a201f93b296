//! HTTP. Handlers extract, ask the core, store, answer; they decide nothing.
//!
//! No path, query or header is ever logged: they hold keys and signatures.

use actix_web::http::header::ALLOW;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, Responder};
use shared::problem::Problem;

use crate::error::response;

mod body;
mod credentials;
mod events;
mod examination;
mod native;

pub(crate) use examination::EXAMINATIONS_MAX;

pub(crate) fn configure(service: &mut ServiceConfig) {
    service
        .service(
            web::resource("/v1/native/{account_id}/{ingest_key}")
                // Any method: some providers prove themselves with GET, PUT or HEAD.
                .to(native::receive),
        )
        .service(
            web::resource("/v1/events")
                .route(web::post().to(events::receive))
                .default_service(web::to(post_only)),
        )
        .default_service(web::to(not_found));
}

async fn not_found() -> impl Responder {
    let problem = Problem::not_found();
    response(&problem).json(problem)
}

async fn post_only() -> HttpResponse {
    let problem = Problem::method_not_allowed();
    response(&problem)
        .insert_header((ALLOW, "POST"))
        .json(problem)
}
