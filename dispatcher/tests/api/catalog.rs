//! What is the same for every project: event types and connectors.

use std::collections::BTreeSet;

use serde_json::json;

use crate::nats_server::NatsServer;
use crate::support::Api;

#[actix_web::test]
async fn the_catalog_has_the_names_of_the_guide_and_the_additions_of_both_dialects() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let key = api.project("Acme").await.key;
    let answer = api.get(&key, "/v1/event_types").await.expect(200);
    let items = answer.body["items"].as_array().unwrap();
    let names: BTreeSet<&str> = items
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect();
    assert_eq!((items.len(), names.len()), (66, 66));
    // The table of StackOne's guide, and what is added to it.
    let expected: BTreeSet<String> = [
        ("account", "created updated deleted"),
        ("hris_employees", "created updated deleted"),
        ("hris_employments", "created updated deleted"),
        ("ats_assessments", "created updated deleted"),
        ("ats_candidates", "created updated deleted"),
        ("ats_applications", "created updated deleted"),
        ("ats_interviews", "created updated deleted"),
        ("ats_jobs", "created updated deleted"),
        ("ats_job_postings", "created updated deleted"),
        ("ats_lists", "created updated deleted"),
        ("ats_users", "created updated deleted"),
        ("crm_accounts", "created updated deleted"),
        ("crm_contacts", "created updated deleted"),
        ("lms_assignments", "created updated deleted"),
        ("lms_completions", "created updated deleted"),
        ("lms_content", "created updated deleted"),
        ("lms_courses", "created updated deleted"),
        ("lms_users", "created updated deleted"),
        ("documents_files", "created updated deleted"),
        ("documents_folders", "created updated deleted"),
        ("hr_departments", "created updated deleted"),
        ("webhook", "deactivated failing recovered"),
    ]
    .iter()
    .flat_map(|(resource, actions)| {
        let actions = actions.split(' ');
        actions.map(move |action| format!("{resource}.{action}"))
    })
    .collect();
    assert_eq!(names, expected.iter().map(String::as_str).collect());
    for item in items {
        assert_eq!(item["schema"]["properties"]["event"]["const"], item["name"]);
        assert_eq!(item["example"]["event"], item["name"]);
        assert_eq!(item["example"]["record_type"], item["record_type"]);
    }
    let hr_on: Vec<_> = items
        .iter()
        .filter_map(|item| item["hr_on"]["name"].as_str())
        .collect();
    assert_eq!(hr_on.len(), 8);
    let updated = items
        .iter()
        .find(|item| item["name"] == "hris_employees.updated");
    assert_eq!(
        updated.unwrap()["hr_on"]["example"],
        json!({
            "message": "An employee has been updated",
            "eventName": "EmployeeUpdated",
            "sentAt": "2025-06-17T11:00:00.000Z",
            "employeeId": "3fe2987b-ef4e-4b7c-b321-89585e2a4178",
        })
    );
    api.get("ck_unknown", "/v1/event_types").await.expect(401);
}

#[actix_web::test]
async fn connectors_tell_what_their_files_say() {
    let nats = NatsServer::start().await;
    let api = Api::start(&nats).await;
    let key = api.project("Acme").await.key;
    let answer = api.get(&key, "/v1/connectors").await.expect(200);
    let items = answer.body["items"].as_array().unwrap();
    let providers: Vec<_> = items.iter().map(|item| &item["provider"]).collect();
    assert_eq!(providers, ["bamboohr", "greenhouse"]);
    let one = api.get(&key, "/v1/connectors/bamboohr").await.expect(200);
    assert_eq!(one.body, items[0]);
    assert_eq!(one.text("/name"), "BambooHR");
    assert_eq!(one.text("/signing_secret"), "given");
    assert_eq!(
        one.text("/verification/hmac/signature/header"),
        "x-bamboohr-signature"
    );
    assert!(one.body["events"].as_array().unwrap().len() == 3);
    api.get(&key, "/v1/connectors/acme").await.expect(404);
}
