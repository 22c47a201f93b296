//! The problems that a call can be answered with: those that follow from its shape (a body can be
//! too large, an id can name nothing), and those that its handler names by their status. Codes and
//! titles are `shared`'s own.

use serde_json::{Map, Value, json};
use shared::problem::{CONTENT_TYPE, Problem};

/// What a handler lists of codes where a status has several.
const CODES: &str = "x-codes";

/// Completes each operation of the document.
pub(super) fn add(document: &mut Value) {
    let mut components = Map::new();
    let paths = document
        .pointer_mut("/paths")
        .and_then(Value::as_object_mut);
    for (path, item) in paths.into_iter().flatten() {
        let dialect = Dialect::of(path);
        let operations = item.as_object_mut().into_iter().flatten();
        for operation in operations.filter_map(|(_, operation)| operation.as_object_mut()) {
            complete(operation, dialect, &mut components);
        }
    }
    let all = document
        .pointer_mut("/components")
        .and_then(Value::as_object_mut);
    if let Some(all) = all {
        all.insert("responses".to_owned(), Value::Object(components));
    }
}

/// Whose words problems are told in.
#[derive(Clone, Copy)]
enum Dialect {
    Ours,
    HrOn,
}

impl Dialect {
    fn of(path: &str) -> Self {
        if path.starts_with("/hr-on/") {
            Self::HrOn
        } else {
            Self::Ours
        }
    }
}

fn complete(
    operation: &mut Map<String, Value>,
    dialect: Dialect,
    components: &mut Map<String, Value>,
) {
    let implied = implied(operation);
    let takes_key = has_parameter(operation, "header", "Idempotency-Key");
    let responses = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut);
    let Some(responses) = responses else {
        return;
    };
    for status in implied {
        responses
            .entry(status.to_string())
            .or_insert_with(|| json!({}));
    }
    for (status, response) in responses.iter_mut() {
        let Some(problem) = status.parse().ok().and_then(of_status) else {
            continue;
        };
        let named = response.get(CODES).and_then(Value::as_array);
        let mut codes: Vec<Value> = named.cloned().unwrap_or_else(|| vec![problem.code.into()]);
        if problem.status == 422 && takes_key {
            codes.push(Problem::idempotency_mismatch().code.into());
        }
        let (name, component) = component(&problem, &codes, dialect);
        *response = json!({"$ref": format!("#/components/responses/{name}")});
        components.insert(name, component);
    }
}

/// The statuses that follow from what the operation takes.
fn implied(operation: &Map<String, Value>) -> Vec<u16> {
    let mut statuses = Vec::new();
    // `security: [{}]` is what a call says that asks for no credentials.
    if operation.get("security") != Some(&json!([{}])) {
        statuses.extend([401, 503]);
    }
    let parameters = operation.get("parameters").and_then(Value::as_array);
    for parameter in parameters.into_iter().flatten() {
        match parameter.get("in").and_then(Value::as_str) {
            Some("path") => statuses.push(404),
            Some("query") => statuses.push(400),
            _ => {}
        }
    }
    if has_parameter(operation, "header", "Idempotency-Key") {
        statuses.push(400);
    }
    if has_parameter(operation, "header", "If-Match") {
        statuses.push(412);
    }
    if operation.contains_key("requestBody") {
        statuses.extend([400, 413, 422]);
    }
    statuses
}

fn has_parameter(operation: &Map<String, Value>, place: &str, name: &str) -> bool {
    let parameters = operation.get("parameters").and_then(Value::as_array);
    parameters.into_iter().flatten().any(|parameter| {
        parameter.get("in").and_then(Value::as_str) == Some(place)
            && parameter.get("name").and_then(Value::as_str) == Some(name)
    })
}

/// The problem of a status, as handlers answer it; `None` for success.
fn of_status(status: u16) -> Option<Problem> {
    match status {
        400 => Some(Problem::bad_request("")),
        401 => Some(Problem::unauthorized()),
        404 => Some(Problem::not_found()),
        409 => Some(Problem::conflict("")),
        412 => Some(Problem::stale()),
        413 => Some(Problem::too_large("")),
        422 => Some(Problem::invalid(Vec::new())),
        429 => Some(Problem::too_many("")),
        503 => Some(Problem::unavailable("")),
        _ => None,
    }
}

/// The answer with one of these codes, and its name in the document.
fn component(problem: &Problem, codes: &[Value], dialect: Dialect) -> (String, Value) {
    let names: Vec<_> = codes.iter().filter_map(Value::as_str).collect();
    let mut name = names.join("-or-");
    let mut parts = vec![
        json!({"$ref": "#/components/schemas/Problem"}),
        json!({
            "type": "object",
            "properties": {"status": {"const": problem.status}, "code": {"enum": codes}},
        }),
    ];
    if let Dialect::HrOn = dialect {
        name = format!("hr-on.{name}");
        parts.push(json!({"$ref": "#/components/schemas/Refusal"}));
    }
    let header = match problem.status {
        401 => Some("WWW-Authenticate"),
        429 | 503 => Some("Retry-After"),
        _ => None,
    };
    let headers: Map<_, _> = header
        .map(|name| (name.to_owned(), json!({"schema": {"type": "string"}})))
        .into_iter()
        .collect();
    let component = json!({
        "description": problem.title,
        "headers": headers,
        "content": {CONTENT_TYPE: {"schema": {"allOf": parts}}},
    });
    (name, component)
}
