//! HR-ON's payload, as its webhook guide prints it: `message`, `eventName`, `sentAt`, and the one
//! id that the event is about. The guide shows only the employee's example; the other seven
//! shapes and all messages but that one follow from its rules.

use serde::Serialize;

use crate::domain::catalog::HR_ON_NAMES;
use crate::domain::event::EventType;
use crate::domain::filter::{Pattern, Selection, Selector};
use crate::time::Timestamp;

/// Carries the webhook's token; the guide writes it `X-HR-ON-Token`, and names of headers have no
/// case.
pub const TOKEN_HEADER: &str = "x-hr-on-token";

/// What names begin with, by what they are about.
const EMPLOYEE: &str = "Employee";
const DEPARTMENT: &str = "Department";
const DOCUMENT: &str = "Document";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    message: &'a str,
    event_name: &'a str,
    sent_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    employee_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    department_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document_id: Option<&'a str>,
}

/// HR-ON's name of a unified type, if it has one.
pub fn event_name(event_type: &EventType) -> Option<&'static str> {
    HR_ON_NAMES
        .iter()
        .find(|(_, unified)| *unified == event_type.as_str())
        .map(|(name, _)| *name)
}

/// The unified type that one of HR-ON's names stands for.
pub fn event_type(name: &str) -> Option<EventType> {
    HR_ON_NAMES
        .iter()
        .find(|(hr_on, _)| *hr_on == name)
        .and_then(|(_, unified)| EventType::parse(unified).ok())
}

/// Selects events by HR-ON's names, whatever their source.
pub fn selector(event_type: EventType) -> Selector {
    Selector {
        pattern: Pattern::Exact(event_type),
        providers: Vec::new(),
        sources: Vec::new(),
    }
}

/// HR-ON's names of what is selected, in its order; `None` if anything else is selected.
pub fn event_names(selection: &Selection) -> Option<Vec<&'static str>> {
    let names = selection.selectors().iter().map(|selector| {
        let Pattern::Exact(event_type) = &selector.pattern else {
            return None;
        };
        let is_whole = selector.providers.is_empty() && selector.sources.is_empty();
        event_name(event_type).filter(|_| is_whole)
    });
    names.collect()
}

/// The field that holds the id of what an event of this name is about.
pub fn id_field(name: &str) -> &'static str {
    match name {
        name if name.starts_with(EMPLOYEE) => "employeeId",
        name if name.starts_with(DEPARTMENT) => "departmentId",
        _ => "documentId",
    }
}

/// The JSON body; `None` for a type that HR-ON has no name for.
pub fn render(event_type: &EventType, record_id: &str, sent_at: Timestamp) -> Option<Vec<u8>> {
    let name = event_name(event_type)?;
    let about = |prefix| name.starts_with(prefix).then_some(record_id);
    let body = Body {
        message: describe(name),
        event_name: name,
        sent_at,
        employee_id: about(EMPLOYEE),
        department_id: about(DEPARTMENT),
        document_id: about(DOCUMENT),
    };
    serde_json::to_vec(&body).ok()
}

/// What the event of this name tells: its `message`, and the description of the name.
pub fn describe(name: &str) -> &'static str {
    match name {
        "EmployeeCreated" => "An employee has been created",
        "EmployeeUpdated" => "An employee has been updated",
        "EmployeeDeleted" => "An employee has been deleted",
        "DepartmentCreated" => "A department has been created",
        "DepartmentUpdated" => "A department has been updated",
        "DepartmentDeleted" => "A department has been deleted",
        "DocumentUploaded" => "A document has been uploaded",
        _ => "A document has been deleted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(event_type: &str) -> Option<String> {
        let event_type = EventType::parse(event_type).unwrap();
        let sent_at = Timestamp::from_millis(1_750_158_000_000);
        render(&event_type, "3fe2987b", sent_at).map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn the_employee_event_is_the_guides_example() {
        assert_eq!(
            rendered("hris_employees.updated").unwrap(),
            concat!(
                r#"{"message":"An employee has been updated","eventName":"EmployeeUpdated","#,
                r#""sentAt":"2025-06-17T11:00:00.000Z","employeeId":"3fe2987b"}"#
            )
        );
    }

    #[test]
    fn each_name_carries_its_own_id_field_and_message() {
        for (name, unified) in HR_ON_NAMES {
            let body: serde_json::Value =
                serde_json::from_str(&rendered(unified).unwrap()).unwrap();
            assert_eq!(body["eventName"], name);
            let fields = ["employeeId", "departmentId", "documentId"];
            let present: Vec<_> = fields
                .iter()
                .filter(|field| body.get(field).is_some())
                .collect();
            let kind = name.chars().take(3).collect::<String>().to_lowercase();
            assert_eq!(present.len(), 1, "{name}");
            assert!(present[0].starts_with(&kind), "{name}");
            let verb = unified.split_once('.').unwrap().1;
            let verb = if name == "DocumentUploaded" {
                "uploaded"
            } else {
                verb
            };
            assert!(body["message"].as_str().unwrap().ends_with(verb), "{name}");
        }
    }

    #[test]
    fn other_types_have_no_rendering() {
        assert_eq!(rendered("ats_jobs.created"), None);
        assert_eq!(rendered("documents_files.updated"), None);
    }
}
