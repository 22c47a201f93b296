//! Which events a webhook wants: a list of selectors, of which any may match.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::catalog;
use super::event::{Event, EventType, InvalidEventType, Source};
use crate::limits::{NAME_BYTES_MAX, SELECTOR_NAMES_MAX, SELECTORS_MAX};

/// As JSON. Some hundred names fit; every replica keeps each version of every webhook for weeks.
const SELECTION_JSON_BYTES_MAX: usize = 16 << 10;

/// A webhook's whole selection; empty only in what is left of a deleted webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Selection {
    selectors: Vec<Selector>,
    /// What it holds in memory, about.
    #[serde(skip)]
    bytes: usize,
}

/// The selection is refused; the pointer is relative to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct InvalidSelection {
    /// JSON pointer into the list, such as `/0/event`.
    pub pointer: String,
    pub detail: String,
}

/// One element of `events`: a pattern, and optionally who and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    pub pattern: Pattern,
    /// Connector keys; empty means any, and events without a provider too.
    pub providers: Vec<String>,
    /// Empty means any.
    pub sources: Vec<SourceFilter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    All,
    Resource(Box<str>),
    Exact(EventType),
}

/// A source, or `native` for both native ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceFilter {
    Native,
    NativeProgrammatic,
    NativeManual,
    Synthetic,
    Account,
    FirstParty,
}

impl Selection {
    /// Checks sizes, counts, and names against the catalog.
    pub fn new(selectors: Vec<Selector>) -> Result<Self, InvalidSelection> {
        let refuse = |pointer: String, detail: String| Err(InvalidSelection { pointer, detail });
        if selectors.is_empty() || selectors.len() > SELECTORS_MAX {
            let detail = format!("must hold 1 to {SELECTORS_MAX} selectors");
            return refuse(String::new(), detail);
        }
        for (index, selector) in selectors.iter().enumerate() {
            match &selector.pattern {
                Pattern::Exact(name) if !catalog::contains(name) => {
                    return refuse(format!("/{index}"), format!("unknown event type {name:?}"));
                }
                Pattern::Resource(name) if !catalog::contains_resource(name) => {
                    return refuse(format!("/{index}"), format!("unknown resource {name:?}"));
                }
                Pattern::All | Pattern::Resource(_) | Pattern::Exact(_) => {}
            }
            let names = &selector.providers;
            if names.len() > SELECTOR_NAMES_MAX
                || names
                    .iter()
                    .any(|name| name.is_empty() || name.len() > NAME_BYTES_MAX)
            {
                let detail = format!("must hold at most {SELECTOR_NAMES_MAX} connector keys");
                return refuse(format!("/{index}/providers"), detail);
            }
            // Repeats match nothing more, and were a way to make the log and every replica large.
            if let Some(at) = first_repeat(names) {
                return refuse(format!("/{index}/providers/{at}"), "is there twice".into());
            }
            if let Some(at) = first_repeat(&selector.sources) {
                return refuse(format!("/{index}/sources/{at}"), "is there twice".into());
            }
        }
        let selection = Self::stored(selectors);
        match serde_json::to_vec(&selection) {
            Ok(json) if json.len() <= SELECTION_JSON_BYTES_MAX => Ok(selection),
            Ok(_) | Err(_) => {
                let detail = format!("must be at most {SELECTION_JSON_BYTES_MAX} bytes of JSON");
                refuse(String::new(), detail)
            }
        }
    }

    /// As it lies in the log, where it was checked when it was written: by a catalog that may
    /// have been another one.
    pub(crate) fn stored(selectors: Vec<Selector>) -> Self {
        let bytes = selectors.iter().map(Selector::held_bytes).sum();
        Self { selectors, bytes }
    }

    /// What it holds in memory, about.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes
    }

    pub fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    pub fn matches(&self, event: &Event) -> bool {
        self.selectors
            .iter()
            .any(|selector| selector.matches(event))
    }
}

/// Index of the first element that stands before it too.
fn first_repeat<T: PartialEq>(elements: &[T]) -> Option<usize> {
    let mut places = elements.iter().enumerate();
    places.position(|(at, element)| elements.iter().take(at).any(|one| one == element))
}

impl Selector {
    fn held_bytes(&self) -> usize {
        let pattern = match &self.pattern {
            Pattern::All => 0,
            Pattern::Resource(resource) => resource.len(),
            Pattern::Exact(event_type) => event_type.as_str().len(),
        };
        let name = |name: &String| size_of::<String>().saturating_add(name.len());
        let names = self.providers.iter().map(name).sum::<usize>();
        size_of::<Self>()
            .saturating_add(pattern)
            .saturating_add(names)
            .saturating_add(self.sources.len())
    }

    fn matches(&self, event: &Event) -> bool {
        let pattern = match &self.pattern {
            Pattern::All => true,
            Pattern::Resource(resource) => **resource == *event.event_type.resource(),
            Pattern::Exact(event_type) => *event_type == event.event_type,
        };
        let provider = || {
            self.providers.is_empty()
                || event
                    .provider
                    .as_deref()
                    .is_some_and(|key| self.providers.iter().any(|provider| provider == key))
        };
        let source = || {
            self.sources.is_empty()
                || self
                    .sources
                    .iter()
                    .any(|source| source.matches(event.source))
        };
        pattern && provider() && source()
    }
}

impl SourceFilter {
    fn matches(self, source: Source) -> bool {
        match source {
            Source::NativeProgrammatic => matches!(self, Self::Native | Self::NativeProgrammatic),
            Source::NativeManual => matches!(self, Self::Native | Self::NativeManual),
            Source::Synthetic => self == Self::Synthetic,
            Source::Account => self == Self::Account,
            Source::FirstParty => self == Self::FirstParty,
            Source::Test => false,
        }
    }
}

impl Pattern {
    /// By its form alone.
    pub(crate) fn stored(text: &str) -> Result<Self, InvalidEventType> {
        if text == "*" {
            return Ok(Self::All);
        }
        match text.strip_suffix(".*") {
            Some(resource) => Ok(Self::Resource(resource.into())),
            None => EventType::parse(text).map(Self::Exact),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        if let Some(resource) = text.strip_suffix(".*") {
            return Ok(Self::Resource(resource.into()));
        }
        catalog::resolve(text)
            .map(Self::Exact)
            .ok_or_else(|| format!("unknown event type {text:?}"))
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Resource(resource) => write!(f, "{resource}.*"),
            Self::Exact(event_type) => event_type.fmt(f),
        }
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.providers.is_empty() && self.sources.is_empty() {
            return serializer.collect_str(&self.pattern);
        }
        SelectorObject {
            event: self.pattern.to_string(),
            providers: self.providers.clone(),
            sources: self.sources.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = match SelectorForm::deserialize(deserializer)? {
            SelectorForm::Text(event) => SelectorObject {
                event,
                providers: Vec::new(),
                sources: Vec::new(),
            },
            SelectorForm::Object(object) => object,
        };
        Ok(Self {
            pattern: Pattern::parse(&object.event).map_err(D::Error::custom)?,
            providers: object.providers,
            sources: object.sources,
        })
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected an event pattern or {\"event\", \"providers\", \"sources\"}"
)]
enum SelectorForm {
    Text(String),
    Object(SelectorObject),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectorObject {
    event: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    providers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sources: Vec<SourceFilter>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::test_event;

    fn selection(json: &str) -> Selection {
        Selection::new(serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn selectors_match_by_pattern_provider_and_source() {
        let event = test_event(
            "hris_employees.created",
            Source::NativeManual,
            Some("bamboohr"),
        );
        let cases = [
            (r#"["*"]"#, true),
            (r#"["hris_employees.*"]"#, true),
            (r#"["EmployeeCreated"]"#, true),
            (r#"["hris_employees.updated"]"#, false),
            (r#"["ats_jobs.*","hris_employees.created"]"#, true),
            (r#"[{"event":"*","providers":["bamboohr"]}]"#, true),
            (r#"[{"event":"*","providers":["greenhouse"]}]"#, false),
            (r#"[{"event":"*","sources":["native"]}]"#, true),
            (
                r#"[{"event":"*","sources":["native_programmatic","synthetic"]}]"#,
                false,
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(selection(json).matches(&event), expected, "{json}");
        }
    }

    #[test]
    fn selections_print_as_they_were_given() {
        let json = r#"["*","hris_employees.*",{"event":"ats_candidates.*","providers":["greenhouse"],"sources":["native"]}]"#;
        assert_eq!(serde_json::to_string(&selection(json)).unwrap(), json);
    }

    #[test]
    fn what_only_makes_it_larger_is_refused_with_its_place() {
        let refused = |selectors: serde_json::Value| {
            let selectors = serde_json::from_value(selectors).unwrap();
            Selection::new(selectors)
                .err()
                .map(|refused| refused.pointer)
        };
        let one = serde_json::json!({"event": "*", "providers": ["a"], "sources": ["native"]});
        assert_eq!(refused(serde_json::json!([one, one])), None);
        let twice = serde_json::json!({"event": "*", "providers": ["a", "b", "a"]});
        assert_eq!(
            refused(serde_json::json!(["*", twice])).unwrap(),
            "/1/providers/2"
        );
        let twice = serde_json::json!({"event": "*", "sources": ["native", "native"]});
        assert_eq!(refused(serde_json::json!([twice])).unwrap(), "/0/sources/1");
        // Within every count.
        let names: Vec<_> = (0..100).map(|n| format!("provider-{n}")).collect();
        let large = serde_json::json!({"event": "*", "providers": names});
        assert_eq!(refused(serde_json::json!([large])), None);
        assert_eq!(refused(serde_json::json!(vec![large; 20])).unwrap(), "");
    }

    #[test]
    fn what_can_never_match_is_refused() {
        for json in [r#"[]"#, r#"["hris_dogs.*"]"#] {
            assert!(
                Selection::new(serde_json::from_str(json).unwrap()).is_err(),
                "{json}"
            );
        }
        for json in [
            r#"["hris_employees.hired"]"#,
            r#"[1]"#,
            r#"[{"event":"*","x":1}]"#,
        ] {
            assert!(
                serde_json::from_str::<Vec<Selector>>(json).is_err(),
                "{json}"
            );
        }
    }
}
