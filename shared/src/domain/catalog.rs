//! The event types there are: StackOne's 60 names (its guide's table), HR-ON's departments, and
//! what the platform says of webhooks. HR-ON's eight names are other names of eight of these.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::event::EventType;
use crate::ids::EventTypeHash;
use crate::partition::event_type_hash;

/// Resources whose three actions are in the catalog.
const RESOURCES: [&str; 21] = [
    "account",
    "hris_employees",
    "hris_employments",
    "ats_assessments",
    "ats_candidates",
    "ats_applications",
    "ats_interviews",
    "ats_jobs",
    "ats_job_postings",
    "ats_lists",
    "ats_users",
    "crm_accounts",
    "crm_contacts",
    "lms_assignments",
    "lms_completions",
    "lms_content",
    "lms_courses",
    "lms_users",
    "documents_files",
    "documents_folders",
    "hr_departments",
];
const ACTIONS: [&str; 3] = ["created", "updated", "deleted"];
const WEBHOOK_ACTIONS: [&str; 3] = ["deactivated", "failing", "recovered"];

/// HR-ON's names and ours, in the order of its guide.
pub const HR_ON_NAMES: [(&str, &str); 8] = [
    ("DepartmentCreated", "hr_departments.created"),
    ("DepartmentDeleted", "hr_departments.deleted"),
    ("DepartmentUpdated", "hr_departments.updated"),
    ("DocumentDeleted", "documents_files.deleted"),
    ("DocumentUploaded", "documents_files.created"),
    ("EmployeeCreated", "hris_employees.created"),
    ("EmployeeDeleted", "hris_employees.deleted"),
    ("EmployeeUpdated", "hris_employees.updated"),
];

/// Every name of the catalog, in its order.
pub fn names() -> impl Iterator<Item = String> {
    let three = |resource| ACTIONS.map(move |action| format!("{resource}.{action}"));
    RESOURCES
        .into_iter()
        .flat_map(three)
        .chain(WEBHOOK_ACTIONS.map(|action| format!("webhook.{action}")))
}

pub fn contains(event_type: &EventType) -> bool {
    match event_type.resource() {
        "webhook" => WEBHOOK_ACTIONS.contains(&event_type.action()),
        resource => RESOURCES.contains(&resource) && ACTIONS.contains(&event_type.action()),
    }
}

/// The type of the catalog that JOURNAL calls so.
pub fn by_hash(hash: EventTypeHash) -> Option<&'static EventType> {
    static TYPES: LazyLock<HashMap<EventTypeHash, EventType>> = LazyLock::new(|| {
        let types = names().filter_map(|name| EventType::parse(&name).ok());
        types
            .map(|known| (event_type_hash(&known), known))
            .collect()
    });
    TYPES.get(&hash)
}

/// Whether `resource.*` can match anything.
pub fn contains_resource(resource: &str) -> bool {
    resource == "webhook" || RESOURCES.contains(&resource)
}

/// Whether the event's record is a webhook.
pub fn is_about_webhooks(event_type: &EventType) -> bool {
    event_type.resource() == "webhook"
}

/// What only the platform itself may say.
pub fn is_reserved(event_type: &EventType) -> bool {
    matches!(event_type.resource(), "account" | "webhook")
}

/// The type that either dialect's name stands for, if the catalog has it.
pub fn resolve(name: &str) -> Option<EventType> {
    let unified = HR_ON_NAMES
        .iter()
        .find(|(hr_on, _)| *hr_on == name)
        .map_or(name, |(_, unified)| unified);
    EventType::parse(unified).ok().filter(contains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_has_the_guides_sixty_names_and_our_additions() {
        let names: Vec<_> = names().collect();
        assert_eq!(names.len(), 60 + 3 + 3);
        for name in &names {
            let event_type = resolve(name).unwrap();
            assert_eq!(event_type.as_str(), name);
            assert_eq!(by_hash(event_type_hash(&event_type)), Some(&event_type));
        }
    }

    #[test]
    fn both_dialects_name_the_same_types() {
        for (hr_on, unified) in HR_ON_NAMES {
            assert_eq!(resolve(hr_on), resolve(unified));
            assert!(resolve(hr_on).is_some(), "{hr_on}");
        }
        for unknown in [
            "EmployeeHired",
            "hris_employees.hired",
            "webhook.created",
            "*",
            "",
        ] {
            assert!(resolve(unknown).is_none(), "{unknown}");
        }
    }
}
