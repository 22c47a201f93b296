//! Whether what is documented of a request is what its parser takes.

use serde_json::{Map, Value, json};
use utoipa::PartialSchema;

use crate::api::error::ApiError;
use crate::api::fields::Fields;

/// The parser takes the examples of all fields; it misses those that are required, and no others;
/// it takes null where that is documented, and nowhere else. `others` are examples of
/// fields whose schema is another one's, which has no place for them.
#[track_caller]
pub(crate) fn check<Request: PartialSchema>(
    others: &Value,
    parse: impl Fn(Fields) -> Result<(), ApiError>,
) {
    let schema = serde_json::to_value(Request::schema()).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let example = |(name, property): (&String, &Value)| {
        let example = property.get("example").or_else(|| others.get(name));
        let example = example.unwrap_or_else(|| panic!("{name}: no example"));
        (name.clone(), example.clone())
    };
    let whole: Map<_, _> = properties.iter().map(example).collect();
    let takes = |members: &Map<String, Value>| parse(Fields::new(members.clone())).is_ok();
    assert!(
        takes(&whole),
        "{:?}",
        parse(Fields::new(whole.clone())).err()
    );
    for (name, property) in properties {
        let mut without = whole.clone();
        without.remove(name);
        let is_required = required.contains(&json!(name));
        assert_eq!(takes(&without), !is_required, "without {name}");
        let mut with_null = whole.clone();
        with_null.insert(name.clone(), Value::Null);
        assert_eq!(
            takes(&with_null),
            takes_null(property),
            "null {name}: {property}"
        );
    }
}

fn takes_null(property: &Value) -> bool {
    let types = property.get("type").and_then(Value::as_array);
    let kinds = property.get("oneOf").and_then(Value::as_array);
    types.is_some_and(|types| types.contains(&json!("null")))
        || kinds.is_some_and(|kinds| kinds.contains(&json!({"type": "null"})))
}
