//! Request objects, taken apart field by field: every fault is reported at once, each with the
//! JSON pointer of its place, and `null` can be told from a missing field.
//!
//! Deliberately not `serde` derives: their errors name no place, and stop at the first one.

use serde_json::{Map, Value};
use shared::problem::{FieldError, Problem};
use shared::secret::hash_bytes;

use super::error::ApiError;

/// More faults than this help nobody; the answer stays small.
const ERRORS_MAX: usize = 50;

/// A parsed value, or what is wrong with it; pointers are relative to the value.
pub(crate) type Parsed<T> = Result<T, Vec<FieldError>>;

/// One fault of the value itself.
pub(crate) fn fault<T>(detail: impl Into<String>) -> Parsed<T> {
    fault_at("", detail)
}

/// One fault of a place within the value.
pub(crate) fn fault_at<T>(pointer: impl Into<String>, detail: impl Into<String>) -> Parsed<T> {
    Err(vec![FieldError {
        pointer: pointer.into(),
        detail: detail.into(),
    }])
}

/// `/` and the name as RFC 6901 escapes it.
pub(crate) fn pointer_to(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// What a PATCH says of a field that may be without a value (RFC 7396).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change<T> {
    Keep,
    Clear,
    Set(T),
}

impl<T: Clone> Change<T> {
    pub(crate) fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// What the field holds after the change.
    pub(crate) fn apply(&self, current: Option<&T>) -> Option<T> {
        match self {
            Self::Keep => current.cloned(),
            Self::Clear => None,
            Self::Set(value) => Some(value.clone()),
        }
    }
}

/// The members of a request's object that have not been taken yet, and the faults so far.
pub(crate) struct Fields {
    members: Map<String, Value>,
    errors: Vec<FieldError>,
}

/// SHA-256 of a request's object, whatever the order of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) [u8; 32]);

impl Digest {
    /// Of a request without a body.
    pub(crate) const OF_NOTHING: Self = Self([0; 32]);
}

impl Fields {
    pub(crate) fn digest(&self) -> Digest {
        // A map of JSON has no member that does not print.
        let text = serde_json::to_vec(&self.members).unwrap_or_default();
        Digest(hash_bytes(&[&text]))
    }

    pub(crate) fn new(members: Map<String, Value>) -> Self {
        Self {
            members,
            errors: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn into_members(self) -> Map<String, Value> {
        self.members
    }

    /// `None` when the field is missing, null or at fault, which [`Self::finish`] reports.
    pub(crate) fn required<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Parsed<T>,
    ) -> Option<T> {
        match self.members.remove(name) {
            Some(value) => self.keep_faults(name, parse(value)),
            None => self.keep_faults(name, fault("is required")),
        }
    }

    /// `None` when the field is missing, null or at fault.
    pub(crate) fn optional<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.members.remove(name).filter(|value| !value.is_null())?;
        self.keep_faults(name, parse(value))
    }

    /// A field of a PATCH that `null` clears.
    pub(crate) fn change<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Parsed<T>,
    ) -> Change<T> {
        match self.members.remove(name) {
            None => Change::Keep,
            Some(Value::Null) => Change::Clear,
            Some(value) => self
                .keep_faults(name, parse(value))
                .map_or(Change::Keep, Change::Set),
        }
    }

    /// A field of a PATCH that always has a value: `None` when it stays.
    pub(crate) fn replacement<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.members.remove(name)?;
        self.keep_faults(name, parse(value))
    }

    /// `built`, unless there were faults. What nobody took is one: a misspelt field must not be
    /// passed over in silence.
    pub(crate) fn finish<T>(mut self, built: Option<T>) -> Result<T, ApiError> {
        for name in self.members.keys() {
            self.errors.push(FieldError {
                pointer: pointer_to(name),
                detail: "there is no such field here, or it cannot be set".to_owned(),
            });
        }
        if !self.errors.is_empty() {
            self.errors.truncate(ERRORS_MAX);
            return Err(ApiError::Refused(Problem::invalid(self.errors)));
        }
        built.ok_or_else(|| ApiError::internal("a field is missing without a fault"))
    }

    fn keep_faults<T>(&mut self, name: &str, parsed: Parsed<T>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(faults) => {
                self.errors.extend(in_field(name, faults));
                None
            }
        }
    }
}

/// Faults of a field that showed only beside what was there already.
pub(crate) fn refused(name: &str, faults: Vec<FieldError>) -> ApiError {
    ApiError::Refused(Problem::invalid(in_field(name, faults).collect()))
}

fn in_field(name: &str, faults: Vec<FieldError>) -> impl Iterator<Item = FieldError> {
    let field = pointer_to(name);
    faults.into_iter().map(move |fault| FieldError {
        pointer: format!("{field}{}", fault.pointer),
        detail: fault.detail,
    })
}

/// A line of text: 1 to `bytes_max` bytes, no control characters.
pub(crate) fn line(bytes_max: usize) -> impl FnOnce(Value) -> Parsed<String> {
    move |value| match prose(bytes_max)(value)? {
        text if text.is_empty() => fault("must not be empty"),
        text if text.chars().any(char::is_control) => fault("must hold no control characters"),
        text => Ok(text),
    }
}

/// Any text of at most `bytes_max` bytes.
pub(crate) fn prose(bytes_max: usize) -> impl FnOnce(Value) -> Parsed<String> {
    move |value| match value {
        Value::String(text) if text.len() <= bytes_max => Ok(text),
        Value::String(_) => fault(format!("must be at most {bytes_max} bytes")),
        _ => fault("must be text"),
    }
}

pub(crate) fn object(value: Value) -> Parsed<Map<String, Value>> {
    match value {
        Value::Object(members) => Ok(members),
        _ => fault("must be an object"),
    }
}

pub(crate) fn boolean(value: Value) -> Parsed<bool> {
    value
        .as_bool()
        .map_or_else(|| fault("must be true or false"), Ok)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(json: Value) -> Fields {
        Fields::new(object(json).unwrap())
    }

    fn pointers<T>(result: Result<T, ApiError>) -> Vec<String> {
        match result {
            Ok(_) => Vec::new(),
            Err(ApiError::Refused(problem)) => {
                assert_eq!(problem.status, 422);
                problem
                    .errors
                    .into_iter()
                    .map(|error| error.pointer)
                    .collect()
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn every_fault_is_reported_with_its_place() {
        let mut fields = fields(json!({"name": 1, "long": "abc", "a/b~c": 1, "flag": "yes"}));
        let name = fields.required("name", line(10));
        fields.required("url", line(10));
        fields.optional("long", prose(2));
        fields.optional("flag", boolean);
        assert_eq!(
            pointers(fields.finish(name)),
            ["/name", "/url", "/long", "/flag", "/a~1b~0c"]
        );
    }

    #[test]
    fn null_is_missing_on_create_and_clears_on_patch() {
        let mut taken = fields(json!({"name": null, "description": null, "url": "x"}));
        assert_eq!(taken.optional("name", line(10)), None);
        assert_eq!(taken.change("description", line(10)), Change::Clear);
        assert_eq!(taken.change("other", line(10)), Change::Keep);
        assert_eq!(taken.change("url", line(10)), Change::Set("x".into()));
        assert!(pointers(taken.finish(Some(()))).is_empty());

        let mut refused = fields(json!({"required": null, "replaced": null}));
        assert_eq!(refused.required("required", line(10)), None);
        assert_eq!(refused.replacement("replaced", line(10)), None);
        assert_eq!(
            pointers(refused.finish(Some(()))),
            ["/required", "/replaced"]
        );
    }

    #[test]
    fn changes_apply_to_what_is_there() {
        let now = "now".to_owned();
        let cases = [
            (Change::Keep, Some("now")),
            (Change::Clear, None),
            (Change::Set("new".to_owned()), Some("new")),
        ];
        for (change, expected) in cases {
            assert_eq!(change.apply(Some(&now)).as_deref(), expected);
        }
    }

    #[test]
    fn lines_have_bounds() {
        for (value, valid) in [
            (json!("ä"), true),
            (json!(""), false),
            (json!("a\nb"), false),
            (json!("abc"), false),
            (json!(1), false),
        ] {
            assert_eq!(line(2)(value.clone()).is_ok(), valid, "{value}");
        }
    }

    #[test]
    fn the_answer_to_a_thousand_faults_is_bounded() {
        let members = (0..1_000).map(|n| (n.to_string(), Value::Null)).collect();
        assert_eq!(
            pointers(Fields::new(members).finish(Some(()))).len(),
            ERRORS_MAX
        );
    }
}
