//! The document that the management API serves of itself: as it was committed, and true to the
//! routes. No store is needed: what is registered answers 503 before there is one, and what is not
//! answers 404 or 405.

#![expect(
    clippy::unwrap_used,
    reason = "what helps a test fails as the test does"
)]

use std::collections::BTreeSet;
use std::path::Path;

use actix_web::body::to_bytes;
use actix_web::http::Method;
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, http::StatusCode, web};
use dispatcher::api::configure;
use dispatcher::app::AppSlot;
use serde_json::Value;

/// Where routes are registered, each with what stands before its paths.
const SOURCES: [(&str, &str); 3] = [
    ("", include_str!("../src/api/openapi/mod.rs")),
    ("/v1", include_str!("../src/api/v1/mod.rs")),
    ("/hr-on/v1", include_str!("../src/api/hr_on/mod.rs")),
];
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

async fn ask(method: &str, path: &str) -> (StatusCode, String) {
    let slot = web::Data::new(AppSlot::default());
    let app = init_service(App::new().app_data(slot).configure(configure)).await;
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    let request = TestRequest::with_uri(path).method(method).to_request();
    let answer = call_service(&app, request).await;
    let status = answer.status();
    let body = to_bytes(answer.into_body()).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn document() -> Value {
    let (status, text) = ask("get", "/openapi.json").await;
    assert_eq!(status, 200);
    serde_json::from_str(&text).unwrap()
}

/// `method path`, of all operations.
fn documented(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap().iter();
    let named = paths.flat_map(|(path, item)| {
        let methods = METHODS.iter().filter(|method| item.get(**method).is_some());
        methods.map(move |method| format!("{method} {path}"))
    });
    named.collect()
}

/// The same, of all `web::resource("…")` with what follows them.
fn registered() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (scope, source) in SOURCES {
        for registration in source.split("web::resource(\"").skip(1) {
            let (path, rest) = registration.split_once("\")").unwrap();
            // To the end of the `.service(…)`.
            let chain = rest.split(".service(").next().unwrap();
            for method in METHODS {
                if chain.contains(&format!(".{method}(")) {
                    found.insert(format!("{method} {scope}{path}"));
                }
            }
        }
    }
    found
}

/// Compares with the committed file; writes it when it is not there, which fails the test so that
/// the new file is looked at and committed.
#[actix_web::test]
async fn the_document_is_the_one_that_was_committed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/openapi.json");
    let (_, text) = ask("get", "/openapi.json").await;
    match std::fs::read_to_string(&path) {
        Ok(expected) => assert!(
            text == expected,
            "the document has changed: delete {} and run this again, look at it and commit it",
            path.display()
        ),
        Err(_) => {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            panic!("{} was written: look at it and commit it", path.display());
        }
    }
}

#[actix_web::test]
async fn what_is_registered_is_documented_and_the_reverse() {
    let documented = documented(&document().await);
    assert_eq!(documented, registered());
    assert!(documented.len() > 40, "{}", documented.len());
}

#[actix_web::test]
async fn documented_operations_are_there_and_no_others_under_their_paths() {
    let document = document().await;
    let documented = documented(&document);
    for path in document["paths"].as_object().unwrap().keys() {
        for method in METHODS {
            let (status, body) = ask(method, &path.replace(['{', '}'], "")).await;
            let is_open = document["paths"][path][method]["security"] == serde_json::json!([{}]);
            let expected = match documented.contains(&format!("{method} {path}")) {
                true if is_open => 200,
                true => 503,
                false => 405,
            };
            assert_eq!(status, expected, "{method} {path}: {body}");
        }
    }
}

#[actix_web::test]
async fn operations_have_names_of_their_own_and_references_lead_somewhere() {
    let document = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            let Some(operation) = item.get(method) else {
                continue;
            };
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} is there twice");
            assert!(operation["summary"].is_string(), "{method} {path}");
            for (status, answer) in operation["responses"].as_object().unwrap() {
                // A status that the table of problems lacks would stand there without a body.
                let is_problem = status.as_str() >= "400";
                assert_eq!(answer.get("$ref").is_some(), is_problem, "{path} {status}");
            }
        }
    }
    check_references(&document, &document);
}

fn check_references(document: &Value, value: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(place)) = members.get("$ref") {
                let pointer = place.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{place}");
            }
            members
                .values()
                .for_each(|value| check_references(document, value));
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| check_references(document, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[actix_web::test]
async fn the_page_shows_every_operation_and_runs_nothing() {
    let slot = web::Data::new(AppSlot::default());
    let app = init_service(App::new().app_data(slot).configure(configure)).await;
    let answer = call_service(&app, TestRequest::with_uri("/docs").to_request()).await;
    let policy = answer.headers().get("content-security-policy").unwrap();
    let policy = policy.to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("script"), "{policy}");
    let page = to_bytes(answer.into_body()).await.unwrap();
    let page = String::from_utf8(page.to_vec()).unwrap();
    assert!(
        !page.contains("<script") && !page.contains("src="),
        "{page}"
    );
    for operation in documented(&document().await) {
        let (method, path) = operation.split_once(' ').unwrap();
        let shown = format!("{} {path}<", method.to_uppercase());
        assert!(page.contains(&shown), "{shown}");
    }
}
