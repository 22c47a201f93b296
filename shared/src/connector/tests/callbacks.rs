//! Whatever a stranger sends.

use proptest::prelude::*;

use super::*;

/// JSON of the shapes and field names that the connectors look for, with anything inside.
fn callback_body() -> impl Strategy<Value = serde_json::Value> {
    let names = prop::sample::select(vec![
        "action",
        "payload",
        "application",
        "candidate",
        "person",
        "job",
        "job_post",
        "interview",
        "id",
        "employees",
        "fields",
        "type",
        "data",
        "timestamp",
        "employeeId",
        "value",
        "status",
        "jobs",
        "email_addresses",
        "deleted_application_ids",
        "new_candidate_id",
        "applied_at",
        "created_at",
    ]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
        prop::sample::select(vec![
            "merge_candidate",
            "delete_candidate",
            "new_candidate_application",
            "update_candidate",
            "job_created",
            "job_post_deleted",
            "employee.updated",
            "Updated",
            "9999-12-31T23:59:59Z",
            "2026-01-01T00:00:00Z",
        ])
        .prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(names.clone(), inner, 0..6).prop_map(|map| map
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..300), query in ".{0,40}", value in ".{0,20}") {
        for connector in connectors().iter() {
            let headers = [("greenhouse-event-id".to_owned(), value.clone())];
            let callback = Callback { method: "POST", query: &query, headers: &headers, body: &body };
            prop_assert!(connector.verify(&callback, Some("secret"), Timestamp::default()).is_err());
            map_unguarded(&connector.program, &connector.file.events, &callback).ok();
        }
    }

    #[test]
    fn whatever_maps_is_well_formed(body in callback_body()) {
        for connector in connectors().iter() {
            for event in map(connector, body.to_string().as_bytes()).unwrap_or_default() {
                prop_assert!(connector.events().contains(&event.event));
                prop_assert!(!event.record_id.trim().is_empty());
                prop_assert!(event.dedup.is_none_or(|dedup| !dedup.is_empty()));
                let is_object = event.event_data.is_none_or(|data| data.get().as_bytes()[0] == b'{');
                prop_assert!(is_object);
            }
        }
    }
}
