//! The management API's own description: an OpenAPI 3.1 document, made of what stands beside each
//! handler and each resource, and a page that shows it. Both are open to everyone, and hold nothing
//! that is not in the source.
//!
//! What every call has in common (credentials, problems) is added in `problems`, so that no handler
//! repeats it; `terms` says what the values of `shared` look like.

use std::sync::LazyLock;

use actix_web::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use actix_web::web::{self, Bytes, ServiceConfig};
use actix_web::{HttpResponse, http::header::HeaderValue};
use serde_json::{Value, json};
use utoipa::OpenApi;

use self::terms::{FieldError, Problem, Refusal};
use super::{hr_on, v1};

mod page;
mod problems;
#[cfg(test)]
pub(crate) mod request;
pub(crate) mod terms;

/// Styles alone, and those from the page itself.
const PAGE_MAY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// Made once: it is the same for every caller.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let mut text = serde_json::to_vec_pretty(&document()).unwrap_or_default();
    text.push(b'\n');
    text.into()
});
static PAGE: LazyLock<Bytes> = LazyLock::new(|| page::render(&document()).into());

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(web::resource("/openapi.json").get(document_json))
        .service(web::resource("/docs").get(document_page));
}

#[derive(OpenApi)]
#[openapi(
    paths(document_json, document_page),
    components(schemas(Problem, FieldError, Refusal))
)]
struct Documented;

#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "get_openapi",
    summary = "Get this document",
    tag = "Documentation",
    responses((status = 200, description = "OpenAPI 3.1", body = Object)),
    security(()),
)]
async fn document_json() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/json"))
        .body(DOCUMENT.clone())
}

#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "get_docs",
    summary = "Get this document as a page",
    tag = "Documentation",
    responses((status = 200, description = "HTML", body = String, content_type = "text/html")),
    security(()),
)]
async fn document_page() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CONTENT_SECURITY_POLICY, PAGE_MAY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(PAGE.clone())
}

fn document() -> Value {
    let whole = Documented::openapi()
        .nest("/v1", v1::document())
        .nest("/hr-on/v1", hr_on::document());
    let mut document = serde_json::to_value(whole).unwrap_or_default();
    if let Some(members) = document.as_object_mut() {
        members.insert("info".into(), info());
        members.insert("tags".into(), tags());
        members.insert(
            "security".into(),
            json!([{"api_key": []}, {"api_key_as_user": []}, {"token": []}]),
        );
    }
    if let Some(components) = document.pointer_mut("/components")
        && let Some(components) = components.as_object_mut()
    {
        components.insert("securitySchemes".into(), security_schemes());
    }
    problems::add(&mut document);
    document
}

fn info() -> Value {
    json!({
        "title": "Carillon management API",
        "version": env!("CARGO_PKG_VERSION"),
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        "description": "Any replica answers any call. Every error is application/problem+json with \
            a stable `code`. Lists take `limit` and `cursor` and answer `items` and `next`, which \
            is the cursor of the next page and null on the last. Bodies have at most 256 KiB.",
    })
}

fn tags() -> Value {
    json!([
        {"name": "Projects", "description": "Projects and their API keys, with the admin token."},
        {"name": "Accounts", "description": "Customers' linked logins at providers."},
        {"name": "Webhooks", "description": "Where events go."},
        {"name": "Signing secrets", "description": "Add one, let the receiver accept both, \
            activate it, delete the old one: no delivery is refused meanwhile."},
        {"name": "Deliveries", "description": "What became of what was sent."},
        {"name": "Events", "description": "The events of the last 7 days."},
        {"name": "Catalog", "description": "What there is to subscribe to."},
        {"name": "Audit", "description": "Who changed what, and when."},
        {"name": "HR-ON", "description": "HR-ON's published API. Its webhooks are to be seen under \
            /v1 too."},
        {"name": "Documentation", "description": "Open to everyone."},
    ])
}

fn security_schemes() -> Value {
    json!({
        "api_key": {
            "type": "http",
            "scheme": "bearer",
            "description": "A project's API key.",
        },
        "api_key_as_user": {
            "type": "http",
            "scheme": "basic",
            "description": "A project's API key as user name, with any password.",
        },
        "token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "A token whose `project` or `companyId` claim names the project.",
        },
        "admin_token": {
            "type": "http",
            "scheme": "bearer",
            "description": "The operator's token.",
        },
    })
}
